"""Every figure of the series: tables in, a Matplotlib figure out.

One colour a class and one a network, the same in all notebooks (Okabe & Ito, "Color universal
design", 2008), with a marker or a label beside the colour.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps
from sklearn.metrics import auc, confusion_matrix, roc_curve

from cytology.augmentation import ORIENTATIONS, fit_to_square, orient
from cytology.copies import how
from cytology.quality import open_rgb
from cytology.settings import NETWORK_TITLE, plural

CLASS_NAME = {"B": "benign (B)", "M": "malignant (M)"}
CLASS_COLOUR = {"B": "#0072B2", "M": "#D55E00"}
NETWORK_COLOUR = {"mobilenetv2": "#009E73", "inceptionv3": "#CC79A7", "densenet121": "#56B4E9"}
SPLIT_COLOUR = {"train": "#999999", "val": "#E69F00", "test": "#0072B2"}
GREY = "#777777"

sns.set_theme(
    context="notebook",
    style="ticks",
    rc={
        "figure.dpi": 96,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 12,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    },
)


def _grid(count: int, columns: int, width: float, height: float):
    """A figure with `count` axes in rows of `columns`; the axes left over are hidden."""
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for axis in axes.ravel()[count:]:
        axis.set_visible(False)
    return figure, axes.ravel()[:count]


def _picture(axis, pixels, title: str = "", colour: str = "black") -> None:
    axis.imshow(pixels)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9, color=colour, fontweight="normal")
    sns.despine(ax=axis, left=True, bottom=True)


# ------------------------------------------------------------------ 01: the data


def gallery(root: Path, rows: pd.DataFrame, titles, columns: int = 6) -> Figure:
    """Images of `rows` (`image_id`, `label`) at their own aspect ratio, titled in class colour."""
    figure, axes = _grid(len(rows), columns, 2.1, 2.0)
    for axis, (_, row), title in zip(axes, rows.iterrows(), titles, strict=True):
        thumbnail = ImageOps.contain(open_rgb(root / row["image_id"]), (320, 320))
        _picture(axis, thumbnail, title, CLASS_COLOUR[row["label"]])
    return figure


def class_counts(manifest: pd.DataFrame, unit: str) -> Figure:
    """Images a class, and images a patient (or slide, ...) as sorted bars in class colour."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=[1, 3])
    counts = manifest["label"].value_counts().reindex(["B", "M"])
    bars = left.bar([CLASS_NAME[c] for c in counts.index], counts, color=CLASS_COLOUR.values())
    left.bar_label(bars)
    left.set(title="Images a class", ylabel="images")
    table = manifest.groupby(["group", "label"]).size().unstack(fill_value=0)
    table = table.loc[table.sum(axis=1).sort_values(ascending=False).index]
    bottom = np.zeros(len(table))
    for label in table.columns:
        right.bar(
            range(len(table)),
            table[label],
            1.0,
            bottom,
            color=CLASS_COLOUR[label],
            label=CLASS_NAME[label],
            edgecolor="white",
            linewidth=0.3 if len(table) < 100 else 0,
        )
        bottom += table[label].to_numpy()
    right.set(
        title=f"Images of each of the {len(table)} {plural(unit)}",
        xlabel=f"{plural(unit)}, by number of images",
        ylabel="images",
    )
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
    return figure


def image_sizes(manifest: pd.DataFrame) -> Figure:
    """Width against height of every image, in pixels, by class."""
    figure, axis = plt.subplots(figsize=(5.2, 4))
    for label, marker in (("B", "o"), ("M", "^")):
        part = manifest[manifest["label"] == label]
        axis.scatter(
            part["width"],
            part["height"],
            s=22,
            alpha=0.5,
            marker=marker,
            color=CLASS_COLOUR[label],
            label=CLASS_NAME[label],
        )
    side = max(manifest["width"].max(), manifest["height"].max())
    axis.plot([0, side], [0, side], color=GREY, linewidth=1, linestyle=":")
    axis.set(title="Image sizes", xlabel="width (pixels)", ylabel="height (pixels)")
    axis.annotate("square", (side, side), ha="right", va="top", color=GREY, fontsize=9)
    axis.legend()
    return figure


def appearance(table: pd.DataFrame, unit: str, most: int = 30) -> Figure:
    """Brightness by class, and by patient for up to `most` of them, ordered by their median.

    `table` has `group`, `label`, `brightness` (0 to 255), `red` and `blue`.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 3.8), width_ratios=[1, 1.2, 2.4]
    )
    sns.violinplot(
        table, x="label", y="brightness", hue="label", order=["B", "M"], palette=CLASS_COLOUR,
        inner="quart", legend=False, ax=left, cut=0,
    )  # fmt: skip
    left.set(title="Brightness by class", xlabel="class", ylabel="mean brightness (0 to 255)")
    sns.scatterplot(
        table, x="red", y="blue", hue="label", style="label", palette=CLASS_COLOUR, s=20,
        alpha=0.6, ax=middle, hue_order=["B", "M"], style_order=["B", "M"],
    )  # fmt: skip
    middle.set(title="Mean colour of each image", xlabel="red (0 to 255)", ylabel="blue (0 to 255)")
    order = table.groupby("group")["brightness"].median().sort_values().index
    shown = order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(int)]
    sns.boxplot(
        table[table["group"].isin(shown)], x="group", y="brightness", hue="label", order=shown,
        palette=CLASS_COLOUR, dodge=False, fliersize=2, linewidth=0.8, ax=right, legend=False,
        hue_order=["B", "M"],
    )  # fmt: skip
    some = "" if len(shown) == len(order) else f" ({len(shown)} of {len(order)})"
    right.set(title=f"Brightness by {unit}{some}", xlabel=f"{plural(unit)}, by median", ylabel="")
    right.set_xticks([])
    return figure


def copies(root: Path, found: pd.DataFrame, families: int = 3, most: int = 6) -> Figure:
    """Some families of copies, a row each: the first image, then its copies, largest angles first.

    `found` is the table of `copies.find_copies`.
    """
    chosen = found.assign(turn=found["angle"].abs().where(found["kind"] == "rotated", 0.0))
    order = chosen.groupby("family")["turn"].max().sort_values(ascending=False, kind="stable")
    figure, axes = _grid(families * most, most, 2.0, 2.1)
    for axis in axes:
        axis.set_visible(False)
    for row, family in enumerate(order.index[:families]):
        members = chosen[chosen["family"] == family].sort_values("turn", ascending=False)
        titles = ["first of its family"]
        for copy in members.itertuples():
            titles.append(how(copy))
        names = [family, *members["image_id"]]
        for axis, name, title in zip(axes[row * most :], names[:most], titles[:most], strict=False):
            axis.set_visible(True)
            _picture(axis, ImageOps.contain(open_rgb(root / name), (320, 320)), title)
    return figure


# ------------------------------------------------------------- 02: augmentation


def orientations(image: Image.Image) -> Figure:
    """The 8 exact orientations of one image."""
    pixels = np.asarray(image)
    figure, axes = _grid(8, 4, 2.5, 2.4)
    for number, axis in enumerate(axes):
        _picture(axis, orient(pixels, number), f"{number}: {ORIENTATIONS[number]}")
    return figure


def lossy_changes(image: Image.Image) -> Figure:
    """What we do not do to an image, beside the image: grey, crop, tilt."""
    width, height = image.size
    third = (width // 3, height // 3, width, height)
    tilted = image.rotate(20, Image.Resampling.BILINEAR)
    figure, axes = _grid(4, 4, 2.7, 2.5)
    pictures = (image, image.convert("L").convert("RGB"), image.crop(third), tilted)
    titles = ("as taken", "grey: the stain is gone", "crop: cells are gone", "tilt 20°: corners")
    for axis, pixels, title in zip(axes, pictures, titles, strict=True):
        _picture(axis, pixels, title)
    return figure


def pad_or_stretch(image: Image.Image, size: int) -> Figure:
    """One image as taken, padded to a square, and stretched to a square."""
    figure, axes = _grid(3, 3, 3.2, 3.0)
    _picture(axes[0], image, f"as taken, {image.width} x {image.height}")
    for axis, fit in zip(axes[1:], ("pad", "stretch"), strict=True):
        _picture(axis, fit_to_square(image, size, fit), f"fit: {fit}, {size} x {size}")
    return figure


# ----------------------------------------------------------------- 03: splitting


def who_is_where(split: pd.DataFrame, unit: str) -> Figure:
    """Each group a column: how many of its images lie in train, val and test.

    In an honest split every column has one colour.
    """
    table = split.groupby(["group", "split"]).size().unstack(fill_value=0)
    table = table.reindex(columns=list(SPLIT_COLOUR), fill_value=0)
    labels = split.groupby("group")["label"].agg(lambda found: "".join(sorted(set(found))))
    home = table.to_numpy().argmax(axis=1)
    table = table.iloc[np.lexsort((-table.sum(axis=1), home, labels.reindex(table.index)))]
    figure, axis = plt.subplots(figsize=(12, 3.4))
    bottom = np.zeros(len(table))
    for name, colour in SPLIT_COLOUR.items():
        axis.bar(range(len(table)), table[name], 0.9, bottom, color=colour, label=name)
        bottom += table[name].to_numpy()
    if len(table) <= 40:
        axis.set_xticks(
            range(len(table)),
            [f"{group} ({labels[group]})" for group in table.index],
            rotation=90,
            fontsize=8,
        )
    else:
        axis.set_xticks([])
        axis.set_xlabel(f"{len(table)} {plural(unit)}, benign first")
    axis.set(title=f"Which {unit} is where: one colour a column means no leak")
    axis.set_ylabel("pictures" if "orientation" in split else "images")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(ncols=3, loc="upper right", bbox_to_anchor=(1, 1.18))
    return figure


# --------------------------------------------------------------- 04-06: training


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


def confusions(tables: dict[str, pd.DataFrame]) -> Figure:
    """Confusion matrices side by side, one for each title in `tables`."""
    figure, axes = _grid(len(tables), len(tables), 3.4, 3.4)
    for axis, (title, rows) in zip(axes, tables.items(), strict=True):
        confusion(axis, rows, title)
    return figure


# ----------------------------------------------------------------- 07: comparison


def forest(table: pd.DataFrame, baseline_auc: float, unit: str) -> Figure:
    """AUC of each network with its interval by group, and the baseline as a line."""
    figure, axis = plt.subplots(figsize=(8, 0.7 * len(table) + 1.5))
    for place, (_, row) in enumerate(table[::-1].iterrows()):
        low, high = row["auc"] - row["auc_low"], row["auc_high"] - row["auc"]
        axis.errorbar(
            row["auc"], place, xerr=[[max(low, 0)], [max(high, 0)]], fmt="o", markersize=8,
            capsize=4, linewidth=2, color=NETWORK_COLOUR[row["architecture"]],
        )  # fmt: skip
        axis.annotate(f"{row['auc']:.3f}", (row["auc"], place + 0.18), ha="center", fontsize=10)
    axis.axvline(baseline_auc, color=GREY, linestyle="--", linewidth=1.2)
    axis.annotate(
        f"size and colour alone\n{baseline_auc:.3f} ", (baseline_auc, -0.45), color=GREY,
        fontsize=9, ha="right" if baseline_auc > 0.5 else "left",
    )  # fmt: skip
    names = [
        f"{NETWORK_TITLE[r.architecture]}\n({r.weights} weights)" for r in table[::-1].itertuples()
    ]
    axis.set_yticks(range(len(table)), names)
    axis.set_ylim(-0.6, len(table) - 0.4)
    on = ", ".join(sorted(table["judged_on"].unique()))
    axis.set(
        title=f"How well the classes are separated ({on})", xlabel=f"AUC, 95 % interval by {unit}"
    )
    return figure


def roc_curves(tables: dict[str, pd.DataFrame]) -> Figure:
    """Receiver operating characteristic of each network, from its headline predictions."""
    figure, axis = plt.subplots(figsize=(5, 4.6))
    styles = ["-", "--", "-."]
    for (name, rows), style in zip(tables.items(), styles, strict=False):
        false_alarms, found, _ = roc_curve(rows["label"] == "M", rows["probability"])
        label = f"{NETWORK_TITLE[name]} (AUC {auc(false_alarms, found):.2f})"
        axis.plot(false_alarms, found, style, color=NETWORK_COLOUR[name], linewidth=2, label=label)
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axis.set(title="ROC", xlabel="1 - specificity", ylabel="sensitivity (recall)")
    axis.legend(loc="lower right", fontsize=9)
    return figure


def accuracy_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Accuracy by epoch of each network's final model, side by side on one scale."""
    figure, axes = plt.subplots(
        1, len(histories), figsize=(4.2 * len(histories), 3.4), sharey=True, squeeze=False
    )
    for axis, (name, history) in zip(axes[0], histories.items(), strict=True):
        final = history[history["model"] == "final"].reset_index(drop=True)
        epochs = final.index + 1
        for column, style, label in (
            ("accuracy", "-", "training"),
            ("val_accuracy", "--", "validation"),
        ):
            axis.plot(
                epochs, final[column], style, color=NETWORK_COLOUR[name], linewidth=2, label=label,
                marker="o" if len(final) == 1 else None,
            )  # fmt: skip
        axis.set(title=NETWORK_TITLE[name], xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("accuracy")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def orientation_gain(table: pd.DataFrame) -> Figure:
    """AUC of the same folds with 1, 4 and 8 orientations, one line a network."""
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for shift, (name, part) in enumerate(table.groupby("architecture", sort=False)):
        place = np.arange(len(part)) + (shift - 1) * 0.08
        errors = np.maximum([part["auc"] - part["auc_low"], part["auc_high"] - part["auc"]], 0)
        axis.errorbar(
            place, part["auc"], errors, fmt="o-", capsize=3, color=NETWORK_COLOUR[name],
            label=NETWORK_TITLE[name],
        )  # fmt: skip
    steps = table["orientations"].drop_duplicates()
    axis.set_xticks(range(len(steps)), steps)
    axis.set(
        title="What orientations buy, on the same folds",
        xlabel="orientations of each training image",
        ylabel="AUC, out-of-fold",
    )
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def cost_and_quality(table: pd.DataFrame) -> Figure:
    """AUC against images a second; the area of a disc is the size of the saved model."""
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    for _, row in table.iterrows():
        axis.scatter(
            row["images_per_second"], row["auc"], s=row["megabytes"] * 12, alpha=0.75,
            color=NETWORK_COLOUR[row["architecture"]],
        )  # fmt: skip
        axis.annotate(
            f"{NETWORK_TITLE[row['architecture']]}, {row['megabytes']:.0f} MB",
            (row["images_per_second"], row["auc"]), xytext=(0, 20), textcoords="offset points",
            ha="center", fontsize=9,
        )  # fmt: skip
    axis.margins(0.3)
    axis.set(title="Cost and quality", xlabel="images a second (forward pass)", ylabel="AUC")
    return figure


# ------------------------------------------------------------------ 08: inference


def predicted_gallery(root: Path, rows: pd.DataFrame, columns: int = 6) -> Figure:
    """Images with predicted class and probability of M; `label` may be empty where unknown.

    A wrong prediction has a red frame and says so.
    """
    figure, axes = _grid(len(rows), columns, 2.2, 2.3)
    for axis, (_, row) in zip(axes, rows.iterrows(), strict=True):
        title = f"{row['predicted']}, P(M) = {row['probability']:.2f}"
        wrong = row["label"] not in ("", row["predicted"])
        if row["label"]:
            title += f"\ntrue {row['label']}{': wrong' if wrong else ''}"
        thumbnail = ImageOps.contain(open_rgb(root / row["image_id"]), (320, 320))
        _picture(axis, thumbnail, title, CLASS_COLOUR[row["predicted"]])
        if wrong:
            for spine in axis.spines.values():
                spine.set(visible=True, color="#b00020", linewidth=3)
    return figure


# ----------------------------------------------------------------- 09: the audit


def leakage_audit(summary: pd.DataFrame, unit: str) -> Figure:
    """AUC under three ways to split, true labels filled, shuffled labels hollow; a panel a network.

    `summary` has `architecture` and the columns of `leakage.summarize`.
    """
    names = {
        "images_random": "augment, then split\npictures at random",
        "copies_together": "copies of an image\nkept together",
        "patients_together": f"images of a {unit}\nkept together",
    }
    networks = list(dict.fromkeys(summary["architecture"]))
    figure, axes = plt.subplots(
        1, len(networks), figsize=(4.1 * len(networks) + 2.2, 3.9), sharey=True, squeeze=False
    )
    for axis, network in zip(axes[0], networks, strict=True):
        rows = summary[summary["architecture"] == network].set_index(["protocol", "labels"])
        for place, protocol in enumerate(names):
            for labels, colour, face, marker in (
                ("true", NETWORK_COLOUR[network], NETWORK_COLOUR[network], "o"),
                ("shuffled", GREY, "white", "D"),
            ):
                row = rows.loc[(protocol, labels)]
                axis.plot(row[["auc_low", "auc_high"]], [place] * 2, color=colour, linewidth=2)
                axis.plot(
                    row["auc"], place, marker, markersize=9, color=colour,
                    markerfacecolor=face, markeredgewidth=1.8, zorder=3,
                )  # fmt: skip
                above = 9 if labels == "true" else -19  # the two may lie upon each other
                axis.annotate(
                    f"{row['auc']:.3f}", (row["auc"], place), (0, above), color=colour,
                    fontsize=10, textcoords="offset points", ha="center", fontweight="bold",
                )  # fmt: skip
        gain, honest = (rows.loc[(name, "true")] for name in ("images_random", "patients_together"))
        for row, place in ((honest, 1.85), (gain, -0.3)):
            axis.plot([row["auc"]] * 2, [-0.5, place], color=GREY, linewidth=0.8, linestyle="--")
        axis.annotate(
            "", (gain["auc"], -0.45), (honest["auc"], -0.45),
            arrowprops={"arrowstyle": "-|>", "color": "#b00020", "linewidth": 2}
            | {"shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axis.set_title(
            f"{NETWORK_TITLE[network]}: {gain['inflation']:+.1f} points\n"
            f"(95 %: {gain['inflation_low']:+.1f} to {gain['inflation_high']:+.1f})"
        )
        axis.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
        axis.set(xlabel="AUC", ylim=(2.5, -0.7), xlim=(min(0.35, summary["auc_low"].min()), 1.03))
    axes[0][0].set_yticks(range(3), names.values())
    shown = [
        plt.Line2D([], [], marker="o", color="black", label="true labels"),
        plt.Line2D(
            [], [], marker="D", color=GREY, markerfacecolor="white", markeredgewidth=1.8,
            label="shuffled labels: nothing to learn",
        ),
        plt.Line2D([], [], color=GREY, linestyle=":", label="chance"),
    ]  # fmt: skip
    figure.legend(handles=shown, loc="outside lower center", ncols=3)
    return figure
