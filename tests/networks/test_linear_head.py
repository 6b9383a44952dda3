"""Heads as plain numbers: they survive writing, and agree with a slow sum."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cytology.networks.linear_head import (
    COLUMNS_AT_ONCE,
    EPSILON,
    STRENGTHS,
    LinearHead,
    class_weights,
    fitted_head,
    read_heads,
    scores,
    untrained_head,
    write_heads,
)
from cytology.run import Run
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


def test_saved_heads_are_read_under_their_names(tmp_path):
    heads = {"fold0": head(0), "fold1": head(1), "final": head(2)}
    write_heads(Run(tmp_path), "mobilenetv2", heads)
    found = read_heads(Run(tmp_path), "mobilenetv2")
    assert list(found) == list(heads)
    features = np.random.default_rng(3).normal(size=(6, 4))
    for name, linear in heads.items():
        assert (found[name].logits(features) == linear.logits(features)).all()
    assert [path.name for path in (tmp_path / "mobilenetv2").iterdir()] == ["heads.npz"]


def test_an_error_about_missing_heads_names_their_notebook(tmp_path):
    with pytest.raises(InputError, match="run notebook 06_train_densenet121 first"):
        read_heads(Run(tmp_path), "densenet121")


def unequal_classes(seed, pictures=80):
    """Six features of unlike scales, and labels of which about a quarter are malignant."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(pictures, 6)) * [1, 10, 0.1, 1, 1, 1] + 5
    return values, values[:, 0] + values[:, 1] / 10 + rng.normal(size=pictures) > 6.8


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_fitted_head_is_scikit_learns_logistic_regression(strength, class_weight):
    """Scikit-learn multiplies the sum of the losses, not their mean, and by C, not the penalty."""
    values, malignant = unequal_classes(4)
    scaled = (values - values.mean(axis=0)) / np.sqrt(6 * (values.var(axis=0) + EPSILON))
    weighing = {"balanced": "balanced", "none": None}[class_weight]
    regression = LogisticRegression(
        C=1 / (strength * len(values)), class_weight=weighing, tol=1e-9, max_iter=5000
    )
    expected = regression.fit(scaled, malignant).decision_function(scaled)
    found = fitted_head(values, malignant, strength, class_weight).logits(values)
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    assert roc_auc_score(malignant, found) > 0.8


def test_the_objective_falls_in_each_epoch_and_the_last_head_is_returned():
    values, malignant = unequal_classes(4)
    of_class, seen = class_weights(malignant, "balanced"), []
    last = fitted_head(values, malignant, 1e-2, after_epoch=seen.append)
    objectives = [
        scores(head.logits(values), malignant, of_class)[0] + 1e-2 / 2 * 6 * (head.weights**2).sum()
        for head in seen
    ]
    assert len(seen) > 3 and (np.diff(objectives) < 0).all() and objectives[0] < math.log(2)
    assert (seen[-1].logits(values) == last.logits(values)).all()


def test_the_number_of_epochs_is_an_upper_limit():
    values, malignant = unequal_classes(4)
    seen = []
    fitted_head(values, malignant, epochs=2, after_epoch=seen.append)
    assert len(seen) == 2


def test_a_head_cannot_be_fitted_to_one_class():
    with pytest.raises(ValueError, match="class"):
        fitted_head(np.ones((4, 2)), np.ones(4, bool))


def test_many_columns_have_their_own_mean_and_variance():
    values = (
        np.random.default_rng(9).normal(3, 2, size=(50, 2 * COLUMNS_AT_ONCE + 7)).astype(np.float32)
    )
    head = untrained_head(values)
    assert head.mean == pytest.approx(values.mean(axis=0), rel=1e-5)
    assert head.variance == pytest.approx(values.var(axis=0), rel=1e-5)
    assert (head.logits(values) == 0).all()


def test_doubling_every_picture_gives_the_same_head():
    values, malignant = unequal_classes(8)
    once = fitted_head(values, malignant).logits(values)
    twice = fitted_head(np.vstack([values, values]), np.tile(malignant, 2))
    assert twice.logits(values) == pytest.approx(once, rel=1e-3)
