"""Frozen features, computed once and found again by the content of the image.

Folds, seeds, the leakage audit and later runs share them. Reading them needs no TensorFlow.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytology.data.augmentation import augmentation_of, pictures_of
from cytology.data.images.opening import READING
from cytology.files import digest, written_whole
from cytology.networks.array_store import ArrayStore, Rows
from cytology.run import Run
from cytology.settings import CACHE, InputError

# What features depend on besides the picture, as entries of a network's `metrics.json`.
KEY = ("architecture", "weights_hash", "image_size", "fit", "precision", "engine")


@dataclass(frozen=True)
class Features:
    """A network's features of pictures, shape (pictures, ...), found by (image_id, orientation).

    `computed` of them were computed now, in `seconds`; the rest came from the cache, where they
    stay until they are read.
    """

    values: np.ndarray | Rows
    index: pd.MultiIndex
    computed: int = 0
    seconds: float = 0.0

    @property
    def width(self) -> int:
        """The number of features per picture."""
        return self.values.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture's values."""
        return self.values.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """The type of a value."""
        return self.values.dtype

    def find(self, pictures: pd.DataFrame) -> np.ndarray:
        """The rows of these pictures in `values`; KeyError for an unknown one."""
        asked = pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
        rows = self.index.get_indexer(asked)
        if (rows < 0).any():
            raise KeyError(f"no features of {pictures['image_id'].to_numpy()[rows < 0][0]}")
        return rows

    def of(self, pictures: pd.DataFrame) -> np.ndarray:
        """The features of these pictures, in order; KeyError for an unknown one."""
        return self.values[self.find(pictures)]

    def reader(self, pictures: pd.DataFrame):
        """A function from positions in `pictures` to their values, for `batches.batches`."""
        rows = self.find(pictures)
        return lambda chosen: self.values[rows[chosen]]


class FeatureStore(ArrayStore):
    """The features of one network in the cache, found by file hash and orientation.

    `key` names what they depend on besides the picture: see `KEY`. A changed image, weight file,
    size, precision or engine, or another way to read images, never gets a stale entry, nor does a
    network whose output for a picture has another `shape`.
    """

    def __init__(
        self,
        key: list,
        cache: Path = CACHE,
        kind: str = "features",
        shape: tuple[int, ...] | None = None,
    ):
        super().__init__(cache / kind / f"{key[0]}-{digest(*key, READING)}", shape)

    def features(self, pictures: pd.DataFrame, sha256: pd.Series) -> Features | None:
        """The features of `pictures` (`image_id`, `orientation`); None if any is missing.

        `sha256` maps an image's `image_id` to the hash of its file.
        """
        names = named_by_content(pictures, sha256)
        if len(self.missing(names)):
            return None
        index = pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
        return Features(self.rows(names), index)


def named_by_content(pictures: pd.DataFrame, sha256: pd.Series) -> pd.Index:
    """The names of pictures in the cache: file hash and orientation."""
    pairs = zip(sha256.loc[pictures["image_id"]], pictures["orientation"], strict=True)
    return pd.Index([f"{content} {orientation}" for content, orientation in pairs], dtype=object)


def key_of_run(run: Run, architecture: str, engine: str = "") -> list:
    """What the features of a run's network depend on, as recorded by its training notebook.

    Features from another `engine` have another key.
    """
    about = run.about(architecture) | ({"engine": engine} if engine else {})
    return [about[name] for name in KEY]


def write_features(run: Run, architecture: str, path: Path) -> None:
    """Write the features of a run's images as `NAME.features.npz`, for another run or program.

    Arrays `image`, `orientation`, `features` and `checksum`, one row per picture. `InputError` if
    they are not in the cache.
    """
    found = features_in_cache(run, architecture, run.manifest, augmentation_of(run).orientations)
    if found is None:
        raise InputError(
            f"The cache has no features of {architecture} for {run}: run its notebook again."
        )
    image, orientation = (found.index.get_level_values(k).to_numpy() for k in (0, 1))
    rows: dict[str, Any] = {"image": image.astype(str), "orientation": orientation}
    rows["features"] = values = np.asarray(found.values[:])
    rows["checksum"] = checksums(image, orientation, values)
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, **rows)


def checksums(image, orientation, values: np.ndarray) -> np.ndarray:
    """A checksum of each picture's name and vector, shape (n,), so none can be mixed up."""
    rows = zip(image, orientation, np.ascontiguousarray(values, np.float32), strict=True)
    found = [zlib.crc32(f"{name} {turn}".encode() + row.tobytes()) for name, turn, row in rows]
    return np.array(found, np.uint32)


def features_in_cache(
    run: Run, architecture: str, images: pd.DataFrame, orientations: int
) -> Features | None:
    """Features of all orientations of `images`, as kept by the run's training notebook.

    `images` has `image_id` and `sha256`. None if any is missing.
    """
    pictures = pictures_of(images[["image_id"]], orientations)
    store = FeatureStore(key_of_run(run, architecture))
    return store.features(pictures, images.set_index("image_id")["sha256"])
