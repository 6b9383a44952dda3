"""The mean AUC of several scores of the same images, each within its own folds.

For a cross-validation that is repeated with other folds. `intervals.auc_interval` and `gain_error`
do the same for single scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from cytology.evaluation.statistics.clusters import (
    CROSS_VALIDATED,
    binormal_variance,
    clustered_covariance,
    group_sums,
    mean_variance,
    pair_weights,
    placements,
    variance_if_equal,
)
from cytology.evaluation.statistics.intervals import NO_BOUNDS, modelled_interval, t_interval


def components_within_folds(truth: np.ndarray, score: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Components of the AUC within folds that can be averaged over scores with other folds: (n,).

    Their mean over either class is that AUC; a row is weighted by the number of rows of the other
    class in its fold. A fold of one class has no pairs, and its rows get the AUC itself.
    """
    weights, placed = pair_weights(truth, fold), placements(truth, score, fold)
    auc, count = weights[truth] @ placed[truth], np.where(truth, truth.sum(), (~truth).sum())
    return auc + weights * count * (placed - auc)


@dataclass(frozen=True)
class MeanAuc:
    """Scores of `rows` (`label`, `group`), each (n,), and the folds of each score.

    All count as cross-validated: patients train each other's heads.
    """

    rows: pd.DataFrame
    scores: list[np.ndarray]
    folds: list[np.ndarray]

    @cached_property
    def truth(self) -> np.ndarray:
        return (self.rows["label"] == "M").to_numpy()

    @cached_property
    def group(self) -> np.ndarray:
        return self.rows["group"].to_numpy()

    @cached_property
    def components(self) -> np.ndarray:
        """Shape (n,); their mean over either class is the mean AUC."""
        pairs = zip(self.scores, self.folds, strict=True)
        return np.mean([components_within_folds(self.truth, *pair) for pair in pairs], axis=0)

    @property
    def auc(self) -> float:
        return float(self.components[self.truth].mean())

    @cached_property
    def modelled(self) -> Callable:
        """The variance of the mean AUC as a function of its true value, as `binormal_variance`."""
        pairs = zip(self.scores, self.folds, strict=True)
        return mean_variance(
            [binormal_variance(self.truth, s, self.group, fold) for s, fold in pairs]
        )

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean AUC, as in `auc_interval`."""
        weights = np.mean([pair_weights(self.truth, fold) for fold in self.folds], axis=0)
        sizes = [group_sums(weights * which, self.group) for which in (self.truth, ~self.truth)]
        if np.isnan(self.auc) or min((each > 0).sum() for each in sizes) < 2:
            return NO_BOUNDS
        return modelled_interval(self.auc, self.modelled, sizes, self.group, CROSS_VALIDATED)

    def gain_over(self, other: "MeanAuc") -> tuple[float, float, float]:
        """How much higher this AUC is than another on the same rows, and its interval.

        As in `gain_error`. (gain, NaN, NaN) with too few groups, or if all rows are equal.
        """
        gain, components = self.auc - other.auc, np.stack([other.components, self.components])
        weights = 1 / np.where(self.truth, self.truth.sum(), (~self.truth).sum())
        covariance, freedom = clustered_covariance(self.truth, components, self.group, weights)
        if np.isnan(freedom) or np.isnan(gain) or np.allclose(self.components, other.components):
            return gain, *NO_BOUNDS
        aucs, modelled = (other.auc, self.auc), [other.modelled, self.modelled]
        variance = variance_if_equal(aucs, modelled, covariance, self.group)
        return gain, *t_interval(gain, CROSS_VALIDATED * variance, freedom)
