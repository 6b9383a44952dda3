"""Recipes, and heads trained on frozen features: one for each fold, one for the final model."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cytology.data.splitting import inner_group_split, judged_pictures, training_pictures
from cytology.evaluation.predictions import as_taken, prediction_rows
from cytology.networks import linear_head
from cytology.networks.backend import GPUS, keras
from cytology.networks.building import put_head
from cytology.networks.features import Features
from cytology.networks.linear_head import LinearHead
from cytology.notebook import progress


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
