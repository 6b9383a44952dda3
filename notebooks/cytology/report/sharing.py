"""A copy of a run that can be given away, and the search for names in it.

Nothing is copied because it is there: what goes along is named below. Patients, slides, groups and
images have the pseudonyms of `pseudonyms.csv`, which stays behind, as do the images, the executed
notebooks, and everything about new images. Then every byte of the copy is searched for every name
that the run knows.
"""

import base64
import html
import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import cytology
from cytology.catalogue import NAMING, WRITTEN_BY
from cytology.data.images.opening import UnreadableImage, opened
from cytology.evaluation.predictions import predictions_fingerprint
from cytology.files import file_hash, folder_written_whole, refuse_links_out
from cytology.inference.similarity import read_reference, write_reference
from cytology.parameters import DATA_WORDS, FIELDS, WEIGHT_WORDS, choices
from cytology.plots.style import DRAWN
from cytology.report.checklist import write_checklist
from cytology.report.discreet import facts, paths_in, without_paths
from cytology.report.model_card import write_model_card
from cytology.report.page import write_report
from cytology.report.pseudonyms import KINDS, with_pseudonyms
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import naming_columns, require
from cytology.wording import composed

# Of `dataset.json` and `run.json`: counts, versions and times, no text that a person wrote.
DATASET = tuple(
    "images benign malignant groups families of_unknown_unit unit rejected unseen "
    "fingerprint".split()
)
RECORD = ("profile", "started", "ended", "device", "cores", "versions", "git")
ENTRY = ("status", "seconds", "peak_memory_mib", "started", "ended")
_NO_PATHS = (*DATA_WORDS, *WEIGHT_WORDS)  # what may stand where a path may stand
OF_NETWORK = ("history.csv", "metrics.json", "timing.json", "model.keras")
NEW_IMAGES = "09_2_answers"  # patients of whom the run's tables know nothing
# Tables with names, of the run's own images and of new ones.
NAMED_IN = tuple(
    "manifest.csv rejected.csv unseen.csv tables/quality.csv inference/predictions.csv".split()
)
PACKAGE = Path(cytology.__file__).parent
PART = 2**24  # bytes that are searched at once


def share(run: Run, folder: Path) -> list[str]:
    """Write the copy of `run` to `folder`, which must be empty or not there; returns its files.

    Raises `InputError` if there is no such run, if the folder holds anything, or if a name was
    found in the copy: then nothing stays of it.
    """
    refuse_links_out(run.folder)
    for name in ("run.json", "manifest.csv", "split.csv", "split.json"):
        require(run.folder, name)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"--share {folder}: it holds something already; name a new folder.")
    if run.folder in folder.parents:
        raise InputError(f"--share {folder}: it lies inside the run; name a folder elsewhere.")
    with folder_written_whole(folder) as new:
        fill(run, Run(new), folder.name)
        found = next(names_found(new, names_of(run)), None)
        if found is not None:
            raise InputError(
                f"--share {folder}: nothing was written, since {found[1]} would hold the name "
                f"{found[0]!r}: take it out of what that is made from in {run}."
            )
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


# ------------------------------------------------------------------ the copy


def fill(run: Run, new: Run, name: str) -> None:
    """Write the whole copy of `run` to `new`, whose folder will be called `name`."""
    manifest = run.manifest
    new.write("dataset.json", dataset_of(run))
    new.write("run.json", record_of(run))
    copy(run, new, "split.json")
    write_hidden(run, new, "split.csv", manifest)
    for path in sorted((run / "tables").glob("*.*")):
        if f"tables/{path.name}" in WRITTEN_BY and not naming_columns(path):
            copy(run, new, f"tables/{path.name}")
    for network in run.networks:
        for file in OF_NETWORK:
            if (run / network / file).is_file():
                copy(run, new, f"{network}/{file}")
        write_hidden(run, new, f"{network}/predictions.csv", manifest)
        write_hidden_reference(run, new, network, manifest)
    for model in run.outside:
        copy(run, new, f"{model}/metrics.json")
        write_hidden(run, new, f"{model}/predictions.csv", manifest)
    lock_again(run, new)
    for path in sorted((run / "figures").glob("*.png")):
        if path.stem != NEW_IMAGES and comment_of(path) == DRAWN["Comment"]:
            copy(run, new, f"figures/{path.name}")
    write_model_card(run, new, name)
    write_checklist(new, name)
    write_report(new, name)


def copy(run: Run, new: Run, name: str) -> None:
    """Copy a file; texts in JSON lose their paths."""
    (new / name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".json"):
        content = dict(run.facts(name))
        new.write(name, without_paths(content, paths_in(content)))
    else:
        shutil.copyfile(run / name, new / name)


def dataset_of(run: Run) -> dict:
    """`dataset.json` for the copy: counts, and what a published set or the sample is called."""
    _, dataset = facts(run)
    known = dataset.get("data") in DATA_WORDS
    named = ("data", "source") if known else ()
    empty = {"data": "<data>", "root": "", "source": "folder"}
    return empty | {key: dataset[key] for key in (*DATASET, *named) if key in dataset}


def record_of(run: Run) -> dict:
    """`run.json` for the copy: no command, no error, no text that a person wrote."""
    record, _ = facts(run)
    kept = {key: record[key] for key in RECORD if key in record}
    entries = {
        name: {key: entry[key] for key in ENTRY if key in entry}
        for name, entry in record.get("notebooks", {}).items()
    }
    parameters = {
        name: value
        for name, value in record.get("parameters", {}).items()
        if name in FIELDS and (not isinstance(value, str) or choices(name) or value in _NO_PATHS)
    }
    return kept | {"parameters": parameters, "notebooks": entries, "grid": {}}


def write_hidden(run: Run, new: Run, name: str, manifest: pd.DataFrame) -> None:
    """Copy a table with pseudonyms, every other cell as it stands; rows in the order of those.

    Without hashes of images, by which anybody who has the images could tell whose they are.
    """
    table = pd.read_csv(require(run.folder, name), dtype=str, keep_default_na=False)
    table = table.drop(columns="sha256", errors="ignore")
    table = with_pseudonyms(table, manifest, ("image_id", "group"))
    (new / name).parent.mkdir(parents=True, exist_ok=True)
    table = table.sort_values("image_id", kind="stable")
    table.to_csv(new / name, index=False, lineterminator="\n")


def write_hidden_reference(run: Run, new: Run, network: str, manifest: pd.DataFrame) -> None:
    """Copy what new images are compared with, if notebook 09 has written it for this model."""
    model = file_hash(require(run.folder, f"{network}/model.keras"))
    kept = read_reference(run / network / "reference.npz", model)
    if kept is None:
        return
    known, falsely = kept
    hidden = with_pseudonyms(known.table, manifest, ("image_id", "group"))
    order = np.argsort(hidden["image_id"].to_numpy(), kind="stable")
    hidden = type(known)(hidden.iloc[order], known.values[order], known.distances[order])
    write_reference(new / network / "reference.npz", hidden, model, falsely)


def lock_again(run: Run, new: Run) -> None:
    """Thresholds name the predictions that they were chosen on, which have other names now."""
    path = new / "tables/thresholds.csv"
    if not path.is_file():
        return
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    hashes = {
        predictions_fingerprint(run, name): predictions_fingerprint(new, name)
        for name in run.networks
    }
    table["predictions"] = table["predictions"].replace(hashes)
    table.to_csv(path, index=False, lineterminator="\n")


def comment_of(path: Path) -> str:
    """What a PNG of ours says of the names in it; nothing if it cannot be read."""
    try:
        with opened(path) as picture:
            return str(picture.info.get("Comment", ""))
    except UnreadableImage:
        return ""


# ---------------------------------------------------------------- the search


def names_of(run: Run) -> set[str]:
    """Every name that the run knows: patients, slides, groups, files, the user, and folders."""
    found = set()
    for name in NAMED_IN:
        table = run.rows(name)
        for column in NAMING & set(table):
            found |= set(table[column].astype(str))
    files = {PurePosixPath(name) for name in found}
    found |= {path.name for path in files} | {path.stem for path in files}
    for name in ("run.json", "dataset.json"):
        found |= set(paths_in(dict(run.facts(name))))
    user = {os.environ.get(name, "") for name in ("LOGNAME", "USER", "USERNAME")}
    return found | user | {str(run.folder), str(Path.home()), Path.home().name}


def names_found(folder: Path, names: set[str]) -> Iterator[tuple[str, str]]:
    """(name, file) of each name that a file below `folder` holds, however it is packed.

    In a text, a name of three letters, a number of fewer than six digits, and a word that this
    project uses do not count. In cells they would be found: columns of names must hold pseudonyms
    only.
    """
    long = (name for name in names if len(name) >= (6 if name.isdecimal() else 4))
    telling = {composed(name).encode() for name in long}
    kinds = ("*.py", "*.jinja", "*.js", "*.csv")
    files = sorted(path for kind in kinds for path in PACKAGE.rglob(kind))
    ours = b"\n".join(path.read_bytes() for path in files)
    search = Search(telling - set(Search(telling).within(ours, is_text=True)))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        where = path.relative_to(folder).as_posix()
        yield from ((cell, where) for cell in cells_with_names(path))
        for content, is_text in contents_of(path.read_bytes()):
            yield from ((name.decode(), where) for name in search.within(content, is_text))


class Search:
    """Searches bytes for many names in one pass, by their first two bytes, then first four."""

    def __init__(self, names: set[bytes]):
        self.named: dict[int, list[bytes]] = {}
        self.begins = np.zeros(2**16, bool)
        for name in names:
            self.named.setdefault(int.from_bytes(name[:4], "little"), []).append(name)
            self.begins[int.from_bytes(name[:2], "little")] = True

    def within(self, data: bytes, is_text: bool) -> Iterator[bytes]:
        """Each name wherever it stands in `data`.

        In text one of fewer than 8 bytes counts as a whole word only; in other bytes, where four
        or five fall together by chance, it must have 6.
        """
        for start in range(0, len(data), PART):
            numbers = np.frombuffer(data[start : start + PART + 1], np.uint8).astype(np.uint16)
            places = start + np.flatnonzero(self.begins[numbers[:-1] | numbers[1:] << 8])
            yield from self._at(data, places.tolist(), is_text)

    def _at(self, data: bytes, places: list[int], is_text: bool) -> Iterator[bytes]:
        for at in places:
            for name in self.named.get(int.from_bytes(data[at : at + 4], "little"), ()):
                if data.startswith(name, at) and (
                    len(name) >= 8 or (is_word(data, at, len(name)) if is_text else len(name) >= 6)
                ):
                    yield name


def is_word(data: bytes, at: int, size: int) -> bool:
    """Whether no letter or digit of UTF-8 touches the bytes from `at` on."""
    around = data[max(at - 1, 0) : at] + data[at + size : at + size + 1]
    return not any(byte > 127 or chr(byte).isalnum() or byte == ord("_") for byte in around)


def cells_with_names(path: Path) -> Iterator[str]:
    """The cells in columns of names that are not pseudonyms."""
    columns = naming_columns(path)
    if columns:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=sorted(columns))
        for column in columns:
            cells = table[column].drop_duplicates()
            yield from cells[~cells.str.fullmatch(rf"({'|'.join(KINDS)}) \d+")]


def contents_of(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """All that a file holds, and whether it is text: ZIP, NumPy, PNG and base64 are opened."""
    if data.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield composed(member).encode(), True
                yield from contents_of(archive.read(member))
        return
    if data.startswith(b"\x93NUMPY"):
        array = np.load(io.BytesIO(data), allow_pickle=False)
        data = "\n".join(array.ravel()).encode() if array.dtype.kind == "U" else array.tobytes()
    elif data.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            assert isinstance(picture, PngImageFile)
            texts = [
                *picture.info.values(),
                *picture.text.values(),
            ]  # `text`: also after the pixels
        yield composed("\n".join(map(str, texts))).encode(), True
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield data, False
        return
    for packed in re.findall(r"base64,([A-Za-z0-9+/=]+)", text):
        yield from contents_of(base64.b64decode(packed))
    text = composed(re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    yield from ((each.encode(), True) for each in {text, html.unescape(text)})
