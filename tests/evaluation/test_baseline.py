"""The shortcut baseline: a logistic regression on size and colour that sees no label of test."""

import pandas as pd
import pytest
from closeness import assert_close
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from cytology.data.splitting import split_pictures_at_random
from cytology.evaluation.baseline import number_to_beat, shortcut_baseline
from cytology.evaluation.comparison import comparison_all
from cytology.run import BASELINE

pytestmark = pytest.mark.numeric


def baseline_of(run, change=lambda split: split):
    split = run.table("split.csv")
    tables = run.table("manifest.csv"), run.table("tables/appearance.csv")
    return shortcut_baseline(*tables, change(split))


def flipped(rows):
    return lambda split: split.assign(
        label=split["label"].mask(rows(split), split["label"].map({"B": "M", "M": "B"}))
    )


def test_the_baseline_is_a_logistic_regression_on_the_other_folds(run):
    found = baseline_of(run)
    table = run.table("manifest.csv").merge(run.table("tables/appearance.csv"))
    table = table.merge(run.table("split.csv"))
    signs = table[["width", "height", "red", "green", "blue"]].assign(aspect=64 / 48).to_numpy()
    malignant = (table["label"] == "M").to_numpy()
    held = (table["split"] != "test").to_numpy()
    for name, train, judged in [
        ("oof", held & (table["fold"] != 1), held & (table["fold"] == 1)),
        ("final", (table["split"] == "train").to_numpy(), ~held),
    ]:
        scaler = StandardScaler().fit(signs[train])
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit(scaler.transform(signs[train]), malignant[train])
        logit = model.decision_function(scaler.transform(signs[judged]))
        rows = found[found["model"] == name].set_index("image_id")
        assert_close(rows.loc[table["image_id"][judged], "logit"], logit)


def test_every_image_of_train_and_val_is_predicted_once_and_test_by_the_final_model(run):
    found, split = baseline_of(run), run.table("split.csv")
    counts = found.groupby("model")["image_id"].agg(["size", "nunique"])
    test = (split["split"] == "test").sum()
    assert (counts.loc["oof"] == len(split) - test).all() and (counts.loc["final"] == test).all()


def test_the_baseline_never_sees_the_labels_of_the_predicted_fold_or_of_test(run):
    found = baseline_of(run).set_index(["model", "image_id"])["logit"]
    other = baseline_of(run, flipped(lambda split: split["fold"] == 1))
    judged = other[(other["model"] == "oof") & (other["fold"] == 1)]
    judged = judged.set_index(["model", "image_id"])["logit"]
    assert_close(judged, found[judged.index])
    other = baseline_of(run, flipped(lambda split: split["split"] == "test"))
    other = other.set_index(["model", "image_id"])["logit"]
    pd.testing.assert_series_equal(other, found)
    # The networks' kept model was chosen on val, but not trained on it.
    other = baseline_of(run, flipped(lambda split: split["split"] == "val"))
    other = other.set_index(["model", "image_id"])["logit"]
    assert_close(other["final"], found["final"])


def test_both_classes_have_equal_weight(run):
    """Colours that mean nothing: half of the images are called malignant, not all or none."""
    split = run.table("split.csv")
    few = sorted(split.loc[split["label"] == "M", "group"].unique())[:8]
    rows = baseline_of(run, lambda split: split[(split["label"] == "B") | split["group"].isin(few)])
    rows = rows[rows["model"] == "oof"]
    assert (rows["label"] == "M").mean() < 0.4 < rows["probability"].mean() < 0.6


def test_the_baseline_finds_a_stain_that_gives_the_class_away(run):
    appearance = run.table("tables/appearance.csv")
    malignant = run.table("manifest.csv")["label"] == "M"
    run.write("tables/appearance.csv", appearance.assign(red=100 + 100.0 * malignant))
    found = baseline_of(run)
    rows = found[found["model"] == "oof"]
    assert roc_auc_score(rows["label"] == "M", rows["probability"]) > 0.99


def test_the_baseline_uses_the_pictures_of_the_original_protocol(run):
    manifest = run.table("manifest.csv")
    split = split_pictures_at_random(manifest, 4, 3, 0.2, 0.2, seed=0)
    found = baseline_of(run, lambda _: split)
    assert set(found["orientation"]) == {0, 1, 2, 3} and len(found) == len(split)


def test_the_baseline_is_at_chance_if_the_colours_carry_no_signal(run):
    rows = baseline_of(run)
    rows = rows[rows["model"] == "oof"]
    assert 0.2 < roc_auc_score(rows["label"] == "M", rows["probability"]) < 0.8


def test_the_baseline_finds_its_images_by_key(run):
    found = baseline_of(run).set_index(["model", "image_id"])["logit"]
    for name in ("manifest.csv", "tables/appearance.csv"):
        run.write(name, run.table(name).sample(frac=1, random_state=0))
    other = baseline_of(run).set_index(["model", "image_id"])["logit"]
    pd.testing.assert_series_equal(other, found)


def test_notebooks_03_and_07_show_the_same_baseline_auc(run):
    rows = baseline_of(run)
    table = comparison_all(run, rows).set_index(["model", "level", "judged_on"])
    row = table.loc[(BASELINE, "image", "out-of-fold")]
    said = number_to_beat(rows[rows["model"] == "oof"], "patient")
    assert f"AUC of {row['auc']:.3f} (95 % {row['auc_low']:.3f} to {row['auc_high']:.3f})" in said
    assert f"{row['images']:.0f} images of {row['groups']:.0f} patients" in said
