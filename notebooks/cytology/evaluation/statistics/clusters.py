"""Variances for images that are alike within groups, judged by a different head in each fold.

`truth` says which rows are malignant (bool); `group` and `fold` are those of each row; all have
shape (n,).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import ndtri, owens_t
from scipy.stats import rankdata

# The variance of scores from cross-validation is at most twice that of independent scores: patient
# i trains the head that judges patient j, and j the head that judges i, so the luck of each pair
# of patients counts twice. docs/statistics.md shows what happens without this factor.
CROSS_VALIDATED = 2.0


def folds_of(rows: pd.DataFrame) -> np.ndarray:
    """The fold of each row as whole numbers from 0; zeros if one head judged all rows."""
    # Images of val have a fold, too.
    kept_model = "model" in rows and (rows["model"] != "oof").any()
    if kept_model or "fold" not in rows or rows["fold"].isna().any():
        return np.zeros(len(rows), int)
    return pd.factorize(rows["fold"])[0]


def variance_inflation(rows: pd.DataFrame) -> float:
    """The factor for variances: `CROSS_VALIDATED` for rows of several folds, else 1."""
    return CROSS_VALIDATED if folds_of(rows).any() else 1.0


# ------------------------------------------------------------------------- AUC


def placements(truth: np.ndarray, score: np.ndarray, fold: np.ndarray | None = None) -> np.ndarray:
    """For each row, the share of the other class in its fold for which its order is right.

    The structural components V10 (of positives) and V01 (of negatives) of DeLong et al. 1988, by
    ranks (Sun & Xu 2014, doi 10.1109/LSP.2014.2337313). Zero if the other class is missing:
    `pair_weights` gives such a row no weight.
    """
    found = np.zeros(len(score))
    for part in rows_by_fold(truth, fold):
        overall = rankdata(score[part])
        for which in (truth[part], ~truth[part]):
            if 0 < which.sum() < len(which):
                below = (overall[which] - rankdata(score[part[which]])) / (~which).sum()
                found[part[which]] = below if truth[part[which]].all() else 1 - below
    return found


def pair_weights(truth: np.ndarray, fold: np.ndarray | None = None) -> np.ndarray:
    """Each row's share of all pairs of a malignant and a benign image of one fold.

    The weights of either class add up to 1; NaN if no fold has both classes.
    """
    weights = np.zeros(len(truth))
    for part in rows_by_fold(truth, fold):
        malignant = truth[part].sum()
        weights[part] = np.where(truth[part], len(part) - malignant, malignant)
    pairs = weights[truth].sum()
    return weights / pairs if pairs else np.full(len(truth), np.nan)


def rows_by_fold(truth: np.ndarray, fold: np.ndarray | None) -> list[np.ndarray]:
    """The rows of each fold, as positions."""
    if fold is None:
        return [np.arange(len(truth))]
    return [np.flatnonzero(fold == number) for number in np.unique(fold)]


def group_sums(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of values of shape (..., n) by group, shape (..., groups)."""
    codes, groups = pd.factorize(group)
    *lead, count = np.shape(values)
    flat = np.reshape(values, (int(np.prod(lead)), count))
    sums = [np.bincount(codes, row, len(groups)) for row in flat]
    return np.reshape(sums, (*lead, len(groups)))


def clustered_covariance(
    truth: np.ndarray, components: np.ndarray, group: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """Covariance of AUCs whose rows are correlated within groups, and degrees of freedom.

    `components` has shape (models, n), from `placements`, `weights` (n,) from `pair_weights`.
    Obuchowski 1997 (doi 10.2307/2533958), equations for S10, S01 and S11, which count groups, not
    images; with one row per group and one fold it is DeLong's. For groups of different size the
    squares of each class are those of `unbiased_squares`. The degrees of freedom are on the safe
    side: those of the class with fewer `effective_groups`. NaN if a class is in fewer than two
    groups.
    """
    auc = components[:, truth] @ weights[truth]
    deviations, freedom, sums = (components - auc[:, None]) * weights, [], []
    total = np.zeros((len(components),) * 2)
    for which in (truth, ~truth):
        shares = group_sums(weights * which, group)
        if (shares > 0).sum() < 2:
            return np.full((len(components),) * 2, np.nan), np.nan
        sums.append(group_sums(deviations * which, group))
        total += unbiased_squares(sums[-1], shares)
        freedom.append(effective_groups(shares) - 1)
    groups = len(shares)
    cross = sums[0] @ sums[1].T * groups / (groups - 1)
    return total + cross + cross.T, min(freedom)


def unbiased_squares(sums: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Sums of squares and products of deviations by group, shape (models, models).

    `sums` has shape (models, groups). A group with a large share of the images pulls the mean
    towards itself, so its deviation is too small: it is divided by the square root of 1 - share
    (CR2 of Bell & McCaffrey 2002, Survey Methodology 28:169).
    """
    known = (shares > 0) & (shares < 1)
    scaled = sums[:, known] / np.sqrt(1 - shares[known])
    return scaled @ scaled.T


def effective_groups(shares: np.ndarray) -> float:
    """The equivalent number of groups of equal size: 1 / sum of squared shares (Kish 1965)."""
    return float(shares.sum() ** 2 / (shares**2).sum())


def conformal_limit(score: np.ndarray, group, rate: float) -> float:
    """The highest score below which, on average, at most a share `rate` of a new group falls.

    Conformal risk control: after adding one more group whose scores are all lower, the mean over
    groups of their shares of lower scores is at most `rate`. With too few groups, the lowest score.
    """
    codes, groups = pd.factorize(group)
    weight = 1 / np.bincount(codes)[codes]  # of a row within its group
    order = np.argsort(score, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weight[order])[:-1]])
    first = np.searchsorted(score[order], score[order], side="left")  # ties stay together
    enough = below[first] <= rate * (len(groups) + 1) - 1 + 1e-9
    return float(score[order][enough].max() if enough.any() else score.min())


# -------------------------------------------------------------------- likeness


def intraclass_correlation(score: np.ndarray, group: np.ndarray) -> float:
    """How alike scores are within groups: intraclass correlation, from 0 to 1.

    One-way analysis of variance with groups of unequal size (Donner 1986, doi 10.2307/1403259), on
    normal scores of the ranks, so outliers and scale do not matter. Returns 1, the cautious value,
    if it cannot be estimated: with one group, or one image per group.
    """
    sizes = group_sums(np.ones(len(score)), group)
    groups, count = len(sizes), len(score)
    if not 1 < groups < count:
        return 1.0
    values = ndtri((rankdata(score) - 0.5) / count)
    between = (group_sums(values, group) ** 2 / sizes).sum()
    within = ((values**2).sum() - between) / (count - groups)
    between = (between - values.sum() ** 2 / count) / (groups - 1)
    size = (count - (sizes**2).sum() / count) / (groups - 1)
    spread = between + (size - 1) * within
    return float(np.clip((between - within) / spread, 0, 1)) if spread > 0 else 1.0


def both_below(share, correlation: float):
    """The probability that two normal variables are both below the point where each has `share`.

    By Owen's T (1956): `share` - 2 T(h, sqrt((1 - r) / (1 + r))) with h the quantile of `share`.
    """
    return share - 2 * owens_t(ndtri(share), np.sqrt((1 - correlation) / (1 + correlation)))


def clip_share(share: float, group: np.ndarray) -> float:
    """A share or AUC, kept half a group away from 0 and 1, as so few groups cannot show more."""
    edge = 1 / (2 * len(np.unique(group)))
    return float(np.clip(share, edge, 1 - edge))


def binormal_variance(truth, score, group, fold) -> Callable[[float], np.ndarray]:
    """The variance of an AUC as a function of its true value, in three parts.

    The parts, of malignant images, of benign ones, and of pairs, are to be added. The model: scores
    are normal in both classes with equal width, and correlate by `intraclass_correlation`. Two
    pairs of a malignant and a benign image are both in order with the probability `both_below`:
    with correlation 1/2 if they share an image, with half the group's correlation if they share a
    group. The contribution of a pair itself counts once for each pair of effective images. Over
    folds the variances are summed, weighted by the squares of their shares of all pairs.
    """
    classes = truth, ~truth
    alike = np.array([intraclass_correlation(score[which], group[which]) for which in classes])
    image, others, pair, pairs = np.zeros(2), np.zeros(2), 0.0, 0.0
    for part in rows_by_fold(truth, fold):
        sizes = [np.unique(group[part][which[part]], return_counts=True)[1] for which in classes]
        number = np.array([each.sum() for each in sizes], float)
        of_fold = number.prod()
        if of_fold:
            crowd = np.array([(each**2).sum() for each in sizes]) / number - 1
            image += of_fold**2 / number
            others += of_fold**2 * crowd / number
            pair += of_fold**2 * ((1 + crowd * alike) / number).prod()
            pairs += of_fold

    def variance(auc):
        of_image = both_below(auc, 0.5) - auc**2
        of_group = both_below(auc, alike / 2) - auc**2
        of_pair = max(auc * (1 - auc) - 2 * of_image, 0.0)
        return np.append(image * of_image + others * of_group, pair * of_pair) / pairs**2

    return variance


def mean_variance(modelled: list[Callable]) -> Callable:
    """The mean of several `binormal_variance`s: an upper bound for the mean of such AUCs."""
    return lambda auc: np.mean([each(auc) for each in modelled], axis=0)


def variance_if_equal(aucs, modelled: list[Callable], covariance, group: np.ndarray) -> float:
    """The variance of a difference of two AUCs if both were equal to their mean."""
    errors = np.sqrt([each(clip_share(np.mean(aucs), group)).sum() for each in modelled])
    product = covariance[0, 0] * covariance[1, 1]
    correlation = covariance[0, 1] / np.sqrt(product) if product > 0 else 0.0
    return max((errors**2).sum() - 2 * correlation * errors.prod(), 0.0)
