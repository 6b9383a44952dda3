"""The headline, the tables of the comparison, and rows found only by key."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from definitions import arrays_of, auc_slowly, drawn_rows
from scipy.special import expit
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation import comparison as evaluation
from cytology.evaluation.comparison import (
    averaged_predictions,
    baseline_of,
    comparison,
    comparison_all,
    fold_pairs,
    pairs_of_models,
)
from cytology.evaluation.judged import (
    OUT_OF_FOLD,
    TEST,
    classification_report,
    compared_on,
    headline,
    judged_networks,
    orientation_gain,
    unseen_on,
)
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.evaluation.statistics.metrics import (
    METRICS,
    OF_TWO_SHARES,
    classification_metrics,
    equal_groups_auc,
    pooled_auc,
)
from cytology.evaluation.statistics.significance import FAMILY_ALPHA, compare_pairs
from cytology.run import BASELINE, Run
from cytology.settings import InputError


def rows_of(labels, probabilities):
    rows = pd.DataFrame({"label": list(labels), "probability": probabilities})
    return rows.assign(group=range(len(rows)))


def change(run, name, **values):
    run.write(name, run.facts(name) | values)


def keep_only(run, *names):
    """Delete the predictions of all other networks."""
    for name in set(ARCHITECTURE_NAMES) - set(names):
        (run / name / "predictions.csv").unlink()


def predictions(run, name):
    return run.table(f"{name}/predictions.csv")


# -------------------------------------------------------------------- the headline


@pytest.mark.parametrize("groups", [20, 400])
@pytest.mark.parametrize(
    ("fine_tuned", "cross_validated", "expected"),
    [(False, True, OUT_OF_FOLD), (True, True, TEST), (False, False, TEST)],
)
def test_the_headline_is_out_of_fold_or_on_test(groups, fine_tuned, cross_validated, expected):
    table = rows_of("BM" * (groups // 2), 0.5)
    test = table.index < groups // 6
    oof = table[~test].assign(model="oof", split="train")
    val = table[~test][:5].assign(model="final", split="val")
    final = table[test].assign(model="final", split="test")
    predictions = pd.concat([oof, val, final] if cross_validated else [val, final])
    on, rows = headline(predictions, fine_tuned)
    assert on == expected
    wanted = oof if expected == OUT_OF_FOLD else final
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), wanted.reset_index(drop=True))


def test_one_fine_tuned_network_moves_the_comparison_to_test(run):
    assert compared_on(run) == OUT_OF_FOLD
    change(run, "densenet121/metrics.json", fine_tuned=True)
    assert compared_on(run) == TEST
    table = comparison(run)
    assert set(table["judged_on"]) == {TEST}
    assert (table["images"] == (run.table("split.csv")["split"] == "test").sum()).all()


def test_other_checks_use_test_if_no_folds_hold_images_out(run):
    names = ["mobilenetv2", "densenet121"]
    assert unseen_on(run, names) == OUT_OF_FOLD
    change(run, "densenet121/metrics.json", fine_tuned=True)
    assert unseen_on(run, names) == TEST and unseen_on(run, names[:1]) == OUT_OF_FOLD
    for protocol in ("original", "given", "given, leaks"):
        change(run, "split.json", protocol=protocol)
        assert unseen_on(run, names[:1]) == TEST


def test_a_given_split_is_compared_on_its_test_part(run):
    assert compared_on(run) == OUT_OF_FOLD
    change(run, "split.json", protocol="given")
    assert compared_on(run) == TEST
    assert set(comparison(run)["judged_on"]) == {TEST}
    assert set(comparison(run)["protocol"]) == {"given"}


def test_without_predictions_the_error_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="run notebook 04, 05 or 06 first"):
        comparison(Run(tmp_path))


def test_the_report_says_which_images_it_used():
    text = classification_report(rows_of("BBMM", [0.1, 0.6, 0.8, 0.9]), "test")
    assert text.startswith("judged on test: 4 images, 4 groups\n")
    assert "malignant (M)      0.667     1.000     0.800         2" in text
    never = classification_report(rows_of("BBMM", [0.1, 0.1, 0.1, 0.1]), "test")
    assert "malignant (M)          –     0.000     0.000         2" in never


# ---------------------------------------------------------------------- comparison


def test_the_comparison_has_one_row_per_architecture(run):
    table = comparison(run).set_index("architecture")
    assert tuple(table.index) == ARCHITECTURE_NAMES
    assert (table["judged_on"] == "out-of-fold").all()
    for name, row in table.iterrows():
        rows = read_predictions(run, name)
        expected = classification_metrics(rows[rows["model"] == "oof"])
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    shown = ("auc", "recall", "specificity", *OF_TWO_SHARES)
    bounds = {f"{name}_{end}" for name in shown for end in ("low", "high")}
    assert bounds | {"weights", "recipe", "protocol", "groups"} <= set(table)
    assert not {"loss_low", "brier_low", "ece_low", "ace_low", "average_precision_low"} & set(table)


def test_the_pooled_auc_and_the_test_auc_are_shown_with_the_headline(run):
    table = comparison(run).set_index("architecture")
    for name, row in table.iterrows():
        rows = read_predictions(run, name)
        oof, test = rows[rows["model"] == "oof"], final_on_test(rows)
        truth, score, _, fold = arrays_of(oof)
        assert row["auc"] == pytest.approx(auc_slowly(truth, score, fold))
        assert row["auc_pooled"] == pytest.approx(roc_auc_score(truth, score))
        assert row["test_auc"] == pytest.approx(roc_auc_score(test["label"] == "M", test["logit"]))
        assert (row["test_auc_low"], row["test_auc_high"]) == auc_interval(test)
        assert (row["test_images"], row["test_groups"]) == (len(test), test["group"].nunique())
        for label, word in (("M", "malignant"), ("B", "benign")):
            for part, before in ((oof, ""), (test, "test_")):
                expected = part.loc[part["label"] == label, "group"].nunique()
                assert row[f"{before}groups_{word}"] == expected


def test_a_headline_on_test_is_not_shown_twice(run):
    change(run, "densenet121/metrics.json", fine_tuned=True)
    table = comparison(run)
    assert not [name for name in table if name.startswith("test_")]
    assert (table["auc"] == table["auc_pooled"]).all()  # one head, no folds


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_equal_groups_auc_weights_each_group_equally_within_a_class(mixed, folds):
    rows = drawn_rows(0, images=8, mixed=mixed, folds=folds)
    truth, score, group, fold = arrays_of(rows)
    images = [((group == g) & (truth == t)).sum() for g, t in zip(group, truth, strict=True)]
    expected = auc_slowly(truth, score, fold, 1 / np.array(images))
    assert equal_groups_auc(rows) == pytest.approx(expected)
    assert pooled_auc(rows) == pytest.approx(roc_auc_score(truth, score))
    assert expected != pytest.approx(auc_slowly(truth, score, fold), abs=1e-3)


def test_folds_of_one_class_have_only_a_pooled_auc():
    rows = drawn_rows(1)
    rows["fold"] = (rows["label"] == "M").astype(int)
    assert np.isnan(equal_groups_auc(rows)) and 0.5 < pooled_auc(rows) < 1


def test_the_long_comparison_shows_three_aucs(run):
    keep_only(run, "mobilenetv2")
    table = long_comparison(run)
    for on in (OUT_OF_FOLD, TEST):
        rows = judged_networks(run, on)["mobilenetv2"]
        by_image = table.loc["mobilenetv2", "image", on]
        assert by_image["auc_pooled"] == pooled_auc(rows)
        assert by_image["auc_groups_alike"] == equal_groups_auc(rows)
        by_patient = table.loc["mobilenetv2", "patient", on]
        assert by_patient["auc_groups_alike"] == pytest.approx(by_patient["auc"])


def long_comparison(run):
    return comparison_all(run, baseline_of(run)).set_index(["model", "level", "judged_on"])


def check_numbers(run, everything):
    """The rows of ensembles have the metrics of the mean logit, by image and by patient."""
    for model in ("ensemble", "mobilenetv2, 4 orientations"):
        rows = mean_by_hand(parts_of(run, model))
        row = everything.loc[(model, "image", TEST)]
        expected = classification_metrics(rows)
        assert {name: row[name] for name in METRICS} == pytest.approx(expected)
        patients = rows.groupby("group").agg({"label": "first", "logit": "mean"})
        auc = roc_auc_score(patients["label"] == "M", patients["logit"])
        assert everything.loc[(model, "patient", TEST), "auc"] == pytest.approx(auc)
    patients = everything.xs("patient", level="level")
    assert (patients["groups"] < patients["images"]).all()


def test_the_long_comparison_has_every_model_at_both_levels(full_run):
    everything = long_comparison(full_run)
    single = [*ARCHITECTURE_NAMES, "ensemble", BASELINE]
    turned = [f"{name}, 4 orientations" for name in (*ARCHITECTURE_NAMES, "ensemble")]
    folds = [f"{name}, mean of folds" for name in ARCHITECTURE_NAMES]
    expected = {(name, OUT_OF_FOLD) for name in single + turned}
    expected |= {(name, TEST) for name in single + turned + folds}
    assert everything.index.is_unique
    for level in ("image", "patient"):
        assert set(everything.xs(level, level="level").index) == expected
    check_numbers(full_run, everything)


def mean_by_hand(parts):
    """Mean logit of each image over all its rows, with a plain dictionary."""
    logits = {}
    for table in parts:
        for row in table.itertuples():
            logits.setdefault((row.image_id, row.group, row.label), []).append(row.logit)
    keys = sorted(logits)
    rows = pd.DataFrame(keys, columns=["image_id", "group", "label"])
    logit = np.array([sum(logits[key]) / len(logits[key]) for key in keys])
    return rows.assign(logit=logit, probability=expit(logit))


def final_on_test(table):
    return table[(table["model"] == "final") & (table["split"] == "test")]


def parts_of(run, model):
    """The rows behind a model that combines several, on test."""
    if model == "mobilenetv2, mean of folds":
        table = predictions(run, "mobilenetv2")
        return [
            table[table["model"].isin(["fold0", "fold1", "fold2"]) & (table["orientation"] == 0)]
        ]
    if model == "mobilenetv2, 4 orientations":
        return [final_on_test(predictions(run, "mobilenetv2"))]
    tables = [final_on_test(predictions(run, name)) for name in ARCHITECTURE_NAMES]
    if model == "ensemble":
        return [table[table["orientation"] == 0] for table in tables]
    return tables


@pytest.mark.parametrize(
    "model",
    [
        "mobilenetv2, mean of folds",
        "mobilenetv2, 4 orientations",
        "ensemble",
        "ensemble, 4 orientations",
    ],
)
def test_an_ensemble_is_the_mean_logit(full_run, model):
    expected = mean_by_hand(parts_of(full_run, model)).set_index("image_id")
    found = averaged_predictions(full_run, TEST)[model].set_index("image_id")
    assert found.index.is_unique and set(found.index) == set(expected.index)
    assert found["logit"].to_numpy() == pytest.approx(expected["logit"][found.index].to_numpy())


def test_groups_with_both_classes_count_once_in_each(run):
    keep_only(run, "mobilenetv2", "densenet121")
    for name in ("split.csv", "mobilenetv2/predictions.csv", "densenet121/predictions.csv"):
        table = run.table(name)
        first = table["image_id"].str.endswith("_0.png") & (table["split"] != "test")
        other = table["label"].map({"B": "M", "M": "B"})
        run.write(name, table.assign(label=table["label"].mask(first, other)))
    baseline = baseline_of(run)
    row = comparison_all(run, baseline).set_index(["model", "level", "judged_on"])
    row = row.loc["mobilenetv2", "patient", OUT_OF_FOLD]
    split = run.table("split.csv")
    held = split[split["split"] != "test"]
    assert row["groups"] == held["group"].nunique() and row["images"] == len(held)
    for label, word in (("M", "malignant"), ("B", "benign")):
        assert row[f"groups_{word}"] == held.loc[held["label"] == label, "group"].nunique()
    assert row["groups_malignant"] + row["groups_benign"] > row["groups"]
    assert set(pairs_of_models(run, baseline)["level"]) == {"image", "patient"}


def test_the_level_is_named_after_the_kind_of_group(run):
    keep_only(run, "mobilenetv2")
    change(run, "split.json", unit="field of view")
    table = comparison_all(run, baseline_of(run))
    assert set(table["level"]) == {"image", "field of view"}


def test_the_rule_of_a_group_is_a_parameter(run):
    keep_only(run, "mobilenetv2")
    baseline = baseline_of(run)
    found = {
        rule: comparison_all(run, baseline, rule).set_index(["model", "level", "judged_on"])[
            ["brier", "auc"]
        ]
        for rule in ("mean_logit", "vote")
    }
    images = found["vote"].xs("image", level="level")
    pd.testing.assert_frame_equal(images, found["mean_logit"].xs("image", level="level"))
    rows = judged_networks(run, OUT_OF_FOLD)["mobilenetv2"]
    grouped = rows.assign(vote=rows["probability"] >= 0.5).groupby("group")
    votes = grouped.agg({"vote": "mean", "label": "first", "fold": "first"})
    of_votes = found["vote"].loc["mobilenetv2", "patient", OUT_OF_FOLD]
    truth, folds = (votes["label"] == "M").to_numpy(), votes["fold"].to_numpy()
    assert of_votes["auc"] == pytest.approx(auc_slowly(truth, votes["vote"].to_numpy(), folds))
    assert np.isnan(of_votes["brier"])  # a share of votes is not a probability


def test_a_fine_tuned_network_has_no_out_of_fold_row(run):
    keep_only(run, "mobilenetv2", "densenet121")
    change(run, "densenet121/metrics.json", fine_tuned=True)
    table = comparison_all(run, baseline_of(run))
    rows = table[table["judged_on"] == OUT_OF_FOLD]
    assert "densenet121" not in set(rows["model"])


def test_fold_models_of_a_fine_tuned_network_are_not_combined(full_run):
    change(full_run, "densenet121/metrics.json", fine_tuned=True)
    found = averaged_predictions(full_run, TEST)
    assert "densenet121, mean of folds" not in found and "mobilenetv2, mean of folds" in found


def test_the_weights_of_an_ensemble_are_the_worst_of_its_members(run):
    change(run, "inceptionv3/metrics.json", weights="random")
    assert run.weights_behind("ensemble, 8 orientations") == "random"
    assert run.weights_behind("mobilenetv2, mean of folds") == "imagenet"
    assert run.weights_behind(BASELINE) == ""


# --------------------------------------------------------------------------- pairs


def test_the_pairs_of_a_run_are_listed_by_family_and_level(full_run):
    found = pairs_of_models(full_run, baseline_of(full_run))
    counts = found.groupby(["family", "level"]).size()
    for level in ("image", "patient"):
        assert counts["networks", level] == comb(len(ARCHITECTURE_NAMES), 2)
        assert counts["baseline", level] == len(ARCHITECTURE_NAMES)
        # its own orientations, and two ensembles
        assert counts["more than one", level] == 3 * len(ARCHITECTURE_NAMES)
    assert (found["judged_on"] == OUT_OF_FOLD).all()
    for _, part in found.groupby(["family", "level"]):
        assert part["p_holm"].min() == pytest.approx(min(1, len(part) * part["p"].min()))
    # Out-of-fold rows are not independent, even with one per patient.
    assert found[["p_mcnemar", "p_delong"]].isna().all(axis=None)
    row = found[found["first"] == "mobilenetv2"].iloc[0]
    expected = compare_pairs(
        judged_networks(full_run, OUT_OF_FOLD), [("mobilenetv2", row["second"])]
    ).iloc[0]
    names = ["auc_first", "auc_second", "difference_low", "difference_high", "p"]
    assert row[names].tolist() == pytest.approx(expected[names].tolist())


def test_a_page_separates_only_proven_pairs_behind_an_open_gate(full_run):
    """One network is upside down, so that two of three pairs differ and the gate is open."""
    table = predictions(full_run, "densenet121")
    full_run.write("densenet121/predictions.csv", table.assign(logit=-table["logit"]))
    found = pairs_of_models(full_run, baseline_of(full_run))
    shown = (found["difference_low"] > 0) | (found["difference_high"] < 0)
    small = found["p_holm"] < found["family"].map(FAMILY_ALPHA)
    of_networks = (found["family"] == "networks") & (found["level"] == "image")
    assert found.loc[of_networks, "separated"].sum() == 2
    baseline = found["family"] == "baseline"
    assert (found["separated"] == shown & small)[~baseline].all()
    assert not found.loc[~(shown & small), "separated"].any()


def test_differences_over_folds_match_the_aucs_of_the_folds(run):
    found = fold_pairs(run)
    aucs = {}
    for name in ARCHITECTURE_NAMES:
        rows = predictions(run, name)
        for fold, part in rows[rows["model"] == "oof"].groupby("fold"):
            aucs[name, fold] = roc_auc_score(part["label"] == "M", part["logit"])
    assert len(found) == comb(len(ARCHITECTURE_NAMES), 2) * 3  # folds
    for row in found.itertuples():
        expected = aucs[row.second, row.fold] - aucs[row.first, row.fold]
        assert row.difference == pytest.approx(expected)
    part = found[(found["first"] == "mobilenetv2") & (found["second"] == "densenet121")]
    narrow = ttest_1samp(part["difference"], 0).confidence_interval()
    # Nadeau and Bengio: 1 / 3 + 1 / 2 in place of 1 / 3.
    wider = (narrow.high - narrow.low) * np.sqrt((1 / 3 + 1 / 2) / (1 / 3))
    assert (part["high"] - part["low"]).tolist() == pytest.approx([wider] * 3)


def test_a_fine_tuned_network_shares_no_folds(run):
    change(run, "densenet121/metrics.json", fine_tuned=True)
    found = fold_pairs(run)
    assert set(found["first"]) | set(found["second"]) == {"mobilenetv2", "inceptionv3"}
    change(run, "inceptionv3/metrics.json", fine_tuned=True)
    assert fold_pairs(run).empty


# ---------------------------------------------------------------------- repeatable


def all_tables(run):
    baseline = baseline_of(run)
    tables = [comparison(run), comparison_all(run, baseline), pairs_of_models(run, baseline)]
    return [*tables, fold_pairs(run)]


def test_rows_are_matched_by_image_and_results_are_repeatable(full_run):
    keep_only(full_run, "mobilenetv2", "densenet121")
    first = all_tables(full_run)
    again = all_tables(full_run)
    assert [table.to_csv() for table in again] == [table.to_csv() for table in first]
    for seed, name in enumerate(("mobilenetv2", "densenet121")):
        table = predictions(full_run, name).sample(frac=1, random_state=seed)
        full_run.write(f"{name}/predictions.csv", table)
    split = full_run.table("split.csv").sample(frac=1, random_state=9)
    full_run.write("split.csv", split)
    for one, other in zip(first, all_tables(full_run), strict=True):
        pd.testing.assert_frame_equal(other, one)


# ---------------------------------------------------------------------- the others


def test_orientations_are_compared_for_each_architecture():
    rng = np.random.default_rng(0)
    rows = rows_of("BM" * 60, 0.5)
    logit = np.where(rows["label"] == "M", 0.8, -0.8) + rng.normal(size=120)
    table = pd.concat([rows.assign(logit=logit * s, orientations=o) for o, s in ((1, -1), (8, 1))])
    gain = orientation_gain({"mobilenetv2": table}).set_index("orientations")
    assert gain["auc"][8] == pytest.approx(roc_auc_score(rows["label"] == "M", logit))
    assert gain["auc"][8] == pytest.approx(1 - gain["auc"][1])
    bounds = auc_interval(rows.assign(probability=expit(logit)))
    assert gain.loc[8, ["auc_low", "auc_high"]].tolist() == pytest.approx(bounds)


def test_a_single_network_is_compared_only_with_the_baseline(full_run):
    keep_only(full_run, "mobilenetv2")
    found = pairs_of_models(full_run, baseline_of(full_run))
    assert set(found["family"]) == {"more than one", "baseline"}
    assert fold_pairs(full_run).empty


def test_confusion_matrices_are_by_image_then_by_group(run):
    rows = judged_networks(run, TEST)
    found = evaluation.by_image_and_group(rows, "patient", "highest")
    assert list(found)[2:4] == ["DenseNet121, by image", "MobileNetV2, by patient"]
    assert len(found["DenseNet121, by patient"]) == rows["densenet121"]["group"].nunique()


def test_published_results_are_listed_above_those_of_the_run(run):
    found = evaluation.with_published_results(comparison(run))
    assert found["whose"].str.startswith("original").tolist() == [True] * 3 + [False] * 3
