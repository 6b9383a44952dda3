"""The model files of a run: saved, loaded with care, compared with the live network.

Of a `.keras` file only the numbers are loaded. It also says which layers it wants, and whoever made
it can name classes there that run code: Keras' own checks were bypassed again and again
(CVE-2025-1550, CVE-2025-49655, CVE-2026-1462). So nothing is deserialized: `building.build`
makes the network, and the arrays of the file are copied into it if their names and shapes fit.
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

CLASSES = ["B", "M"]  # a logit above 0 speaks for the second
WEIGHTS = "model.weights.h5"  # inside a `.keras` file
AT_ONCE = 8  # pictures, where no graph is built


def possible_size(value: int) -> int:
    """A size that a network may have."""
    check_parameter("image_size", value)
    return value


class Noted(BaseModel):
    """What of `metrics.json` the network is built from, or is printed, and what it may be."""

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
        # Keras warns that HDF5 is legacy; the docstring says why we write it.
        with written_whole(run / model.name / name) as temporary, quietly():
            model.save(temporary)
    return [run / model.name / name for name in names]


def saved_logits(path: Path, pictures: np.ndarray) -> np.ndarray:
    """The logits of uint8 pictures by a saved model, shape (pictures,)."""
    return logits_by_layers(keras.saving.load_model(path, compile=False), pictures)


def logits_by_layers(model: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """Logits of uint8 pictures, shape (pictures,), each layer called on its own.

    For so few pictures, building a graph would take longer. `AT_ONCE` of them bound the memory.
    """
    parts = [pictures[k : k + AT_ONCE] for k in range(0, len(pictures), AT_ONCE)]
    return np.concatenate([np.asarray(model(part, training=False)).ravel() for part in parts])


def images_per_second(passes: Passes, images: DecodedImages, batch_size: int = 32) -> float:
    """Forward passes up to the pooled features, from memory: the better of two batches.

    The better, since the first may have to build the graph, and other work can only slow them.
    """
    batch = images.pixels[: min(batch_size, len(images.pixels))]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        passes(batch)
        seconds.append(time.perf_counter() - started)
    return len(batch) / min(seconds)


def about_file(path: Path) -> dict[str, Any]:
    """What `metrics.json` notes of a model file, so that a later reader recognizes it."""
    return {"classes": CLASSES, "model_sha256": file_hash(path), "keras": keras.version()}


# ------------------------------------------------------------------------ loading


def load_trained(run: Run, architecture: str) -> tuple[keras.Model, dict[str, Any]]:
    """The saved model of a run and its `metrics.json`; see `load_safely`."""
    path = require(run.folder, f"{architecture}/model.keras")
    about = run.about(architecture)
    return load_safely(path, architecture, about), about


def passes_of_model(run: Run, model: keras.Model) -> Passes:
    """The saved model of a run up to its pooled features, by the engine that made them there.

    A network that was trained further is TensorFlow's, as its predictions are.
    """
    about = run.about(model.name)
    engine = TENSORFLOW if about["fine_tuned"] else engine_here(about)
    return passes_of_copy(feature_extractor(model), engine)


def features_of_model(
    run: Run, model: keras.Model, passes: Passes, images: pd.DataFrame, batch_size: int = 32
) -> np.ndarray:
    """What the saved model's pooled features say of the run's `images`, shape (n, width).

    `passes` is what `passes_of_model` gives, `images` has `image_id` and `sha256`. From the cache
    where they were computed before: those of a network of which only the head was trained are the
    frozen ones.
    """
    about, key = run.about(model.name), key_of_run(run, model.name, passes.engine)
    if about["fine_tuned"]:
        key = [model.name, file_hash(run / model.name / "model.keras"), *key[2:]]
    decoded = decode(run.images, images, about["image_size"], about["fit"])
    pictures = images[["image_id"]].assign(orientation=0)
    found = frozen_features(passes, decoded, pictures, key, batch_size)
    return found.of(pictures)


def load_safely(path: Path, architecture: str, about: dict[str, Any]) -> keras.Model:
    """The network whose weights the `.keras` file of a run holds; `about` is its `metrics.json`.

    Prints a line if another minor version of Keras wrote it. Raises `InputError` if the file was
    changed since training, is damaged or holds other weights, or if `about` notes what cannot be.
    """
    again = f"run notebook {TRAINING_NOTEBOOKS[architecture]} again"
    noted = checked(architecture, about, again)
    if noted.model_sha256 != file_hash(path):
        raise InputError(
            f"{short(path)} is not the file that notebook {TRAINING_NOTEBOOKS[architecture][:2]} "
            f"wrote: put that one back, or {again}."
        )
    if minor(noted.keras) != minor(keras.version()):
        print(
            f"{short(path)} was written by Keras {noted.keras[:20]}, and this is "
            f"{keras.version()}: if its answers differ from predictions.csv, {again}."
        )
    model = build(architecture, noted.image_size, precision=noted.precision)
    try:
        take_weights(model, path)
    except UnlikeNetwork as error:
        raise InputError(
            f"{short(path)} does not hold the weights of {NETWORK_TITLE[architecture]} ({error}): "
            f"{again}."
        ) from None
    return model


def checked(architecture: str, about: dict[str, Any], again: str) -> Noted:
    """What the network is built from; `InputError` if a `metrics.json` notes what cannot be."""
    try:
        return Noted.model_validate(about)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
    raise InputError(
        f"{architecture}/metrics.json has {name} = {repr(about.get(name))[:40]}, not "
        f"{Noted.model_fields[name].description}: {again}."
    )


class UnlikeNetwork(Exception):
    """Why the arrays of a file cannot be a network's."""


def take_weights(model: keras.Model, path: Path) -> None:
    """Copy the arrays of the `.keras` file `path` into `model`; `UnlikeNetwork` if they do not fit.

    Keras reads only a file that it wrote itself a moment ago, in which the numbers were replaced.
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
            except Exception as error:  # what zipfile and h5py raise differs between versions
                raise UnlikeNetwork(in_one_line(error)) from None
            for name, values in found.items():
                arrays[name][...] = values
        model.load_weights(own)


def stored_arrays(path: Path, wanted: dict[str, h5py.Dataset]) -> dict[str, np.ndarray]:
    """The arrays of a `.keras` file that are called as the `wanted` ones; others are not read.

    Raises `ValueError` and much else if one is missing or unlike.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(WEIGHTS)
        # As Keras writes it; then it cannot be larger than the file in which it lies.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{WEIGHTS} is compressed")
        content = archive.read(entry)
    with h5py.File(io.BytesIO(content), "r") as file:
        return {name: stored_array(file, name, like) for name, like in wanted.items()}


def stored_array(file: h5py.File, name: str, like: h5py.Dataset) -> np.ndarray:
    """The array `name`, if it lies in this very file and has the shape and type of `like`.

    HDF5 can also point to any other file on the disk, by links or as an array's storage
    (CVE-2026-1669), and unpack without end: plain numbers do neither.
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
        raise ValueError(f"{name} is not kept as plain numbers")
    if (place.shape, place.dtype) != (like.shape, like.dtype):
        raise ValueError(f"{name} has another shape or type")
    values = place[()]
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite")
    return values


def minor(version: str) -> tuple[str, ...]:
    """`3.15` of `3.15.1`."""
    return tuple(version.split(".")[:2])


def in_one_line(error: Exception) -> str:
    """The first sentence of an error's message, or its kind where there is none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")[:200]
