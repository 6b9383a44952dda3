"""Metrics of binary predictions: single ones by scikit-learn, and all at once for many draws.

Functions take rows with `label` (B or M; M is the positive class) and `probability` (of M).
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from cytology.evaluation.statistics.clusters import folds_of, pair_weights, placements, rows_by_fold

THRESHOLD = 0.5
BINS = 10  # of the calibration errors
# Names in the tables, and in words. `loss` is the binary cross-entropy, in nats.
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "recall": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "precision",
    "negative_predictive_value": "negative predictive value",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "auc": "AUC",
    "average_precision": "average precision",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ace": "adaptive calibration error",
}
OF_PROBABILITIES = ("loss", "brier", "ece", "ace")  # these need more than an order


def _ratio(above, below):
    """A ratio that is NaN if the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _matthews(sensitivity, specificity, malignant):
    """Matthews correlation from both shares and the share of malignant images."""
    called = malignant * sensitivity + (1 - malignant) * (1 - specificity)
    return (sensitivity + specificity - 1) * np.sqrt(
        _ratio(malignant * (1 - malignant), called * (1 - called))
    )


# Other metrics of a threshold, from sensitivity, specificity and the share of malignant images.
OF_TWO_SHARES = {
    "accuracy": lambda s, p, m: m * s + (1 - m) * p,
    "balanced_accuracy": lambda s, p, m: (s + p) / 2,
    "precision": lambda s, p, m: _ratio(m * s, m * s + (1 - m) * (1 - p)),
    "negative_predictive_value": lambda s, p, m: _ratio((1 - m) * p, (1 - m) * p + m * (1 - s)),
    "f1": lambda s, p, m: 2 * m * s / (m * s + (1 - m) * (1 - p) + m),
    "mcc": _matthews,
}
AT_A_THRESHOLD = ("recall", "specificity", *OF_TWO_SHARES)


def truth_and_probability(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row is malignant (bool), and its probability (float64), shapes (n,)."""
    return (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy(float)


def truth_and_score(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row is malignant, and its logit if there is one, else its probability.

    Beyond a logit of 37 all probabilities round to 1 and would tie.
    """
    score = rows["logit" if "logit" in rows else "probability"]
    return (rows["label"] == "M").to_numpy(), score.to_numpy(float)


def classification_metrics(
    rows: pd.DataFrame, threshold: float = THRESHOLD, names: Iterable[str] = tuple(METRICS)
) -> dict[str, float]:
    """The metrics `names`; a row with a probability of at least `threshold` is called M.

    The AUC is that within folds. NaN if a metric is undefined: AUC and average precision need both
    classes, precision needs a row that is called malignant, and so on.
    """
    truth, probability = truth_and_probability(rows)
    called = probability >= threshold
    both = 0 < truth.sum() < len(truth)
    recall, specificity = sensitivity_and_specificity(truth, called)
    # Functions, since scikit-learn takes milliseconds for each, and mostly few are needed.
    found: dict[str, Callable[[], float]] = {
        "accuracy": lambda: sk.accuracy_score(truth, called),
        "balanced_accuracy": lambda: (recall + specificity) / 2,
        "recall": lambda: recall,
        "specificity": lambda: specificity,
        "precision": lambda: sk.precision_score(truth, called, zero_division=np.nan),
        "negative_predictive_value": lambda: sk.precision_score(
            ~truth, ~called, zero_division=np.nan
        ),
        "f1": lambda: sk.f1_score(truth, called, zero_division=np.nan),
        "mcc": lambda: sk.matthews_corrcoef(truth, called) if both else np.nan,
        "auc": lambda: auc_within_folds(rows),
        "average_precision": lambda: (
            sk.average_precision_score(truth, probability) if both else np.nan
        ),
        "loss": lambda: sk.log_loss(truth, probability, labels=[False, True]),
        "brier": lambda: sk.brier_score_loss(truth, probability, pos_label=True),
        "ece": lambda: calibration_error(truth, probability),
        "ace": lambda: calibration_error(truth, probability, adaptive=True),
    }
    return {name: found[name]() for name in names}


def sensitivity_and_specificity(truth: np.ndarray, called: np.ndarray) -> list[float]:
    """The share of each class that is `called` correctly; NaN for a class without rows."""
    return [
        float((called == truth)[which].mean()) if which.any() else np.nan
        for which in (truth, ~truth)
    ]


def auc_within_folds(rows: pd.DataFrame) -> float:
    """The share of pairs of a malignant and a benign image of one fold that are in order.

    With one fold, or none, this is the usual AUC; with several, the pairs of all folds count
    together. Heads of different folds learned from different shares of malignant images, so the
    logits of one fold are higher than those of another, and lower if more of its own images are
    malignant: pairs across folds lower the pooled AUC (Parker, Guenter & Bedo 2007, doi
    10.1186/1471-2105-8-326). NaN if no fold has both classes.
    """
    truth, score = truth_and_score(rows)
    fold = folds_of(rows)
    weights = pair_weights(truth, fold)
    return float(placements(truth, score, fold)[truth] @ weights[truth]) if truth.any() else np.nan


def pooled_auc(rows: pd.DataFrame) -> float:
    """The AUC over all pairs, also across folds."""
    return auc_within_folds(rows.drop(columns="fold", errors="ignore"))


def equal_groups_auc(rows: pd.DataFrame) -> float:
    """The AUC within folds, each image weighted by 1 / images of its group (and class).

    Otherwise a patient with 60 images counts 60 times as much as one with a single image (Hoffman,
    Sen & Weinberg 2001, doi 10.1093/biomet/88.4.1121). NaN if no fold has both classes.
    """
    truth, score = truth_and_score(rows)
    weight = 1 / rows.groupby(["group", "label"])["label"].transform("size").to_numpy()
    total = right = 0.0
    for part in rows_by_fold(truth, folds_of(rows)):
        malignant = truth[part]
        if 0 < malignant.sum() < len(part):
            pairs = weight[part][malignant].sum() * weight[part][~malignant].sum()
            auc = sk.roc_auc_score(malignant, score[part], sample_weight=weight[part])
            total, right = total + pairs, right + pairs * auc
    return right / total if total else np.nan


# ----------------------------------------------------------------- calibration


def calibration_bins(probability: np.ndarray, adaptive: bool = False) -> np.ndarray:
    """The bin of each probability, 0 to `BINS` - 1, shape (n,).

    Of equal width from 0 to 1; `adaptive`: of equal counts. Equal probabilities share a bin.
    """
    if adaptive:
        edges = np.unique(np.quantile(probability, np.linspace(0, 1, BINS + 1)[1:-1]))
    else:
        edges = np.arange(1, BINS) / BINS
    return np.searchsorted(edges, probability, side="right")


def calibration_error(truth: np.ndarray, probability: np.ndarray, adaptive: bool = False) -> float:
    """Mean distance between predicted and observed shares, weighted by the count of each bin.

    Expected calibration error with bins of equal width (Naeini et al. 2015, AAAI 29:2901), of the
    probability of the positive class; `adaptive`: bins of equal counts (Nixon et al. 2019, arXiv
    1904.01685).
    """
    bins = calibration_bins(probability, adaptive)
    gap = np.bincount(bins, truth - probability)
    return float(np.abs(gap).sum() / len(truth))


# ------------------------------------------------------------------ many draws


def cumulative_counts(truth, score, weights) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at or above each score, shape (draws, scores)."""
    order = np.argsort(-score, kind="stable")
    weights, truth = weights[:, order], truth[order]
    last = np.append(np.diff(score[order]) != 0, True)  # the last row of each score
    found = np.cumsum(weights * truth, axis=1)[:, last]
    return found, np.cumsum(weights, axis=1)[:, last] - found
