"""Are probabilities right overall, and is their spread right? Logistic recalibration.

Cox 1958 (doi 10.1093/biomet/45.3-4.562); Van Calster et al. 2019 (doi 10.1186/s12916-019-1466-7).
"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cytology.evaluation.statistics.intervals import (
    FEWEST_GROUPS,
    NO_BOUNDS,
    named_interval,
    t_quantile,
)

NEWTON_STEPS = 100  # a limit; a handful are needed
MOST_LEFT_OUT = 100  # parts of a jackknife: with more groups, several are left out together
CLOSE = 1e-9  # after a step this small, stop


def logistic_fit(
    score: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None, start=(0.0, 0.0)
) -> np.ndarray:
    """Intercept and slope of the logistic regression of `target` on `score`, one row per set.

    `score` and `target` (0 to 1) have shape (n,), `weights` (sets, n); returns (sets, 2). Newton's
    steps, halved if one raises the loss. There must be a solution: the scores differ, and either
    the targets are strictly between 0 and 1, or no score separates those of 0 from those of 1.
    """
    weights = np.ones((1, len(score))) if weights is None else weights
    middle, spread = score.mean(), score.std() or 1.0
    design = np.stack([np.ones(len(score)), (score - middle) / spread])
    squares = np.stack([design[0], design[1], design[1] ** 2], axis=1)
    begin = np.array([start[0] + start[1] * middle, start[1] * spread])
    found = np.tile(begin, (len(weights), 1))

    def loss(coefficients):
        fitted = coefficients @ design
        return (weights * (np.logaddexp(0, fitted) - target * fitted)).sum(axis=1)

    now = loss(found)
    for _ in range(NEWTON_STEPS):
        share = expit(found @ design)
        gradient = (weights * (target - share)) @ design.T
        curvature = (weights * share * (1 - share)) @ squares
        step = _solved(curvature, gradient)
        for _ in range(30):
            then = loss(found + step)
            worse = then > now + 1e-12 * np.abs(now)
            if not worse.any():
                break
            step[worse] /= 2
        found, now = found + step, then
        if np.abs(step).max() < CLOSE:
            break
    found[:, 1] /= spread
    found[:, 0] -= found[:, 1] * middle
    return found


def in_the_large(score: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The number to add to all logits so that their mean probability is the share malignant.

    Shapes as in `logistic_fit`; returns (sets,). NaN if a set has only one class.
    """
    with np.errstate(divide="ignore"):
        odds = logit((weights @ truth) / weights.sum(axis=1))
    low, high = odds - score.max(), odds - score.min()
    some = np.isfinite(odds)
    found = np.where(some, (low + high) / 2, np.nan)
    for _ in range(NEWTON_STEPS):
        share = expit(found[:, None] + score)
        gap = (weights * (truth - share)).sum(axis=1)
        low, high = np.where(gap > 0, found, low), np.where(gap > 0, high, found)
        with np.errstate(invalid="ignore", divide="ignore"):
            new = found + gap / (weights * share * (1 - share)).sum(axis=1)
            new = np.where((new > low) & (new < high), new, (low + high) / 2)
        moved, found = np.abs(new - found), new
        if not (moved[some] > CLOSE).any():
            break
    return found


def recalibration(rows: pd.DataFrame, inflation: float = 1.0) -> dict[str, float]:
    """`calibration_in_the_large` and `calibration_slope` of `logit`, with `_low` and `_high`.

    In the large, positive: malignant images are more frequent than the probabilities say. Slope
    below 1: the probabilities are too sure. The intervals leave out one group after the other (the
    jackknife; beyond `MOST_LEFT_OUT` several at a time), with a t quantile. Its degrees of freedom
    are the number of groups of the rarer class minus one; for the slope, which depends on few
    groups, at most the equivalent number of parts with equal influence (Kish 1965). NaN if fewer
    than `FEWEST_GROUPS` groups have a class, or if the estimate, or one without a group, does not
    exist. `inflation` multiplies the variance.
    """
    truth, score = (rows["label"] == "M").to_numpy(float), rows["logit"].to_numpy(float)
    malignant = truth == 1
    having = rows.groupby("label")["group"].nunique().reindex(["B", "M"], fill_value=0).min()
    parts = np.unique(rows["group"], return_inverse=True)[1] % MOST_LEFT_OUT
    weights = (parts != np.arange(-1, parts.max() + 1)[:, None]).astype(float)
    exists = ~_parted(score, malignant, weights)
    large, line = in_the_large(score, truth, weights), np.full((len(weights), 2), np.nan)
    if exists[0]:  # the first row leaves no group out
        line[0] = logistic_fit(score, truth, weights[:1])
        line[exists] = logistic_fit(score, truth, weights[exists], line[0])
    found: dict[str, float] = {}
    for name, (estimate, *without) in (
        ("calibration_in_the_large", large),
        ("calibration_slope", line[:, 1]),
    ):
        away = np.array(without) - estimate
        moved, bounds = (away**2).sum(), NO_BOUNDS
        if having >= FEWEST_GROUPS and moved > 0:
            freedom = having - 1
            if name == "calibration_slope":
                freedom = min(freedom, moved**2 / (away**4).sum())
            half = t_quantile(freedom) * np.sqrt(inflation * (1 - 1 / len(away)) * moved)
            bounds = float(estimate - half), float(estimate + half)
        found |= named_interval(name, float(estimate), *bounds)
    return found


def _solved(curvature: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Newton's step for two coefficients, shape (sets, 2); `curvature` has the three sums."""
    one, mixed, two = curvature.T
    tiny = np.finfo(float).tiny
    determinant = np.maximum(one * two - mixed**2, tiny)
    first, second = gradient.T
    steps = two * first - mixed * second, one * second - mixed * first
    return np.stack(steps, axis=1) / determinant[:, None]


def _parted(score: np.ndarray, malignant: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether a score separates the classes of each set, so that no finite slope exists."""
    there = weights > 0
    low, high = [], []
    for which in (malignant, ~malignant):
        low.append(np.where(there & which, score, np.inf).min(axis=1))
        high.append(np.where(there & which, score, -np.inf).max(axis=1))
    return (low[0] >= high[1]) | (low[1] >= high[0])
