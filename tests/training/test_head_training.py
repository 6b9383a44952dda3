"""Heads on frozen features: who sees what, never how well it does."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from scipy.special import expit
from sklearn.metrics import log_loss

from cytology.data.augmentation import pictures_of
from cytology.data.splitting import judged_pictures, split_by_group, split_pictures_at_random
from cytology.networks.features import Features
from cytology.training.head_training import (
    as_arrays,
    compare_orientations,
    cross_validate_head,
    epochs_in_words,
    train_head,
)
from cytology.training.recipes import HeadRecipe

pytestmark = pytest.mark.numeric
STRENGTHS = dict(zip(["fold0", "fold1", "fold2", "final"], [3e-3, 1e-3, 1e-2, 1e-3], strict=True))
RECIPE = HeadRecipe(200, "balanced", patience=None, seed=0, orientations=4, strengths=STRENGTHS)
STOPPING = replace(RECIPE, patience=1)


@pytest.fixture(scope="module")
def toy():
    """Features without a network: 40 groups, 3 images each, half of 6 features know the class.

    `done` maps a recipe to what `cross_validate_head` made of them.
    """
    rng = np.random.default_rng(0)
    rows = [
        (f"g{g:02}/{i}", f"g{g:02}", "M" if g % 4 == 0 else "B")
        for g in range(40)
        for i in range(3)
    ]
    manifest = pd.DataFrame(rows, columns=["image_id", "group", "label"])
    manifest["sha256"] = manifest["image_id"]
    split = split_by_group(manifest, 3, 0.2, 0.2, seed=0)
    pictures = pictures_of(manifest, 4)
    shift = np.where(pictures["label"] == "M", 1.5, 0)[:, None] * [1, 1, 1, 0, 0, 0]
    values = (rng.normal(size=(len(pictures), 6)) + shift).astype(np.float32)
    index = pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
    features = Features(values, index, 0, 0.0)
    done = {recipe: cross_validate_head(features, split, recipe) for recipe in (RECIPE, STOPPING)}
    return SimpleNamespace(split=split, features=features, done=done)


def keyed(rows, column="logit"):
    return rows.set_index(["model", "image_id", "orientation"])[column].sort_index()


def flip(split, rows):
    """The split with the labels of `rows` exchanged."""
    other = split["label"].map({"B": "M", "M": "B"})
    return split.assign(label=split["label"].mask(rows, other))


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_the_history_has_the_loss_of_each_epoch(toy, class_weight):
    """Its last row is the returned head; the loss does not include the penalty."""
    train, watched = (judged_pictures(toy.split[toy.split["split"] == s]) for s in ("train", "val"))
    recipe = replace(RECIPE, class_weight=class_weight)
    head, history = train_head(toy.features, train, watched, recipe, "final")
    share = (train["label"] == "M").mean() if class_weight == "balanced" else 0.5
    for pictures, prefix in ((train, ""), (watched, "val_")):
        logits = head.logits(toy.features.of(pictures))
        malignant = (pictures["label"] == "M").to_numpy()
        loss = log_loss(
            malignant, expit(logits), sample_weight=np.where(malignant, 1 / share, 1 / (1 - share))
        )
        assert history[f"{prefix}loss"].iloc[-1] == pytest.approx(loss, rel=1e-4)
        accuracy = ((logits >= 0) == malignant).mean()
        assert history[f"{prefix}accuracy"].iloc[-1] == pytest.approx(accuracy)
    assert history["loss"].iloc[0] > history["loss"].iloc[-1]
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))


def test_early_stopping_keeps_the_head_with_the_lowest_validation_loss(toy):
    train, watched = (judged_pictures(toy.split[toy.split["split"] == s]) for s in ("train", "val"))
    weak = {"x": 1e-6}
    stopping = replace(STOPPING, strengths=weak)
    head, history = train_head(toy.features, train, watched, stopping, "x")
    best = history["val_loss"].idxmin()
    assert best == len(history) - 2
    until = replace(RECIPE, epochs=best + 1, strengths=weak)
    same, _ = train_head(toy.features, train, watched, until, "x")
    assert_close(head.logits(toy.features.values), same.logits(toy.features.values))


def test_constant_features_give_a_head_without_skill(toy):
    pictures = judged_pictures(toy.split)
    flat = replace(toy.features, values=np.ones_like(toy.features.values))
    head, history = train_head(flat, pictures, pictures, RECIPE, "final")
    assert np.abs(head.logits(flat.values)).max() < 1e-6
    assert history["val_loss"].tolist() == pytest.approx([np.log(2)])


@pytest.mark.parametrize("epochs", [2, 200])
def test_duplicating_every_feature_changes_no_out_of_fold_logit(toy, epochs):
    """Not even where the epochs end before the head has converged."""
    recipe, twice = replace(RECIPE, epochs=epochs), np.hstack([toy.features.values] * 2)
    found = [
        cross_validate_head(features, toy.split, recipe).predictions["logit"]
        for features in (toy.features, replace(toy.features, values=twice))
    ]
    assert np.ptp(found[0]) > 2
    np.testing.assert_allclose(found[1], found[0], rtol=0.01, atol=1e-4)


def test_the_epochs_are_reported(toy):
    history = cross_validate_head(toy.features, toy.split, RECIPE).history
    assert epochs_in_words(history, RECIPE).endswith(" epochs, converged.")
    few = replace(RECIPE, epochs=2)
    history = cross_validate_head(toy.features, toy.split, few).history
    assert "after 2 epochs: `head_epochs` stopped some" in epochs_in_words(history, few)


def test_out_of_fold_rows_are_complete_and_predict_the_class(toy):
    rows, history = toy.done[RECIPE].predictions, toy.done[RECIPE].history
    held = toy.split[toy.split["split"] != "test"]
    oof = rows[rows["model"] == "oof"]
    assert sorted(oof["image_id"]) == sorted(4 * list(held["image_id"]))
    assert not rows.duplicated(["image_id", "model", "seed", "orientation"]).any()
    assert set(rows["model"]) == {"oof", "fold0", "fold1", "fold2"}
    assert (rows.loc[rows["model"] != "oof", "split"] == "test").all()
    assert oof["logit"].groupby(oof["label"]).median().diff()["M"] > 1
    assert history["model"].unique().tolist() == ["fold0", "fold1", "fold2"]


@pytest.mark.parametrize("recipe", [RECIPE, STOPPING], ids=["all epochs", "early stopping"])
def test_out_of_fold_predictions_never_use_the_labels_of_their_fold(toy, recipe):
    changed = flip(toy.split, toy.split["fold"] == 2)
    other = cross_validate_head(toy.features, changed, recipe).predictions
    judged = (other["model"] == "oof") & (other["fold"] == 2)
    same = keyed(other[judged | (other["model"] == "fold2")])
    before = keyed(toy.done[recipe].predictions)
    assert_close(same, before[same.index])
    rest = keyed(other[(other["model"] == "oof") & ~judged])
    assert np.abs(rest - before[rest.index]).max() > 0.01


def test_the_saved_heads_made_the_predictions(toy):
    rows, heads = toy.done[RECIPE].predictions, toy.done[RECIPE].heads
    assert sorted(heads) == [f"fold{k}" for k in range(len(heads))]
    out_of_fold = rows["model"] == "oof"
    head = rows["model"].where(~out_of_fold, "fold" + rows["fold"].astype(str))
    for name, part in rows.groupby(head):
        logits = heads[name].logits(toy.features.of(part))
        assert_close(logits, part["logit"])


def test_test_labels_change_nothing(toy):
    changed = flip(toy.split, toy.split["split"] == "test")
    other = cross_validate_head(toy.features, changed, STOPPING).predictions
    assert_close(keyed(other), keyed(toy.done[STOPPING].predictions))


def test_class_weights_affect_the_head(toy):
    """A quarter of the groups is malignant: balancing them moves logits up."""
    plain = cross_validate_head(toy.features, toy.split, replace(RECIPE, class_weight="none"))
    balanced = toy.done[RECIPE].predictions
    assert balanced["logit"].mean() > plain.predictions["logit"].mean() + 0.3


def test_fewer_orientations_are_compared_on_the_same_folds(toy):
    """One orientation is trained again; the rows with all of them are reused."""
    rows = toy.done[RECIPE].predictions
    oof = rows[(rows["model"] == "oof") & (rows["orientation"] == 0)]
    tried = compare_orientations(toy.features, toy.split, RECIPE, toy.done[RECIPE])
    one, four = (part.set_index("image_id") for _, part in tried.groupby("orientations"))
    assert keyed(four.reset_index().assign(model="oof")).equals(keyed(oof))
    assert one["fold"].to_dict() == four["fold"].to_dict()
    assert (one["logit"] - four["logit"]).abs().max() > 0.01


def test_the_original_protocol_trains_on_its_own_pictures(toy):
    images = toy.split[["image_id", "sha256", "group", "label"]]
    split = split_pictures_at_random(images, 4, 3, 0.2, 0.2, seed=0)
    recipe = HeadRecipe(2, "none", 1, 0, 4, STRENGTHS)
    rows = cross_validate_head(toy.features, split, recipe).predictions
    oof = rows[rows["model"] == "oof"]
    assert len(oof) == (split["split"] != "test").sum() and set(oof["orientation"]) == {0, 1, 2, 3}


def test_arrays_contain_the_images_of_the_folds(toy):
    shuffled = toy.split.sample(frac=1, random_state=0)
    values, malignant, folds = as_arrays(toy.features, shuffled)
    held = shuffled[shuffled["split"] != "test"].reset_index(drop=True)
    assert (malignant == (held["label"] == "M")).all() and (folds == held["fold"]).all()
    for row in (0, len(held) - 1):
        picture = held.iloc[[row]].assign(orientation=0)
        np.testing.assert_array_equal(values[[row]], toy.features.of(picture))
