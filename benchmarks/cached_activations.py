"""B3: training the last block from cached activations, against training it without them."""

from pathlib import Path

import pandas as pd

from benchmarks.comparison import Result, Row, compare, in_turn
from benchmarks.images import large_jpegs
from benchmarks.networks import network, ready_to_train, step_rate
from benchmarks.registry import Options
from cytology.architectures import ARCHITECTURES, NETWORK_TITLE
from cytology.data.splitting import training_pictures
from cytology.networks.backend import keras
from cytology.networks.batches import DecodedImages, batches, decode
from cytology.settings import InputError
from cytology.training.cuts import activations, cut, cut_before

BATCH = 32
IMAGES = 48
ORIENTATIONS = 8
STEPS = 8  # of each repeat
EQUAL = (
    "pictures in 8 orientations, the layers that learn (from the last block on, batch "
    "normalization kept), optimizer and rate, batches of 32, shuffled. Ours is past its first "
    "epoch: the activations before the block are on disk. The other passes each picture through "
    "the whole network, whose first layers are frozen"
)


def measure(options: Options, folder: Path) -> Result:
    """Images a second of training steps, for each architecture."""
    root, manifest, about = large_jpegs(options, folder / "images", IMAGES)
    if len(manifest) * ORIENTATIONS < BATCH * STEPS:
        fewest = -(-BATCH * STEPS // ORIENTATIONS)
        raise InputError(f"B3 needs {fewest} images: raise --images or choose other --data.")
    images = decode(root, manifest, options.image_size, "pad", folder / "cache")
    split = manifest.assign(split="train", weight=1.0)
    notes, rows = [about], []
    for architecture in options.architectures:
        model, weights = network(architecture, options.weights, images, training_pictures(split, 1))
        rows.append(last_block(model, images, split, options.repeats, folder / "cache"))
        notes.append(weights)
    return Result(rows, notes)


def last_block(
    model: keras.Model, images: DecodedImages, split: pd.DataFrame, repeats: int, cache: Path
) -> Row:
    """The last block trained from the cut, and inside the whole network."""
    layer = cut_before(model, "last")
    parts = cut(model, layer)
    kept = activations(parts, images, split, ORIENTATIONS, [model.name], BATCH, cache)
    freeze_until(model, layer)
    pictures, ways = training_pictures(split, ORIENTATIONS), {}
    for name, trained, source in (("ours", parts.after, kept), ("whole", model, images)):
        ready_to_train(trained)
        feed = batches(source, pictures, BATCH, shuffle_seed=0).take(STEPS)
        trained.fit(feed.take(1), shuffle=False, verbose=0)  # traces the step
        ways[name] = lambda trained=trained, feed=feed: step_rate(trained, feed, STEPS * BATCH)
    rates = in_turn(ways, repeats)
    what = (
        f"{NETWORK_TITLE[model.name]} from {ARCHITECTURES[model.name].last_block} against no cache"
    )
    return compare(what, "images/s", rates["ours"], rates["whole"], EQUAL, at_least=3)


def freeze_until(model: keras.Model, layer: str) -> None:
    """Freeze every layer up to and including `layer`."""
    for each in model.layers:
        each.trainable = False
        if each.name == layer:
            break
