"""Where weights come from; a fallback is never silent."""

import hashlib
import socket
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cytology.architectures import ARCHITECTURES
from cytology.networks import weights
from cytology.networks.weights import find_weights, unreachable
from cytology.settings import InputError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty Keras home and no network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weights, "unreachable", lambda address: "no route")
    return tmp_path / "keras" / "models"


def file_of(architecture):
    """What Keras calls the file of a network's ImageNet weights."""
    return ARCHITECTURES[architecture].weights.split("/")[-1]


def put(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("weights")
    return folder / name


def test_without_a_connection_auto_uses_random_weights_and_warns(home):
    found = find_weights("mobilenetv2", "auto")
    assert (found.kind, found.path) == ("random", None)
    assert found.explanation.startswith("NO PRETRAINED WEIGHTS for MobileNetV2")
    assert str(home) in found.explanation and "(no route)" in found.explanation
    assert "not to rank networks" in found.explanation


def test_without_a_connection_imagenet_is_an_error(home):
    with pytest.raises(InputError) as error:
        find_weights("mobilenetv2", "imagenet")
    assert str(home) in str(error.value) and "cannot be downloaded (no route)" in str(error.value)


@pytest.mark.parametrize("choice", ["auto", "imagenet"])
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_the_keras_cache_is_used_without_a_connection(home, monkeypatch, architecture, choice):
    monkeypatch.setattr(weights, "unreachable", None)
    unchecked = replace(
        ARCHITECTURES[architecture], md5=""
    )  # "weights" is not what Keras publishes
    monkeypatch.setitem(ARCHITECTURES, architecture, unchecked)
    path = put(home, file_of(architecture))
    found = find_weights(architecture, choice)
    assert (found.kind, found.path) == ("imagenet", path)


def test_random_weights_need_no_connection(monkeypatch):
    monkeypatch.setattr(weights, "unreachable", None)
    assert find_weights("densenet121", "random").kind == "random"


def test_a_weights_file_is_used_for_its_architecture_and_the_others_follow_auto(tmp_path):
    path = put(tmp_path, "mobilenetv2_imagenet_notop.weights.h5")
    own = find_weights("mobilenetv2", str(path))
    assert (own.kind, own.path) == ("file", path)
    other = find_weights("densenet121", str(path))
    assert other.kind == "random"
    assert other.explanation.startswith(f"{path.name} is not named for densenet121. NO PRE")


def test_a_weights_folder_is_used_for_the_architectures_it_has(tmp_path):
    path = put(tmp_path / "weights", "inceptionv3_x.weights.h5")
    put(tmp_path / "weights", "densenet121.txt")
    own = find_weights("inceptionv3", str(path.parent))
    assert (own.kind, own.path) == ("file", path)
    other = find_weights("densenet121", str(path.parent))
    assert other.kind == "random"
    assert other.explanation.startswith(f"No densenet121*.weights.h5 in {path.parent}. NO PRE")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_files_keep_the_names_that_keras_gives_them(tmp_path, architecture):
    files = {name: put(tmp_path, file_of(name)) for name in ARCHITECTURES}
    assert find_weights(architecture, str(tmp_path)).path == files[architecture]
    assert find_weights(architecture, str(files[architecture])).kind == "file"


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(InputError, match="There is no file or folder"):
        find_weights("mobilenetv2", str(tmp_path / "no.weights.h5"))


def test_a_server_that_does_not_answer_times_out(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "timed out" in unreachable(f"http://127.0.0.1:{port}/x", seconds=0.2)
    assert unreachable(f"http://127.0.0.1:{port}/x", seconds=0.2)


def test_a_broken_download_is_reported(home, monkeypatch):
    def broken(*_, **__):
        raise Exception("connection reset")

    keras = SimpleNamespace(utils=SimpleNamespace(get_file=broken))
    monkeypatch.setitem(sys.modules, "cytology.networks.backend", SimpleNamespace(keras=keras))
    monkeypatch.setattr(weights, "unreachable", lambda address: "")
    found = weights.find_weights("densenet121", "auto")
    assert found.kind == "random" and "connection reset" in found.explanation
    with pytest.raises(InputError, match="connection reset"):
        weights.find_weights("densenet121", "imagenet")


def test_damaged_imagenet_weights_are_not_used(home, monkeypatch):
    path = put(home, file_of("inceptionv3"))
    found = find_weights("inceptionv3", "auto")
    assert found.kind == "random" and f"no route, and {path} is damaged" in found.explanation
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(
        ARCHITECTURES, "inceptionv3", replace(ARCHITECTURES["inceptionv3"], md5=md5)
    )
    assert find_weights("inceptionv3", "auto").path == path


def test_unrequested_random_weights_are_reported_before_a_run(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "unreachable", lambda address: "no route")
    both = ["mobilenetv2", "densenet121"]
    said = weights.warning_of_random(both, "auto")
    assert said.startswith("No pretrained weights for MobileNetV2 and DenseNet121: none")
    assert weights.warning_of_random(both, "random") == ""
    (tmp_path / "densenet121.weights.h5").write_bytes(b"weights")
    assert "for MobileNetV2: none" in weights.warning_of_random(both, str(tmp_path))
    monkeypatch.setattr(weights, "unreachable", lambda address: "")
    assert weights.warning_of_random(both, "auto") == ""
