"""Figures of the split, notebook 03."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import ImageOps

from cytology.data.images.opening import open_rgb
from cytology.plots.style import CLASS_COLOUR, CLASS_NAME, SPLIT_COLOUR, Look, show_picture
from cytology.wording import plural, shortened


def who_is_where(split: pd.DataFrame, unit: str) -> Figure:
    """Each group a column: how many of its images lie in train, val and test.

    In an honest split every column has one colour.
    """
    table = split.groupby(["group", "split"]).size().unstack(fill_value=0)
    table = table.reindex(columns=list(SPLIT_COLOUR), fill_value=0)
    labels = split.groupby("group")["label"].agg(lambda found: "".join(sorted(set(found))))
    home = table.to_numpy().argmax(axis=1)
    table = table.iloc[np.lexsort((-table.sum(axis=1), home, labels.reindex(table.index)))]
    figure, axis = plt.subplots(figsize=(12, 3.6))
    bottom = np.zeros(len(table))
    for name, colour in SPLIT_COLOUR.items():
        axis.bar(range(len(table)), table[name], 0.9, bottom, color=colour, label=name)
        bottom += table[name].to_numpy()
    if len(table) <= 40:
        names = [f"{shortened(group)} ({labels[group]})" for group in table.index]
        axis.set_xticks(range(len(table)), names, rotation=90, fontsize=8)
    else:
        axis.set_xticks([])
        axis.set_xlabel(f"{len(table)} {plural(unit)}, benign first")
    mixed = (table > 0).sum(axis=1).gt(1).sum()
    found = f"{mixed} of {len(table)} columns have more than one colour"
    axis.set_title(f"Which {unit} is where: {found}", pad=10)
    axis.set_ylabel("pictures" if "orientation" in split else "images")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def crossing_pairs(root: Path, pairs: pd.DataFrame) -> Figure:
    """What crosses a given split, two images per crossing side by side, one row per kind.

    `pairs` is what `crossing.examples` returns. Names are left out: the figure may travel.
    """
    kinds = pairs.groupby("kind", sort=False)
    most = kinds.size().max()
    columns = [1, 1, 0.15] * most
    figure, axes = plt.subplots(
        len(kinds), len(columns), figsize=(3.2 * most, 2.1 * len(kinds)), squeeze=False,
        width_ratios=columns,
    )  # fmt: skip
    for axis in axes.ravel():
        axis.set_visible(False)
    for row, (kind, of_kind) in zip(axes, kinds, strict=True):
        # Above the first picture, in the line that every title leaves empty.
        heading = row[0].annotate(
            kind, (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points",
            weight="bold", fontsize=11,
        )  # fmt: skip
        heading.set_in_layout(False)
        for place, pair in enumerate(of_kind.itertuples()):
            sides = ((pair.image_id, pair.part), (pair.other, pair.other_part))
            for axis, (name, part) in zip(row[3 * place :], sides, strict=False):
                axis.set_visible(True)
                thumbnail = ImageOps.pad(open_rgb(root / name), (320, 320), color="white")
                show_picture(axis, thumbnail, f"\n{part}", SPLIT_COLOUR[part])
    return figure


def scores_by_fold(rows: pd.DataFrame) -> Figure:
    """Out-of-fold scores (`logit`) by class, a line per fold: the AUC counts pairs of one line.

    `rows` has `label, fold, logit`.
    """
    folds = sorted(rows["fold"].unique())
    figure, axis = plt.subplots(figsize=(9, 1.6 + 0.5 * len(folds)))
    for label, marker, aside in (("B", "o", 0.12), ("M", "^", -0.12)):
        part = rows[rows["label"] == label]
        heights = part["fold"].map(folds.index) + aside
        look: Look = {"color": CLASS_COLOUR[label], "label": CLASS_NAME[label], "alpha": 0.6}
        axis.scatter(part["logit"], heights, s=26, marker=marker, linewidths=0, **look)
    axis.set_yticks(range(len(folds)), [f"fold {fold}" for fold in folds])
    axis.set(title="Scores of size and colour alone", ylim=(len(folds) - 0.5, -0.5))
    axis.set_xlabel("score: the higher, the more it looks malignant")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
