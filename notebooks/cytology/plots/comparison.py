"""Figures of the comparison, notebook 07, and of what would settle it, 14."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.readable import capital, title
from cytology.plots import style
from cytology.wording import p_in_figures, with_interval


def forest_plot(table: pd.DataFrame, unit: str) -> Figure:
    """Forest plot of AUCs with intervals: images filled, groups hollow, the baseline a line.

    `table` are rows of `comparison_all.csv` that were judged on the same part.
    """
    models = list(dict.fromkeys(table["model"]))[::-1]
    figure, axis = plt.subplots(figsize=(9.5, 0.6 * len(models) + 1.6))
    for place, model in enumerate(models):
        rows = table[table["model"] == model]
        for row in rows.itertuples():
            alone = row.level == "image"
            y, colour = place + (0.13 if alone else -0.17), style.colour_of(model)
            axis.plot([row.auc_low, row.auc_high], [y, y], color=colour, linewidth=2)
            shape, size, face = ("o", 8, colour) if alone else ("s", 6, "white")
            look: style.Look = {"color": colour, "markersize": size, "markerfacecolor": face}
            axis.plot(row.auc, y, shape, zorder=3, **look)
        text, right = with_interval(rows.iloc[0], "auc"), axis.get_yaxis_transform()
        axis.text(1.02, place, text, va="center", fontsize=10, transform=right)
    baseline = table[table["model"].str.startswith("baseline")]["auc"].iloc[0]
    style.chance_line(axis, baseline, linestyle="--")
    style.chance_line(axis)
    random = set(table.loc[table["weights"] == "random", "model"])
    names = [
        capital(title(model)) + ("\n(random weights)" if model in random else "")
        for model in models
    ]
    axis.set_yticks(range(len(models)), names)
    lowest = table[["auc", "auc_low"]].min(axis=None) - 0.02
    axis.set(xlim=(min(0.4, lowest), 1.01), ylim=(-0.6, len(models) - 0.4))
    axis.set_title(f"How well the classes are separated ({table['judged_on'].iloc[0]})")
    axis.set_xlabel(f"AUC, 95 % interval by {unit} (numbers: images)")
    shown = [style.entry("images", marker="o", color="black")]
    if (table["level"] == unit).any():
        shown.append(style.entry(f"one prediction per {unit}", marker="s", **style.HOLLOW))
    shown.append(style.entry("size and colour alone", color=style.GREY, linestyle="--"))
    figure.legend(handles=shown, loc="outside lower center", ncols=3)
    return figure


def roc_and_precision_recall(
    tables: dict[str, pd.DataFrame], bands: dict[str, pd.DataFrame], unit: str
) -> Figure:
    """ROC above, precision and recall below, a column per network, with bands by group."""
    figure, axes = plt.subplots(
        2, len(tables), figsize=(3.7 * len(tables), 7), sharex=True, sharey=True, squeeze=False
    )
    for (upper, lower), (name, rows) in zip(axes.T, tables.items(), strict=True):
        truth, colour, band = rows["label"] == "M", style.colour_of(name), bands[name]
        false, found, _ = roc_curve(truth, rows["probability"])
        upper.plot(false, found, color=colour, linewidth=2)
        upper.plot([0, 1], [0, 1], color=style.GREY, linestyle=":", linewidth=1)
        precision, recall, _ = precision_recall_curve(truth, rows["probability"])
        lower.plot(recall[:-1], precision[:-1], color=colour, linewidth=2)
        lower.axhline(truth.mean(), color=style.GREY, linestyle=":", linewidth=1)
        for axis, what in ((upper, "sensitivity"), (lower, "precision")):
            low, high = band[f"{what}_low"], band[f"{what}_high"]
            axis.fill_between(band["at"], low, high, color=colour, alpha=0.2, linewidth=0)
        upper.set(title=title(name), xlabel="1 - specificity")
        lower.set(xlabel="sensitivity (recall)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        upper.tick_params(labelbottom=True)
    axes[0, 0].set_ylabel("sensitivity (recall)")
    axes[1, 0].set_ylabel("precision")
    lows = pd.concat(bands.values())["sensitivity_low"]
    shown = style.interval_note(f"bands: 95 % by {unit}", lows)
    share = pd.concat(tables.values())["label"].eq("M").mean()
    words = f"ROC, and precision where {share:.0%} of the images are malignant"
    figure.suptitle(f"{words}; {shown}; dotted: chance", fontsize=11)
    return figure


def pair_differences(pairs: pd.DataFrame, folds: pd.DataFrame, unit: str) -> Figure:
    """Left: AUC differences with clustered-DeLong intervals; right: the same, fold by fold.

    `pairs` are image-level rows of `pairwise.csv`, `folds` the table of
    `significance.fold_differences` (may be empty).
    """
    wide = not folds.empty
    figure, axes = style.panels(1 + wide, 11 if wide else 7, 0.7 * len(pairs) + 1.9)
    main, by_fold = axes[0], axes[-1]
    for place, row in enumerate(pairs[::-1].itertuples()):
        bar = [[row.difference - row.difference_low], [row.difference_high - row.difference]]
        main.errorbar(row.difference, place, xerr=bar, fmt="o", color="black", capsize=4)
        text = "P < 0.001" if row.p_holm < 0.001 else f"P = {p_in_figures(row.p_holm)}"
        main.annotate(text, (row.difference, place), (0, 8), **style.ABOVE)
        if wide:
            each = folds[(folds["first"] == row.first) & (folds["second"] == row.second)]
            by_fold.plot(each["difference"], [place] * len(each), "o", color=style.GREY, alpha=0.7)
            for mean in each[["mean", "low", "high"]].drop_duplicates().itertuples():
                below = place - 0.15
                by_fold.plot([mean.low, mean.high], [below] * 2, color="black", linewidth=2)
                by_fold.plot(mean.mean, below, "D", color="black", markersize=5)
    names = [f"{title(r.second)}\nless {title(r.first)}" for r in pairs[::-1].itertuples()]
    main.set_yticks(range(len(pairs)), names)
    main.set(title=f"{pairs['judged_on'].iloc[0]}, 95 % by {unit}", xlabel="difference of AUC")
    main.set_ylim(-0.5, len(pairs) - 0.4)
    if wide:
        by_fold.set(title="Fold by fold, out-of-fold (descriptive)", xlabel="difference of AUC")
    for axis in axes:
        style.chance_line(axis, 0)
    return figure


def learning_and_orientations(learned: pd.DataFrame, turned: pd.DataFrame, units: str) -> Figure:
    """AUC against the groups trained on, and against the orientations; one line per network."""
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 4), sharey=True)
    asked = (learned, "trained_on"), (turned, "orientations")
    for axis, (table, column) in zip(axes, asked, strict=True):
        middle = (table["architecture"].nunique() - 1) / 2
        for shift, (name, part) in enumerate(table.groupby("architecture", sort=False)):
            steps = part[column].to_numpy(float)
            place = steps + (shift - middle) * 0.012 * steps.max()
            errors = np.maximum([part["auc"] - part["auc_low"], part["auc_high"] - part["auc"]], 0)
            axis.errorbar(place, part["auc"], errors, fmt="o", capsize=3, **style.look_of(name))
        axis.axhline(0.5, color=style.GREY, linestyle=":", linewidth=1)
    axes[0].set(title=f"Would more {units} help?", xlabel=f"{units} trained on", ylabel="AUC")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[1].set(title="What orientations buy", xlabel="orientations of each training image")
    axes[1].set_xticks(sorted(turned["orientations"].unique()) if len(turned) else [])
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def cost_and_quality(table: pd.DataFrame) -> Figure:
    """AUC against images per second; the area of a disc is the size of the saved model."""
    figure, axis = plt.subplots(figsize=(9, 3.8))
    for _, row in table.iterrows():
        colour = style.NETWORK_COLOUR[row["architecture"]]
        name = f"{NETWORK_TITLE[row['architecture']]}, {row['megabytes']:.0f} MB"
        axis.plot([row["images_per_second"]] * 2, row[["auc_low", "auc_high"]], color=colour)
        speed, area = row["images_per_second"], row["megabytes"] * 12
        axis.scatter(speed, row["auc"], s=area, alpha=0.75, color=colour)
        axis.plot([], [], "o", color=colour, label=name)
    axis.margins(0.25)
    axis.set_xlim(left=0)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="area: size of the model")
    axis.set(title="Cost and quality", xlabel="images per second (forward pass)")
    axis.set_ylabel("AUC, 95 % interval")
    axis.set_yticks([tick for tick in axis.get_yticks() if tick <= 1])
    return figure


def coverage(table: pd.DataFrame) -> Figure:
    """How often each kind of interval held the true AUC in simulated studies."""
    figure, axis = plt.subplots(figsize=(9, 3.6))
    aucs = sorted(table["auc"].unique())
    kinds = list(dict.fromkeys(table["interval"]))
    for place, kind in enumerate(kinds[::-1]):
        for auc, marker, shift in zip(aucs, "os^", (0.2, 0, -0.2), strict=False):
            row = table[(table["interval"] == kind) & (table["auc"] == auc)].iloc[0]
            colour = "#D55E00" if kind == "by image" else "#0072B2"
            bounds, at = 100 * row[["coverage_low", "coverage_high"]], place + shift
            axis.plot(bounds, [at, at], color=colour)
            axis.plot(100 * row["coverage"], at, marker, color=colour)
    axis.axvline(95, color=style.GREY, linestyle=":")
    axis.set_yticks(range(len(kinds)), kinds[::-1])
    studies = table["studies"].iloc[0]
    axis.set(
        title=f"Does a 95 % interval hold the truth? {studies} simulated studies each",
        xlabel="share of the intervals that hold the true AUC (%), with what chance leaves open",
    )
    shown = [
        style.entry(f"true AUC {auc:.2f}", marker=marker, color=style.GREY, linestyle="")
        for auc, marker in zip(aucs, "os^", strict=False)
    ]
    axis.legend(handles=shown, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def seed_spread(table: pd.DataFrame, unit: str) -> Figure:
    """AUC of each network for each seed, next to the first seed's interval by group.

    `table` is that of `seed_spread.metrics_by_seed`; each way of judging has its own axes.
    """
    ways = list(dict.fromkeys(table["judged_on"]))
    figure, axes = style.grid(len(ways), 1, 8, 3)
    for axis, way in zip(axes, ways, strict=True):
        rows = table[table["judged_on"] == way]
        names = list(dict.fromkeys(rows["architecture"]))[::-1]
        for place, name in enumerate(names):
            of_network, colour = rows[rows["architecture"] == name], style.NETWORK_COLOUR[name]
            first = of_network.iloc[0]
            axis.plot([first["auc_low"], first["auc_high"]], [place] * 2, color=colour, alpha=0.5)
            # One above the other, so that equal seeds do not hide each other.
            heights = place + np.linspace(-0.25, 0.25, len(of_network))
            axis.scatter(of_network["auc"], heights, color=colour, edgecolor="white", zorder=3)
        style.chance_line(axis)
        axis.set_yticks(range(len(names)), [NETWORK_TITLE[name] for name in names])
        axis.set(ylim=(-0.6, len(names) - 0.4), title=f"The same training, other seeds ({way})")
        axis.set_xlabel(f"AUC: a dot a seed; line: 95 % interval by {unit} of the first seed")
    return figure
