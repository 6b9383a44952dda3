"""A network with its initial weights: from ImageNet, from a file, or random."""

import hashlib
from pathlib import Path

import pandas as pd

from cytology.data.augmentation import pictures_of
from cytology.data.splitting import read_split
from cytology.files import digest, file_hash, is_sound, written_with_checksum
from cytology.networks.backend import distribution, keras
from cytology.networks.batches import DecodedImages, batches, decode
from cytology.networks.building import (
    CALIBRATION_BATCH,
    build,
    calibrate_normalization,
    feature_extractor,
)
from cytology.networks.engines import Passes
from cytology.networks.passes import Engine
from cytology.networks.weights import Weights, find_weights
from cytology.notebook import progress
from cytology.run import Run
from cytology.settings import CACHE, InputError

CALIBRATION_IMAGES = 16


def with_weights(
    architecture: str,
    weights: Weights,
    images: DecodedImages,
    split: pd.DataFrame,
    seed: int,
    precision: str = "float32",
    strategy: str = "one",
) -> tuple[keras.Model, str]:
    """Build a network with its weights: (model, hash of the weights).

    A random backbone gets batch-normalization statistics from unlabelled images of train and val,
    never test, and is then cached, so later runs use the very same one. Its hash is that of its
    ingredients, not of its file, whose last digits differ between processors. With several GPUs
    and `strategy` auto its variables are on all of them.
    """
    given = str(weights.path) if weights.path else None
    with distribution(strategy).scope():
        model = build(architecture, images.size, given, seed, precision)
    if weights.path:
        return model, file_hash(weights.path)
    path = random_weights(model, images, split, seed)
    model.load_weights(path)
    return model, digest(path.name)


def random_weights(
    model: keras.Model, images: DecodedImages, split: pd.DataFrame, seed: int
) -> Path:
    """The file of weights for a random network like `model`; made if missing.

    Its normalizations are calibrated on these images. The name depends on the shape of every
    weight, so weights of a network with other shapes are never used.
    """
    architecture = model.name
    held = split[split["split"] != "test"]
    # Under the original's protocol test has copies of training images and cannot be kept apart.
    names = held["image_id"].drop_duplicates().sample(frac=1, random_state=seed)
    pictures = pictures_of(names.iloc[:CALIBRATION_IMAGES].to_frame(), 1)
    pixels = images.batch(pictures["image_id"], pictures["orientation"])
    seen = hashlib.sha256(pixels.tobytes()).hexdigest()
    shapes = [list(weight.shape) for weight in model.weights]
    name = digest(architecture, images.size, seed, seen, keras.version(), shapes)
    path = CACHE / "weights" / f"{architecture}-random-{name}.weights.h5"
    if not is_sound(path):
        single = build(architecture, images.size, None, seed)
        steps = -(-len(pictures) // CALIBRATION_BATCH)
        feed = batches(images, pictures, CALIBRATION_BATCH)
        calibrate_normalization(single, progress(feed, "calibrating", steps, "batch"))
        with written_with_checksum(path) as temporary:
            single.save_weights(temporary)
    return path


def frozen_network(
    run: Run, architecture: str, weights: str, engine: str
) -> tuple[Passes, DecodedImages]:
    """The network that made the frozen features of a run, with `engine`, and the decoded images.

    Raises `InputError` if `weights` are not the run's initial ones.
    """
    about = run.about(architecture)
    images = decode(run.images, run.manifest, about["image_size"], about["fit"])
    found, split = find_weights(architecture, weights), read_split(run)
    model, weights_hash = with_weights(
        architecture, found, images, split, about["seed"], about["precision"]
    )
    if weights_hash != about["weights_hash"]:
        raise InputError(
            f"Parameter `weights` is {weights!r}, but {architecture} was trained with other "
            f"weights ({about['weights']}): use those of the run."
        )
    made_by = Engine(engine, "as in the run.")
    return made_by.passes(feature_extractor(model), weights_hash), images
