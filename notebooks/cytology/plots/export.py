"""What each exported file costs, and how far it is from its network: notebook 12."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cytology.architectures import NETWORK_TITLE
from cytology.plots.style import GREY, NETWORK_COLOUR, NETWORK_MARKER, WRONG

PANELS = {
    "megabytes": ("How large is the file?", "size in MB"),
    "latency": ("How long does an image take?", "one image in ms"),
    "largest_difference": ("Does it say the same?", "largest difference of the logit"),
}
EXACT = 1e-8  # stands for 0, which has no place on a logarithmic axis


def exports(table: pd.DataFrame) -> Figure:
    """Size, latency and difference of each format, a mark a network; red where it disagrees.

    `table` is `tables/exports.csv`. A dotted line is what a network's formats in float32 must keep.
    """
    formats = _formats_in_order(table)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 0.5 * len(formats) + 1.7), sharey=True)
    for axis, (column, (title, label)) in zip(axes, PANELS.items(), strict=True):
        middle = (table["architecture"].nunique() - 1) / 2
        for place, (name, rows) in enumerate(table.groupby("architecture", sort=False)):
            axis.scatter(
                rows[column].astype(float).clip(lower=EXACT),
                rows["format"].map(formats.index) + 0.2 * (place - middle),
                s=70,
                marker=NETWORK_MARKER[name],
                color=NETWORK_COLOUR[name],
                edgecolors=["black" if agrees else WRONG for agrees in rows["agrees"]],
                linewidths=[0.6 if agrees else 2.5 for agrees in rows["agrees"]],
                zorder=3,
                label=NETWORK_TITLE[name],
            )
        axis.set(title=title, xlabel=label, xscale="log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    _small_steps(axes[:2])
    axes[-1].xaxis.set_major_locator(LogLocator(numticks=5))
    for tolerance in table["tolerance"].dropna().unique():
        axes[-1].axvline(tolerance, color=GREY, linestyle=":")
    axes[0].set_yticks(range(len(formats)), [name.replace("_", " ") for name in formats])
    axes[0].set_ylim(len(formats) - 0.4, -0.6)
    handles, labels = axes[0].get_legend_handles_labels()
    if not table["agrees"].all():
        handles.append(
            axes[0].scatter([], [], s=70, color="white", edgecolors=WRONG, linewidths=2.5)
        )
        labels.append("does not agree")
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _formats_in_order(table: pd.DataFrame) -> list[str]:
    """The formats in the order of the network that has most of them."""
    lists = sorted((list(rows) for _, rows in table.groupby("architecture")["format"]), key=len)
    return list(dict.fromkeys(name for names in lists[::-1] for name in names))


def _small_steps(axes) -> None:
    """Marks at 1, 2 and 5 of each power of ten."""
    for axis in axes:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    """A tick in figures: `0.001`, `20`; what is too small to matter as 0."""
    return "0" if value <= EXACT * 1.01 else f"{value:g}"
