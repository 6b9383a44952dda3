"""More patients: who is trained on, who is judged, and what the curve says."""

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from cytology import learning_curve as module
from cytology.features import Features
from cytology.learning_curve import curve_table, in_words, learning_curve, some_groups

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


def test_a_share_of_each_class_and_larger_shares_hold_the_smaller(made):
    rows, _ = made
    chosen = [some_groups(rows, share, seed=3) for share in module.SHARES]
    for part, count in zip(chosen, (3, 6, 9, 12), strict=True):
        assert part.groupby("label")["group"].nunique().tolist() == [count, count]
        assert (part.groupby("group").size() == 3).all()
    for smaller, larger in zip(chosen, chosen[1:], strict=False):
        assert set(smaller["group"]) < set(larger["group"])
    assert set(some_groups(rows, 0.25, 4)["group"]) != set(chosen[0]["group"])


def test_no_fold_is_trained_on_itself_and_all_groups_are_used_at_the_end(made):
    rows, features = made
    logits = learning_curve(features, rows, repeats=2, seed=0)
    assert logits.groupby("share")["repeat"].nunique().tolist() == [2, 2, 2, 1]
    assert logits.groupby("share")["trained_on"].first().tolist() == [4, 8, 14, 18]
    whole = logits[logits["share"] == 1].set_index("image_id")["logit"]
    held_out = (rows["fold"] == 2).to_numpy()
    scaler = StandardScaler().fit(features.values[~held_out])
    head = LogisticRegression(C=0.01, max_iter=5000)
    head.fit(scaler.transform(features.values[~held_out]), rows["label"][~held_out] == "M")
    expected = head.decision_function(scaler.transform(features.values[held_out]))
    assert_close(whole.loc[rows["image_id"][held_out]], expected)


def test_the_table_is_the_mean_over_repeats_with_an_interval_around_it(made):
    rows, features = made
    logits = learning_curve(features, rows.sample(frac=1, random_state=0), repeats=3, seed=0)
    table = curve_table(logits, draws=200)
    for row in table.itertuples():
        part = logits[logits["share"] == row.share]
        aucs = [
            roc_auc_score(each["label"] == "M", each["logit"]) for _, each in part.groupby("repeat")
        ]
        assert row.auc == pytest.approx(np.mean(aucs)) and row.repeats == len(aucs)
        assert row.auc_low < row.auc < row.auc_high
    half, whole = table.iloc[1], table.iloc[3]
    assert whole["gain"] == pytest.approx(whole["auc"] - half["auc"]) and half["gain_low"] == 0
    words = in_words(table.assign(weights="file"), "MobileNetV2", "patients")
    assert f"{100 * whole['gain']:+.1f} points of AUC" in words
    assert ("More would likely help" in words) == (whole["gain_low"] > 0)
    assert "says nothing" in in_words(table.assign(weights="random"), "MobileNetV2", "patients")
