"""Calibration: does a probability of 0.9 come true nine times in ten, and how to make it so?

Calibration is fitted on predictions for images that the model did not learn from, never on test.
Rows have `label`, `group`, `logit`; `fold` if folds matter; and `class_shift`, the shift of the
logits by balanced class weights, if there is any.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from cytology.evaluation.statistics.bootstrap import group_intervals
from cytology.evaluation.statistics.clusters import variance_inflation
from cytology.evaluation.statistics.intervals import share_interval
from cytology.evaluation.statistics.metrics import calibration_bins, truth_and_probability
from cytology.evaluation.statistics.recalibration import logistic_fit
from cytology.settings import InputError

CALIBRATION_METHODS = ("none", "platt", "isotonic")
# Why no slope is applied: it would reverse the order, or make all images alike.
NO_SIGNAL = "no slope fits: malignant images do not have the higher scores"
FLATTEST = 1e-6  # a slope, in standard deviations of the logit, that counts as none


@dataclass(frozen=True)
class Calibrator:
    """Turns logits into probabilities, by slope and intercept or by isotonic steps.

    `unshifts` says whether the shift by class weights is undone first. `unfitted` says why no
    slope could be fitted; the probabilities are then left unchanged.
    """

    slope: float = 1.0
    intercept: float = 0.0
    unshifts: bool = False
    steps: IsotonicRegression | None = None
    unfitted: str = ""

    def logit(self, score: np.ndarray, shift: np.ndarray | float = 0.0) -> np.ndarray:
        """Calibrated logits of logits, the same shape; `shift` is their `class_shift`."""
        score = np.asarray(score, float) + (shift if self.unshifts else 0.0)
        if self.steps is not None:
            return logit(self.steps.predict(score))
        return self.intercept + self.slope * score


def fit_calibrator(rows: pd.DataFrame, method: str) -> Calibrator:
    """Fit a calibrator on rows that the model did not learn from.

    First the shift by balanced class weights is undone: a network trained with them predicts as if
    both classes were equally frequent, so its logits lack the log odds of the classes in its
    training images (Saerens et al. 2002, doi 10.1162/089976602753284446). `platt` then fits slope
    and intercept by logistic regression (Platt 1999, Advances in Large Margin Classifiers, 61-74),
    `isotonic` the best rising steps (Zadrozny & Elkan 2002, doi 10.1145/775047.775151), which need
    more images. Both are fitted to `smoothed_targets`. A slope that is not positive is not applied.
    """
    if method == "none":
        return Calibrator()
    score = (rows["logit"] + rows.get("class_shift", 0.0)).to_numpy(float)
    targets = smoothed_targets(rows)
    if method == "isotonic":
        steps = IsotonicRegression(out_of_bounds="clip").fit(score, targets)
        return Calibrator(np.nan, np.nan, True, steps)
    intercept, slope = logistic_fit(score, targets)[0] if np.ptp(score) > 0 else (0.0, 0.0)
    if slope * score.std() < FLATTEST:
        return Calibrator(unfitted=NO_SIGNAL)
    return Calibrator(float(slope), float(intercept), True)


def smoothed_targets(rows: pd.DataFrame) -> np.ndarray:
    """Targets of the calibration fit, instead of 1 and 0, shape (n,).

    Platt's (N + 1) / (N + 2) for malignant images and 1 / (N + 2) for benign ones, where N is the
    number of groups of the class. So a perfect order has a finite slope, and no isotonic step is 0
    or 1.
    """
    counts = rows.groupby("label")["group"].nunique()
    if not {"B", "M"} <= set(counts.index):
        raise InputError("Fitting a calibration needs images of both classes.")
    benign, malignant = 1 / (counts["B"] + 2), (counts["M"] + 1) / (counts["M"] + 2)
    return np.where(rows["label"] == "M", malignant, benign)


def calibrate(rows: pd.DataFrame, calibrator: Calibrator) -> pd.DataFrame:
    """The rows with calibrated `logit` and `probability`."""
    found = calibrator.logit(rows["logit"], rows.get("class_shift", 0.0))
    return rows.assign(logit=found, probability=expit(found))


def by_fold(rows: pd.DataFrame, made: Callable) -> pd.DataFrame:
    """`made(rows of a fold, rows of other folds)` for each fold, in the order of the rows."""
    parts = [
        made(rows[rows["fold"] == fold], rows[rows["fold"] != fold])
        for fold in sorted(rows["fold"].unique())
    ]
    return pd.concat(parts).loc[rows.index]


def cross_fitted(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows calibrated fold by fold, each fold by a fit on the others.

    `InputError` if the other folds of one have only one class.
    """
    return by_fold(rows, lambda here, others: calibrate(here, fit_calibrator(others, method)))


def log_losses(rows: pd.DataFrame) -> np.ndarray:
    """The log loss of each row from its `logit`, in nats, shape (n,); always finite."""
    right = np.where(rows["label"] == "M", rows["logit"], -rows["logit"])
    return np.logaddexp(0, -right)


def reliability(rows: pd.DataFrame, equal_counts: int = 0) -> pd.DataFrame:
    """One row per bin: `said` (mean probability), `true` (share malignant), `images`, bounds.

    `true_low`, `true_high`: 95 % by group. Ten bins of equal width, without empty ones; or
    `equal_counts` bins with equally many rows, where an image may have several rows.
    """
    if equal_counts:
        rows = rows.sort_values("probability", kind="stable")
        parts = np.array_split(np.arange(len(rows)), min(equal_counts, len(rows)))
    else:
        bins = calibration_bins(rows["probability"].to_numpy(float))
        parts = [np.flatnonzero(bins == number) for number in np.unique(bins)]
    truth, probability = truth_and_probability(rows)
    group, inflation = rows["group"].to_numpy(), variance_inflation(rows)

    def shares(weights):
        drawn = [weights[:, part] for part in parts]
        return {str(k): each @ truth[parts[k]] / each.sum(axis=1) for k, each in enumerate(drawn)}

    bounds: list[Any]
    if equal_counts:
        with np.errstate(invalid="ignore"):  # a draw may leave a bin empty
            drawn = group_intervals(rows, shares, draws=1000)
        bounds = [drawn[str(k)] for k in range(len(parts))]
    else:
        bounds = [share_interval(truth[k], group[k], inflation=inflation) for k in parts]
    found = []
    for part, (low, high) in zip(parts, bounds, strict=True):
        said, true = probability[part].mean(), truth[part].mean()
        found.append((said, true, np.minimum(low, true), np.maximum(high, true), len(part)))
    return pd.DataFrame(found, columns=["said", "true", "true_low", "true_high", "images"])
