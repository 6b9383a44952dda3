"""Figures of the networks' blocks and of training, notebooks 04 to 06."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cytology.plots.style import GREY, NETWORK_COLOUR, Look, draw_confusion_matrix, entry, grid

Boxes = list[tuple[str, int]]  # of each its words and its number of maps (channels)
# One block of each Keras network: title, input and output, the paths between them, and arcs over a
# single path, by the place of their boxes. The blocks are `block_2` of MobileNetV2, `mixed4` of
# InceptionV3, and the first layers of `conv2` of DenseNet121.
BLOCKS: dict[str, tuple[str, Boxes, list[Boxes], list[tuple[int, int]]]] = {
    "mobilenetv2": (
        "An inverted residual: narrow, wide, narrow; the shortcut joins the narrow ends",
        [("in", 24), ("add", 24)],
        [[("1 x 1\nwiden", 144), ("3 x 3\neach map\nalone", 144), ("1 x 1\nnarrow", 24)]],
        [(0, 4)],
    ),
    "inceptionv3": (
        "An inception module: several views at once, 7 x 7 split into 1 x 7 and 7 x 1",
        [("in", 768), ("side by side", 768)],
        [
            [("1 x 1", 192)],
            [("average", 768), ("1 x 1", 192)],
            [("1 x 1", 128), ("1 x 7", 128), ("7 x 1", 192)],
            [("1 x 1", 128), ("7 x 1", 128), ("1 x 7", 128), ("7 x 1", 128), ("1 x 7", 192)],
        ],
        [],
    ),
    "densenet121": (
        "A dense block: each layer reads the maps of all before it and adds 32",
        [("in", 64), ("side by side", 192)],
        [[(f"layer {k + 1}\nfrom {64 + 32 * k} maps", 32) for k in range(4)]],
        [(start, end) for start in range(4) for end in range(start + 2, 6)],
    ),
}


def building_block(architecture: str) -> Figure:
    """The block that a network repeats, from left to right: a taller box has more maps."""
    title, ends, paths, arcs = BLOCKS[architecture]
    last, top = max(map(len, paths)) + 1, (len(paths) - 1) / 2  # a step is 1 wide, a path 1 high
    colour = to_rgba(NETWORK_COLOUR[architecture], 0.55)
    most = max(maps for path in [ends, *paths] for _, maps in path)
    height = len(paths) + (1.2 if arcs else 0.2)
    figure, axis = plt.subplots(figsize=(9.5, 0.3 + 1.2 * height))
    axis.set(title=title, xlim=(-0.4, last + 0.4), ylim=(-top - 0.6, height - top - 0.6))
    axis.axis("off")

    def box(x: int, y: float, words: str, maps: int, colour) -> float:
        """Draw a box around (x, y); returns how high it reaches."""
        height = 0.5 + 0.35 * maps / most
        axis.bar(x, height, 0.72, y - height / 2, color=colour, edgecolor="black", linewidth=0.8)
        axis.text(x, y, words, ha="center", va="center", fontsize=9)
        return y + height / 2

    def arrow(start: tuple, end: tuple, bend: float = 0) -> None:
        style = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", end, start, arrowprops=style | {"connectionstyle": f"arc3,rad={bend}"})

    tops = {}
    for x, (words, maps) in zip((0, last), ends, strict=True):
        tops[x] = box(x, 0, f"{words}\n{maps} maps", maps, "#eeeeee")
    for row, path in enumerate(paths):
        y = top - row
        aside = 0.3 * y / top if top else 0.0  # so that the arrows of several paths end apart
        before: tuple[float, float] = (0, aside)
        for x, (words, maps) in enumerate(path, 1):
            tops[x] = box(x, y, f"{words}\n{maps}", maps, colour)
            arrow((before[0] + 0.36, before[1]), (x - 0.36, y))
            before = x, y
        arrow((before[0] + 0.36, before[1]), (last - 0.36, aside))
    for start, end in arcs:
        arrow((start, tops[start]), (end, tops[end]), -0.3)
    return figure


# Of each line: which column, of the kept model or of the folds, its style and its words.
CURVES = (
    ("", False, "-", "folds, trained on"),
    ("val_", False, "--", "folds, left out"),
    ("", True, "-", "kept model, train part"),
    ("val_", True, "--", "kept model, val part"),
)
CURVE_COLOUR = {"-": "#0072B2", "--": "#D55E00"}


def learning_curves(history: pd.DataFrame, title: str) -> Figure:
    """Loss and accuracy by epoch, training against validation; folds thin, the final model bold."""
    stages = list(history["stage"].unique())
    figure, axes = plt.subplots(
        len(stages), 2, figsize=(10, 0.5 + 3.4 * len(stages)), squeeze=False, sharex="row"
    )
    shown = {}
    for row, stage in zip(axes, stages, strict=True):
        for axis, what in zip(row, ("loss", "accuracy"), strict=True):
            for name, part in history[history["stage"] == stage].groupby("model"):
                for prefix, kept, line, words in CURVES:
                    if kept != (name == "final"):
                        continue
                    look: Look = {"linestyle": line, "color": CURVE_COLOUR[line]}
                    look |= {"linewidth": 2.2} if kept else {"linewidth": 0.9, "alpha": 0.5}
                    look["marker"] = "o" if len(part) == 1 else None
                    axis.plot(part["epoch"], part[f"{prefix}{what}"], **look)
                    shown[words] = look
            axis.set(title=f"{title}, {stage.replace('_', '-')}: {what}")
            axis.set(xlabel="epoch", ylabel=what)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [entry(words, **shown[words]) for *_, words in CURVES if words in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    return figure


def confusion_matrices(tables: dict[str, pd.DataFrame], columns: int | None = None) -> Figure:
    """Confusion matrices at probability 0.5, one per title, in rows of `columns` (else one row)."""
    figure, axes = grid(len(tables), columns or len(tables), 3.4, 3.4)
    for axis, (title, rows) in zip(axes, tables.items(), strict=True):
        draw_confusion_matrix(axis, rows["label"] == "M", rows["probability"] >= 0.5, title)
    return figure
