"""The figure of the leakage audit, notebook 09."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cytology.intervals import span
from cytology.plots.style import GREY, NETWORK_COLOUR, WRONG
from cytology.settings import NETWORK_TITLE


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
