"""The table of predictions: keys, never row order; none is read with another split."""

import numpy as np
import pandas as pd
import pytest

from cytology.predictions import (
    COLUMNS,
    by_group,
    mean_over_models,
    prediction_rows,
    read_predictions,
    trained,
)
from cytology.settings import InputError
from cytology.tables import read_json, read_table, write_json, write_table


def pictures(**columns):
    table = pd.DataFrame({"image_id": ["a", "b", "c"], "orientation": 0, "group": ["1", "1", "2"]})
    return table.assign(label=["B", "B", "M"], split="val", fold=0).assign(**columns)


def test_rows_have_float32_logits_and_their_probabilities():
    rows = prediction_rows(pictures(), np.array([[0.0], [-2.0], [30.0]]), "oof", 7)
    assert list(rows) == COLUMNS
    assert rows["logit"].dtype == np.float32
    assert rows["probability"].tolist() == pytest.approx([0.5, 1 / (1 + np.exp(2)), 1])
    assert (rows["model"] == "oof").all() and (rows["seed"] == 7).all()


def test_predictions_come_back(run):
    table = read_predictions(run, "inceptionv3")
    assert list(table) == COLUMNS
    assert not table.duplicated(["image_id", "model", "seed", "orientation"]).any()


def test_predictions_of_another_split_are_refused(run):
    write_json(run, "split.json", read_json(run, "split.json") | {"fingerprint": "another"})
    with pytest.raises(InputError, match="another split than split.csv: run notebook 05_train"):
        read_predictions(run, "inceptionv3")


def test_predictions_of_unknown_images_are_refused(run):
    table = read_table(run, "densenet121/predictions.csv")
    write_table(run, "densenet121/predictions.csv", table.replace(table["image_id"][0], "x.png"))
    with pytest.raises(InputError, match="names images that split.csv does not"):
        read_predictions(run, "densenet121")


def test_missing_predictions_name_their_notebook(run):
    (run / "mobilenetv2" / "predictions.csv").unlink()
    assert trained(run) == ["inceptionv3", "densenet121"]
    with pytest.raises(InputError, match="run notebook 04_train_mobilenetv2 first"):
        read_predictions(run, "mobilenetv2")


def test_an_ensemble_matches_pictures_by_key():
    one = pictures(logit=[1.0, 2.0, 3.0])
    other = pictures(logit=[3.0, 4.0, -9.0]).iloc[[2, 0, 1]]
    mean = mean_over_models([one, other]).set_index("image_id")
    assert mean["logit"].to_dict() == {"a": 2.0, "b": 3.0, "c": -3.0}
    assert mean["label"].to_dict() == {"a": "B", "b": "B", "c": "M"}
    assert mean["probability"]["a"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_group_has_the_mean_logit_of_its_images():
    grouped = by_group(pictures(logit=[1.0, -4.0, 3.0])).set_index("group")
    assert grouped["logit"].to_dict() == {"1": -1.5, "2": 3.0}
    assert grouped["label"].to_dict() == {"1": "B", "2": "M"}


def test_a_group_with_both_classes_has_no_group_level():
    assert by_group(pictures(logit=0.0, label=["B", "M", "M"])) is None
