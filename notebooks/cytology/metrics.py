"""Metrics of binary predictions: each once by scikit-learn, and all at once for many draws.

Functions take rows with `label` (B or M; M is the positive class) and `probability` (of M).
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn import metrics as sk

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
# Why a metric does not exist where `classification_metrics` gives NaN.
UNDEFINED = dict.fromkeys(
    ("auc", "average_precision", "mcc", "balanced_accuracy"), "one class only"
)
UNDEFINED |= {"recall": "no malignant image", "specificity": "no benign image"}
UNDEFINED |= {"precision": "nothing called malignant", "f1": "nothing malignant, nor called so"}
UNDEFINED |= {"negative_predictive_value": "nothing called benign"}
OF_PROBABILITIES = ("loss", "brier", "ece", "ace")  # these ask for more than an order
# Shares of something counted: numerator and denominator among TP, FP, TN, FN.
PROPORTIONS = {
    "accuracy": (("tp", "tn"), ("tp", "fp", "tn", "fn")),
    "recall": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "precision": (("tp",), ("tp", "fp")),
    "negative_predictive_value": (("tn",), ("tn", "fn")),
}


def truth_and_probability(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row is malignant (bool), and its probability of it (float64), shapes (n,)."""
    return (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy(float)


def classification_metrics(rows: pd.DataFrame, threshold: float = THRESHOLD) -> dict[str, float]:
    """Every metric of `METRICS`; a row with a probability of at least `threshold` is called M.

    NaN where a metric does not exist: AUC and average precision need both classes, precision a
    row that is called malignant, and so on.
    """
    truth, probability = truth_and_probability(rows)
    called = probability >= threshold
    both = 0 < truth.sum() < len(truth)
    recall, specificity = (
        sk.recall_score(t, c, zero_division=np.nan) for t, c in ((truth, called), (~truth, ~called))
    )
    return {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": (recall + specificity) / 2,
        "recall": recall,
        "specificity": specificity,
        "precision": sk.precision_score(truth, called, zero_division=np.nan),
        "negative_predictive_value": sk.precision_score(~truth, ~called, zero_division=np.nan),
        "f1": sk.f1_score(truth, called, zero_division=np.nan),
        "mcc": sk.matthews_corrcoef(truth, called) if both else np.nan,
        "auc": sk.roc_auc_score(truth, probability) if both else np.nan,
        "average_precision": sk.average_precision_score(truth, probability) if both else np.nan,
        "loss": sk.log_loss(truth, probability, labels=[False, True]),
        "brier": sk.brier_score_loss(truth, probability, pos_label=True),
        "ece": calibration_error(truth, probability),
        "ace": calibration_error(truth, probability, adaptive=True),
    }


def auc_from_ranks(truth: np.ndarray, score: np.ndarray) -> float:
    """AUC as the Mann-Whitney statistic (Hanley & McNeil 1982), ties counted half.

    The same as scikit-learn's `roc_auc_score`, about ten times faster: repetitions call it
    thousands of times.
    """
    positives = int(truth.sum())
    ranks = rankdata(score)[truth].sum()
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))


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
    """Mean distance between what was said and what came true, weighted by the count of each bin.

    Expected calibration error with bins of equal width (Naeini et al. 2015, AAAI 29:2901), of the
    probability of the positive class; `adaptive`: bins of equal counts (Nixon et al. 2019, arXiv
    1904.01685).
    """
    bins = calibration_bins(probability, adaptive)
    gap = np.bincount(bins, truth - probability)
    return float(np.abs(gap).sum() / len(truth))


# ------------------------------------------------------------------ many draws


def metrics_of_draws(
    rows: pd.DataFrame, weights: np.ndarray, threshold: float = THRESHOLD, names=tuple(METRICS)
) -> dict[str, np.ndarray]:
    """The metrics `names` for each draw of a bootstrap at once, arrays of shape (draws,).

    `weights` of shape (draws, n) say how often each row was drawn. As scikit-learn's with
    `sample_weight`, in one pass over sorted rows. The bins of the calibration errors stay those
    of all rows. NaN where a draw has no such metric, as in `classification_metrics`.
    """
    truth, probability = truth_and_probability(rows)
    found = _at_threshold(truth, probability >= threshold, weights)
    total = weights.sum(axis=1)
    if "loss" in names:
        tiny = np.finfo(probability.dtype).eps  # as scikit-learn clips
        said = np.clip(np.where(truth, probability, 1 - probability), tiny, 1 - tiny)
        found["loss"] = weights @ -np.log(said) / total
    if "brier" in names:
        found["brier"] = weights @ (truth - probability) ** 2 / total
    if "auc" in names:
        found["auc"] = auc_of_draws(truth, probability, weights)
    if "average_precision" in names:
        found["average_precision"] = _average_precision(truth, probability, weights)
    for name, adaptive in (("ece", False), ("ace", True)):
        if name in names:
            bins = calibration_bins(probability, adaptive)
            gaps = np.where(bins[:, None] == np.unique(bins), (truth - probability)[:, None], 0)
            found[name] = np.abs(weights @ gaps).sum(axis=1) / total
    return {name: found[name] for name in names}


def _at_threshold(truth, called, weights) -> dict[str, np.ndarray]:
    """The metrics that depend on the threshold, from the weighted confusion matrix."""
    cells = {"tp": truth & called, "fp": ~truth & called, "tn": ~truth & ~called}
    cells = {name: weights @ cell for name, cell in (cells | {"fn": truth & ~called}).items()}
    tp, fp, tn, fn = (cells[name] for name in ("tp", "fp", "tn", "fn"))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            name: sum(cells[c] for c in above) / sum(cells[c] for c in below)
            for name, (above, below) in PROPORTIONS.items()
        }
        found["balanced_accuracy"] = (found["recall"] + found["specificity"]) / 2
        found["f1"] = 2 * tp / (2 * tp + fp + fn)
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        found["mcc"] = np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(product), 0.0)
    found["mcc"][~((tp + fn > 0) & (tn + fp > 0))] = np.nan
    return found


def auc_of_draws(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of each draw, shape (draws,), ties counted half; NaN where a draw has one class only."""
    positive, negative = np.flatnonzero(truth), np.flatnonzero(~truth)
    negative = negative[np.argsort(score[negative], kind="stable")]
    below = np.zeros((len(weights), len(negative) + 1))
    np.cumsum(weights[:, negative], axis=1, out=below[:, 1:])
    # The weight of the negatives under each positive: all strictly below, and half of those equal.
    first = np.searchsorted(score[negative], score[positive], side="left")
    last = np.searchsorted(score[negative], score[positive], side="right")
    of_positive = weights[:, positive]
    right = np.einsum("ij,ij->i", of_positive, below[:, first])
    ties = right if (first == last).all() else np.einsum("ij,ij->i", of_positive, below[:, last])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (right + ties) / 2 / (of_positive.sum(axis=1) * below[:, -1])


def cumulative_counts(truth, score, weights) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at or above each score, shape (draws, scores)."""
    order = np.argsort(-score, kind="stable")
    weights, truth = weights[:, order], truth[order]
    last = np.append(np.diff(score[order]) != 0, True)  # the last row of each score
    found = np.cumsum(weights * truth, axis=1)[:, last]
    return found, np.cumsum(weights, axis=1)[:, last] - found


def _average_precision(truth, score, weights) -> np.ndarray:
    """Mean of the precision at each positive; NaN where a draw has one class only."""
    found, false = cumulative_counts(truth, score, weights)
    more = np.diff(found, axis=1, prepend=np.zeros((len(found), 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(more > 0, found / (found + false), 0)
        area = (more * precision).sum(axis=1) / found[:, -1]
    return np.where(false[:, -1] > 0, area, np.nan)
