"""The lines below a report's answer: each line and the recommendation match the tables."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from wrong_words import EACH

from cytology.report.advice import recommendation, short_summary
from cytology.report.first_lines import lines
from cytology.report.page import write_report
from cytology.run import BASELINE, Run

FIRST, SECOND = "mobilenetv2", "densenet121"
LEAK = {"test_images_with_copy_in_training": 0, "groups_in_several_splits": 0}
LEAK |= {"test_images": 36, "groups": 40}
ABOUT = {"weights": "imagenet", "protocol": "grouped", "judged_on": "out-of-fold"}
COUNTS = {"images": 204, "groups": 34, "groups_malignant": 17, "groups_benign": 17}


def comparison(**changed):
    auc = {"architecture": [FIRST, SECOND], "auc": [0.94, 0.96]}
    auc |= {"auc_low": [0.8, 0.82], "auc_high": [0.98, 0.99], "recipe": "head"}
    return pd.DataFrame(auc).assign(**ABOUT, **COUNTS, **{"accuracy": 0.9}).assign(**changed)


def pairs(separated=False, beats=(True, True), **changed):
    rows = [("networks", FIRST, SECOND, 0.94, 0.96, -0.03, 0.07, separated)]
    rows += [
        ("baseline", BASELINE, name, 0.6, auc, 0.1, 0.5, better)
        for name, auc, better in zip((FIRST, SECOND), (0.94, 0.96), beats, strict=True)
    ]
    columns = "family first second auc_first auc_second difference_low difference_high separated"
    table = pd.DataFrame(rows, columns=columns.split())
    table["difference"] = table["auc_second"] - table["auc_first"]
    return table.assign(level="image", p=0.01, p_holm=0.02, **ABOUT, **COUNTS).assign(**changed)


def everything():
    baseline = {"model": [BASELINE], "level": "image", "auc": 0.6, "auc_low": 0.55, "auc_high": 0.7}
    return pd.DataFrame(baseline).assign(**ABOUT, **COUNTS)


def thresholds(recall=(0.943, 0.73, 0.99), note=""):
    table = pd.DataFrame({"model": [FIRST, SECOND], "rule": "sensitivity", "note": note})
    table = table.assign(chosen_on="out-of-fold", threshold=0.1, wanted_sensitivity=0.95)
    numbers = dict(zip(("recall", "recall_low", "recall_high"), recall, strict=True))
    numbers |= {"specificity": 0.57, "specificity_low": 0.33, "specificity_high": 0.78}
    return table.assign(**numbers, **ABOUT, **COUNTS)


def leakage(shuffled=0.508, low=0.45):
    rows = [
        (name, protocol, labels, auc, auc_low, auc + 0.06, inflation, inflation - 1.8)
        for name in (FIRST, SECOND)
        for protocol, labels, auc, auc_low, inflation in (
            ("images_random", "true", 0.99, 0.98, 2.5),
            ("patients_together", "true", 0.97, 0.87, 0.0),
            ("patients_together", "shuffled by group", shuffled, low, np.nan),
        )
    ]
    columns = "architecture protocol labels auc auc_low auc_high inflation inflation_low"
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(inflation_high=table["inflation"] + 1.7, weights="imagenet")


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    dataset = {"images": 240, "groups": 40, "unit": "patient", "of_unknown_unit": 0}
    run.write("dataset.json", dataset)
    counts = {"test": {"images": 36, "groups": 6, "B": 17, "M": 19}}
    run.write(
        "split.json", {"protocol": "grouped", "unit": "patient", "leak": LEAK, "counts": counts}
    )
    run.write("tables/comparison.csv", comparison())
    run.write("tables/pairwise.csv", pairs())
    run.write("tables/comparison_all.csv", everything())
    run.write("tables/thresholds.csv", thresholds())
    run.write("tables/leakage_summary.csv", leakage())
    audit = {"architecture": FIRST, "seed": range(10), "weights": "imagenet", "protocol": "x"}
    run.write("tables/leakage_audit.csv", pd.DataFrame(audit))
    cost = {"architecture": [FIRST, SECOND], "megabytes": [9.6, 29.7], "engine": "tensorflow"}
    cost |= {"images_per_second": [69.4, 18.8], "precision": "float32", "device": "CPU, 2 cores"}
    run.write("tables/cost.csv", pd.DataFrame(cost))
    return run


def lines_of(run):
    return {line.asks.split()[0]: (line.mark, line.word, line.says) for line in lines(run)}


def test_four_lines_are_marked_according_to_the_tables(run):
    found = lines_of(run)
    assert list(found) == ["Patients", "Better", "What", "Promised"]
    assert found["Patients"][:2] == ("good", "yes")
    assert found["Better"][:2] == ("good", "yes")
    assert "AUC 0.600 (95 % 0.550 to 0.700)" in found["Better"][2]
    assert found["What"][:2] == ("open", "2.5 points")
    assert "MobileNetV2 +2.5 (+0.7 to +4.2)" in found["What"][2]
    assert found["What"][2].endswith(
        "give AUC 0.51 and 0.51 with the split used here, as chance does."
    )
    assert found["Promised"][:2] == ("open", "cannot tell")
    assert "Wanted 0.95; MobileNetV2 got 0.943 (0.730 to 0.990)" in found["Promised"][2]


@pytest.mark.parametrize(
    ("changed", "mark", "word"),
    [
        ({"unit": "field of view"}, "open", "not known"),
        ({"of_unknown_unit": 240}, "open", "not known"),
        ({"of_unknown_unit": 6}, "open", "as far as known"),
    ],
)
def test_separation_by_patient_is_claimed_only_for_known_patients(run, changed, mark, word):
    run.write("dataset.json", run.facts_if_there("dataset.json") | changed)
    unit = {"unit": changed.get("unit", "patient")}
    run.write("split.json", run.facts_if_there("split.json") | unit)
    assert lines_of(run)["Patients"][:2] == (mark, word)


def test_a_leaking_split_is_marked(run):
    leak = {"leak": LEAK | {"groups_in_several_splits": 3}}
    run.write("split.json", run.facts_if_there("split.json") | leak)
    assert lines_of(run)["Patients"][:2] == ("bad", "no")


@pytest.mark.parametrize(
    ("beats", "mark", "word"),
    [((True, False), "open", "not all"), ((False, False), "bad", "not shown")],
)
def test_the_baseline_is_marked_beaten_only_if_a_test_shows_it(run, beats, mark, word):
    run.write("tables/pairwise.csv", pairs(beats=beats))
    assert lines_of(run)["Better"][:2] == (mark, word)


@pytest.mark.parametrize(
    ("recall", "note", "mark", "word"),
    [
        ((0.97, 0.95, 0.99), "", "good", "yes"),
        ((0.90, 0.85, 0.94), "", "bad", "no"),
        ((0.96, 0.85, 0.99), "", "open", "as far as seen"),
        (
            (0.96, 0.85, 0.99),
            "a sensitivity of 95% cannot be promised: x; y",
            "open",
            "not promised",
        ),
    ],
)
def test_a_guarantee_is_marked_kept_or_missed_according_to_its_interval(
    run, recall, note, mark, word
):
    run.write("tables/thresholds.csv", thresholds(recall, note))
    assert lines_of(run)["Promised"][:2] == (mark, word)


def test_a_split_that_leaks_in_the_audit_is_marked(run):
    run.write("tables/leakage_summary.csv", leakage(0.7, 0.6))
    assert lines_of(run)["What"][:2] == ("bad", "a leak here")
    run.write("tables/leakage_audit.csv", run.rows("tables/leakage_audit.csv").head(2))
    assert "Shuffled" not in lines_of(run)["What"][2]  # two shuffles are too few


# -------------------------------------------------------------------- recommendation


def test_the_fastest_of_equal_networks_is_recommended(run):
    taken, said = recommendation(run)
    assert taken == FIRST
    assert said == (
        "Take MobileNetV2: equal to DenseNet121 as far as can be seen (differences of AUC of up "
        "to 0.07 could hide), and faster (69 against 19 images per second) and smaller (10 against "
        "30 MB)."
    )
    cost = run.rows("tables/cost.csv").assign(engine=["tensorflow", "openvino"])
    run.write("tables/cost.csv", cost)
    assert recommendation(run)[1].endswith("could hide), and smaller (10 against 30 MB).")
    cost = cost.assign(engine="tensorflow", megabytes=[40.0, 29.7])
    run.write("tables/cost.csv", cost)
    assert recommendation(run)[1].endswith("images per second), with 40 against 30 MB.")
    (run / "tables/cost.csv").unlink()
    assert recommendation(run)[0] == SECOND


def test_a_better_network_is_recommended_and_one_without_skill_is_not(run):
    run.write("tables/pairwise.csv", pairs(separated=True))
    assert recommendation(run) == (SECOND, "Take DenseNet121. It separates the classes best.")
    run.write("tables/pairwise.csv", pairs(beats=(True, False)))
    assert recommendation(run) == (
        FIRST,
        "Take MobileNetV2. No other is shown to be better than both chance and size and mean "
        "colour alone.",
    )
    for table, of_pairs, why in (
        (
            comparison(),
            pairs(beats=(False, False)),
            " yet: DenseNet121 and MobileNetV2 are shown to be better than chance, but not than "
            "size and mean colour alone.",
        ),
        (comparison(auc_low=0.45), pairs(), ": none is shown to be better than chance."),
        (
            comparison(),
            pairs(separated=True, beats=(True, False)),
            ": those that are better than size and mean colour alone are worse than DenseNet121.",
        ),
    ):
        run.write("tables/comparison.csv", table)
        run.write("tables/pairwise.csv", of_pairs)
        assert recommendation(run) == ("", f"Take none of them{why}")


@pytest.mark.parametrize(
    "changed", [{"weights": "random"}, {"protocol": "original"}, {"groups_benign": 4}]
)
def test_nothing_is_recommended_or_reported_without_valid_results(run, changed):
    run.write("tables/comparison.csv", comparison(**changed))
    assert recommendation(run) == ("", "Take none of them from this run.")
    assert short_summary(run, "") == []


# -------------------------------------------------------------------------- in short


def test_the_summary_in_short_counts_per_100_and_names_the_share(run):
    values = {"model": [FIRST, FIRST], "prevalence": [0.1, 0.51], "asked": [False, True]}
    values |= {"malignant_share": 0.51, "precision": [0.194, 0.7], "act_from": 0.1}
    values |= {"precision_low": 0.126, "precision_high": 0.326, "negative_predictive_value": 0.989}
    values |= {"negative_predictive_value_low": 0.943, "negative_predictive_value_high": 0.999}
    values |= {"recall": 0.9, "weights": "imagenet", "protocol": "grouped"}
    run.write("tables/prevalence.csv", pd.DataFrame(values))
    width = {"architecture": [FIRST], "groups": 34, "width": 0.224, "wanted_width": 0.05}
    width |= {"groups_for_width": 317.0, "weights": "imagenet", "protocol": "grouped"}
    run.write("tables/planning_widths.csv", pd.DataFrame(width))
    said = short_summary(run, FIRST)
    assert said == [
        "MobileNetV2, at the threshold for a sensitivity of 95%, misses 6 of 100 malignant images "
        "(95 % 1 to 27) and calls 43 of 100 benign ones (22 to 67) malignant.",
        "Where 10 % of the images are malignant, 19 of 100 malignant calls (13 to 33) are right, "
        "and 99 of 100 benign ones (94 to 100).",
        "To narrow the interval of its AUC from 0.22 to 0.05 takes about 320 patients (9.3 times "
        "this study).",
        "All this is about new patients of the places that these images come from, and of no "
        "other place.",
    ]
    page = write_report(run).read_text("utf-8")
    assert all(page.count(each) == 1 for each in said)
    assert page.count("Size and mean colour alone reach") == 1


@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(seed=st.integers(0, 10**6))
def test_a_worse_network_is_never_recommended(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    run = Run(tmp_path_factory.mktemp("drawn"))
    run.write("split.json", {"protocol": "grouped", "unit": "patient", "leak": LEAK})
    run.write("dataset.json", {"images": 240, "unit": "patient"})
    run.write("tables/comparison_all.csv", everything())
    auc = pd.Series(rng.choice([0.4, 0.94, 0.96], 2))
    beats, separated = rng.random(2) < 0.5, rng.random() < 0.3 and auc[0] != auc[1]
    table = comparison(auc=auc, auc_low=auc - rng.choice([0.01, 0.5]))
    run.write("tables/comparison.csv", table)
    drawn = pairs(separated, tuple(beats))
    drawn.loc[0, ["auc_first", "auc_second", "difference"]] = auc[0], auc[1], auc[1] - auc[0]
    known = rng.choice([1.0, np.nan])
    for end in ("difference_low", "difference_high"):
        drawn[end] *= known
    run.write("tables/pairwise.csv", drawn)
    low, high = sorted(rng.choice([0.0, 0.6, 0.95, 1.0], 2))
    bounds = (low, high) if rng.random() < 0.7 else (np.nan, np.nan)
    run.write("tables/thresholds.csv", thresholds((high, *bounds)))
    run.write("tables/leakage_summary.csv", leakage(rng.choice([0.5, np.nan]), 0.45))
    taken, said = recommendation(run)
    texts = [said, *short_summary(run, taken), *(line.says for line in lines(run))]
    assert not [text for text in texts for pattern in EACH if pattern.search(text)]
    shown = dict(zip((FIRST, SECOND), beats & (table["auc_low"] > 0.5), strict=True))
    best = (FIRST, SECOND)[int(auc[1] > auc[0])]
    if taken:
        assert shown[taken] and (taken == best or not separated)
    else:
        assert said.startswith("Take none") and not (
            shown[best] or (any(shown.values()) and not separated)
        )
