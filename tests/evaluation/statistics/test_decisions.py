"""Thresholds by trying every cut and in simulated studies, net benefit and abstention by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from cytology.evaluation.statistics.decisions import (
    abstention_curve,
    benefit_bands,
    choose_threshold,
    cross_fitted_calls,
    net_benefit,
    one_sided,
    relative_to_threshold,
    why_not_promised,
)
from cytology.evaluation.statistics.intervals import called_intervals, metrics_with_intervals
from cytology.evaluation.statistics.metrics import classification_metrics
from cytology.settings import InputError


def rows_of(labels, logits):
    rows = pd.DataFrame({"label": list(labels), "logit": logits, "probability": expit(logits)})
    return rows.assign(group=range(len(rows)))


def rows_with_skill(seed, count=60, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    score = np.where(truth, 0.8, -0.8) + rng.normal(size=count)
    rows = rows_of(np.where(truth, "M", "B"), score.round() if ties else score)
    return rows.assign(group=rows.index // 3, fold=rows.index // 3 % 4)


# ---------------------------------------------------------------------- thresholds


def sensitivity_and_specificity(rows, threshold):
    called, truth = rows["logit"] >= threshold, rows["label"] == "M"
    return called[truth].mean(), (~called)[~truth].mean()


def every_cut(rows):
    """A cut between every two neighbouring logits, below all and above all."""
    values = np.unique(rows["logit"])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[values[0] - 1], middle, [values[-1] + 1]])


def risk(rows, threshold):
    """The mean share missed in malignant groups, one more in which all are missed among them."""
    malignant = rows[rows["label"] == "M"]
    missed = (malignant["logit"] < threshold).groupby(malignant["group"]).mean()
    return (missed.sum() + 1) / (len(missed) + 1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_youdens_threshold_is_the_best_cut(seed, ties):
    rows = rows_with_skill(seed, ties=ties)
    best = max(sum(sensitivity_and_specificity(rows, cut)) for cut in every_cut(rows))
    found = choose_threshold(rows, "youden", 0.9)
    assert sum(sensitivity_and_specificity(rows, found)) == pytest.approx(best)
    assert any(found == pytest.approx(cut) for cut in every_cut(rows))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("wanted", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_of_a_sensitivity_is_the_highest_cut_within_the_risk(seed, wanted, ties):
    rows = rows_with_skill(seed, count=150, ties=ties)
    enough = [cut for cut in rows["logit"] if risk(rows, cut) <= 1 - wanted + 1e-12]
    found = choose_threshold(rows, "sensitivity", wanted)
    assert (rows["logit"] >= found).sum() == (rows["logit"] >= max(enough)).sum()
    assert risk(rows, found) <= 1 - wanted + 1e-12 < risk(rows, np.nextafter(found, np.inf))
    assert why_not_promised(rows, wanted, "patient") == ""


def test_an_image_is_weighted_by_its_share_of_the_patient():
    """Ten patients, 90 % of whose images are allowed to be missed: one patient has nine images."""
    rows = pd.DataFrame({"group": [0] * 9 + list(range(1, 10)), "label": "M"})
    rows["logit"] = np.arange(18.0)
    rows = pd.concat([rows, pd.DataFrame({"group": [99], "label": "B", "logit": [-5.0]})])
    # (1 + share missed) / 11 <= 0.2 allows for 1.2 patients: the nine images, and no more.
    assert choose_threshold(rows, "sensitivity", 0.8) == 9.0


@pytest.mark.parametrize("patients", [20, 50])
@pytest.mark.parametrize("unequal", [False, True])
def test_a_guaranteed_sensitivity_holds_on_average(patients, unequal):
    """Fixed scores of patients with correlated images; attained in new patients."""
    rng, attained = np.random.default_rng(patients), []

    def malignant(count):
        sizes = np.exp(rng.uniform(0, np.log(60), count)).astype(int) if unequal else 6
        group = np.repeat(np.arange(count), sizes)
        score = rng.normal(size=count)[group] + rng.normal(size=len(group))
        return pd.DataFrame({"label": "M", "group": group, "logit": score})

    benign = pd.DataFrame({"label": ["B"], "group": [-1], "logit": [-9.0]})
    for _ in range(300):
        chosen = choose_threshold(pd.concat([malignant(patients), benign]), "sensitivity", 0.95)
        new = malignant(200)
        attained.append((new["logit"] >= chosen).groupby(new["group"]).mean().mean())
    error = np.std(attained) / np.sqrt(300)
    # Not less, and with this many patients not much more.
    assert 0.95 - 2 * error <= np.mean(attained) <= 0.97 + 0.5 / patients


@pytest.mark.parametrize(("wanted", "needed"), [(0.95, 19), (0.9, 9), (0.8, 4), (0.5, 1)])
def test_the_number_of_patients_for_a_guarantee_is_known(wanted, needed):
    for there in (needed - 1, needed):
        rows = rows_of("M" * there + "B", np.arange(there + 1.0))
        promised = there >= needed and risk(rows, rows["logit"].min()) <= 1 - wanted + 1e-12
        assert (why_not_promised(rows, wanted, "patient") == "") == promised


def test_without_enough_patients_the_threshold_is_the_lowest_and_this_is_noted():
    rows = rows_of("BBMMM", [0.1, 0.3, 0.7, 0.9, 2.0])
    assert choose_threshold(rows, "sensitivity", 0.95) == 0.7
    assert why_not_promised(rows, 0.95, "field of view") == (
        "a sensitivity of 95% cannot be promised: it needs 19 malignant fields of view, but there "
        "are 3; the threshold is the lowest score of a malignant image"
    )
    assert "no number of patients is enough" in why_not_promised(rows, 1.0, "patient")
    assert choose_threshold(rows, "sensitivity", 1.0) == 0.7


def test_youdens_threshold_is_in_the_middle_of_the_gap():
    rows = rows_of("BBMM", [0.1, 0.3, 0.7, 0.9])
    assert choose_threshold(rows, "youden", 0.9) == pytest.approx(0.5)
    assert choose_threshold(rows, "sensitivity", 0.3) == 0.9
    assert choose_threshold(rows, "half", 0.9) == 0.0


def test_saturated_probabilities_are_separated_by_a_threshold_on_logits():
    """Their probabilities all round to exactly 1."""
    rows = rows_of("BBBMMM", [40.0, 50.0, 60.0, 70.0, 80.0, 90.0])
    assert (rows["probability"] == 1).all()
    for rule in ("youden", "sensitivity"):
        chosen = choose_threshold(rows, rule, 0.75)
        assert chosen == {"youden": 65, "sensitivity": 70}[rule]
        found = classification_metrics(relative_to_threshold(rows, chosen))
        assert found["recall"] == found["specificity"] == 1


def test_a_threshold_at_the_lowest_logit_calls_every_image_malignant():
    rows = rows_of("MMBB", [0.2, 0.3, 0.6, 0.7])
    threshold = choose_threshold(rows, "sensitivity", 1.0)
    assert threshold <= 0.2 and one_sided(rows, threshold) == "calls every image malignant"


def test_a_network_worse_than_chance_calls_nothing_malignant_by_youden():
    rows = rows_of("BBMM", [0.9, 0.8, 0.2, 0.3])
    threshold = choose_threshold(rows, "youden", 0.9)
    assert threshold > 0.9 and one_sided(rows, threshold) == "calls no image malignant"


@pytest.mark.parametrize("rule", ["youden", "sensitivity"])
@pytest.mark.parametrize("label", ["M", "B"])
def test_no_threshold_is_chosen_from_one_class(rule, label):
    with pytest.raises(InputError, match="needs images of both classes"):
        choose_threshold(rows_of(label * 3, [0.1, 0.2, 0.3]), rule, 0.9)


def test_row_and_group_order_change_no_threshold():
    rows = rows_with_skill(6, ties=True)
    for rule in ("youden", "sensitivity"):
        shuffled = rows.sample(frac=1, random_state=0)
        assert choose_threshold(shuffled, rule, 0.9) == choose_threshold(rows, rule, 0.9)


@pytest.mark.parametrize("rule", ["half", "youden", "sensitivity"])
def test_each_fold_uses_the_threshold_of_the_other_folds(rule):
    rows = rows_with_skill(7).sample(frac=1, random_state=0)
    found = cross_fitted_calls(rows, rule, 0.9)
    assert (found.index == rows.index).all()
    for fold in range(4):
        threshold = choose_threshold(rows[rows["fold"] != fold], rule, 0.9)
        here = rows["fold"] == fold
        called = rows["logit"][here] >= threshold
        assert ((found["logit"][here] >= 0) == called).all()
        assert ((found["probability"][here] >= 0.5) == called).all()


def test_the_labels_of_a_fold_do_not_affect_its_own_calls():
    rows = rows_with_skill(8)
    other = rows["label"].map({"B": "M", "M": "B"})
    flipped = rows.assign(label=rows["label"].mask(rows["fold"] == 1, other))
    before = cross_fitted_calls(rows, "youden", 0.9)["probability"]
    after = cross_fitted_calls(flipped, "youden", 0.9)["probability"]
    assert (after == before)[rows["fold"] == 1].all() and (after != before).any()


# ------------------------------------------------------------------- decision curve


def test_net_benefit_matches_a_hand_calculation():
    """At 0.25: 2 of 5 are true and 2 false positives, each worth a third. At 0.8: one true."""
    rows = rows_of("MMMBB", logit([0.9, 0.5, 0.2, 0.6, 0.3]))
    found = net_benefit(rows, np.array([0.25, 0.8]))
    assert found.tolist() == pytest.approx([2 / 5 - 2 / 5 / 3, 1 / 5])


def test_the_band_of_net_benefit_combines_those_of_both_shares():
    """By Zou & Donner's formula, since the net benefit is a weighted sum of both."""
    rows = rows_with_skill(12).drop(columns="fold")
    truth, odds = (rows["label"] == "M").to_numpy(), 0.6 / 0.4
    low, high = benefit_bands(rows, np.array([0.6]))
    called = (rows["probability"] >= 0.6).to_numpy()
    weights = truth.mean(), (1 - truth.mean()) * odds
    found = called[truth].mean(), (~called[~truth]).mean()
    reach = np.array(called_intervals(rows, called)).T - found
    value = net_benefit(rows, np.array([0.6]))[0]
    below, above = np.sqrt(((np.array(weights) * reach) ** 2).sum(axis=1))
    assert (low[0], high[0]) == pytest.approx((value - below, value + above), abs=1e-3)


def test_calling_all_malignant_has_no_net_benefit_at_the_prevalence():
    rows = rows_of("M" * 3 + "B" * 7, 1.0).assign(probability=1.0)
    assert net_benefit(rows, np.array([0.3, 0.1])).tolist() == pytest.approx([0, 0.3 - 0.7 / 9])
    assert net_benefit(rows.assign(probability=0.0), np.array([0.3])) == 0


def test_an_image_at_the_threshold_is_called_malignant():
    assert net_benefit(rows_of("MB", logit([0.5, 0.1])), np.array([0.5])) == 0.5


# ----------------------------------------------------------------------- abstention


def test_abstention_matches_a_hand_calculation():
    """Ten images; the two least certain are the two wrong ones, one of each class."""
    rows = rows_of("MMMMMBBBBB", [3.0, 2.0, 3.0, 3.0, -0.2, -3.0, -2.0, -3.0, -3.0, 0.3])
    found = abstention_curve(rows, rows["logit"].abs())
    found = found.set_index("referred")
    assert found.index.tolist() == [share / 100 for share in range(0, 55, 5)]
    expected = {0.0: (10, 8 / 10, 4 / 5, 4 / 5), 0.1: (9, 8 / 9, 1, 4 / 5), 0.2: (8, 1, 1, 1)}
    for share, numbers in expected.items():
        row = found.loc[share, ["images", "accuracy", "recall", "specificity"]]
        assert row.tolist() == pytest.approx(numbers)


def test_the_least_certain_are_referred_first_by_any_measure_of_certainty():
    rows = rows_with_skill(9)
    certainty = np.random.default_rng(0).permutation(len(rows))
    found = abstention_curve(rows, certainty).set_index("referred")
    for share in (0.0, 0.25, 0.5):
        answered = rows[certainty >= round(share * len(rows))]
        expected = classification_metrics(answered)
        assert found.loc[share, "images"] == len(answered)
        for name in ("accuracy", "recall", "specificity"):
            assert found.loc[share, name] == pytest.approx(expected[name])


def test_the_intervals_use_only_the_answered_images():
    rows = rows_with_skill(10)
    certainty = np.random.default_rng(1).permutation(len(rows))
    row = abstention_curve(rows, certainty).set_index("referred").loc[0.3]
    expected = metrics_with_intervals(rows[certainty >= round(0.3 * len(rows))])
    for name in ("accuracy", "recall", "specificity"):
        assert row[f"{name}_low"] == pytest.approx(expected[f"{name}_low"])
        assert row[f"{name}_high"] == pytest.approx(expected[f"{name}_high"])


def test_without_answered_malignant_images_there_is_no_sensitivity():
    rows = rows_of("MBBB", [2.0, -2.0, -2.0, -2.0])
    found = abstention_curve(rows, np.array([0, 1, 2, 3]))
    assert found["recall"].iloc[0] == 1 and np.isnan(found["recall"].iloc[-1])


def test_an_image_of_unknown_certainty_is_not_the_most_certain():
    rows = rows_of("MB", [-2.0, -2.0])
    found = abstention_curve(rows, np.array([np.nan, 0.0]))
    assert found["accuracy"].iloc[-1] == 1
