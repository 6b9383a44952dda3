"""Figures of the shifts and of the domains left out, notebook 11."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from cytology.architectures import NETWORK_TITLE
from cytology.audits.shifts import (
    NONE,
    SHIFT_STRENGTHS,
    SHIFTS,
    FramedSmear,
    amount_in_words,
    shift_picture,
)
from cytology.plots import style
from cytology.wording import plural, shortened

METRIC_LABEL = {"auc": "AUC", "loss": "log loss (nats)"}


def shifts(smear: FramedSmear, reference: int) -> Figure:
    """One image: one row per shift, one column per strength; the reference is framed.

    The first column shows the reference strength the other way, or the untouched image for shifts
    that go one way only.
    """
    width, height = smear.image.size
    columns = 1 + len(SHIFT_STRENGTHS)
    figure, axes = plt.subplots(
        len(SHIFTS), columns, figsize=(11, len(SHIFTS) * (11 / 6.4 * height / width + 0.3))
    )
    for row, name in zip(axes, SHIFTS, strict=True):
        other = replace(smear, reverse=True), reference
        first = other if SHIFTS[name].goes_both_ways else (smear, 0)
        shown = [first, *((smear, strength) for strength in SHIFT_STRENGTHS)]
        for axis, (seen, strength) in zip(row, shown, strict=True):
            title = amount_for_smear(seen, name, strength) if strength else "untouched"
            if seen.reverse:
                title = f"other way: {title.removeprefix('factor ')}"
            elif name == next(iter(SHIFTS)):  # the first row names the columns
                title = f"strength {strength}\n{title}"
            style.show_picture(axis, shift_picture(seen, name, strength), title)
            if strength == reference and seen is smear:
                for side in axis.spines.values():
                    side.set(visible=True, color="black", linewidth=2.5)
        row[0].set_ylabel(name, fontsize=12, fontweight="bold")
    return figure


def amount_for_smear(smear: FramedSmear, name: str, strength: int) -> str:
    """The amount of a shift in words, with the way that this smear goes."""
    words = amount_in_words(name, strength)
    if not SHIFTS[name].goes_both_ways or smear.direction(name) > 0:
        return words
    before, factor, number = words.partition("factor ")
    return f"factor 1/{number}" if factor else f"\N{MINUS SIGN}{before}"


def metric_by_strength(table: pd.DataFrame, metric: str, reference: int, unit: str) -> Figure:
    """A metric with its 95 % interval against strength, one panel per shift, one line per network.

    `table` is that of `robustness.shift_summary`; `metric` is `auc` or `loss`.
    """
    figure, axes = style.grid(len(SHIFTS), 3, 4.2, 2.9)
    networks = list(dict.fromkeys(table["architecture"]))
    # With too few groups there are no intervals.
    low = table[[metric, f"{metric}_low"]].min().min()
    high = table[[metric, f"{metric}_high"]].max().max()
    limits = (0.9 * max(low, 0.03), 1.1 * max(high, np.log(2)))
    if metric == "auc":
        limits = min(low - 0.02, 0.45), 1.02
    for place, (axis, (name, shift)) in enumerate(zip(axes, SHIFTS.items(), strict=True)):
        for number, network in enumerate(networks):
            rows = table[(table["architecture"] == network) & table["shift"].isin([NONE, name])]
            bars = [rows[metric] - rows[f"{metric}_low"], rows[f"{metric}_high"] - rows[metric]]
            at = rows["strength"] + 0.14 * (number - (len(networks) - 1) / 2)
            look = style.look_of(network) | {"linewidth": 2, "elinewidth": 1.2, "markersize": 6}
            look["fmt"] = style.NETWORK_MARKER[network]
            axis.errorbar(at, rows[metric], np.maximum(bars, 0), **look)
        style.chance_line(axis, reference, zorder=0)
        axis.axhline(0.5 if metric == "auc" else np.log(2), color=style.GREY, linewidth=1, zorder=0)
        ticks = [f"{value:g}" for value in shift.amounts]
        axis.set_xticks([0, *SHIFT_STRENGTHS], ["none", *ticks])
        if metric == "loss":  # sure and wrong costs twenty times what careful and right does
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_locator(NullLocator())
        axis.set(title=name, xlabel=shift.axis, ylim=limits)
        if place % 3 == 0:
            axis.set_ylabel(METRIC_LABEL[metric])
    handles: list = axes[0].get_legend_handles_labels()[0]
    handles.append(style.entry("reference strength", color=style.GREY, linestyle=":"))
    handles.append(style.entry("knowing nothing", color=style.GREY))
    note = style.interval_note(f"bars: 95 %, by {unit}", table[f"{metric}_low"])
    figure.legend(handles=handles, loc="outside lower center", ncols=5, title=note)
    return figure


def calibration_curves(table: pd.DataFrame, reference: int) -> Figure:
    """Observed share of malignant images against predicted probability, one panel per network.

    Untouched pictures, and all shifts at the reference strength together, in bins of equal counts;
    bars are 95 % from drawing whole groups. `table` is that of `robustness.shift_reliability`.
    """
    networks = list(dict.fromkeys(table["architecture"]))
    figure, axes = style.panels(len(networks), 4.2 * len(networks) + 0.6, 4.2)
    parts = ((0, -0.006, "o", None), (reference, 0.006, "D", "white"))
    for axis, network in zip(axes, networks, strict=True):
        axis.plot([0, 1], [0, 1], color=style.GREY, linestyle=":")
        for strength, aside, marker, face in parts:
            rows = table[(table["architecture"] == network) & (table["strength"] == strength)]
            said, true = rows["said"] + aside, rows["true"]
            bars = [true - rows["true_low"], rows["true_high"] - true]
            colour = style.NETWORK_COLOUR[network] if strength == 0 else "black"
            look: style.Look = {"color": colour, "markerfacecolor": face or colour, "markersize": 7}
            look |= {"linewidth": 1.8, "elinewidth": 1.2, "capsize": 3}
            axis.errorbar(said, true, bars, fmt=marker + "-", **look)
        axis.set(title=NETWORK_TITLE[network], xlabel="probability of malignant, as said")
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes[0].set_ylabel("share that was malignant")
    marks = [
        style.entry("as said", color=style.GREY, linestyle=":"),
        style.entry("coloured: untouched", color=style.GREY, marker="o"),
        style.entry(f"strength {reference}, all shifts", marker="D", **style.HOLLOW),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure


def domains_left_out(table: pd.DataFrame, unit: str) -> Figure:
    """AUC on each domain by heads that saw it (filled) and by a head that never did (hollow).

    `table` has `architecture` and the columns of `left_out.leave_one_out`; a panel per network.
    """
    networks = list(dict.fromkeys(table["architecture"]))
    count = len(table) // len(networks)
    figure, axes = style.panels(len(networks), 4.2 * len(networks) + 1.8, 0.9 * count + 1.9)
    low = min(0.45, table[["auc", "auc_low", "auc_mixed", "auc_mixed_low"]].min().min() - 0.02)
    for axis, network in zip(axes, networks, strict=True):
        rows = table[table["architecture"] == network]
        for place, (_, row) in enumerate(rows.iterrows()):
            for name, aside, face in (("auc_mixed", -0.16, None), ("auc", 0.16, "white")):
                colour, at = style.NETWORK_COLOUR[network], place + aside
                axis.plot([row[f"{name}_low"], row[f"{name}_high"]], [at] * 2, color=colour, lw=2)
                look: style.Look = {"color": colour, "markerfacecolor": face or colour}
                axis.plot(row[name], at, "o", markersize=9, markeredgewidth=1.8, **look)
                axis.annotate(f"{row[name]:.3f}", (row[name], at), (0, 7), **style.ABOVE)
        style.chance_line(axis)
        axis.set(title=NETWORK_TITLE[network], xlabel=f"AUC, 95 % by {unit}", xlim=(low, 1.03))
        axis.set_ylim(count - 0.5, -0.6)
    names = [
        f"{row.column}: {shortened(row.left_out)}\n{row.images} images, {row.groups} {plural(unit)}"
        for row in rows.itertuples()
    ]
    axes[0].set_yticks(range(count), names)
    saw = " and every ".join(dict.fromkeys(table["column"]))
    shown = [
        style.entry(f"heads that saw every {saw}", marker="o", color="black"),
        style.entry(
            "a head that never saw this one", marker="o", markeredgewidth=1.8, **style.HOLLOW
        ),
    ]
    figure.legend(handles=shown, loc="outside lower center", ncols=2)
    return figure
