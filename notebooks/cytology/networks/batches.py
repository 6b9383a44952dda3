"""From files to the network: decode once, feed `tf.data`, compute frozen features once.

The only file that uses `tf.data`. The results are kept in `outputs/cache/`, where folds, notebooks
and runs share them; their names are hashes of everything that they depend on.
"""

import inspect
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cytology.data.augmentation import (
    augmentation_of,
    border_colour,
    fit_to_square,
    orient,
    place_in_square,
)
from cytology.data.images.opening import READING, UnreadableImage, open_rgb
from cytology.files import digest
from cytology.machine import cores
from cytology.networks.array_store import ArrayStore, Rows, rows_of_a_pack
from cytology.networks.backend import enough_memory, keras, tf
from cytology.networks.engines import Passes
from cytology.networks.features import Features, FeatureStore, named_by_content
from cytology.notebook import progress
from cytology.run import Run
from cytology.settings import CACHE, InputError

# Features are small: without this limit, an hour of DenseNet121's work would wait in memory.
BATCHES_A_PACK = 32

# ------------------------------------------------------------------ decode once


@dataclass(frozen=True)
class DecodedImages:
    """Square uint8 images on disk, `pixels` of shape (images, size, size, 3), read when indexed."""

    pixels: np.ndarray | Rows
    row: pd.Series  # image_id -> row of `pixels`
    sha256: pd.Series  # image_id -> hash of the file

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        return self.pixels.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture."""
        return self.pixels.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """The type of a pixel."""
        return self.pixels.dtype

    def reader(self, pictures: pd.DataFrame):
        """A function from positions in `pictures` to uint8 batches in their orientations."""
        rows = self.row.loc[pictures["image_id"]].to_numpy()
        orientations = pictures["orientation"].to_numpy()

        def read(chosen):
            batch = np.empty((len(chosen), *self.shape), np.uint8)
            for place, picture in enumerate(chosen):
                batch[place] = orient(self.pixels[rows[picture]], orientations[picture])
            return batch

        return read

    def batch(self, image_ids, orientations) -> np.ndarray:
        """The pictures named by image and orientation, shape (batch, size, size, 3), uint8."""
        pictures = pd.DataFrame({"image_id": image_ids, "orientation": orientations})
        return self.reader(pictures)(range(len(pictures)))


def decode_images(run: Run) -> DecodedImages:
    """The images of a run, decoded as `augmentation.json` says."""
    size, fit, _ = augmentation_of(run)
    return decode(run.images, run.manifest, size, fit)


def decode(
    root: Path, manifest: pd.DataFrame, size: int, fit: str, cache: Path = CACHE
) -> DecodedImages:
    """Decode and resize every image of the manifest once, on all cores, into packs on disk.

    An image is found by the hash of its file. Images decoded by an interrupted call are kept, and
    several notebooks that start at once share the work.
    """
    unique = manifest.drop_duplicates("sha256").set_index("sha256")["image_id"]
    code = [inspect.getsource(each) for each in (fit_to_square, place_in_square, border_colour)]
    how = digest(READING, *code)
    store = ArrayStore(cache / "images" / f"{size}-{fit}-{how}")
    decode_missing(store, root, unique, size, fit)
    position = pd.Series(range(len(unique)), index=unique.index)
    sha256 = manifest.set_index("image_id")["sha256"]
    return DecodedImages(store.rows(unique.index), sha256.map(position), sha256)


def decode_missing(store: ArrayStore, root: Path, unique: pd.Series, size: int, fit: str) -> None:
    """Decode the images of `unique` that `store` lacks; it maps hashes of files to images."""
    shape = (size, size, 3)
    missing = unique.index[store.missing(unique.index)]
    chunks = in_chunks(missing, rows_of_a_pack(shape, np.uint8))
    # One buffer for all packs: separate ones would stay in memory until Python frees them.
    buffer = np.empty((max(map(len, chunks), default=0), *shape), np.uint8)
    with progress(None, "decoding", len(missing)) as bar:
        for chunk in chunks:
            store.refresh()
            todo = chunk[store.missing(chunk)]
            pixels = buffer[: len(todo)]

            def decode_one(place, image_id, pixels=pixels):
                try:
                    pixels[place] = fit_to_square(open_rgb(root / image_id), size, fit)
                except UnreadableImage as error:
                    raise InputError(
                        f"{root / image_id} can no longer be read ({error}): run notebook 01 again."
                    ) from None

            jobs = (delayed(decode_one)(*job) for job in enumerate(unique[todo]))
            for _ in Parallel(cores(), prefer="threads", return_as="generator_unordered")(jobs):
                bar.update()
            if len(todo):
                store.add(todo, pixels)
            bar.update(len(chunk) - len(todo))


def in_chunks(items, length: int) -> list:
    """`items` cut into pieces of `length`, in random order.

    The random order makes two notebooks that start together work on different pieces.
    """
    chunks = [items[start : start + length] for start in range(0, len(items), length)]
    return random.Random().sample(chunks, len(chunks))


# ---------------------------------------------------------------------- batches


def batches(
    source: DecodedImages | Features,
    pictures: pd.DataFrame,
    batch_size: int,
    shuffle_seed: int | None = None,
    epochs: Iterator[int] | None = None,
) -> tf.data.Dataset:
    """A `tf.data` pipeline over pictures: (batch,), and with labels more.

    `source` is `DecodedImages`, or `features.Features` of a network.
    `pictures` has `image_id` and `orientation`. With a `label` column (B or M) each element is
    (batch, labels of shape (batch, 1), sample weights of shape (batch,)); the weights come from
    a `weight` column, else they are 1. Weights are part of the data, since some forms of input
    ignore `class_weight` (tensorflow#33550). `shuffle_seed` gives every epoch another order;
    `epochs` says which epoch it is, else they are counted.
    """
    read, dtype = source.reader(pictures), tf.as_dtype(source.dtype)

    def picture(chosen):
        batch = tf.numpy_function(read, [chosen], dtype)
        batch.set_shape((None, *source.shape))
        return batch

    order = in_order(len(pictures), shuffle_seed, epochs).batch(batch_size)
    # No autotuning: at the end of an epoch, tf.data would wait until its autotuner wakes up, after
    # 2.5, 5, 10, 20 seconds and so on.
    options = tf.data.Options()
    options.autotune.enabled = False
    if "label" not in pictures:
        return order.map(picture, num_parallel_calls=2).prefetch(2).with_options(options)
    labels = tf.constant((pictures["label"] == "M").to_numpy(np.float32)[:, None])
    weight = pictures.get("weight", pd.Series(1.0, index=pictures.index))
    weights = tf.constant(weight.to_numpy(np.float32))

    def with_labels(chosen):
        return picture(chosen), tf.gather(labels, chosen), tf.gather(weights, chosen)

    return order.map(with_labels, num_parallel_calls=2).prefetch(2).with_options(options)


def in_order(
    count: int, shuffle_seed: int | None, epochs: Iterator[int] | None = None
) -> tf.data.Dataset:
    """The numbers below `count`; with a seed, in another order every epoch.

    The order depends on seed and epoch alone: tf.data's own shuffling differs with two devices.
    """
    if shuffle_seed is None:
        return tf.data.Dataset.range(count)
    epochs = itertools.count() if epochs is None else epochs

    def permutation():
        yield np.random.default_rng([shuffle_seed, next(epochs)]).permutation(count)

    whole = tf.TensorSpec((count,), tf.int64)
    order = tf.data.Dataset.from_generator(permutation, output_signature=whole).unbatch()
    return order.apply(tf.data.experimental.assert_cardinality(count))


class Epochs(keras.callbacks.Callback):
    """Informs `batches` of the current epoch of a training.

    Counting is not enough: with several devices, Keras reads the data once before training.
    """

    def __init__(self):
        super().__init__()
        self.now = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def __iter__(self):
        return self

    def __next__(self) -> int:
        return self.now


# ---------------------------------------------------------------- features once


def frozen_features(
    passes: Passes,
    images: DecodedImages,
    pictures: pd.DataFrame,
    key: list,
    batch_size: int,
    cache: Path = CACHE,
    kind: str = "features",
    dtype: str = "float32",
) -> Features:
    """A frozen network's features of each picture, from the cache if they are there.

    `key` is that of `features.FeatureStore`, `kind` the folder of the cache. The values are kept
    as `dtype`; they are written every few batches, so an interruption loses little.
    """
    store = FeatureStore(key, cache, kind, passes.shape)
    missing = store.missing(named_by_content(pictures, images.sha256))
    started = time.perf_counter()
    if len(missing):
        new = pictures[["image_id", "orientation"]].iloc[missing]
        with enough_memory(batch_size):
            compute_missing(store, passes, images, new, batch_size, kind, dtype)
    seconds = time.perf_counter() - started if len(missing) else 0.0
    found = store.features(pictures, images.sha256)
    assert found is not None  # all were computed
    return replace(found, computed=len(missing), seconds=seconds)


def compute_missing(
    store: FeatureStore,
    passes: Passes,
    images: DecodedImages,
    pictures: pd.DataFrame,
    batch_size: int,
    kind: str,
    dtype: str,
) -> None:
    """Compute the features of pictures that `store` lacks, one pack after the other."""
    rows = rows_of_a_pack(passes.shape, dtype)
    batches_a_pack = min(BATCHES_A_PACK, max(1, rows // batch_size))
    steps = -(-len(pictures) // batch_size)
    computed: list[Any] = []
    feed = progress(batches(images, pictures, batch_size), kind, steps, "batch")
    for step, batch in enumerate(feed, start=1):
        computed.append(passes(batch).astype(dtype))
        if len(computed) == batches_a_pack or step == steps:
            values, computed = np.concatenate(computed), []
            end = min(step * batch_size, len(pictures))
            made = pictures.iloc[end - len(values) : end]
            store.add(named_by_content(made, images.sha256), values)
