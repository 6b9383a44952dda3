"""What carries the headline, the tables of the comparison, and rows found by key alone."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from cytology import evaluation
from cytology.evaluation import (
    OUT_OF_FOLD,
    TEST,
    combined,
    comparison,
    comparison_all,
    fold_pairs,
    headline,
    networks,
    pairs_of_models,
    weights_behind,
)
from cytology.intervals import auc_interval
from cytology.metrics import METRICS, classification_metrics
from cytology.predictions import read_predictions
from cytology.settings import ARCHITECTURE_NAMES, InputError
from cytology.shortcuts import BASELINE, shortcut_baseline
from cytology.significance import group_swap_p, matched
from cytology.tables import read_json, read_table, write_json, write_table

pytestmark = pytest.mark.usefixtures("few_draws")


def rows_of(labels, probabilities):
    rows = pd.DataFrame({"label": list(labels), "probability": probabilities})
    return rows.assign(group=range(len(rows)))


def change(run, name, **values):
    write_json(run, name, read_json(run, name) | values)


def baseline_of(run):
    names = ("manifest.csv", "tables/appearance.csv", "split.csv")
    return shortcut_baseline(*(read_table(run, name) for name in names))


def keep(run, *names):
    """Leave the predictions of these networks alone."""
    for name in set(ARCHITECTURE_NAMES) - set(names):
        (run / name / "predictions.csv").unlink()


def predictions(run, name):
    return read_table(run, f"{name}/predictions.csv")


# ------------------------------------------------------------------ what is judged


@pytest.mark.parametrize(
    ("groups", "fine_tuned", "cross_validated", "expected"),
    [
        (99, False, True, "out-of-fold"),
        (100, False, True, "test"),
        (99, True, True, "test"),
        (99, False, False, "test"),
    ],
)
def test_what_carries_the_headline(groups, fine_tuned, cross_validated, expected):
    table = rows_of("BM" * 50, 0.5)[:groups]
    test = table.index < 15
    oof = table[~test].assign(model="oof", split="train")
    val = table[~test][:10].assign(model="final", split="val")
    final = table[test].assign(model="final", split="test")
    predictions = pd.concat([oof, val, final] if cross_validated else [val, final])
    on, rows = headline(predictions, fine_tuned)
    assert on == expected
    pd.testing.assert_frame_equal(rows, oof if expected == "out-of-fold" else final)


def test_one_fine_tuned_network_puts_all_on_test(run):
    assert evaluation.judged_on(run) == OUT_OF_FOLD
    change(run, "densenet121/metrics.json", fine_tuned=True)
    assert evaluation.judged_on(run) == TEST
    table = comparison(run)
    assert set(table["judged_on"]) == {TEST}
    assert (table["images"] == (read_table(run, "split.csv")["split"] == "test").sum()).all()


def test_a_run_without_predictions_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="run notebook 04, 05 or 06 first"):
        comparison(tmp_path)


def test_the_report_says_what_it_was_judged_on():
    text = evaluation.report(rows_of("BBMM", [0.1, 0.6, 0.8, 0.9]), "test")
    assert text.startswith("judged on test: 4 images, 4 groups\n")
    assert "malignant (M)      0.667     1.000     0.800         2" in text
    never = evaluation.report(rows_of("BBMM", [0.1, 0.1, 0.1, 0.1]), "test")
    assert "malignant (M)          –     0.000     0.000         2" in never


# ---------------------------------------------------------------------- comparison


def test_the_comparison_has_a_row_an_architecture(run):
    table = comparison(run).set_index("architecture")
    assert tuple(table.index) == ARCHITECTURE_NAMES
    assert (table["judged_on"] == "out-of-fold").all()
    for name, row in table.iterrows():
        rows = read_predictions(run, name)
        expected = classification_metrics(rows[rows["model"] == "oof"])
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    bounds = {f"{name}_{end}" for name in METRICS for end in ("low", "high")}
    assert bounds | {"weights", "recipe", "protocol", "groups"} <= set(table)


def long_comparison(run):
    return comparison_all(run, baseline_of(run)).set_index(["model", "level", "judged_on"])


def check_numbers(run, everything):
    """The rows of ensembles hold the metrics of the mean logit, an image and a patient."""
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
def test_what_combines_several_is_the_mean_logit_by_hand(full_run, model):
    expected = mean_by_hand(parts_of(full_run, model)).set_index("image_id")
    found = combined(full_run, TEST)[model].set_index("image_id")
    assert found.index.is_unique and set(found.index) == set(expected.index)
    assert found["logit"].to_numpy() == pytest.approx(expected["logit"][found.index].to_numpy())


def test_groups_with_both_classes_have_no_level_of_their_own(run):
    keep(run, "mobilenetv2", "densenet121")
    for name in ("split.csv", "mobilenetv2/predictions.csv", "densenet121/predictions.csv"):
        table = read_table(run, name)
        first = table["image_id"].str.endswith("_0.png") & (table["split"] != "test")
        other = table["label"].map({"B": "M", "M": "B"})
        write_table(run, name, table.assign(label=table["label"].mask(first, other)))
    baseline = baseline_of(run)
    table = comparison_all(run, baseline)
    assert set(table.loc[table["judged_on"] == OUT_OF_FOLD, "level"]) == {"image"}
    assert set(table.loc[table["judged_on"] == TEST, "level"]) == {"image", "patient"}
    assert set(pairs_of_models(run, baseline)["level"]) == {"image"}


def test_the_level_is_called_what_a_group_is(run):
    keep(run, "mobilenetv2")
    change(run, "split.json", unit="field of view")
    table = comparison_all(run, baseline_of(run))
    assert set(table["level"]) == {"image", "field of view"}


def test_the_rule_of_a_group_is_a_parameter(run):
    keep(run, "mobilenetv2")
    baseline = baseline_of(run)
    found = {
        rule: comparison_all(run, baseline, rule).set_index(["model", "level", "judged_on"])[
            ["brier", "auc"]
        ]
        for rule in ("mean_logit", "vote")
    }
    images = found["vote"].xs("image", level="level")
    pd.testing.assert_frame_equal(images, found["mean_logit"].xs("image", level="level"))
    rows = networks(run, OUT_OF_FOLD)["mobilenetv2"]
    votes = (rows["probability"] >= 0.5).groupby(rows["group"]).mean()
    truth = rows.groupby("group")["label"].first() == "M"
    of_votes = found["vote"].loc["mobilenetv2", "patient", OUT_OF_FOLD]
    assert of_votes["auc"] == pytest.approx(roc_auc_score(truth, votes))
    assert np.isnan(of_votes["brier"])  # a share of votes is no probability


def test_a_fine_tuned_network_has_no_out_of_fold_row(run):
    keep(run, "mobilenetv2", "densenet121")
    change(run, "densenet121/metrics.json", fine_tuned=True)
    table = comparison_all(run, baseline_of(run))
    rows = table[table["judged_on"] == OUT_OF_FOLD]
    assert "densenet121" not in set(rows["model"])


def test_fold_models_of_a_fine_tuned_network_are_not_its_own(full_run):
    change(full_run, "densenet121/metrics.json", fine_tuned=True)
    found = combined(full_run, TEST)
    assert "densenet121, mean of folds" not in found and "mobilenetv2, mean of folds" in found


def test_the_weights_behind_an_ensemble_are_the_worst_of_its_members(run):
    change(run, "inceptionv3/metrics.json", weights="random")
    assert weights_behind(run, "ensemble, 8 orientations") == "random"
    assert weights_behind(run, "mobilenetv2, mean of folds") == "imagenet"
    assert weights_behind(run, BASELINE) == ""


# --------------------------------------------------------------------------- pairs


def test_the_pairs_of_a_run_by_family_and_level(full_run):
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
    at_image = found["level"] == "image"
    assert found.loc[at_image, ["p_mcnemar", "p_delong"]].isna().all(axis=None)
    assert found.loc[~at_image, "p_mcnemar"].notna().all()
    tables = networks(full_run, OUT_OF_FOLD)
    row = found[at_image & (found["first"] == "mobilenetv2")].iloc[0]
    assert row["p"] == group_swap_p(matched(tables["mobilenetv2"], tables[row["second"]]))


def test_differences_over_folds_are_those_of_the_folds_aucs(run):
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


def test_rows_are_found_by_image_and_twice_is_the_same(full_run):
    keep(full_run, "mobilenetv2", "densenet121")
    first = all_tables(full_run)
    again = all_tables(full_run)
    assert [table.to_csv() for table in again] == [table.to_csv() for table in first]
    for seed, name in enumerate(("mobilenetv2", "densenet121")):
        table = predictions(full_run, name).sample(frac=1, random_state=seed)
        write_table(full_run, f"{name}/predictions.csv", table)
    split = read_table(full_run, "split.csv").sample(frac=1, random_state=9)
    write_table(full_run, "split.csv", split)
    for one, other in zip(first, all_tables(full_run), strict=True):
        pd.testing.assert_frame_equal(other, one)


# ---------------------------------------------------------------------- the others


def test_orientations_are_compared_for_each_architecture():
    rng = np.random.default_rng(0)
    rows = rows_of("BM" * 60, 0.5)
    logit = np.where(rows["label"] == "M", 0.8, -0.8) + rng.normal(size=120)
    table = pd.concat([rows.assign(logit=logit * s, orientations=o) for o, s in ((1, -1), (8, 1))])
    gain = evaluation.orientation_gain({"mobilenetv2": table}).set_index("orientations")
    assert gain["auc"][8] == pytest.approx(roc_auc_score(rows["label"] == "M", logit))
    assert gain["auc"][8] == pytest.approx(1 - gain["auc"][1])
    bounds = auc_interval(rows.assign(probability=expit(logit)))
    assert gain.loc[8, ["auc_low", "auc_high"]].tolist() == pytest.approx(bounds)


def test_the_worst_mistakes_are_wrong_and_the_surest_of_each_group_first():
    rows = pd.DataFrame({"image_id": list("abcdef"), "label": list("BBMMBM")})
    rows = rows.assign(group=["1", "2", "3", "4", "2", "5"], split="test", fold=0, orientation=0)
    one = rows.assign(logit=[1.0, 5.0, 2.0, -2.0, 4.0, -0.5])
    other = rows.assign(logit=[1.0, 1.0, 2.0, -2.0, 1.0, -0.5]).iloc[::-1]
    found = evaluation.worst_mistakes({"x": one, "y": other}, 3)
    assert found["image_id"].tolist() == ["b", "d", "a"]
    assert (found["predicted"] != found["label"]).all()


def test_one_network_alone_is_compared_with_the_baseline_only(full_run):
    keep(full_run, "mobilenetv2")
    found = pairs_of_models(full_run, baseline_of(full_run))
    assert set(found["family"]) == {"more than one", "baseline"}
    assert fold_pairs(full_run).empty
