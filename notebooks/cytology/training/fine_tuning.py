"""Training more than the head: the whole network, or the part after a cut."""

import inspect
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURES
from cytology.data.splitting import check_batch_size, judged_pictures, training_pictures
from cytology.evaluation.predictions import prediction_rows
from cytology.files import digest
from cytology.networks import batches as pipeline
from cytology.networks import building, linear_head
from cytology.networks.backend import GPUS, enough_memory, keras, tf
from cytology.networks.batches import DecodedImages, Epochs, batches
from cytology.networks.features import Features
from cytology.notebook import is_interactive
from cytology.settings import InputError
from cytology.training import cuts
from cytology.training.checkpoints import Checkpoint, folder_of
from cytology.training.cuts import activations, cut, cut_before
from cytology.training.recipes import Recipe, Stage, history_table
from cytology.training.start import Network

EVERY_LAYER = ""


def recipe_in_words(train_head: bool, fine_tune: bool, start: str, rounded: bool = False) -> str:
    """What was trained, as shown in the comparison; `rounded` if from float16 activations."""
    if not fine_tune:
        return "head on frozen features"
    what = "every layer" if start == EVERY_LAYER else f"layers from {start}"
    what += " (float16 activations)" if rounded else ""
    return f"head, then {what}" if train_head else what


def fine_tune_network(network: Network, images: DecodedImages, split: pd.DataFrame) -> Stage:
    """Fine-tune a network according to its notebook's parameters; see `fine_tune_from`."""
    started, run = time.perf_counter(), network.run
    stage = fine_tune_from(
        run.parameters["fine_tune_from"],
        network.model,
        images,
        split,
        Recipe.of(run, network.architecture),
        network.key,
        folder_of(run, network.architecture),
    )
    return replace(stage, seconds=time.perf_counter() - started)


def fine_tune_from(
    start: str,
    model: keras.Model,
    images: DecodedImages,
    split: pd.DataFrame,
    recipe: Recipe,
    key: list,
    kept_in: Path | None = None,
) -> Stage:
    """`fine_tune` from the block `start` on, or every layer if it is empty.

    The result is the same as freezing the part before `start` and training the whole network. `key`
    is that of the run's features, `kept_in` the folder for the state after each epoch.
    """
    tables = (split.to_csv(index=False), images.sha256.sort_index().to_csv())
    whole = (*key, *tables, start, asdict(recipe))
    if start == EVERY_LAYER:
        return fine_tune(model, images, split, recipe, kept_in, training_key(*whole))
    parts = cut(model, cut_before(model, start))
    kept = activations(parts, images, split, recipe.orientations, key, recipe.batch_size)
    name = training_key(*whole, kept.dtype.name)
    stage = fine_tune(parts.after, kept, split, recipe, kept_in, name)
    cuts.copy_variables(parts.copy, model)  # take over the trained weights
    return replace(stage, rounded=kept.dtype == np.float16)


def training_key(*parts: Any) -> str:
    """A hash that names a training: of `parts`, of its code, and of Keras' version."""
    modules = (building, linear_head, pipeline, cuts, sys.modules[__name__])
    return digest(*parts, *map(inspect.getsource, modules), keras.version())


# ----------------------------------------------------------------------- training


def fine_tune(
    model: keras.Model,
    source: DecodedImages | Features,
    split: pd.DataFrame,
    recipe: Recipe,
    kept_in: Path | None = None,
    key: str = "",
) -> Stage:
    """Train every layer that may learn, then predict val and test.

    `source` is the images, or for the part after a cut the activations before it. The folder
    `kept_in` keeps the state after each epoch; an interrupted training continues from there if the
    `key` (see `training_key`) is the same.
    """
    check_possible(model, split, recipe)
    train, val, judged = weighed_parts(split, recipe)
    epochs, stopping = Epochs(), early_stopping(recipe.patience)
    kept = [Checkpoint(kept_in, key, recipe.epochs, stopping)] if kept_in else []
    with enough_memory(recipe.batch_size):
        logs = fit(
            model,
            batches(source, train, recipe.batch_size, recipe.seed, epochs),
            batches(source, val, recipe.batch_size),
            recipe,
            callbacks=[epochs, *stopping, *kept],
            epochs_done=kept[0].epoch if kept else 0,
        )
        logits = predict_logits(model, source, judged, recipe.batch_size)
    rows = prediction_rows(judged, logits, "final", recipe.seed)
    return Stage(rows, history_table(kept[0].rows if kept else logs, "final", "fine_tune"))


def fit(
    model: keras.Model,
    train: tf.data.Dataset,
    val: tf.data.Dataset,
    recipe: Recipe,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    epochs_done: int = 0,
) -> dict[str, list[float]]:
    """Freeze, compile, fit: loss and accuracy of each epoch on `train` and `val`."""
    # A batch is too small to estimate statistics: normalizations keep their initial ones.
    building.freeze_normalization(model)
    with model.distribute_strategy.scope():  # each GPU has a copy of the optimizer
        optimizer = optimizer_of(model.name, recipe)
        compile_model(model, optimizer, recipe.steps_per_execution)
    history = model.fit(
        train,
        validation_data=val,  # watched after each epoch, never learned from
        epochs=recipe.epochs,
        initial_epoch=epochs_done,  # if the training was interrupted
        callbacks=list(callbacks),
        shuffle=False,  # `batches` shuffles; Keras would warn that it cannot
        verbose=1 if is_interactive() else 2,
    )
    return history.history


def compile_model(model: keras.Model, optimizer: Any, steps_per_execution: int = 1) -> None:
    """Binary cross-entropy on the logit, accuracy at probability 0.5.

    XLA compiles on GPUs only: on a processor it makes the steps of these networks slower.
    """
    model.compile(
        optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        weighted_metrics=[],
        jit_compile=bool(GPUS),
        steps_per_execution=steps_per_execution,
    )


def optimizer_of(architecture: str, recipe: Recipe) -> keras.optimizers.Optimizer:
    """The original's optimizer; if the recipe accumulates, several batches make one step."""
    several = recipe.accumulate if recipe.accumulate > 1 else None
    optimizer = getattr(keras.optimizers, ARCHITECTURES[architecture].optimizer)
    return optimizer(recipe.learning_rate, gradient_accumulation_steps=several)


def early_stopping(patience: int | None) -> list[keras.callbacks.EarlyStopping]:
    """Keras' early stopping on val loss, keeping the weights of the best epoch; empty if none."""
    if patience is None:
        return []
    return [keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)]


# ------------------------------------------------------------------------ its data


def check_possible(model: keras.Model, split: pd.DataFrame, recipe: Recipe) -> None:
    """`InputError` for a batch larger than the training part, or accumulating on several GPUs."""
    check_batch_size(recipe.batch_size, split, recipe.orientations)
    if recipe.accumulate > 1 and model.distribute_strategy.num_replicas_in_sync > 1:
        # Keras 3.15 fails there with an error in TensorFlow's graphs.
        raise InputError(
            f"Parameter `accumulate` is {recipe.accumulate}, which does not work on several GPUs: "
            "set `strategy` to one."
        )


def weighed_parts(
    split: pd.DataFrame, recipe: Recipe
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Pictures to train on and to validate on, with class weights, and pictures to predict.

    Both losses weight the classes as in training, so their curves can be compared.
    """
    train = training_pictures(split[split["split"] == "train"], recipe.orientations)
    val = judged_pictures(split[split["split"] == "val"])
    judged = training_pictures(split[split["split"] != "train"], recipe.orientations)
    malignant = linear_head.is_malignant(train["label"])
    weights = linear_head.class_weights(malignant, recipe.class_weight)
    of_class = dict(zip("BM", weights, strict=True))
    train, val = (rows.assign(weight=rows["label"].map(of_class)) for rows in (train, val))
    return train, val, judged.reset_index(drop=True)


def predict_logits(
    model: keras.Model,
    source: DecodedImages | Features,
    pictures: pd.DataFrame,
    batch_size: int,
) -> np.ndarray:
    """Logits of pictures, shape (n,), in the order of `pictures`."""
    feed = batches(source, pictures[["image_id", "orientation"]], batch_size)
    # Not `predict_on_batch`: with several devices, each would get the whole batch.
    return model.predict(feed, verbose=0).ravel()
