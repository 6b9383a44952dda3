"""What a network computes in, and that its logits stay float32."""

import numpy as np
import pytest

from cytology.networks import precision
from cytology.networks.backend import keras, tf
from cytology.networks.building import build
from cytology.networks.precision import precision_for
from cytology.settings import InputError

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_backbone_computes_in_half_the_bits_and_the_logit_in_float32(name):
    before = keras.config.dtype_policy().name
    model = build("mobilenetv2", 75, precision=name)
    assert keras.config.dtype_policy().name == before
    assert model.get_layer("Conv1").compute_dtype == name
    assert model.get_layer("Conv1").kernel.dtype == "float32"
    for layer in ("features", "standardize", "dropout", "logit"):
        assert model.get_layer(layer).compute_dtype == "float32"
    assert model.output.dtype == "float32"


def test_what_is_asked_for_is_taken_if_it_can_be_computed(monkeypatch):
    assert precision_for("float32", "mobilenetv2", 75) == "float32"
    monkeypatch.setattr(precision, "convolves", lambda asked: asked == "bfloat16")
    assert precision_for("bfloat16", "mobilenetv2", 75) == "bfloat16"
    with pytest.raises(InputError, match="`precision` is float16, in which TensorFlow does not"):
        precision_for("float16", "mobilenetv2", 75)


def test_a_convolution_that_onednn_cannot_make_is_noticed(monkeypatch):
    assert precision.convolves("float32")

    def aborts(*_):
        raise tf.errors.AbortedError(None, None, "could not create a primitive descriptor")

    monkeypatch.setattr(tf.nn, "conv2d", aborts)
    assert not precision.convolves("bfloat16")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([(8, 0)], "float16"), ([(6, 1)], "float32"), ([(9, 0), (6, 0)], "float32")],
)
def test_a_gpu_decides_by_its_tensor_cores(monkeypatch, capabilities, expected):
    monkeypatch.setattr(precision, "GPUS", list(range(len(capabilities))))
    monkeypatch.setattr(precision, "details", lambda gpu: {"compute_capability": capabilities[gpu]})
    assert precision_for("auto", "mobilenetv2", 75) == expected


@pytest.mark.parametrize(("gain", "expected"), [(1.5, "bfloat16"), (1.05, "float32")])
def test_a_processor_decides_by_measuring_once(monkeypatch, tmp_path, gain, expected):
    measured = []
    monkeypatch.setattr(precision, "GPUS", [])
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "convolves", lambda asked: True)
    monkeypatch.setattr(
        precision, "bfloat16_gain", lambda name, size: measured.append((name, size)) or gain
    )
    for _ in range(2):
        assert precision_for("auto", "densenet121", 75, tmp_path) == expected
    assert measured == [("densenet121", 75)]
    precision_for("auto", "densenet121", 96, tmp_path)
    precision_for("auto", "mobilenetv2", 75, tmp_path)
    assert len(measured) == 3


def test_a_processor_without_bfloat16_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "GPUS", [])
    monkeypatch.setattr(precision, "_about_processor", lambda: "flags : fpu avx2")
    monkeypatch.setattr(precision, "bfloat16_gain", None)
    assert precision_for("auto", "mobilenetv2", 75, tmp_path) == "float32"
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "convolves", lambda asked: False)
    assert precision_for("auto", "mobilenetv2", 75, tmp_path) == "float32"


def test_linux_tells_what_the_processor_computes_in(monkeypatch):
    monkeypatch.setattr(
        precision, "_about_processor", lambda: "model name\t: A B C\nflags\t: fpu avx512_bf16 x"
    )
    assert precision.has_bfloat16() and precision.processor() == "A B C"


def test_the_gain_is_measured():
    if not precision.convolves("bfloat16"):
        pytest.skip("TensorFlow does not compute in bfloat16 here")
    gain = precision.bfloat16_gain("mobilenetv2", 75)
    assert np.isfinite(gain) and gain > 0
