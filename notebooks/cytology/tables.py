"""CSV and JSON files that pass between notebooks: written whole or not at all, read by key.

A reader opens them in any spreadsheet; a later notebook reads nothing else. Rows are found by
their keys, never by their order.
"""

import contextlib
import csv
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from cytology.networks import NETWORKS
from cytology.settings import InputError, MachineError, is_formula, printable, short
from cytology.shapes import wrong

UNFINISHED = ".unfinished-"  # what a file is called until it is whole
VERIFICATION = "verification.json"  # how the run compared with the same run again
FORGOTTEN_SECONDS = 24 * 3600
# A number that is read and written again stays the same: from pandas 3 on without being asked.
EXACTLY = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
NAME_BYTES = 255  # the longest name of one file: ext4, APFS, NTFS and most others
FULL_BYTES = 2**20  # a disk with less free is full: libraries do not always pass the reason on

# Codes, not numbers: patient 007 must not become 7.
TEXT = dict.fromkeys(
    ["image_id", "label", "patient", "slide", "group", "sha256", "phash", "family", "stain", "mask"]
    + ["split", "model", "architecture", "reason", "finding", "other", "detail", "site", "subtype"]
    + ["category", "magnification", "protocol", "labels", "level", "judged_on", "rule"]
    + ["chosen_on", "fitted_on", "method", "first", "second", "certainty", "weights", "recipe"]
    + ["predictions", "shift", "amount", "column", "left_out", "interval", "device"]
    + ["check", "asks", "kind", "map", "chance_of", "passed", "noise_passed"]
    + ["neighbour", "nearest", "nearest_label"]
    + ["refer_why", "converted", "format", "file", "warning", "note"],
    "str",
)

# Columns that name a patient or a file; `row` names rows of other tables.
NAMING = {"image_id", "patient", "slide", "group", "other", "neighbour", "nearest", "row"}

TRAINING_NOTEBOOKS = {name: network.notebook for name, network in NETWORKS.items()}
TRAINED_BY = {notebook: name for name, notebook in TRAINING_NOTEBOOKS.items()}
# Who writes what; a name with a star stands for many files.
WRITTEN_BY = {
    **dict.fromkeys(
        ("dataset.json", "manifest.csv", "rejected.csv", "unseen.csv", "pseudonyms.csv")
        + ("tables/quality.csv", "tables/appearance.csv"),
        "01_data_exploration",
    ),
    "augmentation.json": "02_augmentation",
    **dict.fromkeys(("split.csv", "split.json"), "03_splitting"),
    **{
        f"{name}/{file}": notebook
        for name, notebook in TRAINING_NOTEBOOKS.items()
        for file in ("predictions.csv", "history.csv", "metrics.json", "timing.json", "model.keras")
        + ("heads.npz", "strengths.csv", "orientations.csv")
    },
    "densenet121/model.h5": "06_train_densenet121",
    **{
        f"tables/{name}.csv": "07_comparison"
        for name in ("comparison", "comparison_all", "pairwise", "thresholds", "calibration")
        + ("seeds", "folds", "abstention", "decision_curve", "learning_curve", "orientations")
        + ("strengths", "coverage", "cost")
    },
    "tables/summary.md": "07_comparison",
    **dict.fromkeys(("inference/*.csv", "*/reference.npz"), "08_inference"),
    **{
        f"tables/{name}": "09_leakage_audit"
        for name in ("leakage_audit.csv", "leakage_summary.csv", "leakage.md")
    },
    **{
        f"tables/robustness{rest}": "10_robustness"
        for rest in (".csv", "_pictures.csv", "_domains.csv", ".md")
    },
    **{
        f"tables/{name}": "11_explanation"
        for name in ("explanation_checks.csv", "explanation_pictures.csv", "explanation.md")
        + ("neighbours.csv",)
    },
    **dict.fromkeys(("tables/exports.csv", "exports/*", "model_card.md"), "12_export"),
}


def fitting(name: str, ending: str = "") -> str:
    """`name` with `ending`, as the name of one file or folder.

    Where that has more bytes than a file system allows, `name` is cut and gets a hash of itself,
    so that two names stay two.
    """
    if len(os.fsencode(name + ending)) <= NAME_BYTES:
        return name + ending
    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ending}"
    # Bytes, not letters: an umlaut takes two. A letter that is cut in two is left out.
    begin = os.fsencode(name)[: NAME_BYTES - len(os.fsencode(ending))].decode(errors="ignore")
    return begin + ending


@contextlib.contextmanager
def written_whole(path):
    """Context that gives a temporary path beside `path` and renames it when all went well.

    A reader sees the old file or the new one, never half of one; after an error the temporary
    file is removed. The suffixes are kept, since Keras chooses its format by them. Raises
    `MachineError` if the disk is full or cannot be written to.
    """
    path = Path(path)
    with disk_errors_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_beside(path)
    try:
        with disk_errors_told(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_beside(path: Path) -> Path:
    """An empty, unfinished file beside `path` that nobody else has.

    The system gives it the permissions that the user's mask (umask) allows. `tempfile` would keep
    it from the people with whom one shares a run.
    """
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}{''.join(path.suffixes)}")
    temporary.touch(exist_ok=False)
    return temporary


def lock_file(path: Path) -> FileLock:
    """A lock at `path`, a file with the permissions that the user's mask allows.

    Without `mode` some versions of filelock choose them, and set them also where it was there.
    """
    path.touch()
    return FileLock(path, mode=stat.S_IMODE(path.stat().st_mode))


@contextlib.contextmanager
def folder_written_whole(path):
    """Context that gives a temporary folder beside `path` and renames it when all went well.

    It takes the place of an earlier folder as a whole: nothing of that one stays behind. Raises
    `MachineError` as `written_whole` does.
    """
    path = Path(path)
    with disk_errors_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=path.parent)
    # The disk is looked at before the unfinished file is removed, which makes room again.
    with holder as beside, disk_errors_told(path):
        new = Path(beside) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.replace(Path(beside) / "old")
        new.replace(path)


@contextlib.contextmanager
def disk_errors_told(path: Path):
    """Turn the error of a disk that is full, read-only or not ours into one sentence.

    An error that names another file than `path`, or what lies beside it, stays as it is.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: h5py, when it cannot close a file
        reason = why_not_written(error, path)
        if reason is None or not is_about(error, path):
            raise
        raise MachineError(
            f"{short(path)} cannot be written: {reason}. What was finished is kept: mend it, then "
            "start again."
        ) from error


def is_about(error: Exception, path: Path) -> bool:
    """Whether an error is about `path`, a folder above it, or a file beside it.

    So it is taken for when it names no file.
    """
    named = getattr(error, "filename", None)
    if named is None or isinstance(named, int):  # a number stands for an open file
        return True
    named, path = Path(os.fsdecode(named)).absolute(), path.absolute()
    return named in path.parents or path.parent in named.parents


def why_not_written(error: Exception, path: Path) -> str | None:
    """Why the system refused to write; None if the error has another cause."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return "no permission"
    if number == errno.EROFS:
        return "the disk is read-only"
    if number == errno.ELOOP:
        return "a link stands in its place"
    if number == errno.ENAMETOOLONG:
        return "the name is too long"
    place = next(folder for folder in path.parents if folder.is_dir())
    full = number in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(place).free < FULL_BYTES
    return "the disk is full" if full else None


def remove_unfinished(folder: Path, older_than: float = 0.0) -> list[str]:
    """Remove what killed processes left half written below `folder`; returns the names.

    With `older_than` seconds only what is at least so old: others may be at work there.
    """
    found = []
    for path in sorted(folder.rglob(f"{UNFINISHED}*")):
        if path.exists() and time.time() - path.stat().st_mtime >= older_than:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            found.append(path.name)
    return found


def written_by(name: str) -> str | None:
    """The notebook that writes the file `name` of a run folder; None if none is known to."""
    matching = (notebook for pattern, notebook in WRITTEN_BY.items() if fnmatch(name, pattern))
    return WRITTEN_BY.get(name) or next(matching, None)


def require(run: Path, name: str) -> Path:
    """The file `name` of the run; `InputError` that names its notebook if it is not there."""
    path = run / name
    if not path.is_file():
        raise InputError(
            f"{name} is missing in {short(run)}: run notebook {written_by(name)} first "
            f"(with run_dir = {short(run)!r})."
        )
    return path


def write_table(run: Path, name: str, table: pd.DataFrame) -> None:
    """Write `table` to `run/name` as CSV (UTF-8, no index).

    `InputError` for text that a spreadsheet would run: names are refused where they come in.
    """
    for column, values in table.items():
        for text in {value for value in values if isinstance(value, str) and is_formula(value)}:
            raise InputError(
                f"{name} is not written: to a spreadsheet {printable(text)[:60]} in its column "
                f"{column} is a formula; rename it."
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
            # Only a number can be missing: a patient with the initials NA is one.
            missing = {column: [""] for column in columns if column not in TEXT}
            return pd.read_csv(
                path,
                index_col=False,
                dtype=TEXT,
                keep_default_na=False,
                na_values=missing,
                **EXACTLY,
            )
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise InputError(damaged(run, name, error)) from None


def naming_columns(path: Path) -> set[str]:
    """The columns of a table that name patients or files; none of what is no table."""
    if path.suffix != ".csv":
        return set()
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        return NAMING & set(next(csv.reader(stream), []))


def damaged(run: Path, name: str, why) -> str:
    """The sentence about a file of the run that cannot be read."""
    notebook = written_by(name)
    cure = (
        f"what notebook {notebook} wrote, or run it again" if notebook else "what run_all.py wrote"
    )
    return (
        f"{short(run / name)} cannot be read ({' '.join(str(why).split())[:200]}): put back {cure}."
    )


def check_columns(table: pd.DataFrame, run: Path, name: str, numbers: str, texts: str) -> None:
    """`InputError` if a table lacks one of the columns, or one of `numbers` holds anything else.

    Both are names with spaces between; of `numbers` a cell may be empty.
    """
    lacking = [column for column in f"{numbers} {texts}".split() if column not in table]
    if lacking:
        raise InputError(damaged(run, name, f"it has no column {', '.join(lacking)}"))
    for column in numbers.split():
        if not pd.api.types.is_numeric_dtype(table[column]) or np.isinf(table[column]).any():
            raise InputError(damaged(run, name, f"{column} is not a number everywhere"))


def table_if_there(run: Path, name: str, **keys) -> pd.DataFrame:
    """Rows of a table in which columns have the given values; an empty one when it is missing."""
    if not (run / name).is_file():
        return pd.DataFrame()
    rows = read_table(run, name)
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    return rows


def write_json(run: Path, name: str, content: dict) -> None:
    """Write `content` to `run/name` as JSON."""
    write_text(run, name, json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n")


def finite(content):
    """Content with None where a number is not finite: JSON knows neither NaN nor infinity."""
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
    """A JSON file of the run; a key that it lacks is told with the file's name."""

    def __init__(self, content: dict, run: Path, name: str):
        super().__init__(content)
        self.place = run, name

    def __missing__(self, key):
        raise InputError(damaged(*self.place, f"it has no {key}"))


def read_json(run: Path, name: str) -> Facts:
    """Read a JSON file that a notebook wrote; `InputError` if it is missing or damaged."""
    try:
        content = json.loads(require(run, name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is no text in UTF-8
        if isinstance(error, InputError):
            raise
        raise InputError(damaged(run, name, error)) from None
    if problem := wrong(name, content):
        raise InputError(damaged(run, name, problem))
    return Facts(content, run, name)


def json_if_there(run: Path, name: str) -> dict:
    """A JSON file of the run; empty when it is missing."""
    return dict(read_json(run, name)) if (run / name).is_file() else {}


def splits_as_the_original(run: Path) -> bool:
    """Whether the run's split was made by the original's protocol, which leaks."""
    return (run / "split.json").is_file() and (
        read_json(run, "split.json")["protocol"] == "original"
    )
