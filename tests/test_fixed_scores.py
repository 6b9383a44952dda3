"""Simulated studies of fixed scores have the truth that they claim."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cytology.evaluation.statistics.clusters import intraclass_correlation
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.settings import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT))

from benchmarks import fixed_scores as fixed
from benchmarks.fixed_scores import FixedDesign

MANY = FixedDesign(20_000, (1, 4), likeness=0.5)


@pytest.fixture(autouse=True)
def short_reference(monkeypatch):
    """Truths without a closed form from fewer scores."""
    monkeypatch.setattr(fixed, "REFERENCE", 200_000)
    for kept in (fixed._sorted_noise, fixed._sorted_differences):
        kept.cache_clear()


@pytest.mark.parametrize(
    "design",
    [
        replace(MANY, auc=0.8),
        replace(MANY, auc=0.98, malignant=0.75),
        replace(MANY, auc=0.92, noise="t3", likeness=0.9),
    ],
)
def test_the_truth_of_fixed_scores_matches_many_patients(design):
    study = fixed.fixed_scores(design, np.random.default_rng(0))
    (rows,) = study.tables
    malignant, called = rows["label"] == "M", rows["probability"] >= 0.5
    assert roc_auc_score(malignant, rows["logit"]) == pytest.approx(design.auc, abs=0.01)
    assert recall_score(malignant, called) == pytest.approx(study.sensitivities[0], abs=0.015)
    assert recall_score(~malignant, ~called) == pytest.approx(study.specificities[0], abs=0.015)


def test_logits_of_fixed_scores_are_calibrated():
    (rows,) = fixed.fixed_scores(replace(MANY, malignant=0.75), np.random.default_rng(1)).tables
    said = pd.cut(rows["probability"], [0, 0.25, 0.5, 0.75, 0.9, 1])
    found = rows.assign(malignant=rows["label"] == "M").groupby(said, observed=True)
    expected = found["probability"].mean().to_numpy()
    assert found["malignant"].mean().to_numpy() == pytest.approx(expected, abs=0.04)


def test_patients_have_one_class_and_their_images_are_correlated():
    design = FixedDesign(400, (1, 60), malignant=0.25, likeness=0.5)
    (rows,) = fixed.fixed_scores(design, np.random.default_rng(2)).tables
    assert (rows.groupby("group")["label"].nunique() == 1).all() and rows["image_id"].is_unique
    assert rows.groupby("label")["group"].nunique().to_dict() == {"B": 300, "M": 100}
    sizes = rows.groupby("group").size()
    assert sizes.min() == 1 and 50 <= sizes.max() <= 60 and sizes.median() < 12
    benign = rows[rows["label"] == "B"]
    found = intraclass_correlation(benign["logit"].to_numpy(), benign["group"].to_numpy())
    assert found == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("auc", [0.92, 0.98])
@pytest.mark.parametrize("images", [(6, 6), (1, 60)])
def test_the_interval_of_fixed_scores_covers_the_truth(auc, images):
    design, rng = FixedDesign(30, images, auc=auc), np.random.default_rng(7)
    bounds = [auc_interval(fixed.fixed_scores(design, rng).tables[0]) for _ in range(300)]
    assert np.mean([low <= auc <= high for low, high in bounds]) >= 0.92
