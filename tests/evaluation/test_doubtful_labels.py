"""Doubtful labels: flipped images and flipped patients are found, and no decision is lost."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cytology.audits.simulation import Design, cross_validated_study
from cytology.evaluation import doubtful_labels as module
from cytology.evaluation.doubtful_labels import (
    FILE,
    auc_without,
    doubtful_groups,
    doubtful_labels,
    doubtful_labels_of_run,
    doubtful_sentences,
    margins_in_group,
)
from cytology.networks.linear_head import fitted_head
from cytology.settings import InputError

pytestmark = pytest.mark.numeric
OTHER = {"B": "M", "M": "B"}


def predictions(seed=0, patients=40, images=6, spread=1.0):
    """Held-out predictions, one an image, of a network that knows most patients."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), images)
    label = np.where(group % 2, "M", "B")
    of_patient = spread * rng.normal(size=patients)[group]
    logit = np.where(label == "M", 3.0, -3.0) + of_patient + spread * rng.normal(size=len(group))
    rows = pd.DataFrame({"image_id": [f"i{k:03}" for k in range(len(group))], "label": label})
    rows["group"] = [f"p{each:02}" for each in group]
    return rows.assign(logit=logit, probability=expit(logit))


def with_flipped(rows, chosen):
    return rows.assign(label=rows["label"].mask(chosen, rows["label"].map(OTHER)))


def test_flipped_labels_come_first_in_any_row_order():
    rows = predictions()
    chosen = rows["image_id"].isin(rows["image_id"].sample(10, random_state=1))
    rows = with_flipped(rows, chosen)
    found = doubtful_labels(rows)
    assert rows.loc[chosen, "image_id"].isin(found["image_id"].head(10)).mean() >= 0.9
    assert (found["decision"] == "").all() and not found["whole_group"].any()
    again = doubtful_labels(rows.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(found, again)


def test_flipped_patients_are_named_and_come_before_single_images():
    rows = predictions()
    chosen = rows["group"].isin(["p04", "p09"]) | (rows["image_id"] == "i100")
    found = doubtful_labels(with_flipped(rows, chosen))
    groups = doubtful_groups(found)
    assert set(groups["group"]) == {"p04", "p09"}
    assert (groups["group_images"] == 6).all() and (groups["group_contradicted"] >= 5).all()
    count = found["whole_group"].sum()
    assert found["whole_group"].head(count).all()
    assert "i100" in set(found["image_id"][count:])


def test_a_group_of_two_images_is_not_named():
    rows = predictions(images=2)
    assert doubtful_groups(doubtful_labels(with_flipped(rows, rows["group"] == "p04"))).empty


def test_a_contradiction_weighs_more_in_an_easy_group_than_in_a_hard_one():
    rows = pd.DataFrame({"group": list("aaabbbc"), "label": "M"})
    rows["logit"] = [-1.0, 3, 3, -1, -1, -1, 2]
    margins = margins_in_group(rows)
    above = rows["logit"] - rows["logit"].mean()
    assert margins[0] == pytest.approx(-1 - (above[1] + above[2]) / 3)
    assert margins[6] == 2 and margins[0] < rows["logit"][0] < margins[3]
    benign = rows.assign(label="B", logit=-rows["logit"])
    assert margins_in_group(benign).tolist() == pytest.approx(margins.tolist())


def test_correct_labels_are_rarely_doubted():
    share = [len(doubtful_labels(predictions(seed))) / 240 for seed in range(5)]
    assert np.mean(share) < 0.05


def test_leaving_out_doubtful_labels_raises_the_auc_even_if_all_labels_are_correct():
    rows = predictions(spread=2.5)
    found = doubtful_labels(rows)
    table = auc_without({"x": rows, "y": rows.sample(frac=1, random_state=0)}, found)
    assert (table["auc_without"] > table["auc"]).all() and table["left_out"].eq(len(found)).all()
    assert table["auc_without"].nunique() == 1


def test_several_rows_per_image_or_one_class_are_refused():
    rows = predictions()
    for wrong in (pd.concat([rows, rows]), rows[rows["label"] == "M"]):
        with pytest.raises(InputError, match="one held-out prediction per image"):
            doubtful_labels(wrong)


def test_the_mean_over_networks_and_orientations_is_used(full_run, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "doubtful_labels", lambda rows: asked.append(rows) or rows)
    doubtful_labels_of_run(full_run)
    rows = pd.concat(full_run.of_models("predictions.csv").values())
    mean = rows[rows["model"] == "oof"].groupby("image_id")["logit"].mean()
    found = asked[0].set_index("image_id")["logit"]
    assert found.to_dict() == pytest.approx(mean.to_dict())


def test_decisions_are_kept_when_the_run_is_repeated(run):
    for name in run.networks:
        rows = run.table(f"{name}/predictions.csv")
        wrong = (rows["model"] == "oof") & rows["image_id"].isin(["M/p029_4.png", "B/p028_0.png"])
        rows.loc[wrong, "logit"] = np.where(rows.loc[wrong, "label"] == "M", -9.0, 9.0)
        run.write(f"{name}/predictions.csv", rows)
    doubtful, aucs = doubtful_labels_of_run(run)
    assert set(aucs["model"]) == set(run.networks) and len(doubtful) > 1
    doubtful.loc[1, "decision"] = "wrong: malignant"
    run.write(FILE, doubtful)
    again, _ = doubtful_labels_of_run(run)
    pd.testing.assert_frame_equal(again, doubtful)


def test_sentences_name_patients_and_call_the_auc_a_bound():
    rows = predictions()
    found = doubtful_labels(with_flipped(rows, rows["group"] == "p04"))
    aucs = auc_without({"x": rows}, found)
    said = doubtful_sentences(found, aucs, {"x": "Network X"}, "patient")
    assert "1 patient is contradicted as a whole: p04 (6 of 6 labelled M)" in said[1]
    assert said[2].startswith("Network X: AUC ") and "an upper bound" in said[2]
    assert "No label is contradicted" in doubtful_sentences(found[:0], aucs, {}, "patient")[0]


@pytest.mark.parametrize("key", ["weights", "protocol"])
def test_no_label_is_doubted_with_random_weights_or_a_leaking_split(run, key):
    if key == "weights":
        name = "mobilenetv2/metrics.json"
        run.write(name, run.facts(name) | {"weights": "random"})
    else:
        run.write("split.json", run.facts("split.json") | {"protocol": "original"})
    doubtful, aucs = doubtful_labels_of_run(run)
    assert doubtful.empty and aucs.empty
    assert "No label is questioned" in doubtful_sentences(doubtful, aucs, {}, "patient")[0]


@pytest.mark.slow
def test_flipped_labels_are_found_even_if_the_heads_were_trained_on_them():
    """20 of 480 labels, heads of AUC 0.98: 14 of the first 20 are flips, on average."""
    found = []
    for seed in range(10):
        study = cross_validated_study(Design(patients=120, images=(4, 4), auc=0.999),
                                np.random.default_rng(seed))  # fmt: skip
        rows = study.tables[0].assign(image_id=lambda table: table["image_id"].map(str))
        chosen = rows["image_id"].isin(rows["image_id"].sample(20, random_state=seed))
        rows = with_flipped(rows, chosen)
        for fold in range(5):
            held_out, malignant = (
                (rows["fold"] == fold).to_numpy(),
                (rows["label"] == "M").to_numpy(),
            )
            head = fitted_head(study.values[~held_out], malignant[~held_out])
            rows.loc[held_out, "logit"] = head.logits(study.values[held_out])
        first = doubtful_labels(rows.assign(probability=expit(rows["logit"])))
        first = first[~first["whole_group"]].head(20)
        found.append(first["image_id"].isin(rows.loc[chosen, "image_id"]).mean())
    assert np.mean(found) >= 0.7
