"""Every metric is scikit-learn's; the AUC is that of pairs of one fold."""

import math

import numpy as np
import pandas as pd
import pytest
from definitions import arrays_of, auc_slowly, drawn_rows
from sklearn import metrics as sk

from cytology.evaluation.statistics.metrics import (
    METRICS,
    OF_TWO_SHARES,
    auc_within_folds,
    calibration_bins,
    calibration_error,
    classification_metrics,
    cumulative_counts,
    truth_and_score,
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


def by_scikit_learn(rows, threshold=0.5):
    """The metrics that scikit-learn has, named as here."""
    truth = (rows["label"] == "M").to_numpy()
    probability = rows["probability"].to_numpy()
    called = probability >= threshold
    nan = {"zero_division": np.nan}
    return {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "recall": sk.recall_score(truth, called, **nan),
        "specificity": sk.recall_score(~truth, ~called, **nan),
        "precision": sk.precision_score(truth, called, **nan),
        "negative_predictive_value": sk.precision_score(~truth, ~called, **nan),
        "f1": sk.f1_score(truth, called, **nan),
        "mcc": sk.matthews_corrcoef(truth, called),
        "auc": sk.roc_auc_score(truth, probability),
        "average_precision": sk.average_precision_score(truth, probability),
        "loss": sk.log_loss(truth, probability, labels=[False, True]),
        "brier": sk.brier_score_loss(truth, probability, pos_label=True),
    }


def slow_calibration_error(truth, probability, bins):
    """Sum over bins of (rows of the bin / all) x |share malignant - mean probability|."""
    error = 0.0
    for number in set(bins):
        here = [i for i in range(len(truth)) if bins[i] == number]
        share = sum(truth[i] for i in here) / len(here)
        said = sum(probability[i] for i in here) / len(here)
        error += len(here) / len(truth) * abs(share - said)
    return error


# ------------------------------------------------------------------------- rows


def test_metrics_match_an_example_worked_by_hand():
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
def test_every_metric_matches_scikit_learn(threshold, ties):
    rows = rows_with_skill(0, ties=ties)
    found = classification_metrics(rows, threshold)
    expected = by_scikit_learn(rows, threshold)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    assert set(found) - set(expected) == {"ece", "ace"}


def test_only_the_requested_metrics_are_computed(monkeypatch):
    rows = rows_with_skill(3)
    every = classification_metrics(rows)
    monkeypatch.setattr(sk, "log_loss", None)  # fails if called
    assert classification_metrics(rows, names=("ece", "f1")) == {k: every[k] for k in ("ece", "f1")}
    with pytest.raises(TypeError):
        classification_metrics(rows, names=("loss",))


def test_a_probability_at_the_threshold_is_called_malignant():
    found = classification_metrics(rows_of("BM", [0.5, 0.5]))
    assert (found["recall"], found["specificity"]) == (1, 0)


def test_without_malignant_calls_precision_is_undefined():
    found = classification_metrics(rows_of("BM", [0.1, 0.2]))
    assert math.isnan(found["precision"]) and found["negative_predictive_value"] == 0.5
    assert found["recall"] == found["f1"] == found["mcc"] == 0 and found["auc"] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("label", "missing"), [("M", {"specificity"}), ("B", {"recall"})])
def test_one_class_has_only_the_metrics_that_are_defined(label, missing):
    found = classification_metrics(rows_of(label * 2, [0.1, 0.9]))
    missing = missing | {"balanced_accuracy", "mcc", "auc", "average_precision"}
    assert {name for name, value in found.items() if math.isnan(value)} == missing
    assert found["accuracy"] == 0.5


# ------------------------------------------------------------------ of two shares


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_other_metrics_follow_from_sensitivity_specificity_and_prevalence(threshold, seed):
    rows = rows_with_skill(seed)
    expected = by_scikit_learn(rows, threshold)
    malignant = (rows["label"] == "M").mean()
    for name, metric in OF_TWO_SHARES.items():
        found = metric(expected["recall"], expected["specificity"], malignant)
        assert found == pytest.approx(expected[name])


@pytest.mark.parametrize("name", list(OF_TWO_SHARES))
@pytest.mark.parametrize("malignant", [0.1, 0.5, 0.8])
def test_each_metric_rises_with_sensitivity_and_specificity(name, malignant):
    """`intervals.of_two_shares` relies on it."""
    grid = np.linspace(0, 1, 21)
    values = OF_TWO_SHARES[name](grid[:, None], grid[None], malignant)
    for axis in (0, 1):
        steps = np.diff(values, axis=axis)
        assert (steps[np.isfinite(steps)] >= -1e-12).all()


@pytest.mark.filterwarnings("error")
def test_without_malignant_calls_precision_and_correlation_are_undefined():
    none, all_ = np.zeros(1), np.ones(1)
    values = {name: metric(none, all_, 0.5) for name, metric in OF_TWO_SHARES.items()}
    assert {name for name in values if np.isnan(values[name])} == {"precision", "mcc"}


# ------------------------------------------------------------- AUC of pairs of a fold


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_auc_counts_pairs_within_one_fold(seed, mixed):
    rows = drawn_rows(seed, mixed=mixed, folds=3)
    truth, score, _, fold = arrays_of(rows)
    expected = auc_slowly(truth, score, fold)
    assert auc_within_folds(rows) == pytest.approx(expected)
    assert classification_metrics(rows)["auc"] == auc_within_folds(rows)
    assert expected != pytest.approx(sk.roc_auc_score(truth, score), abs=1e-4)


@pytest.mark.parametrize("folds", [{}, {"fold": np.nan}, {"fold": 2}, {"fold": [0, 1] * 40}])
def test_a_single_head_has_the_usual_auc(folds):
    """Rows of val have folds, too, but one model predicts them all."""
    rows = rows_with_skill(3).assign(model="final", **folds)
    assert auc_within_folds(rows) == pytest.approx(by_scikit_learn(rows)["auc"])


def test_the_scale_of_each_fold_does_not_matter_to_the_auc_within_folds():
    rows = drawn_rows(4, folds=4)
    shifted = rows.assign(logit=np.exp(rows["logit"] / 9) + 50 * rows["fold"])
    assert auc_within_folds(shifted) == pytest.approx(auc_within_folds(rows))
    assert auc_within_folds(shifted.drop(columns="fold")) < auc_within_folds(rows) - 0.05


def test_without_a_fold_of_both_classes_there_is_no_auc():
    rows = drawn_rows(5)
    assert np.isnan(auc_within_folds(rows.assign(fold=(rows["label"] == "M").astype(int))))
    assert np.isnan(auc_within_folds(rows.assign(label="B")))


def test_logits_distinguish_images_whose_probabilities_are_equal():
    rows = rows_of("BM", [1.0, 1.0]).assign(logit=[40.0, 50.0])
    assert auc_within_folds(rows) == 1 and truth_and_score(rows)[1].tolist() == [40, 50]
    assert auc_within_folds(rows.drop(columns="logit")) == 0.5


# ------------------------------------------------------------------- calibration


def test_the_expected_calibration_error_matches_a_slow_loop():
    rows = rows_with_skill(1)
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    bins = [int(p * 10) for p in probability]
    expected = slow_calibration_error(truth, probability, bins)
    assert calibration_error(truth, probability) == pytest.approx(expected)


def test_a_bin_edge_belongs_to_the_upper_bin():
    tenths = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert calibration_bins(tenths).tolist() == [*range(10), 9]


def test_the_adaptive_error_has_bins_of_equal_counts():
    rows = rows_with_skill(2, count=80)
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    order = np.argsort(probability)
    bins = np.empty(80, int)
    bins[order] = np.arange(80) // 8
    assert (calibration_bins(probability, adaptive=True) == bins).all()
    expected = slow_calibration_error(truth, probability, bins)
    assert calibration_error(truth, probability, adaptive=True) == pytest.approx(expected)


def test_equal_probabilities_share_a_bin():
    bins = calibration_bins(np.repeat([0.2, 0.7], 50), adaptive=True)
    assert len(set(bins[:50])) == len(set(bins[50:])) == 1 and bins[0] != bins[-1]
    assert set(calibration_bins(np.array([0.0, 1.0]))) == {0, 9}


def test_perfectly_calibrated_probabilities_have_no_error():
    truth, probability = np.arange(100) % 4 == 0, np.full(100, 0.25)
    assert calibration_error(truth, probability) == pytest.approx(0)
    assert calibration_error(truth, probability + 0.5) == pytest.approx(0.5)


# ------------------------------------------------------------------------ curves


def test_cumulative_counts_match_the_counts_at_or_above_each_score():
    rows = rows_with_skill(12, count=30, ties=True)
    truth, score = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy()
    weights = np.random.default_rng(13).integers(0, 3, (4, 30))
    found, false = cumulative_counts(truth, score, weights)
    for column, at in enumerate(sorted(set(score), reverse=True)):
        assert (found[:, column] == weights @ (truth & (score >= at))).all()
        assert (false[:, column] == weights @ (~truth & (score >= at))).all()
    assert found.shape == (4, len(set(score)))
