"""The model files of a run: saved, loaded safely, compared with the live network.

Only the numbers of a `.keras` file are loaded. The file also names its layers, and its author can
name classes that run code: Keras' own checks have been bypassed repeatedly (CVE-2025-1550,
CVE-2025-49655, CVE-2026-1462). So nothing is deserialized: `building.build` makes the network, and
the arrays of the file are copied into it if their names and shapes fit.
"""

import io
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cytology.architectures import ARCHITECTURES, NETWORK_TITLE, TRAINING_NOTEBOOKS
from cytology.files import file_hash, written_whole
from cytology.networks.backend import keras, quietly
from cytology.networks.batches import DecodedImages, decode, frozen_features
from cytology.networks.building import POLICIES, build, feature_extractor
from cytology.networks.engines import TENSORFLOW, Passes, engine_here
from cytology.networks.features import key_of_run
from cytology.networks.passes import passes_of_copy
from cytology.parameters import Line, OneOf, allowed, check_parameter
from cytology.run import Run
from cytology.settings import InputError, short
from cytology.tables import require

CLASSES = ["B", "M"]  # a logit above 0 means the second
WEIGHTS = "model.weights.h5"  # inside a `.keras` file
AT_ONCE = 8  # pictures, if no graph is built


def possible_size(value: int) -> int:
    """A size that a network may have."""
    check_parameter("image_size", value)
    return value


class NetworkEntries(BaseModel):
    """The entries of `metrics.json` from which the network is built, and their allowed values."""

    model_config = ConfigDict(strict=True)

    classes: Annotated[list[str], AfterValidator(OneOf((CLASSES,)))] = Field(
        description=f"one of {CLASSES}"
    )
    image_size: Annotated[int, AfterValidator(possible_size)] = Field(
        description=allowed("image_size")
    )
    precision: Annotated[str, AfterValidator(OneOf(tuple(POLICIES)))] = Field(
        description=f"one of {', '.join(POLICIES)}"
    )
    keras: Line = Field(description="text")
    model_sha256: Line = Field(description="text")


# ------------------------------------------------------------ saving and comparing


def save_model(model: keras.Model, run: Run) -> list[Path]:
    """Write `<architecture>/model.keras`; DenseNet121 also `model.h5`, as the original had it."""
    names = ["model.keras"] + (["model.h5"] if ARCHITECTURES[model.name].kept_as_h5 else [])
    for name in names:
        # Keras warns that HDF5 is a legacy format; the docstring says why we write it.
        with written_whole(run / model.name / name) as temporary, quietly():
            model.save(temporary)
    return [run / model.name / name for name in names]


def saved_logits(path: Path, pictures: np.ndarray) -> np.ndarray:
    """The logits of uint8 pictures by a saved model, shape (pictures,)."""
    return logits_by_layers(keras.saving.load_model(path, compile=False), pictures)


def logits_by_layers(model: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """Logits of uint8 pictures, shape (pictures,), each layer called on its own.

    For so few pictures, building a graph would take longer. `AT_ONCE` limits the memory.
    """
    parts = [pictures[k : k + AT_ONCE] for k in range(0, len(pictures), AT_ONCE)]
    return np.concatenate([np.asarray(model(part, training=False)).ravel() for part in parts])


def images_per_second(passes: Passes, images: DecodedImages, batch_size: int = 32) -> float:
    """Forward passes up to the pooled features, from memory: the faster of two batches.

    The faster, since the first may have to build the graph, and other work only slows them down.
    """
    batch = images.pixels[: min(batch_size, len(images.pixels))]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        passes(batch)
        seconds.append(time.perf_counter() - started)
    return len(batch) / min(seconds)


def about_file(path: Path) -> dict[str, Any]:
    """The entry of a model file in `metrics.json`, by which a later reader recognizes it."""
    return {"classes": CLASSES, "model_sha256": file_hash(path), "keras": keras.version()}


# ------------------------------------------------------------------------ loading


def load_trained(run: Run, architecture: str) -> tuple[keras.Model, dict[str, Any]]:
    """The saved model of a run and its `metrics.json`; see `load_safely`."""
    path = require(run.folder, f"{architecture}/model.keras")
    about = run.about(architecture)
    return load_safely(path, architecture, about), about


def passes_of_model(run: Run, model: keras.Model) -> Passes:
    """The saved model of a run up to its pooled features, with the engine of the run.

    A fine-tuned network always uses TensorFlow, like its predictions.
    """
    about = run.about(model.name)
    engine = TENSORFLOW if about["fine_tuned"] else engine_here(about)
    return passes_of_copy(feature_extractor(model), engine)


def features_of_model(
    run: Run, model: keras.Model, passes: Passes, images: pd.DataFrame, batch_size: int = 32
) -> np.ndarray:
    """The saved model's pooled features of the run's `images`, shape (n, width).

    `passes` comes from `passes_of_model`, `images` has `image_id` and `sha256`. From the cache if
    possible: if only the head was trained, they are the frozen features.
    """
    about, key = run.about(model.name), key_of_run(run, model.name, passes.engine)
    if about["fine_tuned"]:
        key = [model.name, file_hash(run / model.name / "model.keras"), *key[2:]]
    decoded = decode(run.images, images, about["image_size"], about["fit"])
    pictures = images[["image_id"]].assign(orientation=0)
    found = frozen_features(passes, decoded, pictures, key, batch_size)
    return found.of(pictures)


def load_safely(path: Path, architecture: str, about: dict[str, Any]) -> keras.Model:
    """The network with the weights of a run's `.keras` file; `about` is its `metrics.json`.

    Prints a line if another minor version of Keras wrote it. Raises `InputError` if the file was
    changed since training, is damaged or has other weights, or if `about` has impossible values.
    """
    again = f"run notebook {TRAINING_NOTEBOOKS[architecture]} again"
    noted = check_entries(architecture, about, again)
    if noted.model_sha256 != file_hash(path):
        raise InputError(
            f"{short(path)} is not the file that notebook {TRAINING_NOTEBOOKS[architecture][:2]} "
            f"wrote: restore that file, or {again}."
        )
    if minor_version(noted.keras) != minor_version(keras.version()):
        print(
            f"{short(path)} was written by Keras {noted.keras[:20]}, but this is "
            f"{keras.version()}: if its answers differ from predictions.csv, {again}."
        )
    model = build(architecture, noted.image_size, precision=noted.precision)
    try:
        take_weights(model, path)
    except UnlikeNetwork as error:
        raise InputError(
            f"{short(path)} does not have the weights of {NETWORK_TITLE[architecture]} ({error}): "
            f"{again}."
        ) from None
    return model


def check_entries(architecture: str, about: dict[str, Any], again: str) -> NetworkEntries:
    """The entries to build the network from; `InputError` if `metrics.json` has impossible ones."""
    try:
        return NetworkEntries.model_validate(about)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
    raise InputError(
        f"{architecture}/metrics.json has {name} = {repr(about.get(name))[:40]}, not "
        f"{NetworkEntries.model_fields[name].description}: {again}."
    )


class UnlikeNetwork(Exception):
    """The reason why the arrays of a file do not fit a network."""


def take_weights(model: keras.Model, path: Path) -> None:
    """Copy the arrays of the `.keras` file `path` into `model`; `UnlikeNetwork` if they do not fit.

    Keras reads only a file that it has just written itself, in which the numbers were replaced.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        model.save_weights(own)
        with h5py.File(own, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            arrays = {name: file[name] for name in names if isinstance(file[name], h5py.Dataset)}
            try:
                found = stored_arrays(path, arrays)
            except Exception as error:  # zipfile and h5py raise other types in other versions
                raise UnlikeNetwork(in_one_line(error)) from None
            for name, values in found.items():
                arrays[name][...] = values
        model.load_weights(own)


def stored_arrays(path: Path, wanted: dict[str, h5py.Dataset]) -> dict[str, np.ndarray]:
    """The arrays of a `.keras` file with the names of the `wanted` ones; others are not read.

    Raises `ValueError` and other errors if one is missing or does not fit.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(WEIGHTS)
        # As Keras writes it: uncompressed, so it cannot be larger than the file it is in.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{WEIGHTS} is compressed")
        content = archive.read(entry)
    with h5py.File(io.BytesIO(content), "r") as file:
        return {name: stored_array(file, name, like) for name, like in wanted.items()}


def stored_array(file: h5py.File, name: str, like: h5py.Dataset) -> np.ndarray:
    """The array `name`, if it is in this very file and has the shape and type of `like`.

    HDF5 can also point to any other file on the disk, by links or as an array's storage
    (CVE-2026-1669), or unpack without end: plain numbers do neither.
    """
    place = file
    for part in name.encode().split(b"/"):
        if not isinstance(place, h5py.Group) or not place.id.links.exists(part):
            raise ValueError(f"{name} is missing")
        if place.id.links.get_info(part).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{name} is a link")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise ValueError(f"{name} is missing")
    kept = place.id.get_create_plist()
    if kept.get_layout() != h5py.h5d.CONTIGUOUS or kept.get_external_count():
        raise ValueError(f"{name} is not stored as plain numbers")
    if (place.shape, place.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{name} has another shape or type")
    values = place[()]
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite")
    return values


def minor_version(version: str) -> tuple[str, ...]:
    """`3.15` of `3.15.1`."""
    return tuple(version.split(".")[:2])


def in_one_line(error: Exception) -> str:
    """The first sentence of an error's message, or its type if there is none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")[:200]
