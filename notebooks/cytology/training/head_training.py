"""Heads trained on frozen features: one for each fold, one for the final model."""

import time
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cytology.data.splitting import inner_group_split, judged_pictures, training_pictures
from cytology.evaluation.predictions import as_taken, prediction_rows
from cytology.evaluation.statistics.metrics import METRICS, classification_metrics
from cytology.networks import linear_head
from cytology.networks.features import Features
from cytology.networks.linear_head import LinearHead, is_malignant
from cytology.notebook import progress
from cytology.training.recipes import HeadRecipe, Stage, history_table


def as_arrays(features: Features, split: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What scikit-learn wants, of train and val as taken: features, which are malignant, folds.

    Of shapes (images, width), (images,) and (images,), with the images in the order of `split`.
    """
    rows = judged_pictures(split[split["split"] != "test"])
    return features.of(rows), linear_head.is_malignant(rows["label"]), rows["fold"].to_numpy(int)


def cross_validate_head(
    features: Features, split: pd.DataFrame, recipe: HeadRecipe, watch: bool = True
) -> Stage:
    """Each fold is predicted by a head that never saw it, test by all heads."""
    held, test = split[split["split"] != "test"], split[split["split"] == "test"]
    rows, curves, heads = [], [], {}
    folds = sorted(held["fold"].unique())
    for fold in progress(folds, f"{recipe.orientations} orientations", unit="fold"):
        name = f"fold{fold}"
        others, unseen = held[held["fold"] != fold], held[held["fold"] == fold]
        heads[name], curve = head_of_fold(features, others, unseen, recipe, name, watch)
        rows.append(predict_with_head(heads[name], features, unseen, "oof", recipe))  # out of fold
        rows.append(predict_with_head(heads[name], features, test, name, recipe))
        curves.append(curve)
    predictions, history = (pd.concat(tables, ignore_index=True) for tables in (rows, curves))
    return Stage(predictions, history, heads, recipe.strengths)


def head_of_fold(
    features: Features,
    others: pd.DataFrame,
    unseen: pd.DataFrame,
    recipe: HeadRecipe,
    name: str,
    watch: bool,
) -> tuple[LinearHead, pd.DataFrame]:
    """Train on the `others`: (head, its rows of history.csv).

    With a `patience`, an inner group split of the others decides when to stop. Without, the head
    trains on all of them, and the validation curve is that of the `unseen` fold, which decides
    nothing. `watch` False saves the time for this curve.
    """
    if recipe.patience is not None:
        stops = inner_group_split(others, recipe.seed)
        others, unseen = others[~stops], others[stops]
    watched = judged_pictures(unseen) if watch or recipe.patience is not None else None
    train = training_pictures(others, recipe.orientations)
    return train_head(features, train, watched, recipe, name)


def predict_with_head(
    head: LinearHead, features: Features, rows: pd.DataFrame, model: str, recipe: HeadRecipe
) -> pd.DataFrame:
    """Rows of predictions.csv for all orientations of images.

    Those of turned pictures are only used for test-time augmentation.
    """
    pictures = training_pictures(rows, recipe.orientations)
    return prediction_rows(pictures, head.logits(features.of(pictures)), model, recipe.seed)


def train_final_head(features: Features, split: pd.DataFrame, recipe: HeadRecipe) -> Stage:
    """Train the head on train and validate on val; its strength is the one named `final`.

    Val stops the training if the recipe has a `patience`.
    """
    started = time.perf_counter()
    train = training_pictures(split[split["split"] == "train"], recipe.orientations)
    watched = judged_pictures(split[split["split"] == "val"])
    head, history = train_head(features, train, watched, recipe, "final")
    rows = predict_with_head(head, features, split[split["split"] != "train"], "final", recipe)
    seconds = time.perf_counter() - started
    return Stage(rows, history, {"final": head}, recipe.strengths, seconds)


def train_head(
    features: Features,
    train: pd.DataFrame,
    watched: pd.DataFrame | None,
    recipe: HeadRecipe,
    name: str,
) -> tuple[LinearHead, pd.DataFrame]:
    """Train on pictures `train`, validate on `watched` if any: (head, its rows of history.csv).

    The strength is the recipe's for `name`. With a `patience`, the head with the lowest validation
    loss is kept.
    """
    values, malignant = features.of(train), is_malignant(train["label"])
    curve = Curve(linear_head.class_weights(malignant, recipe.class_weight), recipe.patience)
    curve.sets[""] = values, malignant
    if watched is not None:
        curve.sets["val_"] = features.of(watched), is_malignant(watched["label"])
    head = linear_head.fitted_head(
        values, malignant, recipe.strengths[name], recipe.class_weight, recipe.epochs, curve.add
    )
    if not curve.epochs:  # no feature varies
        curve.add(head)
    if recipe.patience is not None:
        head = linear_head.round_head(curve.heads[curve.best()], values.dtype)
    return head, history_table(curve.epochs, name, "head")


@dataclass
class Curve:
    """Loss and accuracy of each epoch of a head on the `sets`, features and truth by prefix.

    All losses weight the classes as in training, so their curves can be compared; none includes the
    penalty.
    """

    of_class: np.ndarray
    patience: int | None
    sets: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    heads: list[LinearHead] = field(default_factory=list)

    def add(self, head: LinearHead) -> None:
        """Record an epoch; `StopIteration` ends the training when patience has run out."""
        found: dict[str, float] = {}
        for prefix, (values, truth) in self.sets.items():
            loss, accuracy = linear_head.scores(head.logits(values), truth, self.of_class)
            found |= {f"{prefix}loss": loss, f"{prefix}accuracy": accuracy}
        self.epochs.append(found)
        self.heads.append(head)
        if self.patience is not None and len(self.epochs) > self.best() + self.patience:
            raise StopIteration

    def best(self) -> int:
        """The epoch with the lowest validation loss, from 0."""
        return int(np.argmin([found["val_loss"] for found in self.epochs]))


# ------------------------------------------------------------------- results


def epochs_in_words(history: pd.DataFrame, recipe: HeadRecipe) -> str:
    """After how many epochs the heads of `history` ended, and whether the limit ended them."""
    epochs = history.groupby("model")["epoch"].max()
    few, many = epochs.min(), epochs.max()
    words = f"The heads ended after {few if few == many else f'{few} to {many}'} epochs"
    if (epochs >= recipe.epochs).any():
        return f"{words}: `head_epochs` stopped some of them before they converged."
    return f"{words}, {'converged' if recipe.patience is None else 'converged or stopped early'}."


def out_of_fold_metrics(folds: Stage, split: pd.DataFrame) -> pd.DataFrame:
    """Every metric of the out-of-fold predictions of images as taken, in one row."""
    rows = folds.predictions[folds.predictions["model"] == "oof"]
    return pd.DataFrame([classification_metrics(as_taken(rows, split))])[list(METRICS)]


def compare_orientations(
    features: Features, split: pd.DataFrame, recipe: HeadRecipe, folds: Stage
) -> pd.DataFrame:
    """Out-of-fold logits of the same folds, trained with 1, 4 and all orientations.

    All have the same strengths and are trained until they converge, so none is trained longer than
    another. `folds` were already trained with all orientations. All are judged on the images as
    taken. Under the original's protocol a picture counts as an image: nothing can be left out.
    """
    tried = {recipe.orientations: folds.predictions}
    for fewer in (1, 4):
        if fewer < recipe.orientations and "orientation" not in split:
            less = replace(recipe, orientations=fewer)
            tried[fewer] = cross_validate_head(features, split, less, watch=False).predictions
    columns = ["orientations", "image_id", "orientation", "group", "label", "fold", "logit"]
    tables = [
        as_taken(rows[rows["model"] == "oof"], split).assign(orientations=number)[columns]
        for number, rows in sorted(tried.items())
    ]
    return pd.concat(tables, ignore_index=True)
