"""Thresholds by trying every cut, net benefit and abstention by hand."""

import numpy as np
import pandas as pd
import pytest

from cytology.decisions import (
    REFERRED,
    abstention_curve,
    choose_threshold,
    cross_fitted_calls,
    net_benefit,
)
from cytology.intervals import group_weights
from cytology.metrics import classification_metrics
from cytology.settings import InputError


def rows_of(labels, probabilities):
    rows = pd.DataFrame({"label": list(labels), "probability": probabilities})
    return rows.assign(group=range(len(rows)))


def rows_with_skill(seed, count=60, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    probability = 1 / (1 + np.exp(-np.where(truth, 0.8, -0.8) - rng.normal(size=count)))
    probability = probability.round(1) * 0.9 + 0.05 if ties else probability
    rows = rows_of(np.where(truth, "M", "B"), probability)
    return rows.assign(group=rows.index // 3, fold=rows.index // 3 % 4)


# ---------------------------------------------------------------------- thresholds


def sensitivity_and_specificity(rows, threshold):
    called, truth = rows["probability"] >= threshold, rows["label"] == "M"
    return called[truth].mean(), (~called)[~truth].mean()


def every_cut(rows):
    """A cut between every two neighbouring probabilities, below all and above all."""
    values = np.unique(rows["probability"])
    return np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_youdens_threshold_is_the_best_of_all_cuts(seed, ties):
    rows = rows_with_skill(seed, ties=ties)
    best = max(sum(sensitivity_and_specificity(rows, cut)) for cut in every_cut(rows))
    found = choose_threshold(rows, "youden", 0.9)
    assert sum(sensitivity_and_specificity(rows, found)) == pytest.approx(best)
    assert any(found == pytest.approx(cut) for cut in every_cut(rows)[1:-1])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95, 1.0])
def test_the_threshold_of_a_sensitivity_is_the_highest_cut_that_finds_it(wanted, ties):
    rows = rows_with_skill(5, ties=ties)
    enough = [cut for cut in every_cut(rows) if sensitivity_and_specificity(rows, cut)[0] >= wanted]
    found = choose_threshold(rows, "sensitivity", wanted)
    assert found == pytest.approx(max(enough))
    assert sensitivity_and_specificity(rows, found)[0] >= wanted


def test_the_threshold_lies_in_the_middle_of_the_gap():
    rows = rows_of("BBMM", [0.1, 0.3, 0.7, 0.9])
    assert choose_threshold(rows, "youden", 0.9) == pytest.approx(0.5)
    assert choose_threshold(rows, "sensitivity", 0.5) == pytest.approx(0.8)
    assert choose_threshold(rows, "sensitivity", 0.51) == pytest.approx(0.5)
    assert choose_threshold(rows, "half", 0.9) == 0.5


def test_a_sensitivity_reached_exactly_is_enough():
    rows = rows_of("B" + "M" * 10, [0.01, *np.linspace(0.1, 1, 10)])
    for found in range(1, 11):
        threshold = choose_threshold(rows, "sensitivity", found / 10)
        assert (rows["probability"] >= threshold).sum() == found


def test_all_malignant_from_the_lowest_image_on():
    rows = rows_of("MMBB", [0.2, 0.3, 0.6, 0.7])
    threshold = choose_threshold(rows, "sensitivity", 1.0)
    assert threshold <= 0.2 and (rows["probability"] >= threshold).all()


def test_a_network_worse_than_chance_calls_nothing_malignant_by_youden():
    rows = rows_of("BBMM", [0.9, 0.8, 0.2, 0.3])
    assert choose_threshold(rows, "youden", 0.9) == pytest.approx(0.95)


@pytest.mark.parametrize("rule", ["youden", "sensitivity"])
@pytest.mark.parametrize("label", ["M", "B"])
def test_one_class_chooses_no_threshold(rule, label):
    with pytest.raises(InputError, match="needs images of both classes"):
        choose_threshold(rows_of(label * 3, [0.1, 0.2, 0.3]), rule, 0.9)


def test_the_order_of_rows_and_of_groups_changes_no_threshold():
    rows = rows_with_skill(6, ties=True)
    for rule in ("youden", "sensitivity"):
        shuffled = rows.sample(frac=1, random_state=0)
        assert choose_threshold(shuffled, rule, 0.9) == choose_threshold(rows, rule, 0.9)


@pytest.mark.parametrize("rule", ["half", "youden", "sensitivity"])
def test_each_fold_is_called_at_the_threshold_of_the_others(rule):
    rows = rows_with_skill(7).sample(frac=1, random_state=0)
    found = cross_fitted_calls(rows, rule, 0.9)
    assert set(found["probability"]) == {0.0, 1.0} and (found.index == rows.index).all()
    for fold in range(4):
        threshold = choose_threshold(rows[rows["fold"] != fold], rule, 0.9)
        here = rows["fold"] == fold
        assert (found["probability"][here] == (rows["probability"][here] >= threshold)).all()


def test_the_labels_of_a_fold_do_not_reach_its_own_calls():
    rows = rows_with_skill(8)
    other = rows["label"].map({"B": "M", "M": "B"})
    flipped = rows.assign(label=rows["label"].mask(rows["fold"] == 1, other))
    before = cross_fitted_calls(rows, "youden", 0.9)["probability"]
    after = cross_fitted_calls(flipped, "youden", 0.9)["probability"]
    assert (after == before)[rows["fold"] == 1].all() and (after != before).any()


# ------------------------------------------------------------------- decision curve


def test_net_benefit_by_hand():
    """At 0.25: 2 of 5 are true and 2 false positives, each worth a third. At 0.8: one true."""
    rows = rows_of("MMMBB", [0.9, 0.5, 0.2, 0.6, 0.3])
    found = net_benefit(rows, np.array([0.25, 0.8]))
    assert found.tolist() == pytest.approx([2 / 5 - 2 / 5 / 3, 1 / 5])


def test_calling_all_malignant_is_worth_nothing_where_the_odds_are_those_of_the_rows():
    rows = rows_of("M" * 3 + "B" * 7, 1.0)
    assert net_benefit(rows, np.array([0.3, 0.1])).tolist() == pytest.approx([0, 0.3 - 0.7 / 9])
    assert net_benefit(rows.assign(probability=0.0), np.array([0.3])) == 0


def test_an_image_at_the_threshold_is_acted_upon():
    assert net_benefit(rows_of("MB", [0.5, 0.1]), np.array([0.5])) == 0.5


# ----------------------------------------------------------------------- abstention


def test_abstention_by_hand():
    """Ten images; the two least certain are the two wrong ones, one of each class."""
    rows = rows_of("MMMMMBBBBB", [0.9, 0.8, 0.9, 0.9, 0.46, 0.1, 0.2, 0.1, 0.1, 0.56])
    found = abstention_curve(rows, np.abs(rows["probability"] - 0.5), draws=20)
    found = found.set_index("referred")
    assert found.index.tolist() == [share / 100 for share in range(0, 55, 5)]
    expected = {0.0: (10, 8 / 10, 4 / 5, 4 / 5), 0.1: (9, 8 / 9, 1, 4 / 5), 0.2: (8, 1, 1, 1)}
    for share, numbers in expected.items():
        row = found.loc[share, ["images", "accuracy", "recall", "specificity"]]
        assert row.tolist() == pytest.approx(numbers)


def test_the_least_certain_go_first_whatever_certainty_says():
    rows = rows_with_skill(9)
    certainty = np.random.default_rng(0).permutation(len(rows))
    found = abstention_curve(rows, certainty, draws=5).set_index("referred")
    for share in (0.0, 0.25, 0.5):
        answered = rows[certainty >= round(share * len(rows))]
        expected = classification_metrics(answered)
        assert found.loc[share, "images"] == len(answered)
        for name in ("accuracy", "recall", "specificity"):
            assert found.loc[share, name] == pytest.approx(expected[name])


def test_the_intervals_draw_whole_groups_of_what_is_answered():
    rows = rows_with_skill(10)
    certainty = np.random.default_rng(1).permutation(len(rows))
    found = abstention_curve(rows, certainty, draws=15).set_index("referred")
    answered = certainty >= round(0.3 * len(rows))
    drawn = {"accuracy": [], "recall": [], "specificity": []}
    for weights in group_weights(rows, 15):
        members = [
            rows[(rows["group"] == g) & answered] for g in np.repeat(range(20), weights.astype(int))
        ]
        numbers = classification_metrics(pd.concat(members))
        for name, values in drawn.items():
            values.append(numbers[name])
    for name, values in drawn.items():
        expected = np.nanquantile(values, [0.025, 0.975])
        bounds = found.loc[0.3, [f"{name}_low", f"{name}_high"]]
        assert bounds.tolist() == pytest.approx(expected.tolist())


def test_referring_at_random_changes_little_and_referring_the_wrong_ones_much():
    rows = rows_with_skill(11, count=3000)
    right = (rows["probability"] >= 0.5) == (rows["label"] == "M")
    by_luck = abstention_curve(rows, np.random.default_rng(2).random(3000), draws=2)
    assert np.ptp(by_luck["accuracy"]) < 0.03
    by_truth = abstention_curve(rows, right.to_numpy(), draws=2)
    assert by_truth["accuracy"].is_monotonic_increasing and by_truth["accuracy"].iloc[-1] == 1
    assert by_luck["referred"].tolist() == REFERRED.tolist()


def test_where_no_malignant_image_is_answered_there_is_no_sensitivity():
    rows = rows_of("MBBB", [0.9, 0.1, 0.1, 0.1])
    found = abstention_curve(rows, np.array([0, 1, 2, 3]), draws=2)
    assert found["recall"].iloc[0] == 1 and np.isnan(found["recall"].iloc[-1])


def test_an_image_of_unknown_certainty_is_not_the_surest():
    rows = rows_of("MB", [0.1, 0.1])
    found = abstention_curve(rows, np.array([np.nan, 0.0]), draws=2)
    assert found["accuracy"].iloc[-1] == 1
