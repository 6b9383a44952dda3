"""Whose image it is: from a pattern over the paths, or from a table that a person made.

Names are compared in Unicode's composed form, without blanks around them: the same patient may be
written in two ways by two systems (`wording.normalized`).
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cytology.data.sources.spreadsheets import read_spreadsheet
from cytology.settings import InputError
from cytology.wording import composed, counted, is_formula, normalized, some

LABEL_COLUMNS = ("label", "class", "diagnosis")
MOST_LETTERS = 200  # of a patient's name: a lost quotation mark makes one of a whole file
PATTERN_SECONDS = 20
# Python cannot stop its own search, and some patterns take longer than the universe is old. A line
# for each path, so that the parent knows at which one it was.
SEARCH = """
import json, re, sys
pattern, paths = json.load(sys.stdin)
for path in paths:
    match = re.search(pattern, path)
    print(json.dumps(match and [match[1]]), flush=True)
"""


# --------------------------------------------------------------------- pattern


def add_patients_from_pattern(
    listing: pd.DataFrame, pattern: str, parameter: str = "patient_pattern"
) -> pd.DataFrame:
    """Fill `patient` with the first group of `pattern`, searched in each image's path."""
    try:
        expression = re.compile(composed(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} is no regular expression: {error}."
        ) from None
    if expression.groups < 1:
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} has no group: put the part that is the "
            "patient in parentheses, like '(patient\\d+)_'."
        )
    matches = searched(expression.pattern, listing["image_id"].map(composed).tolist(), parameter)
    if not any(matches):
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} matches no image path; a path looks like "
            f"{listing['image_id'].iloc[0]!r}."
        )
    patients = [normalized((match and match[0]) or "") for match in matches]
    places = (f"Parameter `{parameter}`: the patient in {name!r}" for name in listing["image_id"])
    check_patient_names(patients, places)
    return listing.assign(patient=patients)


def searched(pattern: str, paths: list[str], parameter: str) -> list[list[str | None] | None]:
    """For each path None, or a list with what the first group of `pattern` matched.

    Another process searches: `InputError` if it does not end within `PATTERN_SECONDS`.
    """
    command = [sys.executable, "-IS", "-c", SEARCH]
    given = json.dumps([pattern, paths]).encode()
    try:
        done = subprocess.run(
            command, input=given, stdout=subprocess.PIPE, check=True, timeout=PATTERN_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        path = paths[(error.stdout or b"").count(b"\n")]
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} was stopped after {PATTERN_SECONDS} seconds, at "
            f"the path {path!r}: write it without a repeat inside of a repeat."
        ) from None
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_patient_names(names: Iterable[str], places: Iterable[str]) -> None:
    """`InputError` for a patient or slide that no table or figure can hold, with its place."""
    for name, place in zip(names, places, strict=True):
        if len(name) > MOST_LETTERS:
            raise InputError(
                f"{place} has a name of {len(name):,} letters, {name[:30]!r}...: at most "
                f"{MOST_LETTERS} are taken; perhaps a quotation mark is lost."
            )
        if is_formula(name):
            raise InputError(
                f"{place} is called {name!r}, which a spreadsheet takes for a formula: use a name "
                "that does not begin with =, +, @ or -, or none."
            )


def unit_of(patient_pattern: str) -> str:
    """What the groups are: the name of the pattern's first group, like `slide`, else `patient`."""
    if not patient_pattern:
        return "patient"
    names = {number: name for name, number in re.compile(patient_pattern).groupindex.items()}
    return names.get(1, "patient").replace("_", " ")


# ----------------------------------------------------------------------- table


def add_patients_from_csv(
    listing: pd.DataFrame,
    path: Path,
    parameter: str = "patients_csv",
    names: dict[str, str] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Fill `patient` and `slide` from a table `image,patient[,slide]`: (listing, notes on it).

    `image` is the path below the data folder, or the bare file name where that is unique. How the
    file may be written, `spreadsheets` says. A column of labels is held against the folders, by
    the `names` of classes. Raises `InputError` for what cannot be used.
    """
    table = read_table_of_patients(path, parameter)
    keys = keys_of(listing["image_id"], table["image"])
    if not keys.notna().any():
        raise InputError(
            f"{path} names none of the images; an image is named like "
            f"{listing['image_id'].iloc[0]!r}."
        )
    check_labels(listing, table, keys, path, names or {})
    whose = table[["image", "patient", "slide"]].drop_duplicates()
    doubled = whose["image"][whose["image"].duplicated()]
    if len(doubled):
        raise InputError(f"{path} names {doubled.iloc[0]!r} twice, with different patients.")
    found = whose.set_index("image").reindex(keys).fillna("")
    filled = listing.assign(patient=found["patient"].to_numpy(), slide=found["slide"].to_numpy())
    return filled, notes_about(table, keys, listing["image_id"], path)


def read_table_of_patients(path: Path, parameter: str) -> pd.DataFrame:
    """The rows that name an image or a patient, with the columns `image`, `patient`, `slide`."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the parameter `{parameter}`.")
    table = read_spreadsheet(path, parameter)
    if not {"image", "patient"} <= set(table) or table.columns.has_duplicates:
        raise InputError(
            f"{path} needs the columns image,patient[,slide], each once; it has "
            f"{', '.join(table.columns)}."
        )
    if "slide" not in table:
        table["slide"] = ""
    nameless = table[(table["image"] == "") & (table["patient"] != "")]
    if len(nameless):
        raise InputError(
            f"{path} has {counted(len(nameless), 'row', 'rows')} with a patient and no image, the "
            f"first of {nameless['patient'].iloc[0]!r}: name the image in each row."
        )
    for column in ("patient", "slide"):
        places = (f"{path}, row {number}: the {column}" for number in table.index)
        check_patient_names(table[column], places)
    # As Windows writes paths, and as `find` does.
    table["image"] = table["image"].str.replace("\\", "/").str.removeprefix("./")
    return table[table["image"] != ""].reset_index(drop=True)


def keys_of(image_ids: pd.Series, named: pd.Series) -> pd.Series:
    """The name by which a table knows each image: its path, or its file name where unique."""
    paths = image_ids.map(composed)
    names = paths.str.rsplit("/", n=1).str[-1]
    names = names.where(~names.duplicated(keep=False))
    key = paths.where(paths.isin(named), names)
    return key.where(key.isin(named))


def check_labels(
    listing: pd.DataFrame, table: pd.DataFrame, keys: pd.Series, path: Path, names: dict[str, str]
) -> None:
    """Raise `InputError` if a column of labels contradicts the folders' classes."""
    for column in set(LABEL_COLUMNS) & set(table):
        said = table.set_index("image")[column].str.lower().map(names).dropna()
        said = said[~said.index.duplicated()].reindex(keys).to_numpy()
        wrong = listing[pd.notna(said) & (said != listing["label"]) & (listing["label"] != "")]
        if len(wrong):
            raise InputError(
                f"{path} contradicts the folders: its column `{column}` gives "
                f"{counted(len(wrong), 'image', 'images')} the other class, the first "
                f"{wrong['image_id'].iloc[0]!r}. The class is read from the folder: move the "
                f"images, or remove the column."
            )


def notes_about(
    table: pd.DataFrame, keys: pd.Series, image_ids: pd.Series, path: Path
) -> tuple[str, ...]:
    """Sentences about what of the table was not used: rows without an image, other columns."""
    notes, unknown = [], sorted(set(table["image"]) - set(keys.dropna()))
    file_names = image_ids.map(composed).str.rsplit("/", n=1).str[-1]
    several = [name for name in unknown if (file_names == name).any()]
    gone = [name for name in unknown if name not in several]
    if several:
        notes.append(
            f"{path.name} names {several[0]!r}, which several images are called: write their paths "
            f"below the folder ({counted(len(several), 'such name', 'such names')}, not used)."
        )
    if gone:
        images = counted(len(gone), "image that is", "images that are")
        notes.append(f"{path.name} names {images} not among those used, like {gone[0]!r}.")
    labels = sorted(set(LABEL_COLUMNS) & set(table))
    if labels:
        notes.append(
            f"{path.name}: the column {some(labels)} is not read; the class of an image is its "
            "folder's."
        )
    return tuple(notes)
