"""Networks as built, without learned weights."""

import numpy as np
import pytest
from closeness import assert_close

from cytology.architectures import ARCHITECTURES
from cytology.networks import building, model_files
from cytology.networks.backend import keras, tf
from cytology.networks.building import (
    build,
    calibrate_normalization,
    freeze_normalization,
    head_layers,
    linear_head,
    precision_for,
    put_head,
)
from cytology.networks.linear_head import LinearHead
from cytology.run import Run
from cytology.settings import InputError

pytestmark = pytest.mark.numeric
SIZE = 75


def test_a_network_includes_its_preprocessing_and_can_be_reloaded(each_network, tmp_path):
    name = each_network
    model = build(name, SIZE)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    module = {"mobilenetv2": "mobilenet_v2", "inceptionv3": "inception_v3"}.get(name, "densenet")
    expected = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
    scaled = model.get_layer("preprocess")(pixels)
    np.testing.assert_allclose(scaled, expected, atol=2e-5)

    calibrate_normalization(model, [pixels])  # else random networks give near-constant features
    kernel = np.random.default_rng(1).normal(size=(model.get_layer("features").output.shape[1], 1))
    model.get_layer("logit").set_weights([kernel, np.array([0.3])])
    logits = model.predict_on_batch(pixels)
    assert logits.shape == (3, 1) and logits.dtype == np.float32 and np.ptp(logits) > 0.01

    saved = model_files.save_model(model, Run(tmp_path))
    names = ["model.keras", "model.h5"] if name == "densenet121" else ["model.keras"]
    assert [path.name for path in saved] == names
    for path in saved:
        assert path.parent == tmp_path / name
        found = model_files.saved_logits(path, pixels)
        live = model_files.logits_by_layers(model, pixels)
        assert found.shape == (3,) and abs(found - live).max() < 1e-4 * max(1, abs(live).max())
        # A graph sums in another order.
        assert abs(found - logits.ravel()).max() < 1e-3 * max(1, abs(logits).max())


def test_a_picture_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="`image_size` is 74; InceptionV3 needs at least 75"):
        build("inceptionv3", 74)


def test_calibrated_normalization_statistics_are_the_mean_over_batches():
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


def test_the_head_is_attached_to_a_network_with_its_standardization():
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(size=6), rng.uniform(0.1, 2, 6), rng.normal(size=6), 0.5)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, head_layers(inputs))
    freeze_normalization(model)
    put_head(model, head)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    assert_close(model.predict_on_batch(x).ravel(), head.logits(x))
    assert_close(linear_head(model).logits(x), head.logits(x))


def test_the_optimizers_are_those_of_the_original_project():
    found = {name: (spec.optimizer, spec.learning_rate) for name, spec in ARCHITECTURES.items()}
    assert found == {
        "mobilenetv2": ("Adam", 1e-4),
        "inceptionv3": ("RMSprop", 1e-5),
        "densenet121": ("Adam", 1e-4),
    }


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_backbone_computes_in_half_precision_and_the_logit_in_float32(name):
    before = keras.config.dtype_policy().name
    model = build("mobilenetv2", 75, precision=name)
    assert keras.config.dtype_policy().name == before
    assert model.get_layer("Conv1").compute_dtype == name
    assert model.get_layer("Conv1").kernel.dtype == "float32"
    for layer in ("features", "standardize", "dropout", "logit"):
        assert model.get_layer(layer).compute_dtype == "float32"
    assert model.output.dtype == "float32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([], "float32"), ([(8, 0)], "float16"), ([(6, 1)], "float32"), ([(9, 0), (6, 0)], "float32")],
)
def test_auto_is_float16_if_all_gpus_have_tensor_cores(monkeypatch, capabilities, expected):
    monkeypatch.setattr(building, "GPUS", list(range(len(capabilities))))
    monkeypatch.setattr(building, "details", lambda gpu: {"compute_capability": capabilities[gpu]})
    assert precision_for("auto") == expected


def test_a_precision_without_onednn_convolutions_is_refused(monkeypatch):
    assert precision_for("float32") == "float32"

    def aborts(*_):
        raise tf.errors.AbortedError(None, None, "could not create a primitive descriptor")

    monkeypatch.setattr(tf.nn, "conv2d", aborts)
    with pytest.raises(InputError, match="`precision` is float16, which TensorFlow does not"):
        precision_for("float16")
