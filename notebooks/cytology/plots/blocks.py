"""Drawings of what the three networks are built from: one block of each, not to scale."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch, Rectangle

from cytology.plots.style import GREY, NETWORK_COLOUR

INK = "#222222"
STEP = 1.9  # from one step to the next
WIDE = 1.35  # width of a box


@dataclass(frozen=True)
class Block:
    """Paths beside each other, from one input to one output; a path is (what, maps) a step.

    `joined` says how their ends come together, `shortcut` whether the input joins them too.
    """

    title: str
    maps_in: int
    paths: tuple[tuple[tuple[str, int], ...], ...]
    joined: str
    shortcut: bool = False


@dataclass(frozen=True)
class DenseBlock:
    """Layers that each see the maps of all before them and add `growth` of their own."""

    title: str
    maps_in: int
    layers: int
    growth: int


BLOCKS = {
    "mobilenetv2": Block(
        "An inverted residual: narrow, wide, narrow; the shortcut joins the narrow ends",
        24,
        ((("1 x 1\nwiden", 144), ("3 x 3\neach map\nalone", 144), ("1 x 1\nnarrow", 24)),),
        "add",
        shortcut=True,
    ),
    "inceptionv3": Block(
        "An inception module: several views at once, 7 x 7 split into 1 x 7 and 7 x 1",
        768,
        (
            (("1 x 1", 192),),
            (("average", 768), ("1 x 1", 192)),
            (("1 x 1", 128), ("1 x 7", 128), ("7 x 1", 192)),
            (("1 x 1", 128), ("7 x 1", 128), ("1 x 7", 128), ("7 x 1", 128), ("1 x 7", 192)),
        ),
        "side by side",
    ),
    "densenet121": DenseBlock(
        "A dense block: each layer reads the maps of all before it and adds 32", 64, 5, 32
    ),
}


def building_block(architecture: str):
    """The block that a network repeats, with its numbers of maps (channels); a figure.

    The numbers are those of one block of the Keras network: `block_2` of MobileNetV2, `mixed4` of
    InceptionV3, `conv2` of DenseNet121.
    """
    block, colour = BLOCKS[architecture], NETWORK_COLOUR[architecture]
    draw = dense_block if isinstance(block, DenseBlock) else block_of_paths
    axis = draw(block, to_rgba(colour, 0.55))
    axis.set_aspect("equal")
    axis.autoscale_view()
    axis.axis("off")
    axis.set_title(block.title, loc="left", pad=12)
    return axis.figure


def block_of_paths(block: Block, colour: str):
    """Boxes from left to right, a row a path; the height of a box grows with its maps."""
    longest = max(len(path) for path in block.paths)
    most = max(block.maps_in, *(maps for path in block.paths for _, maps in path))
    rows, last = len(block.paths), (longest + 1) * STEP
    _, axis = plt.subplots(figsize=(9.5, 1.5 + 1.15 * rows))
    middle = (rows - 1) * 0.75
    box(axis, 0, middle, most, most, f"in\n{block.maps_in} maps", "#eeeeee", block.maps_in)
    out = sum(path[-1][1] for path in block.paths) if rows > 1 else block.paths[0][-1][1]
    box(axis, last, middle, most, most, f"{block.joined}\n{out} maps", "#eeeeee", out)
    for row, path in enumerate(block.paths):
        y, before = (rows - 1 - row) * 1.5, (0, middle)
        for step, (what, maps) in enumerate(path):
            place = (STEP * (step + 1), y)
            box(axis, *place, maps, most, f"{what}\n{maps}", colour, maps)
            arrow(axis, before, place)
            before = place
        arrow(axis, before, (last, middle))
    if block.shortcut:
        arrow(axis, (0, middle + 0.25), (last, middle + 0.25), bend=-0.3)
        axis.text(last / 2, middle + 1.5, "shortcut", ha="center", color=INK, fontsize=10)
        axis.set_ylim(middle - 0.9, middle + 1.9)
    return axis


def dense_block(block: DenseBlock, colour: str):
    """A column of stacked maps before each layer: what it reads; the newest lies on top."""
    _, axis = plt.subplots(figsize=(9.5, 3.6))
    unit = 2.6 / (block.maps_in + block.growth * block.layers)
    for layer in range(block.layers + 1):
        x, parts = layer * STEP, [block.maps_in] + [block.growth] * layer
        bottom = 0.0
        for part, maps in enumerate(parts):
            new = part == layer and layer > 0
            shade = colour if new else "#eeeeee"
            axis.add_patch(Rectangle((x, bottom), 0.75, maps * unit, fc=shade, ec=INK, lw=0.8))
            bottom += maps * unit
        axis.text(x + 0.375, -0.28, f"{sum(parts)} maps", ha="center", color=INK, fontsize=10)
        if layer < block.layers:
            start, end = (x + 0.75, bottom / 2), (x + STEP, bottom + block.growth * unit / 2)
            axis.add_patch(arrow_between(start, end))
            name = f"layer {layer + 1}\n+{block.growth}"
            axis.text(x + 1.3, bottom / 2 - 0.45, name, ha="center", color=INK, fontsize=10)
    return axis


def box(axis, x, y, maps, most, text, colour, count) -> None:
    """A box around (x, y), higher the more maps it holds."""
    height = 0.75 + 0.55 * count / most
    axis.add_patch(
        Rectangle((x - WIDE / 2, y - height / 2), WIDE, height, fc=colour, ec=INK, lw=0.8, zorder=2)
    )
    axis.text(x, y, text, ha="center", va="center", fontsize=9, color=INK, zorder=3)


def arrow(axis, start, end, bend: float = 0.0) -> None:
    """An arrow from the right side of a box to the left side of another, or over the boxes."""
    (x0, y0), (x1, y1) = start, end
    side = 0 if bend else WIDE / 2
    axis.add_patch(arrow_between((x0 + side, y0), (x1 - side, y1), bend))


def arrow_between(start, end, bend: float = 0.0) -> FancyArrowPatch:
    """An arrow in grey, bent as a part of its length."""
    style = f"arc3,rad={bend}"
    return FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=11, color=GREY, connectionstyle=style, zorder=1
    )
