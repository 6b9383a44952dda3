"""Training: cross-validated heads on frozen features, fine-tuning, and models that load again."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils.class_weight import compute_class_weight

from cytology.architectures import (
    ARCHITECTURES,
    build,
    build_head,
    calibrate_normalization,
    feature_extractor,
    put_head,
)
from cytology.augmentation import pictures_of
from cytology.backend import keras
from cytology.features import Features, digest
from cytology.heads import LinearHead
from cytology.pipeline import DecodedImages, batches, decode, frozen_features
from cytology.predictions import as_taken, prediction_rows
from cytology.settings import CACHE, InputError, file_hash, progress, somebody_looks_on
from cytology.splitting import (
    inner_group_split,
    judged_pictures,
    read_split,
    training_pictures,
)
from cytology.tables import read_json, read_table, written_whole
from cytology.weights import Weights, find_weights

# What was trained, by (train_head, fine_tune): the words of the comparison.
RECIPES = {
    (True, False): "head on frozen features",
    (True, True): "head, then every layer",
    (False, True): "every layer",
}
CALIBRATION_IMAGES = 128
CALIBRATION_BATCH = 8  # all maps of a batch stay in memory at once: 32 would need 6 GB


@dataclass(frozen=True)
class Recipe:
    """How something is trained; the same for every architecture unless its notebook says so."""

    learning_rate: float
    epochs: int
    batch_size: int
    class_weight: str
    patience: int | None  # None: no early stopping
    seed: int


# ---------------------------------------------------------------------- network


def network(
    architecture: str, weights: Weights, images: DecodedImages, split: pd.DataFrame, seed: int
) -> tuple[keras.Model, str]:
    """Build a network with its weights: (model, hash that names the weights).

    A random backbone gets batch-normalization statistics from unlabelled images of train and
    val, never of test, and is then kept in the cache, so that later runs meet the very same one.
    """
    size = images.pixels.shape[1]
    if weights.path is not None:
        return build(architecture, size, str(weights.path), seed), file_hash(weights.path)
    model = build(architecture, size, None, seed)
    held = split[split["split"] != "test"]
    # The original's protocol has test copies of training images; then nothing can be kept apart.
    names = held["image_id"].drop_duplicates().sample(frac=1, random_state=seed)
    pictures = pictures_of(names.iloc[:CALIBRATION_IMAGES].to_frame(), 1)
    seen = hashlib.sha256(images.batch(pictures["image_id"], pictures["orientation"])).hexdigest()
    name = digest(architecture, size, seed, seen, keras.version())
    path = CACHE / "weights" / f"{architecture}-random-{name}.weights.h5"
    if not path.is_file():
        calibrate_normalization(model, batches(images, pictures, CALIBRATION_BATCH))
        with written_whole(path) as temporary:
            model.save_weights(temporary)
    model.load_weights(path)
    return model, file_hash(path)


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
    found = find_weights(architecture, weights)
    model, weights_hash = network(architecture, found, images, read_split(run), about["seed"])
    if weights_hash != about["weights_hash"]:
        raise InputError(
            f"Parameter `weights` is {weights!r}, but {architecture} was trained with other "
            f"weights ({about['weights']}): give those of the run."
        )
    return feature_extractor(model), images


def features_for(
    model: keras.Model,
    images: DecodedImages,
    split: pd.DataFrame,
    orientations: int,
    weights_hash: str,
    fit: str,
    batch_size: int,
) -> Features:
    """Frozen features of every picture in all orientations: train, val and test."""
    pictures = training_pictures(split, orientations)
    key = [model.name, weights_hash, images.pixels.shape[1], fit]
    return frozen_features(feature_extractor(model), images, pictures, key, batch_size)


def class_weights(labels: pd.Series, class_weight: str) -> pd.Series:
    """A weight a picture: `balanced` gives both classes the same sum, `none` gives ones."""
    if class_weight == "none":
        return pd.Series(1.0, index=labels.index)
    weights = compute_class_weight("balanced", classes=np.array(["B", "M"]), y=labels)
    return labels.map(dict(zip("BM", weights, strict=True))).astype(float)


def compile_model(model: keras.Model, optimizer) -> None:
    """Binary cross-entropy on the logit, accuracy at probability 0.5."""
    model.compile(
        optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        weighted_metrics=[],
    )


def early_stopping(patience: int | None) -> list:
    """Keras' early stopping on val loss, keeping the best epoch's weights; none if asked so."""
    if patience is None:
        return []
    return [keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)]


def history_table(history: keras.callbacks.History, model: str, stage: str) -> pd.DataFrame:
    """Rows of `history.csv`: model, stage, epoch (from 1), loss and accuracy, train and val."""
    table = pd.DataFrame(history.history)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    table.insert(0, "stage", stage)
    table.insert(0, "model", model)
    columns = ["model", "stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    return table[columns]


# ------------------------------------------------------------------------- head


class HeadTrainer:
    """Trains heads one after the other, each from the same start, in one compiled network.

    Compiling anew for each fold would cost more than the training.
    """

    def __init__(self, width: int, recipe: Recipe):
        self.recipe = recipe
        self.head = build_head(width, recipe.seed)
        compile_model(self.head, keras.optimizers.Adam(recipe.learning_rate))
        self.head.optimizer.build(self.head.trainable_variables)
        # Beside the weights: the state of dropout's random numbers and of the optimizer.
        self.variables = self.head.variables + self.head.optimizer.variables
        self.start = [variable.numpy() for variable in self.variables]

    def fit(self, features: Features, train: pd.DataFrame, watched: pd.DataFrame, name: str):
        """Train on pictures `train`, watch pictures `watched`; returns the history table."""
        recipe, values = self.recipe, features.of(train)
        for variable, value in zip(self.variables, self.start, strict=True):
            variable.assign(value)
        self.head.get_layer("standardize").set_weights([values.mean(axis=0), values.var(axis=0)])
        keras.utils.set_random_seed(recipe.seed)
        weights = class_weights(train["label"], recipe.class_weight)
        # Both losses weigh the classes alike, so that their curves can be compared.
        by_label = weights.groupby(train["label"]).first()
        history = self.head.fit(
            values,
            is_malignant(train),
            sample_weight=weights.to_numpy(np.float32),
            validation_data=(
                features.of(watched),
                is_malignant(watched),
                watched["label"].map(by_label).to_numpy(np.float32),
            ),
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            callbacks=early_stopping(recipe.patience),
            verbose=0,
        )
        return history_table(history, name, "head")

    def logits(self, features: Features, pictures: pd.DataFrame) -> np.ndarray:
        """Logits of pictures, shape (n,)."""
        return self.head.predict_on_batch(features.of(pictures)).ravel()

    def trained(self) -> LinearHead:
        """A copy of the head as it stands now."""
        mean, variance = self.head.get_layer("standardize").get_weights()
        kernel, bias = self.head.get_layer("logit").get_weights()
        return LinearHead(mean, variance, kernel.ravel(), float(bias[0]))


def is_malignant(pictures: pd.DataFrame) -> np.ndarray:
    """Labels as Keras wants them: 1 for M, shape (n, 1), float32."""
    return (pictures["label"] == "M").to_numpy(np.float32)[:, None]


def cross_validate_head(
    features: Features, split: pd.DataFrame, orientations: int, recipe: Recipe
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, LinearHead]]:
    """Train a head for each fold: (rows of predictions.csv, rows of history.csv, the heads).

    Fold k is predicted by a head that never saw it. With a `patience`, an inner group split of
    the other folds says when to stop; without, the head trains on all of them, and the
    validation curve of the history is fold k itself, watched but never acted upon. Each fold's
    head also predicts the test part. Predicted are all `orientations` of an image: those that
    are turned serve test-time augmentation and no other figure.
    """
    held, test = split[split["split"] != "test"], split[split["split"] == "test"]
    trainer = HeadTrainer(features.width, recipe)
    rows, histories, heads = [], [], {}
    folds = sorted(held["fold"].unique())
    for fold in progress(folds, f"{orientations} orientations", unit="fold"):
        others, watched = held[held["fold"] != fold], held[held["fold"] == fold]
        judged = training_pictures(watched, orientations)
        on_test = training_pictures(test, orientations)
        if recipe.patience is not None:
            stops = inner_group_split(others, recipe.seed)
            others, watched = others[~stops], others[stops]
        train = training_pictures(others, orientations)
        histories.append(trainer.fit(features, train, judged_pictures(watched), f"fold{fold}"))
        for pictures, name in ((judged, "oof"), (on_test, f"fold{fold}")):
            logits = trainer.logits(features, pictures)
            rows.append(prediction_rows(pictures, logits, name, recipe.seed))
        heads[f"fold{fold}"] = trainer.trained()
    return pd.concat(rows, ignore_index=True), pd.concat(histories, ignore_index=True), heads


def orientations_tried(
    features: Features,
    split: pd.DataFrame,
    orientations: int,
    recipe: Recipe,
    with_all: pd.DataFrame,
) -> pd.DataFrame:
    """Out-of-fold logits of the same folds, trained with 1, 4 and all orientations.

    `with_all` are the predictions that stand already; they are not computed again. All are
    judged on the images as taken. Under the original's protocol a picture is an image, and there
    is nothing to leave out.
    """
    tried = {orientations: with_all}
    if "orientation" not in split:
        for fewer in (1, 4):
            if fewer < orientations:
                tried[fewer] = cross_validate_head(features, split, fewer, recipe)[0]
    columns = ["orientations", "image_id", "orientation", "group", "label", "fold", "logit"]
    tables = [
        as_taken(rows[rows["model"] == "oof"], split).assign(orientations=number)[columns]
        for number, rows in sorted(tried.items())
    ]
    return pd.concat(tables, ignore_index=True)


def train_final_head(
    model: keras.Model, features: Features, split: pd.DataFrame, orientations: int, recipe: Recipe
) -> tuple[pd.DataFrame, pd.DataFrame, LinearHead]:
    """Train the head on train, watch val, put it on `model`: (predictions, history, the head).

    Val stops the training where the recipe has a `patience`.
    """
    train = training_pictures(split[split["split"] == "train"], orientations)
    watched = judged_pictures(split[split["split"] == "val"])
    judged = training_pictures(split[split["split"] != "train"], orientations)
    trainer = HeadTrainer(features.width, recipe)
    history = trainer.fit(features, train, watched, "final")
    put_head(model, trainer.head)
    rows = prediction_rows(judged, trainer.logits(features, judged), "final", recipe.seed)
    return rows, history, trainer.trained()


# ------------------------------------------------------------------ fine-tuning


def fine_tune(
    model: keras.Model,
    images: DecodedImages,
    split: pd.DataFrame,
    orientations: int,
    recipe: Recipe,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train every layer but the batch normalizations: (predictions on val and test, history).

    The optimizer is the original project's for this architecture.
    """
    train = training_pictures(split[split["split"] == "train"], orientations)
    if recipe.batch_size > len(train):
        raise InputError(
            f"Parameter `batch_size` is {recipe.batch_size}, more than the {len(train)} pictures "
            "to train on: lower it."
        )
    val = judged_pictures(split[split["split"] == "val"])
    judged = training_pictures(split[split["split"] != "train"], orientations)
    judged = judged.reset_index(drop=True)
    weights = class_weights(train["label"], recipe.class_weight)
    by_label = weights.groupby(train["label"]).first()
    compile_model(model, ARCHITECTURES[model.name].optimizer(recipe.learning_rate))
    history = model.fit(
        batches(images, train.assign(weight=weights), recipe.batch_size, recipe.seed),
        validation_data=batches(
            images, val.assign(weight=val["label"].map(by_label)), recipe.batch_size
        ),
        shuffle=False,  # `batches` does it; Keras would warn that it cannot
        epochs=recipe.epochs,
        callbacks=early_stopping(recipe.patience),
        verbose=1 if somebody_looks_on() else 2,
    )
    logits = predict_logits(model, images, judged, recipe.batch_size)
    rows = prediction_rows(judged, logits, "final", recipe.seed)
    return rows, history_table(history, "final", "fine_tune")


def predict_logits(
    model: keras.Model, images: DecodedImages, pictures: pd.DataFrame, batch_size: int
) -> np.ndarray:
    """Logits of pictures by the whole network, shape (n,), in the order of `pictures`."""
    feed = batches(images, pictures[["image_id", "orientation"]], batch_size)
    return np.concatenate([model.predict_on_batch(batch).ravel() for batch in feed])


# ------------------------------------------------------------------------ saving


def save_model(model: keras.Model, run: Path) -> list[Path]:
    """Write `<architecture>/model.keras`; DenseNet121 also `model.h5`, as the original had it."""
    names = ["model.keras"] + (["model.h5"] if model.name == "densenet121" else [])
    for name in names:
        with written_whole(run / model.name / name) as temporary:
            model.save(temporary)
    return [run / model.name / name for name in names]


def largest_difference(path: Path, model: keras.Model, pictures: np.ndarray) -> float:
    """Load a saved model and compare its logits with the live model's on uint8 pictures."""
    loaded = keras.saving.load_model(path, compile=False)
    return float(np.abs(loaded.predict_on_batch(pictures) - model.predict_on_batch(pictures)).max())


def images_per_second(model: keras.Model, images: DecodedImages, batch_size: int = 32) -> float:
    """Forward passes from memory, after one to warm up: the median of three."""
    count = min(batch_size, len(images.pixels))
    batch = np.array(images.pixels[:count])
    model.predict_on_batch(batch)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        model.predict_on_batch(batch)
        seconds.append(time.perf_counter() - started)
    return count / float(np.median(seconds))
