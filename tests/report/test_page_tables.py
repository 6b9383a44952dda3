"""Tables of results as the report shows them."""

import numpy as np
import pandas as pd
import pytest

from cytology.report.page_tables import Cell, result_table
from cytology.run import Run
from cytology.tables import write_table


@pytest.fixture
def shown(tmp_path):
    """What `results` makes of a table."""

    def make(columns, *names, **options):
        write_table(tmp_path, "t.csv", pd.DataFrame(columns))
        return result_table(Run(tmp_path), "t.csv", " ".join(names), **options)

    return make


def headings(table):
    return [heading["text"] for heading in table["headings"]]


def test_a_missing_table_is_shown_as_empty(tmp_path):
    assert result_table(Run(tmp_path), "t.csv") == {}


def test_interval_bounds_are_shown_below_their_number(shown):
    auc = {"auc": [-0.04, 0.9], "auc_low": [-0.284, np.nan], "auc_high": [0.207, np.nan]}
    table = shown({"architecture": ["mobilenetv2", "own"]} | auc)
    assert headings(table) == ["architecture", "AUC"] and table["intervals"]
    minus = "\N{MINUS SIGN}"
    first = [Cell("MobileNetV2"), Cell(f"{minus}0.040", f"{minus}0.284 to 0.207", number=True)]
    assert table["rows"][0] == first
    assert table["rows"][1][1] == Cell("0.900", number=True)


def test_values_that_are_the_same_in_every_row_are_shown_once(shown):
    columns = {"architecture": ["a", "b"], "weights": ["random"] * 2, "images": [1210] * 2}
    columns |= {"auc": [0.7, 0.7], "protocol": ["original"] * 2, "groups": [20, 4]}
    table = shown(columns)
    assert headings(table) == ["architecture", "AUC", "groups"], "equal metrics are results"
    assert table["same"] == {
        "weights": Cell("random", warn=True),
        "images": Cell("1,210", number=True),
        "protocol": Cell("original", warn=True),
    }


@pytest.mark.parametrize(("protocol", "warn"), [("given, leaks", True), ("given", False)])
def test_a_given_split_is_marked_if_it_leaks(shown, protocol, warn):
    table = shown({"architecture": ["a", "b"], "protocol": [protocol] * 2, "auc": [0.7, 0.8]})
    assert table["same"]["protocol"] == Cell(protocol, warn=warn)


def test_a_table_of_one_row_keeps_its_name_and_metrics(shown):
    table = shown({"architecture": ["a"], "recipe": ["head"], "images": [121], "auc": [0.7]})
    assert headings(table) == ["architecture", "AUC"] and list(table["same"]) == [
        "recipe",
        "images",
    ]


def test_columns_without_values_are_not_shown(shown):
    columns = {"architecture": ["a", "b"], "auc": [0.7, 0.8], "auc_low": [np.nan] * 2}
    table = shown(columns | {"auc_high": [np.nan] * 2, "p_mcnemar": [np.nan] * 2})
    assert headings(table) == ["architecture", "AUC"] and not table["intervals"]


def test_a_table_without_rows_has_only_headings(shown):
    table = shown({"architecture": [], "auc": []})
    assert headings(table) == ["architecture", "AUC"] and table["rows"] == []


def test_the_requested_columns_and_families_are_shown_in_order(shown):
    columns = {"family": ["x", "y", "y"], "p": [0.1, 0.2, 0.3], "auc": [0.5, 0.6, 0.7]}
    table = shown(columns, "auc", "p", "nowhere", only={"family": ("y",)})
    assert headings(table) == ["AUC", "P"]
    assert [[each.text for each in row] for row in table["rows"]] == [
        ["0.600", "0.200"],
        ["0.700", "0.300"],
    ]


def test_the_prevalence_of_a_precision_is_shown_above_the_table(shown):
    table = shown({"model": ["a", "b"], "precision": [0.5, 0.5], "malignant_share": [0.4, 0.4]})
    assert [each["text"] for each in table["headings"]] == ["model", "precision"]
    assert table["same"]["malignant share"].text == "0.400"
    other = shown({"model": ["a", "b"], "precision": [0.5, 0.6], "malignant_share": [0.4, 0.3]})
    assert len(other["headings"]) == 3


def test_a_precision_without_its_prevalence_is_not_shown(shown):
    columns = {"model": ["a", "b"], "precision": [0.5, 0.6], "recall": [0.7, 0.8]}
    assert headings(shown(columns)) == ["model", "recall"]
    assert headings(shown(columns | {"prevalence": [0.1, 0.2]}))[1] == "precision"


def test_rows_are_selected_by_value(shown):
    table = shown({"model": ["a", "b"], "prevalence": [0.1, 0.2]}, only={"prevalence": {0.2}})
    assert [row[0].text for row in table["rows"]] == ["B"]
