"""The comparison in words: sentences that the tables allow, and no more."""

import numpy as np
import pandas as pd

from cytology.evaluation import OUT_OF_FOLD
from cytology.intervals import span, with_span
from cytology.readable import capital, title
from cytology.settings import NETWORK_TITLE, plural
from cytology.significance import ALPHA, in_words

LEAKS = (
    "Protocol original: the split leaks, so these numbers say how well copies are recognized. "
    "No winner is named."
)
RANDOM = (
    "No pretrained weights: this run shows the machinery and ranks nothing. No winner is named."
)


def summary(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    thresholds: pd.DataFrame,
    calibrations: pd.DataFrame,
    unit: str,
) -> list[str]:
    """What the comparison of a run may say, from its tables; one sentence or two an entry."""
    if (table["protocol"] == "original").any():
        return [LEAKS]
    random = table.loc[table["weights"] == "random", "architecture"]
    if len(random) == len(table):
        return [RANDOM]
    said = []
    if len(random):
        said = [
            f"No pretrained weights for {listed(random.map(NETWORK_TITLE))}: they show the "
            "machinery and rank nothing. What follows is about the others; no winner is named."
        ]
    table = table[table["weights"] != "random"]
    if table["auc"].isna().any():
        on = table["judged_on"].iloc[0]
        return [*said, f"Nothing can be said of the networks: one class only ({on})."]
    pairs = pairs[~pairs["weights"].str.contains("random")]
    level = pairs[pairs["level"] == "image"]
    networks = pairs[pairs["family"] == "networks"]
    return [
        *said,
        *answer(table, networks[networks["level"] == "image"], unit),
        *best_in_words(table, unit),
        *[f"By {row.level}: {pair_in_words(row)}" for row in networks.itertuples()],
        *few_in_words(networks, unit),
        *baseline_in_words(level[level["family"] == "baseline"]),
        *more_in_words(level[level["family"] == "more than one"]),
        worth_in_words(table.iloc[0], unit),
        *[
            sentence
            for name in table["architecture"]
            for sentence in (
                threshold_in_words(thresholds, name, table["judged_on"].iloc[0]),
                calibration_in_words(calibrations, name, table["judged_on"].iloc[0]),
            )
        ],
    ]


def pair_in_words(row) -> str:
    """A row of the pairwise table as a sentence that begins with a capital letter."""
    return capital(in_words(row, title(row.first), title(row.second)))


def few_in_words(pairs: pd.DataFrame, unit: str) -> list[str]:
    """What to say where so few groups can be exchanged that no P value can become small."""
    pairs = pairs[pairs["level"] == "image"]
    smallest = len(pairs) * 2 / 2 ** pairs["groups"].min() if len(pairs) else 0
    if smallest < ALPHA["networks"]:
        return []
    return [
        f"With {pairs['groups'].min()} {plural(unit)} no test could have separated the networks: P "
        f"cannot fall below {min(smallest, 1):.2g}."
    ]


def answer(table: pd.DataFrame, pairs: pd.DataFrame, unit: str) -> list[str]:
    """The answer to "which is best?" in a sentence; none where there is nothing to choose from.

    `table` has the networks, `pairs` their rows of `pairwise` by image.
    """
    if len(table) < 2:
        return []
    best = table.sort_values("auc", ascending=False, kind="stable").iloc[0]
    first = best["architecture"]
    against = {
        row.second if row.first == first else row.first: row.separated
        for row in pairs.itertuples()
        if first in (row.first, row.second)
    }
    name, auc = NETWORK_TITLE[first], with_span(best, "auc", "95 % interval ")
    beaten = [NETWORK_TITLE[other] for other, separated in against.items() if separated]
    open_ = [NETWORK_TITLE[other] for other, separated in against.items() if not separated]
    patients = f"{best['groups']} {plural(unit)}"
    if not open_:
        return [f"{name} separates the classes best: AUC {auc}, better than {listed(beaten)}."]
    if not beaten:
        return [
            f"No network is shown to be the best: {name} has the highest AUC, {auc}, and these "
            f"{patients} cannot tell it from {listed(open_)}."
        ]
    return [
        f"{name} has the highest AUC, {auc}. It is better than {listed(beaten)}; these {patients} "
        f"cannot tell it from {listed(open_)}."
    ]


def best_in_words(table: pd.DataFrame, unit: str) -> list[str]:
    """Each network's AUC with its interval, the highest first."""
    ordered = table.sort_values("auc", ascending=False, kind="stable")
    best = ordered.iloc[0]
    has = " has the highest AUC," if len(ordered) > 1 else " reaches AUC"
    others = [
        f"{NETWORK_TITLE[row['architecture']]} {with_span(row, 'auc')}"
        for _, row in ordered.iloc[1:].iterrows()
    ]
    return [
        f"{NETWORK_TITLE[best['architecture']]}{has} {best['auc']:.3f} "
        f"({span(best, 'auc', f'95 % interval by {unit} ')}; "
        f"{best['judged_on']}, {best['images']} images, {best['groups']} {plural(unit)})"
        + "".join(f"; {other}" for other in others)
        + "."
    ]


def baseline_in_words(pairs: pd.DataFrame) -> list[str]:
    """Which networks are better than size and colour alone, by the same test."""
    pairs = pairs.dropna(subset="auc_first")  # of one class only
    if pairs.empty:
        return []
    better = pairs["separated"] & (pairs["difference"] > 0)
    names, auc = pairs["second"].map(title), pairs["auc_first"].iloc[0]
    said = [f"Size and mean colour alone reach AUC {auc:.3f}."]
    if auc <= 0.5:
        said.append("That is no better than chance: to beat it says little.")
    if better.any():
        said.append(f"Better than that: {listed(names[better])}.")
    if not better.all():
        said.append(
            f"Not shown to be better than that: {listed(names[~better])}. What such a network "
            "learned may be the stain or the camera."
        )
    return [" ".join(said)]


def more_in_words(pairs: pd.DataFrame) -> list[str]:
    """Whether more than one prediction an image helped, in a sentence."""
    if pairs.empty:
        return []
    better = pairs[pairs["separated"] & (pairs["difference"] > 0)]
    worse = pairs[pairs["separated"] & (pairs["difference"] < 0)]
    said = [
        f"{title(row.second)} is {word} than {title(row.first)} (AUC {row.auc_second:.3f} against "
        f"{row.auc_first:.3f})"
        for part, word in ((better, "better"), (worse, "worse"))
        for row in part.itertuples()
    ]
    if not said:
        return [
            "Averaging the predictions of an image made no difference that these data can show "
            "(after Holm)."
        ]
    return [f"Averaging: {'; '.join(said)} (after Holm)."]


def worth_in_words(row: pd.Series, unit: str) -> str:
    """What one patient is worth in points, so that nobody reads more out of a difference."""
    return (
        f"One {unit} of the {row['groups']} is worth {100 / row['groups']:.1f} points of accuracy "
        f"on average ({row['images'] / row['groups']:.1f} images): a smaller difference hangs on a "
        f"single {unit}."
    )


def threshold_in_words(thresholds: pd.DataFrame, name: str, on: str) -> str:
    """What the threshold for the wanted sensitivity gave, on what the comparison rests on."""
    rows = thresholds[(thresholds["model"] == name) & (thresholds["rule"] == "sensitivity")]
    row = rows[rows["judged_on"] == on].iloc[0]
    how = "cross-fitted" if on == OUT_OF_FOLD else "on test"
    return (
        f"{NETWORK_TITLE[name]}, at the threshold that was to find {row['wanted_sensitivity']:.0%} "
        f"of the malignant images (chosen on {row['chosen_on']} predictions, judged {how}): "
        f"sensitivity {with_span(row, 'recall')}, specificity {with_span(row, 'specificity')}."
    ) + (f" Of this threshold: {row['note']}." if row["note"] else "")


def calibration_in_words(calibrations: pd.DataFrame, name: str, on: str) -> str:
    """How the network's own probabilities err, and what slope and intercept changed."""
    rows = calibrations[calibrations["model"] == name].set_index(["method", "judged_on"])
    raw, fitted = rows.loc[("none", on)], rows.loc[("platt", on)]
    said = (
        f"{NETWORK_TITLE[name]}'s own probabilities ({on}): {slope_in_words(raw)}; calibration in "
        f"the large {with_span(raw, 'calibration_in_the_large')}{on_the_whole(raw)}."
    )
    if fitted["note"]:
        return f"{said} They stay as they are: {fitted['note']}."
    low, high = fitted["loss_change_low"].round(3), fitted["loss_change_high"].round(3)
    verb = "lower" if high < 0 else "raise" if low > 0 else "are not shown to change"
    return (
        f"{said} Slope and intercept, fitted on {fitted['fitted_on']} predictions, {verb} the log "
        f"loss: change {with_span(fitted, 'loss_change')}; minus: better."
    )


def slope_in_words(row: pd.Series) -> str:
    """The calibration slope, and what it says where its interval leaves out 1."""
    slope, low, high = (
        row["calibration_slope"],
        row["calibration_slope_low"],
        row["calibration_slope_high"],
    )
    if np.isnan(slope):
        return "no calibration slope, since their order is perfect, or there is none to judge"
    if np.isnan(low):
        return f"calibration slope {slope:z.2f} (no interval: too much of it rests on one group)"
    said = f"calibration slope {slope:z.2f} ({low:z.2f} to {high:z.2f})"
    if high.round(2) < 1:
        return f"{said}, too sure"
    return f"{said}, not sure enough" if low.round(2) > 1 else f"{said}, not shown to be off 1"


def on_the_whole(row: pd.Series) -> str:
    """What calibration in the large says where its interval leaves out 0."""
    low, high = row["calibration_in_the_large_low"], row["calibration_in_the_large_high"]
    if np.isnan(low):
        return ""
    if low.round(3) > 0:
        return ", too low on the whole"
    return ", too high on the whole" if high.round(3) < 0 else ", not shown to be off 0"


def listed(names) -> str:
    """`A`, `A and B`, `A, B and C`."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
