"""Choices made before test is looked at do not depend on test, and are applied once."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation import operating_points
from cytology.evaluation.judged import OUT_OF_FOLD, TEST
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics import calibration, decisions
from cytology.evaluation.statistics.intervals import mean_interval
from cytology.evaluation.statistics.metrics import classification_metrics
from cytology.evaluation.statistics.recalibration import recalibration
from cytology.inference.locked import locked_decision
from cytology.tables import write_table

pytestmark = pytest.mark.usefixtures("few_draws")
CHOSEN = ["model", "rule", "chosen_on", "threshold", "threshold_logit"]


def keep_only(run, *names):
    """Delete the predictions of all other networks."""
    for name in set(ARCHITECTURE_NAMES) - set(names):
        (run / name / "predictions.csv").unlink()


def fine_tune(run):
    for name in ARCHITECTURE_NAMES:
        about = run.facts(f"{name}/metrics.json")
        run.write(f"{name}/metrics.json", about | {"fine_tuned": True})


def flip_labels(run, part):
    """Give the images of a part of the split the other class, wherever they are named."""
    for name in ("split.csv", *(f"{name}/predictions.csv" for name in run.networks)):
        table = run.table(name)
        other = table["label"].map({"B": "M", "M": "B"})
        write_table(
            run, name, table.assign(label=table["label"].mask(table["split"] == part, other))
        )


def set_logits(run, logits):
    """Replace the logits of all networks by a function of their rows."""
    for name in run.networks:
        table = run.table(f"{name}/predictions.csv")
        run.write(f"{name}/predictions.csv", table.assign(logit=logits(table)))


def oof(run, name):
    table = read_predictions(run, name)
    return table[table["model"] == "oof"].reset_index(drop=True)


def on_test(run, name):
    table = read_predictions(run, name)
    return table[(table["model"] == "final") & (table["split"] == "test")].reset_index(drop=True)


# ------------------------------------------------------------- test stays unseen


@pytest.mark.parametrize("fine_tuned", [False, True], ids=["head", "fine-tuned"])
def test_the_labels_of_test_change_no_threshold_and_no_slope(run, fine_tuned):
    keep_only(run, "mobilenetv2", "densenet121")
    if fine_tuned:
        fine_tune(run)
    before = operating_points.locked_thresholds(run, 0.9), operating_points.locked_calibrations(run)
    flip_labels(run, "test")
    after = operating_points.locked_thresholds(run, 0.9), operating_points.locked_calibrations(run)
    pd.testing.assert_frame_equal(after[0][CHOSEN], before[0][CHOSEN])
    for name in ("slope", "intercept"):
        pd.testing.assert_series_equal(after[1][name], before[1][name])
    judged = before[0]["judged_on"] == TEST
    assert (after[0]["accuracy"] != before[0]["accuracy"])[judged].all()
    pd.testing.assert_frame_equal(after[0][~judged], before[0][~judged])
    assert (after[1]["loss"] != before[1]["loss"])[before[1]["judged_on"] == TEST].all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
@pytest.mark.parametrize("fine_tuned", [False, True], ids=["head", "fine-tuned"])
def test_the_labels_of_test_change_no_calibrated_probability(run, fine_tuned, method):
    if fine_tuned:
        fine_tune(run)
    before = {
        name: operating_points.calibrated_predictions(run, name, TEST, method)
        for name in ARCHITECTURE_NAMES
    }
    flip_labels(run, "test")
    for name, rows in before.items():
        after = operating_points.calibrated_predictions(run, name, TEST, method)
        pd.testing.assert_series_equal(after["probability"], rows["probability"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_labels_used_for_fitting_change_thresholds_and_slopes(run, part):
    """Shows that the tests above can fail; fine-tuned networks use only val."""
    keep_only(run, "mobilenetv2", "densenet121")
    if part == "val":
        fine_tune(run)
    before = operating_points.locked_thresholds(run, 0.9), operating_points.locked_calibrations(run)
    flip_labels(run, part)
    after = operating_points.locked_thresholds(run, 0.9), operating_points.locked_calibrations(run)
    chosen = before[0]["rule"] != "half"
    assert (after[0]["threshold"] != before[0]["threshold"])[chosen].any()
    fitted = before[1]["method"] == "platt"
    assert (after[1]["slope"] != before[1]["slope"])[fitted].all()


def test_a_cross_validated_head_is_tuned_out_of_fold_and_a_fine_tuned_network_on_val(run):
    source, rows = operating_points.predictions_to_choose_on(run, "mobilenetv2")
    assert source == OUT_OF_FOLD and set(rows["model"]) == {"oof"}
    assert set(rows["split"]) == {"train", "val"}
    fine_tune(run)
    source, rows = operating_points.predictions_to_choose_on(run, "mobilenetv2")
    assert source == "val" and set(rows["model"]) == {"final"} and set(rows["split"]) == {"val"}


# --------------------------------------------------------------------- thresholds


def test_thresholds_are_chosen_out_of_fold_and_applied_to_test(run):
    found = operating_points.locked_thresholds(run, 0.9).set_index(["model", "rule", "judged_on"])
    assert len(found) == len(ARCHITECTURE_NAMES) * 3 * 2 and found.index.is_unique
    for name in ARCHITECTURE_NAMES:
        for rule in decisions.RULES:
            threshold = decisions.choose_threshold(oof(run, name), rule, 0.9)
            row = found.loc[(name, rule, TEST)]
            assert row["threshold_logit"] == threshold
            assert row["threshold"] == pytest.approx(expit(threshold))
            rows = on_test(run, name)
            assert row["malignant_share"] == (rows["label"] == "M").mean()
            expected = classification_metrics(rows, expit(threshold))
            for metric in operating_points.AT_A_THRESHOLD:
                assert row[metric] == pytest.approx(expected[metric], nan_ok=True)


def test_out_of_fold_figures_at_a_threshold_are_cross_fitted(run):
    found = operating_points.locked_thresholds(run, 0.9).set_index(["model", "rule", "judged_on"])
    rows = oof(run, "densenet121")
    right = 0
    for fold in rows["fold"].unique():
        here = rows[rows["fold"] == fold]
        threshold = decisions.choose_threshold(rows[rows["fold"] != fold], "youden", 0.9)
        right += ((here["logit"] >= threshold) == (here["label"] == "M")).sum()
    row = found.loc[("densenet121", "youden", OUT_OF_FOLD)]
    assert row["accuracy"] == pytest.approx(right / len(rows))
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert (row["images"], row["groups"]) == (len(rows), rows["group"].nunique())


def test_a_fine_tuned_network_has_no_out_of_fold_figures(run):
    fine_tune(run)
    for table in (
        operating_points.locked_thresholds(run, 0.9),
        operating_points.locked_calibrations(run),
    ):
        assert set(table["judged_on"]) == {TEST}
    assert set(operating_points.locked_thresholds(run, 0.9)["chosen_on"]) == {"val"}


# -------------------------------------------------------------------- calibration


def test_without_a_slope_the_probabilities_are_unchanged_and_a_note_gives_the_reason(run):
    set_logits(run, lambda rows: np.where(rows["label"] == "M", -1.0, 1.0))
    found = operating_points.locked_calibrations(run).set_index(["method", "judged_on"])
    fitted = found.loc["platt"]
    assert (fitted["slope"] == 1).all() and (fitted["intercept"] == 0).all()
    assert (fitted["note"] == calibration.NO_SIGNAL).all() and fitted["loss_change"].isna().all()
    assert (fitted["loss"] == found.loc["none", "loss"]).all()
    assert operating_points.without_slope(found.reset_index()).startswith("; no slope fits for Mob")


def test_a_threshold_that_calls_all_images_the_same_is_noted(run):
    set_logits(run, lambda rows: np.full(len(rows), 0.3))
    found = operating_points.locked_thresholds(run, 0.9).set_index(["rule", "judged_on"])["note"]
    assert (found.loc["half"] == "calls every image malignant").all()
    assert found.loc["sensitivity"].str.startswith("calls every image malignant").all()
    assert (found.loc["youden"] == "calls no image malignant").all()


def test_a_threshold_without_a_guarantee_is_noted(run):
    few = operating_points.locked_thresholds(run, 0.99).set_index("rule")["note"]
    assert few.loc["sensitivity"].str.contains("it needs 99 malignant patients").all()
    enough = operating_points.locked_thresholds(run, 0.5).set_index("rule")["note"]
    assert (enough == "").all()


def test_the_shift_by_balanced_weights_is_the_log_odds_of_the_training_images(run):
    split = run.table("split.csv")

    def log_odds(rows):
        malignant = (rows["label"] == "M").mean()
        return np.log(malignant / (1 - malignant))

    _, rows = operating_points.predictions_to_choose_on(run, "mobilenetv2")
    for fold, here in rows.groupby("fold"):
        others = split[(split["split"] != "test") & (split["fold"] != fold)]
        assert here["class_shift"].to_numpy() == pytest.approx(log_odds(others))
    final = log_odds(split[split["split"] == "train"])
    assert operating_points.test_predictions(run, "mobilenetv2")[
        "class_shift"
    ].to_numpy() == pytest.approx(final)
    about = run.facts("mobilenetv2/metrics.json")
    run.write("mobilenetv2/metrics.json", about | {"class_weight": "none"})
    assert (
        operating_points.predictions_to_choose_on(run, "mobilenetv2")[1]["class_shift"] == 0
    ).all()


@pytest.mark.parametrize("fine_tuned", [False, True], ids=["head", "fine-tuned"])
def test_the_calibration_table_has_test_metrics_before_and_after(run, fine_tuned):
    if fine_tuned:
        fine_tune(run)
    found = operating_points.locked_calibrations(run).set_index(["model", "method", "judged_on"])
    assert len(found) == len(ARCHITECTURE_NAMES) * 3 * (1 if fine_tuned else 2)
    for name in ARCHITECTURE_NAMES:
        before = operating_points.test_predictions(run, name)
        for method in calibration.CALIBRATION_METHODS:
            calibrator = calibration.fit_calibrator(
                operating_points.predictions_to_choose_on(run, name)[1], method
            )
            rows = calibration.calibrate(before, calibrator)
            expected = classification_metrics(rows) | recalibration(rows)
            row = found.loc[(name, method, TEST)]
            for metric in (*operating_points.OF_PROBABILITIES, "calibration_slope"):
                assert row[metric] == pytest.approx(expected[metric], nan_ok=True)
            change = calibration.log_losses(rows) - calibration.log_losses(before)
            assert row["loss_change"] == pytest.approx(
                np.nan if method == "none" else change.mean(), nan_ok=True
            )
            if method != "isotonic":  # the table refers to logits of the saved network
                said = row["intercept"] + row["slope"] * before["logit"]
                assert said.to_numpy() == pytest.approx(rows["logit"].to_numpy())
    assert (found.xs("none", level="method")["slope"] == 1).all()
    assert "loss_low" not in found and "ece_low" not in found


def test_a_change_of_the_log_loss_has_the_interval_of_a_paired_mean(run):
    found = operating_points.locked_calibrations(run).set_index(["model", "method", "judged_on"])
    row = found.loc[("densenet121", "platt", OUT_OF_FOLD)]
    rows = operating_points.calibrated_predictions(run, "densenet121", OUT_OF_FOLD)
    change = calibration.log_losses(rows) - calibration.log_losses(oof(run, "densenet121"))
    expected = mean_interval(change, rows["group"].to_numpy(), 2.0)
    assert (row["loss_change_low"], row["loss_change_high"]) == pytest.approx(expected)


def test_calibrated_rows_are_cross_fitted_out_of_fold(run):
    found = operating_points.calibrated_predictions(run, "mobilenetv2", OUT_OF_FOLD)
    _, rows = operating_points.predictions_to_choose_on(run, "mobilenetv2")
    for fold in rows["fold"].unique():
        here = rows["fold"] == fold
        calibrator = calibration.fit_calibrator(rows[~here], "platt")
        shifted = rows["logit"][here] + rows["class_shift"][here]
        expected = expit(calibrator.intercept + calibrator.slope * shifted)
        assert found["probability"][here].to_numpy() == pytest.approx(expected.to_numpy())
    assert (found["image_id"] == rows["image_id"]).all()


def test_reliabilities_match_the_evaluated_rows(run):
    found = operating_points.reliabilities(run, "none")
    assert tuple(found) == ARCHITECTURE_NAMES
    for name, table in found.items():
        assert table["images"].sum() == len(oof(run, name))


# --------------------------------------------------------------------- abstention


def curve(run, model, by, rule="half"):
    found = operating_points.abstentions(run, 0.9).set_index(["model", "certainty", "rule"])
    return found.loc[(model, by, rule)].set_index("referred")


def answered(rows, certainty, share):
    """The rows left when the least certain share has been referred, slowly."""
    kept = rows.assign(certainty=certainty).sort_values("certainty", kind="stable")
    return kept.iloc[round(share * len(rows)) :]


@pytest.mark.parametrize("rule", decisions.RULES)
def test_the_margin_refers_images_closest_to_the_cross_fitted_threshold(full_run, rule):
    _, rows = operating_points.predictions_to_choose_on(full_run, "mobilenetv2")
    margin = pd.Series(0.0, index=rows.index)
    for fold in rows["fold"].unique():
        here = rows["fold"] == fold
        at = decisions.choose_threshold(rows[~here], rule, 0.9)
        slope = calibration.fit_calibrator(rows[~here], "platt").slope
        margin[here] = slope * (rows["logit"][here] - at)
    found = curve(full_run, "mobilenetv2", "margin", rule)
    for share in (0.0, 0.2, 0.5):
        kept = answered(rows.assign(probability=expit(margin), logit=margin), margin.abs(), share)
        expected = classification_metrics(kept)
        for metric in ("accuracy", "recall", "specificity"):
            assert found.loc[share, metric] == pytest.approx(expected[metric])
    assert (found["judged_on"] == OUT_OF_FOLD).all()


@pytest.mark.parametrize("rule", ["half", "sensitivity"])
def test_the_smallest_margin_keeps_its_share_and_ignores_test(run, rule):
    run.write("tables/thresholds.csv", operating_points.locked_thresholds(run, 0.9))
    _, rows = operating_points.predictions_to_choose_on(run, "inceptionv3")
    table = run.table("tables/thresholds.csv").set_index(["model", "rule"])
    at = table.loc[("inceptionv3", rule), "threshold_logit"].iloc[0]
    slope = calibration.fit_calibrator(rows, "platt").slope
    limit = operating_points.least_margin(run, "inceptionv3", rule, 0.2)
    nearer = ((rows["logit"] - at).abs() * slope < limit).mean()
    assert nearer == pytest.approx(0.2, abs=1 / len(rows))
    assert operating_points.least_margin(run, "inceptionv3", rule, 0.0) <= limit
    flip_labels(run, "test")
    assert operating_points.least_margin(run, "inceptionv3", rule, 0.2) == limit


def test_the_referral_curve_on_test_uses_the_margin_of_notebook_08(run):
    """Curve and notebook use the same rule: around the locked threshold, in calibrated logits."""
    fine_tune(run)
    run.write("tables/thresholds.csv", operating_points.locked_thresholds(run, 0.9))
    run.write("tables/calibration.csv", operating_points.locked_calibrations(run))
    for rule in decisions.RULES:
        rows = operating_points.above_threshold(run, "densenet121", TEST, rule, 0.9)
        decision = locked_decision(run, "densenet121", rule)
        raw = on_test(run, "densenet121")["logit"]
        assert rows["logit"].abs().to_numpy() == pytest.approx(decision.margin(raw).to_numpy())


def test_orientations_that_disagree_are_referred(full_run):
    rows = operating_points.above_threshold(full_run, "densenet121", OUT_OF_FOLD, "half", 0.9)
    table = read_predictions(full_run, "densenet121", turned=True)
    table = table[table["model"] == "oof"]
    doubt = [table.loc[table["image_id"] == i, "logit"].std() for i in rows["image_id"]]
    kept = answered(rows, -np.array(doubt), 0.3)
    expected = classification_metrics(kept)["accuracy"]
    found = curve(full_run, "densenet121", "orientations disagree")
    assert found.loc[0.3, "accuracy"] == pytest.approx(expected)


def test_networks_that_disagree_are_referred(run):
    tables = [
        operating_points.above_threshold(run, n, OUT_OF_FOLD, "half", 0.9).set_index("image_id")
        for n in ARCHITECTURE_NAMES
    ]
    logits = pd.DataFrame([t["logit"] for t in tables])
    rows = tables[0].assign(logit=logits.mean(), probability=expit(logits.mean()))
    found = curve(run, "ensemble", "networks disagree")
    expected = classification_metrics(answered(rows, -logits.std(), 0.4))["accuracy"]
    assert found.loc[0.4, "accuracy"] == pytest.approx(expected)
    assert found.loc[0.0, "accuracy"] == pytest.approx(classification_metrics(rows)["accuracy"])
    assert not (
        operating_points.abstentions(run, 0.9)["certainty"] == "orientations disagree"
    ).any()


# ------------------------------------------------------------------ decision curve


def test_net_benefits_use_the_calibrated_probabilities(run):
    found = operating_points.net_benefits(run).set_index("threshold")
    rows = operating_points.calibrated_predictions(run, "inceptionv3", OUT_OF_FOLD)
    called, truth = rows["probability"] >= 0.3, rows["label"] == "M"
    expected = (called & truth).mean() - (called & ~truth).mean() * 3 / 7
    assert found.loc[0.3, "inceptionv3"] == pytest.approx(expected)
    assert found.loc[0.3, "all"] == pytest.approx(truth.mean() - (~truth).mean() * 3 / 7)
    assert len(found) == 99
    assert (found["malignant_share"] == truth.mean()).all()
    inner = found.loc[0.1:0.9]
    assert (inner["inceptionv3_low"] < inner["inceptionv3"]).all()
    assert (inner["inceptionv3"] < inner["inceptionv3_high"]).all()


# -------------------------------------------------------------------- repeatable


def all_tables(run):
    tables = [
        operating_points.locked_thresholds(run, 0.9),
        operating_points.locked_calibrations(run),
    ]
    return [*tables, operating_points.abstentions(run, 0.9), operating_points.net_benefits(run)]


def test_row_order_changes_nothing_and_results_are_repeatable(full_run):
    keep_only(full_run, "mobilenetv2", "densenet121")
    first = all_tables(full_run)
    again = all_tables(full_run)
    assert [table.to_csv() for table in again] == [table.to_csv() for table in first]
    for name in full_run.networks:
        table = full_run.table(f"{name}/predictions.csv")
        full_run.write(f"{name}/predictions.csv", table.sample(frac=1, random_state=1))
    for one, other in zip(first, all_tables(full_run), strict=True):
        pd.testing.assert_frame_equal(other, one)
