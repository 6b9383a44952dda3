"""What figures share: colours, the theme, a grid of pictures, heat over an image.

One colour per class and per network, the same in all notebooks (Okabe & Ito, "Color universal
design", 2008), always with a marker or a label as well.
"""

import base64
import io
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image
from sklearn.metrics import confusion_matrix

from cytology.architectures import ARCHITECTURES, NETWORK_TITLE
from cytology.files import written_whole
from cytology.run import GIVEN_LEAKS, OUTSIDE, Run, outside_title
from cytology.wording import COLOURS, NO_INTERVAL

Look = dict[str, Any]  # how Matplotlib draws a mark
DPI = 120
DRAWN = {"Comment": "names: pseudonyms"}  # figures of earlier versions showed names: not shared
CSS_DPI = 96  # a browser's pixel is 1/96 inch: a figure appears in the size that it was drawn for
CLASS_NAME = {"B": "benign (B)", "M": "malignant (M)"}
CLASS_COLOUR = {"B": "#0072B2", "M": "#D55E00"}
NETWORK_COLOUR = {name: network.colour for name, network in ARCHITECTURES.items()}
NETWORK_LINE = {name: network.line for name, network in ARCHITECTURES.items()}
NETWORK_MARKER = {name: network.marker for name, network in ARCHITECTURES.items()}
OUTSIDE_COLOURS = ("#E69F00", "#8B4513", "#808000", "#6A3D9A")
SPLIT_COLOUR = {"train": "#999999", "val": "#E69F00", "test": "#0072B2"}
GREY = "#777777"
WRONG = "#b00020"  # also of the banner of a leak
HEAT = plt.get_cmap("inferno")
LEAK_IN_FIGURES = {
    "original": "copies of test images lie in training",
    GIVEN_LEAKS: "groups lie in several parts",
}


def save_figure(run: Run, name: str, figure, caption: str) -> None:
    """Save a Matplotlib figure as `run/figures/name.png`, show it in a notebook, and close it.

    The caption travels inside the PNG, for the report. Where the split leaks the picture itself
    says so: it may travel alone.
    """
    # 01 and 02 come before the split; the audit of 10 makes splits of its own.
    if name[:2] not in ("01", "02", "10") and run.leaks:
        warning = f"protocol: {run.protocol}. THIS SPLIT LEAKS: {LEAK_IN_FIGURES[run.protocol]}."
        figure.text(0, 1, warning, color=COLOURS["leak"], weight="bold", va="bottom")
        caption = f"{caption}. {warning}"
    data = png(figure, caption)
    with written_whole(run / "figures" / f"{name}.png") as temporary:
        temporary.write_bytes(data)
    show_png(data, figure, caption)


def show_figure(figure, caption: str) -> None:
    """Show a Matplotlib figure in a notebook with its caption, without saving it; close it."""
    show_png(png(figure, caption), figure, caption)


def png(figure, caption: str) -> bytes:
    """A figure as PNG with its caption inside."""
    stream = io.BytesIO()
    # As `bbox_inches="tight"` would, which draws everything twice to learn what it takes.
    figure.set_dpi(DPI)
    figure.get_layout_engine().execute(figure)
    with plt.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # "none" would keep one that asks for the second drawing
    everything = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    figure.savefig(
        stream,
        format="png",
        dpi=DPI,
        bbox_inches=everything,
        metadata={"Description": caption} | DRAWN,
    )
    return stream.getvalue()


def show_png(data: bytes, figure, caption: str) -> None:
    """Show a picture in a notebook; the inline backend must not draw its figure again.

    As HTML: of a picture as such, JupyterLab drops the alternative text.
    """
    from IPython import get_ipython
    from IPython.display import display

    plt.close(figure)
    if get_ipython() is None:
        return
    width = round(int.from_bytes(data[16:20], "big") * CSS_DPI / DPI)  # PNG: width, from byte 16
    address = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    page = (
        f'<figure style="margin:0 0 1em"><img src="{address}" alt="{escape(caption)}" '
        f'width="{width}" style="max-width:100%;height:auto;background:#fff">'
        f'<figcaption style="opacity:.75">{escape(caption)}</figcaption></figure>'
    )
    display({"text/html": page, "text/plain": f"Figure: {caption}"}, raw=True)


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
        "text.parse_math": False,  # a file may be called $x$
    },
)


# Words above a mark, and a mark of several networks that is not filled.
ABOVE = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
HOLLOW = {"color": "black", "markerfacecolor": "white"}


def look_of(network: str) -> Look:
    """Colour, line and label of a network, or of a model from outside."""
    look: Look = {"color": colour_of(network), "linestyle": NETWORK_LINE.get(network, ":")}
    return look | {"label": NETWORK_TITLE.get(network) or outside_title(network)}


def entry(label: str, **look) -> plt.Line2D:
    """An entry of a legend."""
    return plt.Line2D([], [], label=label, **look)


def chance_line(axis, at: float = 0.5, **look) -> None:
    """A dotted vertical line at the value of chance, or of no difference."""
    axis.axvline(at, **{"color": GREY, "linestyle": ":", "linewidth": 1} | look)


def panels(count: int, width: float, height: float, **shared):
    """A figure and its `count` axes side by side, which share the vertical axis by default."""
    shared = shared or {"sharey": True}
    figure, axes = plt.subplots(1, count, figsize=(width, height), squeeze=False, **shared)
    return figure, axes[0]


_colour_outside: dict[str, str] = {}


def colour_of(model: str) -> str:
    """The network's colour, also for what combines its predictions; black for several networks.

    Models from outside get theirs in the order in which they are first drawn.
    """
    first = model.split(",")[0]
    if first.startswith(OUTSIDE):
        next_one = OUTSIDE_COLOURS[len(_colour_outside) % len(OUTSIDE_COLOURS)]
        return _colour_outside.setdefault(first, next_one)
    return NETWORK_COLOUR.get(first, GREY if first.startswith("baseline") else "black")


def interval_note(words: str, bounds) -> str:
    """`words` on what bars or bands show; if no bound is known, why there are none."""
    return words if pd.notna(bounds).any() else NO_INTERVAL


def grid(count: int, columns: int, width: float, height: float):
    """A figure with `count` axes in rows of `columns`; the axes left over are hidden."""
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for axis in axes.ravel()[count:]:
        axis.set_visible(False)
    return figure, axes.ravel()[:count]


def show_picture(axis, pixels, title: str = "", colour: str = "black") -> None:
    """Show pixels without ticks or frame."""
    axis.imshow(pixels)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9, color=colour, fontweight="normal")
    sns.despine(ax=axis, left=True, bottom=True)


def draw_confusion_matrix(axis, truth, called, title: str) -> None:
    """A confusion matrix of which are malignant: counts, and shares of the true class as shade.

    What is right is blue, what is wrong is red.
    """
    matrix = confusion_matrix(truth, called, labels=[False, True])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    text = np.vectorize(lambda n, share: f"{n}\n{share:.0%}")(matrix, shares)
    right, wrong = (plt.get_cmap(name)(shares) for name in ("Blues", "Reds"))
    axis.imshow(np.where(np.eye(2, dtype=bool)[..., None], right, wrong))
    for (row, column), words in np.ndenumerate(text):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, words, color=colour, ha="center", va="center")
    axis.set(title=title, xlabel="predicted (% of each row)", ylabel="true")
    axis.set(xticks=[0, 1], yticks=[0, 1], xticklabels=["B", "M"], yticklabels=["B", "M"])


def overlay_heat(image: Image.Image, heat: np.ndarray) -> np.ndarray:
    """Heat above zero over an image in grey, (height, width, 3) in 0..1, hottest brightest.

    `heat` has the shape of the image. Each image has its own scale, up to its maximum.
    """
    grey = np.asarray(image.convert("L"), float)[..., None] / 255
    share = np.clip(heat, 0, None) / max(float(heat.max()), 1e-12)
    weight = (0.75 * np.sqrt(share))[..., None]
    return (1 - weight) * (0.25 + 0.75 * grey) + weight * HEAT(share)[..., :3]
