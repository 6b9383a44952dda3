"""Figures of notebook 08 on what to do with a probability: calibrate, decide, or refer."""

from typing import Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cytology.evaluation.readable import capital, title
from cytology.plots.style import (
    GREY,
    Look,
    colour_of,
    entry,
    grid,
    interval_note,
    look_of,
    panels,
)
from cytology.wording import plural

RULE_MARKER = {"half": "o", "youden": "D", "sensitivity": "^"}
RULE_TITLE = {"half": "at 0.5", "youden": "Youden", "sensitivity": "wanted sensitivity"}
CERTAINTY_LINE: dict[str, Literal["-", "--", ":"]] = {
    "margin": "-",
    "orientations disagree": "--",
    "networks disagree": ":",
}


def thresholds(table: pd.DataFrame, unit: str) -> Figure:
    """Sensitivity against specificity at each locked threshold with intervals, a panel per part."""
    parts = list(dict.fromkeys(table["judged_on"]))
    figure, axes = panels(len(parts), 5.2 * len(parts) + 1, 4.8)
    for axis, part in zip(axes, parts, strict=True):
        rows = table[table["judged_on"] == part]
        for row in rows.itertuples():
            colour = colour_of(row.model)
            bar: Look = {"color": colour, "alpha": 0.45}
            axis.plot([row.specificity] * 2, [row.recall_low, row.recall_high], **bar)
            axis.plot([row.specificity_low, row.specificity_high], [row.recall] * 2, **bar)
            look: Look = {"markersize": 9, "color": colour, "markeredgecolor": "white"}
            axis.plot(row.specificity, row.recall, RULE_MARKER[row.rule], **look)
        axis.axhline(rows["wanted_sensitivity"].iloc[0], color=GREY, linestyle=":", linewidth=1)
        fitted = ", cross-fitted" if part != "test" else ""
        groups = rows["groups"].iloc[0]
        counts = f"{rows['images'].iloc[0]} images, {groups} {plural(unit)}"
        few = ": too few for bars" if rows["recall_low"].isna().all() else ""
        axis.set(title=f"{part}{fitted}\n{counts}{few}", xlabel="specificity")
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes[0].set_ylabel("sensitivity (recall)")
    shown = [
        entry(RULE_TITLE[rule], marker=marker, linestyle="", color="black")
        for rule, marker in RULE_MARKER.items()
    ]
    shown += [
        entry(title(name), color=colour_of(name), linewidth=3)
        for name in dict.fromkeys(table["model"])
    ]
    bars = f"bars: 95 % by {unit}; dotted: the wanted sensitivity"
    figure.legend(handles=shown, loc="outside lower center", ncols=3, title=bars)
    return figure


def decision_curve(benefits: pd.DataFrame, unit: str) -> Figure:
    """Net benefit of each network, of calling all images malignant, and of calling none.

    `benefits` is the table of `operating_points.net_benefits`.
    """
    at = benefits["threshold"]
    names = [name.removesuffix("_low") for name in benefits if name.endswith("_low")]
    figure, axes = panels(len(names), 0.8 + 3.6 * len(names), 3.6)
    top = benefits[["all", *names]].to_numpy().max()
    for axis, name in zip(axes, names, strict=True):
        colour, low, high = colour_of(name), benefits[f"{name}_low"], benefits[f"{name}_high"]
        band = axis.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
        axis.plot(at, benefits[name], look_of(name)["linestyle"], linewidth=2, color=colour)
        (every,) = axis.plot(at, benefits["all"], color=GREY)
        none = axis.axhline(0, color="black", linewidth=1)
        axis.set(title=title(name), ylim=(-0.25 * top, 1.2 * top))
    axes[0].set_ylabel("net benefit")
    figure.supxlabel("threshold: the calibrated probability from which one would act", fontsize=11)
    shown = interval_note(
        f"band: 95 % by {unit}", benefits[[f"{name}_low" for name in names]].stack()
    )
    share = benefits["malignant_share"].iloc[0]
    words = [f"call all malignant ({share:.0%} are)", "call none malignant", shown]
    figure.legend([every, none, band], words, loc="upper left", bbox_to_anchor=(1, 0.9))
    return figure


def calibration(
    before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame], unit: str
) -> Figure:
    """Reliability of each network before and after slope and intercept, with counts below.

    Both map a network to the table of `calibration.reliability`.
    """
    shared: Look = {"sharex": True, "sharey": "row", "squeeze": False}
    size = (4.2 * len(before), 5.2)
    figure, axes = plt.subplots(2, len(before), figsize=size, height_ratios=[3, 1], **shared)
    for column, name in enumerate(before):
        upper, lower = axes[:, column]
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        for table, marker, colour, label, shift in (
            (before[name], "o", GREY, "as it is", -0.012),
            (after[name], "D", colour_of(name), "slope and intercept fitted", 0.012),
        ):
            upper.plot(table["said"], table["true"], marker + "-", color=colour, markersize=5)
            low, high = table["true_low"], table["true_high"]
            upper.fill_between(table["said"], low, high, color=colour, alpha=0.18, lw=0)
            lower.bar(table["said"] + shift, table["images"], 0.024, color=colour, label=label)
        upper.set(title=title(name), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        lower.set(xlabel="predicted probability of malignant")
        lower.legend(loc="lower center", bbox_to_anchor=(0.5, -1.15), fontsize=9)
    axes[0, 0].set_ylabel(f"share malignant\n(bands: 95 % by {unit})")
    axes[1, 0].set_ylabel("images")
    return figure


def abstention(table: pd.DataFrame, unit: str) -> Figure:
    """Accuracy and sensitivity of answered images against the share referred, a panel per model."""
    models = list(dict.fromkeys(table["model"]))
    figure, axes = grid(2 * len(models), len(models), 3.4, 3.1)
    for column, model in enumerate(models):
        for row, (what, label) in enumerate((("accuracy", "accuracy"), ("recall", "sensitivity"))):
            axis = axes[row * len(models) + column]
            for by, part in table[table["model"] == model].groupby("certainty", sort=False):
                share, colour = 100 * part["referred"], colour_of(model)
                axis.plot(share, part[what], CERTAINTY_LINE[by], color=colour, linewidth=2)
                if by == "margin":
                    bounds = part[f"{what}_low"], part[f"{what}_high"]
                    axis.fill_between(share, *bounds, color=colour, alpha=0.15, lw=0)
            axis.set(ylim=(min(0.45, table[[what, f"{what}_low"]].min(axis=None)), 1.02))
            axis.set_title(capital(title(model)) if row == 0 else "")
            axis.set_xlabel("referred (%)" if row else "")
            axis.set_ylabel(label if column == 0 else "")
    shown = [
        entry(by, color="black", linestyle=line)
        for by, line in CERTAINTY_LINE.items()
        if (table["certainty"] == by).any()
    ]
    bands = interval_note(f"bands: 95 % by {unit}", table["accuracy_low"])
    words = f"referred first: least margin or most disagreement; {bands}"
    figure.legend(handles=shown, loc="outside lower center", ncols=3, title=words)
    return figure
