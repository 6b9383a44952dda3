"""The choice of a strength: who decides it, and what is said about the order of networks."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from threadpoolctl import threadpool_limits

from cytology.networks.features import Features
from cytology.networks.linear_head import EPSILON, STRENGTH, STRENGTHS
from cytology.run import Run
from cytology.training import strengths
from cytology.training.strengths import CHOSEN, by_strength, choose_strengths, order_sentence

pytestmark = pytest.mark.numeric


def study(seed=0, groups=20, images=5, width=40, folds=4):
    """A split into folds and test, and features of which five know the class."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"group": [f"g{g}" for g in range(groups) for _ in range(images)]})
    number = np.repeat(np.arange(groups), images)
    rows["image_id"] = [f"{group}/{i}" for i, group in enumerate(rows["group"])]
    rows["fold"] = number % (folds + 1)
    rows["label"] = [*np.array(list("BMB"))[number // (folds + 1) % 3]]
    rows["split"] = np.where(rows["fold"] == folds, "test", "train")
    own = rng.normal(size=(groups, width))[number]
    values = own + rng.normal(size=(len(rows), width))
    values[:, :5] += (rows["label"] == "M").to_numpy()[:, None]
    index = pd.MultiIndex.from_arrays([rows["image_id"], np.zeros(len(rows), int)])
    index.names = ["image_id", "orientation"]
    return Features(values, index), rows


def slow_logits(values, malignant, train, strength):
    """Scikit-learn's head, trained on the rows `train`: logits of all rows."""
    mean, deviation = values[train].mean(axis=0), np.sqrt(values[train].var(axis=0) + EPSILON)
    scaled = (values - mean) / deviation / np.sqrt(values.shape[1])
    penalty = 1 / (strength * train.sum())
    regression = LogisticRegression(C=penalty, class_weight="balanced", tol=1e-7, max_iter=9999)
    with threadpool_limits(1):  # threads make so small a fit many times slower
        return regression.fit(scaled[train], malignant[train]).decision_function(scaled)


def weighted_loss(malignant, logits):
    weights = np.where(malignant, 1 / malignant.mean(), 1 / (~malignant).mean())
    return log_loss(malignant, expit(logits), sample_weight=weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_strengths_match_nested_cross_validation(seed):
    features, split = study(seed, groups=16, folds=3)
    chosen = choose_strengths(features, split)
    held = (split["split"] != "test").to_numpy()
    values, malignant = features.values[held], (split["label"] == "M").to_numpy()[held]
    fold = split["fold"].to_numpy()[held]
    for outside in (*range(3), None):
        losses = {}
        for strength in STRENGTHS:
            logits = np.empty(len(fold))
            for inner in set(range(3)) - {outside}:
                train = (fold != inner) & (fold != outside)
                judged = fold == inner
                logits[judged] = slow_logits(values, malignant, train, strength)[judged]
            judges = fold != outside
            losses[strength] = weighted_loss(malignant[judges], logits[judges])
        name = "final" if outside is None else f"fold{outside}"
        assert chosen.of[name] == min(losses, key=losses.get)


def test_the_rows_have_out_of_fold_logits_at_every_strength():
    features, split = study()
    chosen = choose_strengths(features, split)
    held = split[split["split"] != "test"]
    values, malignant = features.of(held.assign(orientation=0)), (held["label"] == "M").to_numpy()
    assert len(chosen.rows) == len(held) * len(STRENGTHS)
    for (strength, k), part in chosen.rows.groupby(["strength", "fold"]):
        judged = (held["fold"] == k).to_numpy()
        expected = slow_logits(values, malignant, ~judged, strength)[judged]
        logits = part.set_index("image_id")["logit"].loc[held["image_id"][judged]]
        assert np.abs(logits - expected).max() < 0.01 * np.abs(expected).max()
        assert set(part["chosen"]) == {chosen.of[f"fold{k}"] == strength}


def test_the_strength_of_a_fold_depends_neither_on_the_fold_nor_on_test():
    """Neither its labels nor its features; those of another fold do."""
    features, split = study(groups=16, folds=3)
    whole = choose_strengths(features, split)
    for outside in (*range(3), "test"):
        hidden = (split["split"] == "test") if outside == "test" else split["fold"] == outside
        values = features.values.copy()
        values[hidden.to_numpy()] = 0
        flipped = split.assign(label=split["label"].mask(hidden, "B"))
        found = choose_strengths(Features(values, features.index), flipped)
        for name in whole.of if outside == "test" else [f"fold{outside}"]:
            assert found.of[name] == whole.of[name]
        if outside != "test":
            assert found.rows["logit"].sum() != pytest.approx(whole.rows["logit"].sum())


def test_with_two_folds_the_default_strength_is_used():
    chosen = choose_strengths(*study(folds=2, groups=9))
    assert chosen.of["fold0"] == chosen.of["fold1"] == STRENGTH and chosen.of["final"] in STRENGTHS


def test_noise_selects_the_strongest_penalty():
    features, split = study()
    noise = np.random.default_rng(1).normal(size=features.values.shape)
    assert set(choose_strengths(Features(noise, features.index), split).of.values()) == {1e-2}


def test_many_images_are_subsampled_in_each_fold(monkeypatch):
    monkeypatch.setattr(strengths, "MOST_STRENGTH_IMAGES", 40)
    features, split = study()
    rows = choose_strengths(features, split, seed=3).rows
    assert rows.groupby("fold")["image_id"].nunique().tolist() == [10, 10, 10, 10]
    assert rows.equals(choose_strengths(features, split, seed=3).rows)


# ----------------------------------------------------------------------- words


def strengths_table(aucs):
    """A table of `by_strength`: for each network its AUC at the strengths, then as chosen."""
    names = [f"{strength:g}" for strength in STRENGTHS] + [CHOSEN]
    return pd.DataFrame(
        [
            (architecture, name, auc, 0.5)
            for architecture, found in aucs.items()
            for name, auc in zip(names, found, strict=True)
        ],
        columns=["architecture", "strength", "auc", "loss"],
    )


def test_the_table_has_each_strength_and_the_chosen_ones():
    rows = choose_strengths(*study()).rows
    table = by_strength({"mobilenetv2": rows, "densenet121": rows})
    assert table["strength"].tolist() == 2 * [*[f"{s:g}" for s in STRENGTHS], CHOSEN]
    for _, row in table.iterrows():
        own = row["strength"] == CHOSEN
        part = rows[rows["chosen"] if own else rows["strength"] == float(row["strength"])]
        malignant = (part["label"] == "M").to_numpy()
        assert row["loss"] == pytest.approx(weighted_loss(malignant, part["logit"]))
        aucs, pairs = [], []
        for _, each in part.groupby("fold"):
            counts = each["label"].value_counts()
            aucs.append(roc_auc_score(each["label"] == "M", each["logit"]))
            pairs.append(counts["M"] * counts["B"])
        assert row["auc"] == pytest.approx(np.average(aucs, weights=pairs))


def test_the_rows_are_read_from_the_run(tmp_path):
    run, rows = Run(tmp_path), choose_strengths(*study()).rows
    run.write("mobilenetv2/strengths.csv", rows)
    for name in ("mobilenetv2", "densenet121"):
        run.write(f"{name}/predictions.csv", rows)
    found = run.of_models("strengths.csv")
    assert list(found) == ["mobilenetv2"]
    pd.testing.assert_frame_equal(found["mobilenetv2"], rows, check_dtype=False)


def test_an_order_that_is_the_same_at_all_strengths_is_reported_in_one_sentence():
    words = order_sentence(strengths_table({"mobilenetv2": [0.8] * 7, "densenet121": [0.9] * 7}))
    assert words == (
        "With strengths chosen in inner folds, the order by AUC is DenseNet121 > MobileNetV2; it "
        "is the same with every fixed strength of the grid."
    )


def test_a_different_order_is_reported_with_its_strengths():
    found = {"mobilenetv2": [0.8] * 7, "densenet121": [0.7, 0.9, 0.9, 0.8002, 0.9, 0.9, 0.9]}
    words = order_sentence(strengths_table(found))
    assert (
        "with one fixed strength for all, 0.001, it is different, DenseNet121 = MobileNetV2"
        in words
    )
    assert words.endswith("It depends on the recipe: it is different at 3e-05, 0.001.")
    found["densenet121"][3] = 0.9
    assert "0.001, it is the same. It depends" in order_sentence(strengths_table(found))


def test_a_single_network_has_no_order():
    assert order_sentence(strengths_table({"mobilenetv2": [0.8] * 7})) == ""
