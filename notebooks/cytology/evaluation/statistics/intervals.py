"""95 % intervals for images that are alike within groups.

Those of AUC and shares invert a score test: they contain all true values that are not too far from
the estimate, given the variance that *they* would cause. So nothing special happens at 0 and 1,
where the observed variance vanishes. Functions take rows with `label`, `group`, `probability` (and
`logit`, if there is one). Rows of several folds were predicted by heads that were trained on each
other's patients, so all their variances are doubled (`clusters.CROSS_VALIDATED`).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import stdtrit

from cytology.evaluation.statistics.clusters import (
    binormal_variance,
    both_below,
    clip_share,
    clustered_covariance,
    effective_groups,
    folds_of,
    group_sums,
    intraclass_correlation,
    pair_weights,
    placements,
    unbiased_squares,
    variance_if_equal,
    variance_inflation,
)
from cytology.evaluation.statistics.metrics import (
    AT_A_THRESHOLD,
    METRICS,
    OF_TWO_SHARES,
    THRESHOLD,
    classification_metrics,
    truth_and_probability,
    truth_and_score,
)

LEVEL = 0.95
FEWEST_GROUPS = 5  # of each class, for a bootstrap
# By `python -m benchmarks coverage`: with heavy tails 0 covers too little, 1 too much.
TAILS = 1 / 3
EDGE = 1e-9  # true values are tried up to this distance from 0 and 1
ROUNDING = 1e-12  # the share of an estimate below which its standard error is rounding

NO_BOUNDS = (np.nan, np.nan)


def t_quantile(freedom: float) -> float:
    """The number of standard errors on each side of a 95 % interval (Student's t)."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


# ----------------------------------------------------------- by inverting a test


def score_interval(found: float, variance: Callable, freedom: float) -> tuple[float, float]:
    """All shares from which `found` differs by no more than their own standard errors allow.

    `variance(share)` is the variance of the estimate if `share` were the truth. As Wilson 1927 for
    shares and Newcombe 2006 (doi 10.1002/sim.2324) for AUCs.
    """
    reach = t_quantile(freedom)

    def too_far(share):
        return abs(found - share) - reach * np.sqrt(variance(share))

    start = min(max(found, EDGE), 1 - EDGE)
    low, high = 0.0, 1.0
    if found > EDGE and too_far(EDGE) > 0:
        low = brentq(too_far, EDGE, start)
    if found < 1 - EDGE and too_far(1 - EDGE) > 0:
        high = brentq(too_far, start, 1 - EDGE)
    return float(low), float(high)


def auc_interval(rows: pd.DataFrame) -> tuple[float, float]:
    """Interval of the AUC within folds, by the variance of the binormal model at each true value.

    Towards 0 and 1 a third of the variance at the estimated AUC is mixed in (`TAILS`): with heavy
    tails the variance does not shrink as in the model. It uses a t quantile with the degrees of
    freedom of both classes' `effective_groups` (Satterthwaite 1946, doi 10.2307/3002019).
    (NaN, NaN) if a class is in fewer than two groups.
    """
    truth, score = truth_and_score(rows)
    group, fold = rows["group"].to_numpy(), folds_of(rows)
    weights = pair_weights(truth, fold)
    sizes = [group_sums(weights * which, group) for which in (truth, ~truth)]
    if min((each > 0).sum() for each in sizes) < 2:
        return NO_BOUNDS
    found = float(placements(truth, score, fold) @ weights / 2)
    modelled = binormal_variance(truth, score, group, fold)
    return modelled_interval(found, modelled, sizes, group, variance_inflation(rows))


def modelled_interval(
    found: float, modelled: Callable, sizes: list, group: np.ndarray, inflation: float
) -> tuple[float, float]:
    """The interval of an AUC whose variance is `modelled`; `sizes` weigh each class's groups."""
    parts = modelled(clip_share(found, group))
    degrees = [effective_groups(each) - 1 for each in sizes]
    freedom = parts[:2].sum() ** 2 / (parts[:2] ** 2 / degrees).sum()

    def variance(auc):
        there = modelled(auc).sum()
        return inflation * (there + TAILS * max(parts.sum() - there, 0.0))

    return score_interval(found, variance, freedom)


def share_interval(
    hits: np.ndarray, group: np.ndarray, score: np.ndarray | None = None, inflation: float = 1.0
) -> tuple[float, float]:
    """Interval of a share of images, shape (n,), whose groups are `group`.

    `hits` are images whose `score` is beyond a threshold. Two images of a group are hit together
    with a probability that comes from the correlation of their scores: if nearly all or nearly none
    are hit, this is far better than the hits themselves. Without scores the images of a group count
    as one, since the correlation of hits alone would jump at the first miss. `TAILS` as in
    `auc_interval`. With one image per group this is Wilson's interval (1927) with a t quantile.
    (NaN, NaN) for fewer than two groups.
    """
    hits = np.asarray(hits, float)
    sizes, count = group_sums(np.ones(len(hits)), group), len(hits)
    if len(sizes) < 2:
        return NO_BOUNDS
    found, crowd = hits.mean(), (sizes**2).sum() / count - 1
    alike = 1.0 if score is None else intraclass_correlation(score, group)

    def of_group(share):
        return crowd * (both_below(share, alike) - share**2)

    at_found = of_group(clip_share(found, group))

    def variance(share):
        there = of_group(share)
        mixed = there + TAILS * max(at_found - there, 0.0)
        return inflation * (share * (1 - share) + mixed) / count

    return score_interval(found, variance, effective_groups(sizes) - 1)


def of_two_shares(metric: Callable, malignant: float, found: list, bounds: list) -> tuple:
    """Interval of a metric that rises with sensitivity and with specificity.

    `found` holds both, `bounds` their intervals, `malignant` is the sample's share of malignant
    images, for which the interval is valid. The ends are the smallest and largest value on the
    quarters of an ellipse whose axes are the two intervals: for a sum of both this is the method of
    variance estimates recovery (Zou & Donner 2008, doi 10.1002/sim.2919), and it never leaves the
    metric's range.
    """
    angle = np.linspace(0, np.pi / 2, 65)
    along = np.stack([np.cos(angle), np.sin(angle)])
    ends = []
    for side, best in ((0, np.nanmin), (1, np.nanmax)):
        reach = np.array([bound[side] for bound in bounds]) - found
        values = metric(*(np.array(found)[:, None] + reach[:, None] * along), malignant)
        ends.append(float(best(values)) if np.isfinite(values).any() else np.nan)
    return tuple(ends)


# --------------------------------------------------------- differences and means


def gain_error(rows: pd.DataFrame, before, after) -> tuple[float, float, float]:
    """A difference of AUCs on the same images, its standard error and degrees of freedom.

    The error is that of a score test: both AUCs have the variance that they would have if they were
    equal (`binormal_variance` at their mean), and the correlation observed by
    `clustered_covariance`. Near an AUC of 1 the observed variances are too small.
    """
    truth, group, fold = (rows["label"] == "M").to_numpy(), rows["group"].to_numpy(), folds_of(rows)
    weights, scores = pair_weights(truth, fold), [np.asarray(each) for each in (before, after)]
    components = np.stack([placements(truth, score, fold) for score in scores])
    aucs = components @ weights / 2  # each class alone gives the AUC
    gain = float(aucs[1] - aucs[0])
    covariance, freedom = clustered_covariance(truth, components, group, weights)
    if (components[0] == components[1]).all() or np.isnan(freedom):
        return gain, 0.0 * freedom, freedom
    modelled = [binormal_variance(truth, score, group, fold) for score in scores]
    variance = variance_if_equal(aucs, modelled, covariance, group)
    return gain, float(np.sqrt(variance * variance_inflation(rows))), freedom


def mean_interval(
    values: np.ndarray, group: np.ndarray, inflation: float = 1.0
) -> tuple[float, float]:
    """Interval of the mean of one number per image, shape (n,): Student's t over whole groups.

    (NaN, NaN) if groups are too few or all alike.
    """
    values = np.asarray(values, float)
    shares = group_sums(np.full(len(values), 1 / len(values)), group)
    if len(shares) < 2:
        return NO_BOUNDS
    sums = group_sums(values - values.mean(), group)[None] / len(values)
    variance = unbiased_squares(sums, shares)[0, 0]
    return t_interval(values.mean(), inflation * variance, effective_groups(shares) - 1)


def t_interval(found: float, variance: float, freedom: float) -> tuple[float, float]:
    """A t interval; NaN without spread, or if the groups are worth fewer than two equal ones."""
    error = float(np.sqrt(variance))
    if not (error > ROUNDING * abs(found) and freedom > 1 - ROUNDING):
        return NO_BOUNDS
    half = t_quantile(freedom) * error
    return float(found - half), float(found + half)


# ------------------------------------------------------------------------- all


def metrics_with_intervals(
    rows: pd.DataFrame, threshold: float = THRESHOLD, names=tuple(METRICS)
) -> dict[str, float]:
    """The metrics `names`, most with `_low` and `_high`, and the `counts` of images and groups.

    A column `images` may give the number of images of a row. For average precision, log loss, Brier
    score and calibration errors no interval is known that is valid with few patients.
    """
    found = classification_metrics(rows, threshold, {*names, "recall", "specificity"})
    bounds = {"auc": auc_interval(rows)} if "auc" in names else {}
    if any(name in AT_A_THRESHOLD for name in names):
        bounds |= threshold_intervals(rows, threshold, found)
    table: dict[str, float] = {}
    for name in names:
        table[name] = float(found[name])
        if name in bounds:
            table[f"{name}_low"], table[f"{name}_high"] = bounds[name]
    return table | counts(rows)


def named_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    """`name`, `name_low` and `name_high` of a row of a table."""
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """Numbers of images, of groups, and of groups with an image of either class."""
    of_class = rows.groupby("label")["group"].nunique().reindex(["M", "B"], fill_value=0)
    return {
        "images": int(rows["images"].sum()) if "images" in rows else len(rows),
        "groups": rows["group"].nunique(),
        "groups_malignant": int(of_class["M"]),
        "groups_benign": int(of_class["B"]),
    }


def called_intervals(
    rows: pd.DataFrame, called: np.ndarray, inflation: float | None = None
) -> list[tuple[float, float]]:
    """Intervals of sensitivity and specificity; `called` marks rows that are called malignant."""
    truth, score = truth_and_score(rows)
    group = rows["group"].to_numpy()
    inflation = variance_inflation(rows) if inflation is None else inflation
    return [
        share_interval(called[which] == truth[which], group[which], score[which], inflation)
        for which in (truth, ~truth)
    ]


def threshold_intervals(
    rows: pd.DataFrame, threshold: float, found: dict[str, float]
) -> dict[str, tuple[float, float]]:
    """Intervals of the metrics in `found` that a threshold decides, at this malignant share."""
    truth, probability = truth_and_probability(rows)
    bounds = called_intervals(rows, probability >= threshold)
    shares = [found["recall"], found["specificity"]]
    intervals = dict(zip(("recall", "specificity"), bounds, strict=True))
    for name, metric in OF_TWO_SHARES.items():
        if name not in found:
            continue
        known = np.isfinite([found[name], *shares, *np.ravel(bounds)]).all()
        args = metric, truth.mean(), shares, bounds
        intervals[name] = of_two_shares(*args) if known else NO_BOUNDS
    return intervals
