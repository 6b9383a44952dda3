"""What all figures share: colours, the theme, a grid of pictures.

One colour a class and one a network, the same in all notebooks (Okabe & Ito, "Color universal
design", 2008), with a marker or a label beside the colour.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from cytology.caveats import COLOURS
from cytology.intervals import NO_INTERVAL
from cytology.networks import NETWORKS

CLASS_NAME = {"B": "benign (B)", "M": "malignant (M)"}
CLASS_COLOUR = {"B": "#0072B2", "M": "#D55E00"}
NETWORK_COLOUR = {name: network.colour for name, network in NETWORKS.items()}
NETWORK_LINE = {name: network.line for name, network in NETWORKS.items()}
NETWORK_MARKER = {name: network.marker for name, network in NETWORKS.items()}
SPLIT_COLOUR = {"train": "#999999", "val": "#E69F00", "test": "#0072B2"}
GREY = "#777777"
WRONG = COLOURS["leak"]

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


def of_bounds(words: str, bounds) -> str:
    """Words on what bars or bands show; where no bound is known, that there are none, and why."""
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


def picture(axis, pixels, title: str = "", colour: str = "black") -> None:
    """Show pixels without ticks or frame."""
    axis.imshow(pixels)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9, color=colour, fontweight="normal")
    sns.despine(ax=axis, left=True, bottom=True)
