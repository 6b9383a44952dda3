"""Pictures with what a network says of them, and the cost of exported files: 07, 09 and 13."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import ImageOps

from cytology.architectures import NETWORK_TITLE
from cytology.data.images.opening import open_rgb
from cytology.plots import style
from cytology.wording import shortened

PANELS = {
    "megabytes": ("How large is the file?", "size in MB"),
    "latency": ("How long does an image take?", "one image in ms"),
    "largest_difference": ("Does it say the same?", "largest difference of the logit"),
}
EXACT = 1e-8  # stands for 0, which has no place on a logarithmic axis


def predicted_gallery(root: Path, rows: pd.DataFrame, columns: int = 6) -> Figure:
    """Images with predicted class and probability of M; `label` may be empty where unknown.

    A wrong prediction has a red frame and says so. A column `group` says whose image it is.
    """
    figure, axes = style.grid(len(rows), columns, 2.2, 2.4)
    for axis, (_, row) in zip(axes, rows.iterrows(), strict=True):
        title = f"{row['predicted']}, P(M) = {row['probability']:.2f}"
        wrong = row["label"] not in ("", row["predicted"])
        if row["label"]:
            title += f"\ntrue {row['label']}{': wrong' if wrong else ''}"
        if "group" in row:
            title += f"\n{shortened(row['group'])}"
        thumbnail = ImageOps.contain(open_rgb(root / row["image_id"]), (320, 320))
        style.show_picture(axis, thumbnail, title, style.CLASS_COLOUR[row["predicted"]])
        if wrong:
            for spine in axis.spines.values():
                spine.set(visible=True, color=style.WRONG, linewidth=3)
    return figure


def explained_predictions(
    root: Path, rows: pd.DataFrame, maps: list[np.ndarray], known: Path, pairs: int = 2
) -> Figure:
    """New images, each with its heat and the nearest training image, a file below `known`.

    `rows` are those of `predictor.refer` and `with_neighbours`; `maps` are heat over the images,
    shapes (height, width). What a pathologist must see has a frame. An image is named by its row
    in the table, counted from 1: a figure travels further than a table.
    """
    lines = -(-len(rows) // pairs)
    figure, axes = plt.subplots(
        lines, 3 * pairs, figsize=(2.6 * 3 * pairs, 2.45 * lines), squeeze=False
    )
    cells = axes.reshape(-1, 3)
    for left, middle, right in cells[len(rows) :]:
        for axis in (left, middle, right):
            axis.set_axis_off()
    for (left, middle, right), (place, row), heat in zip(
        cells, rows.iterrows(), maps, strict=False
    ):
        image = open_rgb(root / row["image_id"])
        truth = f", true {row['label']}" if row["label"] else ""
        colour = style.CLASS_COLOUR[row["predicted"]]
        title = f"{row['predicted']}, P(M) = {row['calibrated_probability']:.2f}{truth}"
        style.show_picture(left, ImageOps.contain(image, (320, 320)), title, colour)
        if row["refer"]:
            left.set_xlabel("refer: " + row["refer_why"], fontsize=8, color=style.WRONG)
            for spine in left.spines.values():
                spine.set(visible=True, color=style.WRONG, linewidth=3)
        style.show_picture(middle, style.overlay_heat(image, heat), f"heat for {row['predicted']}")
        middle.set_xlabel(f"row {place + 1}", fontsize=8)
        if (known / row["nearest"]).is_file():
            near = ImageOps.contain(open_rgb(known / row["nearest"]), (320, 320))
            style.show_picture(right, near, f"nearest known: {row['nearest_label']}")
        else:
            right.set_axis_off()
    return figure


def confusion_at_threshold(rows: pd.DataFrame, threshold: float) -> Figure:
    """The confusion matrix at a threshold of the calibrated probability, and the scores behind it.

    `rows` has `label` and `calibrated_probability`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 2))
    called = rows["calibrated_probability"] >= threshold
    style.draw_confusion_matrix(left, rows["label"] == "M", called, f"threshold {threshold:.2f}")
    edges = np.linspace(0, 1, 21)
    for label in "BM":
        right.hist(
            rows.loc[rows["label"] == label, "calibrated_probability"], edges, alpha=0.6,
            color=style.CLASS_COLOUR[label], label=style.CLASS_NAME[label],
        )  # fmt: skip
    right.axvline(threshold, color="black")
    right.set(xlabel="calibrated probability of M", ylabel="images", xlim=(0, 1))
    right.legend(loc="upper left")
    return figure


def exports(table: pd.DataFrame) -> Figure:
    """Size, latency and difference of each format, a mark per network; red if it disagrees.

    `table` is `tables/exports.csv`. A dotted line is what a network's formats in float32 must keep.
    """
    formats = _formats_in_order(table)
    figure, axes = style.panels(len(PANELS), 12, 0.5 * len(formats) + 1.7)
    for axis, (column, (title, label)) in zip(axes, PANELS.items(), strict=True):
        middle = (table["architecture"].nunique() - 1) / 2
        for place, (name, rows) in enumerate(table.groupby("architecture", sort=False)):
            values = rows[column].astype(float).clip(lower=EXACT)
            heights = rows["format"].map(formats.index) + 0.2 * (place - middle)
            look: style.Look = {
                "marker": style.NETWORK_MARKER[name],
                "color": style.NETWORK_COLOUR[name],
            }
            look["edgecolors"] = ["black" if agrees else style.WRONG for agrees in rows["agrees"]]
            look["linewidths"] = [0.6 if agrees else 2.5 for agrees in rows["agrees"]]
            axis.scatter(values, heights, s=70, zorder=3, label=NETWORK_TITLE[name], **look)
        axis.set(title=title, xlabel=label, xscale="log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    for axis in axes[:2]:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[-1].xaxis.set_major_locator(LogLocator(numticks=5))
    axes[-1].xaxis.set_minor_locator(NullLocator())
    for tolerance in table["tolerance"].dropna().unique():
        axes[-1].axvline(tolerance, color=style.GREY, linestyle=":")
    axes[0].set_yticks(range(len(formats)), [name.replace("_", " ") for name in formats])
    axes[0].set_ylim(len(formats) - 0.4, -0.6)
    handles, labels = axes[0].get_legend_handles_labels()
    if not table["agrees"].all():
        look = {"color": "white", "edgecolors": style.WRONG, "linewidths": 2.5}
        handles.append(axes[0].scatter([], [], s=70, **look))
        labels.append("does not agree")
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _formats_in_order(table: pd.DataFrame) -> list[str]:
    """The formats in the order of the network that has most of them."""
    lists = sorted((list(rows) for _, rows in table.groupby("architecture")["format"]), key=len)
    return list(dict.fromkeys(name for names in lists[::-1] for name in names))


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _plain(value: float) -> str:
    """A tick in figures: `20`, `0.1`, `10⁻³`; what is too small to matter as 0."""
    if value <= EXACT * 1.01:
        return "0"
    power = round(np.log10(value))
    if value < 0.1 and np.isclose(value, 10.0**power, rtol=1e-6):
        return "10" + str(power).translate(SUPERSCRIPT)
    return f"{value:g}"
