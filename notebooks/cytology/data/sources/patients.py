"""The patient of each image: from a pattern over the paths, or from a table that a person made.

Names are compared in Unicode's composed form, without surrounding blanks: two systems may write
the same patient in two ways (`wording.normalized`).
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
from cytology.wording import composed, counted, is_formula, normalized, shorten_list

LABEL_COLUMNS = ("label", "class", "diagnosis")
MOST_LETTERS = 200  # of a patient's name: a missing quotation mark turns a whole file into one
PATTERN_SECONDS = 20
# Python cannot interrupt a search, and some patterns would take longer than the universe is old.
# One line per path, so the parent knows how far it got.
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
    """Fill `patient` with the first group of `pattern`, matched in each image's path."""
    try:
        expression = re.compile(composed(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"Parameter `{parameter}` '{pattern}' is not a regular expression: {error}."
        ) from None
    if expression.groups < 1:
        raise InputError(
            f"Parameter `{parameter}` '{pattern}' has no group: put the part that is the "
            "patient in parentheses, like '(patient\\d+)_'."
        )
    matches = search_pattern(
        expression.pattern, listing["image_id"].map(composed).tolist(), parameter
    )
    if not any(matches):
        raise InputError(
            f"Parameter `{parameter}` '{pattern}' matches no image path; a path looks like "
            f"'{listing['image_id'].iloc[0]}'. Change the pattern so that its first group finds "
            "the patient there."
        )
    patients = [normalized((match and match[0]) or "") for match in matches]
    places = (f"Parameter `{parameter}`: the patient in {name!r}" for name in listing["image_id"])
    check_patient_names(patients, places)
    return listing.assign(patient=patients)


def search_pattern(pattern: str, paths: list[str], parameter: str) -> list[list[str | None] | None]:
    """For each path None, or a list with the match of the first group of `pattern`.

    A separate process searches: `InputError` if it does not end within `PATTERN_SECONDS`.
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
            f"the path {path!r}: write it without a repeat inside a repeat."
        ) from None
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_patient_names(names: Iterable[str], places: Iterable[str]) -> None:
    """`InputError`, with its place, for a patient or slide unfit for tables and figures."""
    for name, place in zip(names, places, strict=True):
        if len(name) > MOST_LETTERS:
            raise InputError(
                f"{place} has a name of {len(name):,} letters, {name[:30]!r}...: the limit is "
                f"{MOST_LETTERS}; perhaps a quotation mark is missing."
            )
        if is_formula(name):
            raise InputError(
                f"{place} is named {name!r}, which a spreadsheet takes for a formula: use a name "
                "that does not begin with =, +, @ or -, or leave it empty."
            )


def unit_of(patient_pattern: str) -> str:
    """The unit of the groups: the name of the pattern's first group, e.g. `slide`, or `patient`."""
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

    `image` is the path below the data folder, or the bare file name if that is unique. See
    `spreadsheets` for the file formats. A column of labels is compared with the folders, by the
    `names` of classes. Raises `InputError` for a table that cannot be used.
    """
    table = read_table_of_patients(path, parameter)
    keys = keys_of(listing["image_id"], table["image"])
    if not keys.notna().any():
        raise InputError(
            f"{path} names none of the images; an image is called, for example, "
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
            f"{path} has {counted(len(nameless), 'row', 'rows')} with a patient but no image, the "
            f"first for {nameless['patient'].iloc[0]!r}: name the image in each row."
        )
    for column in ("patient", "slide"):
        places = (f"{path}, row {number}: the {column}" for number in table.index)
        check_patient_names(table[column], places)
    # Accept paths as written by Windows and by `find`.
    table["image"] = table["image"].str.replace("\\", "/").str.removeprefix("./")
    return table[table["image"] != ""].reset_index(drop=True)


def keys_of(image_ids: pd.Series, named: pd.Series) -> pd.Series:
    """The name of each image in a table: its path, or its file name if unique."""
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
                f"{counted(len(wrong), 'image', 'images')} the other class, the first is "
                f"{wrong['image_id'].iloc[0]!r}. The class is read from the folder: move the "
                f"images, or remove the column."
            )


def notes_about(
    table: pd.DataFrame, keys: pd.Series, image_ids: pd.Series, path: Path
) -> tuple[str, ...]:
    """Sentences about unused parts of the table: rows without an image, other columns."""
    notes, unknown = [], sorted(set(table["image"]) - set(keys.dropna()))
    file_names = image_ids.map(composed).str.rsplit("/", n=1).str[-1]
    several = [name for name in unknown if (file_names == name).any()]
    gone = [name for name in unknown if name not in several]
    if several:
        notes.append(
            f"{path.name} names {several[0]!r}, but several images have this name: write their "
            f"paths below the folder ({counted(len(several), 'such name', 'such names')} not used)."
        )
    if gone:
        images = counted(len(gone), "image that is", "images that are")
        notes.append(f"{path.name} names {images} not among those used, e.g. {gone[0]!r}.")
    labels = sorted(set(LABEL_COLUMNS) & set(table))
    if labels:
        notes.append(
            f"{path.name}: the column {shorten_list(labels)} is not read; the class of an image is "
            "its folder's."
        )
    return tuple(notes)
