"""How many patients: studies of the planned size have the promised width and power."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from cytology.audits.planning import plan_curves, plan_differences, plan_of_run, plan_widths
from cytology.audits.planning_sentences import groups_needed, planning_sentences
from cytology.audits.simulation import Design
from cytology.audits.study_size import (
    observed_auc,
    observed_difference,
    scaled_variance,
    smallest_that,
)
from cytology.evaluation.statistics.clusters import binormal_variance
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.evaluation.statistics.significance import auc_difference, match_predictions

pytestmark = pytest.mark.numeric


def study(design, rng, better=0.0, common=0.6):
    """Two models on the same new patients, the second with an AUC that is `better`."""
    rows = design.draw_patients(rng)
    group, side = rows["group"].to_numpy(), np.where(rows["label"] == "M", 0.5, -0.5)
    shared, tables = design.draw_noise(rng, group), []
    for auc in (design.auc, design.auc + better):
        own = design.draw_noise(rng, group)
        noise = np.sqrt(common) * shared + np.sqrt(1 - common) * own
        logit = 2 * (np.sqrt(2) * norm.ppf(auc) * side + noise)
        tables.append(rows.assign(logit=logit, probability=expit(logit)))
    return tables


def resampled(tables, groups, rng):
    """A study of `groups` patients, drawn from those of another, each with a new name."""
    first = tables[0]["group"].to_numpy()
    places = {name: np.flatnonzero(first == name) for name in np.unique(first)}
    drawn = [places[name] for name in rng.choice(list(places), groups)]
    rows = np.concatenate(drawn)
    group = np.repeat(np.arange(groups), [len(each) for each in drawn])
    new = {"group": group, "image_id": np.arange(len(rows))}
    return [table.iloc[rows].reset_index(drop=True).assign(**new) for table in tables]


DESIGNS = {
    "6 images": Design(patients=150, images=(6, 6), auc=0.90),
    "1 to 20 images, 1 in 4 malignant": Design(
        patients=200, images=(1, 20), malignant=0.25, likeness=0.7, auc=0.93
    ),
}


def width_and_power(make, width_groups, power_groups, studies=500):
    """Mean width of the first model's interval, and the share of studies that find a difference."""
    widths = [np.diff(auc_interval(make(int(width_groups))[0]))[0] for _ in range(studies)]
    p = [auc_difference(match_predictions(*make(int(power_groups))))["p"] for _ in range(studies)]
    return np.mean(widths), np.mean(np.array(p) < 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_studies_of_the_named_size_keep_the_promise(name):
    """New patients of the same kind, planned from a study of 1500."""
    design, rng = DESIGNS[name], np.random.default_rng(0)
    large = study(Design(**vars(design) | {"patients": 1500}), rng, better=0.03)
    seen = observed_difference(*large)
    sizes = observed_auc(large[0]).groups_for_width(0.05), seen.groups_for(0.03)

    def make(patients):
        return study(Design(**vars(design) | {"patients": patients}), rng, better=0.03)

    width, power = width_and_power(make, *sizes)
    assert width == pytest.approx(0.05, rel=0.05)
    assert power == pytest.approx(0.80, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_studies_of_patients_like_those_of_the_run_keep_the_promise(name):
    """The observed values are the truth: patients are drawn from those of one study."""
    rng = np.random.default_rng(1)
    tables = study(DESIGNS[name], rng, better=0.04)
    seen = observed_difference(*tables)
    sizes = observed_auc(tables[0]).groups_for_width(0.05), seen.groups_for(seen.difference)
    width, power = width_and_power(lambda count: resampled(tables, count, rng), *sizes)
    assert width == pytest.approx(0.05, rel=0.06)
    assert power == pytest.approx(0.80, abs=0.06)


@pytest.fixture(scope="module")
def two():
    return study(Design(patients=80, images=(1, 12), auc=0.9), np.random.default_rng(0), 0.03)


def test_a_plan_at_the_observed_size_gives_the_observed_interval_and_difference(two):
    for rows in (two[0], two[0].assign(fold=two[0]["group"] % 5, model="oof")):
        seen = observed_auc(rows)
        assert seen.interval(seen.groups) == pytest.approx(auc_interval(rows), abs=1e-6)
    found, seen = auc_difference(match_predictions(*two)), observed_difference(*two)
    assert seen.difference == pytest.approx(found["difference"])
    expected = found["difference_low"], found["difference_high"]
    assert seen.interval() == pytest.approx(expected)


def test_planning_twice_the_groups_matches_duplicating_them(two):
    rows = two[0]
    twice = pd.concat([rows, rows.assign(group=rows["group"] + 1000)])

    def modelled(table):
        truth = (table["label"] == "M").to_numpy()
        group = table["group"].to_numpy()
        return binormal_variance(truth, table["logit"].to_numpy(), group, np.zeros(len(table)))

    found = scaled_variance(modelled(rows), 2)(0.9).sum()
    assert found == pytest.approx(modelled(twice)(0.9).sum(), rel=0.02)
    seen, larger = observed_auc(rows), observed_auc(twice)
    assert seen.width(160) == pytest.approx(larger.width(160), rel=0.02)


def test_cross_validated_studies_need_more_groups(two):
    folds = [rows.assign(fold=rows["group"] % 5, model="oof") for rows in two]
    assert observed_auc(folds[0]).groups_for_width() > 1.6 * observed_auc(two[0]).groups_for_width()
    fixed, crossed = observed_difference(*two), observed_difference(*folds)
    assert crossed.smallest(80) > 1.3 * fixed.smallest(80)


def test_power_and_size_are_inverse_functions(two):
    seen = observed_difference(*two)
    groups = seen.groups_for(0.03)
    assert seen.power(groups, 0.03) == pytest.approx(0.8, abs=0.01)
    assert seen.power(groups - 2, 0.03) < 0.8 <= seen.power(groups, -0.03) + 1e-3
    assert seen.smallest(groups) == pytest.approx(0.03, rel=0.01)
    assert seen.groups_for(0.03, alpha=0.01) > groups > seen.groups_for(0.03, power=0.5)
    assert seen.groups_for_equivalence(0.03) > groups
    assert seen.groups_for(0.0) == np.inf


def test_the_smallest_sufficient_number_is_found():
    assert smallest_that(lambda groups: groups - 123.0) == 123
    assert smallest_that(lambda groups: groups) == 4
    assert smallest_that(lambda groups: -1.0) == smallest_that(lambda groups: np.nan) == np.inf


def test_nothing_is_planned_from_too_few_patients(two):
    rows = two[0]
    few = rows[rows["group"].isin([0, 1, 60])]
    table = plan_widths({"mobilenetv2": few})
    assert table["width"].isna().all()
    both = {"mobilenetv2": few, "densenet121": two[1].loc[few.index]}
    pairs = plan_differences(both).assign(protocol="grouped", weights="imagenet")
    table = plan_widths(both).assign(protocol="grouped", weights="imagenet")
    said = planning_sentences(table, pairs, "patient")
    assert sum("too few patients to plan from" in each for each in said) == 3


def test_the_plan_of_a_run_has_one_row_per_network_and_per_pair(run):
    widths, pairs, curves = plan_of_run(run)
    assert widths["architecture"].tolist() == run.networks and len(pairs) == 3
    assert (pairs["alpha"] == 0.04 / 3).all() and (widths["weights"] == "imagenet").all()
    assert set(curves["what"]) == {"width", "smallest"}
    for _, rows in curves.groupby(["what", "name", "second"]):
        assert (rows["value"].diff().dropna() < 0).all()  # more patients leave less undecided
    said = planning_sentences(widths, pairs, "patient")
    assert len(said) == 3 + 2 * 3 + 1
    assert "is 0." in said[0] and "For 0.05: about" in said[0]
    leaks = planning_sentences(widths.assign(protocol="original"), pairs, "patient")
    assert len(leaks) == 1 and "leaks" in leaks[0]
    assert "No pretrained" in planning_sentences(widths.assign(weights="random"), pairs, "x")[0]


def test_networks_are_called_equivalent_only_if_the_interval_shows_it(two):
    tables = {"mobilenetv2": two[0], "densenet121": two[0].assign(logit=two[0]["logit"] + 0.01)}
    narrow = {"protocol": "grouped", "weights": "imagenet"}
    widths = plan_widths(tables).assign(**narrow)
    pairs = plan_differences(tables).assign(**narrow, difference_low=-0.01, difference_high=0.04)
    said = planning_sentences(widths, pairs.assign(equivalent_within=0.04), "patient")
    assert "MobileNetV2 and DenseNet121 are equivalent within 0.05" in said[3]
    said = planning_sentences(widths, pairs.assign(equivalent_within=0.06), "patient")
    assert "not shown to be equivalent within 0.05" in said[3]


def test_a_single_network_has_no_pair(two):
    tables = {"mobilenetv2": two[0]}
    assert plan_differences(tables).empty
    assert set(plan_curves(tables)["what"]) == {"width"}


def test_planned_numbers_are_rounded():
    assert groups_needed(1234.0, "patients", 100) == "about 1,300 patients (12.3 times this study)"
    assert groups_needed(np.inf, "patients", 100) == "more than 10,000,000 patients"
    assert groups_needed(50.0, "patients", 100) == "this study is enough (50 patients would do)"
