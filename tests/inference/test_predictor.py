"""New images: their patients, what was locked before, and how they are judged."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cytology.evaluation.predictions import predictions_fingerprint
from cytology.evaluation.statistics.recalibration import recalibration
from cytology.inference import predictor as inference
from cytology.inference.locked import Decision, locked_decision
from cytology.inference.new_images import Images
from cytology.inference.predictor import (
    Predictor,
    decide,
    external_validation,
    refer,
    with_neighbours,
)
from cytology.inference.similarity import reference
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import read_table, write_table

LOCKED = Decision("sensitivity", "out-of-fold", threshold_logit=-1.0, slope=0.5, intercept=0.25)


def answers(count=60, groups=12, seed=0):
    """A table as `predict_files` makes it, merged with labels and groups of one label each."""
    rng = np.random.default_rng(seed)
    group = np.arange(count) % groups
    truth = group % 2
    return pd.DataFrame(
        {
            "image_id": [f"i{k:03}" for k in range(count)],
            "logit": 2 * truth - 1 + rng.normal(size=count),
            "reason": "",
            "label": np.where(truth, "M", "B"),
            "group": [f"p{g}" for g in group],
        }
    )


def test_the_threshold_applies_to_the_logit_and_the_calibration_to_the_probability():
    table = pd.DataFrame({"image_id": ["a", "b", "c"], "logit": [-1.0, -1.001, None]})
    found = decide(table, LOCKED)
    assert found["predicted"].tolist() == ["M", "B", ""]
    assert found["probability"][0] == pytest.approx(1 / (1 + np.exp(1)))
    assert found["calibrated_probability"][0] == pytest.approx(1 / (1 + np.exp(0.25)))
    assert LOCKED.threshold == pytest.approx(found["calibrated_probability"][0])
    assert np.isnan(found.loc[2, ["probability", "calibrated_probability"]].astype(float)).all()


def test_a_decision_reports_what_is_not_calibrated_or_not_promised():
    assert LOCKED.in_words() == (
        "rule sensitivity, chosen on out-of-fold predictions: malignant at a calibrated "
        "probability of 0.438 or more; calibrated logit: 0.25 + 0.50 x logit"
    )
    raw = Decision("half", "val", 0.0, 1.0, 0.0, "no slope fits: why", "cannot be promised")
    assert raw.in_words().endswith(
        "malignant at an uncalibrated probability of 0.500 or more; calibrated logit: 0.00 + 1.00 "
        "x logit (no slope fits: why); cannot be promised"
    )


def test_external_images_are_evaluated_at_the_locked_operating_point():
    table = decide(answers(), LOCKED)
    found = external_validation(table, LOCKED, "patient").set_index("level")
    truth = table["label"] == "M"
    at_image = found.loc["image"]
    assert at_image["recall"] == recall_score(truth, table["logit"] >= -1)
    assert at_image["specificity"] == recall_score(~truth, table["logit"] < -1)
    assert at_image["auc"] == pytest.approx(roc_auc_score(truth, table["logit"]))
    assert at_image["loss"] == pytest.approx(
        np.log1p(np.exp(-np.where(truth, 1, -1) * (0.25 + table["logit"] / 2))).mean()
    )
    called = table.groupby("group")["logit"].mean() >= -1
    by_patient = table.groupby("group")
    assert found.loc["patient", "recall"] == called[by_patient["label"].first() == "M"].mean()
    assert found["groups"].tolist() == [12, 12] and found["images"].tolist() == [60, 60]
    expected = recalibration(table.assign(logit=0.25 + table["logit"] / 2))
    assert at_image["calibration_slope"] == pytest.approx(expected["calibration_slope"])
    assert (found["malignant_share"] == 0.5).all()


def test_saturated_probabilities_are_distinguished_by_their_logits():
    table = answers().assign(logit=lambda rows: np.where(rows["label"] == "M", 90.0, 80.0))
    sure = Decision("youden", "val", 85.0, 1.0, 0.0)
    found = external_validation(decide(table, sure), sure, "")
    assert (found[["recall", "specificity", "precision", "mcc"]] == 1).all(axis=None)


def test_row_order_and_unreadable_files_change_nothing():
    table = decide(answers(), LOCKED)
    broken = pd.DataFrame([{"image_id": "x", "label": "M", "group": "", "reason": "not an image"}])
    other = pd.concat([broken, table.sample(frac=1, random_state=1)])
    pd.testing.assert_frame_equal(
        external_validation(table, LOCKED, "slide"), external_validation(other, LOCKED, "slide")
    )


def test_images_of_unknown_patients_count_individually():
    table = decide(answers().assign(group=""), LOCKED)
    found = external_validation(table, LOCKED, "")
    assert found["level"].tolist() == ["image"] and found["groups"].tolist() == [60]


def test_the_locked_operating_point_is_read_by_network_and_rule(run):
    rows = [
        ("mobilenetv2", "half", "test", 0.0), ("mobilenetv2", "youden", "test", 0.3),
        ("densenet121", "youden", "test", 0.7),
    ]  # fmt: skip
    columns = ["model", "rule", "judged_on", "threshold_logit"]
    same = predictions_fingerprint(Run(run), "mobilenetv2")
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(chosen_on="val", predictions=same, note="few")
    write_table(run, "tables/thresholds.csv", table)
    methods = [("mobilenetv2", "none", 1.0, 0.0, ""), ("mobilenetv2", "platt", 0.7, 0.2, "why")]
    table = pd.DataFrame(methods, columns=["model", "method", "slope", "intercept", "note"])
    write_table(run, "tables/calibration.csv", table)
    found = locked_decision(Run(run), "mobilenetv2", "youden")
    assert found == Decision("youden", "val", 0.3, 0.7, 0.2, "why", "few")
    other = read_table(run, "densenet121/predictions.csv")
    write_table(run, "mobilenetv2/predictions.csv", other)
    with pytest.raises(InputError, match="trained again after its threshold was chosen"):
        locked_decision(Run(run), "mobilenetv2", "youden")
    with pytest.raises(InputError, match="have no densenet121: run notebook 08 again"):
        locked_decision(Run(run), "densenet121", "youden")
    with pytest.raises(InputError, match="thresholds.csv is missing .*run notebook 08"):
        locked_decision(Run(run / "other"), "mobilenetv2", "half")


def test_votes_use_the_locked_threshold_and_the_majority():
    table = decide(answers(), LOCKED)
    found = external_validation(table, LOCKED, "patient", "vote").set_index("level").loc["patient"]
    shares = (table["logit"] >= -1).groupby(table["group"]).mean()
    truth = table.groupby("group")["label"].first() == "M"
    assert found["accuracy"] == ((shares >= 0.5) == truth).mean()
    assert np.isnan(found[["loss", "brier", "ece", "ace"]].astype(float)).all()


@pytest.fixture
def known():
    """40 training images, each of another group."""
    table = pd.DataFrame({"image_id": [f"t{k:02}" for k in range(40)], "label": list("BM") * 20})
    values = np.random.default_rng(0).normal(size=(40, 5))
    return reference(table.assign(group=table["image_id"]), values)


def test_images_unlike_training_are_recognized_by_their_nearest_neighbour(known):
    asked = pd.DataFrame({"image_id": ["near", "broken", "far"], "logit": [1.0, np.nan, 2.0]})
    found = with_neighbours(asked, np.stack([known.values[7] + 0.01, known.values[7] + 30]), known)
    assert found["unlike_training"].tolist() == [False, False, True]
    assert found.loc[0, ["nearest", "nearest_label"]].tolist() == ["t07", "M"]
    assert found.loc[1, "nearest"] == "" and np.isnan(found.loc[1, "distance"])
    nothing = with_neighbours(asked.iloc[[1]].reset_index(drop=True), np.empty((0, 5)), known)
    assert not nothing["unlike_training"].any()


def test_referred_images_have_a_reason():
    logit = [-1.5, -1.0, 3.0, 3.0, np.nan]
    table = pd.DataFrame({"logit": logit, "unlike_training": [False, False, True, False, False]})
    found = refer(table, LOCKED, least_margin=0.4)  # the threshold is -1, the slope 0.5
    assert found["refer"].tolist() == [True, True, True, False, True]
    assert found["refer_why"].tolist() == [
        "too near the threshold",
        "too near the threshold",
        "unlike all training images",
        "",
        "no prediction",
    ]
    assert refer(table, LOCKED, 0.2)["refer"].tolist() == [False, True, True, False, True]
    everyone = refer(table, LOCKED, 0.4, every=True)
    assert everyone["refer"].all() and everyone["refer_why"][3] == "of neither class"


def test_the_answers_include_a_row_for_every_file_even_refused_ones(known, monkeypatch, tmp_path):
    """The network is replaced: this tests how the rest is put together."""

    def predicted(model, passes, root, ids, fit, batch_size):
        assert passes is made_by and (root, ids, fit, batch_size) == (
            tmp_path,
            ["b", "a", "c"],
            "pad",
            8,
        )
        logits = pd.DataFrame({"image_id": ids, "logit": [3.0, np.nan, -4.0], "converted": ""})
        return logits.assign(reason=["", "not an image", ""]), known.values[[4, 9]] + 0.01

    monkeypatch.setattr(inference, "predict_files", predicted)
    asked = pd.DataFrame({"image_id": ["b", "a", "c"], "label": ["M", "", "B"], "group": "p"})
    refused = pd.DataFrame({"image_id": ["d.png"], "reason": ["a folder"]})
    about = {"fit": "pad", "weights": "random", "protocol": "grouped"}
    made_by = SimpleNamespace(engine="openvino")
    predictor = Predictor(None, made_by, about, LOCKED, known, least_margin=0.1, batch_size=8)
    found = predictor.predict(Images(tmp_path, asked, "patient", refused)).set_index("image_id")
    assert found["predicted"].to_dict() == {"b": "M", "a": "", "c": "B", "d.png": ""}
    assert found["nearest"].to_dict() == {"b": "t04", "a": "", "c": "t09", "d.png": ""}
    assert found["label"].to_dict() == {"b": "M", "a": "", "c": "B", "d.png": ""}
    assert found["refer"].to_dict() == {"b": False, "a": True, "c": False, "d.png": True}
    assert set(found["engine"]) == {"openvino"}
    assert found.loc[["a", "d.png"], "reason"].tolist() == ["not an image", "a folder"]
    alone = predictor.predict(Images(tmp_path, asked, "", of_neither_class=True))
    assert alone["refer"].all() and len(alone) == 3
    assert (alone["calibrated_threshold"] == LOCKED.threshold).all()

    nothing = pd.DataFrame(columns=["image_id", "logit", "reason", "converted"])
    monkeypatch.setattr(inference, "predict_files", lambda *_: (nothing, np.empty((0, 5))))
    only = predictor.predict(Images(tmp_path, asked.iloc[:0], "", refused))
    said = only[["image_id", "reason", "predicted", "refer"]].to_numpy().tolist()
    assert said == [["d.png", "a folder", "", True]]
