"""Tables of results as a page shows them: words for names, intervals below their numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.summary import capital, title
from cytology.tables import is_number, read_table

HEADINGS = {
    "f1": "F1",
    "auc": "AUC",
    "p": "P",
    "p_holm": "P (Holm)",
    "p_mcnemar": "P (McNemar)",
    "p_delong": "P (DeLong)",
    "auc_first": "AUC first",
    "auc_second": "AUC second",
    "mcc": "MCC",
    "ece": "ECE",
    "ace": "ACE",
    "brier": "Brier score",
    "inflation": "inflation (points)",
}
DECIMALS = {"inflation": 1}  # of columns that are no shares
PROTOCOLS = {
    "images_random": "augment, then split at random",
    "copies_together": "copies of an image together",
    "patients_together": "whole groups together",
}
NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table as it is shown; `interval` stands small below a number."""

    text: str
    interval: str = ""
    number: bool = False
    warn: bool = False


def results(run: Path, name: str, shown: tuple[str, ...] = (), family: str = "") -> dict:
    """A table of results as headings and rows of cells; empty when it is missing.

    Columns `x_low` and `x_high` become the interval of `x`. Of `shown` columns, if any are named,
    and of rows of one `family`. What is the same in every row is in `same`, by its heading, and
    no column.
    """
    if not (run / name).is_file():
        return {}
    table = read_table(run, name)
    if family:
        table = table[table["family"] == family]
    bounds = {f"{column}{end}" for column in table for end in ("_low", "_high")}
    columns = [column for column in shown or table.columns if column in table]
    columns = [column for column in columns if column not in bounds]
    same = [column for column in columns[1:] if is_same(table[column])]
    columns = [column for column in columns if column not in same]
    return {
        "headings": [
            {"text": heading(column), "number": is_number(table[column])} for column in columns
        ],
        "rows": [[cell(row, column, table) for column in columns] for _, row in table.iterrows()],
        "same": {heading(column): cell(table.iloc[0], column, table) for column in same},
        "intervals": any(f"{column}_low" in table for column in columns),
    }


def is_same(column: pd.Series) -> bool:
    """Whether a column of words or counts says the same in every one of several rows."""
    told = not is_number(column) or are_counts(column)
    return told and len(column) > 1 and column.nunique(dropna=False) == 1


def are_counts(column: pd.Series) -> bool:
    """Whether a column holds whole numbers, and not only shares of 0 and 1."""
    known = column.dropna()
    return len(known) > 0 and bool((known % 1 == 0).all()) and known.max() > 1


def heading(column: str) -> str:
    """A column's name for readers."""
    return HEADINGS.get(column, column.replace("_", " "))


def cell(row: pd.Series, column: str, table: pd.DataFrame) -> Cell:
    """One value of a table of results, ready to be shown."""
    value = row[column]
    if is_number(table[column]):
        low, high = row.get(f"{column}_low", np.nan), row.get(f"{column}_high", np.nan)
        known = not (pd.isna(low) or pd.isna(high))
        low, high = number(low, table[column]), number(high, table[column])
        interval = f"{low} to {high}" if known else ""
        return Cell(number(value, table[column]), interval, number=True)
    if pd.isna(value) or value == "":
        return Cell(NOTHING)
    if column in ("architecture", "model", "first", "second"):
        return Cell(capital(title(str(value))))
    if column == "weights":
        # Of a long path the file's name tells which it is.
        random = value == "random"
        return Cell("random weights" if random else Path(str(value)).name, warn=random)
    if column == "protocol":
        return Cell(PROTOCOLS.get(value, str(value)), warn=value == "original")
    return Cell(str(value))


def number(value: float, column: pd.Series) -> str:
    """Counts with thousands apart, shares with 3 decimals, large measures with fewer."""
    if pd.isna(value):
        return NOTHING
    if np.isinf(value):
        return "∞"
    if are_counts(column):
        return f"{value:,.0f}"
    finite = column[np.isfinite(column)].abs()
    decimals = DECIMALS.get(column.name, 3 if finite.max() < 100 else 1)
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")
