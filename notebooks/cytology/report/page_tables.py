"""Tables of results as the report shows them, with a chip that warns the reader if necessary."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cytology.evaluation import readable
from cytology.evaluation.readable import gaps, heading, is_empty, is_number
from cytology.run import LEAKING, Run

# Numbers that mean something for one share of malignant images only.
OF_A_SHARE = ("precision", "negative_predictive_value")


@dataclass(frozen=True)
class Cell:
    """A cell of a table as it is shown; `interval` stands small below a number."""

    text: str
    interval: str = ""
    number: bool = False
    warn: bool = False


def result_table(
    run: Run, name: str, wanted: str = "", only: Mapping[str, Collection] | None = None
) -> dict[str, Any]:
    """A table of results as headings and rows of cells; empty when it is missing.

    Columns `x_low` and `x_high` become the interval of `x`. It has the `wanted` columns (all, if
    none is named), and the rows whose columns hold one of the values in `only`. A precision is left
    out of a table that lacks the share of malignant images that it holds for. What is the same in
    every row is not a column but an entry of `same`, by its heading. Empty columns are left out.
    `gaps` says what is missing, and why.
    """
    if not run.has(name):
        return {}
    table = run.table(name)
    for column, values in (only or {}).items():
        table = table[table[column].isin(values)]
    if not {"malignant_share", "prevalence"} & set(table):
        table = table.drop(columns=[*OF_A_SHARE], errors="ignore")
    bounds = {f"{column}{end}" for column in table for end in ("_low", "_high")}
    columns = [column for column in wanted.split() or table.columns if column in table]
    columns = [column for column in columns if column not in bounds]
    missing = gaps(table, columns)
    columns = [column for column in columns if not is_empty(table[column])]
    same = [column for column in columns[1:] if is_same(table[column])]
    columns = [name for name in columns if name not in same]
    rows = [[table_cell(row, column, table) for column in columns] for _, row in table.iterrows()]
    return {
        "headings": [
            {"text": heading(column), "number": is_number(table[column])} for column in columns
        ],
        "rows": rows,
        "same": {heading(column): table_cell(table.iloc[0], column, table) for column in same},
        "intervals": any(table_cell.interval for row in rows for table_cell in row),
        "gaps": missing,
    }


def is_same(column: pd.Series) -> bool:
    """Whether words, counts or the share of malignant images are the same in every row."""
    no_result = not is_number(column) or readable.are_counts(column)
    no_result |= column.name == "malignant_share"
    return no_result and column.nunique(dropna=False) == 1


def table_cell(row: pd.Series, column: str, table: pd.DataFrame) -> Cell:
    """One value of a table of results, ready to be shown."""
    value = row[column]
    if is_number(table[column]):
        shown = readable.number_or_not_shown(row, column, table[column])
        return Cell(shown, readable.interval(row, column, table[column]), number=True)
    warn = value == "random" if column == "weights" else column == "protocol" and value in LEAKING
    return Cell(readable.value_in_words(value, column) or readable.DASH, warn=warn)
