"""Similarity in a network's features: a map, nearest neighbours, images unlike any known one.

The nearest image to a training image is often one of the same patient. A limit from such small
distances would flag every new image, so images of the same group are left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances_chunked
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cytology.evaluation.statistics.clusters import conformal_limit
from cytology.files import written_whole

RATE = 0.01  # share of images of new patients from the same place that may be flagged
SCALES = 20  # scales of the features, each measured without a part of the groups


@dataclass(frozen=True)
class Reference:
    """Known images: `table` has `image_id, label, group`, `values` their features (n, width).

    `distances` holds the distance of each to the nearest image of another group, shape (n,), in
    units of the features' standard deviations.
    """

    table: pd.DataFrame
    values: np.ndarray
    distances: np.ndarray

    @property
    def groups(self) -> int:
        """How many groups have a distance; a single group has none."""
        return self.table["group"][np.isfinite(self.distances)].nunique()

    @property
    def rate(self) -> float:
        """The promised upper limit for the share of images of new groups flagged, on average.

        `RATE`, or the best that n groups can promise, 1 / (n + 1).
        """
        return max(RATE, 1 / (self.groups + 1))

    @property
    def limit(self) -> float:
        """The distance beyond which an image is unlike these.

        Conformal by group (Dunn, Wasserman & Ramdas 2023, arXiv 1809.07441; Lee, Barber & Willett,
        arXiv 2306.06342): the smallest distance such that the shares of images beyond it in the n
        groups, and in one more group that is beyond it as a whole, have a mean of at most `rate`. A
        new image has one more group to be near to than each of these had, so the promise is kept.
        """
        finite = np.isfinite(self.distances)
        if not finite.any():
            return np.inf
        return -conformal_limit(-self.distances[finite], self.table["group"][finite], self.rate)


def reference(table: pd.DataFrame, values: np.ndarray) -> Reference:
    """The `Reference` for comparing new images; `table` has `image_id, label, group`.

    The scale of the features is also measured without an image's own group, as for a new image:
    otherwise a group that is odd as a whole would hide it.
    """
    table = table[["image_id", "label", "group"]].reset_index(drop=True)
    found = Reference(table, np.asarray(values, np.float32), np.empty(0))
    parts = np.unique(table["group"], return_inverse=True)[1] % SCALES
    distances = np.empty(len(table))
    for part in np.unique(parts):
        own = parts == part
        scaler = StandardScaler().fit(found.values if own.all() else found.values[~own])
        near, _ = nearest(found, found.values[own], 1, table["group"][own], scaler)
        distances[own] = near[:, 0]
    return Reference(table, found.values, distances)


def nearest(
    known: Reference,
    values: np.ndarray,
    count: int,
    groups: pd.Series | None = None,
    scaler: StandardScaler | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest known images and their positions, each of shape (n, count).

    With `groups`, the groups of the images of `values`, images of the same group are skipped; the
    distance is infinite if there are too few others. `scaler` is by default that of the known.
    """
    scaler = scaler or StandardScaler().fit(known.values)
    theirs = known.table["group"].to_numpy()
    own = None if groups is None else np.asarray(groups)
    count = min(count, len(theirs))

    def smallest(distances, start):
        if own is not None:
            distances[own[start : start + len(distances), None] == theirs] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(distances, order, axis=1), order

    parts = pairwise_distances_chunked(
        scaler.transform(values), scaler.transform(known.values), reduce_func=smallest
    )
    distances, order = zip(*parts, strict=True)
    return np.concatenate(distances), np.concatenate(order)


def feature_places(
    values: np.ndarray, method: str, seed: int
) -> tuple[np.ndarray, tuple[str, str]]:
    """Features (n, width) in two dimensions, (n, 2): `pca`, or `tsne`, which keeps neighbours.

    Also returns the names of the two axes; principal components with their share of the variance.
    t-SNE (van der Maaten & Hinton 2008) of the first 50 principal components. On its map only
    neighbourhoods mean something; distances between clusters and their sizes do not.
    """
    scaled = StandardScaler().fit_transform(values)
    count = min(50 if method == "tsne" else 2, *scaled.shape)
    analysis = PCA(count, random_state=seed)
    components = analysis.fit_transform(scaled)
    if method == "pca":
        first, second = analysis.explained_variance_ratio_
        words = "principal component ({:.0%} of the variance)"
        return components, (f"first {words.format(first)}", f"second {words.format(second)}")
    perplexity = min(30, (len(values) - 1) / 3)
    with threadpool_limits(1):  # several threads wait for each other, and sum in random order
        places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(components)
    return places, ("t-SNE: distances mean nothing", "")


def write_reference(path: Path, known: Reference, model: str, falsely: float) -> None:
    """Write a reference with the hash of its model's file and the share of test images flagged."""
    arrays: dict[str, Any] = {name: known.table[name].to_numpy(str) for name in known.table}
    arrays |= {"values": known.values, "distances": known.distances, "falsely": falsely}
    with written_whole(path) as temporary:
        np.savez(temporary, model=model, **arrays)


def read_reference(path: Path, model: str) -> tuple[Reference, float] | None:
    """The reference from `write_reference`; None if missing, or made with another model file."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["model"]) != model:
            return None
        table = pd.DataFrame({name: stored[name] for name in ("image_id", "label", "group")})
        known = Reference(table.astype("str"), stored["values"], stored["distances"])
        return known, float(stored["falsely"])
