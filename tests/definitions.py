"""Drawn predictions, and a second, slow implementation, from the papers and not the package.

`truth` says which rows are malignant, `group` and `fold` give the group and fold of each row; a
`fold` of None is one fold. All have shape (n,).
"""

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal, norm, rankdata

Z = 1.959963984540054


def psi(x, y):
    """DeLong et al. 1988: one for a pair in order, a half for a tie."""
    return 1.0 if x > y else 0.5 if x == y else 0.0


def pairs_of(truth, fold=None):
    """The positions (malignant, benign) of all pairs of one fold."""
    fold = np.zeros(len(truth)) if fold is None else fold
    return [
        (i, j) for i in np.flatnonzero(truth) for j in np.flatnonzero(~truth) if fold[i] == fold[j]
    ]


def auc_slowly(truth, score, fold=None, weight=None):
    """The share of the pairs of one fold that are in order; a pair has its images' weights."""
    weight = np.ones(len(truth)) if weight is None else weight
    pairs = [(weight[i] * weight[j], psi(score[i], score[j])) for i, j in pairs_of(truth, fold)]
    return sum(w * right for w, right in pairs) / sum(w for w, _ in pairs)


def obuchowski_slowly(truth, first, second, group, fold=None, by_share=True):
    """Covariance of two AUCs: Obuchowski 1997, with sums over the pairs of one fold for V10, V01.

    T10 of a cluster is the sum over the pairs of its malignant images of what is above or below the
    AUC; T01 that of its benign images. S10, S01 and S11 are their mean products. `by_share`: the
    squares of a cluster that has a share of a class's pairs are divided by 1 - share (CR2 of Bell &
    McCaffrey 2002) in place of 1 - 1 / clusters.
    """
    pairs, scores = pairs_of(truth, fold), (first, second)
    aucs = [auc_slowly(truth, score, fold) for score in scores]
    sums, count = {}, {}  # by kind, cluster (and score)
    for pair in pairs:
        for kind, image in zip((10, 1), pair, strict=True):
            key = kind, group[image]
            count[key] = count.get(key, 0) + 1
            for k, score in enumerate(scores):
                off = psi(score[pair[0]], score[pair[1]]) - aucs[k]
                sums[*key, k] = sums.get((*key, k), 0.0) + off
    clusters, total = sorted(set(group)), 0.0
    for kind in (10, 1):
        having = [g for g in clusters if (kind, g) in count]
        for g in having:
            share = count[kind, g] / len(pairs) if by_share else 1 / len(having)
            total += sums[kind, g, 0] * sums[kind, g, 1] / (1 - share)
    for g in clusters:
        for one, other in ((10, 1), (1, 10)):
            product = sums.get((one, g, 0), 0.0) * sums.get((other, g, 1), 0.0)
            total += product * len(clusters) / (len(clusters) - 1)
    return total / len(pairs) ** 2


def delong_slowly(truth, first, second):
    """S10 / m + S01 / n of DeLong et al. 1988, from the double loop over psi."""
    above, below = np.flatnonzero(truth), np.flatnonzero(~truth)
    order = [np.array([[psi(s[i], s[j]) for j in below] for i in above]) for s in (first, second)]
    m, n = order[0].shape
    s10 = np.cov(*(each.mean(axis=1) for each in order))[0, 1]
    s01 = np.cov(*(each.mean(axis=0) for each in order))[0, 1]
    return s10 / m + s01 / n


def normal_scores(score):
    return norm.ppf((rankdata(score) - 0.5) / len(score))


def both_slowly(share, correlation):
    """The chance that two standard normal variables of this correlation lie below a quantile."""
    point, matrix = norm.ppf(share), [[1, correlation], [correlation, 1]]
    return float(multivariate_normal.cdf([point, point], [0, 0], matrix, allow_singular=True))


def likeness_of_images(i, k, group, alike):
    """The correlation of two images' scores of one class."""
    return 1.0 if i == k else alike if group[i] == group[k] else 0.0


def binormal_slowly(auc, truth, group, alike, fold=None):
    """Variance of an AUC of binormal scores, summed over all pairs of pairs.

    Exactly: two pairs (i, j) and (k, l) are both in order with the chance that two normal
    differences are positive, whose correlation is the mean of that of i, k and that of j, l.
    `alike` are the correlations within a group of malignant and of benign images.
    """
    known = {}

    def covariance(correlation):
        if correlation not in known:
            known[correlation] = both_slowly(auc, correlation) - auc**2
        return known[correlation]

    pairs = pairs_of(truth, fold)
    return (
        sum(
            covariance(
                (
                    likeness_of_images(i, k, group, alike[0])
                    + likeness_of_images(j, m, group, alike[1])
                )
                / 2
            )
            for i, j in pairs
            for k, m in pairs
            if fold is None or fold[i] == fold[k]
        )
        / len(pairs) ** 2
    )


def binormal_by_parts(auc, truth, group, alike, fold=None):
    """The same in parts: the contributions of malignant images, benign ones, and pairs."""
    one = both_slowly(auc, 0.5) - auc**2
    groups = [both_slowly(auc, each / 2) - auc**2 for each in alike]
    pair = max(auc * (1 - auc) - 2 * one, 0)
    pairs, parts = pairs_of(truth, fold), np.zeros(3)
    for p in pairs:
        for q in (q for q in pairs if fold is None or fold[p[0]] == fold[q[0]]):
            correlations = []
            for which in (0, 1):
                same, mates = p[which] == q[which], group[p[which]] == group[q[which]]
                parts[which] += one if same else groups[which] if mates else 0
                correlations.append(1 if same else alike[which] if mates else 0)
            parts[2] += pair * correlations[0] * correlations[1]
    return parts / len(pairs) ** 2


def effective_groups_slowly(truth, group, fold=None):
    """Of either class: 1 / sum of the squared shares of pairs that each group is part of."""
    pairs, found = pairs_of(truth, fold), []
    for which in (0, 1):
        shares = [np.mean([group[p[which]] == name for p in pairs]) for name in set(group)]
        found.append(1 / np.sum(np.square(shares)))
    return np.array(found)


def share_variance_slowly(share, group, alike, found):
    """Variance of a share of images that are hit where a normal score lies beyond a threshold.

    Toward 0 and 1 a third of what images of one group add at the share `found` is mixed in.
    """
    edge = 1 / (2 * len(set(group)))
    inside = min(max(found, edge), 1 - edge)
    there, at_found = (both_slowly(each, alike) - each**2 for each in (share, inside))
    together = (2 * there + at_found) / 3 if at_found > there else there
    covariance = {0: 0.0, 1: together, 2: share - share**2}
    return (
        sum(
            covariance[2 if i == k else int(group[i] == group[k])]
            for i in range(len(group))
            for k in range(len(group))
        )
        / len(group) ** 2
    )


def drawn_rows(seed, groups=20, images=3, mixed=False, folds=0, skill=0.8):
    """Groups of 1 to `images` images that are alike, each in one of `folds` folds.

    `mixed`: with images of both classes in a group, and ties. `images` may be negative: exactly so
    many. Columns: `label, group, probability, logit`, and `fold` where there are several.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, images + 1, groups) if images > 0 else np.full(groups, -images)
    group = np.repeat(np.arange(groups), sizes)
    truth = rng.random(len(group)) < 0.5 if mixed else group % 2 == 0
    logit = np.where(truth, skill, -skill) + rng.normal(size=groups)[group]
    logit = (logit + rng.normal(size=len(group))).round(1 if mixed else 9)
    rows = pd.DataFrame({"label": np.where(truth, "M", "B"), "group": group, "logit": logit})
    rows["probability"] = 1 / (1 + np.exp(-logit))
    return rows.assign(fold=group // 2 % folds) if folds else rows


def arrays_of(rows):
    """`truth`, score, group and fold (None without one) of rows."""
    fold = rows["fold"].to_numpy() if "fold" in rows else None
    return (
        (rows["label"] == "M").to_numpy(),
        rows["logit"].to_numpy(),
        rows["group"].to_numpy(),
        fold,
    )
