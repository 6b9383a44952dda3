"""The simulated studies have the truth that they claim, and coverage is counted correctly."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from cytology.audits import simulation
from cytology.audits.simulation import Design, cross_validated_study, interval_coverage
from cytology.evaluation.statistics.metrics import auc_within_folds
from cytology.networks.linear_head import fitted_head

SMALL = Design(16, (3, 3), likeness=0.4, auc=0.99)


def test_equal_models_differ_by_chance_only():
    study = cross_validated_study(SMALL, np.random.default_rng(3), (0.99, 0.99))
    first, second = study.tables
    for column in ("group", "label", "image_id", "fold"):
        assert (first[column] == second[column]).all()
    assert 0.1 < np.corrcoef(first["logit"], second["logit"])[0, 1] < 0.99


def test_no_patient_is_scored_by_a_head_that_saw_it_and_the_truth_is_for_new_patients(monkeypatch):
    """The closed form against many new patients, for each head that was trained."""
    heads = []

    def kept(values, malignant):
        heads.append((fitted_head(values, malignant), values))
        return heads[-1][0]

    monkeypatch.setattr(simulation, "fitted_head", kept)
    study = cross_validated_study(SMALL, np.random.default_rng(4))
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


def test_coverage_is_the_share_of_intervals_that_contain_the_truth(monkeypatch):
    """Intervals that contain everything, and none; the truth is the mean over heads."""
    found = interval_coverage([SMALL, replace(SMALL, auc=0.5)], 6)
    assert found.groupby("interval").size().eq(2).all() and (found["studies"] == 6).all()
    low, high = proportion_confint(found["coverage"] * 6, 6, method="wilson")
    assert found["coverage_low"].to_numpy() == pytest.approx(low)
    assert found["coverage_high"].to_numpy() == pytest.approx(high)
    monkeypatch.setattr(simulation, "auc_interval", lambda rows: (0.0, 1.0))
    assert (interval_coverage([SMALL], 3)["coverage"] == 1).all()
    monkeypatch.setattr(simulation, "auc_interval", lambda rows: (np.nan, np.nan))
    assert (interval_coverage([SMALL], 3)["coverage"] == 0).all()


def test_coverage_depends_only_on_the_seed():
    first = interval_coverage([SMALL], 3, seed=1)
    pd.testing.assert_frame_equal(interval_coverage([SMALL], 3, seed=1), first)
    assert interval_coverage([SMALL], 3, seed=2)["width"][0] != first["width"][0]


@pytest.mark.slow
@pytest.mark.parametrize("images", [(6, 6), (1, 30)])
def test_the_interval_covers_the_auc_of_cross_validated_heads(images):
    """A small coverage study; `python -m benchmarks coverage` is the large one."""
    found = interval_coverage([Design(20, images, likeness=0.4, auc=0.99)], 200, seed=3)
    held = found.set_index("interval")["coverage"]
    assert held["by patient, cross-validated"] >= 0.92
    assert held["by image"] < held["by patient, folds ignored"] < 0.99


def test_labels_without_signal_give_an_auc_of_one_half():
    """200 studies of 11 patients with unequal images, whose labels mean nothing."""
    design, rng = Design(11, (1, 30), likeness=0.4, auc=0.5), np.random.default_rng(6)
    aucs = [auc_within_folds(cross_validated_study(design, rng).tables[0]) for _ in range(200)]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)
