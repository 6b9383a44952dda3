"""The figure of what studies of other sizes would show."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cytology.evaluation.readable import title
from cytology.plots.style import GREY, entry, look_of, panels

PAIR_LINES = ("-", "--", ":")
PAIR_COLOURS = ("#000000", "#CC79A7", "#56B4E9")


def study_sizes(
    curves: pd.DataFrame, widths: pd.DataFrame, pairs: pd.DataFrame, units: str
) -> Figure:
    """Width of each network's interval, and smallest difference found, by number of patients.

    The tables are those of `planning.plan_of_run`. A vertical line is this study; a dotted one the
    width that is wanted; a circle the number of patients that would find the observed difference.
    """
    count = 1 + bool(len(pairs))
    figure, axes = panels(count, 1 + 5 * count, 4.2, sharey=False)
    of_width = curves[curves["what"] == "width"]
    for name, rows in of_width.groupby("name", sort=False):
        axes[0].plot(rows["groups"], rows["value"], linewidth=2, **look_of(name))
    wanted = widths["wanted_width"].iloc[0]
    axes[0].axhline(wanted, color=GREY, linestyle=":", linewidth=1.5)
    axes[0].set(title="How wide would the interval be?", ylabel="width of the 95 % interval of AUC")
    shown = [entry(f"wanted: {wanted:g}", color=GREY, linestyle=":")]
    axes[0].legend(
        handles=[*axes[0].get_legend_handles_labels()[0], *shown], fontsize=9, loc="upper right"
    )
    for place, row in enumerate(pairs.itertuples()):
        look = {"color": PAIR_COLOURS[place % 3], "linestyle": PAIR_LINES[place % 3]}
        mine = (curves["name"] == row.first) & (curves["second"] == row.second)
        label = f"{title(row.first)}, {title(row.second)}"
        part = curves[mine & (curves["what"] == "smallest")]
        axes[1].plot(part["groups"], part["value"], linewidth=2, label=label, **look)
        if row.groups_to_decide <= part["groups"].max():
            at = row.groups_to_decide, abs(row.difference)
            axes[1].plot(*at, "o", markersize=9, markerfacecolor="white", color=look["color"])
    if count > 1:
        axes[1].set(title="Which difference would it find?")
        axes[1].set_ylabel(f"smallest difference of AUC, power {pairs['power'].iloc[0]:.0%}")
        circle = entry("finds the observed one", marker="o", linestyle="", color="black",
                       markerfacecolor="white")  # fmt: skip
        axes[1].legend(
            handles=[*axes[1].get_legend_handles_labels()[0], circle], fontsize=9, loc="upper right"
        )
    for axis in axes:
        axis.axvline(widths["groups"].max(), color=GREY, linewidth=1)
        axis.set(xscale="log", xlabel=units, ylim=(0, None))
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda groups, _: f"{groups:,.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    return figure
