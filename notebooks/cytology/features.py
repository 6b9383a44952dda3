"""Frozen features, computed once and found again by the content of the image.

Folds, seeds, the leakage audit and later runs share them. Reading them needs no TensorFlow.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.augmentation import pictures_of
from cytology.settings import CACHE
from cytology.tables import read_json, written_whole


@dataclass(frozen=True)
class Features:
    """Pooled features, shape (pictures, width), found by (image_id, orientation).

    `computed` of them were computed now, in `seconds`; the rest came from the cache.
    """

    values: np.ndarray
    index: pd.MultiIndex
    computed: int = 0
    seconds: float = 0.0

    @property
    def width(self) -> int:
        """Features a picture."""
        return self.values.shape[1]

    def of(self, pictures: pd.DataFrame) -> np.ndarray:
        """The features of these pictures, in their order; KeyError for an unknown one."""
        rows = self.index.get_indexer(
            pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
        )
        if (rows < 0).any():
            raise KeyError(f"no features of {pictures['image_id'].to_numpy()[rows < 0][0]}")
        return self.values[rows]


def digest(*parts) -> str:
    """A short name for what a cache entry depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


class FeatureStore:
    """The features of one network in the cache, one file; found by (file hash, orientation).

    `key` names what they depend on beside the picture: architecture, hash of the weights, size
    and fit. A changed image, weight file or size never meets a stale entry.
    """

    def __init__(self, key: list, cache: Path = CACHE):
        self.path = cache / "features" / f"{key[0]}-{digest(*key)}.npz"
        self.known = pd.MultiIndex.from_arrays([[], []])
        self.values = None
        if self.path.is_file():
            with np.load(self.path) as stored:
                names = [stored["sha256"].astype(object), stored["orientation"]]
                self.known = pd.MultiIndex.from_arrays(names)
                self.values = stored["values"]

    def add(self, pictures: pd.MultiIndex, values: np.ndarray) -> None:
        """Keep the features of pictures named by (file hash, orientation)."""
        self.values = values if self.values is None else np.concatenate([self.values, values])
        self.known = self.known.append(pictures)
        with written_whole(self.path) as temporary:
            np.savez(
                temporary,
                sha256=self.known.get_level_values(0).to_numpy(str),
                orientation=self.known.get_level_values(1).to_numpy(np.int8),
                values=self.values,
            )

    def features(self, pictures: pd.DataFrame, sha256: pd.Series) -> Features | None:
        """The features of `pictures` (`image_id`, `orientation`); None if any is not there.

        `sha256` maps an image's `image_id` to the hash of its file.
        """
        rows = self.known.get_indexer(named_by_content(pictures, sha256))
        if (rows < 0).any() or self.values is None:
            return None
        names = pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
        return Features(self.values[rows], names)


def named_by_content(pictures: pd.DataFrame, sha256: pd.Series) -> pd.MultiIndex:
    """Pictures by (file hash, orientation), as the cache names them."""
    return pd.MultiIndex.from_arrays([sha256.loc[pictures["image_id"]], pictures["orientation"]])


def features_in_cache(
    run: Path, architecture: str, images: pd.DataFrame, orientations: int
) -> Features | None:
    """Features of all orientations of `images`, as the run's training notebook left them.

    `images` has `image_id` and `sha256`. None if any is not there.
    """
    about = read_json(run, f"{architecture}/metrics.json")
    key = [architecture, about["weights_hash"], about["image_size"], about["fit"]]
    pictures = pictures_of(images[["image_id"]], orientations)
    return FeatureStore(key).features(pictures, images.set_index("image_id")["sha256"])
