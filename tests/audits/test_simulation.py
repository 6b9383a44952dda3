"""The simulated studies have the truth that they claim, and coverage counts what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from cytology.audits import simulation
from cytology.audits.simulation import Design, cross_validated, fixed_scores, interval_coverage
from cytology.evaluation.statistics.clusters import intraclass_correlation
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.evaluation.statistics.metrics import auc_within_folds
from cytology.networks.linear_head import fitted_head

MANY = Design(20_000, (1, 4), likeness=0.5)
SMALL = Design(16, (3, 3), likeness=0.4, auc=0.99)


@pytest.fixture(autouse=True)
def short_reference(monkeypatch):
    """Truths without a closed form from fewer scores."""
    monkeypatch.setattr(simulation, "REFERENCE", 200_000)
    simulation._sorted_noise.cache_clear()
    simulation._sorted_differences.cache_clear()
    yield
    simulation._sorted_noise.cache_clear()
    simulation._sorted_differences.cache_clear()


@pytest.mark.parametrize(
    "design",
    [
        replace(MANY, auc=0.8),
        replace(MANY, auc=0.98, malignant=0.75),
        replace(MANY, auc=0.92, noise="t3", likeness=0.9),
    ],
)
def test_the_truth_of_fixed_scores_is_that_of_many_patients(design):
    study = fixed_scores(design, np.random.default_rng(0))
    (rows,) = study.tables
    malignant, called = rows["label"] == "M", rows["probability"] >= 0.5
    assert roc_auc_score(malignant, rows["logit"]) == pytest.approx(design.auc, abs=0.01)
    assert recall_score(malignant, called) == pytest.approx(study.sensitivities[0], abs=0.015)
    assert recall_score(~malignant, ~called) == pytest.approx(study.specificities[0], abs=0.015)


def test_logits_of_fixed_scores_are_calibrated():
    (rows,) = fixed_scores(replace(MANY, malignant=0.75), np.random.default_rng(1)).tables
    said = pd.cut(rows["probability"], [0, 0.25, 0.5, 0.75, 0.9, 1])
    found = rows.assign(malignant=rows["label"] == "M").groupby(said, observed=True)
    expected = found["probability"].mean().to_numpy()
    assert found["malignant"].mean().to_numpy() == pytest.approx(expected, abs=0.04)


def test_patients_are_of_one_class_and_their_images_are_alike():
    design = Design(400, (1, 60), malignant=0.25, likeness=0.5)
    (rows,) = fixed_scores(design, np.random.default_rng(2)).tables
    assert (rows.groupby("group")["label"].nunique() == 1).all() and rows["image_id"].is_unique
    assert rows.groupby("label")["group"].nunique().to_dict() == {"B": 300, "M": 100}
    sizes = rows.groupby("group").size()
    assert sizes.min() == 1 and 50 <= sizes.max() <= 60 and sizes.median() < 12
    benign = rows[rows["label"] == "B"]
    found = intraclass_correlation(benign["logit"].to_numpy(), benign["group"].to_numpy())
    assert found == pytest.approx(0.5, abs=0.1)


def test_equal_models_differ_by_luck_alone():
    study = cross_validated(SMALL, np.random.default_rng(3), (0.99, 0.99))
    first, second = study.tables
    for column in ("group", "label", "image_id", "fold"):
        assert (first[column] == second[column]).all()
    assert 0.1 < np.corrcoef(first["logit"], second["logit"])[0, 1] < 0.99


def test_no_patient_is_judged_by_a_head_that_saw_it_and_the_truth_is_of_new_patients(monkeypatch):
    """The closed form against many new patients, for each head that was trained."""
    heads = []

    def kept(values, malignant):
        heads.append((fitted_head(values, malignant), values))
        return heads[-1][0]

    monkeypatch.setattr(simulation, "fitted_head", kept)
    study = cross_validated(SMALL, np.random.default_rng(4))
    (rows,) = study.tables
    assert (rows.groupby("group")["fold"].nunique() == 1).all()
    for fold, (_, trained_on) in enumerate(heads):
        assert len(trained_on) == (rows["fold"] != fold).sum()
    rng, distance = np.random.default_rng(5), SMALL.distance
    truth = np.arange(20_000) % 2 == 0
    values = rng.normal(size=(20_000, simulation.FEATURE_COUNT))
    values[:, 0] += distance * (truth - 0.5)
    logits = [head.logits(values) for head, _ in heads]
    for found, expected in (
        (study.aucs[0], [roc_auc_score(truth, each) for each in logits]),
        (study.sensitivities[0], [(each[truth] >= 0).mean() for each in logits]),
        (study.specificities[0], [(each[~truth] < 0).mean() for each in logits]),
    ):
        assert found == pytest.approx(np.mean(expected), abs=0.01)


def test_coverage_counts_how_often_the_truth_is_held(monkeypatch):
    """An interval that holds everything, and none; the heads' mean truth is what is held."""
    found = interval_coverage([SMALL, replace(SMALL, auc=0.5)], 6)
    assert found.groupby("interval").size().eq(2).all() and (found["studies"] == 6).all()
    low, high = proportion_confint(found["coverage"] * 6, 6, method="wilson")
    assert found["coverage_low"].to_numpy() == pytest.approx(low)
    assert found["coverage_high"].to_numpy() == pytest.approx(high)
    monkeypatch.setattr(simulation, "auc_interval", lambda rows: (0.0, 1.0))
    assert (interval_coverage([SMALL], 3)["coverage"] == 1).all()
    monkeypatch.setattr(simulation, "auc_interval", lambda rows: (np.nan, np.nan))
    assert (interval_coverage([SMALL], 3)["coverage"] == 0).all()


def test_coverage_is_seeded():
    first = interval_coverage([SMALL], 3, seed=1)
    pd.testing.assert_frame_equal(interval_coverage([SMALL], 3, seed=1), first)
    assert interval_coverage([SMALL], 3, seed=2)["width"][0] != first["width"][0]


@pytest.mark.slow
@pytest.mark.parametrize("images", [(6, 6), (1, 30)])
def test_the_interval_holds_what_cross_validated_heads_reach(images):
    """A small coverage study; `python -m benchmarks coverage` is the large one."""
    found = interval_coverage([Design(20, images, likeness=0.4, auc=0.99)], 200, seed=3)
    held = found.set_index("interval")["coverage"]
    assert held["by patient, cross-validated"] >= 0.92
    assert held["by image"] < held["by patient, folds ignored"] < 0.99


def test_noise_is_no_signal():
    """200 studies of 11 patients with unequal images, whose labels mean nothing."""
    design, rng = Design(11, (1, 30), likeness=0.4, auc=0.5), np.random.default_rng(6)
    aucs = [auc_within_folds(cross_validated(design, rng).tables[0]) for _ in range(200)]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("auc", [0.92, 0.98])
@pytest.mark.parametrize("images", [(6, 6), (1, 60)])
def test_the_interval_of_fixed_scores_holds_the_truth(auc, images):
    design, rng = Design(30, images, auc=auc), np.random.default_rng(7)
    bounds = [auc_interval(fixed_scores(design, rng).tables[0]) for _ in range(300)]
    assert np.mean([low <= auc <= high for low, high in bounds]) >= 0.92
