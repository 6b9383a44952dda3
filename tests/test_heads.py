"""Heads as plain numbers: what is written comes back, and says what a slow sum says."""

import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from cytology.heads import EPSILON, STRENGTHS, LinearHead, fitted_head, read_heads, write_heads
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


def unequal_classes(seed, pictures=80):
    """Six features of unlike scales, and labels of which about a quarter are malignant."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(pictures, 6)) * [1, 10, 0.1, 1, 1, 1] + 5
    return values, values[:, 0] + values[:, 1] / 10 + rng.normal(size=pictures) > 6.8


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_fitted_head_minimizes_the_balanced_loss_and_the_penalty(strength):
    """Its slope is zero: the objective is written out here, picture by picture."""
    values, malignant = unequal_classes(4)
    found = fitted_head(values, malignant, strength)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0) / math.sqrt(values.shape[1])
    weights = found[-1].coef_.ravel() * math.sqrt(values.shape[1])
    residual = expit(scaled @ weights + found[-1].intercept_) - malignant
    slopes = np.zeros(values.shape[1] + 1)
    for one, row, wrong in zip(malignant, scaled, residual, strict=True):
        share = 0.5 / (malignant == one).sum()  # both classes have half of the loss
        slopes += share * wrong * np.append(row, 1.0)
    slopes[:-1] += strength * weights
    assert np.abs(slopes).max() < 2e-6
    assert roc_auc_score(malignant, found.decision_function(values)) > 0.8


@pytest.mark.parametrize("strength", STRENGTHS)
def test_every_feature_twice_is_the_same_head(strength):
    values, malignant = unequal_classes(6)
    new, _ = unequal_classes(7)
    once = fitted_head(values, malignant, strength).decision_function(new)
    twice = fitted_head(np.hstack([values, values]), malignant, strength)
    assert twice.decision_function(np.hstack([new, new])) == pytest.approx(once, rel=1e-3)


def test_every_picture_twice_is_the_same_head():
    values, malignant = unequal_classes(8)
    once = fitted_head(values, malignant).decision_function(values)
    twice = fitted_head(np.vstack([values, values]), np.tile(malignant, 2))
    assert twice.decision_function(values) == pytest.approx(once, rel=1e-3)


def test_the_fitted_head_minds_no_scale():
    rng = np.random.default_rng(5)
    values, malignant = rng.normal(size=(60, 3)), rng.random(60) < 0.5
    found = fitted_head(values, malignant).decision_function(values)
    scaled = values * [100, 1, 0.01] - 7
    assert fitted_head(scaled, malignant).decision_function(scaled) == pytest.approx(
        found, abs=1e-3
    )
