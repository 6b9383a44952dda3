"""Intervals: their ends solve the equation of their test, and a worse result has a lower bound."""

import math

import numpy as np
import pandas as pd
import pytest
from definitions import (
    arrays_of,
    auc_slowly,
    binormal_by_parts,
    binormal_slowly,
    drawn_rows,
    effective_groups_slowly,
    obuchowski_slowly,
    share_variance_slowly,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from sklearn.metrics import precision_recall_curve, roc_curve
from statsmodels.stats.proportion import proportion_confint

from cytology.evaluation.statistics import bootstrap, clusters
from cytology.evaluation.statistics.bootstrap import (
    curve_bands,
    group_intervals,
    group_weights,
    percentile_interval,
)
from cytology.evaluation.statistics.clusters import binormal_variance, intraclass_correlation
from cytology.evaluation.statistics.intervals import (
    auc_interval,
    gain_error,
    mean_interval,
    metrics_with_intervals,
    of_two_shares,
    score_interval,
    share_interval,
    t_interval,
    t_quantile,
)
from cytology.evaluation.statistics.metrics import (
    METRICS,
    OF_TWO_SHARES,
    auc_within_folds,
    classification_metrics,
)

pytestmark = pytest.mark.numeric

WITHOUT = {"average_precision", "loss", "brier", "ece", "ace"}  # metrics that have no interval
often = settings(max_examples=30, deadline=None, derandomize=True)
draws_of_rows = st.builds(
    drawn_rows,
    st.integers(0, 10**6),
    groups=st.integers(4, 20),
    images=st.integers(1, 8),
    mixed=st.booleans(),
    folds=st.sampled_from([0, 0, 3]),
    skill=st.sampled_from([0.0, 0.5, 1.5, 3.0, 8.0]),
)


def rows_of(labels, probabilities, groups=None):
    groups = range(len(labels)) if groups is None else groups
    return pd.DataFrame({"label": list(labels), "probability": probabilities, "group": groups})


def bounds_of_gain(rows, before, after):
    gain, error, freedom = gain_error(rows, before, after)
    return t_interval(gain, error**2, freedom)


def without_interval(bounds):
    return all(map(math.isnan, bounds))


# ------------------------------------------------------------------ a score test


@pytest.mark.parametrize("found", [0.0, 0.03, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("freedom", [3, 11, 10**6])
def test_the_ends_of_a_score_interval_match_a_grid_search(found, freedom):
    """Newcombe 2006, method 5, as an example: 8 malignant and 12 benign cases."""

    def variance(x):
        spread = 1 + 9 * (1 - x) / (2 - x) + 9 * x / (1 + x)
        return x * (1 - x) * spread / (8 * 12)

    x = np.linspace(0, 1, 200_001)
    held = np.abs(found - x) <= stats.t.ppf(0.975, freedom) * np.sqrt(variance(x))
    if found not in (0, 1):  # where the variance is zero the end itself is held alone
        held &= (x > 0) & (x < 1)
    middle = np.flatnonzero(held)
    expected = (x[middle.min()], x[middle.max()])
    assert score_interval(found, variance, freedom) == pytest.approx(expected, abs=2e-5)


def test_with_the_variance_of_a_share_it_is_the_wilson_interval_of_statsmodels():
    for hits in range(13):
        low, high = score_interval(hits / 12, lambda x: x * (1 - x) / 12, 1e9)
        expected = proportion_confint(hits, 12, method="wilson")
        assert (low, high) == pytest.approx(expected, abs=1e-6)


@often
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 40), st.integers(1, 60))
def test_with_the_same_variance_a_lower_estimate_has_lower_bounds(one, other, freedom, worth):
    low, high = sorted([one, other])

    def variance(x):
        return x * (1 - x) / worth

    bounds = score_interval(low, variance, freedom), score_interval(high, variance, freedom)
    assert bounds[0][0] <= bounds[1][0] + 1e-9 and bounds[0][1] <= bounds[1][1] + 1e-9


# -------------------------------------------------------------- interval of AUC


def alike_of(rows):
    truth, score, group, _ = arrays_of(rows)
    return [intraclass_correlation(score[which], group[which]) for which in (truth, ~truth)]


@pytest.mark.parametrize("auc", [0.5, 0.8, 0.97, 0.999])
def test_with_one_image_per_group_the_binormal_variance_is_exact(auc):
    """Over two folds of unequal size, against all pairs of pairs."""
    truth = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0], bool)
    fold, group = np.repeat([0, 1], [5, 6]), np.arange(11)
    score = np.random.default_rng(0).normal(size=11)
    found = binormal_variance(truth, score, group, fold)(auc).sum()
    expected = binormal_slowly(auc, truth, group, (1.0, 1.0), fold)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize("auc", [0.6, 0.9, 0.99])
def test_the_binormal_variance_of_groups_is_the_sum_over_all_pairs_of_pairs(auc, folds):
    rows = drawn_rows(3, groups=10, images=4, folds=folds)
    truth, score, group, fold = arrays_of(rows)
    alike = alike_of(rows)
    assert all(0 < each < 1 for each in alike)
    whole = np.zeros(len(rows), int) if fold is None else fold
    found = binormal_variance(truth, score, group, whole)(auc).sum()
    expected = binormal_by_parts(auc, truth, group, alike, fold).sum()
    assert found == pytest.approx(expected, rel=1e-5)
    # The parts only add up nearly to the exact chances, and rather to too much than to too little.
    assert 0.97 < found / binormal_slowly(auc, truth, group, alike, fold) < 1.25


@pytest.mark.parametrize("auc", [0.8, 0.95])
@pytest.mark.parametrize("alike", [0.3, 0.8])
def test_the_binormal_variance_matches_simulated_studies(alike, auc, monkeypatch):
    rng, group = np.random.default_rng(0), np.repeat(np.arange(16), [1, 2, 3, 6] * 4)
    truth = group < 8
    monkeypatch.setattr(clusters, "intraclass_correlation", lambda score, group: alike)
    expected = binormal_variance(truth, truth, group, np.zeros(len(group), int))(auc).sum()
    noise = math.sqrt(alike) * rng.normal(size=(4000, 16))[:, group]
    noise += math.sqrt(1 - alike) * rng.normal(size=(4000, len(group)))
    scores = noise + math.sqrt(2) * stats.norm.ppf(auc) * truth
    aucs = (scores[:, truth, None] > scores[:, None, ~truth]).mean(axis=(1, 2))
    assert aucs.mean() == pytest.approx(auc, abs=0.01)
    assert aucs.var() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize(("seed", "skill"), [(0, 0.3), (1, 1.5), (2, 5.0)])
def test_the_ends_of_the_auc_interval_use_their_own_standard_errors(seed, skill, folds):
    rows = drawn_rows(seed, groups=12, images=-2, folds=folds, skill=skill)
    truth, score, group, fold = arrays_of(rows)
    auc, ends = auc_slowly(truth, score, fold), auc_interval(rows)
    edge = 1 / (2 * rows["group"].nunique())
    inside = min(max(auc, edge), 1 - edge)
    parts = binormal_by_parts(inside, truth, group, alike_of(rows), fold)
    degrees = effective_groups_slowly(truth, group, fold) - 1
    freedom = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / degrees[0] + parts[1] ** 2 / degrees[1])
    for end in ends:
        modelled = binormal_by_parts(end, truth, group, alike_of(rows), fold).sum()
        if parts.sum() > modelled:
            modelled = (2 * modelled + parts.sum()) / 3
        reach = stats.t.ppf(0.975, freedom) * math.sqrt(modelled * (2 if folds else 1))
        if 0 < end < 1:
            assert abs(auc - end) == pytest.approx(reach, rel=1e-5)
        else:
            assert abs(auc - end) <= reach or end == auc
    assert ends[0] > 0 or ends[1] < 1


@often
@given(draws_of_rows)
def test_the_auc_interval_contains_the_auc_and_is_within_0_and_1(rows):
    low, high = auc_interval(rows)
    auc = auc_within_folds(rows)
    assert np.isnan([low, high]).all() or 0 <= low <= auc + 1e-8 and auc - 1e-8 <= high <= 1


@often
@given(draws_of_rows, st.integers(0, 10**6))
def test_row_order_and_scale_do_not_change_the_auc_interval(rows, seed):
    expected = auc_interval(rows)
    other = rows.sample(frac=1, random_state=seed)
    assert auc_interval(other) == pytest.approx(expected, abs=1e-8, nan_ok=True)
    cubed = rows.assign(logit=rows["logit"] ** 3 / 7 + rows["logit"])
    assert auc_interval(cubed) == pytest.approx(expected, abs=1e-8, nan_ok=True)


@often
@given(draws_of_rows)
def test_the_interval_is_mirrored_when_the_classes_are_swapped(rows):
    low, high = auc_interval(rows)
    mirrored = auc_interval(rows.assign(label=rows["label"].map({"B": "M", "M": "B"})))
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-7, nan_ok=True)


def test_copies_within_a_group_do_not_narrow_the_interval():
    rows = drawn_rows(3)
    low, high = auc_interval(rows)
    copied, naive = pd.concat([rows] * 4), pd.concat([rows] * 4).assign(group=range(4 * len(rows)))
    widths = [np.diff(auc_interval(each)).item() for each in (copied, naive)]
    assert widths[0] > 0.9 * (high - low) and widths[1] < 0.6 * (high - low)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [("MMMM", "abcd"), ("BBBB", "abcd"), ("MMBB", "aabc"), ("MBMB", "aaaa")],
    ids=["no B", "no M", "M in one group", "one group"],
)
def test_a_class_with_fewer_than_two_groups_has_no_interval(labels, groups):
    rows = rows_of(labels, [0.1, 0.7, 0.6, 0.3], list(groups))
    assert without_interval(auc_interval(rows))
    assert without_interval(bounds_of_gain(rows, rows["probability"], np.arange(4.0)))


def test_folds_of_one_class_have_no_interval():
    rows = drawn_rows(0, folds=2)
    assert without_interval(auc_interval(rows.assign(fold=(rows["label"] == "M").astype(int))))


# ------------------------------------------------- no jump: worse is never better


def patients_of(seed, patients=24, images=6):
    """Scores of patients of either class, all malignant images above all benign ones."""
    rng, group = np.random.default_rng(seed), np.repeat(np.arange(patients), images)
    truth = group % 2 == 0
    alike = rng.normal(size=patients)[group] + rng.normal(size=len(group))
    order = np.lexsort([alike, truth])  # all benign ones first
    return truth[order], group[order]


def ranked(truth, group):
    """Rows whose probabilities rise in the order given."""
    return rows_of(
        np.where(truth, "M", "B"), np.arange(1, len(truth) + 1) / (len(truth) + 1), group
    )


@pytest.mark.parametrize("patients", [8, 24])
@pytest.mark.parametrize("seed", range(3))
def test_from_perfect_ranking_each_swapped_pair_lowers_the_auc_interval(seed, patients):
    truth, group = patients_of(seed, patients)
    rng, found, step = np.random.default_rng(seed), [], 1 / (truth.sum() * (~truth).sum())
    for _ in range(30):
        rows = ranked(truth, group)
        found.append((auc_within_folds(rows), *auc_interval(rows)))
        k = rng.choice(np.flatnonzero(~truth[:-1] & truth[1:]))  # neighbours in order: swap them
        truth[[k, k + 1]], group[[k, k + 1]] = truth[[k + 1, k]], group[[k + 1, k]]
    found = np.array(found)
    assert found[0, 0] == pytest.approx(1) and found[0, 2] == 1
    assert np.diff(found[:, 0]) == pytest.approx(np.full(29, -step))
    falls = -np.diff(found[:, 1])
    assert (falls >= 0).all() and falls.max() < 30 * step


@often
@given(draws_of_rows, st.integers(0, 10**6))
def test_one_more_swapped_pair_lowers_any_auc_interval(rows, seed):
    rows = rows.sort_values("logit", ignore_index=True)
    truth, score, _, _ = arrays_of(rows)
    before = np.flatnonzero(~truth[:-1] & truth[1:] & (np.diff(score) > 0))
    if len(before):
        k = np.random.default_rng(seed).choice(before)
        swapped = rows.assign(logit=score)
        swapped.loc[[k, k + 1], "logit"] = score[[k + 1, k]]
        found, worse = np.array([auc_interval(rows), auc_interval(swapped)])
        assert np.isnan(found).all() or (worse <= found + 1e-8).all()


def test_a_perfect_ranking_of_few_patients_has_a_wide_interval():
    """12 of 12 in order have a one-sided 97.5 % bound of 0.025 ** (1 / 12) = 0.735."""
    low, high = auc_interval(ranked(*patients_of(0)))
    assert high == 1 and 0.7 < low < 0.95
    few, _ = auc_interval(ranked(*patients_of(0, patients=8)))
    assert few < low


# ------------------------------------------------------------ interval of a share


@pytest.mark.parametrize("hits", range(0, 13, 2))
def test_with_one_image_per_group_a_share_has_the_wilson_interval_of_statsmodels(hits):
    """With a t quantile."""
    found = share_interval(np.arange(12) < hits, np.arange(12))
    level = 2 * stats.norm.sf(stats.t.ppf(0.975, 11))
    assert found == pytest.approx(proportion_confint(hits, 12, level, method="wilson"), abs=1e-8)


@pytest.mark.parametrize("inflation", [1.0, 2.0])
@pytest.mark.parametrize(("seed", "limit"), [(0, -3.0), (1, -1.5), (2, 0.0), (3, 1.5)])
def test_the_ends_of_a_share_interval_use_their_own_standard_errors(seed, limit, inflation):
    rows = drawn_rows(seed, groups=9, images=-4, skill=0)
    score, group = rows["logit"].to_numpy(), rows["group"].to_numpy()
    hits = score > limit
    share = hits.mean()
    ends = share_interval(hits, group, score, inflation)
    for end in ends:
        modelled = share_variance_slowly(
            end, group, intraclass_correlation(score, group), hits.mean()
        )
        reach = stats.t.ppf(0.975, 8) * math.sqrt(inflation * modelled)
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(reach, rel=1e-5)
    assert ends[0] > 0 or ends[1] < 1


@pytest.mark.parametrize("images", [1, 5])
def test_without_scores_the_images_of_a_group_count_as_one(images):
    """All hit in 10 groups: Wilson's bound of 10 of 10, however many images."""
    found = share_interval(np.ones(10 * images), np.repeat(np.arange(10), images))
    reach = stats.t.ppf(0.975, 9)
    assert found == pytest.approx((10 / (10 + reach**2), 1))


@often
@given(st.integers(0, 10**6), st.integers(4, 24), st.integers(1, 8), st.booleans())
def test_each_further_miss_lowers_a_share(seed, groups, images, scored):
    """The threshold rises from image to image, until all are missed."""
    rows = drawn_rows(seed, groups=groups, images=images, skill=0)
    group, score = rows["group"].to_numpy(), rows["logit"].to_numpy()
    limits = [*np.sort(score), np.inf]
    bounds = [share_interval(score >= k, group, score if scored else None) for k in limits]
    assert (np.diff(bounds, axis=0) <= 1e-8).all()


@often
@given(draws_of_rows, st.floats(-3, 3))
def test_the_interval_of_a_share_contains_it_and_is_within_0_and_1(rows, limit):
    score, group = rows["logit"].to_numpy(), rows["group"].to_numpy()
    hits = score >= limit
    for inflation in (1.0, 2.0):
        low, high = share_interval(hits, group, score, inflation)
        assert 0 <= low <= hits.mean() + 1e-8 and hits.mean() - 1e-8 <= high <= 1
    mirrored = share_interval(~hits, group, score, inflation)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-7)


def test_one_group_has_no_interval_of_its_share():
    assert without_interval(share_interval([1, 0, 1], np.zeros(3)))


# -------------------------------------------------------------- of two shares


@pytest.mark.parametrize("malignant", [0.2, 0.5])
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_the_interval_of_a_weighted_sum_is_zou_and_donners(name, malignant):
    """L = m - sqrt(sum of (weight x distance to the lower bound)^2), U likewise."""
    found, bounds = [0.9, 0.7], [(0.7, 0.97), (0.6, 0.85)]
    weights = [malignant, 1 - malignant] if name == "accuracy" else [0.5, 0.5]
    middle = np.dot(weights, found)
    reach = [
        math.hypot(
            *(w * (bound[side] - x) for w, x, bound in zip(weights, found, bounds, strict=True))
        )
        for side in (0, 1)
    ]
    low, high = of_two_shares(OF_TWO_SHARES[name], malignant, found, bounds)
    # On a quarter of an ellipse in 64 steps the furthest point is missed by 1 - cos(pi / 256).
    assert (middle - low, high - middle) == pytest.approx(reach, rel=1e-4)


@often
@given(
    *[st.tuples(*[st.floats(0, 1)] * 3).map(sorted)] * 2,
    st.floats(0.05, 0.95),
    st.sampled_from(sorted(OF_TWO_SHARES)),
)
def test_the_interval_of_two_shares_contains_the_estimate_and_keeps_the_range(
    one, other, malignant, name
):
    metric = OF_TWO_SHARES[name]
    middle = float(metric(one[1], other[1], malignant))
    low, high = of_two_shares(
        metric, malignant, [one[1], other[1]], [(one[0], one[2]), (other[0], other[2])]
    )
    if not np.isnan([low, middle, high]).any():
        assert low <= middle + 1e-9 and middle - 1e-9 <= high
        assert (-1 if name == "mcc" else 0) - 1e-9 <= low and high <= 1 + 1e-9


# --------------------------------------------------------------------- differences


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize("seed", range(2))
def test_the_error_of_a_gain_assumes_equal_aucs_with_the_observed_correlation(seed, folds):
    rows = drawn_rows(seed, groups=12, images=3, folds=folds)
    truth, before, group, fold = arrays_of(rows)
    scores = [before, before + np.random.default_rng(seed).normal(size=len(rows))]
    equal = np.mean([auc_slowly(truth, score, fold) for score in scores])
    alike = [
        [intraclass_correlation(score[c], group[c]) for c in (truth, ~truth)] for score in scores
    ]
    errors = [math.sqrt(binormal_by_parts(equal, truth, group, each, fold).sum()) for each in alike]
    observed = [
        [obuchowski_slowly(truth, one, other, group, fold) for one in scores] for other in scores
    ]
    correlation = observed[0][1] / math.sqrt(observed[0][0] * observed[1][1])
    variance = errors[0] ** 2 + errors[1] ** 2 - 2 * correlation * errors[0] * errors[1]
    _, error, freedom = gain_error(rows, *scores)
    assert error == pytest.approx(math.sqrt(variance * (2 if folds else 1)), rel=1e-4)
    low, high = bounds_of_gain(rows, *scores)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * error)


@pytest.mark.parametrize("alike", [0.3, 0.8])
def test_the_error_of_a_gain_matches_the_spread_over_simulated_studies(alike):
    rng, group, gains = np.random.default_rng(0), np.repeat(np.arange(30), 4), []
    rows = pd.DataFrame({"label": np.where(group < 15, "M", "B"), "group": group})
    errors = []
    for _ in range(300):
        noise = math.sqrt(alike) * rng.normal(size=(3, 30))[:, group]
        noise += math.sqrt(1 - alike) * rng.normal(size=(3, 120))
        before, after = 1.8 * (group < 15) + (noise[0] + noise[1:]) / math.sqrt(2)
        gain, error, _ = gain_error(rows, before, after)
        gains.append(gain)
        errors.append(error)
    assert np.mean(gains) == pytest.approx(0, abs=4 * np.std(gains) / math.sqrt(300))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(gains), rel=0.15)


# --------------------------------------------------------------------------- means


def test_the_mean_of_equal_groups_has_students_interval_of_group_means():
    rng, group = np.random.default_rng(0), np.repeat(np.arange(7), 4)
    values = rng.normal(size=7)[group] + rng.normal(size=28)
    means = values.reshape(7, 4).mean(axis=1)
    expected = stats.ttest_1samp(means, 0).confidence_interval()
    assert mean_interval(values, group) == pytest.approx(tuple(expected))
    order = rng.permutation(28)
    assert mean_interval(values[order], group[order]) == pytest.approx(tuple(expected))
    low, high = mean_interval(values, group, inflation=2.0)
    assert high - low == pytest.approx(math.sqrt(2) * (expected.high - expected.low))


def test_the_degrees_of_freedom_of_unequal_groups_use_the_effective_number_of_groups():
    """12 images of one group and 3 of each of five: worth 27**2 / 189 = 3.86 groups, not 6."""
    values, group = np.random.default_rng(1).normal(size=27), np.repeat(np.arange(9), 3)
    group[group < 4] = 0
    sums = pd.Series(values - values.mean()).groupby(group).sum() / 27
    shares = pd.Series(group).value_counts(normalize=True)
    half = stats.t.ppf(0.975, 27**2 / 189 - 1) * math.sqrt((sums**2 / (1 - shares)).sum())
    expected = values.mean() - half, values.mean() + half
    assert mean_interval(values, group) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.5])
def test_identical_values_give_no_interval(value):
    assert without_interval(mean_interval(np.full(9, value), np.repeat(np.arange(3), 3)))
    assert without_interval(mean_interval([1.0, 2.0], np.zeros(2)))


def test_fewer_than_two_effective_groups_give_no_interval_of_a_difference():
    """60 images of one patient and a single one of another: Student's t with 0.03 degrees."""
    group = np.append(np.zeros(60), 1)
    values = np.random.default_rng(0).normal(size=61)
    assert without_interval(mean_interval(values, group))
    rows = pd.concat([drawn_rows(0).query("label == 'B'"), pd.DataFrame({"group": 100 + group})])
    rows = rows.assign(label=rows["label"].fillna("M"))
    before, after = np.random.default_rng(1).normal(size=(2, len(rows)))
    assert without_interval(bounds_of_gain(rows, before, after))
    assert auc_interval(rows.assign(logit=before)) == (0, 1)
    assert not without_interval(mean_interval([1.0, 2.0], np.arange(2)))


# ----------------------------------------------------- twice the variance over folds


@often
@given(st.integers(0, 10**6), st.integers(6, 20), st.sampled_from([0.0, 1.5, 8.0]))
def test_allowing_for_folds_never_narrows_an_interval(seed, groups, skill):
    rows = drawn_rows(seed, groups, folds=3, skill=skill)
    before = rows["logit"].to_numpy()
    after = before + np.random.default_rng(0).normal(size=len(rows))

    def widths():
        found = metrics_with_intervals(rows, names=("auc", "recall", "f1", "mcc"))
        bounds = [(found[f"{k}_low"], found[f"{k}_high"]) for k in ("auc", "recall", "f1", "mcc")]
        bounds.append(bounds_of_gain(rows, before, after))
        return np.diff(bounds).ravel()

    once = widths()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "CROSS_VALIDATED", 2 * clusters.CROSS_VALIDATED)
        twice = widths()
    known = ~np.isnan(once)
    assert (twice[known] >= once[known] - 1e-8).all()
    assert (np.isnan(twice) == np.isnan(once)).all()


# --------------------------------------------------------------------- drawn groups


def test_the_bootstrap_draws_all_groups_with_equal_chance():
    weights = group_weights(drawn_rows(7), draws=4000)
    assert weights.shape == (4000, 20) and (weights.sum(axis=1) == 20).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.08)
    assert weights.var(axis=0) == pytest.approx(np.full(20, 1 - 1 / 20), abs=0.12)


def test_the_bootstrap_draws_half_as_many_groups_of_cross_validated_rows():
    """So that the mean over the drawn groups has twice the variance."""
    once, half = (group_weights(drawn_rows(7, folds=k), draws=8000) for k in (0, 4))
    assert (half.sum(axis=1) == 10).all()
    values = np.random.default_rng(0).normal(size=20)
    spread = [(drawn @ values / drawn.sum(axis=1)).var() for drawn in (once, half)]
    assert spread[1] / spread[0] == pytest.approx(2, rel=0.1)


def test_models_of_the_same_images_share_the_draws_in_any_row_order():
    rows = drawn_rows(8, folds=3)
    other = rows.assign(probability=0.5).sample(frac=1, random_state=0)
    drawn = group_weights(rows, 20)
    np.random.seed(9)
    assert (group_weights(other, 20) == drawn).all()


def test_a_draw_of_groups_includes_all_their_members(monkeypatch):
    rows = drawn_rows(6)

    def mean(weights):
        return {"mean": weights @ rows["probability"].to_numpy() / weights.sum(axis=1)}

    means = []
    for draw in group_weights(rows, draws=50):
        times = rows["group"].map(pd.Series(draw.astype(int)))
        means.append(np.repeat(rows["probability"], times).mean())
    expected = np.quantile(means, [0.025, 0.975])
    assert group_intervals(rows, mean, 50)["mean"] == pytest.approx(expected)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 7 * len(rows))
    assert group_intervals(rows, mean, 50)["mean"] == pytest.approx(expected)


@pytest.mark.parametrize(("benign", "there"), [(4, False), (5, True)])
def test_too_few_groups_of_a_class_give_no_draws(benign, there):
    group = np.repeat(np.arange(15), 2)
    rows = rows_of(np.where(group < benign, "B", "M"), 0.5, group)
    assert np.isnan(group_weights(rows, 10)).any() != there


def test_the_percentile_interval_ignores_missing_draws():
    drawn = np.append(np.arange(101.0), [np.nan] * 10)
    assert percentile_interval(drawn) == pytest.approx((2.5, 97.5))
    assert without_interval(percentile_interval(np.full(3, np.nan)))


# ------------------------------------------------------------------------ curves


def by_scikit_learn(rows, draws, at):
    """ROC and precision-recall curves of each draw, read at `at`."""
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    sensitivity, precision = [], []
    for weights in group_weights(rows, draws)[:, rows["group"]]:
        kept = weights > 0
        drawn = truth[kept], probability[kept]
        given = {"sample_weight": weights[kept], "drop_intermediate": False}
        false, true, _ = roc_curve(*drawn, **given)
        sensitivity.append(np.interp(at, false, true))
        shares, recall, _ = precision_recall_curve(*drawn, **given)
        precision.append(np.interp(at, recall[:-1][::-1], shares[:-1][::-1]))
    return {"sensitivity": sensitivity, "precision": precision}


@pytest.mark.parametrize("name", ["sensitivity", "precision"])
def test_the_bands_match_quantiles_of_scikit_learns_curves(name):
    rows = drawn_rows(11)
    found = curve_bands(rows, draws=60, points=21)
    curves = by_scikit_learn(rows, 60, np.linspace(0, 1, 21))[name]
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    assert found[f"{name}_low"].to_numpy() == pytest.approx(low)
    assert found[f"{name}_high"].to_numpy() == pytest.approx(high)
    assert (found[f"{name}_low"] < found[f"{name}_high"]).sum() > 10


def test_bands_of_cross_validated_rows_are_wider():
    widths = []
    for folds in (0, 5):
        bands = curve_bands(drawn_rows(11, groups=40, folds=folds), draws=300, points=21)
        widths.append((bands["sensitivity_high"] - bands["sensitivity_low"]).mean())
    assert 1.2 < widths[1] / widths[0] < 1.6


def test_too_few_groups_have_no_bands():
    found = curve_bands(rows_of("BM" * 4, 0.5), draws=10, points=5)
    assert found.drop(columns="at").isna().all(axis=None)


# --------------------------------------------------------------------------- all


@pytest.mark.parametrize("folds", [0, 4])
def test_each_metric_has_its_own_kind_of_interval(folds):
    rows = drawn_rows(12, folds=folds)
    found = metrics_with_intervals(rows, threshold=0.4)
    assert (found["images"], found["groups"]) == (len(rows), 20)
    assert (found["groups_malignant"], found["groups_benign"]) == (10, 10)
    expected = classification_metrics(rows, 0.4)
    assert {name: found[name] for name in METRICS} == pytest.approx(expected)
    assert {name for name in METRICS if f"{name}_low" not in found} == WITHOUT
    for name in set(METRICS) - WITHOUT:
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert (found["auc_low"], found["auc_high"]) == auc_interval(rows)
    truth, score, group, _ = arrays_of(rows)
    for name, which in (("recall", truth), ("specificity", ~truth)):
        right = (expit(score[which]) >= 0.4) == truth[which]
        bounds = share_interval(right, group[which], score[which], 2 if folds else 1)
        assert (found[f"{name}_low"], found[f"{name}_high"]) == bounds


def test_a_group_with_both_classes_counts_for_each():
    rows = rows_of("MBMB", [0.9, 0.1, 0.8, 0.3], list("aabc")).assign(images=4)
    found = metrics_with_intervals(rows, names=("auc",))
    assert list(found) == ["auc", "auc_low", "auc_high", "images", "groups"] + [
        "groups_malignant",
        "groups_benign",
    ]
    assert (found["images"], found["groups"]) == (16, 3)
    assert (found["groups_malignant"], found["groups_benign"]) == (2, 2)


@pytest.mark.parametrize("label", ["B", "M"])
def test_one_class_has_only_the_interval_of_its_share(label):
    found = metrics_with_intervals(drawn_rows(13).assign(label=label))
    own, other = ("recall", "specificity") if label == "M" else ("specificity", "recall")
    assert found[f"{own}_low"] < found[own] and np.isnan(found[f"{other}_low"])
    for name in ("auc", *OF_TWO_SHARES):
        assert np.isnan(found[f"{name}_low"])


def test_undefined_metrics_have_no_interval():
    found = metrics_with_intervals(drawn_rows(14), threshold=1.0)
    assert found["recall"] == 0 and found["recall_low"] == 0 < found["recall_high"]
    assert np.isnan([found["precision"], found["precision_low"], found["precision_high"]]).all()


def test_twelve_patients_without_a_mistake_do_not_prove_that_there_are_none():
    rows = drawn_rows(15, groups=24)
    rows["logit"] = rows["logit"].abs().where(rows["label"] == "M", -rows["logit"].abs())
    found = metrics_with_intervals(rows.assign(probability=expit(rows["logit"])))
    for name in ("auc", "recall", "specificity", *OF_TWO_SHARES):
        assert found[name] == pytest.approx(1) and found[f"{name}_high"] == pytest.approx(1)
        assert found[f"{name}_low"] < 0.95


def test_intervals_have_a_level_of_95_percent():
    assert t_quantile(1e9) == pytest.approx(stats.norm.ppf(0.975))
    assert t_quantile(7) == pytest.approx(stats.t.ppf(0.975, 7))
