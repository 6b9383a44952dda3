"""The figure of the subgroups: where a network fails."""

import pandas as pd
from matplotlib.figure import Figure

from cytology.evaluation.readable import title, too_few
from cytology.plots.style import GREY, NETWORK_COLOUR, NETWORK_MARKER, panels
from cytology.wording import shortened

PANELS = {"auc": "AUC", "recall": "sensitivity", "specificity": "specificity"}


def forest(table: pd.DataFrame, unit: str) -> Figure:
    """AUC, sensitivity and specificity of one network in each subgroup, with intervals.

    `table` holds the rows of one network of `subgroups.subgroup_table`. A dashed line is the number
    of all images. What rests on too few groups is not drawn, and says so.
    """
    network, count = table["model"].iloc[0], len(table)
    figure, axes = panels(len(PANELS), 12, 1.6 + 0.34 * count)
    look = {"color": NETWORK_COLOUR[network]}
    for axis, (metric, name) in zip(axes, PANELS.items(), strict=True):
        axis.axvline(table[metric].iloc[0], color=GREY, linestyle="--", linewidth=1)
        for place, (_, row) in enumerate(table.iterrows()):
            why = too_few(row, metric, unit)
            if why or pd.isna(row[metric]):
                axis.text(0.02, place, "too few", color=GREY, fontsize=9, va="center",
                          transform=axis.get_yaxis_transform())  # fmt: skip
                continue
            axis.plot(
                [row[f"{metric}_low"], row[f"{metric}_high"]], [place] * 2, linewidth=2, **look
            )
            axis.plot(row[metric], place, NETWORK_MARKER[network], markersize=7, **look)
        new = table["column"].ne(table["column"].shift())
        for place in [place for place, first in enumerate(new) if first and place]:
            axis.axhline(place - 0.5, color="#dddddd", linewidth=1)
        lowest = table[[metric, f"{metric}_low"]].min(axis=None)
        axis.set(title=name, xlim=(max(0, min(lowest - 0.05, 0.45)), 1.03))
    words = [
        shortened(": ".join(filter(None, (row.column, row.subgroup))))
        + f" ({row.images} images, {row.groups})"
        for row in table.itertuples()
    ]
    axes[0].set_yticks(range(count), words, fontsize=9)
    axes[0].set_ylim(count - 0.4, -0.6)
    figure.suptitle(
        f"{title(network)}; bars: 95 % by {unit}, whose number stands last", fontsize=11
    )
    return figure
