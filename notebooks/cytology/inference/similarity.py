"""What lies near what in a network's features: a map, nearest neighbours, images unlike any known.

A distance that counts an image itself, or its patient's others, would be small for every image of
training and flag every new one: groups are left out.
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

RATE = 0.01  # of the images of new patients from the same place that are called unlike training
SCALES = 20  # of the features, each measured without a part of the groups


@dataclass(frozen=True)
class Reference:
    """Known images: `table` has `image_id, label, group`, `values` their features (n, width).

    `distances` are those of each to the nearest of another group, shape (n,), in units of the
    features' standard deviations.
    """

    table: pd.DataFrame
    values: np.ndarray
    distances: np.ndarray

    @property
    def groups(self) -> int:
        """How many known groups have a distance; one alone has none."""
        return self.table["group"][np.isfinite(self.distances)].nunique()

    @property
    def rate(self) -> float:
        """The share of images of new groups that the limit promises to flag at most, on average.

        `RATE`, or what so few groups can promise: n no less than 1 / (n + 1).
        """
        return max(RATE, 1 / (self.groups + 1))

    @property
    def limit(self) -> float:
        """The distance beyond which an image is unlike these.

        Conformal by group (Dunn, Wasserman & Ramdas 2023, arXiv 1809.07441; Lee, Barber & Willett,
        arXiv 2306.06342): the smallest distance such that the shares of images beyond it in the n
        groups, and that of one more group that lies beyond it as a whole, have a mean of at most
        `rate`. A new image has one more group to be near to than each of these had, so the promise
        is kept.
        """
        finite = np.isfinite(self.distances)
        if not finite.any():
            return np.inf
        return -conformal_limit(-self.distances[finite], self.table["group"][finite], self.rate)


def reference(table: pd.DataFrame, values: np.ndarray) -> Reference:
    """What new images are compared with; `table` has `image_id, label, group`.

    The scale of the features, too, is measured without an image's own group, as it is without that
    of a new image: else a group that is odd as a whole would hide it.
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

    With `groups`, whose the images of `values` are, those of the same group are passed over; the
    distance is infinite where there are too few others. `scaler` is by default that of the known.
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

    And the names of the two axes: of principal components with their share of the variance.
    t-SNE (van der Maaten & Hinton 2008) of the first 50 principal components. Of its map only who
    is near whom means something; distances between heaps and their sizes do not.
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
    with threadpool_limits(1):  # several wait for each other, and sum in an order of chance
        places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(components)
    return places, ("t-SNE: distances mean nothing", "")


def write_reference(path: Path, known: Reference, model: str, falsely: float) -> None:
    """Write a reference with the hash of its model's file and the share of test images flagged."""
    arrays: dict[str, Any] = {name: known.table[name].to_numpy(str) for name in known.table}
    arrays |= {"values": known.values, "distances": known.distances, "falsely": falsely}
    with written_whole(path) as temporary:
        np.savez(temporary, model=model, **arrays)


def read_reference(path: Path, model: str) -> tuple[Reference, float] | None:
    """What `write_reference` wrote; None if there is nothing, or if it is of another model file."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["model"]) != model:
            return None
        table = pd.DataFrame({name: stored[name] for name in ("image_id", "label", "group")})
        known = Reference(table.astype("str"), stored["values"], stored["distances"])
        return known, float(stored["falsely"])
