"""Everything that needs TensorFlow: networks, caches, training, inference.

Tiny pictures and random weights: what is tested is who sees what, never how well it does.
"""

import logging
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from PIL import Image
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytology.architectures import ARCHITECTURES
from cytology.audits import judged_images
from cytology.data.augmentation import fit_to_square, orient, pictures_of
from cytology.data.images.opening import open_rgb
from cytology.data.inspection import inspect_images
from cytology.data.load import load
from cytology.data.splitting import (
    describe,
    judged_pictures,
    split_by_group,
    split_pictures_at_random,
    training_pictures,
)
from cytology.inference import predictor
from cytology.inference.new_images import images_in
from cytology.networks import batches as pipeline
from cytology.networks import features as feature_cache
from cytology.networks import model_files
from cytology.networks.backend import keras, tf
from cytology.networks.batches import DecodedImages, batches, decode, frozen_features
from cytology.networks.building import (
    build,
    calibrate_normalization,
    feature_extractor,
    freeze_normalization,
    head_layers,
    linear_head,
    put_head,
)
from cytology.networks.features import Features, FeatureStore
from cytology.networks.linear_head import LinearHead
from cytology.networks.weights import Weights
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import write_json, write_table
from cytology.training import backbone
from cytology.training.backbone import network
from cytology.training.fine_tuning import predict_logits
from cytology.training.head_training import (
    HeadRecipe,
    class_weights,
    compile_model,
    cross_validate_head,
    epochs_in_words,
    orientations_tried,
    train_final_head,
    train_head,
)
from cytology.training.strengths import choose_strengths

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("cache")]
SIZE = 75
RECIPE = HeadRecipe(epochs=200, class_weight="balanced", patience=None, seed=0)
STOPPING = HeadRecipe(200, "balanced", patience=1, seed=0)
STRENGTHS = dict(zip(["fold0", "fold1", "fold2", "final"], [3e-3, 1e-3, 1e-2, 1e-3], strict=True))
KEY = ["mobilenetv2", "hash of the weights", SIZE, "pad", "float32"]
RANDOM = Weights("random", None, "Random weights.")


@pytest.fixture(scope="module")
def trained(data, cache):
    """A MobileNetV2 with a trained head: model, features, predictions and history."""
    model, weights_hash = network("mobilenetv2", RANDOM, data.images, data.split, seed=0)
    extractor, key = feature_extractor(model), [*KEY[:1], weights_hash, *KEY[2:]]
    pictures = training_pictures(data.split, 4)
    features = frozen_features(extractor, data.images, pictures, key, 16, cache=cache)
    rows, history, _ = train_final_head(model, features, data.split, 4, RECIPE, STRENGTHS)
    return SimpleNamespace(
        model=model, name=weights_hash, features=features, rows=rows, history=history
    )


@pytest.fixture(scope="module")
def toy():
    """Features without a network: 40 groups, 3 images each, half of 6 features know the class.

    `done` maps a recipe to what `cross_validate_head` made of them.
    """
    rng = np.random.default_rng(0)
    rows = [
        (f"g{g:02}/{i}", f"g{g:02}", "M" if g % 4 == 0 else "B")
        for g in range(40)
        for i in range(3)
    ]
    manifest = pd.DataFrame(rows, columns=["image_id", "group", "label"])
    split = split_by_group(manifest, 3, 0.2, 0.2, seed=0)
    pictures = pictures_of(manifest, 4)
    shift = np.where(pictures["label"] == "M", 1.5, 0)[:, None] * [1, 1, 1, 0, 0, 0]
    values = (rng.normal(size=(len(pictures), 6)) + shift).astype(np.float32)
    index = pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
    features = Features(values, index, 0, 0.0)
    done = {
        recipe: cross_validate_head(features, split, 4, recipe, STRENGTHS)
        for recipe in (RECIPE, STOPPING)
    }
    return SimpleNamespace(split=split, features=features, done=done)


def keyed(rows, column="logit"):
    return rows.set_index(["model", "image_id", "orientation"])[column].sort_index()


def flip(split, rows):
    """The split with the labels of `rows` exchanged."""
    other = split["label"].map({"B": "M", "M": "B"})
    return split.assign(label=split["label"].mask(rows, other))


# ---------------------------------------------------------------------- networks


def test_a_network_has_its_own_preprocessing_and_loads_again(each_network, tmp_path):
    name = each_network
    model = build(name, SIZE)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    module = {"mobilenetv2": "mobilenet_v2", "inceptionv3": "inception_v3"}.get(name, "densenet")
    expected = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    scaled = model.get_layer("preprocess")(pixels)
    np.testing.assert_allclose(scaled, expected, atol=2e-5)

    calibrate_normalization(model, [pixels])  # without, a random network is blind
    kernel = np.random.default_rng(1).normal(size=(model.get_layer("features").output.shape[1], 1))
    model.get_layer("logit").set_weights([kernel, np.array([0.3])])
    logits = model.predict_on_batch(pixels)
    assert logits.shape == (3, 1) and logits.dtype == np.float32 and np.ptp(logits) > 0.01

    saved = model_files.save_model(model, tmp_path)
    names = ["model.keras", "model.h5"] if name == "densenet121" else ["model.keras"]
    assert [path.name for path in saved] == names
    for path in saved:
        assert path.parent == tmp_path / name
        assert model_files.largest_difference(path, model, pixels) < 1e-4


def test_too_small_a_picture_is_refused():
    with pytest.raises(InputError, match="`image_size` is 74; InceptionV3 needs at least 75"):
        build("inceptionv3", 74)


def test_the_seed_decides_the_random_weights(trained):
    def kernel(model):
        return model.get_layer("Conv1").get_weights()[0]

    expected = kernel(trained.model)  # built with seed 0
    assert np.array_equal(kernel(build("mobilenetv2", SIZE, seed=0)), expected)
    assert not np.array_equal(kernel(build("mobilenetv2", SIZE, seed=1)), expected)


def test_calibrated_statistics_are_the_mean_over_the_batches():
    image = keras.Input((4, 4, 2))
    normal = keras.layers.BatchNormalization(momentum=0.9, name="normal")(image)
    pooled = keras.layers.GlobalAveragePooling2D(name="features")(normal)
    model = keras.Model(image, pooled)
    data = np.random.default_rng(0).normal(3, 2, (5, 6, 4, 4, 2)).astype(np.float32)
    calibrate_normalization(model, data)
    layer = model.get_layer("normal")
    np.testing.assert_allclose(layer.moving_mean, data.mean(axis=(0, 1, 2, 3)), rtol=1e-4)
    variance = data.var(axis=(1, 2, 3)).mean(axis=0)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
    assert layer.momentum == 0.9 and not layer.trainable


def test_random_weights_of_other_shapes_are_not_taken(data, tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "CACHE", tmp_path)
    monkeypatch.setattr(backbone, "calibrate_normalization", lambda model, feed: None)
    found = []
    for width in (2, 3, 3):
        layers = [keras.Input((4,)), keras.layers.Dense(width)]
        model = keras.Sequential(layers, name="mobilenetv2")
        monkeypatch.setattr(backbone, "build", lambda *_, model=model: model)
        found.append(backbone.random_weights(model, data.images, data.split, seed=0))
    assert found[0] != found[1] == found[2]


def test_a_random_network_made_with_other_digits_has_the_same_name(
    data, trained, tmp_path, monkeypatch
):
    """So a run goes on on another processor."""
    monkeypatch.setattr(backbone, "CACHE", tmp_path)
    monkeypatch.setattr(backbone, "calibrate_normalization", lambda model, feed: None)
    assert network("mobilenetv2", RANDOM, data.images, data.split, seed=0)[1] == trained.name
    assert network("mobilenetv2", RANDOM, data.images, data.split, seed=1)[1] != trained.name


def test_calibration_sees_no_test_image_and_is_kept_for_the_next_run(
    data, trained, cache, tmp_path, monkeypatch
):
    def calibrated(changed):
        pixels = np.array(data.images.pixels)
        rows = data.images.row[data.split.loc[data.split["split"] == changed, "image_id"]]
        pixels[rows] = 255 - pixels[rows]
        images = DecodedImages(pixels, data.images.row, data.images.sha256)
        model, _ = network("mobilenetv2", RANDOM, images, data.split, seed=0)
        return normalizations(model)[0].moving_mean.numpy()

    expected = normalizations(trained.model)[0].moving_mean.numpy()
    assert abs(expected).max() > 0
    monkeypatch.setattr(backbone, "CACHE", tmp_path)
    assert_close(calibrated("test"), expected)
    monkeypatch.setattr(backbone, "CACHE", cache)
    monkeypatch.setattr(backbone, "calibrate_normalization", None)
    np.testing.assert_array_equal(calibrated("nothing"), expected)
    with pytest.raises(TypeError):  # other pictures are looked at: calibrated anew
        calibrated("train")


def normalizations(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


# ------------------------------------------------------------------ decoded images


def test_an_image_is_decoded_once_and_found_by_its_name(data, tmp_path, monkeypatch):
    for name in data.manifest["image_id"]:
        expected = fit_to_square(open_rgb(data.root / name), SIZE, "pad")
        np.testing.assert_array_equal(data.images.pixels[data.images.row[name]], expected)
    first = decode(data.root, data.manifest, 75, "stretch", tmp_path)
    shuffled = data.manifest.sample(frac=1, random_state=0)
    again = decode(tmp_path / "gone", shuffled, 75, "stretch", tmp_path)
    for name in data.manifest["image_id"]:
        np.testing.assert_array_equal(again.pixels[again.row[name]], first.pixels[first.row[name]])
    assert not np.array_equal(first.pixels, data.images.pixels)
    assert list((tmp_path / "images").iterdir()) != []
    monkeypatch.setattr(pipeline, "READING", "other code")
    with pytest.raises(InputError, match="can no longer be read"):  # so it was looked for
        decode(tmp_path / "gone", shuffled, 75, "stretch", tmp_path)


def test_decoding_goes_on_where_it_was_interrupted(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "rows_of_a_pack", lambda shape, dtype: 5)
    opened = []

    def breaks_after(count):
        def open_some(path):
            if len(opened) == count:
                raise KeyboardInterrupt
            opened.append(path.name)
            return open_rgb(path)

        return open_some

    monkeypatch.setattr(pipeline, "cores", lambda: 1)
    monkeypatch.setattr(pipeline, "open_rgb", breaks_after(13))
    with pytest.raises(KeyboardInterrupt):
        decode(data.root, data.manifest, SIZE, "pad", tmp_path)
    kept = sum(len(np.load(pack)) for pack in tmp_path.glob("images/*/*.npy"))
    assert kept in (9, 10)  # two packs; the smallest of the five has four images
    del opened[:]
    monkeypatch.setattr(pipeline, "open_rgb", breaks_after(24))
    images = decode(data.root, data.manifest, SIZE, "pad", tmp_path)
    assert len(opened) == 24 - kept
    for name in data.manifest["image_id"]:
        expected = data.images.pixels[data.images.row[name]]
        np.testing.assert_array_equal(images.pixels[images.row[name]], expected)


def test_a_changed_or_doubled_image_meets_no_stale_pixels(data, tmp_path, smear):
    root = tmp_path / "data"
    shutil.copytree(data.root, root)
    decode(root, data.manifest, 75, "pad", tmp_path)
    smear(12345).save(root / "B" / "p000_0.png")
    shutil.copy(root / "B" / "p002_0.png", root / "B" / "p002_1.png")
    readable, _ = inspect_images(load(str(root)), tmp_path)
    images = decode(root, readable, 75, "pad", tmp_path)
    expected = fit_to_square(smear(12345), 75, "pad")
    np.testing.assert_array_equal(images.pixels[images.row["B/p000_0.png"]], expected)
    assert images.row["B/p002_0.png"] == images.row["B/p002_1.png"]
    assert len(images.pixels) == 23


# ----------------------------------------------------------------------- batches


def test_pictures_labels_and_weights_stay_together_when_shuffled(data):
    pictures = pictures_of(data.split, 8)[["image_id", "orientation", "label"]]
    pictures["weight"] = np.arange(len(pictures), dtype=float)
    feed = batches(data.images, pictures, 20, shuffle_seed=1)
    orders = []
    for _ in range(2):
        weights = []
        for found, labels, weight in feed:
            rows = pictures.iloc[weight.numpy().astype(int)]
            expected = data.images.batch(rows["image_id"], rows["orientation"])
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(labels.numpy().ravel() == 1, rows["label"] == "M")
            weights += weight.numpy().tolist()
        assert sorted(weights) == pictures["weight"].tolist()
        orders.append(weights)
    assert orders[0] != orders[1]
    again = [w for *_, weight in batches(data.images, pictures, 20, 1) for w in weight.numpy()]
    assert again == orders[0]
    assert not feed.options().autotune.enabled  # the end of an epoch would wait for it


def test_a_picture_of_the_batch_is_the_turned_image(data):
    (found,) = batches(data.images, pictures_of(data.manifest[["image_id"]][:1], 8), 8)
    upright = data.images.pixels[data.images.row[data.manifest["image_id"][0]]]
    np.testing.assert_array_equal(found, [orient(upright, o) for o in range(8)])


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_class_weights_change_the_loss_as_they_should(data, class_weight):
    pictures = judged_pictures(data.split)
    pictures = pictures[(pictures["label"] == "B") | (pictures["group"] == "p001")]
    weights = class_weights(pictures["label"], class_weight)
    sums = weights.groupby(pictures["label"]).sum()
    assert (sums["B"] == pytest.approx(sums["M"])) == (class_weight == "balanced")
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D(), constant_logit(1.5)]
    )
    compile_model(model, "sgd")
    found = model.evaluate(
        batches(data.images, pictures.assign(weight=weights), 8), return_dict=True, verbose=0
    )
    losses = np.where(pictures["label"] == "M", np.log1p(np.exp(-1.5)), np.log1p(np.exp(1.5)))
    assert found["loss"] == pytest.approx((losses * weights).mean(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((pictures["label"] == "M").mean())


def constant_logit(value):
    return keras.layers.Dense(
        1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(value)
    )


# ---------------------------------------------------------------- frozen features


class MeanColour:
    """Stands for a network: its features are the colours of the corner; counts its pictures."""

    def __init__(self, width=3):
        self.output, self.seen = np.empty((1, width)), 0

    def predict_on_batch(self, batch):
        self.seen += len(batch)
        return np.asarray(batch)[:, 0, 20, : self.output.shape[1]].astype(np.float32)


def features_from(data, pictures, cache, key=("mean", "hash", SIZE, "pad", "float32"), images=None):
    extractor, images = MeanColour(), images or data.images
    found = frozen_features(extractor, images, pictures, list(key), 5, cache)
    assert extractor.seen == found.computed
    expected = images.batch(pictures["image_id"], pictures["orientation"])[:, 0, 20]
    np.testing.assert_array_equal(found.of(pictures), expected)
    np.testing.assert_array_equal(found.of(pictures[::-1]), expected[::-1])
    return found.computed


def test_features_are_computed_once_and_only_where_missing(data, tmp_path):
    some, everything = pictures_of(data.manifest[:6], 4), pictures_of(data.manifest, 8)
    assert features_from(data, some, tmp_path) == 24
    assert features_from(data, some.sample(frac=1, random_state=0), tmp_path) == 0
    assert features_from(data, everything, tmp_path) == 8 * 24 - 24
    assert features_from(data, everything, tmp_path) == 0
    assert features_from(data, some, tmp_path) == 0


@pytest.mark.parametrize(
    "key",
    [
        ("other", "hash", SIZE, "pad", "float32"),
        ("mean", "other weights", SIZE, "pad", "float32"),
        ("mean", "hash", 96, "pad", "float32"),
        ("mean", "hash", SIZE, "stretch", "float32"),
        ("mean", "hash", SIZE, "pad", "bfloat16"),
    ],
)
def test_other_weights_size_or_fit_never_meet_a_stale_entry(data, tmp_path, key):
    pictures = pictures_of(data.manifest, 1)
    features_from(data, pictures, tmp_path)
    assert features_from(data, pictures, tmp_path, key) == 24


def test_features_of_another_width_are_computed_anew(data, tmp_path):
    pictures = pictures_of(data.manifest, 1)
    features_from(data, pictures, tmp_path)

    narrower = MeanColour(width=2)
    key = ["mean", "hash", SIZE, "pad", "float32"]
    found = frozen_features(narrower, data.images, pictures, key, 5, tmp_path)
    assert found.computed == narrower.seen == 24 and found.width == 2


def test_a_changed_image_is_computed_anew_and_a_renamed_or_doubled_one_is_not(data, tmp_path):
    pictures = pictures_of(data.manifest, 1)
    features_from(data, pictures, tmp_path)
    pixels, sha256 = np.array(data.images.pixels), data.images.sha256.copy()
    changed, copied, other = data.manifest["image_id"][:3]
    row = data.images.row.copy()
    pixels[row[changed]] = 7
    sha256[changed] = "changed"
    row[copied], sha256[copied] = row[other], sha256[other]
    images = DecodedImages(pixels, row, sha256)
    assert features_from(data, pictures, tmp_path, images=images) == 1
    names = {name: f"new/{name}" for name in data.manifest["image_id"]}
    renamed = DecodedImages(pixels, row.rename(names), sha256.rename(names))
    pictures = pictures.assign(image_id=pictures["image_id"].map(names))
    assert features_from(data, pictures, tmp_path, images=renamed) == 0


def test_doubled_images_are_computed_once(data, tmp_path):
    row, sha256 = data.images.row.copy(), data.images.sha256.copy()
    row[:], sha256[:] = row.iloc[0], sha256.iloc[0]
    images = DecodedImages(data.images.pixels, row, sha256)
    assert features_from(data, pictures_of(data.manifest, 2), tmp_path, images=images) == 2


def test_an_unknown_picture_has_no_features(toy):
    with pytest.raises(KeyError, match="nobody"):
        toy.features.of(pd.DataFrame({"image_id": ["g00/0", "nobody"], "orientation": 0}))


def test_the_audit_computes_the_features_of_the_run_and_refuses_other_weights(
    data, trained, cache, tmp_path, monkeypatch
):
    model, weights_hash = network("mobilenetv2", RANDOM, data.images, data.split, seed=0)
    about = dict(zip(feature_cache.KEY, KEY, strict=True)) | {"weights": "random", "seed": 0}
    about |= {"weights_hash": weights_hash}
    write_json(tmp_path, "mobilenetv2/metrics.json", about)
    write_table(tmp_path, "manifest.csv", data.manifest)
    write_table(tmp_path, "split.csv", data.split)
    described = describe(data.split, data.manifest, "grouped", "patient", seed=0)
    write_json(tmp_path, "split.json", described)
    fresh = tmp_path / "cache"  # without features: they must be computed here
    monkeypatch.setattr(feature_cache, "FeatureStore", partial(FeatureStore, cache=fresh))
    monkeypatch.setattr(backbone, "decode", partial(decode, cache=fresh))
    monkeypatch.setattr(pipeline, "frozen_features", partial(frozen_features, cache=fresh))
    write_json(tmp_path, "dataset.json", {"data": "sample", "root": str(data.root)})
    run = Run(tmp_path, {"weights": "random", "batch_size": 8})
    found = judged_images.features_of_run(run, "mobilenetv2", data.manifest[:6], 2)
    pictures = pictures_of(data.manifest[:6], 2)
    assert_close(found.of(pictures), trained.features.of(pictures))
    assert found.computed == 12
    write_json(tmp_path, "mobilenetv2/metrics.json", about | {"fit": "stretch"})
    path = save_weights(model, tmp_path / "mobilenetv2.weights.h5")
    with pytest.raises(InputError, match="mobilenetv2 was trained with other weights"):
        run.parameters["weights"] = str(path)
        judged_images.features_of_run(run, "mobilenetv2", data.manifest[:6], 2)


def save_weights(model, path):
    """The weights of the network without its head, as Keras publishes them."""
    features = keras.Model(model.input, model.get_layer("features").output)
    features.save_weights(path)
    return path


def test_features_of_every_image_are_computed_in_all_orientations(data, trained):
    """Test images too: the leakage audit asks for them."""
    pictures = pictures_of(data.manifest, 4)
    assert len(trained.features.index) == len(pictures)
    assert trained.features.of(pictures).shape == (len(pictures), trained.features.width)


# -------------------------------------------------------------------------- heads


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_the_history_says_what_each_epoch_was_worth(toy, class_weight):
    """Its last row is the head that is returned; the penalty is no part of the loss."""
    train, watched = (judged_pictures(toy.split[toy.split["split"] == s]) for s in ("train", "val"))
    recipe = replace(RECIPE, class_weight=class_weight)
    head, history = train_head(toy.features, train, watched, 1e-3, recipe, "x")
    share = (train["label"] == "M").mean() if class_weight == "balanced" else 0.5
    for pictures, prefix in ((train, ""), (watched, "val_")):
        logits = head.logits(toy.features.of(pictures))
        malignant = (pictures["label"] == "M").to_numpy()
        loss = log_loss(
            malignant, expit(logits), sample_weight=np.where(malignant, 1 / share, 1 / (1 - share))
        )
        assert history[f"{prefix}loss"].iloc[-1] == pytest.approx(loss, rel=1e-4)
        accuracy = ((logits >= 0) == malignant).mean()
        assert history[f"{prefix}accuracy"].iloc[-1] == pytest.approx(accuracy)
    assert history["loss"].iloc[0] > history["loss"].iloc[-1]
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))


def test_early_stopping_keeps_the_head_of_the_lowest_watched_loss(toy):
    train, watched = (judged_pictures(toy.split[toy.split["split"] == s]) for s in ("train", "val"))
    head, history = train_head(toy.features, train, watched, 1e-6, STOPPING, "x")
    best = history["val_loss"].idxmin()
    assert best == len(history) - 2
    until = replace(RECIPE, epochs=best + 1)
    same, _ = train_head(toy.features, train, watched, 1e-6, until, "x")
    assert_close(head.logits(toy.features.values), same.logits(toy.features.values))


def test_features_that_never_vary_make_a_head_that_knows_nothing(toy):
    pictures = judged_pictures(toy.split)
    flat = replace(toy.features, values=np.ones_like(toy.features.values))
    head, history = train_head(flat, pictures, pictures, 1e-3, RECIPE, "x")
    assert np.abs(head.logits(flat.values)).max() < 1e-6
    assert history["val_loss"].tolist() == pytest.approx([np.log(2)])


@pytest.mark.parametrize("epochs", [2, 200])
def test_every_feature_twice_changes_no_out_of_fold_logit(toy, epochs):
    """Not even where the epochs end before the head has converged."""
    recipe, twice = replace(RECIPE, epochs=epochs), np.hstack([toy.features.values] * 2)
    found = [
        cross_validate_head(features, toy.split, 4, recipe, STRENGTHS)[0]["logit"]
        for features in (toy.features, replace(toy.features, values=twice))
    ]
    assert np.ptp(found[0]) > 2
    np.testing.assert_allclose(found[1], found[0], rtol=0.01, atol=1e-4)


def test_heads_are_no_worse_than_scikit_learns_logistic_regression(toy):
    """Out-of-fold log loss, with the strength chosen in the same way for both."""
    chosen = choose_strengths(toy.features, toy.split)
    rows, _, _ = cross_validate_head(toy.features, toy.split, 1, RECIPE, chosen.of)
    ours = rows[rows["model"] == "oof"].reset_index(drop=True)
    theirs, values = np.empty(len(ours)), toy.features.of(ours).astype(float)
    for fold, strength in ((k, chosen.of[f"fold{k}"]) for k in range(3)):
        held_out = (ours["fold"] == fold).to_numpy()
        penalty = 1 / (strength * values.shape[1] * (~held_out).sum())
        regression = make_pipeline(
            StandardScaler(), LogisticRegression(C=penalty, class_weight="balanced", max_iter=5000)
        ).fit(values[~held_out], ours["label"][~held_out] == "M")
        theirs[held_out] = regression.decision_function(values[held_out])
    losses = [log_loss(ours["label"] == "M", expit(logit)) for logit in (ours["logit"], theirs)]
    assert losses[0] < 1.02 * losses[1] and losses[1] < 0.6


def test_the_epochs_are_told(toy):
    _, history, _ = cross_validate_head(toy.features, toy.split, 1, RECIPE, STRENGTHS)
    assert epochs_in_words(history, RECIPE).endswith(" epochs, converged.")
    few = replace(RECIPE, epochs=2)
    _, history, _ = cross_validate_head(toy.features, toy.split, 1, few, STRENGTHS)
    assert "after 2 epochs: `head_epochs` stopped some" in epochs_in_words(history, few)


def test_out_of_fold_rows_are_complete_and_know_the_class(toy):
    rows, history, _ = toy.done[RECIPE]
    held = toy.split[toy.split["split"] != "test"]
    oof = rows[rows["model"] == "oof"]
    assert sorted(oof["image_id"]) == sorted(4 * list(held["image_id"]))
    assert not rows.duplicated(["image_id", "model", "seed", "orientation"]).any()
    assert set(rows["model"]) == {"oof", "fold0", "fold1", "fold2"}
    assert (rows.loc[rows["model"] != "oof", "split"] == "test").all()
    assert oof["logit"].groupby(oof["label"]).median().diff()["M"] > 1
    assert history["model"].unique().tolist() == ["fold0", "fold1", "fold2"]


@pytest.mark.parametrize("recipe", [RECIPE, STOPPING], ids=["all epochs", "early stopping"])
def test_out_of_fold_predictions_never_use_the_labels_of_their_fold(toy, recipe):
    changed = flip(toy.split, toy.split["fold"] == 2)
    other, _, _ = cross_validate_head(toy.features, changed, 4, recipe, STRENGTHS)
    judged = (other["model"] == "oof") & (other["fold"] == 2)
    same, before = keyed(other[judged | (other["model"] == "fold2")]), keyed(toy.done[recipe][0])
    assert_close(same, before[same.index])
    rest = keyed(other[(other["model"] == "oof") & ~judged])
    assert np.abs(rest - before[rest.index]).max() > 0.01


def test_the_kept_heads_are_those_that_predicted(toy):
    rows, _, heads = toy.done[RECIPE]
    assert sorted(heads) == [f"fold{k}" for k in range(len(heads))]
    out_of_fold = rows["model"] == "oof"
    head = rows["model"].where(~out_of_fold, "fold" + rows["fold"].astype(str))
    for name, part in rows.groupby(head):
        logits = heads[name].logits(toy.features.of(part))
        assert_close(logits, part["logit"])


def test_test_labels_change_nothing(toy, trained, data):
    changed = flip(toy.split, toy.split["split"] == "test")
    other, _, _ = cross_validate_head(toy.features, changed, 4, STOPPING, STRENGTHS)
    assert_close(keyed(other), keyed(toy.done[STOPPING][0]))
    changed = flip(data.split, data.split["split"] == "test")
    other, _, _ = train_final_head(trained.model, trained.features, changed, 4, RECIPE, STRENGTHS)
    assert_close(keyed(other), keyed(trained.rows))


def test_class_weights_reach_the_head(toy):
    """A quarter of the groups is malignant: balancing them moves logits up."""
    rows, _, _ = cross_validate_head(
        toy.features, toy.split, 4, replace(RECIPE, class_weight="none"), STRENGTHS
    )
    assert toy.done[RECIPE][0]["logit"].mean() > rows["logit"].mean() + 0.3


def test_early_stopping_ends_before_the_last_epoch(toy):
    assert (toy.done[STOPPING][1].groupby("model").size() < STOPPING.epochs).all()


def test_fewer_orientations_are_tried_on_the_same_folds(toy):
    """One orientation is trained anew; the rows with all of them are taken as they are."""
    rows = toy.done[RECIPE][0]
    oof = rows[(rows["model"] == "oof") & (rows["orientation"] == 0)]
    tried = orientations_tried(toy.features, toy.split, 4, RECIPE, STRENGTHS, rows)
    one, four = (part.set_index("image_id") for _, part in tried.groupby("orientations"))
    assert keyed(four.reset_index().assign(model="oof")).equals(keyed(oof))
    assert one["fold"].to_dict() == four["fold"].to_dict()
    assert (one["logit"] - four["logit"]).abs().max() > 0.01


def test_the_originals_protocol_trains_on_its_own_pictures(toy):
    images = toy.split[["image_id", "group", "label"]]
    split = split_pictures_at_random(images, 4, 3, 0.2, 0.2, seed=0)
    rows, _, _ = cross_validate_head(toy.features, split, 4, HeadRecipe(2, "none", 1, 0), STRENGTHS)
    oof = rows[rows["model"] == "oof"]
    assert len(oof) == (split["split"] != "test").sum() and set(oof["orientation"]) == {0, 1, 2, 3}


# -------------------------------------------------------------- the whole network


def test_the_head_on_the_network_gives_the_same_logits_picture_by_picture(data, trained):
    pictures = trained.rows.sample(frac=1, random_state=1)
    logits = predict_logits(trained.model, data.images, pictures, 5)
    assert_close(logits, pictures["logit"])
    assert np.ptp(logits) > 0.1
    assert set(trained.rows["split"]) == {"val", "test"}
    assert trained.history["model"].unique().tolist() == ["final"]


def test_the_head_is_put_on_a_network_with_its_standardization(toy):
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(size=6), rng.uniform(0.1, 2, 6), rng.normal(size=6), 0.5)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, head_layers(inputs))
    freeze_normalization(model)
    put_head(model, head)
    x = toy.features.values[:4]
    assert_close(model.predict_on_batch(x).ravel(), head.logits(x))
    assert_close(linear_head(model).logits(x), head.logits(x))


def test_the_optimizers_are_the_originals():
    found = {name: (spec.optimizer, spec.learning_rate) for name, spec in ARCHITECTURES.items()}
    assert found == {
        "mobilenetv2": ("Adam", 1e-4),
        "inceptionv3": ("RMSprop", 1e-5),
        "densenet121": ("Adam", 1e-4),
    }


def test_the_speed_is_measured(data, trained):
    assert model_files.images_per_second(feature_extractor(trained.model), data.images, 4) > 0


# --------------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained):
    """A run folder that holds the trained model."""
    run = tmp_path_factory.mktemp("run")
    model_files.save_model(trained.model, run)
    write_json(run, "mobilenetv2/metrics.json", {"fit": "pad", "image_size": SIZE})
    return run


def test_files_are_predicted_as_in_training_and_a_broken_one_has_its_reason(
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
    table, features = predictor.predict_files(model, tmp_path / "new", names, about["fit"], 5)
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


def test_a_folder_of_broken_files_only_is_a_table_of_reasons(trained, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    table, features = predictor.predict_files(trained.model, tmp_path, ["a.png"], "pad")
    assert features.shape == (0, 1280)
    assert (
        table["reason"].tolist() == ["not a JPEG, PNG, BMP or TIFF image"]
        and table["logit"].isna().all()
    )


def test_a_network_that_was_not_trained_is_named_with_its_notebook(finished):
    with pytest.raises(InputError, match="run notebook 05_train_inceptionv3 first"):
        model_files.load_trained(finished, "inceptionv3")


def test_another_network_under_a_wrong_name_is_refused(finished):
    shutil.copytree(finished / "mobilenetv2", finished / "densenet121")
    with pytest.raises(InputError, match=r"not hold the weights of DenseNet121 \(layers/"):
        model_files.load_trained(finished, "densenet121")


def test_the_machinery_finds_the_accelerator_or_says_cpu():
    from cytology.networks.backend import GPUS, device

    assert bool(tf.config.list_physical_devices("GPU")) == bool(GPUS)
    assert GPUS or device().startswith("CPU, ")


def test_a_share_of_the_cores_is_told(monkeypatch):
    from cytology.networks import backend

    monkeypatch.setattr(backend, "GPUS", [])
    monkeypatch.setattr(backend, "all_cores", lambda: 8)
    monkeypatch.setenv("CYTOLOGY_CORES", "2")
    assert backend.device() == "CPU, 2 of 8 cores"
    monkeypatch.setenv("CYTOLOGY_CORES", "8")
    assert backend.device() == "CPU, 8 cores"


def test_only_the_line_about_retracing_is_dropped(caplog):
    logger = logging.getLogger("tensorflow")
    with caplog.at_level("WARNING", "tensorflow"):
        logger.addHandler(caplog.handler)
        logger.warning("5 out of the last 5 calls to f triggered tf.function retracing.")
        logger.warning("the disk is full")
        logger.removeHandler(caplog.handler)
    assert set(caplog.messages) == {"the disk is full"}


def test_other_weights_for_a_while():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    start = model.get_weights()
    tuned = [weight + 1 for weight in start]
    model.set_weights(tuned)
    with pytest.raises(ZeroDivisionError), backbone.other_weights(model, start):
        assert all(map(np.array_equal, model.get_weights(), start))
        1 / 0  # noqa: B018
    assert all(map(np.array_equal, model.get_weights(), tuned))
