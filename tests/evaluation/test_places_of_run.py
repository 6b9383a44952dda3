"""A run at another place: thresholds and probabilities from its tables, by patient."""

import numpy as np
import pytest

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation import operating_points, places
from cytology.evaluation.decision_sentences import elsewhere_sentences
from cytology.evaluation.statistics.prevalence import PREVALENCES


@pytest.fixture(scope="module")
def values(run_once):
    return places.predictive_values(run_once, 0.9, 0.0)


def test_at_the_prevalence_of_the_run_the_values_match_the_threshold_table(run_once, values):
    thresholds = operating_points.locked_thresholds(run_once, 0.9)
    asked = values[values["asked"]].set_index("model")
    assert set(asked.index) == set(ARCHITECTURE_NAMES)
    rows = thresholds[
        thresholds["rule"].eq("sensitivity") & thresholds["judged_on"].eq("out-of-fold")
    ]
    rows = rows.set_index("model").loc[asked.index]
    for name in ("recall", "specificity", "precision", "negative_predictive_value"):
        for end in ("", "_low", "_high"):
            np.testing.assert_allclose(asked[f"{name}{end}"], rows[f"{name}{end}"])
    np.testing.assert_allclose(asked["prevalence"], asked["malignant_share"])


def test_a_requested_prevalence_has_its_own_row(run_once, values):
    found = places.predictive_values(run_once, 0.9, 0.123)
    asked = found[found["asked"]]
    assert asked["prevalence"].tolist() == [0.123] * len(ARCHITECTURE_NAMES)
    assert len(found) == (len(PREVALENCES) + 1) * len(ARCHITECTURE_NAMES)
    assert len(values) <= len(found) and set(found["weights"]) == {"imagenet"}
    of_one = found[found["model"] == "mobilenetv2"]
    assert (of_one["precision"].diff().dropna() >= 0).all()


def test_decision_curves_at_another_prevalence_use_corrected_probabilities(run_once):
    here = places.decision_curves(run_once, 0.0)
    share = here["malignant_share"].iloc[0]
    same, rare = (places.decision_curves(run_once, p) for p in (share, 0.05))
    assert list(rare) == list(here) and (rare["malignant_share"] == 0.05).all()
    np.testing.assert_allclose(same["all"], here["all"], atol=1e-9)
    # Of the cross-fitted calibrations each has a share of its own, near the one of all.
    assert np.abs(same["densenet121"] - here["densenet121"]).max() < 0.05
    at = rare["threshold"] > 0.5
    assert np.abs(rare.loc[at, "densenet121"]).max() < 0.05


def test_guarantees_count_patients_and_hold_out_of_fold(run_once):
    found = places.promises(run_once, 0.2, 0.0)
    table = places.referral_table(found).set_index("model")
    rows = operating_points.predictions_to_choose_on(run_once, "mobilenetv2")[1]
    assert (table["patients"] == rows["group"].nunique()).all() and table["promised"].all()
    assert (table["missed"] <= 0.3).all() and set(table["judged_on"]) == {"out-of-fold"}
    none = places.referral_table(places.promises(run_once, 0.001, 0.0))
    assert not none["promised"].any() and none["referred"].eq(1).all()
    assert none["limit"].isna().all()
    there = places.referral_table(places.promises(run_once, 0.05, 0.3)).set_index("model")
    malignant = rows.loc[rows["label"] == "M", "group"].nunique()
    assert (there["patients"] == malignant).all() and (there["prevalence"] == 0.3).all()


def test_sentences_start_with_the_network_and_are_left_out_if_unsupported(run_once, values):
    found = places.promises(run_once, 0.2, 0.0)
    said = elsewhere_sentences(values, found, "patient")
    assert len(said) == 2 * len(ARCHITECTURE_NAMES)
    assert said[0].startswith("MobileNetV2: if ") and "% of the images are malignant" in said[0]
    assert any(each.startswith("DenseNet121: promised: if patients") for each in said)
    for changed in ({"weights": "random"}, {"protocol": "original"}):
        assert elsewhere_sentences(values.assign(**changed), found, "patient") == []
