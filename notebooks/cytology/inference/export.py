"""A trained network as files for other programs: Keras, LiteRT, TensorFlow Serving, ONNX.

Each takes squares of raw RGB and returns the logit, like the network; `export.json` next to them
has everything else that a user must know. `export_check` runs the files and compares them with the
network.
"""

from pathlib import Path

import numpy as np

from cytology.architectures import ARCHITECTURES
from cytology.data.augmentation import fit_to_square
from cytology.data.images.opening import open_rgb
from cytology.data.splitting import read_split
from cytology.evaluation.caveats import caveats
from cytology.evaluation.judged import OUT_OF_FOLD
from cytology.evaluation.statistics.decisions import RULES
from cytology.files import file_hash, folder_written_whole
from cytology.inference import onnx_files
from cytology.inference.locked import locked_decision
from cytology.machine import versions
from cytology.networks.backend import keras, quietly, tf
from cytology.networks.building import build
from cytology.networks.model_files import CLASSES
from cytology.notebook import progress
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import write_json

# The formats of `export_formats`, with the file or folder of each.
FILES = {
    "keras": "model.keras",
    "h5": "model.h5",
    "tflite_float32": "model_float32.tflite",
    "tflite_int8": "model_int8.tflite",
    "saved_model": "saved_model",
    "onnx": "model.onnx",
}
VERSION = "1"  # TensorFlow Serving wants a numbered folder below the model's
# How to turn an image into the square that each file takes, by `fit`, for `export.json`.
RESIZED = {
    "pad": "resize so that the longer side is `size`, and put it in the middle of a square of the "
    "median colour of its border",
    "stretch": "resize to `size` x `size`, whatever the aspect ratio",
}


def formats_of(architecture: str, wanted: str) -> list[str]:
    """The formats that `wanted` (all, or names separated by commas) means for an architecture.

    If packages are missing, `all` leaves out ONNX and reports it. Raises `InputError` for an
    unknown name, and for `onnx` by name without its packages.
    """
    names = list(FILES) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    unknown = [name for name in names if name not in FILES]
    if unknown:
        raise InputError(
            f"Parameter `export_formats` names {unknown[0]!r}; choose from: all, "
            f"{', '.join(FILES)}."
        )
    if "onnx" in names and (packages := onnx_files.missing_packages()):
        if wanted != "all":
            raise InputError(
                "Parameter `export_formats` names 'onnx', which needs packages that are not "
                f"installed: pip install {packages}, or leave it out."
            )
        onnx_files.report_left_out(packages)
        names.remove("onnx")
    possible = [name for name in FILES if name != "h5" or ARCHITECTURES[architecture].kept_as_h5]
    return [name for name in possible if name in names]


def images_of_part(run: Run, part: str, count: int, seed: int) -> list[str]:
    """At most `count` images of the run's train or test part, drawn with `seed`."""
    split = read_split(run)
    names = split.loc[split["split"] == part, "image_id"].drop_duplicates()
    return sorted(names.sample(min(count, len(names)), random_state=seed))


def squares_of(run: Run, architecture: str, image_ids: list[str]) -> np.ndarray:
    """Images of the run as network input, shape (images, size, size, 3), uint8."""
    root, about = run.images, run.about(architecture)
    size, fit = about["image_size"], about["fit"]
    return np.stack([fit_to_square(open_rgb(root / name), size, fit) for name in image_ids])


def export(run: Run, model: keras.Model, formats: list[str], calibration: np.ndarray) -> Path:
    """Write `exports/<architecture>/` in `formats`, atomically; returns the folder.

    `calibration` holds squares of training images, uint8, whose activations set the int8 ranges.
    """
    name = model.name
    beside = description(run, name)
    whole, model = model, in_float32(model)
    folder = run / "exports" / name
    with folder_written_whole(folder) as new:
        for each in progress(formats, f"exporting {name}", unit="format"):
            path = new / FILES[each]
            if each == "keras":
                # Not a copy of the run's file: one from a stranger may have other layers.
                whole.save(path)
            elif each == "h5":
                with quietly():
                    model.save(path)
            elif each == "saved_model":
                save_for_serving(model, path / VERSION)
            elif each == "onnx":
                onnx_files.write(model, path)
            else:
                path.write_bytes(
                    convert_to_tflite(model, calibration if each == "tflite_int8" else None)
                )
        beside["calibration_images"] = len(calibration) if "tflite_int8" in formats else 0
        files = sorted(path for path in new.rglob("*") if path.is_file())
        beside["files"] = {path.relative_to(new).as_posix(): file_hash(path) for path in files}
        write_json(new, "export.json", beside)
    return folder


def in_float32(model: keras.Model) -> keras.Model:
    """The same network in float32: other runtimes may not support half precision."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    twin = build(model.name, model.input_shape[1], None)
    twin.set_weights(model.get_weights())
    return twin


def save_for_serving(model: keras.Model, folder: Path) -> None:
    """Write a SavedModel: from `image`, (batch, size, size, 3) float32, to `logit`, (batch, 1)."""
    size, archive = model.input_shape[1], keras.export.ExportArchive()
    given = tf.TensorSpec((None, size, size, 3), tf.float32, name="image")
    # Not `model.export`, which writes every weight twice (keras#23553).
    archive.add_endpoint(
        "serving_default", lambda image: {"logit": model(image, training=False)}, [given]
    )
    for name in (
        "assets",
        "variables",
    ):  # TensorFlow's own folders would not be readable for the group
        (folder / name).mkdir(parents=True)
    with quietly():
        archive.write_out(str(folder), verbose=False)


# ------------------------------------------------------------------------ LiteRT


def convert_to_tflite(model: keras.Model, calibration: np.ndarray | None = None) -> bytes:
    """The network as a TFLite file for one image at a time.

    Without `calibration` everything is float32. With it (uint8 squares) everything is
    computed in 8-bit integers: raw RGB comes in as uint8, and the logit goes out as int8,
    to be multiplied by the scale stored in the file.
    """
    size = model.input_shape[1]
    one = tf.TensorSpec((1, size, size, 3), tf.float32, name="image")

    @tf.function(input_signature=[one])
    def predict(image):
        return {"logit": model(image, training=False)}

    traced, owner = predict.get_concrete_function(), tf.Module()
    owner.variables_in_use = traced.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], owner)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        watched = full_range(calibration)
        converter.representative_dataset = lambda: ([each[None]] for each in watched)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    with quietly():
        return converter.convert()


def full_range(squares: np.ndarray) -> np.ndarray:
    """The squares as float32, with one black and one white pixel in the corners of the first.

    So the input's range is 0 to 255 whatever the images show, its scale is 1, and raw pixels need
    no conversion.
    """
    found = squares.astype(np.float32)
    found[0, 0, 0], found[0, -1, -1] = 0, 255
    return found


# ------------------------------------------------------------- export.json


def description(run: Run, name: str) -> dict:
    """What a user of the files must know, for `export.json`.

    Raises `InputError` if notebook 08 locked no threshold for this training of the network.
    """
    locked = {rule: locked_decision(run, name, rule) for rule in RULES}
    about, used = run.about(name), versions()
    size = about["image_size"]
    return {
        "architecture": name,
        "labels": CLASSES,
        "positive": "M",
        "output": "one logit per image; malignant (M) if it is at least the threshold's logit",
        "thresholds": {
            rule: {
                "logit": each.threshold_logit,
                "calibrated_probability": each.threshold,
                "chosen_on": each.chosen_on,
                "note": each.threshold_note,
            }
            for rule, each in locked.items()
        },
        "slope": locked["half"].slope,
        "intercept": locked["half"].intercept,
        "calibration_note": locked["half"].note,
        "calibrated_probability": "1 / (1 + exp(-(intercept + slope * logit)))",
        "malignant_share": malignant_share(run, locked["half"].chosen_on),
        "malignant_share_note": "of the images on which thresholds and calibration were chosen; if "
        "another share is malignant, calibrated probabilities and precision are not valid",
        "preprocessing": {
            "shape": f"(images, {size}, {size}, 3), RGB",
            "pixels": "raw, 0 to 255; scaling is inside the files",
            "onnx": f"opset {onnx_files.OPSET}; channels first: `{onnx_files.INPUT}`, (images, 3, "
            f"{size}, {size}), RGB, float32",
            "size": size,
            "fit": about["fit"],
            "how": "open the image upright, as 8-bit RGB, transparency on white; "
            f"{RESIZED[about['fit']]}. Resize with Pillow: bilinear, reducing_gap=3",
            "in_python": f"{fit_to_square.__module__}.fit_to_square("
            f"{open_rgb.__module__}.open_rgb(path), {size}, {about['fit']!r})",
        },
        "weights": about["weights"],
        "weights_hash": about["weights_hash"],
        "recipe": about["recipe"],
        "trained_in": about["precision"],
        "seed": about["seed"],
        "protocol": about["protocol"],
        "caveats": [caveat.text for caveat in caveats(run)],
        "model_sha256": file_hash(run / name / "model.keras"),
        "versions": {key: used[key] for key in ("python", "tensorflow", "keras", "numpy")},
    }


def malignant_share(run: Run, chosen_on: str) -> float:
    """The share of malignant images among those on which thresholds were chosen."""
    parts = run.facts("split.json")["counts"]
    counts = [parts[name] for name in (("train", "val") if chosen_on == OUT_OF_FOLD else ("val",))]
    return sum(part["M"] for part in counts) / sum(part["images"] for part in counts)
