"""Keras starts as the series needs it, whatever its file, the environment or the kernel say."""

import json
import logging
import os
import subprocess
import sys

import pytest

from cytology.networks.backend import tf
from cytology.settings import PROJECT_ROOT

FOREIGN = {"floatx": "float16", "epsilon": 0.1, "backend": "torch", "nnx_enabled": True}
FOREIGN |= {"image_data_format": "channels_first"}
OWN = "from cytology.networks.backend import keras; from cytology.networks.building import build"
SHOWN = """
found = [keras.backend.backend(), keras.config.floatx(), keras.config.image_data_format()]
found += [keras.config.epsilon(), keras.config.dtype_policy().name]
model = build("mobilenetv2", 32)
found += [list(model.get_layer("Conv1").kernel.shape), model.get_layer("features").output.shape[1]]
import numpy
head = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
head.compile("sgd", "mse")
logs = head.fit(numpy.ones((8, 1)), numpy.ones((8, 1)), 2, epochs=3, verbose=0).history["loss"]
found += [len(logs), int(head.optimizer.iterations)]
import json
print("found " + json.dumps(found))
"""
WANTED = ["tensorflow", "float32", "channels_last", 1e-7, "float32", [3, 3, 3, 32], 1280, 3, 12]
LIMITS = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
ENVIRONMENT = {"KERAS_BACKEND": "torch", "KERAS_NNX_ENABLED": "true", **LIMITS}
IN_KERNEL = "import keras; keras.config.set_dtype_policy('mixed_float16')"
OTHER_KERAS = """
import sys
from types import SimpleNamespace
sys.modules["keras"] = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "jax"))
import cytology.networks.backend
"""


def run(code, home, config=None, **environment):
    """Run `code` in a Python of its own, with a Keras whose folder `home` holds `config`."""
    if config is not None:
        (home / "keras.json").write_text(json.dumps(config), encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if name[:6] != "KERAS_"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | {"KERAS_HOME": str(home), **environment},
        cwd=PROJECT_ROOT / "notebooks",
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("before", "config", "environment"),
    [
        ("", FOREIGN, ENVIRONMENT),
        (IN_KERNEL, FOREIGN | {"backend": "tensorflow", "nnx_enabled": False}, LIMITS),
    ],
    ids=["before Keras starts", "when it has started"],
)
def test_settings_made_for_other_work_change_nothing(before, config, environment, tmp_path):
    done = run(f"{before}\n{OWN}\n{SHOWN}", tmp_path, config, **environment)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("found "))
    assert json.loads(line.removeprefix("found ")) == WANTED


def test_keras_on_another_backend_is_refused(tmp_path):
    done = run(OTHER_KERAS, tmp_path)
    assert "InputError: Keras already runs on jax in this kernel, but the networks" in done.stderr


def test_a_file_that_keras_itself_refuses_is_named(tmp_path):
    done = run("import cytology.networks.backend", tmp_path, {"floatx": "bfloat16"})
    assert f"InputError: Keras refuses its keras.json in {tmp_path} (" in done.stderr
    assert "floatx=bfloat16): correct" in done.stderr or "(one of its values): c" in done.stderr
    assert "orrect that file or remove it." in done.stderr


def test_the_device_is_the_accelerator_or_the_cpu():
    from cytology.networks.backend import GPUS, device

    assert bool(tf.config.list_physical_devices("GPU")) == bool(GPUS)
    assert GPUS or device().startswith("CPU, ")


def test_the_number_of_cores_is_reported(monkeypatch):
    from cytology.networks import backend

    monkeypatch.setattr(backend, "GPUS", [])
    monkeypatch.setattr(backend, "all_cores", lambda: 8)
    monkeypatch.setenv("CYTOLOGY_CORES", "2")
    assert backend.device() == "CPU, 2 of 8 cores"
    monkeypatch.setenv("CYTOLOGY_CORES", "8")
    assert backend.device() == "CPU, 8 cores"


def test_only_the_retracing_warning_is_dropped(caplog):
    logger = logging.getLogger("tensorflow")
    with caplog.at_level("WARNING", "tensorflow"):
        logger.addHandler(caplog.handler)
        logger.warning("5 out of the last 5 calls to f triggered tf.function retracing.")
        logger.warning("the disk is full")
        logger.removeHandler(caplog.handler)
    assert set(caplog.messages) == {"the disk is full"}
