"""A model file is opened with care: the right one, whole, and without any code of its own.

A `.keras` file is a description of layers and their weights. Keras' safe mode refuses Python code
in it; older minors could still be led astray by other names (CVE-2025-1550), so nothing is loaded
that our three networks do not need.
"""

import json
import zipfile
from pathlib import Path

from cytology.backend import keras
from cytology.settings import InputError, file_hash, short
from cytology.tables import TRAINING_NOTEBOOKS

CLASSES = ["B", "M"]  # a logit above 0 speaks for the second
# All that the three architectures consist of.
KINDS = {"Functional", "InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "Dense"}
KINDS |= {"BatchNormalization", "Activation", "ReLU", "Add", "Concatenate", "ZeroPadding2D"}
KINDS |= {"MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "Dropout"}
KINDS |= {"Multiply", "Reshape", "VarianceScaling"}  # squeeze and excitation, as EfficientNets have
KINDS |= {"DTypePolicy", "Cast", "GlorotUniform", "Ones", "Zeros", "__keras_tensor__"}


def about_file(path: Path) -> dict:
    """What `metrics.json` keeps of a model file, so that a later reader knows it again."""
    return {"classes": CLASSES, "model_sha256": file_hash(path)}


def load_safely(path: Path, architecture: str, about: dict) -> keras.Model:
    """The model in a `.keras` file of a run, whose `metrics.json` is `about`.

    Raises `InputError` if it is not the file that was written, is damaged, holds another
    architecture, input or order of the classes, or anything but the layers of our networks, or if
    another minor version of Keras wrote it that this one cannot read. Where it can, it is told.
    """
    again = f"run notebook {TRAINING_NOTEBOOKS[architecture]} again"
    check_origin(path, architecture, about, again)
    config, written_by = described(path, again)
    check_parts(path, architecture, config, again)
    other = minor(written_by) != minor(keras.version())
    versions = f"{short(path)} was written by Keras {written_by}, and this is {keras.version()}"
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # what Keras, h5py and zipfile raise differs between versions
        if other:
            raise InputError(f"{versions}, which cannot read it: {again}.") from None
        raise InputError(damaged(path, error, again)) from None
    if other:
        print(f"{versions}: if its answers differ from predictions.csv, {again}.")
    size = about.get("image_size", model.input_shape[1])
    if model.input_shape != (None, size, size, 3) or model.output_shape != (None, 1):
        raise InputError(
            f"{short(path)} turns {model.input_shape[1:]} into {model.output_shape[1:]}, not "
            f"{(size, size, 3)} into (1,): {again}."
        )
    return model


def check_origin(path: Path, architecture: str, about: dict, again: str) -> None:
    """`InputError` if the classes are in another order, or the file was changed since training.

    Runs of earlier versions noted neither.
    """
    classes = about.get("classes", CLASSES)
    if classes != CLASSES:
        raise InputError(
            f"{architecture}/metrics.json has the classes in the order "
            f"{', '.join(map(str, classes))}, not {', '.join(CLASSES)}: {again}."
        )
    if "model_sha256" in about and about["model_sha256"] != file_hash(path):
        raise InputError(
            f"{short(path)} is not the file that notebook {TRAINING_NOTEBOOKS[architecture][:2]} "
            f"wrote: put that one back, or {again}."
        )


def described(path: Path, again: str) -> tuple[dict, str]:
    """What a `.keras` file says of itself: (configuration of the model, version of Keras)."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
            written_by = json.loads(archive.read("metadata.json"))["keras_version"]
        return dict(config), str(written_by)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(damaged(path, error, again)) from None


def check_parts(path: Path, architecture: str, config: dict, again: str) -> None:
    """`InputError` if a configuration is of another architecture or asks for foreign parts."""
    foreign = kinds_in(config) - KINDS
    if foreign:
        raise InputError(
            f"{short(path)} has parts that our networks do not have and that may run code "
            f"({', '.join(sorted(foreign))}), so it is not loaded: {again}."
        )
    if config.get("name") != architecture:
        raise InputError(
            f"{short(path)} holds a {config.get('name')}, not a {architecture}: train it again."
        )


def kinds_in(config) -> set[str]:
    """The names of all classes and functions that a configuration of Keras asks for."""
    inside = config.values() if isinstance(config, dict) else config
    if not isinstance(config, dict | list | tuple):
        return set()
    own = {str(config["class_name"])} if isinstance(config, dict) and "class_name" in config else ()
    return set(own).union(*map(kinds_in, inside))


def minor(version: str) -> tuple[str, ...]:
    """`3.15` of `3.15.1`."""
    return tuple(version.split(".")[:2])


def damaged(path: Path, error: Exception, again: str) -> str:
    """The sentence about a file that cannot be read."""
    return f"{short(path)} is damaged ({in_one_line(error)}): {again}."


def in_one_line(error: Exception) -> str:
    """The first sentence of an error's message, or its kind where there is none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")[:200]
