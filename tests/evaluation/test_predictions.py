"""The table of predictions: keys, never row order; none is read with another split."""

import os

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cytology.evaluation.predictions import (
    PREDICTION_COLUMNS,
    as_taken,
    by_group,
    mean_logits,
    prediction_rows,
    read_predictions,
    surest_of_groups,
)
from cytology.parameters import choices
from cytology.settings import InputError


def pictures(**columns):
    table = pd.DataFrame({"image_id": ["a", "b", "c"], "orientation": 0, "group": ["1", "1", "2"]})
    return table.assign(label=["B", "B", "M"], split="val", fold=0).assign(**columns)


def test_rows_have_float32_logits_and_their_probabilities():
    rows = prediction_rows(pictures(), np.array([[0.0], [-2.0], [30.0]]), "oof", 7)
    assert list(rows) == PREDICTION_COLUMNS
    assert rows["logit"].dtype == np.float32
    assert rows["probability"].tolist() == pytest.approx([0.5, 1 / (1 + np.exp(2)), 1])
    assert (rows["model"] == "oof").all() and (rows["seed"] == 7).all()


def test_predictions_are_read_as_written(run):
    table = read_predictions(run, "inceptionv3")
    assert list(table) == PREDICTION_COLUMNS
    assert not table.duplicated(["image_id", "model", "seed", "orientation"]).any()


def test_predictions_of_another_split_are_refused(run):
    run.write("split.json", run.facts("split.json") | {"fingerprint": "another"})
    with pytest.raises(
        InputError, match="made with a split that differs from split.csv: run notebook 05_train"
    ):
        read_predictions(run, "inceptionv3")


def test_predictions_of_unknown_images_are_refused(run):
    table = run.table("densenet121/predictions.csv")
    run.write("densenet121/predictions.csv", table.replace(table["image_id"][0], "x.png"))
    with pytest.raises(InputError, match="names images that are not in split.csv"):
        read_predictions(run, "densenet121")


def test_an_error_about_missing_predictions_names_their_notebook(run):
    (run / "mobilenetv2" / "predictions.csv").unlink()
    assert run.networks == ["inceptionv3", "densenet121"]
    with pytest.raises(InputError, match="run notebook 04_train_mobilenetv2 first"):
        read_predictions(run, "mobilenetv2")


# ------------------------------------------------------------------------ reading


def test_a_changed_table_is_read_again_and_a_reader_may_modify_its_copy(run):
    first = read_predictions(run, "mobilenetv2")
    first["logit"] = 0.0
    again = read_predictions(run, "mobilenetv2")
    assert again["logit"].abs().min() > 0
    path = run / "mobilenetv2/predictions.csv"
    run.write("mobilenetv2/predictions.csv", again.assign(logit=7.0))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert (read_predictions(run, "mobilenetv2")["logit"] == 7).all()


def test_rotated_pictures_are_read_only_on_request(full_run):
    taken = read_predictions(full_run, "mobilenetv2")
    turned = read_predictions(full_run, "mobilenetv2", turned=True)
    assert set(taken["orientation"]) == {0} and set(turned["orientation"]) == {0, 1, 2, 3}
    assert len(turned) == 4 * len(taken)
    pd.testing.assert_frame_equal(turned[turned["orientation"] == 0], taken)


def test_under_the_original_protocol_a_rotated_picture_counts_as_an_image():
    rows = pictures(orientation=[0, 1, 2])
    assert len(as_taken(rows, pictures())) == 3
    assert as_taken(rows, pictures().drop(columns="orientation"))["image_id"].tolist() == ["a"]


# ---------------------------------------------------------------------- ensembles


def test_an_ensemble_matches_pictures_by_key():
    one = pictures(logit=[1.0, 2.0, 3.0])
    other = pictures(logit=[3.0, 4.0, -9.0]).iloc[[2, 0, 1]]
    mean = mean_logits(pd.concat([one, other])).set_index("image_id")
    assert mean["logit"].to_dict() == {"a": 2.0, "b": 3.0, "c": -3.0}
    assert mean["label"].to_dict() == {"a": "B", "b": "B", "c": "M"}
    assert mean["probability"]["a"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_test_image_without_a_fold_is_kept_in_an_ensemble():
    rows = pictures(logit=[1.0, 2.0, 3.0], fold=[0.0, np.nan, np.nan])
    assert mean_logits(pd.concat([rows, rows]))["logit"].tolist() == [1.0, 2.0, 3.0]


def test_rotated_pictures_are_averaged_separately_unless_they_share_an_orientation():
    rows = pd.concat([pictures(logit=1.0), pictures(logit=3.0, orientation=1)])
    assert mean_logits(rows)["logit"].tolist() == [1.0, 3.0] * 3
    assert mean_logits(rows.assign(orientation=0))["logit"].tolist() == [2.0] * 3


# ------------------------------------------------------------------------- groups

LOGITS = [1.0, -4.0, 3.0]
GROUPED = {
    "mean_logit": expit(-1.5),
    "mean_probability": (expit(1) + expit(-4)) / 2,
    "highest": expit(1),
    "vote": 0.5,
}


@pytest.mark.parametrize("rule", choices("group_rule"))
def test_each_group_rule_matches_a_hand_calculation(rule):
    rows = pictures(logit=LOGITS, probability=expit(LOGITS)).iloc[[2, 0, 1]]
    grouped = by_group(rows, rule).set_index("group")
    assert grouped["probability"]["1"] == pytest.approx(GROUPED[rule])
    assert grouped["probability"]["2"] == pytest.approx(1 if rule == "vote" else expit(3))
    assert grouped["label"].to_dict() == {"1": "B", "2": "M"}
    assert grouped["images"].to_dict() == {"1": 2, "2": 1}


def test_a_group_with_both_classes_has_one_prediction_of_each():
    rows = pictures(logit=LOGITS, probability=expit(LOGITS), label=["B", "M", "M"])
    found = by_group(rows).set_index(["group", "label"])
    assert found["logit"].to_dict() == {("1", "B"): 1.0, ("1", "M"): -4.0, ("2", "M"): 3.0}
    assert found["images"].tolist() == [1, 1, 1]


def test_group_predictions_keep_the_fold():
    """So its rows are recognized as cross-validated; test images have no fold."""
    rows = pictures(logit=LOGITS, probability=expit(LOGITS))
    found = by_group(rows.assign(fold=[2.0, 2.0, np.nan])).set_index("group")["fold"]
    assert found["1"] == 2 and np.isnan(found["2"])
    assert "fold" not in by_group(rows.drop(columns="fold"))


def test_the_most_certain_image_of_each_group_comes_first():
    rows = pd.DataFrame({"image_id": list("abcd"), "group": list("xyxz"), "logit": [1, -5, -2, 3]})
    assert surest_of_groups(rows, 2)["image_id"].tolist() == ["b", "d"]
    assert surest_of_groups(rows, 9)["image_id"].tolist() == ["b", "d", "c"]
