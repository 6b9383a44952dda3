"""Training more than the head: every layer, or from a cut with the same result.

Tiny pictures and random weights, as in test_head_training.
"""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close

from cytology.architectures import ARCHITECTURE_NAMES, ARCHITECTURES
from cytology.data.splitting import training_pictures
from cytology.networks.backend import enough_memory, keras, tf
from cytology.networks.batches import batches, decode, frozen_features
from cytology.networks.building import build, feature_extractor, put_head
from cytology.networks.passes import KerasPasses
from cytology.networks.weights import Weights
from cytology.plots.training import BLOCKS
from cytology.settings import InputError
from cytology.training import backbone, cuts, fine_tuning, head_training
from cytology.training.backbone import with_weights
from cytology.training.cuts import copy_variables, cut, cut_before, cut_points
from cytology.training.fine_tuning import (
    compile_model,
    fine_tune,
    fine_tune_from,
    optimizer_of,
    predict_logits,
    recipe_in_words,
    weighed_parts,
)
from cytology.training.recipes import HeadRecipe, Recipe

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("cache")]
SIZE = 75
RECIPE = Recipe(1e-3, 2, 8, "balanced", None, 0, orientations=1)
KEY = ["mobilenetv2", "hash of the weights", SIZE, "pad", "float32", "tensorflow"]
RANDOM = Weights("random", None, "Random weights.")


@pytest.fixture(scope="module")
def models():
    """One network of each architecture."""
    return {name: build(name, SIZE) for name in ARCHITECTURE_NAMES}


def normalizations(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


# ------------------------------------------------------------------- every layer


@pytest.mark.slow
def test_fine_tuning_trains_every_layer_except_batch_normalization(data):
    model = with_a_trained_head("mobilenetv2", data.images, data.split)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    stage = fine_tune(model, data.images, data.split, RECIPE)
    rows, history = stage.predictions, stage.history
    frozen = {layer.name for layer in normalizations(model)}
    for layer in model.layers:
        pairs = zip(before[layer.name], layer.get_weights(), strict=True)
        same = [np.array_equal(*pair) for pair in pairs]
        assert all(same) if layer.name in frozen else not any(same), layer.name
    assert len(frozen) > 50
    assert history["stage"].tolist() == ["fine_tune"] * 2 and history["epoch"].tolist() == [1, 2]
    shuffled = rows.sample(frac=1, random_state=0)
    logits = predict_logits(model, data.images, shuffled, 5)
    assert_close(logits, shuffled["logit"])
    expected = data.split[data.split["split"] != "train"]
    assert sorted(rows["image_id"]) == sorted(expected["image_id"])


def test_a_batch_larger_than_the_training_set_is_refused(data, models):
    recipe = replace(RECIPE, batch_size=1000)
    with pytest.raises(InputError, match="Parameter `batch_size` is 1000, more than the"):
        fine_tune(models["mobilenetv2"], data.images, data.split, recipe)


# ------------------------------------------------------------------------- cuts


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("mobilenetv2", "last", "block_15_add"),
        ("mobilenetv2", "block_16", "block_15_add"),
        ("mobilenetv2", "Conv_1", "block_16_project_BN"),
        ("inceptionv3", "last", "mixed8"),
        ("inceptionv3", "mixed10", "mixed9"),
        ("densenet121", "last", "pool4_pool"),
        ("densenet121", "conv5_block2", "conv5_block1_concat"),
        ("densenet121", "features", "relu"),
    ],
)
def test_the_network_is_cut_where_all_paths_meet(models, name, start, expected):
    assert cut_before(models[name], start) == expected


@pytest.mark.parametrize("start", ["block_99", "image", "preprocess"])
def test_an_error_about_an_unknown_block_suggests_a_known_one(models, start):
    with pytest.raises(InputError, match="Parameter `fine_tune_from` is .* like block_16"):
        cut_before(models["mobilenetv2"], start)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_the_two_parts_give_the_logits_of_the_whole(models, name):
    model = models[name]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    kernel = np.random.default_rng(0).normal(size=model.get_layer("logit").kernel.shape)
    model.get_layer("logit").set_weights([kernel, np.ones(1)])
    parts = cut(model, cut_before(model, "last"))
    assert_close(parts.after(parts.before(pixels)), model(pixels))
    assert model.get_layer("features").output is not None  # its own graph is as it was


def test_no_shortcut_bypasses_a_cut():
    x = keras.Input((4,), name="image")
    a = keras.layers.Dense(4, name="a")(x)
    b = keras.layers.Dense(4, name="b")(a)
    c = keras.layers.Add(name="c")([a, b])
    d = keras.layers.Dense(4, name="d")(c)
    e = keras.layers.Add(name="e")([c, d])
    model = keras.Model(x, keras.layers.Identity(name="features")(e))
    assert cut_points(model) == ["a", "c", "e", "features"]


def test_training_from_a_cut_equals_freezing_the_layers_before_it(data, each_network):
    """Exact but for rounding; with activations kept as float16, logits move by a little more.

    Adam and RMSprop divide each gradient by its own size, however small, and so amplify rounding
    errors: up to 0.15 % of the largest logit.
    """
    name = each_network
    size = 150 if name == "inceptionv3" else SIZE
    images = decode(data.root, data.manifest, size, "pad", backbone.CACHE)
    model = with_a_trained_head(name, images, data.split)
    at = cut_before(model, "last")
    rate = ARCHITECTURES[name].learning_rate
    recipe = replace(RECIPE, epochs=1, learning_rate=rate, orientations=4)
    tuned, found = {}, {}
    for way in ("frozen", "float32", "float16"):
        tuned[way] = keras.models.clone_model(model)
        copy_variables(model, tuned[way])
    for layer in tuned["frozen"].layers:
        layer.trainable = layer.trainable and layer.name not in before(model, at)
    found["frozen"] = fine_tune(tuned["frozen"], images, data.split, recipe)
    for way in ("float32", "float16"):
        with pytest.MonkeyPatch.context() as patch:
            if way == "float16":
                patch.setattr(shutil, "disk_usage", free_for_float16(data, model, at))
            key = [name, way, size, *KEY[3:]]
            found[way] = fine_tune_from("last", tuned[way], images, data.split, recipe, key)
    assert found["float16"].rounded and not found["float32"].rounded  # as in the recipe
    keys = ["image_id", "orientation"]
    rows = {way: stage.predictions.set_index(keys) for way, stage in found.items()}
    losses = {way: stage.history[["loss", "val_loss"]] for way, stage in found.items()}
    logits = {way: table["logit"] for way, table in rows.items()}
    assert_close(logits["float32"], logits["frozen"])
    # A log loss errs as its logits do, however small it is.
    np.testing.assert_allclose(losses["float32"], losses["frozen"], atol=1e-4)
    assert_close(logits["float16"], logits["frozen"], share=5e-3)
    assert not np.array_equal(logits["float16"], logits["float32"])

    for layer in model.layers:
        same = [
            np.array_equal(*pair)
            for pair in zip(
                layer.get_weights(),
                tuned["float32"].get_layer(layer.name).get_weights(),
                strict=True,
            )
        ]
        assert all(same) or layer.name not in before(model, at)
    judged = rows["float32"].reset_index()
    again = predict_logits(tuned["float32"], images, judged, 8)
    assert_close(again, judged["logit"])


def with_a_trained_head(name, images, split):
    """A random network with a trained head: where fine-tuning begins."""
    model, weights_hash = with_weights(name, RANDOM, images, split, seed=0)
    key = [name, weights_hash, images.size, *KEY[3:]]
    passes, pictures = KerasPasses(feature_extractor(model)), training_pictures(split, 4)
    features = frozen_features(passes, images, pictures, key, 8, cache=backbone.CACHE)
    head = HeadRecipe(200, "balanced", None, 0, orientations=4, strengths={"final": 1e-3})
    final = head_training.train_final_head(features, split, head)
    put_head(model, final.heads["final"])
    return model


def before(model, at):
    names = [layer.name for layer in model.layers]
    return set(names[: names.index(at) + 1])


def free_for_float16(data, model, at):
    """A disk on which half of what is free holds float16 and not float32."""
    values = 24 * 4 * np.prod(model.get_layer(at).output.shape[1:])
    found = type(shutil.disk_usage("."))(0, 0, int(2 * 3 * values))
    return lambda folder: found


def test_too_small_a_disk_is_refused_before_anything_is_computed(data, models, monkeypatch, capsys):
    full = type(shutil.disk_usage("."))(0, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    monkeypatch.setattr(cuts, "frozen_features", None)
    with pytest.raises(InputError, match="GB even as float16.*fewer `orientations`"):
        fine_tune_from(
            "last", models["mobilenetv2"], data.images, data.split, RECIPE, ["full", *KEY[1:]]
        )


def test_the_disk_space_is_reported_first_and_cached_activations_need_none(data, models, capsys):
    parts = cut(models["mobilenetv2"], "block_16_project_BN")
    asked = (parts, data.images, data.split, 1, ["told", *KEY[1:]], 8)
    found = fine_tuning.activations(*asked)
    assert "Activations after block_16_project_BN: 0.00 GB of disk." in capsys.readouterr().out
    assert found.computed == 24 and found.shape == parts.before.output.shape[1:]
    assert fine_tuning.activations(*asked).computed == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((True, False, ""), "head on frozen features"),
        ((True, True, ""), "head, then every layer"),
        ((False, True, ""), "every layer"),
        ((True, True, "mixed9"), "head, then layers from mixed9"),
        ((False, True, "last", True), "layers from last (float16 activations)"),
    ],
)
def test_the_recipe_is_described_in_words(asked, words):
    assert recipe_in_words(*asked) == words


# ----------------------------------------------------------------------- machines


def test_accumulated_batches_equal_one_large_batch():
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    kernels = []
    for batch_size, accumulate in ((16, 1), (4, 4), (4, 1)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        recipe = replace(RECIPE, accumulate=accumulate)
        compile_model(model, optimizer_of("mobilenetv2", recipe), steps_per_execution=accumulate)
        model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
        kernels.append(model.layers[0].kernel.numpy())
    np.testing.assert_allclose(kernels[0], kernels[1], atol=1e-6)
    assert not np.allclose(kernels[0], kernels[2], atol=1e-6)


def test_exhausted_memory_is_reported_with_the_batch_size():
    with pytest.raises(
        InputError, match="A batch of 512 does not fit into .*: lower .*`accumulate`"
    ):
        with enough_memory(512):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


TWO_DEVICES = """
import sys
import numpy as np
import pandas as pd
from cytology.networks.backend import keras, tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cytology.networks.batches import DecodedImages
from cytology.training.cuts import cut
from cytology.training.fine_tuning import fine_tune
from cytology.training.recipes import Recipe

names = [f"{k:02}" for k in range(24)]
labels = ["B", "M", "M"] * 8
split = pd.DataFrame({"image_id": names, "group": names, "label": labels, "fold": 0})
split["split"] = ["train"] * 16 + ["val"] * 4 + ["test"] * 4
pixels = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 3), dtype=np.uint8)
images = DecodedImages(pixels, pd.Series(range(24), index=names), pd.Series(names, index=names))
ways = {"one": tf.distribute.get_strategy(),
        "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
for way, strategy in ways.items():
    keras.utils.set_random_seed(0)
    with strategy.scope():
        image = keras.Input((6, 6, 3))
        scaled = keras.layers.Rescaling(1 / 255, name="scaled")(image)
        logit = keras.layers.Dense(1)(keras.layers.Flatten()(scaled))
        model = keras.Model(image, logit, name="mobilenetv2")
    assert len(cut(model, "scaled").before.predict_on_batch(pixels[:8])) == 8  # each once
    stage = fine_tune(model, images, split, Recipe(1e-2, 3, 8, "balanced", None, 0, 1))
    rows, history = stage.predictions, stage.history
    print(way, strategy.num_replicas_in_sync, *history["loss"], *history["val_loss"],
          *rows.sort_values("image_id")["logit"], file=sys.stderr)
"""


@pytest.mark.slow
def test_two_devices_give_the_loss_of_one_at_the_same_global_batch():
    """In a separate process, since devices are fixed when TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        capture_output=True, text=True, cwd=Path(fine_tuning.__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stderr.splitlines() if line[:4] in ("one ", "two ")]
    assert [line[:2] for line in lines] == [["one", "1"], ["two", "2"]]
    one, two = (np.array(line[2:], float) for line in lines)
    assert_close(two, one)
    assert len(one) == 14 and one[0] != one[2]


def test_the_drawn_blocks_have_the_numbers_of_maps_of_the_network(models):
    def maps(name, layer):
        return models[name].get_layer(layer).output.shape[-1]

    _, ends, (path,), _ = BLOCKS["mobilenetv2"]
    layers = ("block_2_expand", "block_2_depthwise", "block_2_project")
    assert [drawn for _, drawn in path] == [maps("mobilenetv2", layer) for layer in layers]
    assert {drawn for _, drawn in ends} == {maps("mobilenetv2", "block_2_add")}
    _, ends, paths, _ = BLOCKS["inceptionv3"]
    joined = models["inceptionv3"].get_layer("mixed4").input
    assert sorted(path[-1][1] for path in paths) == sorted(each.shape[-1] for each in joined)
    assert [drawn for _, drawn in ends] == [maps("inceptionv3", f"mixed{k}") for k in (3, 4)]
    _, ends, (path,), _ = BLOCKS["densenet121"]
    grown = np.cumsum([ends[0][1], *(drawn for _, drawn in path)])
    names = ["pool1", *(f"conv2_block{k + 1}_concat" for k in range(len(path)))]
    assert grown.tolist() == [maps("densenet121", name) for name in names]
    assert ends[1][1] == grown[-1]
    assert all(f"from {n} maps" in words for (words, _), n in zip(path, grown[:-1], strict=True))


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_class_weights_change_the_loss_correctly(data, class_weight):
    split = data.split[(data.split["label"] == "B") | (data.split["group"] == "p001")]
    recipe = replace(RECIPE, class_weight=class_weight)
    pictures, _, _ = weighed_parts(split.assign(split="train"), recipe)
    sums = pictures.groupby("label")["weight"].sum()
    assert (sums["B"] == pytest.approx(sums["M"])) == (class_weight == "balanced")
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D(), constant_logit(1.5)]
    )
    compile_model(model, "sgd")
    found = model.evaluate(batches(data.images, pictures, 8), return_dict=True, verbose=0)
    losses = np.where(pictures["label"] == "M", np.log1p(np.exp(-1.5)), np.log1p(np.exp(1.5)))
    assert found["loss"] == pytest.approx((losses * pictures["weight"]).mean(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((pictures["label"] == "M").mean())


def constant_logit(value):
    return keras.layers.Dense(
        1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(value)
    )
