"""Compares a run with its repetition: every table, every number.

The second run starts from the images, with its own cache. `MEASURED` names what must differ;
any other difference is reported, with the file, the row and both values.
"""

import json
import os
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from cytology.catalogue import TEXT, VERIFICATION
from cytology.files import UNFINISHED, fitting_name, folder_written_whole
from cytology.runner.record import now, read_run
from cytology.settings import InputError, short
from cytology.tables import write_json, write_table

# Times and where they were measured; sizes and hashes of files that contain a time stamp.
MEASURES = (
    "device",
    "feature_seconds",
    "features_computed",
    "training_seconds",
    "images_per_second",
    "megabytes",
)
MEASURED = {
    "*/timing.json": MEASURES,
    "tables/cost.csv": MEASURES,
    "tables/exports.csv": ("latency", "megabytes"),
    "*/metrics.json": ("model_sha256", "engine_why"),
    "exports/*/export.json": ("model_sha256", "files.model.keras", "files.model.h5")
    + ("files.saved_model*", "files.model.onnx"),
}
NOT_COMPARED = tuple(
    "run.json verification.* model_card.md checklist.md inference/uploads/* cache/*".split()
)
DIFFERENCE_COLUMNS = ["file", "row", "column", "before", "after"]
MADE_BY_VERIFY = (
    ".made-by-verify"  # marks the folder of a second run; only such a folder may be removed
)


def scratch_folder(run: Path) -> Path:
    """A new folder for the second run; that of an earlier verification is removed.

    Raises `InputError` if another folder has this name.
    """
    folder = run.with_name(fitting_name(run.name, "-verification"))
    if os.path.lexists(folder) and not (folder / MADE_BY_VERIFY).is_file():
        raise InputError(
            f"--verify {short(run)}: the second run needs the name {short(folder)}, but that "
            "folder was not made by --verify: rename or remove it."
        )
    with folder_written_whole(folder) as new:
        (new / MADE_BY_VERIFY).touch()
    return folder


def compare_runs(first: Path, second: Path) -> tuple[list[str], pd.DataFrame]:
    """(the files compared, the differences between two runs as rows of `DIFFERENCE_COLUMNS`).

    It compares all tables (CSV), facts (JSON) and sentences (Markdown) of either run.
    """
    names = sorted(compared_files(first) | compared_files(second))
    rows = [row for name in names for row in table_differences(name, first / name, second / name)]
    return names, pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


def compared_files(run: Path) -> set[str]:
    """The names of the files of a run that a verification compares."""
    found = set()
    for kind in ("*.csv", "*.json", "*.md"):
        found |= {path.relative_to(run).as_posix() for path in run.rglob(kind)}
    return {
        name
        for name in found
        if UNFINISHED not in name and not any(fnmatch(name, other) for other in NOT_COMPARED)
    }


def table_differences(name: str, first: Path, second: Path) -> list[tuple]:
    """Rows of `DIFFERENCE_COLUMNS` for one file, without what is measured."""
    if not (first.is_file() and second.is_file()):
        return [(name, "", "", *("there" if path.is_file() else "" for path in (first, second)))]
    measured = {
        part for pattern in MEASURED if fnmatch(name, pattern) for part in MEASURED[pattern]
    }
    if name.endswith(".csv"):
        return differing_cells(name, first, second, measured)
    if name.endswith(".json"):
        texts = [flat(json.loads(path.read_text(encoding="utf-8"))) for path in (first, second)]
    else:
        lines = (path.read_text(encoding="utf-8").splitlines() for path in (first, second))
        texts = [{f"line {number}": line for number, line in enumerate(each, 1)} for each in lines]
    return [
        (name, "", key, texts[0].get(key, ""), texts[1].get(key, ""))
        for key in {**texts[0], **texts[1]}
        if texts[0].get(key) != texts[1].get(key)
        and not any(fnmatch(key, pattern) for pattern in measured)
    ]


def differing_cells(name: str, first: Path, second: Path, measured: set[str]) -> list[tuple]:
    """Rows of `DIFFERENCE_COLUMNS` for two tables, whose rows must be in the same order."""
    tables = [
        pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=measured, errors="ignore")
        for path in (first, second)
    ]
    before, after = tables
    if list(before) != list(after) or len(before) != len(after):
        shapes = (f"{len(table)} rows of {', '.join(table)}" for table in tables)
        return [(name, "", "", *shapes)]
    keys = [column for column in before if column in TEXT][:4]
    found = []
    for column in before:
        for place in (before[column] != after[column]).to_numpy().nonzero()[0]:
            row = " ".join(before[keys].iloc[place]) or f"row {place + 1}"
            found.append((name, row, column, before[column].iloc[place], after[column].iloc[place]))
    return found


def flat(content, prefix: str = "") -> dict[str, str]:
    """A JSON file as `key.key: value`, values as text."""
    if not isinstance(content, dict | list):
        return {prefix.rstrip("."): str(content)}
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    return {
        name: value for key, part in pairs for name, value in flat(part, f"{prefix}{key}.").items()
    }


def verdict_in_words(found: pd.DataFrame, files: list[str], most: int = 10) -> list[str]:
    """Sentences: how many files are identical, and which numbers changed, column by column."""
    if found.empty:
        return [f"All {len(files)} tables are identical, except times and file sizes."]
    sentences = [f"{found['file'].nunique()} of {len(files)} tables differ:"]
    for (file, column), rows in list(found.groupby(["file", "column"], sort=False))[:most]:
        one, numbers = rows.iloc[0], rows[["before", "after"]].apply(pd.to_numeric, errors="coerce")
        largest = (numbers["after"] - numbers["before"]).abs().max()
        sentences.append(
            f"{file}, {column or 'the whole file'}{f', {one.row}' if one.row else ''}: "
            f"{one.before or 'nothing'}, then {one.after or 'nothing'}"
            + (f"; {len(rows)} rows, largest difference {largest:.2g}" if len(rows) > 1 else "")
        )
    more = found.groupby(["file", "column"]).ngroups - most
    return sentences + ([f"and {more} more columns: see verification.csv."] if more > 0 else [])


def write_verification(run: Path, files: list[str], found: pd.DataFrame) -> dict:
    """Record the verification in `verification.json`, which is returned, and the differences, if
    any, in `verification.csv`."""
    (run / "verification.csv").unlink(missing_ok=True)
    if len(found):
        write_table(run, "verification.csv", found)
    about = {"verified": now(), "files": len(files), "different": int(found["file"].nunique())}
    about["git"] = read_run(run)["git"]
    write_json(run, VERIFICATION, about)
    return about


def check_finished(run: Path) -> dict:
    """The `run.json` of a finished run; `InputError` if there is none or it is unfinished."""
    record = read_run(run)
    if not record:
        raise InputError(f"--verify {short(run)}: it has no run.json; name a run folder.")
    entries = {**record["notebooks"], **record["grid"]}
    unfinished = [name for name, entry in entries.items() if entry.get("status") != "ok"]
    if unfinished:
        raise InputError(
            f"--verify {short(run)}: {unfinished[0]} was not finished; run the series there first."
        )
    return record
