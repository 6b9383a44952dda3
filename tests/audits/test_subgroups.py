"""Subgroups: which exist, what is said about each, and that noise is not named."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from cytology.audits.simulation import Design
from cytology.audits.subgroups import (
    ALPHA,
    SIDES,
    differ_p,
    homogeneity_table,
    in_thirds,
    subgroup_sentences,
    subgroup_table,
    subgroups_of_images,
    subgroups_of_run,
)
from cytology.evaluation.statistics.intervals import metrics_with_intervals

pytestmark = pytest.mark.numeric

KINDS = np.array(["Pap", "Giemsa", "H&E"])


def study(seed, weak=0.95, auc=0.95, patients=60, images=(6, 6)):
    """Predictions of `auc` whose patients have three stains in turn; of one stain `weak`."""
    design = Design(patients=patients, images=images, auc=auc)
    rng = np.random.default_rng(seed)
    rows = design.draw_patients(rng)
    stain = KINDS[rng.permutation(patients) % 3][rows["group"]]
    distance = np.where(stain == "H&E", np.sqrt(2) * norm.ppf(weak), design.distance)
    side = np.where(rows["label"] == "M", 0.5, -0.5)
    logit = 2 * (side * distance + design.draw_noise(rng, rows["group"].to_numpy()))
    rows = rows.assign(logit=logit, probability=expit(logit))
    return rows, rows[["image_id"]].assign(stain=stain), rng, design


def noise_columns(rows, rng, design, count):
    """Meaningless columns: by patient with unequal shares, and thirds alike in a patient."""
    found = {}
    for number in range(count):
        if number % 2:
            shares = rng.dirichlet(np.ones(2 + number % 4) * 2)
            names = rng.choice([f"v{k}" for k in range(len(shares))], design.patients, p=shares)
            found[f"noise {number}"] = names[rows["group"]]
        else:
            values = pd.Series(design.draw_noise(rng, rows["group"].to_numpy()))
            found[f"noise {number}"] = in_thirds(values).to_numpy()
    return pd.DataFrame(found)


@pytest.mark.slow
@pytest.mark.parametrize("images", [(6, 6), (1, 30)])
def test_at_most_one_of_twenty_noise_columns_is_named(images):
    named = []
    for seed in range(20):
        rows, subgroups, rng, design = study(seed, patients=40, images=images)
        noise = noise_columns(rows, rng, design, 20)
        found = homogeneity_table(rows, subgroups[["image_id"]].join(noise))
        named.append(found.loc[found["p_holm"] < ALPHA, "column"].nunique())
    assert (np.array(named) <= 1).sum() >= 19


@pytest.mark.slow
def test_a_weak_subgroup_is_detected_among_others():
    """AUC 0.65 instead of 0.95 in 30 of 90 patients with 6 images each, beside 5 columns."""
    seen = 0
    for seed in range(20):
        rows, subgroups, rng, design = study(seed, weak=0.65, patients=90)
        subgroups = subgroups.join(noise_columns(rows, rng, design, 5))
        found = homogeneity_table(rows, subgroups)
        named = found[(found["p_holm"] < ALPHA) & (found["column"] == "stain")]
        named = named[named["asks"] == "order"]
        seen += "H&E" in set(named["worst"])
    assert seen >= 19


def p_of(values, subgroup, group, asks="order", label=None):
    label = np.where(np.arange(len(values)) % 2, "M", "B") if label is None else label
    images = pd.DataFrame({"label": label, "subgroup": subgroup, "group": group, "share": values})
    return differ_p(images, pd.Index(np.unique(subgroup)), SIDES[asks])


def test_a_p_value_counts_patients_and_not_images():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 50)
    values = rng.normal(size=20)[group] + 0.1 * rng.normal(size=1000)
    p = [p_of(values, (rng.permutation(20) % 2)[group], group) for _ in range(40)]
    assert np.mean(np.array(p) < 0.05) < 0.2  # nearly all P values would be, by image
    assert p_of(values + 3 * (group % 2), group % 2, group) < 0.01
    assert p_of(np.ones(1000), group % 2, group) == 1


def test_images_of_one_patient_may_be_in_several_subgroups():
    rng = np.random.default_rng(0)
    group, subgroup = np.repeat(np.arange(30), 6), np.tile([0, 0, 0, 1, 1, 2], 30)
    drawn = [2 * rng.normal(size=30)[group] + rng.normal(size=180) for _ in range(40)]
    assert np.mean([p_of(each, subgroup, group) < 0.05 for each in drawn]) < 0.15
    assert p_of(drawn[0] + 2.0 * (subgroup == 1), subgroup, group) < 0.01


def test_worse_discrimination_and_shifted_scores_are_tested_separately():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 4)
    noise = 0.3 * rng.normal(size=40)[group] + 0.3 * rng.normal(size=160)
    label, subgroup = np.where(group % 2, "M", "B"), group // 2 % 2
    worse, shifted = noise - 0.8 * subgroup, noise + np.where(label == "M", 0.8, -0.8) * subgroup
    for values, found, not_found in ((worse, *SIDES), (shifted, *reversed(SIDES))):
        assert p_of(values, subgroup, group, found, label) < 0.01
        assert p_of(values, subgroup, group, not_found, label) > 0.05


def test_subtypes_of_one_class_are_compared_within_it():
    rows, subgroups, _, _ = study(0, patients=60)
    malignant = (rows["label"] == "M").to_numpy()
    subtype = np.where(malignant, np.where(rows["group"] % 2, "ductal", "lobular"), "benign")
    rows.loc[subtype == "lobular", "logit"] -= 4
    found = homogeneity_table(rows, subgroups[["image_id"]].assign(subtype=subtype))
    assert found["asks"].tolist() == ["order"]
    assert found["worst"][0] == "lobular" and found["best"][0] == "ductal"
    assert found["p"][0] < 0.01


def test_each_row_of_the_table_matches_its_images():
    rows, subgroups, _, _ = study(0, patients=24)
    shuffled = subgroups.sample(frac=1, random_state=0)
    table = subgroup_table(rows, shuffled, "patient", threshold=0.4).set_index("subgroup")
    assert list(table.index) == ["all images", "Giemsa", "H&E", "Pap"]
    for name, part in [("all images", rows), ("Pap", rows[subgroups["stain"] == "Pap"])]:
        expected = metrics_with_intervals(part, 0.4, ("auc", "recall", "specificity"))
        assert table.loc[name, list(expected)].to_dict() == pytest.approx(expected)


def test_too_few_patients_of_a_class_are_named():
    rows, subgroups, _, _ = study(0, patients=24)
    rare = (rows["label"] == "B") & (rows["group"] >= 21) | (rows["group"] < 6)
    subgroups = subgroups[["image_id"]].assign(stain=np.where(rare, "rare", "usual"))
    table = subgroup_table(rows, subgroups, "patient").set_index("subgroup")
    assert table["too_few"].to_dict() == {
        "all images": "", "rare": "3 benign patients", "usual": ""
    }  # fmt: skip
    found = homogeneity_table(rows, subgroups)
    assert found["asks"].tolist() == ["order"]  # no benign images of the rare one to shift against


def test_the_users_columns_are_used_unless_they_are_the_label(manifest):
    count = len(manifest)
    own = manifest.assign(
        site="one", stain=np.where(np.arange(count) % 3, "a", ""), mask=manifest["image_id"],
        category=manifest["label"].map({"B": "C2", "M": "C5"}), number=np.arange(count).astype(str),
        subtype=np.where(manifest["label"] == "M", "ductal", "x"),
    )  # fmt: skip
    own.loc[own.index[own["label"] == "M"][::2], "subtype"] = "lobular"
    own.loc[1, "stain"] = "b"
    own["width"] = 10 + np.arange(count)
    appearance = own[["image_id"]].assign(brightness=1.0, sharpness=np.linspace(0, 1, count))
    found = subgroups_of_images(own, appearance.sample(frac=1, random_state=0))
    assert list(found) == ["image_id", "stain", "subtype", "size", "sharpness"]
    assert found["stain"][:2].tolist() == ["", "b"]
    lowest = found["sharpness"].str.startswith("lowest (0 to ")
    assert lowest.sum() == pytest.approx(count / 3, abs=1) and lowest.iloc[0]


def test_without_sharpness_or_with_one_size_there_are_fewer_columns(manifest):
    appearance = manifest[["image_id"]].assign(brightness=np.arange(len(manifest)))
    assert list(subgroups_of_images(manifest, appearance)) == ["image_id", "brightness"]


def test_a_run_has_both_tables_with_their_weights_and_sentences(run):
    manifest = run.table("manifest.csv")
    stain = np.where(manifest["group"].astype(int) // 2 % 2, "a", "b")
    run.write("manifest.csv", manifest.assign(stain=stain))
    run.write("dataset.json", {"unit": "patient"})
    table, tests = subgroups_of_run(run, {"mobilenetv2": 0.3})
    assert set(table["model"]) == set(run.networks) and (table["weights"] == "imagenet").all()
    assert set(tests["column"]) == {"stain", "brightness"}
    mine = tests["model"] == "mobilenetv2"
    said = subgroup_sentences(table, tests.assign(p_holm=np.where(mine, 0.01, 0.9)), "patient")
    assert "MobileNetV2 does not separate all images equally well, by stain" in said[0]
    assert "scores are shifted" in said[1] and "specificity 0." in said[1]
    assert any("DenseNet121: no subgroup is shown" in each for each in said)
    leaks = subgroup_sentences(table.assign(protocol="original"), tests, "patient")
    assert len(leaks) == 1 and "leaks" in leaks[0]
    said = subgroup_sentences(table, tests.assign(p_holm=0.01, weights="random"), "patient")
    assert all("P =" not in each for each in said)
