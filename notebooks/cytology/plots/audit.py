"""The figure of the leakage audit, notebook 09."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cytology.architectures import NETWORK_TITLE
from cytology.plots.style import GREY, NETWORK_COLOUR, WRONG
from cytology.wording import span

# Of each kind of labels: how far from its protocol it stands, its marker, its colour (None: the
# network's).
LABEL_MARKS = {
    "true": (-0.22, "o", None),
    "shuffled": (0.06, "D", GREY),
    "shuffled by group": (0.34, "s", "#5a4a78"),
}


def leakage_audit(summary: pd.DataFrame, unit: str) -> Figure:
    """AUC under three ways to split, true labels filled, shuffled ones hollow; a panel a network.

    `summary` has `architecture` and the columns of `leakage.audit_summary`.
    """
    names = {
        "images_random": "augment, then split\npictures at random",
        "copies_together": "copies of an image\nkept together",
        "patients_together": f"images of a {unit}\nkept together",
    }
    networks = list(dict.fromkeys(summary["architecture"]))
    figure, axes = plt.subplots(
        1, len(networks), figsize=(4.1 * len(networks) + 2.2, 4.6), sharey=True, squeeze=False
    )
    for axis, network in zip(axes[0], networks, strict=True):
        rows = summary[summary["architecture"] == network].set_index(["protocol", "labels"])
        for place, protocol in enumerate(names):
            for labels, (aside, marker, colour) in LABEL_MARKS.items():
                row, at = rows.loc[(protocol, labels)], place + aside
                colour = colour or NETWORK_COLOUR[network]
                axis.plot(row[["auc_low", "auc_high"]], [at] * 2, color=colour, linewidth=2)
                axis.plot(
                    row["auc"], at, marker, markersize=8, color=colour, markeredgewidth=1.8,
                    markerfacecolor=colour if labels == "true" else "white", zorder=3,
                )  # fmt: skip
                axis.annotate(
                    f"{row['auc']:.3f}", (row["auc"], at), (0, 7), color=colour,
                    fontsize=9, textcoords="offset points", ha="center", fontweight="bold",
                )  # fmt: skip
        gain, honest = (rows.loc[(name, "true")] for name in ("images_random", "patients_together"))
        for row, below in ((honest, 1.7), (gain, -0.3)):
            axis.plot([row["auc"]] * 2, [-0.5, below], color=GREY, linewidth=0.8, linestyle="--")
        axis.annotate(
            "", (gain["auc"], -0.45), (honest["auc"], -0.45),
            arrowprops={"arrowstyle": "-|>", "color": WRONG, "linewidth": 2}
            | {"shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axis.set_title(
            f"{NETWORK_TITLE[network]}: {gain['inflation']:+z.1f} points\n"
            f"({span(gain, 'inflation', '95 %: ', '+z.1f')})"
        )
        axis.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
        axis.set(xlabel="AUC", ylim=(2.5, -0.7), xlim=(min(0.35, summary["auc_low"].min()), 1.03))
    axes[0][0].set_yticks(range(3), names.values())
    words = {
        "true": "true labels",
        "shuffled": "labels shuffled by image: nothing to learn",
        "shuffled by group": f"labels shuffled by {unit}: only the {unit} to recognize",
    }
    shown = [
        plt.Line2D(
            [], [], linestyle="", marker=marker, color=colour or "black", label=words[labels],
            markerfacecolor="black" if labels == "true" else "white", markeredgewidth=1.8,
        )
        for labels, (_, marker, colour) in LABEL_MARKS.items()
    ]  # fmt: skip
    shown.append(plt.Line2D([], [], color=GREY, linestyle=":", label="chance"))
    figure.legend(handles=shown, loc="outside lower center", ncols=2)
    return figure
