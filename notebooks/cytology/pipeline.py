"""From files to the network: decode once, feed `tf.data`, compute frozen features once.

The only file that knows `tf.data`. What is computed here lies in `outputs/cache/` and is shared
by folds, notebooks and runs; its name is a hash of everything that it depends on.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cytology.augmentation import fit_to_square, orient
from cytology.backend import keras, tf
from cytology.features import Features, FeatureStore, digest, named_by_content
from cytology.quality import open_rgb
from cytology.settings import CACHE, cores, progress
from cytology.tables import written_whole

# ------------------------------------------------------------------ decode once


@dataclass(frozen=True)
class DecodedImages:
    """Square uint8 images on disk. `pixels` is mapped, shape (images, size, size, 3)."""

    pixels: np.ndarray
    row: pd.Series  # image_id -> row of `pixels`
    sha256: pd.Series  # image_id -> hash of the file

    def batch(self, image_ids, orientations) -> np.ndarray:
        """The pictures named by image and orientation, shape (batch, size, size, 3), uint8."""
        rows = self.row.loc[list(image_ids)]
        return np.stack(
            [orient(self.pixels[r], o) for r, o in zip(rows, orientations, strict=True)]
        )


def decode(
    root: Path, manifest: pd.DataFrame, size: int, fit: str, cache: Path = CACHE
) -> DecodedImages:
    """Decode and resize every image of the manifest once, on all cores, into a file on disk."""
    unique = manifest.drop_duplicates("sha256").sort_values("sha256")
    path = cache / "images" / f"{size}-{fit}-{digest(size, fit, list(unique['sha256']))}.npy"
    if not path.is_file():
        shape = (len(unique), size, size, 3)
        with written_whole(path) as temporary:
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)

            def decode_one(row, image_id):
                pixels[row] = fit_to_square(open_rgb(root / image_id), size, fit)

            jobs = (delayed(decode_one)(row, name) for row, name in enumerate(unique["image_id"]))
            done = Parallel(cores(), prefer="threads", return_as="generator_unordered")(jobs)
            for _ in progress(done, "decoding", len(unique)):
                pass
            pixels.flush()
            del pixels, decode_one  # Windows renames a file only when nobody maps it
    position = pd.Series(range(len(unique)), index=unique["sha256"])
    sha256 = manifest.set_index("image_id")["sha256"]
    return DecodedImages(np.load(path, mmap_mode="r"), sha256.map(position), sha256)


# ---------------------------------------------------------------------- batches


def batches(
    images: DecodedImages, pictures: pd.DataFrame, batch_size: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """A `tf.data` pipeline over pictures: (uint8 images,) and, where there are labels, more.

    `pictures` has `image_id` and `orientation`. With a `label` column (B or M) each element is
    (images, labels of shape (batch, 1), sample weights of shape (batch,)); the weights come from
    a `weight` column, else they are 1. Weights travel with the images, since `class_weight` is
    ignored by some forms of input (tensorflow#33550). `shuffle_seed` shuffles anew every epoch.
    """
    rows = images.row.loc[pictures["image_id"]].to_numpy()
    orientations = pictures["orientation"].to_numpy()
    side = images.pixels.shape[1]

    def load(chosen):
        return np.stack([orient(images.pixels[rows[i]], orientations[i]) for i in chosen])

    def picture(chosen):
        batch = tf.numpy_function(load, [chosen], tf.uint8)
        batch.set_shape((None, side, side, 3))
        return batch

    order = tf.data.Dataset.range(len(pictures))
    if shuffle_seed is not None:
        order = order.shuffle(len(pictures), seed=shuffle_seed, reshuffle_each_iteration=True)
    order = order.batch(batch_size)
    if "label" not in pictures:
        return order.map(picture, num_parallel_calls=2).prefetch(2)
    labels = tf.constant((pictures["label"] == "M").to_numpy(np.float32)[:, None])
    weight = pictures.get("weight", pd.Series(1.0, index=pictures.index))
    weights = tf.constant(weight.to_numpy(np.float32))

    def with_labels(chosen):
        return picture(chosen), tf.gather(labels, chosen), tf.gather(weights, chosen)

    return order.map(with_labels, num_parallel_calls=2).prefetch(2)


# ---------------------------------------------------------------- features once


def frozen_features(
    extractor: keras.Model,
    images: DecodedImages,
    pictures: pd.DataFrame,
    key: list,
    batch_size: int,
    cache: Path = CACHE,
) -> Features:
    """Features of each picture, from the cache where another fold, notebook or run made them.

    `key` is that of `features.FeatureStore`.
    """
    store = FeatureStore(key, cache)
    wanted = named_by_content(pictures, images.sha256)
    missing = ~wanted.isin(store.known) & ~wanted.duplicated()
    new = pictures[["image_id", "orientation"]][missing]
    started = time.perf_counter()
    if len(new):
        steps = -(-len(new) // batch_size)
        feed = progress(batches(images, new, batch_size), "features", steps, "batch")
        computed = np.concatenate([extractor.predict_on_batch(batch) for batch in feed])
        store.add(wanted[missing], computed)
    seconds = time.perf_counter() - started if len(new) else 0.0
    found = store.features(pictures, images.sha256)
    return Features(found.values, found.index, len(new), seconds)
