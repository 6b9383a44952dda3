"""From a probability to a decision: thresholds, net benefit, and when not to answer.

A threshold is chosen on predictions of images that the model did not learn from, locked, and
only then applied to test. Rows have `label`, `group`, `probability` and, where folds matter,
`fold`.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from cytology.intervals import (
    bootstrap_intervals,
    group_weights,
    over_draws,
    percentile_interval,
    wilson_intervals,
)
from cytology.metrics import PROPORTIONS, classification_metrics, truth_and_probability
from cytology.settings import InputError

RULES = ("half", "youden", "sensitivity")
AT_A_THRESHOLD = (*PROPORTIONS, "balanced_accuracy")
REFERRED = np.round(np.arange(0, 0.55, 0.05), 2)


# ------------------------------------------------------------------ thresholds


def choose_threshold(rows: pd.DataFrame, rule: str, wanted_sensitivity: float) -> float:
    """The probability from which on an image is called malignant.

    `half` is 0.5; `youden` makes sensitivity + specificity greatest (Youden 1950); `sensitivity`
    is the highest threshold that finds the wanted share. Between two images the threshold lies in
    the middle, since neither side has a claim on the gap.
    """
    if rule == "half":
        return 0.5
    truth, probability = truth_and_probability(rows)
    if not 0 < truth.sum() < len(truth):
        raise InputError("A threshold needs images of both classes to be chosen on.")
    false, found, thresholds = roc_curve(truth, probability, drop_intermediate=False)
    if rule == "youden":
        best = int(np.argmax(found - false))
    else:
        best = int(np.argmax(found >= wanted_sensitivity - 1e-12))
    below = probability[probability < thresholds[best]]
    chosen = min(thresholds[best], 1.0)
    return float((chosen + below.max()) / 2 if len(below) else chosen)


def cross_fitted_calls(rows: pd.DataFrame, rule: str, wanted_sensitivity: float) -> pd.DataFrame:
    """Rows whose `probability` is 1 where called malignant, else 0.

    Each fold is called at the threshold that the other folds chose.
    """
    called = pd.Series(0.0, index=rows.index)
    for fold in rows["fold"].unique():
        others, here = rows[rows["fold"] != fold], rows[rows["fold"] == fold]
        threshold = choose_threshold(others, rule, wanted_sensitivity)
        called[here.index] = (here["probability"] >= threshold).astype(float)
    return rows.assign(probability=called)


def metrics_at(rows: pd.DataFrame, threshold: float) -> dict[str, float]:
    """The metrics that depend on the threshold, with intervals by group, and the counts."""
    found, bounds = classification_metrics(rows, threshold), bootstrap_intervals(rows, threshold)
    if rows["group"].is_unique:
        bounds |= wilson_intervals(rows, threshold)
    table = {"images": len(rows), "groups": rows["group"].nunique()}
    for name in AT_A_THRESHOLD:
        low, high = bounds[name]
        table |= {name: found[name], f"{name}_low": low, f"{name}_high": high}
    return table


# -------------------------------------------------------------- decision curve


def net_benefit(rows: pd.DataFrame, probabilities: np.ndarray) -> np.ndarray:
    """Net benefit of acting on a malignant call at each probability threshold, same shape.

    True positives an image, less false positives weighted by the odds of the threshold: how many
    needless alarms one found cancer is worth (Vickers & Elkin 2006, doi
    10.1177/0272989X06295361). It assumes that the images' share of malignant ones is that of the
    clinic.
    """
    truth, probability = truth_and_probability(rows)
    called = probability >= np.asarray(probabilities)[:, None]
    odds = probabilities / (1 - probabilities)
    return (called & truth).mean(axis=1) - (called & ~truth).mean(axis=1) * odds


# ------------------------------------------------------------------ abstention


def abstention_curve(rows: pd.DataFrame, certainty: np.ndarray, draws: int = 500) -> pd.DataFrame:
    """Accuracy, sensitivity and specificity of what is answered, by the share referred.

    The images of least `certainty`, shape (n,), go to a pathologist first. Intervals (`_low`,
    `_high`) come from drawing whole groups.
    """
    truth, probability = truth_and_probability(rows)
    right = (probability >= 0.5) == truth
    order = np.argsort(certainty, kind="stable")
    weights, found = group_weights(rows, draws), []
    for share in REFERRED:
        answered = np.ones(len(rows), bool)
        answered[order[: round(share * len(rows))]] = False
        row = {"referred": share, "images": int(answered.sum())}
        for name, among in (
            ("accuracy", truth | ~truth),
            ("recall", truth),
            ("specificity", ~truth),
        ):
            asked = answered & among

            def share_right(drawn, asked=asked):
                with np.errstate(invalid="ignore"):
                    return {"right": drawn @ (asked & right) / (drawn @ asked)}

            low, high = percentile_interval(over_draws(rows, weights, share_right)["right"])
            value = right[asked].mean() if asked.any() else np.nan
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        found.append(row)
    return pd.DataFrame(found)
