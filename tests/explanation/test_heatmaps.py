"""Heatmaps of small networks, against formulas and against the same network reloaded."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from PIL import Image

from cytology.data.augmentation import fit_to_square
from cytology.data.sources.sample import draw_sample
from cytology.explanation import heatmaps, of_run
from cytology.explanation.checks import HEATMAP_CHECKS
from cytology.explanation.of_run import PredictionsWithFeatures
from cytology.explanation.summary import check_summary
from cytology.networks.backend import keras
from cytology.networks.batches import decode
from cytology.networks.building import build, calibrate_normalization, head_layers
from cytology.networks.linear_head import EPSILON, LinearHead
from cytology.run import Run
from cytology.settings import InputError

pytestmark = pytest.mark.numeric

SIZE = 128
LAST = {"mobilenetv2": "out_relu", "inceptionv3": "mixed10", "densenet121": "relu"}


def some_pixels(count, size=SIZE):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (count, 8, 8, 3)).astype(np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((size, size), Image.BICUBIC)) for each in coarse]
    )


def some_head(width, seed):
    rng = np.random.default_rng(seed)
    return LinearHead(
        rng.normal(0.3, 0.1, width), rng.uniform(0.1, 0.4, width), rng.normal(size=width), 0.3
    )


def network(architecture, precision="float32"):
    """A random network whose normalizations fit the pictures, with a head that is not zero."""
    model = build(architecture, SIZE, None, 0, precision)
    calibrate_normalization(model, [some_pixels(6)])
    width = model.get_layer("features").output.shape[-1]
    head = some_head(width, 0)
    model.get_layer("standardize").set_weights([head.mean, head.variance])
    model.get_layer("logit").set_weights([head.weights[:, None], np.array([head.bias])])
    return model


@pytest.fixture(scope="module")
def pixels():
    return some_pixels(4)


@pytest.fixture(scope="module")
def model():
    return network("mobilenetv2")


@pytest.fixture(scope="module")
def explained(model):
    return heatmaps.ExplainedNetwork(model)


def test_grad_cam_at_the_last_map_is_the_class_activation_map(model, explained, pixels):
    """There Grad-CAM is CAM (Zhou et al. 2016): the maps, weighted as in the head."""
    assert heatmaps.last_map(model) == LAST["mobilenetv2"]
    maps = keras.Model(model.input, model.get_layer("out_relu").output)(pixels, training=False)
    head = some_head(maps.shape[-1], 0)
    places = maps.shape[1] * maps.shape[2]
    weights = head.weights / np.sqrt(head.variance + EPSILON) / places
    heat = explained.heat(pixels, "M")
    assert_close(heat, np.asarray(maps) @ weights)
    # The positions plus the constant of the head add up to the logit.
    offset = head.bias - (head.mean * head.weights / np.sqrt(head.variance + EPSILON)).sum()
    assert_close(heat.sum(axis=(1, 2)) + offset, explained.logits(pixels))


def test_heat_for_benign_is_the_negative_of_heat_for_malignant(explained, pixels):
    heat = explained.heat(pixels, "M")
    assert_close(explained.heat(pixels, "B"), -heat)
    mixed = explained.heat(pixels, np.array(["M", "B", "M", "B"]), batch_size=3)
    signs = np.array([1, -1, 1, -1])[:, None, None]
    assert_close(mixed, signs * heat)


def test_heat_at_an_inner_layer_weights_each_channel_by_its_mean_gradient(model, pixels):
    """Raising a channel everywhere changes the logit by its weight times its positions.

    In float64, so that a step too small for any ReLU to switch still exceeds rounding errors.
    """
    layer, step = "block_12_add", 1e-6
    inner = keras.Model(model.input, model.get_layer(layer).output)
    activation = np.asarray(inner(pixels[:1], training=False), np.float64)
    after = in_float64(keras.Model(model.get_layer(layer).output, model.output))
    _, rows, columns, channels = activation.shape
    changed = activation + step * np.eye(channels)[:, None, None]
    slope = (np.asarray(after(changed)) - np.asarray(after(activation))).ravel() / step
    heat = heatmaps.ExplainedNetwork(model, None, layer).heat(pixels[:1], "M")
    # In float32 a ReLU near zero may switch.
    assert_close(heat, activation @ (slope / (rows * columns)), share=0.05)


def in_float64(model):
    """A copy that computes in double precision."""
    image = keras.Input(model.input_shape[1:], dtype="float64")
    double = keras.models.clone_model(
        model,
        input_tensors=image,
        clone_function=lambda each: each.from_config(each.get_config() | {"dtype": "float64"}),
    )
    double.set_weights(model.get_weights())
    return double


def test_explained_logits_are_those_of_the_network(model, explained, pixels):
    expected = model.predict_on_batch(pixels).ravel()
    assert_close(explained.logits(pixels, batch_size=3), expected)


def test_each_image_is_explained_by_the_head_of_its_fold(pixels):
    model = network("mobilenetv2")
    heads = {f"fold{k}": some_head(1280, 5 + k) for k in range(2)}
    folds = np.array([1, 0, 1, 0])
    by_fold = heatmaps.ExplainedNetwork(model, heads)
    heat, logits = by_fold.heat(pixels, "M", folds), by_fold.logits(pixels, folds)
    for fold in (0, 1):
        alone = heatmaps.ExplainedNetwork(model, {"": heads[f"fold{fold}"]})
        here = folds == fold
        assert_close(heat[here], alone.heat(pixels[here], "M"))
        assert_close(logits[here], alone.logits(pixels[here]))


def smooth_network():
    """Three smooth layers: here few steps are enough for integrated gradients."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    maps = keras.layers.Conv2D(8, 5, strides=4, activation="softplus", name="maps")(scaled)
    pooled = keras.layers.GlobalAveragePooling2D(name="features")(maps)
    keras.utils.set_random_seed(0)
    model = keras.Model(image, head_layers(pooled), name="smooth")
    model.get_layer("logit").set_weights([np.linspace(-9, 9, 8)[:, None], np.array([0.2])])
    return model


def test_integrated_gradients_add_up_to_the_difference_of_logits(pixels):
    smooth = heatmaps.ExplainedNetwork(smooth_network())
    attributions, missed = smooth.integrated_gradients(pixels[:2], ["M", "B"], steps=20)
    empty = np.stack([heatmaps.empty_field(picture) for picture in pixels[:2]])
    difference = (smooth.logits(pixels[:2]) - smooth.logits(empty)) * [1, -1]
    np.testing.assert_allclose(attributions.sum(axis=(1, 2)), difference, rtol=0.01)
    assert (missed < 0.01).all()
    rough = smooth.integrated_gradients(pixels[:2], ["M", "B"], steps=1)
    expected = np.abs(rough[0].sum(axis=(1, 2)) / difference - 1)
    np.testing.assert_allclose(rough[1], expected, rtol=1e-3, atol=1e-4)
    assert (rough[1] > missed).all()


def test_shuffled_weights_are_permutations_of_the_weights(model, explained, pixels):
    before = [values.copy() for values in model.get_weights()]
    head = explained.with_shuffled_heads(0)
    weights = head.heads[""].weights
    assert sorted(weights) == sorted(explained.heads[""].weights)
    heat = explained.heat(pixels, "M")
    assert np.abs(head.heat(pixels, "M") - heat).max() > 0.1 * np.abs(heat).max()
    assert_close(explained.heat(pixels, "M"), heat)
    network = explained.with_shuffled_weights([pixels], 0)
    kernel = "block_3_expand"
    found, own = (each.get_layer(kernel).get_weights()[0] for each in (network.model, model))
    np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(own.ravel()))
    shuffled = network.heat(pixels, "M")
    assert np.isfinite(shuffled).all() and (np.ptp(shuffled, axis=(1, 2)) > 0).all()
    for then, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(then, now)


def test_layers_without_spatial_output_are_refused(model):
    with pytest.raises(InputError, match="explain_layer.*no such layer.*out_relu"):
        heatmaps.ExplainedNetwork(model, layer="conv9")
    with pytest.raises(InputError, match="no positions"):
        heatmaps.ExplainedNetwork(model, layer="features")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", LAST)
def test_every_architecture_gives_the_same_heat_after_reloading(architecture, pixels, tmp_path):
    model = network(architecture)
    assert heatmaps.last_map(model) == LAST[architecture]
    heat = heatmaps.ExplainedNetwork(model).heat(pixels, "M")
    assert (np.ptp(heat, axis=(1, 2)) > 0).all()
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        loaded = keras.saving.load_model(tmp_path / name, compile=False)
        assert_close(heatmaps.ExplainedNetwork(loaded).heat(pixels, "M"), heat)


def test_heat_in_half_precision_is_float32_and_finite(pixels):
    model = network("mobilenetv2", "float16")
    heat = heatmaps.ExplainedNetwork(model).heat(pixels, "M")
    assert heat.dtype == np.float32 and np.isfinite(heat).all()


# ------------------------------------------------------------------------- of a run


@pytest.fixture(scope="module")
def smears_with_masks(tmp_path_factory):
    """12 drawn smears of 12 patients with their nuclei, and a run that knows them."""
    root = tmp_path_factory.mktemp("drawn ü")
    table = draw_sample(root, images=12, patients=12).rename(columns={"image": "image_id"})
    table = table.assign(group=table["patient"], fold=np.arange(12) % 2)
    run = Run(tmp_path_factory.mktemp("run"))
    run.write("dataset.json", {"data": str(root), "root": str(root)})
    run.write("manifest.csv", table.assign(sha256=[f"{k:064x}" for k in range(12)]))
    about = {"image_size": SIZE, "fit": "pad", "engine": "tensorflow"}
    run.write("mobilenetv2/metrics.json", about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "decode", partial(decode, cache=run / "cache"))
        yield run, table


def test_every_check_uses_every_image_it_can(smears_with_masks, model):
    run, images = smears_with_masks
    heads = {f"fold{k}": some_head(1280, 5 + k) for k in range(2)}
    network = heatmaps.ExplainedNetwork(network_copy(model), heads)
    values, curves, missed = of_run.check_network(run, network, images, 10, 0)
    table = check_summary(values).set_index("check")
    assert list(table.index) == list(HEATMAP_CHECKS)
    assert (table.loc[["pointing game", "shuffled head"], "images"] == 12).all()
    assert (table.loc[["deletion", "turned copies"], "images"] == 10).all()
    assert table["value"].notna().all() and missed >= 0
    assert table["noise"].notna().all() and set(curves["order"]) == {"network", "noise", "random"}
    assert (values["map"].value_counts() == len(values) / 2).all() and "fold" in values
    necessary = table[table["kind"] == "necessary"]
    assert (necessary["noise_passed"] == "yes").all()
    decoded = of_run.decode(run.images, run.manifest, SIZE, "pad")
    pixels = decoded.batch(images["image_id"], np.zeros(12, int))
    folds = images["fold"].to_numpy()
    logits = network.logits(pixels, folds)
    whole = curves[(curves["share"] == 0) & (curves["curve"] == "deletion")]
    assert_close(whole.groupby("image")["logit"].first(), np.abs(logits[:10]))
    without = images.assign(mask="")
    values, *_ = of_run.check_network(run, network, without, 2, 0)
    assert "pointing game" not in set(values["check"]) and "deletion" in set(values["check"])


def network_copy(model):
    """A copy whose head may be exchanged."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def judged_rows(probabilities, labels, groups):
    rows = pd.DataFrame({"probability": probabilities, "label": labels, "group": groups})
    rows["image_id"] = [f"i{k}" for k in range(len(rows))]
    rows["logit"] = np.log(rows["probability"] / (1 - rows["probability"]))
    rows["predicted"] = np.where(rows["probability"] >= 0.5, "M", "B")
    return rows.assign(wrong=rows["predicted"] != rows["label"])


def test_certain_and_uncertain_images_are_shown_one_per_patient():
    rows = judged_rows(
        [0.995, 0.98, 0.01, 0.9, 0.51, 0.2, 0.95],
        ["M", "M", "B", "B", "M", "M", "B"],
        ["a", "a", "b", "c", "d", "e", "c"],
    )
    found = PredictionsWithFeatures(rows, np.empty(0)).telling_examples(each=2)
    assert found.groupby("kind", sort=False)["image_id"].agg(list).to_dict() == {
        "right": ["i0", "i2"],
        "wrong": ["i6", "i5"],
        "unsure": ["i4"],  # i5 is the second, and is listed among the wrong ones
    }


def test_neighbours_of_mistakes_are_of_other_patients():
    rows = judged_rows([0.9, 0.1, 0.8, 0.95], ["B", "B", "M", "B"], ["a", "a", "b", "c"])
    values = np.array([[0, 0], [0, 0.1], [1, 0], [3, 0.0]])
    worst, near = PredictionsWithFeatures(rows, values).mistakes_and_neighbours(count=2, each=2)
    assert worst["image_id"].tolist() == ["i3", "i0"]
    assert near[near["image_id"] == "i0"]["neighbour"].tolist() == ["i2", "i3"]
    assert near["rank"].tolist() == [1, 2, 1, 2]
    right = PredictionsWithFeatures(rows[rows["label"] == "M"], values[2:3])
    none, empty = right.mistakes_and_neighbours(2, 2)
    assert none.empty and empty.empty


# ---------------------------------------------------------------- over the picture


@pytest.mark.parametrize(("width", "height"), [(300, 100), (100, 300), (128, 128)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_heat_is_aligned_with_the_picture(width, height, fit):
    """A bright spot in the picture, found by brightness, is hot over the original."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 4 : height // 4 + 20, width // 2 : width // 2 + 20] = 255
    square = fit_to_square(Image.fromarray(picture), SIZE, fit)
    heat = square[..., 0].reshape(32, 4, 32, 4).mean(axis=(1, 3))
    found = heatmaps.over_image(heat, width, height, SIZE, fit)
    assert found.shape == (height, width)
    hottest = np.unravel_index(found.argmax(), found.shape)
    np.testing.assert_allclose(hottest, (height // 4 + 10, width // 2 + 10), atol=10)


def test_a_map_keeps_its_mean_when_resized():
    heat = np.random.default_rng(0).normal(size=(7, 7))
    assert heatmaps.over_square(heat, 224).mean() == pytest.approx(heat.mean(), abs=0.02)
    assert heatmaps.over_square(heat, 224).shape == (224, 224)


def test_the_exercise_uses_the_head_that_never_saw_the_image(model, tmp_path, smear):
    smear(0).save(tmp_path / "a.png")
    width = model.get_layer("features").output.shape[-1]
    heads = {f"fold{fold}": some_head(width, fold) for fold in (0, 1)}
    explained = heatmaps.ExplainedNetwork(model, heads)
    rows = pd.DataFrame({"image_id": ["a.png"], "fold": [1]})
    picture, logits = of_run.picture_and_logits(explained, rows, tmp_path, "pad")
    pictures = np.stack([picture, picture[::-1]])
    assert_close(logits(pictures), explained.logits(pictures, [1, 1]))
    picture, logits = of_run.picture_and_logits(
        heatmaps.ExplainedNetwork(model), rows, tmp_path, "pad"
    )
    assert logits(picture[None]).shape == (1,)
