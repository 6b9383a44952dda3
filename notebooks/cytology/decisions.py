"""From a probability to a decision: thresholds, net benefit, and when not to answer.

A threshold is chosen on predictions of images that the model did not learn from, locked, and
only then applied to test. Rows have `label`, `group`, `probability` and, where folds matter,
`fold`.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from cytology.intervals import group_weights, over_draws, percentile_interval, with_width
from cytology.metrics import truth_and_probability
from cytology.settings import InputError

RULES = ("half", "youden", "sensitivity")
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


def one_sided(rows: pd.DataFrame, threshold: float) -> str:
    """That a threshold calls all of the rows alike, in words; empty where it does not."""
    called = rows["probability"] >= threshold
    if called.nunique() > 1:
        return ""
    return f"calls {'every' if called.all() else 'no'} image malignant"


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

    The images of least (or unknown) `certainty`, shape (n,), go to a pathologist first. Intervals
    (`_low`, `_high`) come from drawing whole groups.
    """
    truth, probability = truth_and_probability(rows)
    right = (probability >= 0.5) == truth
    order = np.argsort(np.nan_to_num(certainty, nan=-np.inf), kind="stable")
    among = {"accuracy": np.ones(len(rows), bool), "recall": truth, "specificity": ~truth}
    answered = np.ones((len(REFERRED), len(rows)), bool)
    for step, share in enumerate(REFERRED):
        answered[step, order[: round(share * len(rows))]] = False
    asked = {name: (answered & some).T.astype(float) for name, some in among.items()}

    def shares(drawn):
        with np.errstate(invalid="ignore", divide="ignore"):
            return {name: (drawn * right) @ some / (drawn @ some) for name, some in asked.items()}

    found = shares(np.ones((1, len(rows))))
    drawn = over_draws(rows, group_weights(rows, draws), shares)
    table = {"referred": REFERRED, "images": answered.sum(axis=1)}
    for name in among:
        bounds = np.array([with_width(percentile_interval(column)) for column in drawn[name].T])
        table[name] = found[name][0]
        table[f"{name}_low"], table[f"{name}_high"] = bounds.T
    return pd.DataFrame(table)
