"""Training: cross-validated heads on frozen features, fine-tuning, and models that load again."""

import contextlib
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURES
from cytology.data.augmentation import pictures_of
from cytology.data.splitting import (
    inner_group_split,
    judged_pictures,
    read_split,
    training_pictures,
)
from cytology.evaluation.predictions import as_taken, prediction_rows
from cytology.files import digest, file_hash, is_sound, keep_checksum, written_whole
from cytology.networks import linear_head
from cytology.networks.backend import GPUS, distribution, keras, quietly
from cytology.networks.batches import DecodedImages, batches, decode, frozen_features
from cytology.networks.building import build, calibrate_normalization, feature_extractor, put_head
from cytology.networks.features import Features
from cytology.networks.linear_head import LinearHead
from cytology.networks.weights import Weights, find_weights
from cytology.notebook import progress
from cytology.settings import CACHE, InputError
from cytology.tables import read_json, read_table

CALIBRATION_IMAGES = 128
CALIBRATION_BATCH = 8  # all maps of a batch stay in memory at once: 32 would need 6 GB


@dataclass(frozen=True)
class HeadRecipe:
    """How heads are trained, the same for every architecture; their strength is chosen by data."""

    epochs: int  # the most
    class_weight: str
    patience: int | None  # None: no early stopping
    seed: int  # of the groups held back for early stopping


@dataclass(frozen=True)
class Recipe:
    """How a network is fine-tuned; the same for every architecture unless its notebook says so."""

    learning_rate: float
    epochs: int
    batch_size: int
    class_weight: str
    patience: int | None  # None: no early stopping
    seed: int
    accumulate: int = 1  # batches whose gradients make one step
    steps_per_execution: int = 1  # steps between two looks at the progress


# ---------------------------------------------------------------------- network


def network(
    architecture: str,
    weights: Weights,
    images: DecodedImages,
    split: pd.DataFrame,
    seed: int,
    precision: str = "float32",
    strategy: str = "one",
) -> tuple[keras.Model, str]:
    """Build a network with its weights: (model, hash that names the weights).

    A random backbone gets batch-normalization statistics from unlabelled images of train and
    val, never of test, and is then kept in the cache, so that later runs meet the very same one.
    It is named by what it was made from and not by its file, whose last digits are others on
    another processor. With several GPUs and `strategy` auto its variables lie on all of them.
    """
    given = str(weights.path) if weights.path else None
    with distribution(strategy).scope():
        model = build(architecture, images.size, given, seed, precision)
    if weights.path:
        return model, file_hash(weights.path)
    path = random_weights(model, images, split, seed)
    model.load_weights(path)
    return model, digest(path.name)


def random_weights(
    model: keras.Model, images: DecodedImages, split: pd.DataFrame, seed: int
) -> Path:
    """The file of weights for a random network like `model`, made where it is missing.

    Its normalizations know these images. The name says the shape of every weight: what a network
    of other shapes left in the cache is not taken.
    """
    architecture = model.name
    held = split[split["split"] != "test"]
    # The original's protocol has test copies of training images; then nothing can be kept apart.
    names = held["image_id"].drop_duplicates().sample(frac=1, random_state=seed)
    pictures = pictures_of(names.iloc[:CALIBRATION_IMAGES].to_frame(), 1)
    seen = hashlib.sha256(images.batch(pictures["image_id"], pictures["orientation"])).hexdigest()
    shapes = [list(weight.shape) for weight in model.weights]
    name = digest(architecture, images.size, seed, seen, keras.version(), shapes)
    path = CACHE / "weights" / f"{architecture}-random-{name}.weights.h5"
    if not is_sound(path):
        single = build(architecture, images.size, None, seed)
        steps = -(-len(pictures) // CALIBRATION_BATCH)
        feed = batches(images, pictures, CALIBRATION_BATCH)
        calibrate_normalization(single, progress(feed, "calibrating", steps, "batch"))
        with written_whole(path) as temporary:
            single.save_weights(temporary)
        keep_checksum(path)
    return path


def backbone_of_run(
    run: Path, architecture: str, root: Path, weights: str
) -> tuple[keras.Model, DecodedImages]:
    """What made the frozen features of a run: the feature extractor, and the decoded images.

    Raises `InputError` if `weights` are not those that the run began with.
    """
    about, manifest = (
        read_json(run, f"{architecture}/metrics.json"),
        read_table(run, "manifest.csv"),
    )
    images = decode(root, manifest, about["image_size"], about["fit"])
    found, split = find_weights(architecture, weights), read_split(run)
    model, weights_hash = network(
        architecture, found, images, split, about["seed"], about["precision"]
    )
    if weights_hash != about["weights_hash"]:
        raise InputError(
            f"Parameter `weights` is {weights!r}, but {architecture} was trained with other "
            f"weights ({about['weights']}): give those of the run."
        )
    return feature_extractor(model), images


def features_for(
    extractor: keras.Model,
    images: DecodedImages,
    split: pd.DataFrame,
    orientations: int,
    key: list,
    batch_size: int,
) -> Features:
    """Frozen features of every picture in all orientations: train, val and test.

    `extractor` is `architectures.feature_extractor` of the network, `key` what it depends on (see
    `features.KEY`).
    """
    pictures = training_pictures(split, orientations)
    return frozen_features(extractor, images, pictures, key, batch_size)


@contextlib.contextmanager
def with_weights(model: keras.Model, weights: list[np.ndarray]):
    """Give a model other weights for a while: frozen features are not those of a tuned network."""
    present = model.get_weights()
    model.set_weights(weights)
    try:
        yield
    finally:
        model.set_weights(present)


def class_weights(labels: pd.Series, class_weight: str) -> pd.Series:
    """A weight a picture: `balanced` gives both classes the same sum, `none` gives ones."""
    weights = linear_head.class_weights(is_malignant(labels), class_weight)
    return labels.map(dict(zip("BM", weights, strict=True))).astype(float)


def compile_model(model: keras.Model, optimizer, steps_per_execution: int = 1) -> None:
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


def early_stopping(patience: int | None) -> list:
    """Keras' early stopping on val loss, keeping the best epoch's weights; none if asked so."""
    if patience is None:
        return []
    return [keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)]


def history_table(history: dict | list[dict], model: str, stage: str) -> pd.DataFrame:
    """Rows of `history.csv`: model, stage, epoch (from 1), loss and accuracy, train and val.

    `history` is Keras' dictionary of lists, or the logs of each epoch. Empty are `val_loss` and
    `val_accuracy` where nothing was watched.
    """
    table = pd.DataFrame(history)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    table.insert(0, "stage", stage)
    table.insert(0, "model", model)
    columns = ["model", "stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    return table.reindex(columns=columns)


# ------------------------------------------------------------------------- head


def is_malignant(labels: pd.Series) -> np.ndarray:
    """Whether each label is M, shape (n,)."""
    return (labels == "M").to_numpy()


def train_head(
    features: Features,
    train: pd.DataFrame,
    watched: pd.DataFrame | None,
    strength: float,
    recipe: HeadRecipe,
    name: str,
) -> tuple[LinearHead, pd.DataFrame]:
    """Train on pictures `train`, watch pictures `watched` if any: (head, its rows of history.csv).

    Both losses weigh the classes as the training does, so that their curves can be compared; the
    penalty is in neither. With a `patience`, the head of the lowest watched loss is kept.
    """
    values, malignant = features.of(train), is_malignant(train["label"])
    of_class = linear_head.class_weights(malignant, recipe.class_weight)
    sets = {"": (values, malignant)}
    if watched is not None:
        sets["val_"] = features.of(watched), is_malignant(watched["label"])
    epochs, each = [], []

    def after_epoch(head: LinearHead) -> None:
        found = {}
        for part, (inputs, truth) in sets.items():
            loss, accuracy = linear_head.scores(head.logits(inputs), truth, of_class)
            found |= {f"{part}loss": loss, f"{part}accuracy": accuracy}
        epochs.append(found)
        each.append(head)
        if recipe.patience is not None and len(epochs) > best() + recipe.patience:
            raise StopIteration

    def best() -> int:
        return int(np.argmin([found["val_loss"] for found in epochs]))

    head = linear_head.fitted_head(
        values, malignant, strength, recipe.class_weight, recipe.epochs, after_epoch
    )
    if not epochs:  # no feature varies
        after_epoch(head)
    if recipe.patience is not None:
        head = linear_head.rounded(each[best()], values.dtype)
    return head, history_table(epochs, name, "head")


def cross_validate_head(
    features: Features,
    split: pd.DataFrame,
    orientations: int,
    recipe: HeadRecipe,
    strengths: dict[str, float],
    watch: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, LinearHead]]:
    """Train a head for each fold: (rows of predictions.csv, rows of history.csv, the heads).

    Fold k is predicted by a head that never saw it, of the strength named `fold<k>`. With a
    `patience`, an inner group split of the other folds says when to stop; without, the head trains
    on all of them, and the validation curve of the history is fold k itself, watched but never
    acted upon. `watch` False saves the time that the curve takes. Each fold's head also predicts
    the test part. Predicted are all `orientations` of an image: those that are turned serve
    test-time augmentation and no other figure.
    """
    held, test = split[split["split"] != "test"], split[split["split"] == "test"]
    rows, histories, found = [], [], {}
    folds = sorted(held["fold"].unique())
    for fold in progress(folds, f"{orientations} orientations", unit="fold"):
        name = f"fold{fold}"
        others, watched = held[held["fold"] != fold], held[held["fold"] == fold]
        judged = training_pictures(watched, orientations)
        on_test = training_pictures(test, orientations)
        if recipe.patience is not None:
            stops = inner_group_split(others, recipe.seed)
            others, watched = others[~stops], others[stops]
        train = training_pictures(others, orientations)
        seen = judged_pictures(watched) if watch or recipe.patience is not None else None
        head, history = train_head(features, train, seen, strengths[name], recipe, name)
        for pictures, model in ((judged, "oof"), (on_test, name)):
            logits = head.logits(features.of(pictures))
            rows.append(prediction_rows(pictures, logits, model, recipe.seed))
        histories.append(history)
        found[name] = head
    return pd.concat(rows, ignore_index=True), pd.concat(histories, ignore_index=True), found


def epochs_in_words(history: pd.DataFrame, recipe: HeadRecipe) -> str:
    """After how many epochs the heads of `history` ended, and whether the limit ended them."""
    epochs = history.groupby("model")["epoch"].max()
    few, many = epochs.min(), epochs.max()
    words = f"The heads ended after {few if few == many else f'{few} to {many}'} epochs"
    if (epochs >= recipe.epochs).any():
        return f"{words}: `head_epochs` stopped some before they converged."
    return f"{words}, {'converged' if recipe.patience is None else 'converged or stopped early'}."


def orientations_tried(
    features: Features,
    split: pd.DataFrame,
    orientations: int,
    recipe: HeadRecipe,
    strengths: dict[str, float],
    with_all: pd.DataFrame,
) -> pd.DataFrame:
    """Out-of-fold logits of the same folds, trained with 1, 4 and all orientations.

    All have the same strengths and are trained until they converge, so that none is trained longer
    than another. `with_all` are the predictions that stand already; they are not computed again.
    All are judged on the images as taken. Under the original's protocol a picture is an image, and
    there is nothing to leave out.
    """
    tried = {orientations: with_all}
    if "orientation" not in split:
        for fewer in (1, 4):
            if fewer < orientations:
                tried[fewer] = cross_validate_head(
                    features, split, fewer, recipe, strengths, watch=False
                )[0]
    columns = ["orientations", "image_id", "orientation", "group", "label", "fold", "logit"]
    tables = [
        as_taken(rows[rows["model"] == "oof"], split).assign(orientations=number)[columns]
        for number, rows in sorted(tried.items())
    ]
    return pd.concat(tables, ignore_index=True)


def train_final_head(
    model: keras.Model,
    features: Features,
    split: pd.DataFrame,
    orientations: int,
    recipe: HeadRecipe,
    strengths: dict[str, float],
) -> tuple[pd.DataFrame, pd.DataFrame, LinearHead]:
    """Train the head on train, watch val, put it on `model`: (predictions, history, the head).

    Its strength is the one named `final`. Val stops the training where the recipe has a `patience`.
    """
    train = training_pictures(split[split["split"] == "train"], orientations)
    watched = judged_pictures(split[split["split"] == "val"])
    judged = training_pictures(split[split["split"] != "train"], orientations)
    head, history = train_head(features, train, watched, strengths["final"], recipe, "final")
    put_head(model, head)
    logits = head.logits(features.of(judged))
    return prediction_rows(judged, logits, "final", recipe.seed), history, head


# ------------------------------------------------------------------------ saving


def save_model(model: keras.Model, run: Path) -> list[Path]:
    """Write `<architecture>/model.keras`; DenseNet121 also `model.h5`, as the original had it."""
    names = ["model.keras"] + (["model.h5"] if ARCHITECTURES[model.name].kept_as_h5 else [])
    for name in names:
        # Keras calls HDF5 legacy, in a paragraph; why we write it stands in the notebook.
        with written_whole(run / model.name / name) as temporary, quietly():
            model.save(temporary)
    return [run / model.name / name for name in names]


def largest_difference(path: Path, model: keras.Model, pictures: np.ndarray) -> float:
    """Load a saved model and compare its logits with the live model's on uint8 pictures.

    Returned is the largest difference as a share of the largest logit (of 1, where all are
    smaller). The layers are called one by one: for so few pictures, building two graphs would take
    longer.
    """
    loaded = keras.saving.load_model(path, compile=False)
    logits = [np.asarray(each(pictures, training=False)) for each in (loaded, model)]
    return float(np.abs(logits[0] - logits[1]).max() / max(1.0, np.abs(logits[1]).max()))


def images_per_second(extractor: keras.Model, images: DecodedImages, batch_size: int = 32) -> float:
    """Forward passes up to the pooled features, from memory: the best of three batches.

    The best, since the first may have to build the graph, and other work only ever slows one.
    """
    batch = images.pixels[: min(batch_size, len(images.pixels))]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        extractor.predict_on_batch(batch)
        seconds.append(time.perf_counter() - started)
    return len(batch) / min(seconds)
