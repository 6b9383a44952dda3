"""B1: the input pipeline alone, and in front of a training step of the whole network."""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.comparison import Result, Row, compare, in_turn
from benchmarks.images import large_jpegs
from benchmarks.networks import network, ready_to_train, step_rate
from benchmarks.registry import Options
from cytology.architectures import NETWORK_TITLE
from cytology.data.augmentation import pictures_of
from cytology.networks.backend import keras, tf
from cytology.networks.batches import DecodedImages, batches, decode
from cytology.networks.linear_head import is_malignant
from cytology.settings import InputError

try:  # Keras 3 has no public name for the original's way of reading
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
except ImportError:
    ImageDataGenerator = None

BATCH = 32
IMAGES = 256
STEPS = 6  # of each repeat: a step of DenseNet121 takes 4 to 6 seconds on two cores
ALONE = (
    "the same files, batches of 32, shuffled. Ours is past its first epoch: decoded before, 8 "
    "orientations, uint8. The other flips at random and gives float32; it decodes every epoch, "
    "but for the row that keeps what was decoded in memory"
)
STEP = (
    "the compiled step with every layer trained but batch normalization, batches of 32 uint8 "
    "pictures of the same images, shuffled. From memory they are slices of one tensor, not turned"
)


def measure(options: Options, folder: Path) -> Result:
    """Images per second of the pipelines, then of the training steps."""
    root, manifest, about = large_jpegs(options, folder / "images", IMAGES)
    if len(manifest) < BATCH * STEPS:
        raise InputError(f"B1 needs {BATCH * STEPS} images: raise --images or choose other --data.")
    images = decode(root, manifest, options.image_size, "pad", folder / "cache")
    pictures = pictures_of(manifest.assign(weight=1.0), 8)
    notes, rows = [about], pipelines_alone(root, images, pictures, options)
    if ImageDataGenerator is None:
        notes.append("THIS KERAS HAS NO ImageDataGenerator: flow_from_directory was not measured.")
    for architecture in options.architectures:
        model, weights = network(architecture, options.weights, images, pictures)
        rows.append(training_step(model, images, pictures, options.repeats))
        notes.append(weights)
    return Result(rows, notes)


# --------------------------------------------------------------- pipelines alone


def pipelines_alone(
    root: Path, images: DecodedImages, pictures: pd.DataFrame, options: Options
) -> list[Row]:
    """Our pipeline against Keras' two ways of reading a folder."""
    ours = batches(images, pictures, BATCH, shuffle_seed=0)
    decoded, kept = (from_directory(root, images.size, keep) for keep in (False, True))
    ways = {
        "ours": lambda: rate_of(ours),
        "image_dataset_from_directory": lambda: rate_of(decoded),
        "the same with .cache()": lambda: rate_of(kept),
    }
    if ImageDataGenerator is not None:
        legacy = ImageDataGenerator(horizontal_flip=True, vertical_flip=True).flow_from_directory(
            root, target_size=(images.size,) * 2, batch_size=BATCH, class_mode="binary"
        )
        ways["flow_from_directory"] = lambda: rate_of(legacy[i] for i in range(len(legacy)))
    for way in ways.values():
        way()  # the first epoch fills caches
    rates = in_turn(ways, options.repeats)
    targets = {"image_dataset_from_directory": 2, "flow_from_directory": 5}
    return [
        compare(
            f"pipeline against {name}", "images/s", rates["ours"], rate, ALONE, targets.get(name)
        )
        for name, rate in rates.items()
        if name != "ours"
    ]


def rate_of(feed: Iterable) -> float:
    """Images per second of one epoch, up to its last batch; an element starts with its images.

    Not to the end of the iteration: see `networks.Stopwatch`.
    """
    started, images = time.perf_counter(), 0
    for element in feed:
        images += len(element[0])
        taken = time.perf_counter() - started
    return images / taken


def from_directory(root: Path, image_size: int, keep: bool) -> tf.data.Dataset:
    """A folder read by Keras, flipped at random in the pipeline; `keep` decodes only once."""
    flip = keras.layers.RandomFlip("horizontal_and_vertical")
    dataset = keras.utils.image_dataset_from_directory(
        root, label_mode="binary", image_size=(image_size,) * 2, batch_size=BATCH, verbose=False
    )
    dataset = dataset.cache() if keep else dataset
    flipped = dataset.map(
        lambda images, labels: (flip(images, training=True), labels), tf.data.AUTOTUNE
    )
    return flipped.prefetch(tf.data.AUTOTUNE)


# ---------------------------------------------------------------- training step


def training_step(
    model: keras.Model, images: DecodedImages, pictures: pd.DataFrame, repeats: int
) -> Row:
    """The step of the whole network, fed by our pipeline and from memory."""
    ready_to_train(model)
    ours = batches(images, pictures, BATCH, shuffle_seed=0).take(STEPS)
    memory = from_memory(images, pictures[pictures["orientation"] == 0]).take(STEPS)
    ways = {
        "ours": lambda: step_rate(model, ours, STEPS * BATCH),
        "memory": lambda: step_rate(model, memory, STEPS * BATCH),
    }
    model.fit(memory.take(1), shuffle=False, verbose=0)  # traces the step
    rates = in_turn(ways, repeats)
    what = f"step of {NETWORK_TITLE[model.name]} against one from memory"
    return compare(what, "images/s", rates["ours"], rates["memory"], STEP, at_least=0.95)


def from_memory(images: DecodedImages, pictures: pd.DataFrame) -> tf.data.Dataset:
    """All pictures in one tensor, shuffled and batched, like those of `batches.batches`."""
    pixels = images.batch(pictures["image_id"], pictures["orientation"])
    labels = is_malignant(pictures["label"]).astype(np.float32)[:, None]
    weights = np.ones(len(pictures), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((pixels, labels, weights))
    return dataset.shuffle(len(pictures)).batch(BATCH).prefetch(2)
