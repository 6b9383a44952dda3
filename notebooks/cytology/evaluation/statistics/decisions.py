"""From a probability to a decision: thresholds, net benefit, and when to refer an image.

A threshold is chosen on predictions for images that the model did not learn from, locked, and only
then applied to test. It applies to the logit, since very certain probabilities all round to 1.
Rows have `label`, `group`, `logit` and, if folds matter, `fold`.
"""

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import roc_curve

from cytology.evaluation.statistics.calibration import by_fold
from cytology.evaluation.statistics.clusters import conformal_limit, variance_inflation
from cytology.evaluation.statistics.intervals import (
    NO_BOUNDS,
    called_intervals,
    named_interval,
    of_two_shares,
)
from cytology.evaluation.statistics.metrics import (
    OF_TWO_SHARES,
    sensitivity_and_specificity,
    truth_and_probability,
    truth_and_score,
)
from cytology.settings import InputError
from cytology.wording import plural

RULES = ("half", "youden", "sensitivity")
REFERRED = np.round(np.arange(0, 0.55, 0.05), 2)


# ------------------------------------------------------------------ thresholds


def choose_threshold(rows: pd.DataFrame, rule: str, wanted_sensitivity: float) -> float:
    """The lowest logit that is called malignant.

    `half` is 0, the network's own probability of one half; `youden` maximizes sensitivity +
    specificity (Youden 1950), in the middle between two images, since neither side has a claim on
    the gap.

    `sensitivity` is the highest logit of a malignant image at which new patients keep
    `wanted_sensitivity` on average, over studies and over patients with any number of images.
    Conformal risk control (Angelopoulos et al., ICLR 2024, arXiv 2208.02814) with groups as units:
    the shares missed in the n malignant groups, and in one more group in which all are missed, have
    a mean of at most 1 - `wanted_sensitivity`. If n is too small for that (`why_not_promised`),
    nothing is promised, and the threshold is the lowest logit.
    """
    if rule == "half":
        return 0.0
    truth, score = (rows["label"] == "M").to_numpy(), rows["logit"].to_numpy(float)
    if not 0 < truth.sum() < len(truth):
        raise InputError("Choosing a threshold needs images of both classes.")
    if rule == "sensitivity":
        return conformal_limit(score[truth], rows["group"][truth], 1 - wanted_sensitivity)
    false, found, thresholds = roc_curve(truth, score, drop_intermediate=False)
    best = int(np.argmax(found - false))
    # The first threshold calls nothing malignant: a logit above all others.
    chosen = thresholds[best] if best else score.max() + 2
    below = score[score < chosen]
    return float((chosen + below.max()) / 2 if len(below) else chosen)


def why_not_promised(rows: pd.DataFrame, wanted_sensitivity: float, unit: str) -> str:
    """Why the wanted sensitivity cannot be promised from these rows; empty if it can."""
    there = rows.loc[rows["label"] == "M", "group"].nunique()
    takes = f"no number of {plural(unit)} is enough"
    if wanted_sensitivity < 1:
        needed = int(np.ceil(wanted_sensitivity / (1 - wanted_sensitivity) - 1e-9))
        if there >= needed:
            return ""
        takes = f"it needs {needed} malignant {plural(unit)}, but there are {there}"
    return (
        f"a sensitivity of {wanted_sensitivity:.0%} cannot be promised: {takes}; the threshold is "
        "the lowest score of a malignant image"
    )


def one_sided(rows: pd.DataFrame, threshold: float) -> str:
    """A clause that says so if a threshold gives the same answer for all rows; else empty."""
    called = rows["logit"] >= threshold
    if called.nunique() > 1:
        return ""
    return f"calls {'every' if called.all() else 'no'} image malignant"


def relative_to_threshold(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Rows with `logit` relative to the threshold: malignant from 0 (probability one half) on."""
    above = rows["logit"].astype(float) - threshold
    return rows.assign(logit=above, probability=expit(above))


def cross_fitted_calls(rows: pd.DataFrame, rule: str, wanted_sensitivity: float) -> pd.DataFrame:
    """Rows with logits relative to a threshold, that of each fold chosen on the other folds.

    The heads that scored the other folds were also trained on this one, so the results are a little
    too good: on noise (20 patients with 6 images), sensitivity + specificity - 1 at Youden's
    threshold is 0.03 on average instead of 0, and 0.01 to 0.03 at that for a wanted sensitivity.
    """

    def made(here, others):
        return relative_to_threshold(here, choose_threshold(others, rule, wanted_sensitivity))

    return by_fold(rows, made)


# -------------------------------------------------------------- decision curve


def net_benefit(rows: pd.DataFrame, probabilities: np.ndarray) -> np.ndarray:
    """Net benefit of acting on a malignant call at each probability threshold, same shape.

    True positives per image, minus false positives weighted by the odds of the threshold (Vickers &
    Elkin 2006, doi 10.1177/0272989X06295361), for a clinic with this share of malignant images.
    """
    truth, probability = truth_and_probability(rows)
    acted = probability >= np.asarray(probabilities)[:, None]
    odds = probabilities / (1 - probabilities)
    return (acted & truth).mean(axis=1) - (acted & ~truth).mean(axis=1) * odds


def benefit_bands(rows: pd.DataFrame, probabilities: np.ndarray) -> np.ndarray:
    """95 % bands of the net benefit by group, shape (2, thresholds), from both shares' bounds."""
    truth, probability = truth_and_probability(rows)

    def band(at):
        called, odds = probability >= at, at / (1 - at)
        return of_two_shares(
            lambda s, p, m: m * s - (1 - m) * (1 - p) * odds,
            truth.mean(),
            sensitivity_and_specificity(truth, called),
            called_intervals(rows, called),
        )

    return np.array([band(at) for at in probabilities]).T


# ------------------------------------------------------------------ abstention


def abstention_curve(rows: pd.DataFrame, certainty: np.ndarray) -> pd.DataFrame:
    """Accuracy, sensitivity and specificity of the answered images, by the share referred.

    Logits are relative to a threshold (`relative_to_threshold`). The images of least (or unknown)
    `certainty`, shape (n,), go to a pathologist first. Intervals (`_low`, `_high`) are by group.
    """
    order = np.argsort(np.nan_to_num(certainty, nan=-np.inf), kind="stable")
    inflation, table = variance_inflation(rows), []
    for share in REFERRED:
        answered = rows.iloc[order[round(share * len(rows)) :]]
        table.append({"referred": share, "images": len(answered)} | shares(answered, inflation))
    return pd.DataFrame(table)


def shares(rows: pd.DataFrame, inflation: float) -> dict[str, float]:
    """Accuracy, recall and specificity as in `metrics_with_intervals`, but ten times faster."""
    truth, score = truth_and_score(rows)
    called = score >= 0
    found = sensitivity_and_specificity(truth, called)
    bounds, accuracy = called_intervals(rows, called, inflation), NO_BOUNDS
    if np.isfinite(bounds).all():
        accuracy = of_two_shares(OF_TWO_SHARES["accuracy"], truth.mean(), found, bounds)
    return (
        named_interval("accuracy", (called == truth).mean(), *accuracy)
        | named_interval("recall", found[0], *bounds[0])
        | named_interval("specificity", found[1], *bounds[1])
    )
