"""Every metric is scikit-learn's, one draw at a time and many at once."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from cytology.metrics import (
    METRICS,
    auc_from_ranks,
    auc_of_draws,
    calibration_bins,
    calibration_error,
    classification_metrics,
    cumulative_counts,
    metrics_of_draws,
)

pytestmark = pytest.mark.numeric


def rows_of(labels, probabilities):
    return pd.DataFrame({"label": list(labels), "probability": probabilities})


def rows_with_skill(seed, count=80, ties=False):
    """Rows predicted with some skill; `ties`: in tenths, 0 and 1 among them."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    probability = 1 / (1 + np.exp(-np.where(truth, 0.7, -0.7) - rng.normal(size=count)))
    if ties:
        probability = probability.round(1)
    return rows_of(np.where(truth, "M", "B"), probability)


def by_scikit_learn(rows, threshold=0.5, weights=None):
    """The metrics that scikit-learn has, named as here; NaN where it finds nothing to divide by."""
    truth = (rows["label"] == "M").to_numpy()
    probability = rows["probability"].to_numpy()
    called = probability >= threshold
    weights = np.ones(len(rows)) if weights is None else weights
    given = {"sample_weight": weights}
    there = (weights @ truth > 0) and (weights @ ~truth > 0)
    nan = {"zero_division": np.nan}
    found = {
        "accuracy": sk.accuracy_score(truth, called, **given),
        "recall": sk.recall_score(truth, called, **nan, **given),
        "specificity": sk.recall_score(~truth, ~called, **nan, **given),
        "precision": sk.precision_score(truth, called, **nan, **given),
        "negative_predictive_value": sk.precision_score(~truth, ~called, **nan, **given),
        "f1": sk.f1_score(truth, called, **nan, **given),
        "loss": sk.log_loss(truth, probability, labels=[False, True], **given),
        "brier": sk.brier_score_loss(truth, probability, pos_label=True, **given),
    }
    if there:
        found["balanced_accuracy"] = sk.balanced_accuracy_score(truth, called, **given)
        found["mcc"] = sk.matthews_corrcoef(truth, called, **given)
        found["auc"] = sk.roc_auc_score(truth, probability, **given)
        found["average_precision"] = sk.average_precision_score(truth, probability, **given)
        return found
    only_both = ("balanced_accuracy", "mcc", "auc", "average_precision")
    return found | dict.fromkeys(only_both, math.nan)


def slow_calibration_error(truth, probability, weights, bins):
    """Sum over bins of (weight of the bin / all) x |share malignant - mean probability|."""
    error = 0.0
    for number in set(bins):
        here = [i for i in range(len(truth)) if bins[i] == number]
        weight = sum(weights[i] for i in here)
        if weight:
            share = sum(weights[i] * truth[i] for i in here) / weight
            said = sum(weights[i] * probability[i] for i in here) / weight
            error += weight / sum(weights) * abs(share - said)
    return error


# ----------------------------------------------------------------------- one draw


def test_metrics_of_an_example_worked_by_hand():
    """TN 1, FP 1, FN 1, TP 2; of the 6 pairs of an M and a B, 4 are in order."""
    found = classification_metrics(rows_of("BBMMM", [0.1, 0.65, 0.4, 0.8, 0.5]))
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "recall": 2 / 3,
        "specificity": 1 / 2,
        "precision": 2 / 3,
        "negative_predictive_value": 1 / 2,
        "f1": 2 / 3,
        "mcc": (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2),
        "auc": 4 / 6,
        # Positives stand first, third and fourth: precision there 1/1, 2/3, 3/4.
        "average_precision": (1 + 2 / 3 + 3 / 4) / 3,
        "loss": -sum(map(math.log, [0.9, 0.35, 0.4, 0.8, 0.5])) / 5,
        "brier": (0.01 + 0.4225 + 0.36 + 0.04 + 0.25) / 5,
        "ece": (0.1 + 0.65 + 0.6 + 0.2 + 0.5) / 5,
        "ace": (0.1 + 0.65 + 0.6 + 0.2 + 0.5) / 5,
    }
    assert found == pytest.approx(expected)
    assert list(found) == list(METRICS)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_every_metric_is_scikit_learns(threshold, ties):
    rows = rows_with_skill(0, ties=ties)
    found = classification_metrics(rows, threshold)
    expected = by_scikit_learn(rows, threshold)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    assert set(found) - set(expected) == {"ece", "ace"}


def test_a_probability_at_the_threshold_is_called_malignant():
    found = classification_metrics(rows_of("BM", [0.5, 0.5]))
    assert (found["recall"], found["specificity"]) == (1, 0)


def test_nothing_called_malignant_has_no_precision():
    found = classification_metrics(rows_of("BM", [0.1, 0.2]))
    assert math.isnan(found["precision"]) and found["negative_predictive_value"] == 0.5
    assert found["recall"] == found["f1"] == found["mcc"] == 0 and found["auc"] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("label", "missing"),
    [("M", {"specificity"}), ("B", {"recall"})],
)
def test_one_class_has_what_it_can_have_and_no_more(label, missing):
    found = classification_metrics(rows_of(label * 2, [0.1, 0.9]))
    missing = missing | {"balanced_accuracy", "mcc", "auc", "average_precision"}
    assert {name for name, value in found.items() if math.isnan(value)} == missing
    assert found["accuracy"] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_fast_auc_is_scikit_learns_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    truth, score = rng.random(200) < 0.3, rng.integers(0, 6, 200) / 5
    assert auc_from_ranks(truth, score) == pytest.approx(sk.roc_auc_score(truth, score))


# ------------------------------------------------------------------- calibration


def test_the_expected_calibration_error_by_a_slow_loop():
    rows = rows_with_skill(1)
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    bins = [int(p * 10) for p in probability]
    expected = slow_calibration_error(truth, probability, np.ones(len(rows)), bins)
    assert calibration_error(truth, probability) == pytest.approx(expected)


def test_a_tenth_lies_in_the_bin_that_begins_with_it():
    tenths = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert calibration_bins(tenths).tolist() == [*range(10), 9]


def test_the_adaptive_error_has_bins_of_equal_counts():
    rows = rows_with_skill(2, count=80)
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    order = np.argsort(probability)
    bins = np.empty(80, int)
    bins[order] = np.arange(80) // 8
    assert (calibration_bins(probability, adaptive=True) == bins).all()
    expected = slow_calibration_error(truth, probability, np.ones(80), bins)
    assert calibration_error(truth, probability, adaptive=True) == pytest.approx(expected)


def test_equal_probabilities_share_a_bin():
    bins = calibration_bins(np.repeat([0.2, 0.7], 50), adaptive=True)
    assert len(set(bins[:50])) == len(set(bins[50:])) == 1 and bins[0] != bins[-1]
    assert set(calibration_bins(np.array([0.0, 1.0]))) == {0, 9}


def test_what_comes_true_as_often_as_was_said_has_no_error():
    truth, probability = np.arange(100) % 4 == 0, np.full(100, 0.25)
    assert calibration_error(truth, probability) == pytest.approx(0)
    assert calibration_error(truth, probability + 0.5) == pytest.approx(0.5)


# -------------------------------------------------------------------- many draws


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_every_metric_of_draws_is_scikit_learns_with_weights(threshold, ties):
    rows = rows_with_skill(3, count=40, ties=ties)
    rng = np.random.default_rng(4)
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=12).astype(float)
    weights[0] *= rows["label"] == "M"  # draws with one class only
    weights[1] *= rows["label"] == "B"
    weights[2] *= rows["probability"] < threshold  # nothing called malignant
    found = metrics_of_draws(rows, weights, threshold)
    assert list(found) == list(METRICS)
    for draw, weight in enumerate(weights):
        expected = by_scikit_learn(rows, threshold, weight)
        got = {name: found[name][draw] for name in expected}
        assert got == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_calibration_errors_of_draws_keep_the_bins_of_all_rows():
    rows = rows_with_skill(5, count=50)
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    weights = np.random.default_rng(6).integers(0, 4, (10, 50)).astype(float)
    found = metrics_of_draws(rows, weights, names=("ece", "ace"))
    assert list(found) == ["ece", "ace"]
    for name, adaptive in (("ece", False), ("ace", True)):
        bins = calibration_bins(probability, adaptive)
        expected = [slow_calibration_error(truth, probability, w, bins) for w in weights]
        assert found[name] == pytest.approx(np.array(expected))


@pytest.mark.parametrize("seed", range(3))
def test_each_row_once_gives_the_metrics_of_the_rows(seed):
    rows = rows_with_skill(seed, ties=True)
    found = metrics_of_draws(rows, np.ones((1, len(rows))))
    expected = classification_metrics(rows)
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected)


def test_a_row_drawn_twice_counts_as_two_rows():
    rows, weights = rows_with_skill(7, count=30), np.arange(30) % 3
    copied = rows.loc[np.repeat(rows.index, weights)]
    names = [name for name in METRICS if name not in ("ece", "ace")]
    found = metrics_of_draws(rows, weights[None].astype(float), names=names)
    expected = classification_metrics(copied)
    assert {n: v[0] for n, v in found.items()} == pytest.approx({n: expected[n] for n in names})


def test_the_order_of_rows_changes_no_metric_of_draws():
    rows = rows_with_skill(8, count=30, ties=True)
    weights = np.random.default_rng(9).integers(0, 3, (5, 30)).astype(float)
    order = np.random.default_rng(10).permutation(30)
    found = metrics_of_draws(rows, weights)
    other = metrics_of_draws(rows.iloc[order], weights[:, order])
    for name in METRICS:
        assert other[name] == pytest.approx(found[name], nan_ok=True)


def test_draws_without_a_value_have_none():
    """The bootstrap gives NaN weights where there are too few groups."""
    rows = rows_with_skill(11, count=20)
    found = metrics_of_draws(rows, np.full((2, 20), np.nan))
    assert {name for name, values in found.items() if not np.isnan(values).all()} == set()


def test_the_auc_of_draws_counts_ties_half():
    truth, score = np.array([True, False, False]), np.array([0.5, 0.5, 0.1])
    weights = np.array([[1.0, 1, 0], [1, 1, 1], [1, 3, 1], [0, 1, 1], [2, 0, 0]])
    found = auc_of_draws(truth, score, weights)
    assert found[:3].tolist() == [0.5, 0.75, pytest.approx(2.5 / 4)] and np.isnan(found[3:]).all()


def test_cumulative_counts_are_those_at_or_above_each_score():
    rows = rows_with_skill(12, count=30, ties=True)
    truth, score = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    weights = np.random.default_rng(13).integers(0, 3, (4, 30))
    found, false = cumulative_counts(truth, score, weights)
    for column, at in enumerate(sorted(set(score), reverse=True)):
        assert (found[:, column] == weights @ (truth & (score >= at))).all()
        assert (false[:, column] == weights @ (~truth & (score >= at))).all()
    assert found.shape == (4, len(set(score)))
