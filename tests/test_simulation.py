"""The simulated studies have the truth that they claim, and coverage counts what it says."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from cytology import simulation
from cytology.intervals import auc_interval
from cytology.simulation import (
    IN_COMMON,
    LIKENESS,
    bca_by_patient,
    coverage,
    drawn_aucs,
    mixed,
    simulated_study,
)


@pytest.fixture(scope="module")
def huge():
    """Two models on 40,000 patients."""
    return simulated_study(0.92, np.random.default_rng(0), models=2, patients=40_000)


def test_the_true_auc_is_that_of_a_huge_sample(huge):
    for rows in huge:
        found = roc_auc_score(rows["label"] == "M", rows["probability"])
        assert found == pytest.approx(0.92, abs=0.003)


@pytest.mark.parametrize("auc", [0.5, 0.8, 0.98])
def test_the_true_auc_is_exact_at_other_values(auc):
    (rows,) = simulated_study(auc, np.random.default_rng(1), patients=20_000)
    assert roc_auc_score(rows["label"] == "M", rows["logit"]) == pytest.approx(auc, abs=0.007)


def noise(rows):
    """Logits less the mean of their class."""
    return rows["logit"] - rows.groupby("label")["logit"].transform("mean")


def test_images_of_a_patient_are_alike_and_so_are_models(huge):
    first, second = (noise(rows).to_numpy().reshape(-1, simulation.IMAGES) for rows in huge)
    assert first.var() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(first[:, 0], first[:, 1])[0, 1] == pytest.approx(LIKENESS, abs=0.02)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(IN_COMMON, abs=0.02)


def test_a_study_has_one_class_a_patient_and_the_same_images_for_all_models():
    first, second = simulated_study(0.9, np.random.default_rng(2), models=2)
    assert len(first) == 300 and first["group"].nunique() == 30
    assert (first.groupby("group")["label"].nunique() == 1).all()
    for column in ("group", "label", "image_id"):
        assert (first[column] == second[column]).all()
    assert not np.allclose(first["logit"], second["logit"])
    assert first["image_id"].is_unique and set(first["label"]) == {"B", "M"}


def test_every_study_has_two_patients_of_each_class():
    rng = np.random.default_rng(3)
    for _ in range(30):
        (rows,) = simulated_study(0.9, rng, patients=5)
        assert rows.groupby("label")["group"].nunique().min() >= 2


def test_what_is_mixed_has_variance_one():
    shared, own = np.random.default_rng(4).normal(size=(2, 100_000))
    assert mixed(shared, own).var() == pytest.approx(1, abs=0.02)


def test_drawn_aucs_are_those_of_the_joined_patients():
    (rows,) = simulated_study(0.8, np.random.default_rng(5), patients=8)
    weights = np.array([[1.0, 2, 0, 1, 1, 1, 1, 1], [1] * 8])
    drawn = rows.loc[np.repeat(rows.index, weights[0][rows["group"]].astype(int))]
    expected = [roc_auc_score(part["label"] == "M", part["logit"]) for part in (drawn, rows)]
    assert drawn_aucs(rows, weights) == pytest.approx(expected)


def test_the_bca_interval_of_a_study_holds_its_own_auc():
    (rows,) = simulated_study(0.8, np.random.default_rng(6))
    low, high = bca_by_patient(rows)
    assert low < roc_auc_score(rows["label"] == "M", rows["logit"]) < high


def test_coverage_counts_how_often_the_truth_is_held(monkeypatch):
    """Intervals that always, never and sometimes hold it; one that is not there holds nothing."""
    lows = iter([0.1, 0.95] * 5 + [0.1, 0.95] * 5)
    fakes = {
        "always": lambda rows: (0.0, 1.0),
        "never": lambda rows: (0.0, 0.1),
        "half": lambda rows: (next(lows), 1.0),
        "none": lambda rows: (np.nan, np.nan),
    }
    monkeypatch.setattr(simulation, "INTERVALS", fakes)
    found = coverage([0.8, 0.9], 10).set_index(["interval", "auc"])
    assert found.index.tolist() == [(name, auc) for name in fakes for auc in (0.8, 0.9)] or (
        found.index.tolist() == [(name, auc) for auc in (0.8, 0.9) for name in fakes]
    )
    for auc in (0.8, 0.9):
        shares = [found.loc[(name, auc), "coverage"] for name in fakes]
        assert shares == [1.0, 0.0, 0.5, 0.0]
        assert found.loc[("never", auc), "width"] == pytest.approx(0.1)
        half = found.loc[("half", auc)]
        expected = proportion_confint(5, 10, method="wilson")
        assert (half["coverage_low"], half["coverage_high"]) == pytest.approx(expected)
    assert (found["studies"] == 10).all()


def test_coverage_is_seeded_and_its_studies_are_different(monkeypatch):
    seen = []

    def kept(rows):
        seen.append(rows["logit"].iloc[0])
        return auc_interval(rows)

    monkeypatch.setattr(simulation, "INTERVALS", {"kept": kept})
    first = coverage([0.9], 4, seed=1)
    pd.testing.assert_frame_equal(coverage([0.9], 4, seed=1), first)
    assert len(set(seen[:4])) == 4 and seen[:4] == seen[4:]
    assert coverage([0.9], 4, seed=2)["width"][0] != first["width"][0]


def test_the_interval_of_the_notebooks_is_wide_enough_and_that_of_images_is_not(monkeypatch):
    """A small coverage study; benchmarks/coverage.py is the large one."""
    names = ("clustered DeLong", "DeLong of images")
    fast = {name: simulation.INTERVALS[name] for name in names}
    monkeypatch.setattr(simulation, "INTERVALS", fast)
    found = coverage([0.92], 120, seed=3).set_index("interval")["coverage"]
    assert found["clustered DeLong"] >= 0.9 and found["DeLong of images"] <= 0.8
