"""Figures of the split and of training, notebooks 03 to 06."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from cytology.plots.style import SPLIT_COLOUR, grid
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
        axis.set_xticks(
            range(len(table)),
            [f"{shortened(group)} ({labels[group]})" for group in table.index],
            rotation=90,
            fontsize=8,
        )
    else:
        axis.set_xticks([])
        axis.set_xlabel(f"{len(table)} {plural(unit)}, benign first")
    axis.set_title(f"Which {unit} is where: one colour a column means no leak", pad=10)
    axis.set_ylabel("pictures" if "orientation" in split else "images")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def learning_curves(history: pd.DataFrame, title: str) -> Figure:
    """Loss and accuracy by epoch, training against validation; folds thin, the final model bold."""
    stages = list(history["stage"].unique())
    figure, axes = plt.subplots(
        len(stages), 2, figsize=(10, 3.4 * len(stages)), squeeze=False, sharex="row"
    )
    for row, stage in zip(axes, stages, strict=True):
        for axis, what in zip(row, ("loss", "accuracy"), strict=True):
            for name, part in history[history["stage"] == stage].groupby("model"):
                bold = name == "final"
                for column, style, colour in (
                    (what, "-", "#0072B2"),
                    (f"val_{what}", "--", "#D55E00"),
                ):
                    axis.plot(
                        part["epoch"],
                        part[column],
                        style,
                        color=colour,
                        linewidth=2.2 if bold else 0.9,
                        alpha=1 if bold else 0.4,
                        marker="o" if len(part) == 1 else None,
                        label={True: "training", False: "validation"}[column == what]
                        if bold
                        else None,
                    )
            axis.set(
                title=f"{title}, {stage.replace('_', '-')}: {what}", xlabel="epoch", ylabel=what
            )
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[1].legend()
    return figure


def confusion(axis, rows: pd.DataFrame, title: str) -> None:
    """A confusion matrix at probability 0.5: counts, and shares of the true class as shade."""
    matrix = confusion_matrix(
        rows["label"] == "M", rows["probability"] >= 0.5, labels=[False, True]
    )
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    text = np.array(
        [
            [f"{n}\n{share:.0%}" for n, share in zip(*r, strict=True)]
            for r in zip(matrix, shares, strict=True)
        ]
    )
    sns.heatmap(
        shares, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True, ax=axis,
        xticklabels=["B", "M"], yticklabels=["B", "M"],
    )  # fmt: skip
    axis.set(title=title, xlabel="predicted", ylabel="true")


def confusions(tables: dict[str, pd.DataFrame], columns: int | None = None) -> Figure:
    """Confusion matrices, one for each title in `tables`, in rows of `columns` (else one row)."""
    figure, axes = grid(len(tables), columns or len(tables), 3.4, 3.4)
    for axis, (title, rows) in zip(axes, tables.items(), strict=True):
        confusion(axis, rows, title)
    return figure
