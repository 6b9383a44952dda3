"""A model file is loaded only if it is the right one, whole, and without code of its own."""

import json
import zipfile

import pytest

from cytology.architectures import build
from cytology.backend import keras
from cytology.inference import load_trained
from cytology.loading import KINDS, about_file, kinds_in
from cytology.settings import ARCHITECTURE_NAMES, InputError
from cytology.tables import read_json, write_json

SIZE = 75


def network(name="mobilenetv2", size=SIZE, extra=()):
    """A network of few layers with the name of another."""
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(image)
    for layer in extra:
        x = layer(x)
    return keras.Model(image, keras.layers.Dense(1)(x), name=name)


def write_run(run, model, **about):
    """Save `model` as the MobileNetV2 of a run, with what training notes of it."""
    path = run / "mobilenetv2" / "model.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    noted = {"fit": "pad", "image_size": SIZE, **about_file(path), **about}
    write_json(run, "mobilenetv2/metrics.json", noted)
    return path


def rewrite(path, name, change):
    """Change one file inside a `.keras` file, and note the new hash as if training had."""
    with zipfile.ZipFile(path) as archive:
        files = {each: archive.read(each) for each in archive.namelist()}
    content = json.loads(files[name])
    change(content)
    files[name] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in files.items():
            archive.writestr(each, data)
    run = path.parent.parent
    about = read_json(run, "mobilenetv2/metrics.json") | about_file(path)
    write_json(run, "mobilenetv2/metrics.json", about)


def test_what_training_wrote_is_loaded_without_a_word(tmp_path, capsys):
    run = tmp_path / "ein Läuf"
    write_run(run, network())
    model, about = load_trained(run, "mobilenetv2")
    assert model.name == "mobilenetv2" and about["classes"] == ["B", "M"]
    assert capsys.readouterr().out == ""


def test_a_run_of_an_earlier_version_is_loaded_too(tmp_path):
    write_run(tmp_path, network())
    write_json(tmp_path, "mobilenetv2/metrics.json", {"fit": "pad"})
    assert load_trained(tmp_path, "mobilenetv2")[1] == {"fit": "pad"}


def test_another_file_in_its_place_is_refused(tmp_path):
    path = write_run(tmp_path, network())
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        InputError,
        match=r"model.keras is not the file that notebook 04 wrote: put that one back, or run "
        r"notebook 04_train_mobilenetv2 again\.$",
    ):
        load_trained(tmp_path, "mobilenetv2")


@pytest.mark.parametrize("cut", ["nothing", "half", "text", "inside"])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, cut):
    path = write_run(tmp_path, network())
    write_json(tmp_path, "mobilenetv2/metrics.json", {"fit": "pad"})  # no hash to know it by
    whole = path.read_bytes()
    place = whole.index(b"model.weights.h5") + 400
    wrong = {"nothing": b"", "half": whole[: len(whole) // 2], "text": b"not a network" * 9}
    wrong["inside"] = whole[:place] + bytes(255 - byte for byte in whole[place : place + 300])
    wrong["inside"] += whole[place + 300 :]
    path.write_bytes(wrong[cut])
    with pytest.raises(InputError, match=r"model.keras is damaged \(.+\): run notebook 04") as told:
        load_trained(tmp_path, "mobilenetv2")
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


def test_another_architecture_input_or_output_is_refused(tmp_path):
    write_run(tmp_path, network("densenet121"))
    with pytest.raises(InputError, match="holds a densenet121, not a mobilenetv2: train it again"):
        load_trained(tmp_path, "mobilenetv2")
    write_run(tmp_path, network(size=96))
    with pytest.raises(InputError, match=r"turns \(96, 96, 3\) into \(1,\), not \(75, 75, 3\)"):
        load_trained(tmp_path, "mobilenetv2")
    write_run(tmp_path, keras.Model(*two_classes(), name="mobilenetv2"))
    with pytest.raises(InputError, match=r"into \(2,\), not \(75, 75, 3\) into \(1,\): run"):
        load_trained(tmp_path, "mobilenetv2")


def two_classes():
    image = keras.Input((SIZE, SIZE, 3))
    return image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(image))


def test_another_order_of_the_classes_is_refused(tmp_path):
    write_run(tmp_path, network(), classes=["M", "B"])
    with pytest.raises(InputError, match="has the classes in the order M, B, not B, M: run"):
        load_trained(tmp_path, "mobilenetv2")


def test_a_layer_that_can_run_code_is_refused(tmp_path):
    write_run(tmp_path, network(extra=[keras.layers.Lambda(lambda x: x * 2)]))
    with pytest.raises(InputError, match=r"may run code \(Lambda, __lambda__\), so it is not load"):
        load_trained(tmp_path, "mobilenetv2")


@pytest.mark.parametrize(
    "module, kind, config",
    [
        ("builtins", "function", "exec"),
        ("keras.utils", "function", "get_file"),
        ("keras.config", "function", "enable_unsafe_deserialization"),
        ("keras.layers", "TFSMLayer", {"filepath": "elsewhere"}),
    ],
)
def test_names_that_lead_out_of_the_network_are_refused(tmp_path, module, kind, config):
    path = write_run(tmp_path, network())

    def smuggle(content):
        layer = content["config"]["layers"][-1]["config"]
        layer["kernel_initializer"] = {"module": module, "class_name": kind, "config": config}

    rewrite(path, "config.json", smuggle)
    with pytest.raises(InputError, match=rf"may run code \({kind}\), so it is not loaded"):
        load_trained(tmp_path, "mobilenetv2")


def test_another_minor_of_keras_is_told(tmp_path, capsys):
    path = write_run(tmp_path, network())
    rewrite(path, "metadata.json", lambda content: content.update(keras_version="3.4.1"))
    model, _ = load_trained(tmp_path, "mobilenetv2")
    told = capsys.readouterr().out
    assert model.name == "mobilenetv2" and told.count("\n") == 1
    assert f"was written by Keras 3.4.1, and this is {keras.version()}" in told
    patch = keras.version().rsplit(".", 1)[0] + ".99"
    rewrite(path, "metadata.json", lambda content: content.update(keras_version=patch))
    load_trained(tmp_path, "mobilenetv2")
    assert capsys.readouterr().out == ""


def test_a_file_that_this_keras_cannot_read_names_both_versions(tmp_path):
    path = write_run(tmp_path, network())
    rewrite(path, "metadata.json", lambda content: content.update(keras_version="9.1.0"))

    def of_tomorrow(content):
        content["config"]["layers"][-1]["config"]["unheard_of"] = 1

    rewrite(path, "config.json", of_tomorrow)
    with pytest.raises(InputError, match=r"by Keras 9.1.0, and this is .+, which cannot read it: "):
        load_trained(tmp_path, "mobilenetv2")


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_our_networks_consist_of_what_is_allowed(name):
    model = build(name, SIZE, None, precision="float16")
    found = kinds_in(json.loads(model.to_json())["config"])
    assert found <= KINDS and {"Conv2D", "Dense", "BatchNormalization"} <= found
