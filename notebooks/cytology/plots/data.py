"""Figures of the images themselves, notebooks 01 and 02."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps

from cytology.data.augmentation import ORIENTATIONS, fit_to_square, orient
from cytology.data.copies import describe_copy
from cytology.data.images.opening import open_rgb
from cytology.plots.style import CLASS_COLOUR, CLASS_NAME, GREY, Look, grid, show_picture
from cytology.wording import plural


def gallery(root: Path, rows: pd.DataFrame, titles, columns: int = 6) -> Figure:
    """Images of `rows` (`image_id`, `label`) at their own aspect ratio, titled in class colour."""
    figure, axes = grid(len(rows), columns, 2.1, 2.0)
    for axis, (_, row), title in zip(axes, rows.iterrows(), titles, strict=True):
        thumbnail = ImageOps.contain(open_rgb(root / row["image_id"]), (320, 320))
        show_picture(axis, thumbnail, title, CLASS_COLOUR[row["label"]])
    return figure


def examples_of_each_class(manifest: pd.DataFrame, seed: int, most: int = 6) -> pd.DataFrame:
    """Up to `most` random images of each class, equally many of both, benign first.

    One image of every group comes before the second of any.
    """
    drawn = manifest.sample(frac=1, random_state=seed)
    turn = drawn.groupby(["label", "group"]).cumcount()
    drawn = drawn.iloc[np.argsort(turn, kind="stable")]
    count = min(most, drawn["label"].value_counts().min())
    return drawn.groupby("label").head(count).sort_values("label", kind="stable")


def class_counts(manifest: pd.DataFrame, unit: str) -> Figure:
    """Images per class, and per patient (or slide, ...) as sorted bars in class colour."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=[1, 3])
    counts = manifest["label"].value_counts().reindex(["B", "M"])
    bars = left.bar([CLASS_NAME[c] for c in counts.index], counts, color=CLASS_COLOUR.values())
    left.bar_label(bars)
    left.margins(y=0.1)  # the number above the higher bar
    left.set(title="Images per class", ylabel="images")
    table = manifest.groupby(["group", "label"]).size().unstack(fill_value=0)
    table = table.loc[table.sum(axis=1).sort_values(ascending=False).index]
    bottom = np.zeros(len(table))
    for label in table.columns:
        look: Look = {
            "color": CLASS_COLOUR[label],
            "label": CLASS_NAME[label],
            "edgecolor": "white",
        }
        # So many bars are narrower than a pixel, and would show stripes.
        look |= {"linewidth": 0.3} if len(table) < 100 else {"linewidth": 0, "antialiased": False}
        right.bar(range(len(table)), table[label], 1.0, bottom, **look)
        bottom += table[label].to_numpy()
    right.set(title=f"Images of each of the {len(table)} {plural(unit)}", ylabel="images")
    right.set_xlabel(f"{plural(unit)}, by number of images")
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xticks([])  # a place says nothing
    right.margins(x=0.01)
    right.set_ylim(0, 1.05 * bottom.max())
    right.legend()
    return figure


def image_sizes(manifest: pd.DataFrame) -> Figure:
    """Width against height of every image, in pixels, a panel per class."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
    side = max(manifest["width"].max(), manifest["height"].max())
    for axis, label, marker in zip(axes, "BM", "o^", strict=True):
        part = manifest[manifest["label"] == label]
        axis.scatter(
            part["width"], part["height"], s=22, marker=marker, color=CLASS_COLOUR[label], alpha=0.4
        )
        axis.plot([0, side], [0, side], color=GREY, linewidth=1, linestyle=":", label="square")
        axis.set(title=f"Size of {CLASS_NAME[label]} images", xlabel="width (pixels)")
    axes[0].set_ylabel("height (pixels)")
    axes[0].legend()
    return figure


def appearance(table: pd.DataFrame, unit: str, most: int = 30, fewest: int = 4) -> Figure:
    """Brightness by class, and by patient for up to `most` of them, ordered by their median.

    `table` has `group`, `label`, `brightness` (0 to 255), `red` and `blue`. Patients with fewer
    than `fewest` images have no box.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 3.8), width_ratios=[1, 1.2, 2.4]
    )
    sns.violinplot(
        table, x="label", y="brightness", hue="label", order=["B", "M"], palette=CLASS_COLOUR,
        inner="quart", legend=False, ax=left, cut=0,
    )  # fmt: skip
    left.set(title="Brightness by class", xlabel="", ylabel="mean brightness (0 to 255)")
    left.set_xticks([0, 1], CLASS_NAME.values())
    sns.scatterplot(
        table, x="red", y="blue", hue="label", style="label", palette=CLASS_COLOUR, s=20,
        alpha=0.6, ax=middle, hue_order=["B", "M"], style_order=["B", "M"],
    )  # fmt: skip
    middle.set(title="Mean colour of each image", xlabel="red (0 to 255)", ylabel="blue (0 to 255)")
    for text in middle.get_legend().get_texts():
        text.set_text(CLASS_NAME[text.get_text()])
    middle.get_legend().set_title(None)
    large = table[table.groupby("group")["brightness"].transform("size") >= fewest]
    order = large.groupby("group")["brightness"].median().sort_values().index
    shown = order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(int)]
    right.set(title=f"Brightness by {unit}: {len(shown)} of {table['group'].nunique()}")
    if shown.empty:
        right.set_axis_off()
        right.text(0.5, 0.5, f"no {unit} has {fewest} images", color=GREY, ha="center")
        return figure
    sns.boxplot(
        table[table["group"].isin(shown)], x="group", y="brightness", hue="label", order=shown,
        palette=CLASS_COLOUR, dodge=False, fliersize=2, linewidth=0.8, ax=right, legend=False,
        hue_order=["B", "M"],
    )  # fmt: skip
    right.set(xlabel=f"{plural(unit)} with {fewest} images or more, by median", ylabel="")
    right.set_xticks([])
    return figure


def copies(root: Path, found: pd.DataFrame, families: int = 3, most: int = 6) -> Figure:
    """Families of copies, one row each: the first image, then copies, largest angles first.

    `found` is the table of `copies.find_copies`.
    """
    chosen = found.assign(turn=found["angle"].abs().where(found["kind"] == "rotated", 0.0))
    order = chosen.groupby("family")["turn"].max().sort_values(ascending=False, kind="stable")
    figure, axes = grid(families * most, most, 2.0, 2.1)
    for axis in axes:
        axis.set_visible(False)
    for row, family in enumerate(order.index[:families]):
        members = chosen[chosen["family"] == family].sort_values("turn", ascending=False)
        titles = ["first of its family"]
        for copy in members.itertuples():
            titles.append(describe_copy(copy))
        names = [family, *members["image_id"]]
        for axis, name, title in zip(axes[row * most :], names[:most], titles[:most], strict=False):
            axis.set_visible(True)
            show_picture(axis, ImageOps.contain(open_rgb(root / name), (320, 320)), title)
    return figure


def orientations(image: Image.Image) -> Figure:
    """The 8 exact orientations of one image."""
    pixels = np.asarray(image)
    figure, axes = grid(8, 4, 2.5, 2.4)
    for number, axis in enumerate(axes):
        show_picture(axis, orient(pixels, number), f"{number}: {ORIENTATIONS[number]}")
    return figure


def lossy_changes(image: Image.Image) -> Figure:
    """An image next to what we do not do to it: grey, crop, tilt."""
    width, height = image.size
    third = (width // 3, height // 3, width, height)
    tilted = image.rotate(20, Image.Resampling.BILINEAR)
    figure, axes = grid(4, 4, 2.7, 2.5)
    pictures = (image, image.convert("L").convert("RGB"), image.crop(third), tilted)
    titles = ("as taken", "grey: the stain is gone", "crop: cells are gone", "tilt 20°: corners")
    for axis, pixels, title in zip(axes, pictures, titles, strict=True):
        show_picture(axis, pixels, title)
    return figure


def pad_or_stretch(image: Image.Image, size: int) -> Figure:
    """One image as taken, padded to a square, and stretched to a square."""
    figure, axes = grid(3, 3, 3.2, 3.0)
    show_picture(axes[0], image, f"as taken, {image.width} x {image.height}")
    for axis, fit in zip(axes[1:], ("pad", "stretch"), strict=True):
        show_picture(axis, fit_to_square(image, size, fit), f"fit: {fit}, {size} x {size}")
    return figure
