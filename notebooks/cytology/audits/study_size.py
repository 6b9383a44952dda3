"""Predictions for studies of other sizes: interval widths and smallest detectable differences.

From the variances of the present study (`evaluation.statistics.clusters`): the terms of a group
shrink with the number of groups, those of a pair with its square.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from cytology.evaluation.statistics.clusters import (
    binormal_variance,
    clustered_covariance,
    effective_groups,
    folds_of,
    group_sums,
    pair_weights,
    placements,
    variance_if_equal,
    variance_inflation,
)
from cytology.evaluation.statistics.intervals import (
    NO_BOUNDS,
    TAILS,
    score_interval,
    t_interval,
)
from cytology.evaluation.statistics.metrics import auc_within_folds, truth_and_score
from cytology.evaluation.statistics.significance import FIRST_SECOND, match_predictions

POWER = 0.80
WIDTH = 0.05  # of an interval of an AUC
MARGIN = 0.05  # of AUC, within which two networks count as equivalent
ALPHA = 0.05
FEWEST, MOST = 4, 10_000_000  # range of the numbers of groups that are tried


def scaled_variance(modelled: Callable, ratio: float) -> Callable:
    """The variance of an AUC as a function of its true value, with `ratio` times as many groups.

    `modelled` is a `binormal_variance`: its parts are malignant images, benign ones, and pairs.
    """
    return lambda auc: modelled(auc) / np.array([ratio, ratio, ratio**2])


def smallest_that(reaches: Callable[[float], float]) -> float:
    """The smallest number of groups at which `reaches(groups)` is no longer negative.

    It must rise with the number. Infinite if `MOST` groups are not enough.
    """
    if reaches(MOST) < 0 or np.isnan(reaches(MOST)):
        return np.inf
    if reaches(FEWEST) >= 0:
        return float(FEWEST)
    found = brentq(lambda power: reaches(np.exp(power)), np.log(FEWEST), np.log(MOST), xtol=1e-6)
    return float(np.ceil(np.exp(found) - 1e-3))


# ------------------------------------------------------------- an interval's width


@dataclass(frozen=True)
class ObservedAuc:
    """An AUC of a study: its value and variance, and the effective groups of each class."""

    auc: float
    modelled: Callable
    effective: np.ndarray
    groups: int
    inflation: float

    def interval(self, groups: float) -> tuple[float, float]:
        """The interval of `intervals.auc_interval` with this number of groups.

        (NaN, NaN) if a class would be in fewer than two groups.
        """
        ratio = groups / self.groups
        degrees = self.effective * ratio - 1
        if np.isnan(self.auc) or degrees.min() < 1:
            return NO_BOUNDS
        modelled = scaled_variance(self.modelled, ratio)
        parts = modelled(np.clip(self.auc, 0.5 / groups, 1 - 0.5 / groups))
        freedom = parts[:2].sum() ** 2 / (parts[:2] ** 2 / degrees).sum()

        def variance(auc):
            there = modelled(auc).sum()
            return self.inflation * (there + TAILS * max(parts.sum() - there, 0.0))

        return score_interval(self.auc, variance, freedom)

    def width(self, groups: float) -> float:
        """The width of that interval."""
        low, high = self.interval(groups)
        return high - low

    def groups_for_width(self, width: float = WIDTH) -> float:
        """How many groups would make it at most this wide; infinite if no number does."""
        return smallest_that(lambda groups: width - np.nan_to_num(self.width(groups), nan=1.0))


def observed_auc(rows: pd.DataFrame) -> ObservedAuc:
    """The `ObservedAuc` of judged predictions, within folds."""
    truth, score = truth_and_score(rows)
    group, fold = rows["group"].to_numpy(), folds_of(rows)
    weights = pair_weights(truth, fold)
    known = not np.isnan(weights).any()
    sizes = [group_sums(weights * which, group) for which in (truth, ~truth)] if known else []
    return ObservedAuc(
        auc_within_folds(rows),
        binormal_variance(truth, score, group, fold),
        np.array([effective_groups(each) for each in sizes] or [0.0, 0.0]),
        len(np.unique(group)),
        variance_inflation(rows),
    )


# ------------------------------------------------------------- a difference's error


@dataclass(frozen=True)
class ObservedDifference:
    """A difference of two AUCs on the same images in a study.

    Its standard error is that of `intervals.gain_error`, with doubled variance if out of fold.
    """

    aucs: tuple[float, float]
    modelled: list[Callable]
    covariance: np.ndarray
    group: np.ndarray
    freedom: float
    inflation: float

    @property
    def difference(self) -> float:
        """The second AUC minus the first."""
        return self.aucs[1] - self.aucs[0]

    @property
    def groups(self) -> int:
        """The study's groups."""
        return len(np.unique(self.group))

    def error(self, groups: float) -> float:
        """The standard error of the difference with this number of groups."""
        modelled = [scaled_variance(each, groups / self.groups) for each in self.modelled]
        variance = variance_if_equal(self.aucs, modelled, self.covariance, self.group)
        return float(np.sqrt(self.inflation * variance))

    def freedom_with(self, groups: float) -> float:
        """Degrees of freedom with this number of groups; NaN with fewer than two effective ones."""
        freedom = (self.freedom + 1) * groups / self.groups - 1
        return freedom if freedom >= 1 else np.nan

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference in this study."""
        return t_interval(self.difference, self.error(self.groups) ** 2, self.freedom)

    def smallest(self, groups: float, power: float = POWER, alpha: float = ALPHA) -> float:
        """The smallest true difference that this number of groups detects with this power.

        Detected means a two-sided P below `alpha`.
        """
        freedom = self.freedom_with(groups)
        return float((_t(1 - alpha / 2, freedom) + _t(power, freedom)) * self.error(groups))

    def power(self, groups: float, difference: float, alpha: float = ALPHA) -> float:
        """The probability that this number of groups detects a true difference."""
        freedom = self.freedom_with(groups)
        away = abs(difference) / self.error(groups) - _t(1 - alpha / 2, freedom)
        return float(stdtr(freedom, away))

    def groups_for(self, difference: float, power: float = POWER, alpha: float = ALPHA) -> float:
        """How many groups detect a true difference with this power; infinite for 0."""
        return smallest_that(
            lambda groups: abs(difference) - _large(self.smallest(groups, power, alpha))
        )

    def groups_for_equivalence(self, margin: float = MARGIN, power: float = POWER) -> float:
        """How many groups show equal networks to be within `margin` of each other.

        This is shown by a 95 % interval inside -`margin` to `margin`.
        """
        return self.groups_for(margin, (1 + power) / 2)


def observed_difference(first: pd.DataFrame, second: pd.DataFrame) -> ObservedDifference:
    """The `ObservedDifference` of two models' predictions on the same images."""
    pairs = match_predictions(first, second)
    truth, group, fold = (
        (pairs["label"] == "M").to_numpy(), pairs["group"].to_numpy(), folds_of(pairs)
    )  # fmt: skip
    weights, scores = pair_weights(truth, fold), [pairs[name].to_numpy() for name in FIRST_SECOND]
    components = np.stack([placements(truth, score, fold) for score in scores])
    covariance, freedom = clustered_covariance(truth, components, group, weights)
    first_auc, second_auc = components @ weights / 2
    modelled = [binormal_variance(truth, score, group, fold) for score in scores]
    inflation = variance_inflation(pairs)
    return ObservedDifference(
        (float(first_auc), float(second_auc)), modelled, covariance, group, freedom, inflation
    )


def _t(share: float, freedom: float) -> float:
    """Student's t quantile; NaN without degrees of freedom."""
    return float(stdtrit(freedom, share)) if freedom > 0 else np.nan


def _large(number: float) -> float:
    """A number, or infinity if unknown: too few groups detect nothing."""
    return np.inf if np.isnan(number) else number
