"""Metrics by hand, intervals by group, the baseline, and what a comparison may say."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from cytology import evaluation
from cytology.evaluation import (
    auc_from_ranks,
    classification_metrics,
    comparison,
    comparison_all,
    group_bootstrap,
    headline,
    metrics_with_intervals,
    shortcut_baseline,
    summary,
)
from cytology.predictions import read_predictions
from cytology.settings import InputError
from cytology.splitting import split_pictures_at_random
from cytology.tables import read_json, read_table, write_json, write_table


def rows_of(labels, probabilities, groups=None):
    groups = range(len(labels)) if groups is None else groups
    return pd.DataFrame({"label": list(labels), "probability": probabilities, "group": groups})


@pytest.fixture
def many():
    """300 one-image groups, predicted with some skill."""
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.5
    logit = np.where(truth, 0.8, -0.8) + rng.normal(size=300)
    return rows_of(np.where(truth, "M", "B"), 1 / (1 + np.exp(-logit)))


# ----------------------------------------------------------------------- metrics


def test_metrics_of_an_example_worked_by_hand():
    """TN 1, FP 1, FN 1, TP 2; of the 6 pairs of an M and a B, 5 are in order."""
    found = classification_metrics(rows_of("BBMMM", [0.1, 0.6, 0.4, 0.8, 0.5]))
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "specificity": 1 / 2,
        "f1": 2 / 3,
        "loss": -sum(map(math.log, [0.9, 0.4, 0.4, 0.8, 0.5])) / 5,
        "auc": 4 / 6,
    }
    assert found == pytest.approx(expected)


def test_nothing_called_malignant_is_a_precision_of_zero():
    found = classification_metrics(rows_of("BM", [0.1, 0.2]))
    assert found["precision"] == found["recall"] == found["f1"] == 0 and found["auc"] == 1


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_one_class_has_no_auc():
    rows = rows_of("MM", [0.1, 0.9])
    assert math.isnan(classification_metrics(rows)["auc"])
    assert all(map(math.isnan, group_bootstrap(rows, draws=20)["auc"]))


def test_the_fast_auc_is_scikit_learns_also_with_ties():
    rng = np.random.default_rng(0)
    truth, score = rng.random(200) < 0.3, rng.integers(0, 6, 200) / 5
    assert auc_from_ranks(truth, score) == pytest.approx(roc_auc_score(truth, score))


# --------------------------------------------------------------------- intervals


def test_with_one_image_groups_the_interval_is_the_ordinary_one(many):
    low, high = group_bootstrap(many, draws=2000)["accuracy"]
    accuracy = classification_metrics(many)["accuracy"]
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / len(many))
    assert low == pytest.approx(accuracy - half, abs=0.012)
    assert high == pytest.approx(accuracy + half, abs=0.012)
    low, high = group_bootstrap(many, draws=2000)["auc"]
    rng, truth = np.random.default_rng(5), (many["label"] == "M").to_numpy()
    draws = rng.integers(len(many), size=(500, len(many)))
    score = many["probability"].to_numpy()
    ordinary = np.quantile([roc_auc_score(truth[d], score[d]) for d in draws], [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(ordinary), abs=0.015)


def test_copies_within_a_group_do_not_make_the_interval_narrower(many):
    copies = pd.concat([many] * 6)
    naive = copies.assign(group=range(len(copies)))

    def width(rows, name):
        low, high = group_bootstrap(rows, draws=400)[name]
        return high - low

    for name in ("accuracy", "auc"):
        assert width(copies, name) == pytest.approx(width(many, name), rel=0.15)
        assert width(copies, name) > 2 * width(naive, name)


def test_the_bootstrap_is_seeded_and_does_not_see_the_row_order(many):
    first = group_bootstrap(many, draws=50)
    np.random.seed(9)
    assert group_bootstrap(many, draws=50) == first
    shuffled = group_bootstrap(many.sample(frac=1, random_state=0), draws=50)
    assert shuffled["auc"] == pytest.approx(first["auc"])
    assert group_bootstrap(many, draws=50, seed=1) != first


def test_intervals_enclose_the_metrics_and_images_and_groups_are_counted(many):
    found = metrics_with_intervals(many.assign(group=many.index // 3))
    assert (found["images"], found["groups"]) == (300, 100)
    for name in ("accuracy", "auc"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


# ---------------------------------------------------------------------- baseline


def baseline_of(run, change=lambda split: split):
    split = read_table(run, "split.csv")
    tables = read_table(run, "manifest.csv"), read_table(run, "tables/appearance.csv")
    return shortcut_baseline(*tables, change(split))


def flipped(rows):
    return lambda split: split.assign(
        label=split["label"].mask(rows(split), split["label"].map({"B": "M", "M": "B"}))
    )


def test_the_baseline_is_a_logistic_regression_on_the_other_folds(run):
    found = baseline_of(run)
    table = read_table(run, "manifest.csv").merge(read_table(run, "tables/appearance.csv"))
    table = table.merge(read_table(run, "split.csv"))
    signs = table[["width", "height", "red", "green", "blue"]].assign(aspect=64 / 48).to_numpy()
    malignant = (table["label"] == "M").to_numpy()
    held = (table["split"] != "test").to_numpy()
    for name, train, judged in [
        ("oof", held & (table["fold"] != 1), held & (table["fold"] == 1)),
        ("final", held, ~held),
    ]:
        scaler = StandardScaler().fit(signs[train])
        model = LogisticRegression(max_iter=1000)
        model.fit(scaler.transform(signs[train]), malignant[train])
        logit = model.decision_function(scaler.transform(signs[judged]))
        rows = found[found["model"] == name].set_index("image_id")
        assert rows.loc[table["image_id"][judged], "logit"].to_numpy() == pytest.approx(logit)


def test_every_image_of_train_and_val_is_judged_once_and_test_by_the_final_model(run):
    found, split = baseline_of(run), read_table(run, "split.csv")
    counts = found.groupby("model")["image_id"].agg(["size", "nunique"])
    test = (split["split"] == "test").sum()
    assert (counts.loc["oof"] == len(split) - test).all() and (counts.loc["final"] == test).all()


def test_the_baseline_never_sees_the_labels_of_the_judged_fold_or_of_test(run):
    found = baseline_of(run).set_index(["model", "image_id"])["logit"]
    other = baseline_of(run, flipped(lambda split: split["fold"] == 1))
    judged = other[(other["model"] == "oof") & (other["fold"] == 1)]
    judged = judged.set_index(["model", "image_id"])["logit"]
    assert judged.to_numpy() == pytest.approx(found[judged.index].to_numpy())
    other = baseline_of(run, flipped(lambda split: split["split"] == "test"))
    other = other.set_index(["model", "image_id"])["logit"]
    pd.testing.assert_series_equal(other, found)


def test_the_baseline_finds_a_stain_that_gives_the_class_away(run):
    appearance = read_table(run, "tables/appearance.csv")
    malignant = read_table(run, "manifest.csv")["label"] == "M"
    write_table(run, "tables/appearance.csv", appearance.assign(red=100 + 100.0 * malignant))
    found = baseline_of(run)
    assert classification_metrics(found[found["model"] == "oof"])["auc"] > 0.99


def test_the_baseline_keeps_the_pictures_of_the_originals_protocol(run):
    manifest = read_table(run, "manifest.csv")
    split = split_pictures_at_random(manifest, 4, 3, 0.2, 0.2, seed=0)
    found = baseline_of(run, lambda _: split)
    assert set(found["orientation"]) == {0, 1, 2, 3} and len(found) == len(split)


# -------------------------------------------------------------------- comparison


@pytest.mark.parametrize(
    ("groups", "fine_tuned", "cross_validated", "expected"),
    [
        (99, False, True, "out-of-fold"),
        (100, False, True, "test"),
        (99, True, True, "test"),
        (99, False, False, "test"),
    ],
)
def test_what_carries_the_headline(groups, fine_tuned, cross_validated, expected):
    table = rows_of("BM" * 50, 0.5)[:groups]
    test = table.index < 15
    oof = table[~test].assign(model="oof", split="train")
    val = table[~test][:10].assign(model="final", split="val")
    final = table[test].assign(model="final", split="test")
    predictions = pd.concat([oof, val, final] if cross_validated else [val, final])
    on, rows = headline(predictions, fine_tuned)
    assert on == expected
    pd.testing.assert_frame_equal(rows, oof if expected == "out-of-fold" else final)


def test_the_comparison_has_a_row_an_architecture(run):
    table = comparison(run).set_index("architecture")
    assert list(table.index) == ["mobilenetv2", "inceptionv3", "densenet121"]
    assert (table["judged_on"] == "out-of-fold").all()
    for name, row in table.iterrows():
        predictions = read_predictions(run, name)
        expected = classification_metrics(predictions[predictions["model"] == "oof"])
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert {"weights", "accuracy", "precision", "recall", "f1", "loss", "auc"} <= set(table)


def test_a_fine_tuned_architecture_is_judged_on_test(run):
    about = read_json(run, "densenet121/metrics.json")
    write_json(run, "densenet121/metrics.json", about | {"fine_tuned": True})
    table = comparison(run).set_index("architecture")
    assert table["judged_on"].to_dict() == {
        "mobilenetv2": "out-of-fold", "inceptionv3": "out-of-fold", "densenet121": "test",
    }  # fmt: skip
    test = (read_table(run, "split.csv")["split"] == "test").sum()
    assert table.loc["densenet121", "images"] == test


def test_a_run_without_predictions_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="run notebook 04, 05 or 06 first"):
        comparison(tmp_path)


def test_the_long_comparison_adds_ensemble_baseline_and_the_patient_level(run):
    table = comparison_all(run, baseline_of(run)).set_index(["model", "level", "judged_on"])
    assert len(table) == 5 * 2 * 2 and table.index.is_unique
    tables = [read_predictions(run, name) for name in ("mobilenetv2", "inceptionv3", "densenet121")]
    logits = [t[t["model"] == "oof"].set_index("image_id")["logit"] for t in tables]
    mean = sum(logits) / 3
    labels = tables[0][tables[0]["model"] == "oof"].set_index("image_id")["label"]
    ensemble = table.loc[("ensemble (mean logit)", "image", "out-of-fold")]
    assert ensemble["auc"] == pytest.approx(roc_auc_score(labels.loc[mean.index] == "M", mean))
    patients = table.xs("group", level="level")
    assert (patients["images"] == patients["groups"]).all()


def test_the_baseline_of_the_comparison_is_judged_on_the_same_part(run):
    baseline, table = baseline_of(run), comparison(run)
    for on, model in (("out-of-fold", "oof"), ("test", "final")):
        expected = classification_metrics(baseline[baseline["model"] == model])["auc"]
        assert evaluation.baseline_auc(baseline, table.assign(judged_on=on)) == expected


def test_orientations_are_compared_for_each_architecture(many):
    logit = np.log(many["probability"] / (1 - many["probability"]))
    table = pd.concat([many.assign(logit=logit * s, orientations=o) for o, s in ((1, -1), (8, 1))])
    gain = evaluation.orientation_gain({"mobilenetv2": table}).set_index("orientations")
    assert gain["auc"][8] == pytest.approx(1 - gain["auc"][1])
    assert (gain["auc_low"] < gain["auc"]).all() and (gain["auc"] < gain["auc_high"]).all()


def test_the_worst_mistakes_are_wrong_and_the_surest_first():
    rows = pd.DataFrame({"image_id": list("abcd"), "label": list("BBMM"), "group": 0})
    rows = rows.assign(orientation=0, logit=[1.0, 3.0, 2.0, -2.0])
    assert evaluation.worst_mistakes({"x": rows}, 2)["image_id"].tolist() == ["b", "d"]


# ----------------------------------------------------------------------- summary


def compared(*rows, weights="imagenet", protocol="grouped"):
    table = pd.DataFrame(rows, columns=["architecture", "auc", "auc_low", "auc_high"])
    table = table.assign(weights=weights, protocol=protocol, judged_on="out-of-fold")
    return table.assign(groups=24, images=320)


BEST = ("densenet121", 0.95, 0.92, 0.97)


def test_no_winner_is_named_with_random_weights():
    (sentence,) = summary(compared(BEST, weights=["random"]), 0.5, "patient")
    assert "ranks nothing" in sentence and "No winner is named" in sentence
    assert "densenet121" not in sentence.lower()


def test_no_winner_is_named_where_the_split_leaks():
    (sentence,) = summary(compared(BEST, protocol="original"), 0.5, "patient")
    assert "leaks" in sentence and "densenet121" not in sentence.lower()


def test_one_network_alone_is_not_called_the_highest():
    assert summary(compared(BEST), 0.5, "patient")[0].startswith("DenseNet121 reaches AUC 0.950")


@pytest.mark.parametrize(
    ("other", "said", "not_said"),
    [
        (("mobilenetv2", 0.90, 0.85, 0.93), "does not separate the two", "lies below"),
        (("mobilenetv2", 0.80, 0.75, 0.91), "lies below the best", "does not separate"),
    ],
    ids=["overlap", "apart"],
)
def test_separation_is_claimed_only_where_the_intervals_do_not_overlap(other, said, not_said):
    first, second, last = summary(compared(other, BEST), 0.5, "slide")
    assert first.startswith("DenseNet121 has the highest AUC, 0.950 (95 % interval by slide")
    assert "320 images, 24 slides" in first
    assert said in second and not_said not in second
    assert last == "Size and mean colour alone reach AUC 0.500. All are clearly above."


def test_a_network_that_does_not_beat_the_baseline_is_named():
    sentences = summary(compared(BEST, ("mobilenetv2", 0.8, 0.7, 0.9)), 0.75, "patient")
    assert sentences[-1].endswith("Not clearly above that: MobileNetV2.")
