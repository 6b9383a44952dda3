"""Tests between models: every swap enumerated, SciPy's and statsmodels' tests, sums by hand."""

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from cytology.settings import InputError
from cytology.significance import (
    auc_difference,
    corrected_interval,
    delong_p,
    fold_aucs,
    fold_differences,
    group_swap_p,
    holm,
    in_figures,
    in_words,
    matched,
    mcnemar_p,
    pairwise,
)

pytestmark = pytest.mark.numeric


def pairs_of(seed, groups=8, images=3, skill=1.0, second=0.5, mixed=False):
    """Predictions of two models on groups of images that are alike; `mixed`: of both classes."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), images)
    truth = rng.random(len(group)) < 0.5 if mixed else group % 2 == 0
    alike = rng.normal(size=groups)[group] + rng.normal(size=len(group))
    found = {"label": np.where(truth, "M", "B"), "group": [f"g{g}" for g in group]}
    for name, strength in (("first", skill), ("second", second)):
        logit = np.where(truth, strength, -strength) + 0.7 * alike
        logit += 0.7 * rng.normal(size=len(group))
        found[name] = (1 / (1 + np.exp(-logit))).round(2)
    return pd.DataFrame(found)


def model_tables(pairs):
    """The two models' own tables, in different row orders."""
    base = pairs[["label", "group"]].assign(image_id=[f"i{k:03}" for k in range(len(pairs))])
    base["orientation"] = 0
    first = base.assign(probability=pairs["first"])
    return {"a": first, "b": base.assign(probability=pairs["second"]).iloc[::-1]}


# ---------------------------------------------------------------------- matching


def test_tables_are_matched_by_image_and_not_by_row_order():
    tables = model_tables(pairs_of(0))
    found = matched(tables["a"].sample(frac=1, random_state=1), tables["b"])
    expected = pairs_of(0)[["label", "first", "second", "group"]]
    pd.testing.assert_frame_equal(found, expected)


def test_tables_of_groups_are_matched_by_group():
    rows = pd.DataFrame({"group": ["x", "y"], "label": ["B", "M"], "probability": [0.1, 0.9]})
    found = matched(rows, rows.assign(probability=[0.2, 0.8]).iloc[::-1])
    assert found["group"].tolist() == ["x", "y"] and found["second"].tolist() == [0.2, 0.8]


def test_turned_pictures_are_matched_by_image_and_orientation():
    rows = pd.DataFrame({"image_id": "i", "orientation": [0, 1], "group": "g", "label": "M"})
    found = matched(
        rows.assign(probability=[0.1, 0.2]), rows.assign(probability=[0.3, 0.4]).iloc[::-1]
    )
    assert found[["first", "second"]].to_numpy().tolist() == [[0.1, 0.3], [0.2, 0.4]]


def test_tables_of_different_images_are_refused():
    first, second = model_tables(pairs_of(0)).values()
    for other in (second.iloc[1:], pd.concat([second, second.iloc[:1]])):
        with pytest.raises(InputError, match="do not hold the same images, each once"):
            matched(first, other)
        with pytest.raises(InputError, match="do not hold the same images, each once"):
            matched(other, first)


# ------------------------------------------------------------------- group swaps


def p_of_all_swaps(pairs):
    """Share of the 2 ** groups exchanges whose AUCs differ as much as those observed."""
    truth = pairs["label"] == "M"
    ranks = [stats.rankdata(pairs[name]) for name in ("first", "second")]
    observed = abs(roc_auc_score(truth, ranks[0]) - roc_auc_score(truth, ranks[1]))
    groups, extreme = pairs["group"].unique(), []
    for swap in product([False, True], repeat=len(groups)):
        swapped = pairs["group"].map(dict(zip(groups, swap, strict=True)))
        aucs = [
            roc_auc_score(truth, np.where(swapped, ranks[1 - model], ranks[model]))
            for model in (0, 1)
        ]
        extreme.append(abs(aucs[0] - aucs[1]) >= observed - 1e-9)
    return np.mean(extreme)


@pytest.mark.parametrize(
    ("seed", "mixed", "second"), [(1, False, 0.5), (2, True, 0.0), (3, False, -1.0)]
)
def test_group_swaps_come_near_to_all_swaps_enumerated(seed, mixed, second):
    pairs = pairs_of(seed, groups=7, mixed=mixed, second=second)
    expected = p_of_all_swaps(pairs)
    found = group_swap_p(pairs, swaps=8000)
    assert 0.01 < expected < 0.9
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 8000))


def test_the_p_value_counts_the_data_as_one_of_the_exchanges():
    pairs = pairs_of(0, groups=60, skill=3, second=-3)
    assert group_swap_p(pairs, swaps=99) == 1 / 100


def test_the_same_predictions_twice_have_a_p_value_of_one():
    pairs = pairs_of(0)
    assert group_swap_p(pairs.assign(second=pairs["first"]), swaps=50) == 1


def test_the_scale_of_a_model_and_the_order_of_rows_do_not_matter():
    pairs = pairs_of(4)
    p = group_swap_p(pairs, swaps=300)
    assert group_swap_p(pairs.assign(second=pairs["second"] ** 3 / 10), swaps=300) == p
    assert group_swap_p(pairs.sample(frac=1, random_state=0), swaps=300) == p
    turned = pairs.rename(columns={"first": "second", "second": "first"})
    assert group_swap_p(turned, swaps=300) == p
    assert group_swap_p(pairs, swaps=200, seed=1) != group_swap_p(pairs, swaps=200)


def test_whole_groups_are_swapped_so_that_copies_add_nothing():
    pairs = pairs_of(5)
    assert group_swap_p(pd.concat([pairs] * 3), swaps=300) == group_swap_p(pairs, swaps=300)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_one_class_has_no_p_value():
    assert math.isnan(group_swap_p(pairs_of(0).assign(label="M"), swaps=50))


# ------------------------------------------------------------- DeLong and McNemar


def delong_variance_slowly(truth, first, second):
    """Variance of the difference of AUCs: the double loop over psi of DeLong et al. 1988."""

    def psi(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    order = np.array(
        [
            [psi(second[i], second[j]) - psi(first[i], first[j]) for j in negatives]
            for i in positives
        ]
    )
    m, n = order.shape
    of_positives = [sum(order[i]) / n for i in range(m)]
    of_negatives = [sum(order[:, j]) / m for j in range(n)]
    mean = sum(of_positives) / m
    s10 = sum((v - mean) ** 2 for v in of_positives) / (m - 1)
    s01 = sum((v - mean) ** 2 for v in of_negatives) / (n - 1)
    return mean, s10 / m + s01 / n


@pytest.mark.parametrize("seed", range(3))
def test_delongs_p_value_by_its_definition(seed):
    pairs = pairs_of(seed, groups=40, images=1)
    truth = (pairs["label"] == "M").to_numpy()
    difference, variance = delong_variance_slowly(truth, pairs["first"], pairs["second"])
    expected = 2 * stats.norm.sf(abs(difference) / math.sqrt(variance))
    assert delong_p(pairs) == pytest.approx(expected) and expected < 0.999


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_the_difference_is_delongs_with_a_t_quantile(seed):
    pairs = pairs_of(seed, groups=31, images=1)
    truth = (pairs["label"] == "M").to_numpy()
    difference, variance = delong_variance_slowly(truth, pairs["first"], pairs["second"])
    half = stats.t.ppf(0.975, 15 - 1) * math.sqrt(variance)
    expected = {"difference": difference}
    expected |= {"difference_low": difference - half, "difference_high": difference + half}
    assert auc_difference(pairs) == pytest.approx(expected)
    aucs = [roc_auc_score(truth, pairs[name]) for name in ("first", "second")]
    assert difference == pytest.approx(aucs[1] - aucs[0])


def test_the_interval_of_the_difference_counts_groups_and_not_copies():
    pairs = pairs_of(6)
    assert auc_difference(pd.concat([pairs] * 3)) == pytest.approx(auc_difference(pairs))
    naive = auc_difference(pairs.assign(group=range(len(pairs))))
    found = auc_difference(pairs)
    assert found["difference"] == pytest.approx(naive["difference"])
    assert found["difference_high"] != pytest.approx(naive["difference_high"], abs=1e-3)


def test_models_of_the_same_order_have_no_interval_and_a_p_value_of_one():
    pairs = pairs_of(7)
    pairs["second"] = pairs["first"] ** 2
    found = auc_difference(pairs)
    assert found["difference"] == 0 and math.isnan(found["difference_low"])
    assert delong_p(pairs) == 1


def discordant(first_right, second_right, both=10):
    """Pairs of which the first alone, the second alone, and both are right."""
    counts = [first_right, second_right, both]
    label = np.tile(["B", "M"], sum(counts))[: sum(counts)]
    right = [np.repeat(kind, counts) for kind in ([True, False, True], [False, True, True])]
    found = {"label": label, "group": np.arange(sum(counts))}
    for name, each in zip(("first", "second"), right, strict=True):
        found[name] = np.where((label == "M") == each, 0.9, 0.1)
    return pd.DataFrame(found)


@pytest.mark.parametrize(("b", "c"), [(0, 6), (3, 9), (5, 5), (20, 4), (0, 1), (0, 0)])
def test_mcnemars_test_is_the_binomial_test_where_few_differ(b, c):
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_p(discordant(b, c)) == pytest.approx(expected)


def test_mcnemars_test_of_many_is_the_corrected_chi_square():
    expected = stats.chi2.sf((abs(30 - 12) - 1) ** 2 / (30 + 12), 1)
    assert mcnemar_p(discordant(30, 12)) == pytest.approx(expected)
    assert expected == pytest.approx(stats.binomtest(12, 42).pvalue, rel=0.15)


def test_mcnemars_test_judges_at_the_threshold():
    pairs = discordant(0, 6)
    assert mcnemar_p(pairs, threshold=0.5) == pytest.approx(2 / 2**6)
    assert mcnemar_p(pairs, threshold=0.05) == 1  # all are called malignant by both


# -------------------------------------------------------------------------- Holm


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])


def test_what_has_no_p_value_is_not_counted():
    found = holm([0.02, np.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.04, 0.04]) and np.isnan(found[1])
    assert np.isnan(holm([np.nan])).all() and len(holm([])) == 0


# ------------------------------------------------------------------------- pairs


def test_the_pairwise_table_holds_what_the_tests_say():
    pairs = pairs_of(8, groups=20)
    tables = model_tables(pairs)
    tables["c"] = tables["a"].assign(probability=np.linspace(0, 1, len(pairs)))
    asked = [("a", "b"), ("a", "c"), ("c", "b")]
    found = pairwise(tables, asked)
    assert list(zip(found["first"], found["second"], strict=True)) == asked
    row = found.iloc[0]
    truth = pairs["label"] == "M"
    assert row["auc_first"] == pytest.approx(roc_auc_score(truth, pairs["first"]))
    assert row["auc_second"] == pytest.approx(roc_auc_score(truth, pairs["second"]))
    assert row["difference"] == pytest.approx(row["auc_second"] - row["auc_first"])
    assert row["p"] == group_swap_p(pairs) and (row["images"], row["groups"]) == (60, 20)
    assert found["p_holm"].tolist() == pytest.approx(multipletests(found["p"], method="holm")[1])
    assert found[["p_mcnemar", "p_delong"]].isna().all(axis=None)


def test_one_row_a_group_has_mcnemars_and_delongs_tests_too():
    pairs = pairs_of(9, groups=40, images=1)
    (row,) = pairwise(model_tables(pairs), [("a", "b")]).itertuples()
    assert (row.p_mcnemar, row.p_delong) == (mcnemar_p(pairs), delong_p(pairs))


def test_no_pairs_make_no_rows():
    assert pairwise({}, []).empty


ROW = {"difference": 0.1, "difference_low": 0.02, "difference_high": 0.18, "p_holm": 0.01}


def words(**changed):
    return in_words(SimpleNamespace(**(ROW | changed)), "A", "B")


def test_a_difference_that_both_test_and_interval_see_is_told():
    assert words() == (
        "B separates the classes better than A: AUC higher by 0.100 "
        "(95 %, for this pair alone, 0.020 to 0.180; P = 0.01 after Holm)."
    )


def test_the_better_model_comes_first_and_the_interval_turns_with_it():
    said = words(difference=-0.1, difference_low=-0.18, difference_high=-0.02)
    assert said.startswith("A separates the classes better than B: AUC higher by 0.100 (95 %,")


@pytest.mark.parametrize(
    "changed",
    [{"p_holm": 0.05}, {"difference_low": -0.02}, {"p_holm": np.nan}, {"difference_low": np.nan}],
)
def test_where_test_or_interval_is_silent_nothing_is_claimed(changed):
    said = words(**changed)
    assert said.startswith("The data do not separate A from B: the AUC of B is higher by 0.100 (")
    assert "better" not in said
    if "difference_low" in changed and not np.isnan(changed["difference_low"]):
        assert "-0.020 to 0.180" in said


def test_a_p_value_is_never_zero_in_words():
    assert in_figures(0.0314) == "0.031" and in_figures(0.0004) == "below 0.001"
    assert in_figures(np.nan) == "not known"


# ------------------------------------------------------------------------- folds


def test_the_interval_of_nadeau_and_bengio_by_its_formula():
    """Mean 0.02, variance 0.001 / 4; t of 4 degrees of freedom is 2.7764."""
    mean, low, high = corrected_interval([0.01, 0.03, 0.02, 0.04, 0.00], 1 / 4)
    half = 2.776445 * math.sqrt((1 / 5 + 1 / 4) * 0.00025)
    assert (mean, low, high) == pytest.approx((0.02, 0.02 - half, 0.02 + half))


def test_without_overlap_of_the_training_parts_it_is_students_interval():
    values = [0.01, 0.03, -0.02, 0.04]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert corrected_interval([*values, np.nan], 0)[1:] == pytest.approx(tuple(expected))


def test_one_difference_has_no_interval():
    mean, *bounds = corrected_interval([0.1, np.nan], 0.25)
    assert mean == 0.1 and np.isnan(bounds).all()
    assert np.isnan(corrected_interval([], 0.25)).all()


def out_of_fold(seed):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"fold": np.repeat([0, 1, 2], 10), "label": list("BM" * 15)})
    rows = pd.concat([rows.assign(seed=s) for s in (0, 1)], ignore_index=True)
    return rows.assign(logit=rng.normal(size=60))


def test_the_auc_of_each_fold_and_seed_is_scikit_learns():
    table = out_of_fold(0)
    found = fold_aucs({"a": table}).set_index(["seed", "fold"])["auc"]
    for (seed, fold), auc in found.items():
        part = table[(table["seed"] == seed) & (table["fold"] == fold)]
        assert auc == pytest.approx(roc_auc_score(part["label"] == "M", part["logit"]))
    assert len(found) == 6


def test_a_fold_of_one_class_has_no_auc_and_no_difference():
    tables = {"a": out_of_fold(0), "b": out_of_fold(1)}
    for table in tables.values():
        table.loc[table["fold"] == 1, "label"] = "M"
    found = fold_differences(fold_aucs(tables), [("a", "b")])
    assert found["difference"].isna().sum() == 2 and len(found) == 6
    assert found["low"].notna().all()


def test_differences_are_paired_by_fold_and_seed():
    aucs = fold_aucs({"a": out_of_fold(0), "b": out_of_fold(1), "c": out_of_fold(2)})
    found = fold_differences(aucs.sample(frac=1, random_state=0), [("a", "b"), ("c", "a")])
    wide = aucs.set_index(["model", "seed", "fold"])["auc"]
    for row in found.itertuples():
        expected = wide[row.second, row.seed, row.fold] - wide[row.first, row.seed, row.fold]
        assert row.difference == pytest.approx(expected)
    for (first, second), part in found.groupby(["first", "second"]):
        differences = (wide[second] - wide[first]).to_numpy()
        expected = corrected_interval(differences, 1 / 2)  # three folds: one of three is test
        assert part[["mean", "low", "high"]].iloc[0].tolist() == pytest.approx(expected)
