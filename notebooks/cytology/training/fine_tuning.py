"""Training more than the head: the whole network, or what comes after a cut.

What lies before the cut does not change, so each picture passes through it once: its activations
at the cut are kept on disk, and every epoch begins there.
"""

import inspect
import math
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURES
from cytology.data.splitting import check_batch_size, judged_pictures, training_pictures
from cytology.evaluation.predictions import prediction_rows
from cytology.files import digest
from cytology.networks import batches as pipeline
from cytology.networks import building, linear_head
from cytology.networks.backend import enough_memory, keras
from cytology.networks.batches import DecodedImages, Epochs, batches, frozen_features
from cytology.networks.features import Features, FeatureStore, named_by_content
from cytology.notebook import somebody_looks_on
from cytology.settings import CACHE, InputError
from cytology.training import head_training
from cytology.training.checkpoints import Checkpoint
from cytology.training.head_training import (
    Recipe,
    class_weights,
    compile_model,
    early_stopping,
    history_table,
)

EVERY_LAYER = ""
KIND = "activations"  # folder of the cache
SHARE_OF_DISK = 0.5  # of what is free: the most that activations may take


def recipe_in_words(train_head: bool, fine_tune: bool, start: str, rounded: bool = False) -> str:
    """What was trained, in the words of the comparison; `rounded` if from float16 activations."""
    if not fine_tune:
        return "head on frozen features"
    what = "every layer" if start == EVERY_LAYER else f"layers from {start}"
    what += " (float16 activations)" if rounded else ""
    return f"head, then {what}" if train_head else what


# ------------------------------------------------------------------------- cuts


def cut_points(model: keras.Model) -> list[str]:
    """Layers through whose output everything must pass, from the first to the pooled features."""
    waiting: dict[str, int] = {}  # how many later layers still need an output
    tensors = [(layer, _inputs(layer)) for layer in model.layers]
    for _, inputs in tensors:
        for tensor in inputs:
            waiting[tensor.name] = waiting.get(tensor.name, 0) + 1
    alive, found = set(), []
    for layer, inputs in tensors:
        for tensor in inputs:
            waiting[tensor.name] -= 1
            if not waiting[tensor.name]:
                alive.discard(tensor.name)
        alive.add(layer.output.name)
        if alive == {layer.output.name}:
            found.append(layer.name)
    return found[1 : found.index("features") + 1]


def _inputs(layer) -> list:
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return layer.input if isinstance(layer.input, list) else [layer.input]


def cut_before(model: keras.Model, start: str) -> str:
    """The layer whose output is kept when training begins at the block or layer `start`.

    `last` is the architecture's `last_block`. A block is named by what the names of its layers
    begin with (`block_16`, `conv5`) or by the layer that ends it (`mixed9`). Raises `InputError`
    for another name.
    """
    wanted = ARCHITECTURES[model.name].last_block if start == "last" else start
    cuts, before = set(cut_points(model)), None
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
    """A network in two: `before` gives activations, `after` makes logits of them.

    Both are of a copy of the network, so that its own graph stays as it was.
    """

    layer: str
    before: keras.Model
    after: keras.Model
    copy: keras.Model

    def give_back(self, model: keras.Model) -> None:
        """Copy what was trained into `model`, the network that was cut."""
        copy_variables(self.copy, model)


def cut(model: keras.Model, layer: str) -> Cut:
    """Cut a copy of `model` after `layer`."""
    with model.distribute_strategy.scope():
        copy = keras.models.clone_model(model)
        copy_variables(model, copy)
        at = copy.get_layer(layer).output
        after = keras.Model(at, copy.output, name=model.name)
    # Outside: on several devices `predict_on_batch` would give every device the whole batch.
    before = keras.Model(copy.input, at, name=model.name)
    return Cut(layer, before, after, copy)


def copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Copy weights, and the state of dropout's random numbers, layer by layer."""
    for ours, theirs in zip(source.layers, target.layers, strict=True):
        for mine, other in zip(ours.variables, theirs.variables, strict=True):
            other.assign(mine)


def activations(
    parts: Cut, images: DecodedImages, split: pd.DataFrame, orientations: int, key: list,
    batch_size: int, cache: Path = CACHE,
) -> Features:  # fmt: skip
    """What reaches the cut, for every picture of the split in all orientations; kept on disk.

    `key` is that of the run's features. Prints first how much disk it takes. Kept as float32, or
    as float16 where only that fits into half of the free disk, and then says so; raises
    `InputError` where neither does.
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
            return frozen_features(
                parts.before, images, pictures, kept, batch_size, cache, KIND, dtype
            )
    raise InputError(
        f"Activations after {parts.layer} take {need / 1e9:.1f} GB even as float16, and only half "
        f"of the free disk, {room / 1e9:.1f} GB, may be used: free some in {cache}, choose a "
        "later block in `fine_tune_from`, or fewer `orientations`."
    )


# ----------------------------------------------------------------------- training


def fine_tune(
    model: keras.Model,
    source: DecodedImages | Features,
    split: pd.DataFrame,
    orientations: int,
    recipe: Recipe,
    kept_in: Path | None = None,
    key: str = "",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train every layer but those that are frozen: (predictions on val and test, history).

    `source` are the images, or for the part after a cut the activations before it. The optimizer
    is the original project's for this architecture. The folder `kept_in` keeps the state after
    each epoch; a training that was broken off goes on from there if the `key`, which names all that
    it depends on (see `training_key`), is the same.
    """
    check_batch_size(recipe.batch_size, split, orientations)
    if recipe.accumulate > 1 and model.distribute_strategy.num_replicas_in_sync > 1:
        # Keras 3.15 fails there with an error of TensorFlow's graphs.
        raise InputError(
            f"Parameter `accumulate` is {recipe.accumulate}, which does not work on several GPUs: "
            "set `strategy` to one."
        )
    train = training_pictures(split[split["split"] == "train"], orientations)
    val = judged_pictures(split[split["split"] == "val"])
    judged = training_pictures(split[split["split"] != "train"], orientations)
    judged = judged.reset_index(drop=True)
    weights = class_weights(train["label"], recipe.class_weight)
    by_label = weights.groupby(train["label"]).first()
    val = val.assign(weight=val["label"].map(by_label))
    with model.distribute_strategy.scope():
        compile_model(model, optimizer_of(model.name, recipe), recipe.steps_per_execution)
    train, epochs, stopping = (
        train.assign(weight=weights),
        Epochs(),
        early_stopping(recipe.patience),
    )
    kept = [Checkpoint(kept_in, key, recipe.epochs, stopping)] if kept_in else []
    with enough_memory(recipe.batch_size):
        history = model.fit(
            batches(source, train, recipe.batch_size, recipe.seed, epochs),
            validation_data=batches(source, val, recipe.batch_size),
            shuffle=False,  # `batches` does it; Keras would warn that it cannot
            epochs=recipe.epochs,
            initial_epoch=kept[0].epoch if kept else 0,
            callbacks=[epochs, *stopping, *kept],
            verbose=1 if somebody_looks_on() else 2,
        )
        logits = predict_logits(model, source, judged, recipe.batch_size)
    rows = prediction_rows(judged, logits, "final", recipe.seed)
    logs = kept[0].rows if kept else history.history
    return rows, history_table(logs, "final", "fine_tune")


def training_key(*parts) -> str:
    """The name of a training: of `parts`, of the code that it runs, and of Keras' version."""
    modules = (building, linear_head, head_training, pipeline, sys.modules[__name__])
    return digest(*parts, *map(inspect.getsource, modules), keras.version())


def fine_tune_from(
    start: str,
    model: keras.Model,
    images: DecodedImages,
    split: pd.DataFrame,
    orientations: int,
    recipe: Recipe,
    key: list,
    kept_in: Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, bool]:
    """`fine_tune` from the block `start` on, or every layer if it is empty.

    The result is that of freezing what lies before `start` and training the whole network. Last
    comes whether it rests on activations that were rounded to float16. `key` is that of the run's
    features, `kept_in` the folder that keeps the state after each epoch.
    """
    tables = (split.to_csv(index=False), images.sha256.sort_index().to_csv())
    whole = (*key, *tables, start, orientations, asdict(recipe))
    if start == EVERY_LAYER:
        name = training_key(*whole)
        return *fine_tune(model, images, split, orientations, recipe, kept_in, name), False
    parts = cut(model, cut_before(model, start))
    kept = activations(parts, images, split, orientations, key, recipe.batch_size)
    name = training_key(*whole, kept.dtype.name)
    found = fine_tune(parts.after, kept, split, orientations, recipe, kept_in, name)
    parts.give_back(model)
    return *found, kept.dtype == np.float16


def optimizer_of(architecture: str, recipe: Recipe):
    """The original's optimizer; several batches make one step where the recipe accumulates."""
    several = recipe.accumulate if recipe.accumulate > 1 else None
    optimizer = getattr(keras.optimizers, ARCHITECTURES[architecture].optimizer)
    return optimizer(recipe.learning_rate, gradient_accumulation_steps=several)


def predict_logits(
    model: keras.Model, source, pictures: pd.DataFrame, batch_size: int
) -> np.ndarray:
    """Logits of pictures, shape (n,), in the order of `pictures`."""
    feed = batches(source, pictures[["image_id", "orientation"]], batch_size)
    # Not `predict_on_batch`: with several devices, each would be given the whole batch.
    return model.predict(feed, verbose=0).ravel()
