"""Heatmaps, their checks, and the map of features, notebooks 09 and 12."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import ImageOps

from cytology.architectures import NETWORK_TITLE
from cytology.data.images.opening import open_rgb
from cytology.explanation.checks import HEATMAP_CHECKS, NETWORK
from cytology.plots import style
from cytology.wording import plural, shortened

VERDICTS = {"yes": "passed", "no": "worse"}  # others are said as they are


def scale_of_heat(figure: Figure, axes) -> None:
    """The colour scale of all overlays of a figure."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), style.HEAT), ax=axes, fraction=0.02, pad=0.02, shrink=0.6
    )
    bar.set_label("heat, share of the image's own maximum")


def heatmaps(root: Path, rows: pd.DataFrame, maps: list[np.ndarray], pairs: int = 3) -> Figure:
    """Each image next to its heat; `rows` as `predicted_gallery` takes them, perhaps with `kind`.

    `maps` are heat over the original images, shapes (height, width). A row of the figure shows
    one `kind` where there is one.
    """
    kinds = rows.get("kind", pd.Series("", index=rows.index)).to_numpy()
    lines = []
    for kind in dict.fromkeys(kinds):
        here = np.flatnonzero(kinds == kind)
        lines += [(kind, here[k : k + pairs]) for k in range(0, len(here), pairs)]
    figure, axes = plt.subplots(
        len(lines), 2 * pairs, figsize=(4 * pairs + 1, 1.95 * len(lines)), squeeze=False
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    for line, (kind, here) in zip(axes, lines, strict=True):
        for place, k in enumerate(here):
            row = rows.iloc[k]
            image = open_rgb(root / row["image_id"])
            wrong = row["label"] not in ("", row["predicted"])
            title = f"{kind + ': ' if kind else ''}raw P(M) = {row['probability']:.2f}"
            truth = f"true {row['label']}" if row["label"] else ""
            left, right = line[2 * place : 2 * place + 2]
            for axis in (left, right):
                axis.set_axis_on()
            thumbnail = ImageOps.contain(image, (320, 320))
            style.show_picture(left, thumbnail, title, style.WRONG if wrong else "black")
            shown = style.overlay_heat(image, maps[k])
            why = f"why {row['predicted']}? {truth}{', wrong' if wrong else ''}"
            style.show_picture(right, shown, why, style.CLASS_COLOUR[row["predicted"]])
    scale_of_heat(figure, axes)
    return figure


def explanation_checks(table: pd.DataFrame) -> Figure:
    """A panel per check: what each network's heat reaches, and the value by chance.

    The bar is the 95 % interval of the difference, drawn from chance on; a cross is what noise
    reaches in place of the heat. `table` is that of `summary.check_summary`, for each
    `architecture`.
    """
    checks = [check for check in HEATMAP_CHECKS if (table["check"] == check).any()]
    names = list(dict.fromkeys(table["architecture"]))[::-1]
    figure, axes = style.grid(len(checks), 2, 6, 1 + 0.32 * len(names))
    for axis, check in zip(axes, checks, strict=True):
        rows = table[table["check"] == check].set_index("architecture")
        for place, name in enumerate(names):
            row, colour = rows.loc[name], style.NETWORK_COLOUR[name]
            bar = row["chance"] + row[["difference_low", "difference_high"]].astype(float)
            axis.plot(bar, [place] * 2, color=colour, linewidth=5, alpha=0.35)
            axis.plot(row["chance"], place, "D", color="white", markeredgecolor=style.GREY)
            axis.plot(row["value"], place, "o", color=colour, markersize=9)
            if "noise" in row:
                axis.plot(row["noise"], place, "x", color=style.GREY, markersize=7)
            verdict = VERDICTS.get(row["passed"], row["passed"])
            look: style.Look = {
                "fontsize": 9,
                "color": style.WRONG if row["passed"] == "no" else style.GREY,
            }
            right = axis.get_yaxis_transform()
            axis.annotate(verdict, (1.01, place), xycoords=right, va="center", **look)
        axis.set_yticks(range(len(names)), [NETWORK_TITLE[name] for name in names], fontsize=9)
        axis.set(ylim=(-0.6, len(names) - 0.4))
        axis.margins(x=0.08)
        about = HEATMAP_CHECKS[check]
        axis.set_title(about.asks, fontsize=10)
        wanted = "more is better" if about.better > 0 else "less is better"
        limit = f"chance: {about.chance}" if about.evidence else "necessary, no evidence: below 0.5"
        axis.set_xlabel(f"{check} ({wanted}; {limit})", fontsize=9)
    white: style.Look = {"color": "white", "markeredgecolor": style.GREY, "linestyle": ""}
    handles = [
        style.entry("the network's heat", marker="o", markersize=9, color="black", linestyle=""),
        style.entry("95 % interval, from chance on", linewidth=5, color="black", alpha=0.35),
        style.entry("chance, or the limit", marker="D", **white),
    ]
    if "noise" in table:
        handles.append(style.entry("noise", marker="x", color=style.GREY, linestyle=""))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9)
    return figure


def deletion_and_insertion(curves: pd.DataFrame) -> Figure:
    """Mean logit toward the explained class while cells are covered, or uncovered.

    `curves` is the table of `summary.mean_curves`.
    """
    names = list(dict.fromkeys(curves["architecture"]))
    figure, axes = style.panels(len(names), 4.4 * len(names) + 2.4, 3.6, sharex=True)
    for axis, name in zip(axes, names, strict=True):
        rows = curves[curves["architecture"] == name]
        for curve, colour in (("deletion", "#D55E00"), ("insertion", "#0072B2")):
            for order, line in ((NETWORK, "-"), ("random", ":")):
                part = rows[(rows["curve"] == curve) & (rows["order"] == order)]
                words = f"{curve}, {'hottest first' if order == NETWORK else 'random orders'}"
                axis.plot(100 * part["share"], part["logit"], line, color=colour, label=words)
        axis.set(title=NETWORK_TITLE[name], xlabel="cells covered or uncovered (%)")
    axes[0].set_ylabel("mean logit toward\nthe explained class")
    axes[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def feature_map(
    places: np.ndarray, names: tuple[str, str], rows: pd.DataFrame, root: Path, unit: str
) -> Figure:
    """Images where their features lie, `places` (n, 2): by class, by `unit`, and as thumbnails.

    `names` are those of the two axes.
    `rows` has `image_id, label, group`, and `wrong`: whether the network called it wrongly.
    Within a group lines lead to its middle; its colour is that of `stain` where there are two.
    """
    figure, axes = plt.subplots(1, 3, figsize=(14, 5))
    for label, marker in (("B", "o"), ("M", "^")):
        here = (rows["label"] == label).to_numpy()
        look: style.Look = {"color": style.CLASS_COLOUR[label], "alpha": 0.75, "linewidth": 0}
        axes[0].scatter(*places[here].T, s=34, marker=marker, label=style.CLASS_NAME[label], **look)
    wrong, look = rows["wrong"].to_numpy(bool), {"facecolor": "none", "edgecolor": "black"}
    axes[0].scatter(*places[wrong].T, 90, label=f"mistakes ({wrong.sum()})", **look)
    axes[0].set_title("By class, and by mistake")
    below = {"loc": "upper left", "bbox_to_anchor": (0, -0.06), "ncols": 3, "fontsize": 11}
    axes[0].legend(**below)
    stains = rows.get("stain", pd.Series("", index=rows.index))
    kinds = sorted(set(stains)) if stains.nunique() > 1 else [""]
    colours = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#D55E00"]
    for kind, colour in zip(kinds, colours, strict=False):
        for number, (_, part) in enumerate(rows[stains == kind].groupby("group")):
            own = places[rows.index.get_indexer(part.index)]
            middle = own.mean(axis=0)
            for place in own:
                line = zip(middle, place, strict=True)
                axes[1].plot(*line, color=colour, linewidth=0.8, alpha=0.5)
            axes[1].plot(*own.T, ".", color=colour, label=kind or None if number == 0 else None)
    axes[1].set_title(f"By {unit}: lines lead to the middle of each")
    if kinds != [""]:
        axes[1].legend(title="stain", **below)
    thumbnails(axes[2], places, rows, root)
    for axis in axes:
        axis.set(xticks=[], yticks=[], xlabel=names[0])
        axis.margins(0.09)  # no thumbnail is cut at the frame
    axes[0].set_ylabel(names[1])
    return figure


def thumbnails(axis, places: np.ndarray, rows: pd.DataFrame, root: Path, most: int = 40) -> None:
    """Small images at their places, framed in class colour; of those too near, the first."""
    wide = np.ptp(places, axis=0) / 9  # a thumbnail with its frame, of what is drawn
    shown: list[int] = []
    for k, place in enumerate(places):
        if all((np.abs(place - places[other]) > wide).any() for other in shown):
            shown.append(k)
    axis.plot(*places.T, ".", color="#dddddd", zorder=0)
    for k in shown[:most]:
        row = rows.iloc[k]
        small = ImageOps.fit(open_rgb(root / row["image_id"]), (36, 36))
        frame = {"edgecolor": style.CLASS_COLOUR[row["label"]], "linewidth": 2}
        box = OffsetImage(np.asarray(small), zoom=0.8)
        axis.add_artist(AnnotationBbox(box, places[k], pad=0.15, bboxprops=frame))
    axis.set_title("What lies there")


def neighbours(root: Path, rows: pd.DataFrame, found: pd.DataFrame, unit: str) -> Figure:
    """Each image of `rows`, followed by its nearest known images.

    `rows` has `image_id`, `title`, `group`; `found` has `image_id` (of rows), `rank`, `neighbour`,
    `label`, `group`, `distance`.
    """
    most = int(found["rank"].max()) if len(found) else 0
    figure, axes = plt.subplots(
        len(rows), most + 1, figsize=(2.3 * (most + 1), 2.35 * len(rows)), squeeze=False
    )
    for line, (_, row) in zip(axes, rows.iterrows(), strict=True):
        near = found[found["image_id"] == row["image_id"]].sort_values("rank")
        thumbnail = ImageOps.contain(open_rgb(root / row["image_id"]), (320, 320))
        style.show_picture(line[0], thumbnail, f"{row['title']}\n{row['group']}", style.WRONG)
        for axis in line[1 + len(near) :]:
            axis.set_axis_off()
        for axis, (_, other) in zip(line[1:], near.iterrows(), strict=False):
            thumbnail = ImageOps.contain(open_rgb(root / other["neighbour"]), (320, 320))
            words = f"{other['label']}, {shortened(other['group'])}"
            words += f"\ndistance {other['distance']:.0f}"
            style.show_picture(axis, thumbnail, words, style.CLASS_COLOUR[other["label"]])
    words = f"Mistakes, and what other {plural(unit)} lie nearest"
    figure.suptitle(words, x=0.01, ha="left", weight="bold")
    return figure
