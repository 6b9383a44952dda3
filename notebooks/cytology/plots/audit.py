"""The figure of the leakage audit, notebook 10."""

import pandas as pd
from matplotlib.figure import Figure

from cytology.evaluation.readable import title
from cytology.plots.style import (
    ABOVE,
    GREY,
    WRONG,
    Look,
    chance_line,
    colour_of,
    entry,
    panels,
)
from cytology.wording import interval_text

# Of each kind of labels: how far from its protocol it stands, its marker, its colour (None: the
# network's).
LABEL_MARKS = {
    "true": (-0.22, "o", None),
    "shuffled": (0.06, "D", GREY),
    "shuffled by group": (0.34, "s", "#5a4a78"),
}


def leakage_audit(summary: pd.DataFrame, unit: str) -> Figure:
    """AUC under three ways to split, true labels filled, shuffled ones hollow; a panel per network.

    `summary` has `architecture` and the columns of `leakage.audit_summary`.
    """
    names = {
        "images_random": "augment, then split\npictures at random",
        "copies_together": "copies of an image\nkept together",
        "patients_together": f"images of a {unit}\nkept together",
    }
    networks = list(dict.fromkeys(summary["architecture"]))
    figure, axes = panels(len(networks), 4.1 * len(networks) + 2.2, 5.4)
    lowest = summary[["auc", "auc_low"]].min().min()
    for axis, network in zip(axes, networks, strict=True):
        rows = summary[summary["architecture"] == network].set_index(["protocol", "labels"])
        for place, protocol in enumerate(names):
            for labels, (aside, marker, colour) in LABEL_MARKS.items():
                row, at = rows.loc[(protocol, labels)], place + aside
                colour = colour or colour_of(network)
                axis.plot(row[["auc_low", "auc_high"]], [at] * 2, color=colour, linewidth=2)
                look: Look = {"color": colour, "markersize": 8, "markeredgewidth": 1.8}
                look["markerfacecolor"] = colour if labels == "true" else "white"
                axis.plot(row["auc"], at, marker, zorder=3, **look)
                look = ABOVE | {"color": colour, "fontweight": "bold"}
                look["ha"] = "right" if row["auc"] > 0.93 else "center"  # within the frame
                axis.annotate(f"{row['auc']:.3f}", (row["auc"], at), (0, 7), **look)
        gain, honest = (rows.loc[(name, "true")] for name in ("images_random", "patients_together"))
        for row, below in ((honest, 1.7), (gain, -0.3)):
            axis.plot([row["auc"]] * 2, [-0.5, below], color=GREY, linewidth=0.8, linestyle="--")
        arrow = {"arrowstyle": "-|>", "color": WRONG, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (gain["auc"], -0.45), (honest["auc"], -0.45), arrowprops=arrow)
        axis.set_title(
            f"{title(network)}: {gain['inflation']:+z.1f} points\n"
            f"({interval_text(gain, 'inflation', '95 %: ', '+z.1f')})"
        )
        chance_line(axis)
        axis.set(xlabel="AUC", ylim=(2.6, -0.7), xlim=(max(0, min(0.35, lowest - 0.05)), 1.03))
    axes[0].set_yticks(range(3), names.values())
    words = {
        "true": "true labels",
        "shuffled": "labels shuffled by image: nothing to learn",
        "shuffled by group": f"labels shuffled by {unit}: only the {unit} to recognize",
    }
    shown = []
    for labels, (_, marker, colour) in LABEL_MARKS.items():
        look = {"marker": marker, "color": colour or "black", "markeredgewidth": 1.8}
        look["markerfacecolor"] = "black" if labels == "true" else "white"
        shown.append(entry(words[labels], linestyle="", **look))
    shown.append(entry("chance", color=GREY, linestyle=":"))
    figure.legend(handles=shown, loc="outside lower center", ncols=2)
    return figure
