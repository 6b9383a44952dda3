"""95 % intervals that know that images of one group are alike.

For AUC clustered DeLong on the logit scale, for every other metric the bootstrap over whole
groups, for shares of groups Wilson's. Functions take rows with `label`, `group`, `probability`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm, rankdata, t
from statsmodels.stats.proportion import proportion_confint

from cytology.metrics import (
    METRICS,
    PROPORTIONS,
    THRESHOLD,
    UNDEFINED,
    classification_metrics,
    cumulative_counts,
    metrics_of_draws,
    truth_and_probability,
)

LEVEL = 0.95
DRAWS = 2000
FEWEST_GROUPS = 5  # of each class, for a bootstrap
AT_ONCE = 20_000_000  # weights in memory at once: 160 MB, and some copies of them

NOTHING = (np.nan, np.nan)
TOO_FEW = "groups too few or too alike"
NO_INTERVAL = f"no interval: {TOO_FEW}"


# ------------------------------------------------------------ clustered DeLong


def placements(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """For each row the share of the other class that it is on the right side of, shape (n,).

    The structural components V10 (of positives) and V01 (of negatives) of DeLong et al. 1988, by
    ranks (Sun & Xu 2014, doi 10.1109/LSP.2014.2337313). Their mean over either class is the AUC.
    """
    overall = rankdata(score)
    found = np.empty(len(score))
    for which in (truth, ~truth):
        below = (overall[which] - rankdata(score[which])) / (~which).sum()
        found[which] = below if which is truth else 1 - below
    return found


def clustered_covariance(
    truth: np.ndarray, components: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, float]:
    """Covariance of AUCs whose rows are correlated within groups, and degrees of freedom.

    `components` has shape (models, n), from `placements`. Obuchowski 1997 (doi 10.2307/2533958),
    equations for S10, S01 and S11, which counts groups and not images; with one row a group it is
    DeLong's. The degrees of freedom are on the safe side: the groups that hold the rarer class,
    less one. NaN where a class lies in fewer than two groups.
    """
    codes, groups = pd.factorize(group)
    auc = components[:, truth].mean(axis=1, keepdims=True)
    sums, having = [], []
    for which in (truth, ~truth):
        deviation = (components - auc) * which / which.sum()
        sums.append(np.stack([np.bincount(codes, row, len(groups)) for row in deviation]))
        having.append(len(np.unique(codes[which])))
    if min(having) < 2:
        return np.full((len(components),) * 2, np.nan), np.nan
    positive, negative = sums
    parts = [
        each @ each.T * count / (count - 1)
        for each, count in ((positive, having[0]), (negative, having[1]))
    ]
    cross = positive @ negative.T * len(groups) / (len(groups) - 1)
    return sum(parts) + cross + cross.T, min(having) - 1


def auc_interval(rows: pd.DataFrame) -> tuple[float, float]:
    """Interval of the AUC: clustered DeLong on the logit scale, with a t quantile.

    At an AUC of 0 or 1 the variance is zero and says nothing: there Newcombe's interval, with
    groups counted instead of images. (NaN, NaN) where a class lies in fewer than two groups.
    """
    truth, score = truth_and_probability(rows)
    if not 0 < truth.sum() < len(truth):
        return NOTHING
    components = placements(truth, score)[None]
    covariance, freedom = clustered_covariance(truth, components, rows["group"].to_numpy())
    auc, variance = components[0, truth].mean(), covariance[0, 0]
    if np.isnan(variance):
        return NOTHING
    if not 0 < auc < 1 or variance <= 0:
        counts = rows.groupby("label")["group"].nunique()
        return newcombe_interval(auc, counts["M"], counts["B"])
    half = t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance) / (auc * (1 - auc))
    return float(expit(logit(auc) - half)), float(expit(logit(auc) + half))


def newcombe_interval(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """Interval of an AUC from its value and the counts alone; not degenerate at 0 and 1.

    Method 5 of Newcombe 2006 (doi 10.1002/sim.2324): all AUCs from which the one observed is not
    further away than z standard errors of Hanley & McNeil 1982, both class sizes in their formula
    replaced by the mean.
    """
    z, mean = norm.ppf((1 + LEVEL) / 2), (positives + negatives) / 2

    def too_far(x):
        spread = 1 + (mean - 1) * ((1 - x) / (2 - x) + x / (1 + x))
        return np.abs(auc - x) - z * np.sqrt(x * (1 - x) * spread / (positives * negatives))

    inner = np.clip(auc, 1e-12, 1 - 1e-12)
    low = brentq(too_far, 0, inner) if auc > 1e-12 and too_far(1e-12) > 0 else 0.0
    high = brentq(too_far, inner, 1) if auc < 1 - 1e-12 and too_far(1 - 1e-12) > 0 else 1.0
    return float(low), float(high)


# ------------------------------------------------------------------- bootstrap


def group_weights(rows: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each group was drawn, shape (draws, groups), groups in sorted order.

    Images of one patient are alike: drawing images would treat them as independent and give
    intervals that are too narrow (Field & Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x, the
    cluster bootstrap). The draws depend on the number of groups and the seed alone, so that all
    models of a run meet the same ones. Where fewer than `FEWEST_GROUPS` hold a class they are
    NaN, and so is every interval from them: the draws of four groups are only 35 different ones,
    and hide how wrong four patients can be.
    """
    groups = rows["group"].nunique()
    if rows.groupby("label")["group"].nunique().min() < FEWEST_GROUPS:
        return np.full((draws, groups), np.nan)
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def over_draws(rows: pd.DataFrame, weights: np.ndarray, statistic: Callable) -> dict:
    """`statistic(weights of rows)` for all draws, some at once so that memory stays small.

    `weights` has shape (draws, groups); `statistic` takes (some draws, rows) and returns a
    dictionary of arrays of shape (some draws,).
    """
    codes = np.unique(rows["group"].to_numpy(), return_inverse=True)[1]
    some = max(1, AT_ONCE // max(len(rows), 1))
    parts = [statistic(weights[k : k + some][:, codes]) for k in range(0, len(weights), some)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile_interval(drawn: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the draws; draws without a value are left out."""
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return NOTHING
    return tuple(float(x) for x in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def with_width(bounds: tuple[float, float]) -> tuple[float, float]:
    """The bounds, or none where all draws were alike: no width is not certainty."""
    return bounds if bounds[0] < bounds[1] else NOTHING


def bca_interval(drawn: np.ndarray, estimate: float, left_out: np.ndarray) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (Efron 1987, doi 10.2307/2289144).

    `left_out` are the statistics with one group left out at a time. Percentile where all draws
    lie on one side of the estimate, since the correction is infinite there.
    """
    drawn, left_out = drawn[~np.isnan(drawn)], left_out[~np.isnan(left_out)]
    if not len(drawn) or np.isnan(estimate):
        return NOTHING
    # Draws equal to the estimate count half, as in SciPy's.
    below = ((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2
    if not 0 < below < 1:
        return percentile_interval(drawn)
    bias, away = norm.ppf(below), left_out.mean() - left_out
    squares = (away**2).sum()
    acceleration = (away**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    z = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    quantiles = norm.cdf(bias + z / (1 - acceleration * z))
    return tuple(float(x) for x in np.quantile(drawn, quantiles))


def bootstrap_intervals(
    rows: pd.DataFrame,
    threshold: float = THRESHOLD,
    method: str = "percentile",
    draws: int = DRAWS,
    seed: int = 0,
    names=tuple(METRICS),
) -> dict[str, tuple[float, float]]:
    """Intervals of the metrics `names` by drawing whole groups; `method` is percentile or bca."""

    def statistic(weights):
        return metrics_of_draws(rows, weights, threshold, names)

    drawn = over_draws(rows, group_weights(rows, draws, seed), statistic)
    if method == "percentile":
        return {name: with_width(percentile_interval(values)) for name, values in drawn.items()}
    estimates = classification_metrics(rows, threshold)
    left_out = over_draws(rows, 1 - np.eye(rows["group"].nunique()), statistic)
    return {
        name: with_width(bca_interval(drawn[name], estimates[name], left_out[name]))
        for name in names
    }


def curve_bands(rows: pd.DataFrame, draws: int = 500, points: int = 101) -> pd.DataFrame:
    """Pointwise 95 % bands of the ROC and precision-recall curves, by drawing whole groups.

    Columns: `at` (0 to 1), `sensitivity_low`, `_high` where `at` is 1 - specificity, and
    `precision_low`, `_high` where `at` is the sensitivity.
    """
    truth, probability = truth_and_probability(rows)
    at = np.linspace(0, 1, points)

    def curves(weights):
        found, false = cumulative_counts(truth, probability, weights)
        both = (found[:, -1] > 0) & (false[:, -1] > 0)
        sensitivity, precision = np.full((2, len(weights), points), np.nan)
        for k in np.flatnonzero(both):
            f, n = np.append(0, found[k]), np.append(0, false[k])
            sensitivity[k] = np.interp(at, n / n[-1], f / f[-1])
            f, n = f[f + n > 0], n[f + n > 0]  # from the first image drawn on
            precision[k] = np.interp(at, f / f[-1], f / (f + n))
        return {"sensitivity": sensitivity, "precision": precision}

    drawn = over_draws(rows, group_weights(rows, draws), curves)
    table = pd.DataFrame({"at": at})
    for name, values in drawn.items():
        # A draw without one of the classes has no curve.
        values = values[~np.isnan(values).any(axis=1)]
        bounds = np.full((2, points), np.nan)
        if len(values):
            bounds = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        table[f"{name}_low"], table[f"{name}_high"] = bounds
    return table


def wilson_intervals(rows: pd.DataFrame, threshold: float) -> dict[str, tuple[float, float]]:
    """Wilson's intervals (1927) of the shares in `PROPORTIONS`, with groups counted as cases.

    For one row a group they are what they always were. For several they serve a share of 0 or 1,
    where every draw of the bootstrap is the same: so many groups without a mistake.
    """
    truth, probability = truth_and_probability(rows)
    called = probability >= threshold
    cells = {"tp": truth & called, "fp": ~truth & called}
    cells |= {"tn": ~truth & ~called, "fn": truth & ~called}
    found = {}
    for name, (above, below) in PROPORTIONS.items():
        hits, asked = (sum(cells[c] for c in part) > 0 for part in (above, below))
        cases = rows["group"][asked].nunique()
        share = hits.sum() / max(asked.sum(), 1)
        bounds = proportion_confint(share * cases, cases, 1 - LEVEL, "wilson") if cases else NOTHING
        found[name] = tuple(float(x) for x in bounds)
    return found


# ------------------------------------------------------------------------- all


def metrics_with_intervals(
    rows: pd.DataFrame,
    threshold: float = THRESHOLD,
    method: str = "percentile",
    draws: int = DRAWS,
    names=tuple(METRICS),
) -> dict[str, float]:
    """The metrics `names` with their `_low` and `_high`, and the counts `images` and `groups`.

    Where each group has one row, or a share is 0 or 1, it has Wilson's interval. A column `images`
    may say how many images are behind a row.
    """
    found = classification_metrics(rows, threshold)
    bounds = bootstrap_intervals(
        rows, threshold, method, draws, names=[name for name in names if name != "auc"]
    )
    if "auc" in names:
        bounds["auc"] = auc_interval(rows)
    if rows["group"].is_unique:
        bounds |= wilson_intervals(rows, threshold)
    else:
        by_wilson = wilson_intervals(rows, threshold)
        bounds |= {name: by_wilson[name] for name in PROPORTIONS if found[name] in (0, 1)}
    table = {}
    for name in names:
        low, high = bounds[name]
        table |= {name: float(found[name]), f"{name}_low": low, f"{name}_high": high}
    images = int(rows["images"].sum()) if "images" in rows else len(rows)
    return table | {"images": images, "groups": rows["group"].nunique()}


def span(row, name: str, before: str = "", shape: str = "z.3f") -> str:
    """The interval of `name` in words, after the words `before`; where there is none, why."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return NO_INTERVAL if np.isnan(low) else f"{before}{low:{shape}} to {high:{shape}}"


def with_span(row, name: str, before: str = "") -> str:
    """A number of a row and in brackets its interval; where it does not exist, why."""
    if np.isnan(row[name]):
        return f"not known ({UNDEFINED.get(name, 'one class only')})"
    return f"{row[name]:z.3f} ({span(row, name, before)})"
