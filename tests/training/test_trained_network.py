"""A small network of random weights with a trained head: what is computed with it.

Tiny pictures: what is tested is who sees what, never how well it does.
"""

import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from PIL import Image

from cytology.audits.leakage import features_of_run
from cytology.data.augmentation import pictures_of
from cytology.data.splitting import judged_pictures, split_facts, training_pictures
from cytology.inference import predictor
from cytology.inference.new_images import images_in
from cytology.networks import batches as pipeline
from cytology.networks import features as feature_cache
from cytology.networks import model_files
from cytology.networks.backend import keras
from cytology.networks.batches import DecodedImages, decode, frozen_features
from cytology.networks.building import build, feature_extractor, put_head
from cytology.networks.features import FeatureStore
from cytology.networks.passes import KerasPasses
from cytology.networks.weights import Weights
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import write_json, write_table
from cytology.training import backbone
from cytology.training.backbone import with_weights
from cytology.training.fine_tuning import predict_logits
from cytology.training.head_training import train_final_head
from cytology.training.recipes import HeadRecipe

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("cache")]
SIZE = 75
KEY = ["mobilenetv2", "hash of the weights", SIZE, "pad", "float32", "tensorflow"]
RANDOM = Weights("random", None, "Random weights.")
STRENGTHS = dict(zip(["fold0", "fold1", "fold2", "final"], [3e-3, 1e-3, 1e-2, 1e-3], strict=True))
RECIPE = HeadRecipe(200, "balanced", patience=None, seed=0, orientations=4, strengths=STRENGTHS)


@pytest.fixture(scope="module")
def trained(data, cache):
    """A MobileNetV2 with a trained head: model, features, predictions and history."""
    model, weights_hash = with_weights("mobilenetv2", RANDOM, data.images, data.split, seed=0)
    passes, key = KerasPasses(feature_extractor(model)), [*KEY[:1], weights_hash, *KEY[2:]]
    pictures = training_pictures(data.split, 4)
    features = frozen_features(passes, data.images, pictures, key, 16, cache=cache)
    stage = train_final_head(features, data.split, RECIPE)
    put_head(model, stage.heads["final"])
    return SimpleNamespace(
        model=model,
        passes=passes,
        name=weights_hash,
        features=features,
        rows=stage.predictions,
        history=stage.history,
    )


def test_random_weights_depend_on_the_seed(trained):
    def kernel(model):
        return model.get_layer("Conv1").get_weights()[0]

    expected = kernel(trained.model)  # built with seed 0
    assert np.array_equal(kernel(build("mobilenetv2", SIZE, seed=0)), expected)
    assert not np.array_equal(kernel(build("mobilenetv2", SIZE, seed=1)), expected)


def test_random_weights_of_other_shapes_are_not_used(data, tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "CACHE", tmp_path)
    monkeypatch.setattr(backbone, "calibrate_normalization", lambda model, feed: None)
    found = []
    for width in (2, 3, 3):
        layers = [keras.Input((4,)), keras.layers.Dense(width)]
        model = keras.Sequential(layers, name="mobilenetv2")
        monkeypatch.setattr(backbone, "build", lambda *_, model=model: model)
        found.append(backbone.random_weights(model, data.images, data.split, seed=0))
    assert found[0] != found[1] == found[2]


def test_rounding_differences_do_not_change_the_name_of_a_random_network(
    data, trained, tmp_path, monkeypatch
):
    """So a run can continue on another processor."""
    monkeypatch.setattr(backbone, "CACHE", tmp_path)
    monkeypatch.setattr(backbone, "calibrate_normalization", lambda model, feed: None)
    assert with_weights("mobilenetv2", RANDOM, data.images, data.split, seed=0)[1] == trained.name
    assert with_weights("mobilenetv2", RANDOM, data.images, data.split, seed=1)[1] != trained.name


def test_calibration_uses_no_test_image_and_is_cached_for_the_next_run(
    data, trained, cache, tmp_path, monkeypatch
):
    def calibrated(changed):
        pixels = np.array(data.images.pixels)
        rows = data.images.row[data.split.loc[data.split["split"] == changed, "image_id"]]
        pixels[rows] = 255 - pixels[rows]
        images = DecodedImages(pixels, data.images.row, data.images.sha256)
        model, _ = with_weights("mobilenetv2", RANDOM, images, data.split, seed=0)
        return normalizations(model)[0].moving_mean.numpy()

    expected = normalizations(trained.model)[0].moving_mean.numpy()
    assert abs(expected).max() > 0
    monkeypatch.setattr(backbone, "CACHE", tmp_path)
    assert_close(calibrated("test"), expected)
    monkeypatch.setattr(backbone, "CACHE", cache)
    monkeypatch.setattr(backbone, "calibrate_normalization", None)
    np.testing.assert_array_equal(calibrated("nothing"), expected)
    with pytest.raises(TypeError):  # other pictures: calibrated again
        calibrated("train")


def normalizations(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_the_audit_recomputes_the_features_of_the_run_and_refuses_other_weights(
    data, trained, cache, tmp_path, monkeypatch, engine
):
    if engine == "openvino":
        pytest.importorskip("openvino")
    model, weights_hash = with_weights("mobilenetv2", RANDOM, data.images, data.split, seed=0)
    about = dict(zip(feature_cache.KEY, KEY, strict=True)) | {"weights": "random", "seed": 0}
    about |= {"weights_hash": weights_hash, "engine": engine}
    write_json(tmp_path, "mobilenetv2/metrics.json", about)
    write_table(tmp_path, "manifest.csv", data.manifest)
    write_table(tmp_path, "split.csv", data.split)
    described = split_facts(data.split, data.manifest, "grouped", "patient", seed=0)
    write_json(tmp_path, "split.json", described)
    fresh = tmp_path / "cache"  # without features: they must be computed here
    monkeypatch.setattr(feature_cache, "FeatureStore", partial(FeatureStore, cache=fresh))
    monkeypatch.setattr(backbone, "decode", partial(decode, cache=fresh))
    monkeypatch.setattr(pipeline, "frozen_features", partial(frozen_features, cache=fresh))
    write_json(tmp_path, "dataset.json", {"data": str(data.root), "root": str(data.root)})
    run = Run(tmp_path, {"weights": "random", "batch_size": 8, "data": ""})
    found = features_of_run(run, "mobilenetv2", data.manifest[:6], 2)
    pictures = pictures_of(data.manifest[:6], 2)
    assert_close(found.of(pictures), trained.features.of(pictures))
    assert found.computed == 12
    write_json(tmp_path, "mobilenetv2/metrics.json", about | {"fit": "stretch"})
    path = tmp_path / "mobilenetv2.weights.h5"
    feature_extractor(model).save_weights(path)  # without its head, as Keras publishes them
    run = Run(tmp_path, run.parameters | {"weights": str(path)})
    with pytest.raises(InputError, match="mobilenetv2 was trained with other weights"):
        features_of_run(run, "mobilenetv2", data.manifest[:6], 2)


def test_the_network_with_its_head_gives_the_same_logits(data, trained):
    pictures = trained.rows.sample(frac=1, random_state=1)
    logits = predict_logits(trained.model, data.images, pictures, 5)
    assert_close(logits, pictures["logit"])
    assert np.ptp(logits) > 0.1
    assert set(trained.rows["split"]) == {"val", "test"}
    assert trained.history["model"].unique().tolist() == ["final"]


def test_the_speed_is_measured(data, trained):
    assert model_files.images_per_second(trained.passes, data.images, 4) > 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained):
    """A run folder that holds the trained model."""
    run = Run(tmp_path_factory.mktemp("run"))
    (path,) = model_files.save_model(trained.model, run)
    about = {"fit": "pad", "image_size": SIZE, "precision": "float32", "engine": "tensorflow"}
    about |= {"fine_tuned": False}
    write_json(run, "mobilenetv2/metrics.json", about | model_files.about_file(path))
    return run


def test_files_are_predicted_as_in_training_and_broken_ones_have_a_reason(
    data, trained, finished, tmp_path, smear
):
    shutil.copytree(data.root, tmp_path / "new")
    whole = (data.root / "B" / "p000_0.png").read_bytes()
    (tmp_path / "new" / "B" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "new" / "text.jpg").write_text("no image")
    (tmp_path / "new" / "notes.txt").write_text("not looked at")
    model, about = model_files.load_trained(finished, "mobilenetv2")
    Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80)).save(tmp_path / "new/16.png")
    names, _ = images_in(tmp_path / "new", tmp_path / "new")
    passes = model_files.passes_of_model(finished, model)
    asked = (model, passes, tmp_path / "new", names, about["fit"])
    table, features = predictor.predict_files(*asked, 5)
    assert table["image_id"].tolist() == names and len(names) == 27
    converted = table.set_index("image_id")["converted"]
    assert converted["16.png"].startswith("16-bit grey: scaled by its own range")
    assert (converted.drop("16.png") == "").all()
    table = table[table["image_id"] != "16.png"]
    features = np.delete(features, names.index("16.png"), axis=0)
    readable = table.loc[table["reason"] == "", "image_id"]
    expected = trained.features.of(pd.DataFrame({"image_id": readable, "orientation": 0}))
    assert_close(features, expected)
    table = table.set_index("image_id")
    assert list(table) == ["logit", "reason", "converted"]
    assert table.loc["text.jpg", "reason"] == "not a JPEG, PNG, BMP or TIFF image"
    assert table.loc["B/cut.png", "reason"].startswith("damaged: ")
    broken = table["reason"] != ""
    assert broken.sum() == 2 and table.loc[broken, "logit"].isna().all()
    pictures = judged_pictures(data.split)
    logits = predict_logits(trained.model, data.images, pictures, 7)
    found = table.loc[pictures["image_id"]]
    assert_close(found["logit"].astype(float), logits)


def test_a_folder_of_broken_files_gives_a_table_of_reasons(trained, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    asked = (trained.model, trained.passes, tmp_path, ["a.png"], "pad")
    table, features = predictor.predict_files(*asked)
    assert features.shape == (0, 1280)
    assert (
        table["reason"].tolist() == ["not a JPEG, PNG, BMP or TIFF image"]
        and table["logit"].isna().all()
    )


def test_the_labels_of_test_change_no_final_head(trained, data):
    other = data.split["label"].map({"B": "M", "M": "B"})
    changed = data.split.assign(
        label=data.split["label"].mask(data.split["split"] == "test", other)
    )
    found = train_final_head(trained.features, changed, RECIPE).predictions
    keys = ["image_id", "orientation"]
    logits = [rows.set_index(keys)["logit"].sort_index() for rows in (found, trained.rows)]
    assert_close(*logits)
