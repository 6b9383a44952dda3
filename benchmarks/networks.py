"""Networks for the benchmarks, with given or random weights."""

import time
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from cytology.architectures import ARCHITECTURES
from cytology.networks import engines, passes
from cytology.networks.backend import keras, tf
from cytology.networks.batches import DecodedImages, batches
from cytology.networks.building import build, calibrate_normalization
from cytology.networks.weights import find_weights
from cytology.training.fine_tuning import compile_model, optimizer_of
from cytology.training.recipes import Recipe


def network(
    architecture: str, weights: str, images: DecodedImages, pictures: pd.DataFrame
) -> tuple[keras.Model, str]:
    """A network for images of this size, and a sentence about its weights.

    `weights` is like the notebooks' parameter. Random ones get normalization statistics from the
    first of `pictures`: without, their signal vanishes, and numbers near zero take other times.
    """
    found = find_weights(architecture, weights)
    model = build(architecture, images.size, str(found.path) if found.path else None)
    if not found.path:
        few = pictures[["image_id", "orientation"]].iloc[:16]
        calibrate_normalization(model, batches(images, few, 8))
    return model, f"{architecture}: {found.explanation}"


def chosen_passes(
    extractor: keras.Model, images: DecodedImages, cache: Path
) -> tuple[passes.Passes, passes.Engine]:
    """The extractor as the series uses it on this machine, and its engine.

    The engine is chosen again: earlier runs and the project's cache are ignored.
    """
    with patch.object(passes, "CACHE", cache), patch.object(engines, "CACHE", cache):
        engine = passes.choose_engine("auto", extractor, "of a benchmark", images)
        return engine.passes(extractor, "of a benchmark"), engine


def ready_to_train(model: keras.Model) -> None:
    """Compile as `fine_tuning.fit` does, with the original's optimizer and rate."""
    rate = ARCHITECTURES[model.name].learning_rate
    recipe = Recipe(rate, epochs=1, batch_size=32, class_weight="none", patience=None, seed=0)
    compile_model(model, optimizer_of(model.name, recipe))


def step_rate(model: keras.Model, feed: tf.data.Dataset, pictures: int) -> float:
    """Pictures per second of one epoch over `feed` with `pictures`, up to its last step."""
    watch = Stopwatch()
    model.fit(feed, shuffle=False, callbacks=[watch], verbose=0)
    return pictures / watch.seconds


class Stopwatch(keras.callbacks.Callback):
    """Seconds from the start of a training to the end of its last step.

    Not to the end of `fit`: there TensorFlow may wait until tf.data's autotuner wakes up, which
    sleeps twice as long each time.
    """

    def __init__(self):
        super().__init__()
        self.seconds = self._begun = 0.0

    def on_train_begin(self, logs=None):
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self._begun
