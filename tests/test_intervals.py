"""Intervals against their papers' formulas written out slowly, against SciPy and statsmodels."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_curve, roc_curve
from statsmodels.stats.proportion import proportion_confint

from cytology import intervals
from cytology.intervals import (
    auc_interval,
    bca_interval,
    bootstrap_intervals,
    clustered_covariance,
    curve_bands,
    group_weights,
    metrics_with_intervals,
    newcombe_interval,
    over_draws,
    percentile_interval,
    placements,
    wilson_intervals,
)
from cytology.metrics import METRICS, auc_from_ranks, classification_metrics, metrics_of_draws

pytestmark = pytest.mark.numeric

Z = 1.959963984540054


def rows_of(labels, probabilities, groups=None):
    groups = range(len(labels)) if groups is None else groups
    return pd.DataFrame({"label": list(labels), "probability": probabilities, "group": groups})


def rows_with_skill(seed, groups=20, images=3, mixed=False):
    """Groups whose images are alike; `mixed`: with images of both classes, and with ties."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rng.integers(1, images + 1, groups))
    truth = rng.random(len(group)) < 0.5 if mixed else group % 2 == 0
    alike = rng.normal(size=groups)[group]
    probability = 1 / (
        1 + np.exp(-np.where(truth, 0.8, -0.8) - alike - rng.normal(size=len(group)))
    )
    return rows_of(np.where(truth, "M", "B"), probability.round(2 if mixed else 9), group)


@pytest.fixture
def many():
    """300 one-image groups, predicted with some skill."""
    return rows_with_skill(1, groups=300, images=1)


# ------------------------------------------------- DeLong and Obuchowski, slowly


def psi(x, y):
    """DeLong et al. 1988: one for a pair in order, a half for a tie."""
    return 1.0 if x > y else 0.5 if x == y else 0.0


def components_slowly(truth, score):
    """V10 of each positive and V01 of each negative, in the order of the rows."""
    positives = [s for s, t in zip(score, truth, strict=True) if t]
    negatives = [s for s, t in zip(score, truth, strict=True) if not t]
    found = []
    for s, t in zip(score, truth, strict=True):
        if t:
            found.append(sum(psi(s, y) for y in negatives) / len(negatives))
        else:
            found.append(sum(psi(x, s) for x in positives) / len(positives))
    return np.array(found)


def delong_slowly(truth, first, second):
    """S10 / m + S01 / n of DeLong et al. 1988, from the double loop over psi."""
    m, n = sum(truth), sum(~truth)
    v = [components_slowly(truth, score) for score in (first, second)]
    area = [sum(each[truth]) / m for each in v]
    s10 = sum((v[0][i] - area[0]) * (v[1][i] - area[1]) for i in np.flatnonzero(truth)) / (m - 1)
    s01 = sum((v[0][j] - area[0]) * (v[1][j] - area[1]) for j in np.flatnonzero(~truth)) / (n - 1)
    return s10 / m + s01 / n


def obuchowski_slowly(truth, first, second, group):
    """S10 / M + S01 / N + S11 / MN + S11' / MN of Obuchowski 1997, cluster by cluster."""
    big_m, big_n = sum(truth), sum(~truth)
    v = [components_slowly(truth, score) for score in (first, second)]
    area = [sum(each[truth]) / big_m for each in v]
    clusters = sorted(set(group))
    i10 = len({g for g, t in zip(group, truth, strict=True) if t})
    i01 = len({g for g, t in zip(group, truth, strict=True) if not t})
    s10 = s01 = s11 = s11_turned = 0.0
    for cluster in clusters:
        sick, well = (group == cluster) & truth, (group == cluster) & ~truth
        of_sick = [sum(v[r][sick]) - sum(sick) * area[r] for r in (0, 1)]
        of_well = [sum(v[r][well]) - sum(well) * area[r] for r in (0, 1)]
        s10 += of_sick[0] * of_sick[1]
        s01 += of_well[0] * of_well[1]
        s11 += of_sick[0] * of_well[1]
        s11_turned += of_well[0] * of_sick[1]
    s10 *= i10 / ((i10 - 1) * big_m)
    s01 *= i01 / ((i01 - 1) * big_n)
    s11, s11_turned = (s * len(clusters) / (len(clusters) - 1) for s in (s11, s11_turned))
    return s10 / big_m + s01 / big_n + (s11 + s11_turned) / (big_m * big_n)


def two_models(seed, mixed=True):
    rows = rows_with_skill(seed, groups=12, images=5, mixed=mixed)
    truth, first = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    second = (first + np.random.default_rng(seed).normal(size=len(rows))).round(1)
    return truth, first, second, rows["group"].to_numpy()


@pytest.mark.parametrize("seed", range(3))
def test_placements_are_delongs_components_also_with_ties(seed):
    truth, first, second, _ = two_models(seed)
    for score in (first, second):
        assert placements(truth, score) == pytest.approx(components_slowly(truth, score))
        assert placements(truth, score)[truth].mean() == pytest.approx(auc_from_ranks(truth, score))


@pytest.mark.parametrize("seed", range(3))
def test_with_one_row_a_group_the_covariance_is_delongs_by_its_definition(seed):
    truth, first, second, _ = two_models(seed)
    components = np.stack([placements(truth, score) for score in (first, second)])
    found, freedom = clustered_covariance(truth, components, np.arange(len(truth)))
    for r, a in enumerate((first, second)):
        for s, b in enumerate((first, second)):
            assert found[r, s] == pytest.approx(delong_slowly(truth, a, b))
    assert freedom == min(truth.sum(), (~truth).sum()) - 1


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed groups", "one class a group"])
@pytest.mark.parametrize("seed", range(3))
def test_the_clustered_covariance_is_obuchowskis(seed, mixed):
    truth, first, second, group = two_models(seed, mixed)
    components = np.stack([placements(truth, score) for score in (first, second)])
    found, freedom = clustered_covariance(truth, components, group)
    for r, a in enumerate((first, second)):
        for s, b in enumerate((first, second)):
            assert found[r, s] == pytest.approx(obuchowski_slowly(truth, a, b, group))
    holds = min(len(set(group[truth])), len(set(group[~truth])))
    assert freedom == holds - 1


def test_the_worked_example_of_109_readings():
    """Hanley & McNeil 1982, table 1; DeLong's error as in Stata's manual of `roctab`."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    score = np.concatenate([np.repeat(range(1, 6), counts) for counts in (normal, abnormal)])
    truth = np.repeat([False, True], [58, 51])
    components = placements(truth, score)
    covariance, _ = clustered_covariance(truth, components[None], np.arange(109))
    auc, error = components[truth].mean(), math.sqrt(covariance[0, 0])
    assert (round(auc, 4), round(error, 4)) == (0.8932, 0.0307)
    assert (auc - Z * error, auc + Z * error) == pytest.approx((0.83295, 0.95339), abs=1e-5)


def test_groups_are_found_by_their_name_and_not_by_the_row_order():
    truth, first, _, group = two_models(5)
    order = np.random.default_rng(0).permutation(len(truth))
    names = np.array([f"patient {g}" for g in group])
    found = clustered_covariance(truth, placements(truth, first)[None], group)
    truth, names = truth[order], names[order]
    other = clustered_covariance(truth, placements(truth, first[order])[None], names)
    assert other[0] == pytest.approx(found[0]) and other[1] == found[1]


# -------------------------------------------------------------- interval of AUC


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_auc_is_on_the_logit_scale_with_a_t_quantile(seed):
    rows = rows_with_skill(seed, mixed=seed == 2)
    truth, score, group = (rows["label"] == "M").to_numpy(), rows["probability"], rows["group"]
    variance = obuchowski_slowly(truth, list(score), list(score), group.to_numpy())
    auc = auc_from_ranks(truth, score.to_numpy())
    fewest = min(group[truth].nunique(), group[~truth].nunique())
    half = stats.t.ppf(0.975, fewest - 1) * math.sqrt(variance) / (auc * (1 - auc))
    middle = math.log(auc / (1 - auc))
    expected = [1 / (1 + math.exp(-x)) for x in (middle - half, middle + half)]
    assert auc_interval(rows) == pytest.approx(tuple(expected))


def test_copies_within_a_group_change_nothing_about_the_auc():
    rows = rows_with_skill(3)
    assert auc_interval(pd.concat([rows] * 4)) == pytest.approx(auc_interval(rows))
    naive = pd.concat([rows] * 4).assign(group=range(4 * len(rows)))
    low, high = auc_interval(rows)
    narrow = auc_interval(naive)
    assert narrow[1] - narrow[0] < 0.5 * (high - low)


def test_the_interval_mirrors_with_the_classes():
    rows = rows_with_skill(4)
    low, high = auc_interval(rows)
    mirrored = auc_interval(rows.assign(label=rows["label"].map({"B": "M", "M": "B"})))
    assert mirrored == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("auc", [0.0, 0.03, 0.5, 0.8, 0.97, 1.0])
@pytest.mark.parametrize(("positives", "negatives"), [(5, 5), (4, 30), (40, 12)])
def test_newcombes_fifth_method_by_a_grid(auc, positives, negatives):
    """The AUCs x with |auc - x| <= z sqrt(variance at x), both sizes replaced by the mean."""
    x = np.linspace(0, 1, 200_001)
    mean = (positives + negatives) / 2 - 1
    spread = 1 + mean * (1 - x) / (2 - x) + mean * x / (1 + x)
    held = np.abs(auc - x) <= Z * np.sqrt(x * (1 - x) * spread / (positives * negatives))
    # At an AUC of 0 or 1 only the end itself is not held where the variance is zero.
    expected = (x[held].min(), x[held].max())
    assert newcombe_interval(auc, positives, negatives) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("seed", range(2))
def test_a_perfect_order_has_newcombes_interval_of_the_groups(seed):
    rows = rows_with_skill(seed)
    rows["probability"] = np.where(rows["label"] == "M", 0.9, 0.1)
    groups = rows.groupby("label")["group"].nunique()
    low, high = auc_interval(rows)
    assert (low, high) == newcombe_interval(1.0, groups["M"], groups["B"])
    assert 0.6 < low < 0.9 and high == 1
    wrong = auc_interval(rows.assign(probability=1 - rows["probability"]))
    assert wrong == pytest.approx((0, 1 - low), abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [("MMMM", "abcd"), ("BBBB", "abcd"), ("MMBB", "aabc"), ("MBMB", "aaaa")],
    ids=["no B", "no M", "M in one group", "one group"],
)
def test_a_class_in_fewer_than_two_groups_leaves_no_interval(labels, groups):
    rows = rows_of(labels, [0.1, 0.7, 0.6, 0.3], list(groups))
    assert all(map(math.isnan, auc_interval(rows)))


# --------------------------------------------------------------------- bootstrap


def test_a_draw_of_groups_joins_their_members():
    rows = rows_with_skill(6, mixed=True)
    weights = group_weights(rows, draws=6, seed=2)
    names = [name for name in METRICS if name not in ("ece", "ace")]
    found = over_draws(rows, weights, lambda w: metrics_of_draws(rows, w, names=names))
    groups = sorted(rows["group"].unique())
    for draw in range(6):
        times = dict(zip(groups, weights[draw].astype(int), strict=True))
        drawn = pd.concat([rows[rows["group"] == g] for g in groups for _ in range(times[g])])
        expected = classification_metrics(drawn)
        got = {name: found[name][draw] for name in names}
        assert got == pytest.approx({name: expected[name] for name in names})


def test_as_many_groups_are_drawn_as_there_are_each_as_often():
    rows = rows_with_skill(7)
    weights = group_weights(rows, draws=4000)
    assert weights.shape == (4000, 20) and (weights.sum(axis=1) == 20).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.08)
    assert weights.var(axis=0) == pytest.approx(np.full(20, 1 - 1 / 20), abs=0.12)


def test_some_draws_at_once_are_the_same_draws(monkeypatch):
    rows = rows_with_skill(8)
    whole = bootstrap_intervals(rows, draws=50)
    monkeypatch.setattr(intervals, "AT_ONCE", 7 * len(rows))
    for name, bounds in bootstrap_intervals(rows, draws=50).items():
        assert bounds == pytest.approx(whole[name], abs=1e-12)  # sums in another order


def test_models_of_the_same_images_meet_the_same_draws_in_any_row_order(many):
    other = many.assign(probability=0.5).sample(frac=1, random_state=0)
    assert (group_weights(many, 20) == group_weights(other, 20)).all()
    first = bootstrap_intervals(many, draws=50)
    np.random.seed(9)
    assert bootstrap_intervals(many, draws=50) == first
    shuffled = bootstrap_intervals(many.sample(frac=1, random_state=0), draws=50)
    for name, bounds in shuffled.items():
        assert bounds == pytest.approx(first[name])
    assert bootstrap_intervals(many, draws=50, seed=1) != first


def test_percentile_intervals_are_scipys_within_chance(many):
    right = (many["probability"] >= 0.5) == (many["label"] == "M")
    errors = ((many["label"] == "M") - many["probability"]) ** 2
    found = bootstrap_intervals(many, draws=4000, names=("accuracy", "brier"))
    for name, values in (("accuracy", right.astype(float)), ("brier", errors)):
        expected = stats.bootstrap(
            (values.to_numpy(),), np.mean, n_resamples=4000, method="percentile", rng=1
        ).confidence_interval
        width = expected.high - expected.low
        assert found[name] == pytest.approx(tuple(expected), abs=0.06 * width)


def test_bca_intervals_are_scipys_within_chance():
    """Few rows and a skewed metric, so that BCa is not the percentile interval."""
    rows = rows_with_skill(9, groups=40, images=1)
    errors = (((rows["label"] == "M") - rows["probability"]) ** 2).to_numpy()
    found = bootstrap_intervals(rows, method="bca", draws=6000, names=("brier",))["brier"]
    expected = stats.bootstrap((errors,), np.mean, n_resamples=6000, method="BCa", rng=1)
    expected = tuple(expected.confidence_interval)
    width = expected[1] - expected[0]
    assert found == pytest.approx(expected, abs=0.06 * width)
    plain = bootstrap_intervals(rows, draws=6000, names=("brier",))["brier"]
    assert abs(plain[1] - expected[1]) > 0.06 * width


@pytest.mark.parametrize("seed", range(3))
def test_bca_of_the_same_draws_is_scipys_exactly(seed):
    rows = rows_with_skill(seed, groups=30, images=1, mixed=True)
    truth, score = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()

    def auc(truth, score):
        return auc_from_ranks(truth.astype(bool), score)

    pair = {"data": (truth, score), "statistic": auc, "paired": True, "vectorized": False}
    drawn = stats.bootstrap(**pair, n_resamples=400, rng=seed)
    expected = stats.bootstrap(**pair, n_resamples=0, bootstrap_result=drawn, method="BCa")
    left_out = [auc(np.delete(truth, i), np.delete(score, i)) for i in range(30)]
    found = bca_interval(drawn.bootstrap_distribution, auc(truth, score), np.array(left_out))
    assert found == pytest.approx(tuple(expected.confidence_interval))
    assert found != pytest.approx(percentile_interval(drawn.bootstrap_distribution), abs=1e-4)


def test_the_bca_of_groups_leaves_out_a_group_at_a_time():
    rows = rows_with_skill(10, mixed=True)
    (found,) = bootstrap_intervals(rows, method="bca", draws=300, names=("loss",)).values()
    left_out = [
        classification_metrics(rows[rows["group"] != g])["loss"] for g in sorted(set(rows["group"]))
    ]
    weights = group_weights(rows, draws=300)[:, rows["group"]]
    drawn = metrics_of_draws(rows, weights, names=("loss",))["loss"]
    loss = classification_metrics(rows)["loss"]
    assert found == pytest.approx(bca_interval(drawn, loss, np.array(left_out)))


def test_draws_on_one_side_of_the_estimate_have_the_percentile_interval():
    drawn = np.linspace(0.5, 0.6, 100)
    assert bca_interval(drawn, 0.4, drawn) == percentile_interval(drawn)
    assert all(map(math.isnan, bca_interval(np.array([np.nan]), 0.4, drawn)))
    assert all(map(math.isnan, bca_interval(drawn, np.nan, drawn)))


def test_the_percentile_interval_leaves_out_draws_without_a_value():
    drawn = np.append(np.arange(101.0), [np.nan] * 10)
    assert percentile_interval(drawn) == pytest.approx((2.5, 97.5))
    assert all(map(math.isnan, percentile_interval(np.full(3, np.nan))))


def test_with_one_image_groups_the_interval_is_the_ordinary_one(many):
    low, high = bootstrap_intervals(many, names=("accuracy",))["accuracy"]
    accuracy = classification_metrics(many)["accuracy"]
    half = Z * math.sqrt(accuracy * (1 - accuracy) / len(many))
    assert (low, high) == pytest.approx((accuracy - half, accuracy + half), abs=0.012)


def test_copies_within_a_group_do_not_make_the_bootstrap_narrower(many):
    copies = pd.concat([many] * 6)
    naive = copies.assign(group=range(len(copies)))

    def widths(rows):
        found = bootstrap_intervals(rows, draws=200, names=("accuracy", "loss"))
        return np.array([high - low for low, high in found.values()])

    assert widths(copies) == pytest.approx(widths(many))
    assert (widths(copies) > 2 * widths(naive)).all()


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize(("benign", "there"), [(4, False), (5, True)])
def test_too_few_groups_of_a_class_leave_no_bootstrap_interval(benign, there, method):
    group = np.repeat(np.arange(15), 2)
    mixed = np.random.default_rng(2).uniform(0.2, 0.8, 30)
    rows = rows_of(np.where(group < benign, "B", "M"), mixed, group)
    found = bootstrap_intervals(rows, method=method, draws=60)
    known = {name for name, bounds in found.items() if not np.isnan(bounds).any()}
    assert known == (set(METRICS) if there else set())


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
def test_the_bands_are_quantiles_of_scikit_learns_curves(name):
    rows = rows_with_skill(11)
    found = curve_bands(rows, draws=60, points=21)
    curves = by_scikit_learn(rows, 60, np.linspace(0, 1, 21))[name]
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    assert found[f"{name}_low"].to_numpy() == pytest.approx(low)
    assert found[f"{name}_high"].to_numpy() == pytest.approx(high)
    assert (found[f"{name}_low"] < found[f"{name}_high"]).sum() > 10


def test_too_few_groups_have_no_bands():
    found = curve_bands(rows_of("BM" * 4, 0.5), draws=10, points=5)
    assert found.drop(columns="at").isna().all(axis=None)


# ------------------------------------------------------------------------ Wilson


def wilson(hits, cases):
    """Wilson 1927: the shares p with |hits / cases - p| <= z sqrt(p (1 - p) / cases)."""
    share = hits / cases
    middle = (share + Z**2 / (2 * cases)) / (1 + Z**2 / cases)
    half = share * (1 - share) / cases + Z**2 / (4 * cases**2)
    half = Z / (1 + Z**2 / cases) * math.sqrt(half)
    return middle - half, middle + half


def test_shares_of_groups_have_wilsons_interval(many):
    truth, called = many["label"] == "M", many["probability"] >= 0.7
    counts = {
        "accuracy": ((truth == called).sum(), len(many)),
        "recall": ((truth & called).sum(), truth.sum()),
        "specificity": ((~truth & ~called).sum(), (~truth).sum()),
        "precision": ((truth & called).sum(), called.sum()),
        "negative_predictive_value": ((~truth & ~called).sum(), (~called).sum()),
    }
    found = wilson_intervals(many, 0.7)
    assert set(found) == set(counts)
    for name, (hits, cases) in counts.items():
        assert found[name] == pytest.approx(wilson(hits, cases))
        assert found[name] == pytest.approx(proportion_confint(hits, cases, method="wilson"))


def test_a_share_of_nothing_has_no_interval():
    found = wilson_intervals(rows_of("BM", [0.1, 0.2]), 0.5)
    assert all(map(math.isnan, found["precision"])) and found["recall"][0] == 0


# --------------------------------------------------------------------------- all


def test_metrics_come_with_the_interval_that_suits_them():
    rows = rows_with_skill(12)
    found = metrics_with_intervals(rows, draws=200)
    assert (found["images"], found["groups"]) == (len(rows), 20)
    assert {name: found[name] for name in METRICS} == pytest.approx(classification_metrics(rows))
    drawn = bootstrap_intervals(rows, draws=200)
    for name in METRICS:
        expected = auc_interval(rows) if name == "auc" else drawn[name]
        assert (found[f"{name}_low"], found[f"{name}_high"]) == expected
        if name not in ("ece", "ace"):  # an error that cannot be negative may miss its own draws
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_one_row_a_group_has_wilsons_for_shares_and_counts_the_images_behind(many):
    found = metrics_with_intervals(many.assign(images=4), threshold=0.6, draws=50)
    assert (found["images"], found["groups"]) == (1200, 300)
    for name, bounds in wilson_intervals(many, 0.6).items():
        assert (found[f"{name}_low"], found[f"{name}_high"]) == bounds
    assert (found["auc_low"], found["auc_high"]) == auc_interval(many)


def test_only_the_wanted_metrics_are_there():
    found = metrics_with_intervals(rows_with_skill(13), draws=20, names=("auc", "loss"))
    assert list(found) == ["auc", "auc_low", "auc_high", "loss", "loss_low", "loss_high"] + [
        "images",
        "groups",
    ]


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_twelve_patients_without_a_mistake_do_not_prove_that_there_are_none(method):
    rows = rows_with_skill(14, groups=24)
    rows["probability"] = np.where(rows["label"] == "M", 0.9, 0.1)
    found = metrics_with_intervals(rows, draws=100, method=method)
    # With 12 patients a true share of 0.75 is right 12 times with probability 0.03.
    for name in ("accuracy", "recall", "specificity", "precision", "negative_predictive_value"):
        assert found[name] == 1 and found[f"{name}_low"] < 0.9
