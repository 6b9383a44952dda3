"""What is chosen before test is looked at does not know test; it is applied once, as it is."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cytology import calibration, decisions, locked
from cytology.evaluation import OUT_OF_FOLD, TEST
from cytology.metrics import classification_metrics
from cytology.predictions import read_predictions, trained
from cytology.settings import ARCHITECTURE_NAMES
from cytology.tables import read_json, read_table, write_json, write_table

pytestmark = pytest.mark.usefixtures("few_draws")
CHOSEN = ["model", "rule", "chosen_on", "threshold", "threshold_logit"]


def keep(run, *names):
    """Leave the predictions of these networks alone."""
    for name in set(ARCHITECTURE_NAMES) - set(names):
        (run / name / "predictions.csv").unlink()


def fine_tune(run):
    for name in ARCHITECTURE_NAMES:
        about = read_json(run, f"{name}/metrics.json")
        write_json(run, f"{name}/metrics.json", about | {"fine_tuned": True})


def flip_labels(run, part):
    """Call the images of a part of the split the other class, wherever they are named."""
    for name in ("split.csv", *(f"{name}/predictions.csv" for name in trained(run))):
        table = read_table(run, name)
        other = table["label"].map({"B": "M", "M": "B"})
        write_table(
            run, name, table.assign(label=table["label"].mask(table["split"] == part, other))
        )


def say(run, logits):
    """Give all networks the logits that a function makes of their rows."""
    for name in trained(run):
        table = read_table(run, f"{name}/predictions.csv")
        write_table(run, f"{name}/predictions.csv", table.assign(logit=logits(table)))


def oof(run, name):
    table = read_predictions(run, name)
    return table[table["model"] == "oof"].reset_index(drop=True)


def on_test(run, name):
    table = read_predictions(run, name)
    return table[(table["model"] == "final") & (table["split"] == "test")].reset_index(drop=True)


# ------------------------------------------------------------- test stays unseen


@pytest.mark.parametrize("fine_tuned", [False, True], ids=["head", "fine-tuned"])
def test_the_labels_of_test_change_no_threshold_and_no_temperature(run, fine_tuned):
    keep(run, "mobilenetv2", "densenet121")
    if fine_tuned:
        fine_tune(run)
    before = locked.thresholds(run, 0.9), locked.calibrations(run)
    flip_labels(run, "test")
    after = locked.thresholds(run, 0.9), locked.calibrations(run)
    pd.testing.assert_frame_equal(after[0][CHOSEN], before[0][CHOSEN])
    pd.testing.assert_series_equal(after[1]["temperature"], before[1]["temperature"])
    judged = before[0]["judged_on"] == TEST
    assert (after[0]["accuracy"] != before[0]["accuracy"])[judged].all()
    pd.testing.assert_frame_equal(after[0][~judged], before[0][~judged])
    assert (after[1]["loss"] != before[1]["loss"])[before[1]["judged_on"] == TEST].all()


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
@pytest.mark.parametrize("fine_tuned", [False, True], ids=["head", "fine-tuned"])
def test_the_labels_of_test_change_no_calibrated_probability(run, fine_tuned, method):
    if fine_tuned:
        fine_tune(run)
    before = {name: locked.calibrated(run, name, TEST, method) for name in ARCHITECTURE_NAMES}
    flip_labels(run, "test")
    for name, rows in before.items():
        after = locked.calibrated(run, name, TEST, method)
        pd.testing.assert_series_equal(after["probability"], rows["probability"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_labels_that_were_learned_from_change_thresholds_and_temperature(run, part):
    """So that the tests above could fail; fine-tuned networks look at val alone."""
    keep(run, "mobilenetv2", "densenet121")
    if part == "val":
        fine_tune(run)
    before = locked.thresholds(run, 0.9), locked.calibrations(run)
    flip_labels(run, part)
    after = locked.thresholds(run, 0.9), locked.calibrations(run)
    chosen = before[0]["rule"] != "half"
    assert (after[0]["threshold"] != before[0]["threshold"])[chosen].any()
    fitted = before[1]["method"] == "temperature"
    assert (after[1]["temperature"] != before[1]["temperature"])[fitted].all()


def test_a_cross_validated_head_learns_from_out_of_fold_and_a_fine_tuned_network_from_val(run):
    source, rows = locked.learned_from(run, "mobilenetv2")
    assert source == OUT_OF_FOLD and set(rows["model"]) == {"oof"}
    assert set(rows["split"]) == {"train", "val"}
    fine_tune(run)
    source, rows = locked.learned_from(run, "mobilenetv2")
    assert source == "val" and set(rows["model"]) == {"final"} and set(rows["split"]) == {"val"}


# --------------------------------------------------------------------- thresholds


def test_thresholds_are_chosen_out_of_fold_and_applied_to_test(run):
    found = locked.thresholds(run, 0.9).set_index(["model", "rule", "judged_on"])
    assert len(found) == len(ARCHITECTURE_NAMES) * 3 * 2 and found.index.is_unique
    for name in ARCHITECTURE_NAMES:
        for rule in decisions.RULES:
            threshold = decisions.choose_threshold(oof(run, name), rule, 0.9)
            row = found.loc[(name, rule, TEST)]
            assert row["threshold"] == threshold
            assert expit(row["threshold_logit"]) == pytest.approx(threshold)
            expected = classification_metrics(on_test(run, name), threshold)
            for metric in locked.AT_A_THRESHOLD:
                assert row[metric] == pytest.approx(expected[metric], nan_ok=True)


def test_out_of_fold_figures_at_a_threshold_are_cross_fitted(run):
    found = locked.thresholds(run, 0.9).set_index(["model", "rule", "judged_on"])
    rows = oof(run, "densenet121")
    right = 0
    for fold in rows["fold"].unique():
        here = rows[rows["fold"] == fold]
        threshold = decisions.choose_threshold(rows[rows["fold"] != fold], "youden", 0.9)
        right += ((here["probability"] >= threshold) == (here["label"] == "M")).sum()
    row = found.loc[("densenet121", "youden", OUT_OF_FOLD)]
    assert row["accuracy"] == pytest.approx(right / len(rows))
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert (row["images"], row["groups"]) == (len(rows), rows["group"].nunique())


def test_a_fine_tuned_network_has_no_out_of_fold_figures(run):
    fine_tune(run)
    for table in (locked.thresholds(run, 0.9), locked.calibrations(run)):
        assert set(table["judged_on"]) == {TEST}
    assert set(locked.thresholds(run, 0.9)["chosen_on"]) == {"val"}


# -------------------------------------------------------------------- calibration


def test_without_a_temperature_the_probabilities_stay_and_the_note_says_why(run):
    say(run, lambda rows: np.where(rows["label"] == "M", 1.0, -1.0))
    found = locked.calibrations(run).set_index(["method", "judged_on"])
    cooled = found.loc["temperature"]
    assert (cooled["temperature"] == 1).all() and (cooled["note"] == calibration.NO_MISTAKE).all()
    assert (cooled["loss"] == found.loc["none", "loss"]).all()
    assert locked.not_cooled(found.reset_index()).startswith("; no temperature fits those of Mob")


def test_a_threshold_that_calls_all_alike_says_so(run):
    say(run, lambda rows: np.full(len(rows), 0.3))
    found = locked.thresholds(run, 0.9).set_index(["rule", "judged_on"])["note"]
    assert (found.loc[["half", "sensitivity"]] == "calls every image malignant").all()
    assert (found.loc["youden"] == "calls no image malignant").all()


def test_calibrations_hold_before_and_after_on_test(run):
    found = locked.calibrations(run).set_index(["model", "method", "judged_on"])
    assert len(found) == len(ARCHITECTURE_NAMES) * 3 * 2
    for name in ARCHITECTURE_NAMES:
        for method in calibration.METHODS:
            calibrator = calibration.fit(oof(run, name), method)
            rows = on_test(run, name)
            rows["probability"] = calibrator.probability(rows["logit"])
            expected = classification_metrics(rows)
            row = found.loc[(name, method, TEST)]
            if calibration.is_surely_wrong(rows):  # what scikit-learn gives is where it clips
                expected["loss"] = np.nan
            for metric in locked.OF_PROBABILITIES:
                assert row[metric] == pytest.approx(expected[metric], nan_ok=True)
            assert np.isnan(row["loss"]) == row["note"].startswith("no log loss")
            assert row["temperature"] == pytest.approx(calibrator.temperature, nan_ok=True)
    assert (found.xs("none", level="method")["temperature"] == 1).all()


def test_calibrated_rows_are_cross_fitted_out_of_fold(run):
    found = locked.calibrated(run, "mobilenetv2", OUT_OF_FOLD)
    rows = oof(run, "mobilenetv2")
    for fold in rows["fold"].unique():
        here = rows["fold"] == fold
        temperature = calibration.fit(rows[~here], "temperature").temperature
        expected = expit(rows["logit"][here] / temperature)
        assert found["probability"][here].to_numpy() == pytest.approx(expected.to_numpy())
    assert (found["image_id"] == rows["image_id"]).all()


def test_reliabilities_are_those_of_the_judged_rows(run):
    found = locked.reliabilities(run, "none")
    assert tuple(found) == ARCHITECTURE_NAMES
    for name, table in found.items():
        assert table["images"].sum() == len(oof(run, name))


# --------------------------------------------------------------------- abstention


def curve(run, model, by):
    found = locked.abstentions(run)
    return found[(found["model"] == model) & (found["certainty"] == by)].set_index("referred")


def answered(rows, certainty, share):
    """The rows left when the least certain share has been referred, slowly."""
    kept = rows.assign(certainty=certainty).sort_values("certainty", kind="stable")
    return kept.iloc[round(share * len(rows)) :]


def test_the_margin_refers_what_lies_nearest_to_one_half(full_run):
    rows = locked.calibrated(full_run, "mobilenetv2", OUT_OF_FOLD)
    found = curve(full_run, "mobilenetv2", "margin")
    for share in (0.0, 0.2, 0.5):
        kept = answered(rows, (rows["probability"] - 0.5).abs(), share)
        expected = classification_metrics(kept)
        for metric in ("accuracy", "recall", "specificity"):
            assert found.loc[share, metric] == pytest.approx(expected[metric])
    assert (found["judged_on"] == OUT_OF_FOLD).all()


@pytest.mark.parametrize("rule", ["half", "sensitivity"])
def test_the_least_margin_holds_its_share_and_does_not_know_test(run, rule):
    write_table(run, "tables/thresholds.csv", locked.thresholds(run, 0.9))
    rows = oof(run, "inceptionv3")
    table = read_table(run, "tables/thresholds.csv").set_index(["model", "rule"])
    at = table.loc[("inceptionv3", rule), "threshold_logit"].iloc[0]
    temperature = calibration.fit(rows, "temperature").temperature
    limit = locked.least_margin(run, "inceptionv3", rule, 0.2)
    nearer = ((rows["logit"] - at).abs() / temperature < limit).mean()
    assert nearer == pytest.approx(0.2, abs=1 / len(rows))
    assert locked.least_margin(run, "inceptionv3", rule, 0.0) <= limit
    flip_labels(run, "test")
    assert locked.least_margin(run, "inceptionv3", rule, 0.2) == limit


def test_orientations_that_disagree_are_referred(full_run):
    rows = locked.calibrated(full_run, "densenet121", OUT_OF_FOLD)
    table = read_predictions(full_run, "densenet121", turned=True)
    table = table[table["model"] == "oof"]
    doubt = [table.loc[table["image_id"] == i, "logit"].std() for i in rows["image_id"]]
    kept = answered(rows, -np.array(doubt), 0.3)
    expected = classification_metrics(kept)["accuracy"]
    found = curve(full_run, "densenet121", "orientations disagree")
    assert found.loc[0.3, "accuracy"] == pytest.approx(expected)


def test_networks_that_disagree_are_referred(run):
    tables = [
        locked.calibrated(run, n, OUT_OF_FOLD).set_index("image_id") for n in ARCHITECTURE_NAMES
    ]
    logits = pd.DataFrame([np.log(t["probability"] / (1 - t["probability"])) for t in tables])
    rows = pd.DataFrame({"label": tables[0]["label"], "probability": expit(logits.mean())})
    found = curve(run, "ensemble", "networks disagree")
    expected = classification_metrics(answered(rows, -logits.std(), 0.4))["accuracy"]
    assert found.loc[0.4, "accuracy"] == pytest.approx(expected)
    assert found.loc[0.0, "accuracy"] == pytest.approx(classification_metrics(rows)["accuracy"])
    assert curve(run, "mobilenetv2", "orientations disagree").empty


# ------------------------------------------------------------------ decision curve


def test_net_benefits_are_those_of_the_calibrated_probabilities(run):
    found = locked.net_benefits(run).set_index("threshold")
    rows = locked.calibrated(run, "inceptionv3", OUT_OF_FOLD)
    called, truth = rows["probability"] >= 0.3, rows["label"] == "M"
    expected = (called & truth).mean() - (called & ~truth).mean() * 3 / 7
    assert found.loc[0.3, "inceptionv3"] == pytest.approx(expected)
    assert found.loc[0.3, "all"] == pytest.approx(truth.mean() - (~truth).mean() * 3 / 7)
    assert len(found) == 99


def test_the_logit_of_a_certainty_is_finite():
    found = locked.logit_of(pd.Series([0.0, 0.25, 1.0]))
    assert np.isfinite(found).all() and found[1] == pytest.approx(np.log(1 / 3))


# -------------------------------------------------------------------- repeatable


def all_tables(run):
    tables = [locked.thresholds(run, 0.9), locked.calibrations(run)]
    return [*tables, locked.abstentions(run), locked.net_benefits(run)]


def test_the_order_of_rows_changes_nothing_and_twice_is_the_same(full_run):
    keep(full_run, "mobilenetv2", "densenet121")
    first = all_tables(full_run)
    again = all_tables(full_run)
    assert [table.to_csv() for table in again] == [table.to_csv() for table in first]
    for name in trained(full_run):
        table = read_table(full_run, f"{name}/predictions.csv")
        write_table(full_run, f"{name}/predictions.csv", table.sample(frac=1, random_state=1))
    for one, other in zip(first, all_tables(full_run), strict=True):
        pd.testing.assert_frame_equal(other, one)
