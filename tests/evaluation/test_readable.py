"""Names, numbers and tables as people read them."""

import re

import numpy as np
import pandas as pd
import pytest

from cytology.audits.leakage import PROTOCOLS
from cytology.evaluation.readable import (
    PROTOCOL_TITLE,
    gaps,
    groups_in_words,
    number,
    readable,
    title,
    too_few,
    value_in_words,
)


def cells(page):
    return re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", page, re.DOTALL)


def test_a_reader_sees_titles_and_numbers_with_their_intervals():
    table = pd.DataFrame(
        {"architecture": ["mobilenetv2", "<b>"], "auc": [0.8119, np.nan], "p_holm": [0.0004, 0.25]}
    ).assign(auc_low=[0.7454, np.nan], auc_high=[0.8701, np.nan], images=[40, 7])
    assert cells(readable(table, "architecture auc p_holm images sites").to_html()) == [
        *("architecture", "AUC", "P (Holm)", "images"),
        *("MobileNetV2", "0.812\n(0.745 to 0.870)", "&lt; 0.001", "40"),
        *("&lt;b&gt;", "–", "0.250", "7"),
    ]


def test_missing_values_are_reported_with_the_reason():
    table = pd.DataFrame({"precision": [0.5, np.nan], "recall": [0.5, 1.0], "note": ["", ""]})
    assert cells(readable(table, "precision note").to_html())[-2:] == ["0.500", "–"]
    assert gaps(table, ["recall", "note"]) == "" != gaps(table, ["precision"])
    table["recall_low"] = [np.nan, 0.3]
    said = "No precision: nothing called malignant. Numbers without an interval: groups too few or"
    assert said in readable(table, "precision recall").to_html()


def test_numbers_are_right_aligned_and_words_left_aligned():
    page = readable(pd.DataFrame({"model": ["ensemble"], "auc": [0.5]}), "model auc").to_html()
    aligned = re.findall(r"col(\d).*?text-align: (\w+)", page.split("<table")[0], re.DOTALL)
    assert dict(aligned) == {"0": "left", "1": "right"}


def test_an_empty_table_has_its_headings():
    empty = pd.DataFrame({"auc": pd.Series([], dtype=float), "model": pd.Series([], dtype=str)})
    assert cells(readable(empty, "auc model").to_html()) == ["AUC", "model"]


def test_numbers_in_a_column_with_missing_values_are_formatted_as_numbers():
    table = pd.DataFrame({"auc": [1.23456789, None]}, dtype=object)
    assert cells(readable(table, "auc").to_html()) == ["AUC", "1.235", "–"]


def test_interval_bounds_have_decimals_even_for_integers():
    table = pd.DataFrame({"loss": [0.0, 2.0], "loss_low": [0.0, 0.4], "loss_high": [0.5, 3.0]})
    assert cells(readable(table, "loss").to_html())[2] == "2\n(0.400 to 3)"


def test_every_way_to_split_has_a_title():
    assert PROTOCOL_TITLE.keys() == PROTOCOLS.keys()


@pytest.mark.parametrize(
    "values, name, words",
    [
        ([1320, 7], "images", ["1,320", "7"]),
        ([20.0, np.nan], "groups", ["20", "–"]),
        ([0, 1], "features_computed", ["0", "1"]),
        ([0.0, 1.0], "auc", ["0.000", "1.000"]),
        ([-0.04, 0.9], "mcc", ["\N{MINUS SIGN}0.040", "0.900"]),
        ([29.54, 7.62, 0.0], "inflation", ["29.5", "7.6", "0.0"]),
        ([1.5, np.inf], "slope", ["1.500", "∞"]),
        ([-np.inf, -0.0004], "logit", ["\N{MINUS SIGN}∞", "0.000"]),
        ([1234.56, 0.5], "loss", ["1,234.6", "0.5"]),
        ([0.0004, 0.0312], "p_holm", ["< 0.001", "0.031"]),
        ([3.2e-06, 1.8], "largest_difference", ["3.2e-06", "1.8e+00"]),
    ],
)
def test_numbers_of_a_column_have_one_format(values, name, words):
    column = pd.Series(values, name=name)
    assert [number(value, column) for value in column] == words


@pytest.mark.parametrize(
    "value, column, words",
    [
        ("densenet121, 8 orientations", "model", "DenseNet121, 8 orientations"),
        ("ensemble", "second", "The ensemble"),
        ("copies_together", "protocol", "copies of an image together"),
        (True, "agrees", "yes"),
        (np.False_, "agrees", "no"),
        (np.nan, "recipe", ""),
        ("half", "rule", "half"),
    ],
)
def test_values_are_translated_into_words(value, column, words):
    assert value_in_words(value, column) == words


def test_titles_fit_into_a_sentence():
    assert title("baseline (size and colour)") == "size and colour"
    assert title("ensemble, 8 orientations") == "the ensemble, 8 orientations"


FEW = {"groups": 14, "groups_malignant": 4, "groups_benign": 10, "auc": 0.9, "auc_low": 0.5}
FEW |= {"auc_high": 1.0, "recall": 0.8, "specificity": 0.7, "test_auc": 0.6, "threshold": 0.5}


def test_a_metric_of_four_patients_is_not_shown():
    enough = FEW | {"groups": 15, "groups_malignant": 5}
    columns = "groups_malignant auc recall specificity test_auc threshold"
    page = readable(pd.DataFrame([FEW, enough]), columns).to_html()
    assert cells(page)[6:12] == ["4", "not shown", "not shown", "0.700", "0.600", "0.500"]
    assert cells(page)[13:15] == ["0.900\n(0.500 to 1.000)", "0.800"]
    assert "Not shown: metrics of fewer than 5 malignant or benign groups; the file has" in page
    assert too_few(pd.Series(FEW), "auc", "patient") == "not shown: 4 malignant patients"
    assert too_few(pd.Series(FEW | {"groups_malignant": 1}), "recall", "slide").endswith(
        "1 malignant slide"
    )
    assert too_few(pd.Series({"auc": 0.9}), "auc") == "", "the groups were not counted"


def test_groups_are_called_too_few_only_if_they_are():
    row = FEW | {"groups_malignant": 5, "auc_low": np.nan, "auc_high": np.nan}
    said = gaps(pd.DataFrame([row]), ["auc"])
    assert said == "Numbers without an interval: its groups are all alike."


@pytest.mark.parametrize(
    "counts, words",
    [
        ((20, 12, 8), "20 patients: 12 malignant, 8 benign"),
        ((1, 1, 0), "1 patient: 1 malignant, 0 benign"),
        ((20, 12, 9), "20 patients: 12 with malignant images, 9 with benign ones"),
    ],
)
def test_the_groups_of_each_class_are_described(counts, words):
    row = pd.Series(counts, ["groups", "groups_malignant", "groups_benign"])
    assert groups_in_words(row, "patient") == words
    assert groups_in_words(row[["groups"]], "patient") == words.split(":")[0]
