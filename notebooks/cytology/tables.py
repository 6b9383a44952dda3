"""CSV and JSON files that pass between notebooks: written atomically, read by key.

Any spreadsheet opens the tables. Rows are found by their keys, never by their order.
"""

import csv
import json
import warnings
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.catalogue import ANY, NAMING, SHAPES, TEXT, written_by
from cytology.files import written_whole
from cytology.settings import InputError, short
from cytology.wording import is_formula, printable

# A number that is read and written again stays the same; pandas 3 does this by default.
EXACTLY = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}


def require(run: Path, name: str) -> Path:
    """The path of the file `name` of the run; if missing, an `InputError` names its notebook."""
    path = run / name
    if not path.is_file():
        raise InputError(
            f"{name} is missing in {short(run)}: run notebook {written_by(name)} first "
            f"(with run_dir = {short(run)!r})."
        )
    return path


def write_table(run: Path, name: str, table: pd.DataFrame) -> None:
    """Write `table` to `run/name` as CSV (UTF-8, no index).

    `InputError` for text that a spreadsheet would execute; names are checked when they come in.
    """
    for column, values in table.items():
        for text in {value for value in values if isinstance(value, str) and is_formula(value)}:
            raise InputError(
                f"{name} is not written: a spreadsheet would execute {printable(text)[:60]} in "
                f"column {column} as a formula; rename it."
            )
    with written_whole(run / name) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_table(run: Path, name: str) -> pd.DataFrame:
    """Read a table that a notebook wrote; empty text stays empty text.

    Raises `InputError` if it is missing or no longer a table: people open them in spreadsheets.
    """
    path = require(run, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            columns = pd.read_csv(path, nrows=0, index_col=False).columns
            # Only a number can be missing: NA may be the initials of a patient.
            missing = {column: [""] for column in columns if column not in TEXT}
            kept = {"dtype": TEXT, "keep_default_na": False, "na_values": missing}
            return pd.read_csv(path, index_col=False, **kept, **EXACTLY)
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise InputError(damage_message(run, name, error)) from None


def naming_columns(path: Path) -> set[str]:
    """The columns of a table that name patients or files; empty for any other file."""
    if path.suffix != ".csv":
        return set()
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        return NAMING & set(next(csv.reader(stream), []))


def damage_message(run: Path, name: str, why) -> str:
    """The message about a file of the run that cannot be read."""
    notebook, why = written_by(name), " ".join(str(why).split())[:200]
    cure = f"notebook {notebook}, or run it again" if notebook else "run_all.py"
    return f"{short(run / name)} cannot be read ({why}): restore the file written by {cure}."


def check_columns(table: pd.DataFrame, run: Path, name: str, numbers: str, texts: str) -> None:
    """`InputError` if a table lacks one of the columns, or one of `numbers` holds anything else.

    Both are names separated by spaces; cells of `numbers` may be empty.
    """
    lacking = [column for column in f"{numbers} {texts}".split() if column not in table]
    if lacking:
        raise InputError(damage_message(run, name, f"it has no column {', '.join(lacking)}"))
    for column in numbers.split():
        if not pd.api.types.is_numeric_dtype(table[column]) or np.isinf(table[column]).any():
            raise InputError(damage_message(run, name, f"{column} does not hold only numbers"))


def write_json(run: Path, name: str, content: dict) -> None:
    """Write `content` to `run/name` as JSON."""
    write_text(run, name, json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n")


def finite(content):
    """Content with None for numbers that are not finite: JSON has neither NaN nor infinity."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not np.isfinite(content) else content


def write_text(run: Path, name: str, text: str) -> None:
    """Write `text` to `run/name`, UTF-8."""
    with written_whole(run / name) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Facts(dict):
    """The content of a JSON file of the run; an `InputError` names the file if a key is missing."""

    def __init__(self, content: dict, run: Path, name: str):
        super().__init__(content)
        self.place = run, name

    def __missing__(self, key):
        raise InputError(damage_message(*self.place, f"it has no {key}"))


def read_json(run: Path, name: str) -> Facts:
    """Read a JSON file that a notebook wrote; `InputError` if it is missing or damaged."""
    try:
        content = json.loads(require(run, name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        if isinstance(error, InputError):
            raise
        raise InputError(damage_message(run, name, error)) from None
    if problem := wrong_types(name, content):
        raise InputError(damage_message(run, name, problem))
    return Facts(content, run, name)


def wrong_types(name: str, content) -> str:
    """What in the JSON file `name` has the wrong type; empty if nothing."""
    shape = next((shape for pattern, shape in SHAPES.items() if fnmatch(name, pattern)), {})
    return _wrong(content, shape, "")


def _wrong(content, shape, place: str) -> str:
    if isinstance(shape, dict):
        if not isinstance(content, dict):
            return f"{place or 'it'} is not an object with named values"
        needed = {key.rstrip("!"): kind for key, kind in shape.items() if key.endswith("!")}
        lacking = next((key for key in needed if key not in content), None)
        if lacking is not None:
            return f"{place or 'it'} has no {lacking}"
        kinds = shape | needed
        parts = ((f"{place}.{key}", value, kinds.get(key, kinds.get(ANY, object)))
                 for key, value in content.items())  # fmt: skip
    elif isinstance(shape, list):
        if not isinstance(content, list):
            return f"{place} is not a list"
        parts = ((f"{place}[{k}]", value, shape[0]) for k, value in enumerate(content))
    else:
        # True is a whole number for Python, but for nobody else.
        fits = isinstance(content, shape) and (shape is not int or not isinstance(content, bool))
        return "" if fits else f"{place} is {content!r}"
    return next(
        filter(None, (_wrong(value, kind, at.lstrip(".")) for at, value, kind in parts)), ""
    )
