"""More patients: who is trained on, who is judged, and what the curve shows."""

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from sklearn.metrics import roc_auc_score

from cytology.audits import learning_curve as module
from cytology.audits.learning_curve import (
    curve_table,
    draw_groups,
    learning_curve,
    learning_curve_sentence,
)
from cytology.networks.features import Features
from cytology.networks.linear_head import fitted_head

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def made():
    """24 groups of 3 images in 4 folds, with features that know the class a little."""
    group = np.repeat(np.arange(24), 3)
    rows = pd.DataFrame(
        {"image_id": [f"i{k}" for k in range(72)], "group": [f"g{g}" for g in group]}
    )
    rows["label"] = np.where(group % 2, "M", "B")
    rows["fold"] = (group // 2) % 4
    rng = np.random.default_rng(0)
    values = rng.normal(size=(72, 20)) + 0.4 * (group % 2)[:, None]
    index = pd.MultiIndex.from_frame(rows.assign(orientation=0)[["image_id", "orientation"]])
    return rows, Features(values, index)


def test_training_shares_are_stratified_and_nested(made):
    rows, _ = made
    chosen = [draw_groups(rows, share, seed=3) for share in module.SHARES]
    for part, count in zip(chosen, (3, 6, 9, 12), strict=True):
        assert part.groupby("label")["group"].nunique().tolist() == [count, count]
        assert (part.groupby("group").size() == 3).all()
    for smaller, larger in zip(chosen, chosen[1:], strict=False):
        assert set(smaller["group"]) < set(larger["group"])
    assert set(draw_groups(rows, 0.25, 4)["group"]) != set(chosen[0]["group"])


def test_no_fold_is_trained_on_itself_and_the_last_step_uses_all_groups(made):
    rows, features = made
    logits = learning_curve(features, rows, repeats=2, seed=0)
    assert logits.groupby("share")["repeat"].nunique().tolist() == [2, 2, 2, 1]
    assert logits.groupby("share")["trained_on"].first().tolist() == [4, 8, 14, 18]
    whole = logits[logits["share"] == 1].set_index("image_id")["logit"]
    held_out = (rows["fold"] == 2).to_numpy()
    head = fitted_head(features.values[~held_out], (rows["label"] == "M").to_numpy()[~held_out])
    expected = head.logits(features.values[held_out])
    assert_close(whole.loc[rows["image_id"][held_out]], expected)


def test_the_table_is_the_mean_over_repeats_within_folds_with_an_interval_around_it(made):
    rows, features = made
    logits = learning_curve(features, rows.sample(frac=1, random_state=0), repeats=3, seed=0)
    table = curve_table(logits)
    for row in table.itertuples():
        aucs = []
        for _, each in logits[logits["share"] == row.share].groupby("repeat"):
            parts = [part for _, part in each.groupby("fold")]
            pairs = [(part["label"] == "M").sum() * (part["label"] == "B").sum() for part in parts]
            of_fold = [roc_auc_score(part["label"] == "M", part["logit"]) for part in parts]
            aucs.append(np.average(of_fold, weights=pairs))
        assert row.auc == pytest.approx(np.mean(aucs)) and row.repeats == len(aucs)
        assert row.auc_low < row.auc < row.auc_high


def test_the_gain_is_the_paired_difference_of_the_last_step(made):
    rows, features = made
    logits = learning_curve(features, rows, repeats=3, seed=0)
    table = curve_table(logits)
    less, whole = table.iloc[2], table.iloc[3]
    assert np.isnan(table["gain"][0]) and whole["share"] == 1
    assert whole["gain"] == pytest.approx(whole["auc"] - less["auc"])
    assert whole["gain_low"] < whole["gain"] < whole["gain_high"]
    width = (table["auc_high"] - table["auc_low"]).iloc[3]
    assert whole["gain_high"] - whole["gain_low"] < width  # paired
    shuffled = curve_table(logits.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(shuffled, table)


def test_a_curve_that_has_flattened_promises_no_gain():
    about = {"weights": "file", "trained_on": [10, 15, 20]}
    table = pd.DataFrame({"share": [0.5, 0.75, 1.0], "auc": [0.8, 0.9, 0.9], **about})
    table = table.assign(gain=[np.nan, 0.1, 0.0], gain_low=[np.nan, 0.05, -0.02])
    table["gain_high"] = [np.nan, 0.15, 0.02]
    words = learning_curve_sentence(table, "MobileNetV2", "patients")
    assert words.startswith(
        "MobileNetV2: training on 20 patients instead of 15 changes the AUC by +0.0 points"
    )
    assert words.endswith("Not shown to help.")
    rising = table.assign(gain=0.05, gain_low=0.01)
    assert "More would likely help." in learning_curve_sentence(rising, "MobileNetV2", "patients")
    assert "means nothing" in learning_curve_sentence(
        table.assign(weights="random"), "MobileNetV2", "patients"
    )
