"""Variances of correlated images against double loops, SciPy's normal law and statsmodels."""

import math

import numpy as np
import pandas as pd
import pytest
from definitions import (
    Z,
    arrays_of,
    auc_slowly,
    both_slowly,
    delong_slowly,
    drawn_rows,
    normal_scores,
    obuchowski_slowly,
    pairs_of,
)
from sklearn.metrics import roc_auc_score
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from cytology.evaluation.statistics.clusters import (
    CROSS_VALIDATED,
    both_below,
    clustered_covariance,
    effective_groups,
    folds_of,
    group_sums,
    intraclass_correlation,
    pair_weights,
    placements,
    unbiased_squares,
    variance_inflation,
)

pytestmark = pytest.mark.numeric


# ------------------------------------------------------------------------- folds


@pytest.mark.parametrize(
    ("columns", "crossed"),
    [
        ({}, False),
        ({"fold": [0, 0, 1, 1]}, True),
        ({"fold": [2, 2, 2, 2]}, False),
        ({"fold": np.nan}, False),
        ({"fold": [0, 0, 1, np.nan]}, False),
        ({"fold": [0, 0, 1, 1], "model": "oof"}, True),
        ({"fold": [0, 0, 1, 1], "model": "final"}, False),
    ],
    ids=["none", "several", "one", "test", "some of test", "out of fold", "kept model on val"],
)
def test_rows_of_several_folds_are_recognized_as_cross_validated(columns, crossed):
    rows = pd.DataFrame({"label": list("MBMB"), "group": range(4)}).assign(**columns)
    assert variance_inflation(rows) == (CROSS_VALIDATED if crossed else 1)
    assert len(set(folds_of(rows))) == (2 if crossed else 1)


# ------------------------------------------------------------ pairs within folds


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_placements_are_computed_against_the_other_class_in_the_fold(seed, folds):
    truth, score, _, fold = arrays_of(drawn_rows(seed, mixed=True, folds=folds))
    pairs = pairs_of(truth, fold)
    found, weights = placements(truth, score, fold), pair_weights(truth, fold)
    for row in range(len(truth)):
        own = [(i, j) for i, j in pairs if row in (i, j)]
        assert weights[row] == pytest.approx(len(own) / len(pairs))
        right = [score[i] > score[j] or (score[i] == score[j]) / 2 for i, j in own]
        assert found[row] == pytest.approx(np.mean(right) if own else 0)
    for which in (truth, ~truth):
        assert found[which] @ weights[which] == pytest.approx(auc_slowly(truth, score, fold))
        assert weights[which].sum() == pytest.approx(1)


def test_a_fold_of_one_class_has_no_pair_and_no_weight():
    truth, fold = np.array([True, False, True, True]), np.array([0, 0, 1, 1])
    assert pair_weights(truth, fold).tolist() == [1, 1, 0, 0]
    assert np.isnan(pair_weights(truth[2:], fold[2:])).all()


def test_sums_by_group_keep_the_other_axes():
    values = np.arange(12.0).reshape(2, 1, 6)
    found = group_sums(values, np.array(list("abcabb")))
    assert found.tolist() == [[[3, 1 + 4 + 5, 2]], [[15, 7 + 10 + 11, 8]]]
    assert group_sums(np.ones(0), np.array([], str)).shape == (0,)


# ---------------------------------------------------------- DeLong and Obuchowski


def two_models(seed, **drawn):
    """`truth`, the scores of two models, `group` and `fold`."""
    truth, first, group, fold = arrays_of(drawn_rows(seed, **drawn))
    second = (first + np.random.default_rng(seed).normal(size=len(first))).round(1)
    return truth, first, second, group, fold


def covariance_of(truth, scores, group, fold):
    components = np.stack([placements(truth, score, fold) for score in scores])
    return clustered_covariance(truth, components, group, pair_weights(truth, fold))


@pytest.mark.parametrize("seed", range(3))
def test_with_one_row_per_group_the_covariance_matches_delongs_definition(seed):
    truth, first, second, _, _ = two_models(seed, mixed=True)
    found, freedom = covariance_of(truth, (first, second), np.arange(len(truth)), None)
    for r, a in enumerate((first, second)):
        for s, b in enumerate((first, second)):
            assert found[r, s] == pytest.approx(delong_slowly(truth, a, b))
    assert freedom == pytest.approx(min(truth.sum(), (~truth).sum()) - 1)


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_covariance_of_equal_groups_matches_obuchowski(seed, folds):
    truth, first, second, group, fold = two_models(seed, groups=16, images=-3, folds=folds)
    found, freedom = covariance_of(truth, (first, second), group, fold)
    for r, a in enumerate((first, second)):
        for s, b in enumerate((first, second)):
            expected = obuchowski_slowly(truth, a, b, group, fold, by_share=False)
            assert found[r, s] == pytest.approx(expected)
    assert freedom == pytest.approx(8 - 1)


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("mixed", [True, False], ids=["mixed groups", "one class a group"])
def test_the_squares_of_unequal_groups_are_corrected_by_their_shares(mixed, folds):
    truth, first, second, group, fold = two_models(1, groups=14, images=5, mixed=mixed, folds=folds)
    found, freedom = covariance_of(truth, (first, second), group, fold)
    for r, a in enumerate((first, second)):
        for s, b in enumerate((first, second)):
            assert found[r, s] == pytest.approx(obuchowski_slowly(truth, a, b, group, fold))
    worth, pairs = [], pairs_of(truth, fold)
    for which in (0, 1):
        shares = pd.Series([group[pair[which]] for pair in pairs]).value_counts(normalize=True)
        worth.append(1 / (shares**2).sum())
    assert freedom == pytest.approx(min(worth) - 1)


def test_the_variance_of_a_mean_of_unequal_groups_is_unbiased_for_independent_images():
    """The factor groups / (groups - 1) is too small if one group has most images."""
    sizes, rng = np.array([12, 3, 2, 2, 1]), np.random.default_rng(0)
    shares, group = sizes / 20, np.repeat(np.arange(5), sizes)
    values = rng.normal(size=(8000, 20))
    sums = group_sums(values - values.mean(axis=1, keepdims=True), group) / 20
    found = np.mean([unbiased_squares(each[None], shares)[0, 0] for each in sums])
    assert found == pytest.approx(1 / 20, rel=0.05)
    assert (sums**2).sum(axis=1).mean() * 5 / 4 < 0.8 / 20


def test_the_effective_number_of_groups_matches_its_definition():
    assert effective_groups(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_groups(np.array([20, 1, 1, 1, 1, 1, 0])) == pytest.approx(625 / 405)


def test_a_group_without_a_pair_does_not_count():
    """Three malignant and three benign groups have pairs; the fold of four more has none."""
    truth = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 1], bool)
    fold, group = np.repeat([0, 1], [6, 4]), np.arange(10)
    score = np.random.default_rng(0).normal(size=10)
    _, freedom = covariance_of(truth, (score,), group, fold)
    assert freedom == pytest.approx(2)


def test_the_example_of_109_readings_is_reproduced():
    """Hanley & McNeil 1982, table 1; DeLong's error as in Stata's manual of `roctab`."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    score = np.concatenate([np.repeat(range(1, 6), counts) for counts in (normal, abnormal)])
    truth = np.repeat([False, True], [58, 51])
    covariance, _ = covariance_of(truth, (score,), np.arange(109), None)
    auc, error = roc_auc_score(truth, score), math.sqrt(covariance[0, 0])
    assert (round(auc, 4), round(error, 4)) == (0.8932, 0.0307)
    assert (auc - Z * error, auc + Z * error) == pytest.approx((0.83295, 0.95339), abs=1e-5)


def test_groups_and_folds_are_matched_by_name_and_not_by_row_order():
    truth, first, second, group, fold = two_models(5, mixed=True, folds=3)
    order = np.random.default_rng(0).permutation(len(truth))
    names = np.array([f"patient {g}" for g in group])
    found = covariance_of(truth, (first, second), group, fold)
    other = covariance_of(
        truth[order], (first[order], second[order]), names[order], 7 - fold[order]
    )
    assert other[0] == pytest.approx(found[0]) and other[1] == pytest.approx(found[1])


def test_copies_of_images_add_no_information():
    truth, first, second, group, fold = two_models(6, folds=2)
    found = covariance_of(truth, (first, second), group, fold)
    copies = [np.tile(each, 3) for each in (truth, first, second, group, fold)]
    other = covariance_of(copies[0], copies[1:3], *copies[3:])
    assert other[0] == pytest.approx(found[0]) and other[1] == pytest.approx(found[1])


# --------------------------------------------------------------------- likeness


def intraclass(score, group):
    """ICC(1) of normal scores from statsmodels' table of variance, Donner 1986 for the size."""
    table = pd.DataFrame({"value": normal_scores(score), "group": group})
    anova = anova_lm(ols("value ~ C(group)", table).fit())
    between, within = anova["mean_sq"]
    sizes = table.groupby("group").size()
    size = (len(table) - (sizes**2).sum() / len(table)) / (len(sizes) - 1)
    return (between - within) / (between + (size - 1) * within)


@pytest.mark.parametrize("images", [4, -4], ids=["unequal", "equal"])
@pytest.mark.parametrize("seed", range(4))
def test_likeness_is_the_intraclass_correlation_from_statsmodels(seed, images):
    rows = drawn_rows(seed, images=images, skill=0)
    expected = intraclass(rows["logit"], rows["group"])
    assert 0 < expected < 1
    assert intraclass_correlation(
        rows["logit"].to_numpy(), rows["group"].to_numpy()
    ) == pytest.approx(expected)


def test_likeness_depends_on_the_ranking_only_and_is_between_0_and_1():
    rows = drawn_rows(0)
    score, group = rows["logit"].to_numpy(), rows["group"].to_numpy()
    assert intraclass_correlation(np.exp(3 * score), group) == pytest.approx(
        intraclass_correlation(score, group)
    )
    assert intraclass_correlation(-score, group) == pytest.approx(
        intraclass_correlation(score, group)
    )
    assert intraclass_correlation(np.tile([0.0, 1.0], 6), np.repeat(np.arange(6), 2)) == 0
    assert intraclass_correlation(np.repeat(np.arange(6.0), 2), np.repeat(np.arange(6), 2)) == 1


@pytest.mark.parametrize(
    ("score", "group"),
    [([1.0, 2, 3], [0, 0, 0]), ([1.0, 2, 3], [0, 1, 2]), ([1.0, 1, 1, 1], [0, 0, 1, 1])],
    ids=["one group", "one image per group", "all equal"],
)
def test_an_unknown_likeness_is_taken_as_1(score, group):
    assert intraclass_correlation(np.array(score), np.array(group)) == 1


# ------------------------------------------------------------------------- both


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.92, 0.9999])
def test_both_below_matches_scipys_bivariate_normal(share, correlation):
    assert both_below(share, correlation) == pytest.approx(
        both_slowly(share, correlation), abs=1e-9
    )


def test_both_below_is_exact_at_its_limits():
    assert both_below(0.3, 1.0) == pytest.approx(0.3) and both_below(0.3, 0.0) == pytest.approx(
        0.09
    )
    assert (both_below(0.0, 0.5), both_below(1.0, 0.5)) == (0, 1)
    assert both_below(0.8, np.array([0.0, 1.0])) == pytest.approx([0.64, 0.8])
