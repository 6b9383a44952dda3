"""Tests between models: by hand, by double loops, SciPy and statsmodels, and in drawn studies."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from definitions import auc_slowly, delong_slowly
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from cytology.evaluation.statistics import clusters
from cytology.evaluation.statistics.significance import (
    FAMILY_ALPHA,
    auc_difference,
    compare_pairs,
    corrected_interval,
    delong_p,
    difference_sentence,
    fold_aucs,
    fold_differences,
    holm,
    match_predictions,
    mcnemar_p,
    with_gate,
)
from cytology.settings import InputError
from cytology.wording import p_in_figures

pytestmark = pytest.mark.numeric


def two_models(seed, groups=8, images=3, skill=1.0, second=0.5, mixed=False, folds=0):
    """Predictions of two models on groups of images that are alike; `mixed`: of both classes."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), images)
    truth = rng.random(len(group)) < 0.5 if mixed else group % 2 == 0
    alike = rng.normal(size=groups)[group] + rng.normal(size=len(group))
    found = pd.DataFrame({"label": np.where(truth, "M", "B"), "group": [f"g{g}" for g in group]})
    if folds:
        found["fold"] = group // 2 % folds
    for name, strength in (("first", skill), ("second", second)):
        logit = np.where(truth, strength, -strength) + 0.7 * alike
        found[name] = (logit + 0.7 * rng.normal(size=len(group))).round(2)
        found[f"called_{name}"] = found[name] >= 0
    return found


def model_tables(pairs):
    """The two models' own tables, in different row orders."""
    base = pairs.drop(columns=[name for name in pairs if "first" in name or "second" in name])
    base = base.assign(image_id=[f"i{k:03}" for k in range(len(pairs))], orientation=0)
    tables = [
        base.assign(logit=pairs[name], probability=1 / (1 + np.exp(-pairs[name])))
        for name in ("first", "second")
    ]
    return {"a": tables[0], "b": tables[1].iloc[::-1]}


def p_of(pairs):
    return auc_difference(pairs)["p"]


# ---------------------------------------------------------------------- matching


@pytest.mark.parametrize("folds", [0, 2])
def test_tables_are_matched_by_image_and_not_by_row_order(folds):
    pairs = two_models(0, folds=folds)
    tables = model_tables(pairs)
    found = match_predictions(tables["a"].sample(frac=1, random_state=1), tables["b"])
    pd.testing.assert_frame_equal(found, pairs)


def test_tables_of_groups_are_matched_by_group_and_label():
    rows = pd.DataFrame(
        {"group": list("xxy"), "label": list("BMM"), "probability": [0.1, 0.7, 0.9]}
    )
    found = match_predictions(rows, rows.assign(probability=[0.2, 0.6, 0.4]).iloc[::-1])
    assert found["group"].tolist() == list("xxy") and found["label"].tolist() == list("BMM")
    assert found["second"].tolist() == [0.2, 0.6, 0.4]
    assert found["called_second"].tolist() == [False, True, False]


def test_logits_are_compared_if_both_tables_have_them():
    """Beyond a logit of 37 all probabilities are 1."""
    rows = pd.DataFrame({"group": ["x", "y"], "label": list("BM"), "logit": [40.0, 50.0]})
    rows["probability"] = 1.0
    assert match_predictions(rows, rows)["first"].tolist() == [40, 50]
    assert match_predictions(rows, rows.drop(columns="logit"))["first"].tolist() == [1, 1]


def test_rotated_pictures_are_matched_by_image_and_orientation():
    rows = pd.DataFrame({"image_id": "i", "orientation": [0, 1], "group": "g", "label": "M"})
    found = match_predictions(
        rows.assign(probability=[0.1, 0.2]), rows.assign(probability=[0.3, 0.4]).iloc[::-1]
    )
    assert found[["first", "second"]].to_numpy().tolist() == [[0.1, 0.3], [0.2, 0.4]]


def test_tables_of_different_images_are_refused():
    first, second = model_tables(two_models(0)).values()
    for other in (second.iloc[1:], pd.concat([second, second.iloc[:1]])):
        with pytest.raises(InputError, match="do not have the same images, each once"):
            match_predictions(first, other)
        with pytest.raises(InputError, match="do not have the same images, each once"):
            match_predictions(other, first)


@pytest.mark.parametrize("column", ["label", "group"])
def test_an_image_of_two_labels_or_groups_is_refused(column):
    first, second = model_tables(two_models(0)).values()
    second.loc[5, column] = "M" if column == "label" and second["label"][5] == "B" else "B"
    with pytest.raises(InputError, match="differ in the label or group of an image"):
        match_predictions(first, second)


# --------------------------------------------------------------------- P of a pair

often = settings(max_examples=30, deadline=None, derandomize=True)
drawn_pairs = st.builds(
    two_models,
    st.integers(0, 10**6),
    groups=st.integers(4, 14),
    images=st.integers(1, 4),
    mixed=st.booleans(),
    folds=st.sampled_from([0, 2]),
)


@often
@given(drawn_pairs, st.integers(0, 10**6))
def test_p_does_not_depend_on_row_order_scale_or_which_model_is_first(pairs, seed):
    p = p_of(pairs)
    assert np.isnan(p) or 0 < p <= 1
    scaled = pairs.assign(first=pairs["first"] ** 3, second=pairs["second"] / 9 - 100)
    turned = pairs.rename(columns={"first": "second", "second": "first"})
    for other in (pairs.sample(frac=1, random_state=seed), scaled, turned):
        assert p_of(other) == pytest.approx(p, nan_ok=True)


@often
@given(drawn_pairs)
def test_identical_predictions_have_a_p_value_of_one(pairs):
    p = p_of(pairs.assign(second=pairs["first"]))
    assert p == 1 or np.isnan(p_of(pairs))


def test_copies_within_a_group_do_not_lower_the_p_value():
    pairs = two_models(5, groups=12)
    assert p_of(pd.concat([pairs] * 3, ignore_index=True)) == pytest.approx(p_of(pairs), rel=0.2)


@pytest.mark.parametrize("label", ["B", "M"])
def test_one_class_has_no_p_value(label):
    (row,) = compare_pairs(
        model_tables(two_models(0).assign(label=label)), [("a", "b")]
    ).itertuples()
    assert np.isnan([row.p, row.p_holm, row.difference, row.difference_low]).all()
    assert (
        difference_sentence(row, "A", "B") == "Nothing can be said about A and B: one class only."
    )


@pytest.mark.parametrize("seed", range(3))
def test_cross_validated_rows_have_twice_the_variance(seed, monkeypatch):
    pairs = two_models(seed, groups=24, skill=2.0, second=0.2, folds=3)
    found = auc_difference(pairs)
    monkeypatch.setattr(clusters, "CROSS_VALIDATED", 1.0)
    once = auc_difference(pairs)
    widths = [each["difference_high"] - each["difference_low"] for each in (once, found)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(2))
    assert found["difference"] == once["difference"] and found["p"] > once["p"]


def equal_models(rng, auc=0.85, likeness=(0.5, 0.5), patients=20, images=6):
    """Two models of the same true AUC, alike within patients as `likeness` says."""
    group = np.repeat(np.arange(patients), images)
    truth = group % 2 == 0
    pairs = pd.DataFrame({"label": np.where(truth, "M", "B"), "group": group})
    shared = rng.normal(size=patients), rng.normal(size=len(group))
    for name, alike in zip(("first", "second"), likeness, strict=True):
        own = rng.normal(size=patients), rng.normal(size=len(group))
        of_patient, of_image = (
            np.sqrt([0.5, 0.5]) @ [s, o] for s, o in zip(shared, own, strict=True)
        )
        noise = np.sqrt([alike, 1 - alike]) @ [of_patient[group], of_image]
        pairs[name] = np.sqrt(2) * stats.norm.ppf(auc) * truth + noise
        pairs[f"called_{name}"] = pairs[name] >= 0
    return pairs


@pytest.mark.parametrize("alike", [(0.5, 0.5), (0.9, 0.1)], ids=["alike", "not alike"])
@pytest.mark.parametrize("auc", [0.85, 0.97])
def test_equal_models_are_rarely_called_different(auc, alike):
    """Also where patients make most of the one model's scores, and little of the other's."""
    rng = np.random.default_rng(0)
    found = np.array([p_of(equal_models(rng, auc, alike)) for _ in range(300)])
    assert (found < 0.05).mean() <= 0.07


def test_p_and_interval_agree():
    for seed in range(40):
        found = auc_difference(two_models(seed, groups=12, second=-0.5))
        without_0 = not found["difference_low"] <= 0 <= found["difference_high"]
        assert without_0 == (found["p"] < 0.05)


def test_a_true_difference_is_detected():
    rng, found = np.random.default_rng(1), []
    for _ in range(40):
        pairs = equal_models(rng, patients=40)
        noise = 3 * rng.normal(size=len(pairs))
        found.append(p_of(pairs.assign(second=pairs["second"] + noise)))
    assert (np.array(found) < 0.05).mean() > 0.9


# ------------------------------------------------------------- DeLong and McNemar


@pytest.mark.parametrize("seed", range(3))
def test_delongs_p_value_matches_its_definition(seed):
    pairs = two_models(seed, groups=40, images=1)
    truth, scores = (pairs["label"] == "M").to_numpy(), pairs[["first", "second"]].to_numpy().T
    variance = sum(
        sign * delong_slowly(truth, scores[one], scores[other])
        for sign, one, other in ((1, 0, 0), (1, 1, 1), (-2, 0, 1))
    )
    difference = auc_slowly(truth, scores[1]) - auc_slowly(truth, scores[0])
    expected = 2 * stats.norm.sf(abs(difference) / math.sqrt(variance))
    assert delong_p(pairs) == pytest.approx(expected) and expected < 0.999


@pytest.mark.parametrize("folds", [0, 2])
def test_the_difference_is_between_aucs_within_folds(folds):
    pairs = two_models(2, groups=12, folds=folds)
    truth, fold = (pairs["label"] == "M").to_numpy(), pairs["fold"].to_numpy() if folds else None
    aucs = [auc_slowly(truth, pairs[name].to_numpy(), fold) for name in ("first", "second")]
    found = auc_difference(pairs)
    assert found["difference"] == pytest.approx(aucs[1] - aucs[0])
    assert found["difference_low"] < found["difference"] < found["difference_high"]


def test_models_with_the_same_ranking_have_no_interval_and_a_p_value_of_one():
    pairs = two_models(7)
    pairs["second"] = pairs["first"] ** 3
    found = auc_difference(pairs)
    assert found["difference"] == 0 and math.isnan(found["difference_low"])
    assert delong_p(pairs) == p_of(pairs) == 1


def discordant(first_right, second_right, both=10):
    """Pairs of which the first alone, the second alone, and both are right."""
    counts = [first_right, second_right, both]
    label = np.tile(["B", "M"], sum(counts))[: sum(counts)]
    right = [np.repeat(kind, counts) for kind in ([True, False, True], [False, True, True])]
    found = {"label": label, "group": np.arange(sum(counts))}
    for name, each in zip(("first", "second"), right, strict=True):
        found[f"called_{name}"] = (label == "M") == each
    return pd.DataFrame(found)


@pytest.mark.parametrize(("b", "c"), [(0, 6), (3, 9), (5, 5), (20, 4), (0, 1), (0, 0)])
def test_mcnemars_test_is_the_binomial_test_if_few_pairs_differ(b, c):
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_p(discordant(b, c)) == pytest.approx(expected)


def test_mcnemars_test_is_the_corrected_chi_square_if_many_pairs_differ():
    expected = stats.chi2.sf((abs(30 - 12) - 1) ** 2 / (30 + 12), 1)
    assert mcnemar_p(discordant(30, 12)) == pytest.approx(expected)
    assert expected == pytest.approx(stats.binomtest(12, 42).pvalue, rel=0.15)


# -------------------------------------------------------------------------- Holm


def test_holms_correction_matches_a_hand_calculation():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])


def test_missing_p_values_are_not_counted():
    found = holm([0.02, np.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.04, 0.04]) and np.isnan(found[1])
    assert np.isnan(holm([np.nan])).all() and len(holm([])) == 0


# ------------------------------------------------------------------------- pairs


def test_the_pairwise_table_contains_the_test_results():
    pairs = two_models(8, groups=20)
    tables = model_tables(pairs)
    tables["c"] = tables["a"].assign(logit=np.linspace(-1, 1, len(pairs)))
    asked = [("a", "b"), ("a", "c"), ("c", "b")]
    found = compare_pairs(tables, asked)
    assert list(zip(found["first"], found["second"], strict=True)) == asked
    row = found.iloc[0]
    truth = pairs["label"] == "M"
    assert row["auc_first"] == pytest.approx(roc_auc_score(truth, pairs["first"]))
    assert row["auc_second"] == pytest.approx(roc_auc_score(truth, pairs["second"]))
    assert row["difference"] == pytest.approx(row["auc_second"] - row["auc_first"])
    expected = auc_difference(pairs)
    assert {name: row[name] for name in expected} == expected
    assert (row["images"], row["groups"]) == (60, 20)
    assert found["p_holm"].tolist() == pytest.approx(multipletests(found["p"], method="holm")[1])
    assert found[["p_mcnemar", "p_delong"]].isna().all(axis=None)


def test_one_row_per_group_adds_mcnemars_and_delongs_tests():
    pairs = two_models(9, groups=40, images=1)
    (row,) = compare_pairs(model_tables(pairs), [("a", "b")]).itertuples()
    assert (row.p_mcnemar, row.p_delong) == (mcnemar_p(pairs), delong_p(pairs))
    (row,) = compare_pairs(model_tables(two_models(9, 40, 1, folds=2)), [("a", "b")]).itertuples()
    assert np.isnan([row.p_mcnemar, row.p_delong]).all()  # out-of-fold rows are not independent


def test_without_pairs_there_are_no_rows():
    assert compare_pairs({}, []).empty


# -------------------------------------------------------------------------- gate


def pairs_table(*rows):
    """A table of pairs from rows of family, level, P after Holm and lower end of the interval."""
    table = pd.DataFrame(rows, columns=["family", "level", "p_holm", "difference_low"])
    return table.assign(difference=0.1, difference_high=0.2, weights="imagenet")


def separated(*rows):
    return with_gate(pairs_table(*rows))["separated"].tolist()


def test_a_pair_is_separated_by_the_alpha_of_its_family_and_an_interval_without_0():
    networks, baseline = FAMILY_ALPHA["networks"], FAMILY_ALPHA["baseline"]
    assert networks + baseline <= 0.05 and FAMILY_ALPHA["more than one"] <= networks
    assert separated(("networks", "image", networks - 0.001, 0.01)) == [True]
    assert separated(("networks", "image", networks, 0.01)) == [False]
    assert separated(("networks", "image", 0.001, -0.01)) == [False]
    assert separated(("networks", "image", np.nan, 0.01)) == [False]
    assert separated(("networks", "image", 0.001, np.nan)) == [False]
    assert separated(("baseline", "image", baseline, 0.01)) == [False]
    below = pairs_table(("networks", "image", 0.001, -0.3)).assign(
        difference=-0.2, difference_high=-0.1
    )
    assert with_gate(below)["separated"].tolist() == [True]


SURE = (0.001, 0.01)
LATER = [
    ("networks", "patient", *SURE),
    ("more than one", "image", *SURE),
    ("more than one", "patient", *SURE),
]


def test_a_closed_gate_closes_the_other_families_and_levels():
    closed = ("networks", "image", 0.5, -0.1)
    assert separated(closed, closed, *LATER) == [False] * 5
    assert separated(closed, ("networks", "image", *SURE), *LATER) == [False] + [True] * 4
    assert separated(*LATER[1:]) == [True] * 2  # for one network, its averages come first
    assert separated(("more than one", "image", 0.5, -0.1), LATER[2]) == [False, False]
    order = [*LATER, ("networks", "image", *SURE)]
    assert separated(*order) == [True] * 4


def test_random_weights_separate_nothing_and_open_no_gate():
    table = pairs_table(("networks", "image", *SURE), *LATER)
    random = table.assign(weights=["random and imagenet", *["imagenet"] * 3])
    assert with_gate(table)["separated"].all() and not with_gate(random)["separated"].any()


def test_the_baseline_by_image_is_its_own_gate():
    closed = ("networks", "image", 0.5, -0.1)
    image, patient = ("baseline", "image", *SURE), ("baseline", "patient", *SURE)
    assert separated(closed, image, patient) == [False, True, True]
    assert separated(("networks", "image", *SURE), ("baseline", "image", 0.2, 0.01), patient) == [
        True,
        False,
        False,
    ]


def test_an_open_gate_does_not_separate_unproven_pairs():
    gate = ("networks", "image", *SURE)
    assert separated(gate, ("networks", "patient", 0.2, 0.01)) == [True, False]


# ------------------------------------------------------------------------- words

ROW = {"difference": 0.1, "difference_low": 0.02, "difference_high": 0.18, "p_holm": 0.01}
ROW |= {"separated": True}


def sentence(**changed):
    return difference_sentence(SimpleNamespace(**(ROW | changed)), "A", "B")


def test_a_separated_difference_is_reported():
    assert sentence() == (
        "B separates the classes better than A: AUC higher by 0.100 "
        "(95 %, for this pair alone, 0.020 to 0.180; P = 0.01 after Holm)."
    )


def test_the_better_model_comes_first_and_the_interval_is_reversed_with_it():
    said = sentence(difference=-0.1, difference_low=-0.18, difference_high=-0.02)
    assert said.startswith("A separates the classes better than B: AUC higher by 0.100 (95 %,")


def test_a_difference_that_is_not_separated_is_not_claimed():
    said = sentence(separated=False, difference_low=-0.02)
    assert said == (
        "The data do not separate A from B: the AUC of B is higher by 0.100 "
        "(95 %, for this pair alone, -0.020 to 0.180; P = 0.01 after Holm)."
    )
    assert "better" not in said


def test_without_an_interval_the_reason_is_reported():
    said = sentence(separated=False, difference_low=np.nan, difference_high=np.nan, p_holm=np.nan)
    assert "no interval: groups too few or too alike" in said and "P = not known" in said


def test_a_difference_that_rounds_to_zero_is_called_equal():
    said = sentence(separated=False, difference=0.0004)
    assert said.startswith("The data do not separate A from B: their AUCs are equal to three dec")


def test_a_p_value_is_never_reported_as_zero():
    assert p_in_figures(0.0314) == "0.031" and p_in_figures(0.0004) == "below 0.001"
    assert p_in_figures(np.nan) == "not known"


# ------------------------------------------------------------------------- folds


def test_the_interval_of_nadeau_and_bengio_matches_its_formula():
    """Mean 0.02, variance 0.001 / 4; t of 4 degrees of freedom is 2.7764."""
    mean, low, high = corrected_interval([0.01, 0.03, 0.02, 0.04, 0.00], 1 / 4)
    half = 2.776445 * math.sqrt((1 / 5 + 1 / 4) * 0.00025)
    assert (mean, low, high) == pytest.approx((0.02, 0.02 - half, 0.02 + half))


def test_without_overlapping_training_parts_it_is_students_interval():
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


def test_the_auc_of_each_fold_and_seed_matches_scikit_learn():
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
