"""Splits a network into two: the part before a cut stays frozen, the part after it is trained.

Each picture passes through the first part only once: its activations at the cut are kept on disk,
and every epoch starts there.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURES
from cytology.data.splitting import training_pictures
from cytology.networks.backend import keras
from cytology.networks.batches import DecodedImages, frozen_features
from cytology.networks.features import Features, FeatureStore, named_by_content
from cytology.networks.passes import KerasPasses
from cytology.settings import CACHE, InputError

KIND = "activations"  # folder of the cache
SHARE_OF_DISK = 0.5  # the largest share of the free disk that activations may take


def cut_points(model: keras.Model) -> list[str]:
    """Layers through which all data pass, from the first to the pooled features."""
    place = {layer.output.name: number for number, layer in enumerate(model.layers)}
    last_reader = [0] * len(place)
    for number, layer in enumerate(model.layers):
        for tensor in _inputs(layer):
            last_reader[place[tensor.name]] = number
    # No output of an earlier layer is read after a cut.
    earlier = np.maximum.accumulate([0, *last_reader[:-1]])
    found = [layer.name for n, layer in enumerate(model.layers) if earlier[n] <= n]
    return found[1 : found.index("features") + 1]


def _inputs(layer: Any) -> list:
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return layer.input if isinstance(layer.input, list) else [layer.input]


def cut_before(model: keras.Model, start: str) -> str:
    """The layer whose output is kept when training begins at the block or layer `start`.

    `last` is the architecture's `last_block`. A block is named by the beginning of its layers'
    names (`block_16`, `conv5`) or by its last layer (`mixed9`). Raises `InputError` for another
    name.
    """
    wanted = ARCHITECTURES[model.name].last_block if start == "last" else start
    cuts = set(cut_points(model))
    before = None
    for layer in model.layers:
        if layer.name == wanted or layer.name.startswith(f"{wanted}_"):
            break
        before = layer.name if layer.name in cuts else before
    else:
        before = None
    if before is None:
        raise InputError(
            f"Parameter `fine_tune_from` is {start!r}; {model.name} has no such block after its "
            f"first layers. Name one like {ARCHITECTURES[model.name].last_block}, or `last`."
        )
    return before


@dataclass(frozen=True)
class Cut:
    """A network in two parts: `before` gives activations, `after` turns them into logits.

    Both are parts of a `copy`, so the network's own graph stays unchanged.
    """

    layer: str
    before: keras.Model
    after: keras.Model
    copy: keras.Model


def cut(model: keras.Model, layer: str) -> Cut:
    """Cut a copy of `model` after `layer`."""
    with model.distribute_strategy.scope():
        copy = keras.models.clone_model(model)
        copy_variables(model, copy)
        at = copy.get_layer(layer).output
        after = keras.Model(at, copy.output, name=model.name)
    # Not in the scope: on several devices `predict_on_batch` gives every device the whole batch.
    before = keras.Model(copy.input, at, name=model.name)
    return Cut(layer, before, after, copy)


def copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Copy weights, and the state of dropout's random numbers, layer by layer."""
    for ours, theirs in zip(source.layers, target.layers, strict=True):
        for mine, other in zip(ours.variables, theirs.variables, strict=True):
            other.assign(mine)


def activations(
    parts: Cut,
    images: DecodedImages,
    split: pd.DataFrame,
    orientations: int,
    key: list,
    batch_size: int,
    cache: Path = CACHE,
) -> Features:
    """Activations at the cut for every picture of the split in all orientations; kept on disk.

    `key` is that of the run's features. Prints first how much disk space they need. They are kept
    as float32, or, with a note, as float16 if only that fits into half of the free space; raises
    `InputError` if neither fits.
    """
    pictures = training_pictures(split, orientations)
    shape, names = parts.before.output.shape[1:], named_by_content(pictures, images.sha256)
    cache.mkdir(parents=True, exist_ok=True)
    room = SHARE_OF_DISK * shutil.disk_usage(cache).free
    for dtype in ("float32", "float16"):
        kept = [*key, parts.layer, dtype]
        missing = len(FeatureStore(kept, cache, KIND, shape).missing(names))
        need = missing * math.prod(shape) * np.dtype(dtype).itemsize
        if need <= room:
            exact = "" if dtype == "float32" else ", rounded to float16 since float32 does not fit"
            print(f"Activations after {parts.layer}: {need / 1e9:.2f} GB of disk{exact}.")
            passes = KerasPasses(parts.before)  # in TensorFlow, like the training on them
            return frozen_features(passes, images, pictures, kept, batch_size, cache, KIND, dtype)
    raise InputError(
        f"Activations after {parts.layer} take {need / 1e9:.1f} GB even as float16, but only half "
        f"of the free disk, {room / 1e9:.1f} GB, may be used: free space in {cache}, choose a "
        "later block in `fine_tune_from`, or fewer `orientations`."
    )
