"""What each exported file costs, and how far it is from its network: notebook 12."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cytology.plots.style import GREY, NETWORK_COLOUR
from cytology.settings import NETWORK_TITLE

MARKERS = {"mobilenetv2": "o", "inceptionv3": "s", "densenet121": "^"}
PANELS = {
    "megabytes": "size in MB",
    "latency": "one image in ms",
    "largest_difference": "largest difference of the logit",
}
RED = "#b00020"
EXACT = 1e-8  # a difference of 0 has no place on a logarithmic axis


def exports(table: pd.DataFrame) -> Figure:
    """Size, latency and difference of each format, a mark a network; red where it disagrees.

    `table` is `tables/exports.csv`. The dotted line is what float32 formats must keep.
    """
    formats = list(dict.fromkeys(table["format"]))[::-1]
    height = 0.55 * len(formats) + 1.6
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, height), sharey=True)
    for axis, (column, label) in zip(axes, PANELS.items(), strict=True):
        for place, (name, rows) in enumerate(table.groupby("architecture", sort=False)):
            values = rows[column].clip(lower=EXACT)
            heights = rows["format"].map(formats.index) + 0.18 * (1 - place)
            axis.scatter(
                values,
                heights,
                s=70,
                marker=MARKERS[name],
                color=NETWORK_COLOUR[name],
                edgecolors=["black" if agrees else RED for agrees in rows["agrees"]],
                linewidths=[0.6 if agrees else 2.5 for agrees in rows["agrees"]],
                zorder=3,
                label=NETWORK_TITLE[name],
            )
        axis.set(xlabel=label, xscale="log")
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    for tolerance in table["tolerance"].dropna().unique():
        axes[-1].axvline(tolerance, color=GREY, linestyle=":")
    axes[0].set_yticks(range(len(formats)), [name.replace("_", " ") for name in formats])
    axes[0].set_ylim(-0.6, len(formats) - 0.4)
    handles, labels = axes[0].get_legend_handles_labels()
    if not table["agrees"].all():
        handles.append(axes[0].scatter([], [], s=70, color="white", edgecolors=RED, linewidths=2.5))
        labels.append("does not agree")
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
