"""Sentences of made-up tables: doubtful labels, shares, referral, subgroups, the next study.

Whatever the tables say, a sentence claims what their intervals show, and names a precision's share.
"""

import re

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_words import EACH

from cytology.audits.planning_sentences import planning_sentences
from cytology.audits.subgroups import subgroup_sentences
from cytology.evaluation import place_sentences as say
from cytology.evaluation.doubtful_labels import COLUMNS, doubtful_sentences
from cytology.evaluation.statistics.referral import Referral
from cytology.inference.place import place_sentences, sentences_of_run
from cytology.run import Run

NETWORKS = ("mobilenetv2", "densenet121")
TITLES = {"mobilenetv2": "MobileNetV2", "densenet121": "DenseNet121"}
SHARES = [0.0, 0.0004, 0.056, 0.5, 0.9996, 1.0]
CHANGES = [0.0, 0.00004, -0.00004, 0.1, -0.1]
HALVES = [0.00001, 0.03, 0.3, np.nan]
many = settings(max_examples=60, deadline=None, derandomize=True, database=None)
seeds = given(seed=st.integers(0, 10**6))


def around(rng, name, limits=(0, 1), values=SHARES):
    """`name` with bounds around it, or none."""
    value, half = rng.choice(values), rng.choice(HALVES)
    low, high = np.clip([value - half, value + half], *limits)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def checked(said):
    """The sentences, none of which reports an undefined number or counts wrongly."""
    for sentence in said:
        for pattern in EACH:
            assert not pattern.search(sentence), sentence
        if "precision" in sentence:
            assert re.search(r"\d % of the images are malignant: precision", sentence), sentence
    return said


# ---------------------------------------------------------- other places, referral (08)


@many
@seeds
def test_a_net_benefit_is_claimed_only_if_its_interval_shows_it(seed):
    rng = np.random.default_rng(seed)
    row = {"prevalence": rng.choice([0.005, 0.1, 0.9]), "act_from": 0.1}
    for name in ("precision", "negative_predictive_value"):
        row |= around(rng, name)
    row |= around(rng, "net_benefit", (-1, 1), CHANGES)
    row |= {"false_alarms": rng.choice([0.0, 4.1, np.inf]), "false_alarms_low": 0.0}
    row["false_alarms_high"] = np.inf
    (said,) = checked([say.prevalence_sentence(row, "patient")])
    shown = row["net_benefit_low"] > 0, row["net_benefit_high"] < 0
    assert (": better than calling nothing" in said, ": worse than" in said) == shown
    assert said.startswith(f"If {say.in_percent(row['prevalence'])} of the images")


@many
@seeds
def test_only_guarantees_in_the_table_are_stated(seed):
    rng = np.random.default_rng(seed)
    share, limit = rng.choice([np.nan, 0.1]), rng.choice([np.inf, 0.5, 0.0])
    patients, needed = rng.integers(1, 40, 2).tolist()
    limit = limit if patients >= needed else -np.inf
    chosen = Referral(limit, 0.05, patients, needed, share)
    judged = {"referred": rng.choice(SHARES)}
    for name in ("missed", "malignant_unreferred", "spared"):
        judged |= around(rng, name)
    said = " ".join(checked(say.referral_sentences(chosen, judged, "patient")))
    assert ("cannot promise" in said) is not chosen.promised
    assert ("Promised:" in said) == (chosen.promised and np.isfinite(limit))


# ----------------------------------------------------------------- new images (09)


def row_of_share(rng):
    row = {"images": 60, "groups": int(rng.integers(1, 12)), "fitted_share": 0.4}
    row |= around(rng, "prevalence") | {"p_moved": rng.choice([np.nan, 0.0004, 0.2, 1.0])}
    row["moved"] = row["p_moved"] < 0.05
    return row | {"note": rng.choice(["", "", "no slope fits: x"])}


@many
@seeds
def test_a_share_is_reported_as_an_estimate_without_labels_with_its_assumptions(seed):
    row = row_of_share(np.random.default_rng(seed))
    said = " ".join(checked(place_sentences(row, "patient", "imagenet")))
    estimated = "an estimated" in said
    assert estimated == (not row["moved"] and not row["note"])
    if estimated:
        assert "without labels" in said and "look the same there as here" in said
        assert ("no interval:" in said) == np.isnan(row["prevalence_low"])
    assert "an estimated" not in place_sentences(row, "patient", "random")[0]


@many
@seeds
def test_a_recalibration_gain_is_claimed_only_if_its_interval_shows_it(seed):
    rng = np.random.default_rng(seed)
    rows = [
        {"way": way} | around(rng, "loss_change", (-1, 1), CHANGES) for way in ("as it is", "x")
    ]
    table = pd.DataFrame(rows).assign(groups=int(rng.integers(1, 9)), loss=0.4)
    (said,) = checked([say.gain_sentence(table, "patient")])
    low, high = table[["loss_change_low", "loss_change_high"]].iloc[1]
    claims = "x lowers the log loss" in said, "x raises the log loss" in said
    assert claims == (high < 0, low > 0)


def test_the_report_covers_only_the_latest_new_images(tmp_path):
    run = Run(tmp_path)
    answers = {"image_id": [f"{k}.png" for k in range(60)], "logit": 0.0, "reason": ""}
    answers = pd.DataFrame(answers).assign(label=["B", "M", ""] * 20, group="p1")
    run.write("split.json", {"protocol": "grouped", "unit": "patient"})
    run.write("inference/predictions.csv", answers)
    share = row_of_share(np.random.default_rng(0)) | {"note": "", "moved": False}
    about = {"model": "mobilenetv2", "weights": "imagenet", "protocol": "grouped"}
    run.write("inference/share.csv", pd.DataFrame([share | about]))
    gain = {"way": ["as it is", "intercept"], "loss": 0.4, "loss_change": [0.0, -0.1]}
    gain |= {"loss_change_low": -0.2, "loss_change_high": [0.0, -0.05], "images": 40, "groups": 8}
    run.write("inference/recalibration.csv", pd.DataFrame(gain).assign(**about))
    said = sentences_of_run(run)
    assert "without labels" in said[0] and "intercept lowers the log loss" in said[-1]
    assert not any("patient" in each for each in said)  # no table says what a group is
    run.write("inference/predictions.csv", answers.head(50))
    assert sentences_of_run(run) == []
    run.write("inference/predictions.csv", answers)
    run.write("split.json", {"protocol": "original", "unit": "patient"})
    assert sentences_of_run(run) == []


# --------------------------------------------------------------- doubtful labels (07)


@many
@seeds
def test_doubtful_labels_are_counted_and_their_auc_is_called_a_bound(seed):
    rng = np.random.default_rng(seed)
    images, whole = int(rng.integers(0, 9)), bool(rng.random() < 0.5)
    table = pd.DataFrame({"image_id": [f"{k}" for k in range(images)]}, columns=COLUMNS)
    table = table.assign(group="p1", label="M", group_images=9, group_contradicted=7)
    table = table.assign(whole_group=whole)
    rows = [{"model": name} | around(rng, "auc") | {"auc_without": 0.9} for name in NETWORKS]
    said = checked(doubtful_sentences(table, pd.DataFrame(rows), TITLES, "patient"))
    text = " ".join(said)
    assert ("No label is contradicted" in text) == (images == 0)
    if images:
        assert re.search(rf"of {images} images?:", said[0])
        assert text.count("an upper bound") == len(NETWORKS)
        assert ("1 patient is contradicted as a whole: p1 (7 of 9" in text) == whole


# --------------------------------------------------------------------- subgroups (11)


@many
@seeds
def test_a_subgroup_is_named_only_if_the_corrected_p_shows_it(seed):
    rng = np.random.default_rng(seed)
    weights = rng.choice(["imagenet", "random"])
    stains = ("Giemsa", "Papanicolaou")
    table = pd.DataFrame({"subgroup": stains, "groups": 12, "model": NETWORKS[0]})
    table = table.assign(column="stain", too_few=["", rng.choice(["", "4 benign patients"])])
    for name in ("auc", "recall", "specificity"):
        table[name] = rng.choice([0.5, 1.0, np.nan], 2)
    about = {"weights": weights, "protocol": rng.choice(["grouped", "given, leaks"])}
    tests = {"column": "stain", "asks": rng.choice(["threshold", "order"]), "model": NETWORKS[0]}
    tests |= {"worst": "Giemsa", "best": "Papanicolaou", "p_holm": rng.choice([1e-4, 0.049, 0.2])}
    tests = pd.DataFrame([tests]).assign(**about)
    said = " ".join(checked(subgroup_sentences(table.assign(**about), tests, "patient")))
    named = tests["p_holm"].iloc[0] < 0.05 and weights != "random" and "leaks" not in said
    assert ("Giemsa:" in said) == named
    assert ("no subgroup is shown" in said) == (
        not named and weights != "random" and "leaks" not in said
    )


# --------------------------------------------------------------------- planning (14)


@many
@seeds
def test_a_plan_is_called_enough_or_equivalent_only_if_the_table_shows_it(seed):
    rng = np.random.default_rng(seed)
    about = {"weights": "imagenet", "protocol": "grouped", "groups": 34}
    widths = pd.DataFrame({"architecture": NETWORKS, "wanted_width": 0.05})
    widths["width"] = rng.choice([0.03, 0.2, np.nan], 2)
    widths["groups_for_width"] = rng.choice([12.0, 3333.0, np.inf], 2)
    pair = {"first": NETWORKS[0], "second": NETWORKS[1], "power": 0.8, "margin": 0.05}
    pair |= around(rng, "difference", (-1, 1), [-0.2, 0.0, 0.02])
    pair |= {"smallest": rng.choice([0.1, np.nan]), "groups_to_decide": rng.choice([80, np.inf])}
    pair |= {"equivalent_within": rng.choice([0.04, 0.3]), "groups_for_equivalence": 87.0}
    said = planning_sentences(
        widths.assign(**about), pd.DataFrame([pair]).assign(**about), "patient"
    )
    text = " ".join(checked(said))
    known = not np.isnan(pair["smallest"])
    assert ("large enough" in text) == (known and abs(pair["difference"]) >= 0.1)
    assert ("are equivalent within" in text) == (known and pair["equivalent_within"] == 0.04)
    for row in widths.itertuples():
        enough = not np.isnan(row.width) and row.groups_for_width <= 34
        mine = next(each for each in said if each.startswith(TITLES[row.architecture]))
        assert ("this study is enough" in mine) == enough
