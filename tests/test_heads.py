"""Heads as plain numbers: what is written comes back, and says what a slow sum says."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cytology.heads import EPSILON, STRENGTH, LinearHead, fitted_head, read_heads, write_heads
from cytology.settings import InputError

pytestmark = pytest.mark.numeric


def head(seed, width=4):
    rng = np.random.default_rng(seed)
    return LinearHead(
        rng.normal(size=width), rng.uniform(0.1, 2, width), rng.normal(size=width), rng.normal()
    )


def test_logits_are_the_weighted_sum_of_standardized_features():
    features, linear = np.random.default_rng(0).normal(size=(5, 4)), head(1)
    for row, logit in zip(features, linear.logits(features), strict=True):
        expected = linear.bias
        for k in range(4):
            deviation = math.sqrt(linear.variance[k] + EPSILON)
            expected += linear.weights[k] * (row[k] - linear.mean[k]) / deviation
        assert logit == pytest.approx(expected)


def test_a_feature_that_never_varied_does_not_divide_by_zero():
    linear = LinearHead(np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    assert np.isfinite(linear.logits(np.ones((1, 1)))).all()


def test_heads_come_back_under_their_names(tmp_path):
    heads = {"fold0": head(0), "fold1": head(1), "final": head(2)}
    write_heads(tmp_path, "mobilenetv2", heads)
    found = read_heads(tmp_path, "mobilenetv2")
    assert list(found) == list(heads)
    features = np.random.default_rng(3).normal(size=(6, 4))
    for name, linear in heads.items():
        assert (found[name].logits(features) == linear.logits(features)).all()
    assert [path.name for path in (tmp_path / "mobilenetv2").iterdir()] == ["heads.npz"]


def test_missing_heads_name_their_notebook(tmp_path):
    with pytest.raises(InputError, match="run notebook 06_train_densenet121 first"):
        read_heads(tmp_path, "densenet121")


def test_the_fitted_head_is_a_ridge_logistic_regression_on_standardized_features():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(80, 6)) * [1, 10, 0.1, 1, 1, 1] + 5
    malignant = values[:, 0] + values[:, 1] / 10 + rng.normal(size=80) > 5.5
    standardized = (values - values.mean(axis=0)) / values.std(axis=0)
    expected = LogisticRegression(C=STRENGTH, max_iter=5000).fit(standardized, malignant)
    found = fitted_head(values, malignant).decision_function(values)
    assert found == pytest.approx(expected.decision_function(standardized), abs=1e-4)
    assert roc_auc_score(malignant, found) > 0.8


def test_the_fitted_head_minds_no_scale():
    rng = np.random.default_rng(5)
    values, malignant = rng.normal(size=(60, 3)), rng.random(60) < 0.5
    found = fitted_head(values, malignant).decision_function(values)
    scaled = values * [100, 1, 0.01] - 7
    assert fitted_head(scaled, malignant).decision_function(scaled) == pytest.approx(
        found, abs=1e-3
    )
