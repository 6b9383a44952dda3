"""Exported files give the network's answers, with their description; nothing half written."""

import os
import sys

import numpy as np
import pandas as pd
import pytest

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.data.splitting import judged_pictures, split_facts
from cytology.evaluation.predictions import prediction_rows, predictions_fingerprint
from cytology.files import file_hash
from cytology.inference import export, export_check, onnx_files
from cytology.inference.export import FILES, formats_of
from cytology.inference.locked import locked_decision
from cytology.networks.backend import keras, tf
from cytology.networks.building import build
from cytology.networks.model_files import about_file, load_trained
from cytology.run import Run
from cytology.settings import InputError

pytestmark = pytest.mark.numeric

SIZE = 75
LACKING = onnx_files.missing_packages()
ONNX = [] if LACKING else ["onnx"]
ALL = ["keras", "tflite_float32", "tflite_int8", "saved_model", *ONNX]


def small_network(name="mobilenetv2"):
    """A network of few layers with the name of another, so that converting it takes no time."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    x = keras.layers.Conv2D(8, 5, strides=4, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, keras.layers.Dense(1, name="logit")(x), name=name)


def run_with(folder, model, data):
    """A run that notebooks 01 to 07 might have left, with `model` as its network."""
    run, name, pictures = Run(folder), model.name, judged_pictures(data.split)
    root, images = str(data.root), len(data.manifest)
    run.write("dataset.json", {"data": root, "root": root, "unit": "patient", "images": images})
    run.write("manifest.csv", data.manifest)
    run.write("split.csv", data.split)
    split = split_facts(data.split, data.manifest, "grouped", "patient", seed=0)
    run.write("split.json", split)
    (run / name).mkdir()
    model.save(run / name / "model.keras")
    about = {"architecture": name, "weights": "random", "weights_hash": "0", "recipe": "head"}
    about |= {"image_size": SIZE, "fit": "pad", "precision": "float32", "seed": 0}
    about |= {"engine": "tensorflow"}
    about |= {"protocol": "grouped", "split": split["fingerprint"]}
    about |= {"fine_tuned": False, **about_file(run / name / "model.keras")}
    run.write(f"{name}/metrics.json", about)
    squares = export.squares_of(run, name, list(pictures["image_id"]))
    logits = model.predict_on_batch(squares).ravel()
    run.write(f"{name}/predictions.csv", prediction_rows(pictures, logits, "final", 0))
    middle = float(np.median(logits))
    rows = [(name, rule, place) for rule, place in zip(RULES, (0.0, middle, -1), strict=True)]
    table = pd.DataFrame(rows, columns=["model", "rule", "threshold_logit"])
    table = table.assign(chosen_on="val", note="", predictions=predictions_fingerprint(run, name))
    run.write("tables/thresholds.csv", table)
    fitted = {"model": name, "method": "platt", "slope": 0.6, "intercept": 0.0, "note": ""}
    run.write("tables/calibration.csv", pd.DataFrame([fitted]))
    return run


RULES = ("half", "youden", "sensitivity")


@pytest.fixture(scope="module")
def made(tmp_path_factory, data):
    """A run whose small network was exported in all its formats: (run, network, table)."""
    folder = tmp_path_factory.mktemp("run") / "Läufe und Abstriche" / "ä 1"
    folder.mkdir(parents=True)
    model = small_network()
    run = run_with(folder, model, data)
    train = export.images_of_part(run, "train", 100, 0)
    export.export(run, model, ALL, export.squares_of(run, "mobilenetv2", train))
    return run, model, checked(run, model)


def checked(run, model):
    squares = export.squares_of(run, model.name, export.images_of_part(run, "test", 32, 0))
    decision = locked_decision(run, model.name, "youden")
    return export_check.check_exports(run, model, decision, squares)


# ------------------------------------------------------------------------- files


def test_every_exported_file_agrees_with_the_network(made):
    _, _, table = made
    assert table["format"].tolist() == ALL
    table = table.set_index("format")
    exact = ["keras", "tflite_float32", "saved_model", *ONNX]
    assert (table.loc[exact, "tolerance"] == 1e-3).all()
    assert (table.loc[exact, "largest_difference"] < 1e-4).all()
    assert np.isnan(table.loc["tflite_int8", "tolerance"])
    assert 0 < table.loc["tflite_int8", "largest_difference"] < 0.1
    assert (table["images"] == 4).all() and table["agrees"].all()
    assert (table["latency"] > 0).all() and (table["megabytes"] > 0).all()
    assert (table["warning"] == "").all() and set(table["weights"]) == {"random"}
    assert table.loc["saved_model", "file"] == "exports/mobilenetv2/saved_model"


def test_int8_takes_raw_pixels_and_computes_in_integers(made):
    run, _, _ = made
    path = run / "exports" / "mobilenetv2" / "model_int8.tflite"
    interpreter = export_check.interpreter_of(path)
    given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert given["dtype"] == np.uint8 and given["quantization"] == (1.0, 0)
    assert answer["dtype"] == np.int8
    kinds = {details["dtype"] for details in interpreter.get_tensor_details()}
    assert np.float32 not in kinds


def test_thresholds_and_preprocessing_are_exported_with_the_files(made):
    run, _, _ = made
    folder = run / "exports" / "mobilenetv2"
    about = run.facts("exports/mobilenetv2/export.json")
    assert about["labels"] == ["B", "M"] and about["positive"] == "M"
    assert (about["slope"], about["intercept"]) == (0.6, 0.0)
    assert list(about["thresholds"]) == list(RULES)
    val = run.table("split.csv").query("split == 'val'")["label"]
    assert about["malignant_share"] == (val == "M").mean()
    assert about["thresholds"]["sensitivity"]["logit"] == -1
    assert about["thresholds"]["half"]["calibrated_probability"] == 0.5
    steps = about["preprocessing"]
    assert steps["size"] == SIZE and steps["fit"] == "pad"
    assert steps["shape"] == "(images, 75, 75, 3), RGB" and steps["pixels"].startswith("raw, 0 to")
    assert "the longer side is `size`" in steps["how"] and "median colour" in steps["how"]
    assert steps["in_python"].endswith("open_rgb(path), 75, 'pad')")
    assert about["weights"] == "random" and about["protocol"] == "grouped" and about["seed"] == 0
    assert about["versions"]["keras"] == keras.version()
    assert any("random weights" in caveat for caveat in about["caveats"])
    assert about["calibration_images"] == len(export.images_of_part(run, "train", 100, 0))
    files = {path for path in folder.rglob("*") if path.is_file()} - {folder / "export.json"}
    assert {folder / name for name in about["files"]} == files
    assert all(file_hash(folder / name) == code for name, code in about["files"].items())
    assert about["model_sha256"] == file_hash(run / "mobilenetv2" / "model.keras")


def test_int8_never_sees_a_test_image(made):
    run, _, _ = made
    split = run.table("split.csv").set_index("image_id")["split"]
    assert set(split[export.images_of_part(run, "train", 100, 0)]) == {"train"}
    assert len(export.images_of_part(run, "train", 5, 0)) == 5
    assert export.images_of_part(run, "train", 5, 0) != export.images_of_part(run, "train", 5, 1)


def test_only_the_weights_of_a_model_file_are_exported(made, data, tmp_path):
    _, model, _ = made
    run = run_with(tmp_path, model, data)
    (run / "mobilenetv2" / "model.keras").write_bytes(b"layers that run code")
    folder = export.export(run, model, ["keras"], np.zeros((0, SIZE, SIZE, 3), np.uint8))
    loaded = keras.saving.load_model(folder / "model.keras", compile=False)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_failed_export_keeps_the_earlier_one(made, data, tmp_path, monkeypatch):
    _, model, _ = made
    run = run_with(tmp_path, model, data)
    squares = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    export.export(run, model, ["keras", "saved_model"], squares)
    before = sorted((run / "exports").rglob("*"))

    def fails(*_):
        raise RuntimeError("no converter")

    with monkeypatch.context() as patch:
        patch.setattr(export, "convert_to_tflite", fails)
        with pytest.raises(RuntimeError, match="no converter"):
            export.export(run, model, ["keras", "tflite_float32"], squares)
    assert sorted((run / "exports").rglob("*")) == before
    export.export(run, model, ["keras"], squares)
    names = sorted(path.name for path in (run / "exports").rglob("*"))
    assert names == ["export.json", "mobilenetv2", "model.keras"]


def test_an_exported_file_that_disagrees_is_reported(made):
    run, model, _ = made
    other = keras.models.clone_model(model)
    kernel, bias = model.get_layer("logit").get_weights()
    other.set_weights(model.get_weights())
    other.get_layer("logit").set_weights([-kernel, -bias + 3])
    table = checked(run, other).set_index("format")
    assert not table["agrees"].any()
    assert table.loc["keras", "warning"].startswith("MobileNetV2, keras: a logit differs by ")
    # These logits lie above 3, and the tolerance is a thousandth of the largest.
    assert "more than 0.0032: do not use this file" in table.loc["keras", "warning"]
    sentence = table.loc["tflite_int8", "warning"]
    assert "test images get another decision than from the network (at most 1 is" in sentence


def test_rows_of_other_networks_are_kept(tmp_path):
    def rows(*names, latency):
        table = pd.DataFrame({"architecture": names, "format": "keras", "latency": latency})
        return table.assign(warning="", agrees=True, weights="random", protocol="grouped")

    run = Run(tmp_path)
    export_check.write_exports(run, rows("densenet121", latency=1.0))
    export_check.write_exports(run, rows("mobilenetv2", latency=2.0))
    table = export_check.write_exports(run, rows("densenet121", latency=3.0))
    assert table["architecture"].tolist() == ["mobilenetv2", "densenet121"]
    assert table["latency"].tolist() == [2.0, 3.0]
    pd.testing.assert_frame_equal(run.table("tables/exports.csv"), table)


def test_without_tflite_the_error_says_what_to_install(made, monkeypatch):
    run, _, _ = made
    monkeypatch.setattr(export_check.tf, "lite", object())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(
        InputError, match="cannot run TFLite files: install ai-edge-litert, or leave"
    ):
        export_check.interpreter_of(run / "exports" / "mobilenetv2" / "model_int8.tflite")


def test_a_half_precision_network_is_exported_in_single_precision():
    half = build("mobilenetv2", 32, None, precision="bfloat16")
    single = export.in_float32(half)
    assert {layer.compute_dtype for layer in single.layers} == {"float32"}
    for ours, theirs in zip(single.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert export.in_float32(single) is single


def test_format_names_are_parsed():
    assert formats_of("densenet121", "all") == [name for name in FILES if name != "onnx"] + ONNX
    assert formats_of("mobilenetv2", "all") == ALL
    assert formats_of("mobilenetv2", "h5") == []
    assert formats_of("densenet121", "saved_model,  h5") == ["h5", "saved_model"]
    with pytest.raises(
        InputError, match="`export_formats` names 'coreml'; choose from: all, keras,"
    ):
        formats_of("densenet121", "keras, coreml")


def test_without_its_packages_onnx_is_skipped_and_reported_once(monkeypatch, capsys):
    monkeypatch.setattr(onnx_files, "NEEDED", ("numpy", "no-such-package"))
    onnx_files.report_left_out.cache_clear()
    for _ in range(2):
        assert "onnx" not in formats_of("densenet121", "all")
    said = capsys.readouterr().out
    assert said == "The format onnx is left out; it needs: pip install no-such-package\n"
    with pytest.raises(InputError, match="'onnx', which needs packages that are not installed"):
        formats_of("densenet121", "keras, onnx")


@pytest.mark.skipif(bool(LACKING), reason=f"not installed: {LACKING}")
def test_an_onnx_file_matches_export_json(made):
    import onnx
    import onnxruntime

    run, model, _ = made
    path = run / "exports" / "mobilenetv2" / "model.onnx"
    said = run.facts("exports/mobilenetv2/export.json")["preprocessing"]["onnx"]
    assert said == f"opset 15; channels first: `image`, (images, 3, {SIZE}, {SIZE}), RGB, float32"
    file = onnx.load(path)
    onnx.checker.check_model(file)
    assert {each.domain: each.version for each in file.opset_import}[""] == 15
    (given,) = onnxruntime.InferenceSession(path.read_bytes()).get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("image", "tensor(float)", [3, SIZE, SIZE])
    squares = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    found = onnx_files.runner(path)(squares)  # several at once
    np.testing.assert_allclose(found, model.predict_on_batch(squares).ravel(), atol=1e-4)


def test_the_malignant_share_comes_from_the_images_used_for_the_choice(tmp_path):
    counts = {"train": {"images": 60, "M": 30}, "val": {"images": 20, "M": 2}, "test": {}}
    run = Run(tmp_path)
    run.write("split.json", {"counts": counts})
    assert export.malignant_share(run, "out-of-fold") == 32 / 80
    assert export.malignant_share(run, "val") == 0.1


def test_a_saved_model_has_one_signature_and_stores_every_weight_once(made):
    run, model, _ = made
    folder = run / "exports" / "mobilenetv2" / "saved_model" / "1"
    assert list(tf.saved_model.load(str(folder)).signatures) == ["serving_default"]
    kept = tf.train.list_variables(str(folder / "variables" / "variables"))
    assert sum(np.prod(shape) for _, shape in kept if shape) == model.count_params()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_a_saved_model_gets_the_permissions_that_the_umask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        export.save_for_serving(small_network(), tmp_path / "saved_model" / "1")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert len(modes) > 5
    assert modes == {path: (0o777 if path.is_dir() else 0o666) & ~mask for path in modes}


# ------------------------------------------------------------ the real networks


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_every_export_of_every_architecture_agrees_with_the_network(name, data, tmp_path):
    model = build(name, SIZE, None)
    rng = np.random.default_rng(0)
    squares = data.images.batch(data.manifest["image_id"], np.zeros(len(data.manifest), int))
    features = keras.Model(model.input, model.get_layer("features").output).predict(squares)
    model.get_layer("standardize").set_weights([features.mean(axis=0), features.var(axis=0) + 1])
    kernel = rng.normal(size=(features.shape[1], 1)) / features.shape[1] ** 0.5
    model.get_layer("logit").set_weights([kernel, np.zeros(1)])
    run = run_with(tmp_path, model, data)
    model, _ = load_trained(run, name)
    drawn = export.squares_of(run, name, export.images_of_part(run, "train", 100, 0))
    export.export(run, model, formats_of(name, "all"), drawn)
    table = checked(run, model)
    assert set(table["format"]) >= set(ALL)
    assert ("h5" in set(table["format"])) == (name == "densenet121")
    assert table.loc[table["tolerance"].notna(), "agrees"].all(), table
    # Eight bits may change decisions of an untrained network, but must not be meaningless.
    int8 = table.set_index("format").loc["tflite_int8"]
    logits = model.predict_on_batch(squares).ravel()
    assert int8["largest_difference"] < np.ptp(logits) and int8["agrees"] == (int8["warning"] == "")
