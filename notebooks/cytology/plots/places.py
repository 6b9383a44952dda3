"""Figures on a score at another place, and on referral with a promise."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cytology.evaluation.statistics.referral import Referral
from cytology.plots.style import CLASS_COLOUR, GREY, WRONG, Look, interval_note, panels
from cytology.wording import plural

BINS = 24  # of logits


def predictive_values(table: pd.DataFrame, unit: str, here: float, there: float) -> Figure:
    """Predictive values and false alarms against the share of malignant images.

    `table` is that of `prevalence.at_prevalences`; `here` is the share in the run's own images,
    `there` that of the place asked for.
    """
    figure, axes = panels(2, 10.5, 4.2, sharey=False)
    share = table["prevalence"]
    for name, label, colour, line in (
        ("precision", "malignant call is right", CLASS_COLOUR["M"], "-"),
        ("negative_predictive_value", "benign call is right", CLASS_COLOUR["B"], "--"),
    ):
        axes[0].plot(share, table[name], line, color=colour, linewidth=2, label=label)
        bounds = table[f"{name}_low"], table[f"{name}_high"]
        axes[0].fill_between(share, *bounds, color=colour, alpha=0.18, lw=0)
    axes[0].set(title="predictive values", ylabel="share right", ylim=(-0.02, 1.02))
    known = table[np.isfinite(table["false_alarms"])]
    axes[1].plot(known["prevalence"], known["false_alarms"], color=CLASS_COLOUR["M"], linewidth=2)
    top = max(known["false_alarms"].max() * 3, 1.0) if len(known) else 1.0
    bounds = known["false_alarms_low"], known["false_alarms_high"].clip(upper=10 * top)
    axes[1].fill_between(known["prevalence"], *bounds, color=CLASS_COLOUR["M"], alpha=0.18, lw=0)
    axes[1].set_title("false alarms for each malignant image found")
    axes[1].set_yscale("log")
    # Whole powers as text: the theme writes no formulas.
    axes[1].set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes[1].set_ylim(0.01, top)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xticks([0.01, 0.1, 0.5], ["1 %", "10 %", "50 %"])
        axis.set_xlabel("malignant among the images (log scale)")
        axis.axvline(here, color=GREY, linestyle=":", label="these images")
        axis.axvline(there, color="black", linestyle="-.", label="the place asked for")
    words = interval_note(f"bands: 95 % by {unit}", table["precision_low"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, title=words)
    return figure


def new_logits(new: pd.DataFrame, fitted_on: pd.DataFrame, found) -> Figure:
    """The logits of new images, and the mixture of both classes that fits them best.

    `found` is the row of `label_shift.estimated_share` of the same two tables, whose logits have
    one scale.
    """
    figure, axis = plt.subplots(figsize=(7, 4))
    everything = pd.concat([new["logit"], fitted_on["logit"]])
    low, high = np.quantile(everything, [0.002, 0.998])
    edges = np.linspace(low, high, BINS + 1)
    # Beyond the ends, images count in the last bin.
    of_class = {
        label: np.histogram(part["logit"].clip(low, high), edges)[0] / len(part)
        for label, part in fitted_on.groupby("label")
    }
    seen = np.histogram(new["logit"].clip(low, high), edges)[0] / len(new)
    share = found["prevalence"] if np.isfinite(found["prevalence"]) else 0.0
    benign, malignant = (1 - share) * of_class["B"], share * of_class["M"]
    filled: Look = {"fill": True, "alpha": 0.45, "lw": 0}
    axis.stairs(benign, edges, color=CLASS_COLOUR["B"], label="benign", **filled)
    axis.stairs(
        benign + malignant, edges, baseline=benign, color=CLASS_COLOUR["M"], label="malignant",
        hatch="//", **filled,
    )  # fmt: skip
    axis.stairs(seen, edges, color="black", linewidth=2, label="new images")
    fits = "they are NO mixture of these" if found["moved"] else "a mixture may explain them"
    axis.set(xlabel="logit", ylabel="share of the images")
    axis.set_title(
        f"{share:.0%} malignant fit best: {fits}", color=WRONG if found["moved"] else "k"
    )
    axis.legend(title="known images, mixed", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def recalibration_gains(table: pd.DataFrame, unit: str) -> Figure:
    """The change of the log loss by each way of recalibration, with its interval.

    `table` is that of `elsewhere.recalibration_gain`.
    """
    rows = table[table["way"] != "as it is"]
    figure, axis = plt.subplots(figsize=(6.5, 1.2 + 0.5 * len(rows)))
    place = np.arange(len(rows))[::-1]
    axis.hlines(place, rows["loss_change_low"], rows["loss_change_high"], color="black")
    axis.plot(rows["loss_change"], place, "o", color="black", markersize=7)
    axis.axvline(0, color=GREY, linestyle=":")
    axis.set_yticks(place, rows["way"])
    axis.set(ylim=(-0.6, len(rows) - 0.4), title="what recalibration there would gain")
    bars = interval_note(f"bars: 95 % by {unit}", rows["loss_change_low"])
    axis.set_xlabel(f"change of the log loss of {plural(unit)} left out (minus: better)\n{bars}")
    return figure


def referral(curve: pd.DataFrame, chosen: Referral, unit: str) -> Figure:
    """How many are missed against how many are referred, and what can be promised of it.

    `curve` is that of `referral.referral_curve`, of the patients that the limit was chosen on.
    """
    figure, axis = plt.subplots(figsize=(7, 4.2))
    curve = curve.sort_values("referred")
    seen: Look = {"drawstyle": "steps-post", "color": GREY, "linestyle": "--"}
    axis.plot(curve["referred"], curve["missed"], label="missed among these", **seen)
    promised: Look = {"drawstyle": "steps-post", "color": CLASS_COLOUR["B"], "linewidth": 2}
    axis.plot(curve["referred"], curve["bound"], label="what can be promised", **promised)
    wanted = f"wanted: {chosen.level:.3g}"
    axis.axhline(chosen.level, color=CLASS_COLOUR["M"], linestyle=":", label=wanted)
    if not chosen.promised:
        title = f"no promise: it takes {chosen.needed}, here are {chosen.patients}"
    elif np.isinf(chosen.limit):
        title = "nobody need be referred"
    else:
        row = curve[curve["limit"] == chosen.limit]
        look: Look = {"color": CLASS_COLOUR["M"], "markersize": 10, "markeredgecolor": "white"}
        axis.plot(row["referred"], row["bound"], "D", label="the limit chosen", **look)
        title = f"at the limit chosen, {row['referred'].iloc[0]:.0%} are referred"
    axis.set(title=title, xlabel=f"share of {plural(unit)} referred", xlim=(-0.02, 1.02))
    axis.set_ylabel(f"malignant and not referred,\nshare of all {plural(unit)}")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
