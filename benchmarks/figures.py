"""Figures of the benchmarks: a result in, a Matplotlib figure out."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.comparison import Result
from cytology.plots.style import GREY

OURS, TARGET = "#0072B2", "#D55E00"


def ratios(result: Result) -> Figure:
    """One line per row: the ratio of every run, their median in numbers, and the target."""
    rows = result.rows
    figure, axis = plt.subplots(figsize=(9, 0.62 * len(rows) + 1.5))
    for place, row in enumerate(rows):
        each = [ratio for *_, ratio in row.runs]
        axis.plot([1, row.ratio], [place] * 2, color=OURS, linewidth=3, alpha=0.35)
        axis.plot(each, [place] * len(each), "o", color=OURS, markerfacecolor="none", markersize=7)
        axis.plot(row.ratio, place, "D", color=OURS, markersize=8)
        axis.annotate(
            f"{row.ratio:.3g}", (max(*each, row.ratio), place), (10, 0), color=OURS,
            textcoords="offset points", va="center", fontweight="bold",
        )  # fmt: skip
        if row.limit is not None:
            axis.plot([row.limit] * 2, [place - 0.32, place + 0.32], color=TARGET, linewidth=3)
    axis.axvline(1, color=GREY, linewidth=1, linestyle=":")
    if max(row.ratio for row in rows) > 5:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(plt.FormatStrFormatter("%g"))
    axis.set_yticks(range(len(rows)), [row.what for row in rows])
    axis.set(xlabel="how many times as good as the other", ylim=(len(rows) - 0.5, -0.5))
    axis.margins(x=0.12)
    shown = [
        plt.Line2D([], [], marker="D", color=OURS, linestyle="", label="median"),
        plt.Line2D(
            [], [], marker="o", color=OURS, linestyle="", markerfacecolor="none", label="each run"
        ),
        plt.Line2D([], [], color=TARGET, linewidth=3, label="target"),
    ]
    figure.legend(handles=shown, loc="outside upper center", ncols=3)
    return figure
