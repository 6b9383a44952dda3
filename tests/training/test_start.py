"""The start of a training and its results follow the notebook's parameters."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cytology.data.augmentation import augmentation_of
from cytology.data.splitting import judged_pictures, split_facts
from cytology.evaluation.predictions import prediction_rows
from cytology.networks import batches
from cytology.networks.batches import decode, frozen_features
from cytology.networks.engines import TITLES
from cytology.run import Run
from cytology.settings import InputError
from cytology.training import results, start
from cytology.training.recipes import HeadRecipe, Recipe, Stage

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("cache")]
ASKED = {"seed": 0, "data": "", "weights": "random", "batch_size": 8, "accumulate": 1}
ASKED |= {"steps_per_execution": 1, "precision": "float32", "strategy": "one"}
ASKED |= {"engine": "tensorflow"}
ASKED |= {"train_head": True, "head_epochs": 5, "fine_tune": False, "fine_tune_from": ""}
ASKED |= {"epochs": 3, "learning_rate": None, "patience": 0, "deterministic": False}
ASKED |= {"class_weight": "balanced"}
AUGMENTATION = {"image_size": 75, "fit": "pad", "orientations": 4}


@pytest.fixture
def run(data, tmp_path):
    """A run as notebooks 01 to 03 leave it."""
    run = Run(tmp_path, dict(ASKED))
    run.write("dataset.json", {"data": str(data.root), "root": str(data.root), "unit": "patient"})
    run.write("manifest.csv", data.manifest)
    run.write("augmentation.json", AUGMENTATION)
    run.write("split.csv", data.split)
    run.write("split.json", split_facts(data.split, data.manifest, "grouped", "patient", seed=0))
    return run


def test_training_starts_with_the_split_and_images_of_the_run(run, data, cache, monkeypatch):
    monkeypatch.setattr(batches, "decode", partial(decode, cache=cache))
    split, images = start.split_and_images(run)
    assert split["split"].tolist() == data.split["split"].tolist()
    np.testing.assert_array_equal(images.pixels[:], data.images.pixels[:])


def test_too_large_a_batch_is_refused_before_anything_is_decoded(run, monkeypatch):
    monkeypatch.setattr(start, "decode_images", None)
    run.parameters["batch_size"] = 1000
    with pytest.raises(InputError, match="Parameter `batch_size` is 1000"):
        start.split_and_images(run)


@pytest.mark.parametrize(("name", "value"), [("image_size", "75"), ("fit", "crop")])
def test_an_impossible_augmentation_is_refused(run, name, value):
    run.write("augmentation.json", AUGMENTATION | {name: value})
    with pytest.raises(InputError, match=f"Parameter `{name}` is '{value}'; it must be"):
        augmentation_of(run)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_a_network_records_what_its_results_depend_on(
    run, data, cache, engine, monkeypatch, capsys
):
    if engine == "openvino":
        pytest.importorskip("openvino")
    run.parameters["engine"] = engine
    network = start.build_network(run, "mobilenetv2", data.images, data.split)
    assert network.key == ["mobilenetv2", network.weights_hash, 75, "pad", "float32", engine]
    assert repr(network).startswith("MobileNetV2: 2,261,825 parameters, 159 layers, trained in ")
    assert "Random weights, as requested" in network._repr_html_()
    assert f"Frozen features by {TITLES[engine]}: as requested." in network._repr_html_()
    network.model.set_weights([weight * 0 for weight in network.start])
    monkeypatch.setattr(start, "frozen_features", partial(frozen_features, cache=cache))
    features = network.features(
        data.images, data.split
    )  # of the initial weights, despite the change
    assert features.width == 1280 and np.ptp(features.values[:]) > 0
    assert network.passes.engine == engine and features.computed == 96
    assert "96 pictures x 1,280 features" in capsys.readouterr().out
    network.start_again()
    assert all(map(np.array_equal, network.model.get_weights(), network.start))
    run.parameters["train_head"] = False
    assert network.features(data.images, data.split) is None
    assert "train_head is False" in capsys.readouterr().out


def test_no_engine_is_tried_without_a_head_on_frozen_features(run, data, monkeypatch):
    monkeypatch.setattr(start, "choose_engine", None)
    run.parameters["train_head"] = False
    network = start.build_network(run, "mobilenetv2", data.images, data.split)
    assert network.engine.name == network.passes.engine == "tensorflow"


def test_an_unknown_block_is_refused_before_training(run, data):
    run.parameters |= {"fine_tune": True, "fine_tune_from": "block_99"}
    with pytest.raises(InputError, match="Parameter `fine_tune_from` is 'block_99'"):
        start.build_network(run, "mobilenetv2", data.images, data.split)


@pytest.mark.parametrize(("patience", "expected"), [(0, None), (5, 5)])
def test_recipes_follow_the_parameters(run, patience, expected):
    run.parameters["patience"] = patience
    head, tuning = HeadRecipe.of(run, {"final": 1e-3}), Recipe.of(run, "inceptionv3")
    assert head == HeadRecipe(5, "balanced", expected, 0, 4, {"final": 1e-3})
    assert tuning == Recipe(1e-5, 3, 8, "balanced", expected, 0, 4, 1, 1)


# ------------------------------------------------------------------------ results


def stage(split, model, logit, parts):
    """A stage that predicts one logit for the images of some parts."""
    rows = judged_pictures(split[split["split"].isin(parts)])
    predictions = prediction_rows(rows, np.full(len(rows), logit), model, 0)
    return Stage(predictions, pd.DataFrame({"model": [model], "epoch": [1]}))


@pytest.mark.parametrize(("tuned", "on"), [(False, "out-of-fold"), (True, "test")])
def test_the_final_predictions_come_from_the_last_stage(run, data, tuned, on):
    stages = [
        stage(data.split, "oof", 0.0, ["train", "val"]),
        stage(data.split, "final", 1.0, ["val", "test"]),
        stage(data.split, "final", 2.0, ["val", "test"]),
    ][: 3 if tuned else 2]
    network = SimpleNamespace(run=run, architecture="mobilenetv2")
    predictions, history = results.write_tables(network, stages)
    assert len(history) == len(stages)
    assert set(predictions.loc[predictions["model"] == "final", "logit"]) == {2.0 if tuned else 1.0}
    assert run.table("mobilenetv2/predictions.csv")["image_id"].tolist() == list(
        predictions["image_id"]
    )
    judged = results.judge(predictions, data.split, tuned)
    assert judged.on == on and set(judged.test["split"]) == {"test"}
    assert set(judged.rows["model"]) == {"final" if tuned else "oof"}
