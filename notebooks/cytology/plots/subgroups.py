"""The figures of the subgroups, where a network fails, and of images of neither class."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cytology.audits.unseen import share_called
from cytology.evaluation.readable import title, too_few
from cytology.plots.style import (
    CLASS_COLOUR,
    GREY,
    HOLLOW,
    NETWORK_COLOUR,
    NETWORK_MARKER,
    entry,
    panels,
)
from cytology.wording import plural, shortened

PANELS = {"auc": "AUC", "recall": "sensitivity", "specificity": "specificity"}
MOST_MARKS = 300  # images of a category that are drawn; medians and shares rest on all
OF_LABEL = {"B": "benign", "": "of neither class", "M": "malignant"}


def forest_plot(table: pd.DataFrame, unit: str) -> Figure:
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
        f"{title(network)}; bars: 95 % by {unit}; in brackets: images, {plural(unit)}", fontsize=11
    )
    return figure


def strip_plot(scores: pd.DataFrame, table: pd.DataFrame, unit: str) -> Figure:
    """Calibrated probability of every image, a strip per category, a panel per network.

    `scores` and `table` are those of `unseen.scores_of_run` and `by_category`. A diamond is
    the median, its bar the middle half; the dotted line is the threshold (the median over folds);
    at the right stands the share called malignant.
    """
    names = list(dict.fromkeys(table["model"]))
    rng, count = np.random.default_rng(0), table.groupby("model").size().max()
    figure, axes = panels(len(names), 4.1 * len(names) + 1.6, 0.75 * count + 1.7)
    for axis, name in zip(axes, names, strict=True):
        rows, of_model = table[table["model"] == name], scores[scores["model"] == name]
        for place, (_, row) in enumerate(rows.iterrows()):
            part = of_model[of_model["category"] == row["category"]]
            values = part["probability"].to_numpy()
            shown = rng.permutation(values)[:MOST_MARKS]
            colour = CLASS_COLOUR.get(row["label"], GREY)
            up = place + rng.uniform(-0.28, 0.28, len(shown))
            look = {"s": 14, "alpha": 0.7 if len(shown) < 60 else 0.35, "linewidth": 0}
            axis.scatter(shown, up, color=colour, **look)
            axis.plot([row["lower"], row["upper"]], [place] * 2, color="black", linewidth=2)
            axis.plot(row["median"], place, "D", markersize=6, **HOLLOW)
            axis.text(1.03, place, share_called(row).replace(" (", "\n("), va="center", fontsize=9)
        axis.axvline(of_model["threshold"].median(), color=GREY, linestyle=":", linewidth=1.2)
        axis.set(title=title(name), xlabel="calibrated probability of malignant")
        axis.set(xlim=(-0.02, 1.02), ylim=(count - 0.5, -0.5))
        axis.text(1.03, -0.62, "called malignant", fontsize=9, color=GREY, va="bottom")
    first = table[table["model"] == names[0]]
    words = [
        f"{shortened(row.category)}\n{row.images} images, {row.groups} {plural(unit)}"
        for row in first.itertuples()
    ]
    axes[0].set_yticks(range(count), words, fontsize=9)
    marks = [
        entry(words, color=CLASS_COLOUR.get(label, GREY), marker="o", linestyle="")
        for label, words in OF_LABEL.items()
    ]
    marks.append(entry("median and middle half", marker="D", linewidth=2, **HOLLOW))
    marks.append(entry("threshold", color=GREY, linestyle=":"))
    note = f"brackets: 95 % by {unit}; none for fewer than five"
    figure.legend(handles=marks, loc="outside lower center", ncols=5, title=note)
    return figure
