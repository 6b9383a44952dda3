"""The sentences on thresholds and calibrations say what their tables say."""

import re

import numpy as np
import pytest

from cytology.evaluation import operating_points
from cytology.evaluation.decision_sentences import (
    calibration_in_words,
    decision_sentences,
    threshold_in_words,
)
from cytology.evaluation.summary import LEAKS, RANDOM


@pytest.fixture(scope="module")
def tables(run_once):
    return {
        "thresholds": operating_points.locked_thresholds(run_once, 0.9),
        "calibrations": operating_points.locked_calibrations(run_once),
    }


def sentences_of(tables, **changed):
    """The sentences, with other values in every row of both tables."""
    parts = [table.assign(**changed) for table in tables.values()]
    return decision_sentences(*parts, "out-of-fold", "patient")


def test_each_network_has_two_sentences_with_numbers_from_the_tables(tables):
    said, networks = sentences_of(tables), tables["thresholds"]["model"].nunique()
    assert len(said) == 2 * networks > 2
    numbers = {
        f"{value:.3f}"
        for table in tables.values()
        for value in table.select_dtypes("number").abs().to_numpy().ravel()
    }
    found = set(re.findall(r"\d\.\d{3}\b", " ".join(said)))
    assert len(found) > 10 and found <= numbers


def test_nothing_is_concluded_from_a_leak_random_weights_or_few_patients(tables):
    assert sentences_of(tables, protocol="given, leaks") == [LEAKS["given, leaks"]]
    assert sentences_of(tables, weights="random") == [RANDOM]
    (few,) = sentences_of(tables, groups=14, groups_malignant=4, groups_benign=10)
    assert few.startswith("No statement about the networks: they were judged out-of-fold on 14")
    one = tables["thresholds"]["model"].iloc[0]
    some = [table.copy() for table in tables.values()]
    for table in some:
        table.loc[table["model"] == one, "weights"] = "random"
    assert len(decision_sentences(*some, "out-of-fold", "patient")) == len(sentences_of(tables)) - 2


def calibration_sentence(tables, method, **numbers):
    """The sentence on a network's calibration, with other numbers in one of its rows."""
    calibrations = tables["calibrations"].copy()
    name = calibrations["model"].iloc[0]
    row = (calibrations["model"] == name) & (calibrations["method"] == method)
    for column, number in numbers.items():
        calibrations.loc[row, column] = number
    return calibration_in_words(calibrations, name, "out-of-fold")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.3, 0.9, "slope 0.60 (0.30 to 0.90), too sure;"),
        (0.3, 1.1, "slope 0.60 (0.30 to 1.10), not shown to differ from 1;"),
        (0.3, 0.999, "slope 0.60 (0.30 to 1.00), not shown to differ from 1;"),
        (1.2, 1.9, "slope 0.60 (1.20 to 1.90), not sure enough;"),
        (np.nan, np.nan, "slope 0.60 (no interval: it depends too much on one group);"),
    ],
)
def test_overconfidence_is_reported_if_the_interval_shows_it(tables, low, high, words):
    bounds = {"calibration_slope_low": low, "calibration_slope_high": high}
    assert words in calibration_sentence(tables, "none", calibration_slope=0.6, **bounds)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.03, -0.01, "lower the log loss: change -0.020 (-0.030 to -0.010); negative is better"),
        (-0.03, 0.01, "are not shown to change the log loss: change -0.020 (-0.030 to 0.010)"),
        (-0.03, -0.0001, "are not shown to change the log loss"),
        (0.01, 0.03, "raise the log loss"),
        (np.nan, np.nan, "are not shown to change the log loss: change -0.020 (no interval"),
    ],
)
def test_a_change_of_the_log_loss_is_reported_if_the_interval_shows_it(tables, low, high, words):
    bounds = {"loss_change_low": low, "loss_change_high": high}
    assert words in calibration_sentence(tables, "platt", loss_change=-0.02, **bounds)


def test_a_miscalibrated_mean_probability_is_reported(tables):
    name = "calibration_in_the_large"
    for low, high, words in (
        (0.1, 0.5, "too low overall."),
        (-0.5, -0.1, "too high overall."),
        (-0.5, 0.1, "not shown to differ from 0."),
    ):
        assert words in calibration_sentence(
            tables, "none", **{f"{name}_low": low, f"{name}_high": high}
        )
    assert "no calibration slope" in calibration_sentence(tables, "none", calibration_slope=np.nan)
    assert calibration_sentence(tables, "platt", note="why").endswith(
        "They are left unchanged: why."
    )


def test_the_threshold_sentence_uses_images_that_did_not_choose_it(tables):
    thresholds = tables["thresholds"]
    name = thresholds["model"].iloc[0]
    assert "judged cross-fitted" in threshold_in_words(thresholds, name, "out-of-fold")
    on_val = thresholds[thresholds["judged_on"] == "test"].assign(chosen_on="val")
    row = on_val[(on_val["model"] == name) & (on_val["rule"] == "sensitivity")].iloc[0]
    sentence = threshold_in_words(on_val, name, "test")
    assert "should find 90% of" in sentence and "judged on test" in sentence
    assert f"sensitivity {row['recall']:.3f}" in sentence
