"""B7: a batch of heatmaps against one forward and backward pass of the same batch."""

from pathlib import Path

import numpy as np

from benchmarks.comparison import Result, Row, growth, in_turn, seconds
from benchmarks.images import large_jpegs
from benchmarks.networks import network
from benchmarks.registry import Options
from cytology.architectures import NETWORK_TITLE
from cytology.data.splitting import training_pictures
from cytology.explanation.heatmaps import Explained, over_square
from cytology.networks.backend import keras, tf
from cytology.networks.batches import decode

BATCH = 32
EQUAL = (
    "the network, the same batch of 32 pictures, both as one graph that was traced before. Ours is "
    "Grad-CAM at the last map, with the maps laid over the input; the other is the logits and "
    "the gradients of all weights but those of batch normalization"
)


def measure(options: Options, folder: Path) -> Result:
    """Seconds a batch, for each architecture."""
    root, manifest, about = large_jpegs(options, folder / "images", BATCH)
    images = decode(root, manifest, options.image_size, "pad", folder / "cache")
    pictures = training_pictures(manifest.assign(split="train", weight=1.0), 1)
    notes, rows = [about], []
    for architecture in options.architectures:
        model, weights = network(architecture, options.weights, images, pictures)
        pixels = np.asarray(images.pixels)[np.arange(BATCH) % len(images.pixels)]
        rows.append(heat_and_passes(model, pixels, options.repeats))
        notes.append(weights)
    return Result(rows, notes)


def heat_and_passes(model: keras.Model, pixels: np.ndarray, repeats: int) -> Row:
    """How many times as long a batch of heatmaps takes as a pass there and back."""
    explained, loss = Explained(model), keras.losses.BinaryCrossentropy(from_logits=True)
    labels = tf.constant(np.arange(len(pixels)) % 2, tf.float32, (len(pixels), 1))

    @tf.function
    def there_and_back(batch):
        with tf.GradientTape() as tape:
            value = loss(labels, model(batch, training=True))
        return tape.gradient(value, model.trainable_variables)

    def heatmaps():
        return [over_square(each, pixels.shape[1]) for each in explained.heat(pixels, "M")]

    ways = {"ours": heatmaps, "passes": lambda: there_and_back(tf.constant(pixels))}
    for way in ways.values():
        way()  # traces it
    took = in_turn({name: lambda way=way: seconds(way) for name, way in ways.items()}, repeats)
    what = f"{NETWORK_TITLE[model.name]}: 32 heatmaps against a forward and backward pass"
    return growth(what, "s", took["ours"], took["passes"], EQUAL, at_most=4)
