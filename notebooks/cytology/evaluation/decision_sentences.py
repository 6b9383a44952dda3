"""Sentences on thresholds and calibrations, saying only what their tables support."""

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation.judged import OUT_OF_FOLD
from cytology.evaluation.place_sentences import prevalence_sentence, referral_sentences
from cytology.evaluation.places import Promise
from cytology.evaluation.readable import title
from cytology.evaluation.summary import why_no_statement
from cytology.wording import with_interval


def decision_sentences(
    thresholds: pd.DataFrame, calibrations: pd.DataFrame, on: str, unit: str
) -> list[str]:
    """Two entries per network of the series: its threshold for the wanted sensitivity, calibration.

    `on` is the part that the comparison is based on. One entry if nothing may be said, as in
    `summary`.
    """
    rows = thresholds[(thresholds["judged_on"] == on) & (thresholds["rule"] == "sensitivity")]
    rows = rows[rows["model"].isin(ARCHITECTURE_NAMES)]
    if nothing := why_no_statement(rows, unit):
        return [nothing]
    said = []
    for name in rows.loc[rows["weights"] != "random", "model"]:
        said.append(threshold_in_words(thresholds, name, on))
        said.append(calibration_in_words(calibrations, name, on))
    return said


def elsewhere_sentences(values: pd.DataFrame, found: dict[str, Promise], unit: str) -> list[str]:
    """`places.predictive_values` and `places.promises` of the networks of the series, in words.

    Empty if nothing may be said, as in `decision_sentences`.
    """
    asked = values[values["asked"] & values["model"].isin(ARCHITECTURE_NAMES)]
    if why_no_statement(asked, unit):
        return []
    asked = asked[asked["weights"] != "random"]
    said = [_of(row["model"], [prevalence_sentence(row, unit)]) for _, row in asked.iterrows()]
    for name in asked["model"]:
        each = found[name]
        said.append(_of(name, referral_sentences(each.chosen, each.outcome, unit)))
    return said


def _of(name: str, sentences: list[str]) -> str:
    """Sentences about a network as one entry that starts with its name."""
    text = " ".join(sentences)
    return f"{title(name)}: {text[0].lower()}{text[1:]}"


def threshold_in_words(thresholds: pd.DataFrame, name: str, on: str) -> str:
    """The result of the threshold for the wanted sensitivity, on the part of the comparison."""
    keys = thresholds[["model", "rule", "judged_on"]]
    row = thresholds[(keys == [name, "sensitivity", on]).all(axis=1)].iloc[0]
    how = "cross-fitted" if on == OUT_OF_FOLD else "on test"
    return (
        f"{title(name)}, at the threshold that should find {row['wanted_sensitivity']:.0%} "
        f"of the malignant images (chosen on {row['chosen_on']} predictions, judged {how}): "
        f"sensitivity {with_interval(row, 'recall')}, "
        f"specificity {with_interval(row, 'specificity')}."
    ) + (f" About this threshold: {row['note']}." if row["note"] else "")


def calibration_in_words(calibrations: pd.DataFrame, name: str, on: str) -> str:
    """The errors of the network's own probabilities, and the effect of slope and intercept."""
    rows = calibrations[calibrations["model"] == name].set_index(["method", "judged_on"])
    raw, fitted = rows.loc[("none", on)], rows.loc[("platt", on)]
    said = (
        f"{title(name)}'s own probabilities ({on}): {_slope_in_words(raw)}; calibration in "
        f"the large {with_interval(raw, 'calibration_in_the_large')}{_on_the_whole(raw)}."
    )
    if fitted["note"]:
        return f"{said} They are left unchanged: {fitted['note']}."
    low, high = fitted["loss_change_low"].round(3), fitted["loss_change_high"].round(3)
    verb = "lower" if high < 0 else "raise" if low > 0 else "are not shown to change"
    return (
        f"{said} Slope and intercept, fitted on {fitted['fitted_on']} predictions, {verb} the log "
        f"loss: change {with_interval(fitted, 'loss_change')}; negative is better."
    )


def _slope_in_words(row: pd.Series) -> str:
    """The calibration slope, and its meaning if its interval excludes 1."""
    name = "calibration_slope"
    slope, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if np.isnan(slope):
        return "no calibration slope, since their order is perfect or they are all alike"
    if np.isnan(low):
        return f"calibration slope {slope:z.2f} (no interval: it depends too much on one group)"
    said = f"calibration slope {slope:z.2f} ({low:z.2f} to {high:z.2f})"
    if high.round(2) < 1:
        return f"{said}, too sure"
    return f"{said}, not sure enough" if low.round(2) > 1 else f"{said}, not shown to differ from 1"


def _on_the_whole(row: pd.Series) -> str:
    """The meaning of calibration in the large if its interval excludes 0."""
    low, high = row["calibration_in_the_large_low"], row["calibration_in_the_large_high"]
    if np.isnan(low):
        return ""
    if low.round(3) > 0:
        return ", too low overall"
    return ", too high overall" if high.round(3) < 0 else ", not shown to differ from 0"
