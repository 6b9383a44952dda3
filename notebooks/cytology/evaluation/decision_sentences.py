"""What the tables of thresholds and calibrations allow to say, and no more."""

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation.judged import OUT_OF_FOLD
from cytology.evaluation.place_sentences import prevalence_sentence, referral_sentences
from cytology.evaluation.places import Promise
from cytology.evaluation.readable import title
from cytology.evaluation.summary import unsaid
from cytology.wording import with_span


def decision_sentences(
    thresholds: pd.DataFrame, calibrations: pd.DataFrame, on: str, unit: str
) -> list[str]:
    """Two entries a network of the series: its threshold for the wanted sensitivity, calibration.

    `on` is what the comparison rests on. One entry where nothing may be said, as in `summary`.
    """
    rows = thresholds[(thresholds["judged_on"] == on) & (thresholds["rule"] == "sensitivity")]
    rows = rows[rows["model"].isin(ARCHITECTURE_NAMES)]
    if nothing := unsaid(rows, unit):
        return [nothing]
    said = []
    for name in rows.loc[rows["weights"] != "random", "model"]:
        said.append(threshold_in_words(thresholds, name, on))
        said.append(calibration_in_words(calibrations, name, on))
    return said


def elsewhere_sentences(values: pd.DataFrame, found: dict[str, Promise], unit: str) -> list[str]:
    """What `places.predictive_values` and `places.promises` say of the networks of the series.

    Nothing where nothing may be said, as in `decision_sentences`.
    """
    asked = values[values["asked"] & values["model"].isin(ARCHITECTURE_NAMES)]
    if unsaid(asked, unit):
        return []
    asked = asked[asked["weights"] != "random"]
    said = [_of(row["model"], [prevalence_sentence(row, unit)]) for _, row in asked.iterrows()]
    for name in asked["model"]:
        each = found[name]
        said.append(_of(name, referral_sentences(each.chosen, each.outcome, unit)))
    return said


def _of(name: str, sentences: list[str]) -> str:
    """Sentences about a network as one entry that begins with its name."""
    text = " ".join(sentences)
    return f"{title(name)}: {text[0].lower()}{text[1:]}"


def threshold_in_words(thresholds: pd.DataFrame, name: str, on: str) -> str:
    """What the threshold for the wanted sensitivity gave, on what the comparison rests on."""
    keys = thresholds[["model", "rule", "judged_on"]]
    row = thresholds[(keys == [name, "sensitivity", on]).all(axis=1)].iloc[0]
    how = "cross-fitted" if on == OUT_OF_FOLD else "on test"
    return (
        f"{title(name)}, at the threshold that was to find {row['wanted_sensitivity']:.0%} "
        f"of the malignant images (chosen on {row['chosen_on']} predictions, judged {how}): "
        f"sensitivity {with_span(row, 'recall')}, specificity {with_span(row, 'specificity')}."
    ) + (f" Of this threshold: {row['note']}." if row["note"] else "")


def calibration_in_words(calibrations: pd.DataFrame, name: str, on: str) -> str:
    """How the network's own probabilities err, and what slope and intercept changed."""
    rows = calibrations[calibrations["model"] == name].set_index(["method", "judged_on"])
    raw, fitted = rows.loc[("none", on)], rows.loc[("platt", on)]
    said = (
        f"{title(name)}'s own probabilities ({on}): {_slope_in_words(raw)}; calibration in "
        f"the large {with_span(raw, 'calibration_in_the_large')}{_on_the_whole(raw)}."
    )
    if fitted["note"]:
        return f"{said} They stay as they are: {fitted['note']}."
    low, high = fitted["loss_change_low"].round(3), fitted["loss_change_high"].round(3)
    verb = "lower" if high < 0 else "raise" if low > 0 else "are not shown to change"
    return (
        f"{said} Slope and intercept, fitted on {fitted['fitted_on']} predictions, {verb} the log "
        f"loss: change {with_span(fitted, 'loss_change')}; minus: better."
    )


def _slope_in_words(row: pd.Series) -> str:
    """The calibration slope, and what it says where its interval leaves out 1."""
    name = "calibration_slope"
    slope, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if np.isnan(slope):
        return "no calibration slope, since their order is perfect, or there is none to judge"
    if np.isnan(low):
        return f"calibration slope {slope:z.2f} (no interval: too much of it rests on one group)"
    said = f"calibration slope {slope:z.2f} ({low:z.2f} to {high:z.2f})"
    if high.round(2) < 1:
        return f"{said}, too sure"
    return f"{said}, not sure enough" if low.round(2) > 1 else f"{said}, not shown to be off 1"


def _on_the_whole(row: pd.Series) -> str:
    """What calibration in the large says where its interval leaves out 0."""
    low, high = row["calibration_in_the_large_low"], row["calibration_in_the_large_high"]
    if np.isnan(low):
        return ""
    if low.round(3) > 0:
        return ", too low on the whole"
    return ", too high on the whole" if high.round(3) < 0 else ", not shown to be off 0"
