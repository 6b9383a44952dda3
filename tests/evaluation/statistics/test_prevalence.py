"""Predictive values, net benefit and probabilities at another share of malignant images."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from cytology.evaluation.statistics.decisions import (
    benefit_bands,
    choose_threshold,
    net_benefit,
    relative_to_threshold,
)
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.evaluation.statistics.prevalence import (
    at_other_share,
    at_prevalence,
    at_prevalences,
    benefits_at,
)
from cytology.settings import InputError


def some_rows(seed=0, patients=40, images=3):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), images)
    truth = group % 5 < 2
    score = 2 * truth + rng.normal(size=patients)[group] + rng.normal(size=len(group)) - 1
    rows = pd.DataFrame({"label": np.where(truth, "M", "B"), "group": group, "logit": score})
    return rows.assign(probability=expit(score), fold=group % 4)


def by_hand():
    """Of ten malignant images eight are found, of ten benign ones one is called malignant."""
    logits = [1.0] * 8 + [-1.0] * 2 + [1.0] + [-1.0] * 9
    return pd.DataFrame({"label": ["M"] * 10 + ["B"] * 10, "logit": logits, "group": range(20)})


def test_predictive_values_at_ten_percent_match_a_hand_calculation():
    found = at_prevalence(by_hand(), 0.1, act_from=0.2)
    assert (found["recall"], found["specificity"]) == (0.8, 0.9)
    assert found["precision"] == pytest.approx(0.08 / (0.08 + 0.09))
    assert found["negative_predictive_value"] == pytest.approx(0.81 / (0.81 + 0.02))
    assert found["false_alarms"] == pytest.approx(0.09 / 0.08)
    assert found["net_benefit"] == pytest.approx(0.08 - 0.09 / 4)
    assert (found["images"], found["groups_malignant"]) == (20, 10)


def test_at_the_prevalence_of_the_rows_values_match_the_comparison():
    rows = relative_to_threshold(some_rows(), 0.3)
    share = (rows["label"] == "M").mean()
    expected, found = metrics_with_intervals(rows), at_prevalence(rows, share, 0.5)
    for name in ("recall", "specificity", "precision", "negative_predictive_value"):
        for end in ("", "_low", "_high"):
            assert found[name + end] == pytest.approx(expected[name + end])
    assert found["net_benefit"] == pytest.approx(net_benefit(rows, np.array([0.5]))[0])
    low, high = benefit_bands(rows, np.array([0.5]))[:, 0]
    assert (found["net_benefit_low"], found["net_benefit_high"]) == pytest.approx((low, high))


def test_false_alarms_per_hit_are_the_odds_against_a_malignant_call():
    found = at_prevalence(some_rows(), 0.02, 0.1)
    assert found["false_alarms_low"] < found["false_alarms"] < found["false_alarms_high"]
    for one, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
        assert found[f"false_alarms{one}"] == pytest.approx(1 / found[f"precision{other}"] - 1)


def test_lower_prevalence_lowers_precision_and_raises_the_negative_predictive_value():
    table = at_prevalences(some_rows(), 0.2)
    assert table["precision"].is_monotonic_increasing
    assert table["negative_predictive_value"].is_monotonic_decreasing
    assert table["recall"].nunique() == table["specificity"].nunique() == 1


def test_without_malignant_calls_there_is_no_precision():
    found = at_prevalence(by_hand().assign(logit=-1.0), 0.1, 0.2)
    assert np.isnan([found["precision"], found["false_alarms"]]).all()
    assert found["net_benefit"] == 0


def test_false_calls_only_give_infinite_false_alarms_per_hit():
    rows = by_hand()
    rows["logit"] = np.where(rows["label"] == "B", 1.0, -1.0)
    found = at_prevalence(rows, 0.1, 0.2)
    assert found["precision"] == 0 and np.isinf(found["false_alarms"])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 10])
def test_the_prevalence_must_be_between_0_and_1(share):
    with pytest.raises(InputError, match="`prevalence` is .* above 0 and below 1"):
        at_prevalence(by_hand(), share, 0.2)


def test_corrected_probabilities_follow_bayes():
    score = np.linspace(-3, 5, 9)
    rows = pd.DataFrame({"logit": 2 * score - 2 + logit(0.4)})  # N(0, 1) and N(2, 1), 40 % of it
    found = at_other_share(rows, 0.4, 0.05)["probability"]
    malignant, benign = 0.05 * norm.pdf(score, 2), 0.95 * norm.pdf(score)
    assert found.tolist() == pytest.approx(list(malignant / (malignant + benign)))
    assert rows.equals(at_other_share(rows, 0.4, 0.4)[["logit"]])


def test_decision_curves_at_the_prevalence_of_the_rows_are_the_usual_ones():
    rows, at = some_rows(), np.array([0.1, 0.4, 0.7])
    share = (rows["label"] == "M").mean()
    found = benefits_at({"mobilenetv2": rows}, share, at)
    assert found["mobilenetv2"].tolist() == pytest.approx(list(net_benefit(rows, at)))
    expected = benefit_bands(rows, at)
    for end, bound in zip(("_low", "_high"), expected, strict=True):
        assert found[f"mobilenetv2{end}"].tolist() == pytest.approx(list(bound))
    everything = net_benefit(rows.assign(probability=1.0), at)
    assert found["all"].tolist() == pytest.approx(list(everything))


def test_out_of_fold_rows_have_wider_intervals():
    rows = some_rows().assign(model="oof")
    rows = relative_to_threshold(rows, choose_threshold(rows, "youden", 0.9))
    crossed, fixed = (at_prevalence(each, 0.1, 0.2) for each in (rows, rows.drop(columns="fold")))
    assert crossed["precision"] == fixed["precision"]
    assert crossed["precision_low"] < fixed["precision_low"]
