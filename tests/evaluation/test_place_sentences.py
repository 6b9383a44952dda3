"""Sentences on another place and on referral say what their tables support, and no more."""

import re

import numpy as np
import pandas as pd
import pytest

from cytology.evaluation import place_sentences as say
from cytology.evaluation.statistics import elsewhere
from cytology.evaluation.statistics.prevalence import at_prevalence
from cytology.evaluation.statistics.referral import choose_referral, outcome

ODD = re.compile(r"\b(nan|inf)\b")


def rows_of(patients=30, images=2, seed=0, apart=3.0):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), images)
    score = apart * (group % 2 - 0.5) + rng.normal(size=len(group))
    label = np.where(group % 2, "M", "B")
    return pd.DataFrame({"label": label, "group": group, "logit": score})


def row_of(low, high, p=0.5, note="", moved=False):
    row = {"images": 60, "groups": 12, "prevalence": 0.1, "prevalence_low": low}
    more = {"prevalence_high": high, "fitted_share": 0.4, "p_moved": p}
    return row | more | {"moved": moved, "note": note}


def test_predictive_values_are_reported_with_their_prevalence():
    said = say.prevalence_sentence(at_prevalence(rows_of(), 0.1, 0.2), "slide")
    assert said.startswith("If 10 % of the images are malignant: precision 0.")
    assert "false alarms (" in said and "95 % by slide" in said and not ODD.search(said)


@pytest.mark.parametrize(("logit", "words"), [(-1.0, "nothing is called"), (1.0, "9.0 false")])
def test_calls_of_only_one_class_are_reported(logit, words):
    found = at_prevalence(rows_of().assign(logit=logit), 0.1, 0.2)
    said = say.prevalence_sentence(found, "patient")
    assert words in said and not ODD.search(said)


def test_only_wrong_calls_are_reported_as_false_alarms_only():
    rows = rows_of(apart=40.0)
    found = at_prevalence(rows.assign(logit=-rows["logit"]), 0.1, 0.2)
    assert "false alarms only" in say.prevalence_sentence(found, "patient")


def test_a_share_is_reported_with_its_assumptions():
    said = " ".join(say.share_sentences(row_of(0.02, 0.3), "patient"))
    assert (
        "an estimated 10 % are malignant" in said
        and "2 to 30 %" in said
        and "that is no proof" in said
    )


def test_shifted_logits_have_no_share():
    (said,) = say.share_sentences(row_of(0.02, 0.3, 0.01, moved=True), "patient")
    assert "not a mixture" in said and "10 %" not in said and "P = 0.01" in said


def test_an_unknown_share_is_reported():
    few = say.share_sentences(row_of(np.nan, np.nan, np.nan), "patient")
    assert "no interval" in few[0] and "cannot be tested" in few[2]
    assert "without labels" in few[0] and few[1].startswith(
        "This assumes that malignant images look"
    )
    (none,) = say.share_sentences(row_of(np.nan, np.nan, np.nan, "no slope fits"), "patient")
    assert none.endswith("is estimated: no slope fits.")


def test_calibration_at_the_other_site_and_its_gain_are_reported():
    rows = rows_of(60, seed=1, apart=1.5)
    rows["logit"] = 1.5 * rows["logit"] + 3
    said = say.there_sentence(elsewhere.calibration_there(rows), "patient")
    assert "the probabilities are too high" in said and not ODD.search(said)
    table = elsewhere.recalibration_gain(rows)
    assert "intercept lowers the log loss" in say.gain_sentence(table, "patient")
    few = elsewhere.recalibration_gain(rows[rows["group"] < 6])
    assert "needs 5 patients of each class" in say.gain_sentence(few, "patient")


def test_a_guarantee_is_reported_with_the_observed_result():
    patients = rows_of(60, 1)
    chosen = choose_referral(patients, 0.1)
    judged = outcome(patients.assign(referred=patients["logit"] >= chosen.limit))
    first, second = say.referral_sentences(chosen, judged, "patient")
    assert first.startswith("Promised: if patients of this kind") and "at most 10 % of all" in first
    assert "not what is promised" in second and not ODD.search(second)
    elsewhere_at = choose_referral(patients, 0.05, 0.2)
    (first, _) = say.referral_sentences(elsewhere_at, judged, "patient")
    assert "where 20 % of the patients are malignant" in first
    (nobody,) = say.referral_sentences(choose_referral(patients, 0.05, 0.04), judged, "patient")
    assert nobody.startswith("If none of the patients")


def test_a_guarantee_that_is_not_possible_names_the_required_patients():
    chosen = choose_referral(rows_of(30, 1), 0.01)
    (said,) = say.referral_sentences(chosen, {}, "field of view")
    assert "at most 1 % of all fields of view are missed" in said
    assert "that needs 99 fields of view, but there are 30" in said
