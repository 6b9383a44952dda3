"""The summary agrees with the tables, and says `better` only if the test allows it."""

import re

import numpy as np
import pandas as pd
import pytest

from cytology.evaluation import comparison
from cytology.evaluation.seed_spread import reversed_pairs
from cytology.evaluation.summary import (
    LEAKS,
    RANDOM,
    baseline_in_words,
    best_network_sentence,
    more_in_words,
    pairs_in_words,
    summary,
    worth_in_words,
)
from cytology.run import BASELINE

PAIR = {"first": "mobilenetv2", "second": "densenet121", "auc_first": 0.8, "auc_second": 0.9}
PAIR |= {"difference": 0.1, "difference_low": 0.02, "difference_high": 0.18, "p_holm": 0.01}
PAIR |= {"separated": True, "family": "networks", "level": "image", "judged_on": "out-of-fold"}
PAIR |= {"groups": 20, "groups_malignant": 12, "groups_benign": 8}


def pair(**changed):
    return pd.DataFrame([PAIR | changed])


@pytest.fixture(scope="module")
def tables(run_once):
    baseline = comparison.baseline_of(run_once)
    return {
        "table": comparison.comparison(run_once),
        "pairs": comparison.pairs_of_models(run_once, baseline),
        "unit": "patient",
        "seeds": pd.DataFrame(),
        "everything": comparison.comparison_all(run_once, baseline),
    }


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "DenseNet121 separates the classes better than MobileNetV2: AUC higher by 0.100"),
        (
            {"difference": -0.1, "difference_low": -0.18, "difference_high": -0.02},
            "MobileNetV2 separates the classes better than DenseNet121: AUC higher by 0.100 "
            "(95 %, for this pair alone, 0.020 to 0.180; P = 0.01 after Holm)",
        ),
        ({"separated": False}, "The data do not separate MobileNetV2 from DenseNet121"),
    ],
)
def test_a_model_is_called_better_only_if_separated(changed, words):
    assert pairs_in_words(pair(**changed), "patient", {})[0].startswith(f"By image: {words}")


BASELINE_ROW = {"model": BASELINE, "level": "image", "judged_on": "out-of-fold", "auc": 0.8}


def test_the_baseline_is_beaten_only_if_a_test_shows_it():
    better = pair(first=BASELINE)
    both = pd.concat([better, pair(first=BASELINE, second="inceptionv3", separated=False)])
    above = pd.DataFrame([BASELINE_ROW | {"auc_low": 0.7, "auc_high": 0.9}])
    assert baseline_in_words(better, above) == [
        "Size and mean colour alone reach AUC 0.800 (95 % 0.700 to 0.900). Better than that: "
        "DenseNet121."
    ]
    (said,) = baseline_in_words(both, above)
    assert "Not shown to be better than that: InceptionV3. Such a network may" in said


def test_a_baseline_at_chance_level_explains_nothing():
    """A baseline of 0.505 beside a network of 0.56 is no sign of a stain."""
    rows = pd.DataFrame([BASELINE_ROW | {"auc": 0.505, "auc_low": 0.45, "auc_high": 0.6}])
    not_shown = pair(first=BASELINE, auc_first=0.505, separated=False)
    (said,) = baseline_in_words(not_shown, rows)
    assert "not shown to be better than chance, so beating it says little" in said
    assert "Not shown to be better than that: DenseNet121." in said and "stain" not in said


def test_averaging_is_recommended_only_if_it_helped():
    better = pair(second="ensemble")
    none = pair(second="ensemble", separated=False)
    worse = pair(second="ensemble", difference=-0.2, difference_low=-0.3, difference_high=-0.1)
    assert (
        "the ensemble is better than MobileNetV2 (AUC 0.900 against 0.800)"
        in more_in_words(better)[0]
    )
    assert "made no difference that these data can show (after Holm)" in more_in_words(none)[0]
    assert "the ensemble is worse than MobileNetV2" in more_in_words(worse)[0]
    assert more_in_words(pair().iloc[:0]) == []


def test_behind_a_closed_gate_comparisons_are_reported_as_not_tested():
    more = pair(second="ensemble", family="more than one", separated=False)
    rows = pd.concat([pair(separated=False), pair(level="patient", separated=False), more])
    first, closed = pairs_in_words(rows, "patient", {})
    assert first.startswith("By image: The data do not separate")
    assert closed == (
        "Not tested: networks by patient and averages of predictions, since no two networks are "
        "separated by image."
    )
    opened = pairs_in_words(rows.assign(separated=True), "patient", {})
    assert [said.split(":")[0] for said in opened] == ["By image", "By patient", "Averaging"]


def test_every_number_in_the_summary_is_in_a_table(tables):
    sentences = summary(**tables)
    numbers = {
        f"{value:.3f}"
        for table in tables.values()
        if isinstance(table, pd.DataFrame)
        for value in table.select_dtypes("number").abs().to_numpy().ravel()
    }
    said = set(re.findall(r"\d\.\d{3}\b", " ".join(sentences))) - {"0.001"}
    assert len(said) > 20 and said <= numbers


def test_the_leading_network_has_the_highest_auc_in_the_table(tables):
    best = tables["table"].sort_values("auc").iloc[-1]
    answered, each, about, *_ = summary(**tables)
    assert evaluation_title(best["architecture"]) in answered and f"{best['auc']:.3f}" in answered
    counts = f"{best['images']} images of {best['groups']} patients: 12 malignant, 12 benign"
    assert each.startswith(f"AUC out-of-fold with 95 % intervals by patient ({counts}): ")
    assert f"{evaluation_title(best['architecture'])} {best['auc']:.3f} (" in each
    assert "heads trained on as many patients of this kind" in about


def three(**changed):
    table = {
        "architecture": ["mobilenetv2", "inceptionv3", "densenet121"],
        "auc": [0.8, 0.7, 0.9],
        "auc_low": [0.7, 0.6, 0.85],
        "auc_high": [0.9, 0.8, 0.95],
        "judged_on": "out-of-fold",
        "groups": 20,
        "groups_malignant": 12,
        "groups_benign": 8,
    }
    return pd.DataFrame(table | changed)


def three_pairs(*separated):
    """The pairs of DenseNet121 with the others, and that of the others."""
    second = pair(first="densenet121", second="inceptionv3", separated=separated[1])
    return pd.concat(
        [
            pair(separated=separated[0]),
            second.assign(difference=-0.2, difference_low=-0.3, difference_high=-0.1),
            pair(second="inceptionv3", difference=-0.1),
        ]
    )


@pytest.mark.parametrize(
    ("separated", "words"),
    [
        (
            (True, True),
            "DenseNet121 separates the classes best: AUC 0.900 (95 % interval 0.850 to 0.950; 20 "
            "slides: 12 malignant, 8 benign), better than MobileNetV2 and InceptionV3.",
        ),
        (
            (False, False),
            "No network is shown to be the best: DenseNet121 has the highest AUC, 0.900 (95 % ",
        ),
        (
            (False, True),
            "It is better than InceptionV3, but not shown to be better than MobileNetV2.",
        ),
    ],
)
def test_a_best_network_is_named_only_if_it_beats_all_others(separated, words):
    (said,) = best_network_sentence(three(), three_pairs(*separated), "slide", {})
    assert words in said
    assert best_network_sentence(three().iloc[:1], pair().iloc[:0], "slide", {}) == []


def test_a_tie_has_no_winner():
    """Of two perfect networks none has the highest AUC."""
    (said,) = best_network_sentence(
        three(auc=[1.0, 0.7, 0.99996]), three_pairs(True, True), "patient", {}
    )
    assert said == (
        "No network is shown to be the best: MobileNetV2 and DenseNet121 have the same AUC, 1.000 "
        "(20 patients: 12 malignant, 8 benign)."
    )


def test_the_first_sentence_mentions_the_other_seeds():
    seeds = pd.DataFrame(
        {
            "architecture": ["mobilenetv2", "inceptionv3", "densenet121"] * 3,
            "seed": np.repeat([0, 1, 2], 3),
            "auc": [0.8, 0.7, 0.9, 0.8, 0.7, 0.8004, 0.85, 0.7, 0.8],
            "judged_on": "out-of-fold",
        }
    )
    turned = reversed_pairs(seeds, three())
    assert turned == {frozenset(("mobilenetv2", "densenet121")): 2}
    (said,) = best_network_sentence(three(), three_pairs(True, True), "patient", turned)
    assert "better than InceptionV3, but not shown to be better than MobileNetV2." in said
    assert said.endswith("With seed 2, MobileNetV2 has the higher AUC of the two.")
    by_image, *_ = pairs_in_words(three_pairs(True, True), "patient", turned)
    assert by_image.endswith("With seed 2 their order is reversed, so this is not a finding.")
    assert (
        reversed_pairs(seeds.assign(judged_on="test"), three())
        == {}
        == reversed_pairs(pd.DataFrame(), three())
    )


def test_nothing_is_concluded_from_fewer_than_five_patients_of_a_class(tables):
    few = tables["table"].assign(groups=14, groups_malignant=4, groups_benign=10)
    assert summary(**tables | {"table": few}) == [
        "No statement about the networks: they were judged out-of-fold on 14 patients: 4 "
        "malignant, 10 benign, and fewer than 5 of a class are too few for any number."
    ]


def evaluation_title(name):
    return {"mobilenetv2": "MobileNetV2", "inceptionv3": "InceptionV3"}.get(name, "DenseNet121")


def test_no_winner_is_named_with_a_leak_or_random_weights(tables):
    leaking = tables | {"table": tables["table"].assign(protocol="original")}
    random = tables["table"].copy()
    random.loc[1, "weights"] = "random"
    assert summary(**leaking) == [LEAKS["original"]]
    given = tables | {"table": tables["table"].assign(protocol="given, leaks")}
    assert summary(**given) == [LEAKS["given, leaks"]] != [LEAKS["original"]]
    assert len(summary(**tables | {"table": tables["table"].assign(protocol="given")})) > 3
    pairs = tables["pairs"].copy()
    of_random = (pairs[["first", "second"]] == random.loc[1, "architecture"]).any(axis=1)
    pairs.loc[of_random | pairs["second"].str.contains("inception|ensemble"), "weights"] = "random"
    some = summary(**tables | {"table": random, "pairs": pairs})
    assert some[0].startswith("No network is shown to be the best")  # the report begins with it
    assert some[1].startswith("No pretrained weights for InceptionV3: it only checks the software ")
    assert "winner" not in " ".join(some) and "InceptionV3" not in " ".join([some[0], *some[2:]])
    everything = tables["table"].assign(weights="random")
    assert summary(**tables | {"table": everything}) == [RANDOM]


def test_the_effect_of_one_patient_on_accuracy_is_reported():
    row = pd.Series({"groups": 20, "images": 270})
    assert worth_in_words(row, "slide") == (
        "One slide of the 20 is worth 5.0 points of accuracy on average (13.5 images): a smaller "
        "difference can depend on a single slide."
    )
