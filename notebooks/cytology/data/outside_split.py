"""Reads and uses a split from outside: from the folders of the images, or from a table."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cytology.data.given_split import PART_OF_WORD, part_of
from cytology.data.repair import repair_split
from cytology.data.sources.masks import words_of
from cytology.data.sources.patients import keys_of
from cytology.data.sources.spreadsheets import read_spreadsheet
from cytology.data.splitting import (
    ABOUT_IMAGE,
    best_part,
    check_labels_everywhere,
    fingerprint,
    with_folds,
)
from cytology.settings import InputError, resolve
from cytology.wording import composed, counted, shorten_list

FOLDERS = "folders"  # the value of `given_split` for a split by the folders of the images


@dataclass(frozen=True)
class GivenSplit:
    """A split from outside: `images` has the manifest's columns, `split` (may be empty) and `fold`.

    `source` says where it came from, without a name. `fingerprint` is set if the table is the
    `split.csv` of another run.
    """

    images: pd.DataFrame
    source: str
    fingerprint: str = ""


def read_given_split(manifest: pd.DataFrame, given_split: str) -> GivenSplit | None:
    """The split that `given_split` names, or that of the folders; None if there is none.

    Raises `InputError` for a table that does not fit these images.
    """
    if given_split not in ("", FOLDERS):
        return split_from_table(manifest, resolve(given_split))
    images = manifest.assign(split=manifest["image_id"].map(part_of))
    images["fold"] = pd.array([pd.NA] * len(images), dtype="Int64")
    there = set(images["split"]) - {""}
    if "train" in there and len(there) > 1:
        return GivenSplit(images, "the names of its folders")
    if given_split:
        raise InputError(
            "Parameter `given_split` is 'folders', but the images are not in folders named train "
            "and test: name a table with the columns image,split, or leave it empty."
        )
    return None


def split_from_table(manifest: pd.DataFrame, path: Path) -> GivenSplit:
    """The split of a table with the columns `image` or `image_id`, and `split`.

    Optional columns are `fold`, and `sha256`, which is compared with the images. An image is named
    by its path, or by its file name if that is unique.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the parameter `given_split`.")
    table = read_spreadsheet(path, "given_split")
    name = next((column for column in ("image_id", "image") if column in table), None)
    if name is None or "split" not in table or table.columns.has_duplicates:
        raise InputError(
            f"{path} needs the columns image (or image_id) and split, each once; it has "
            f"{', '.join(table.columns)}."
        )
    if "orientation" in table:
        raise InputError(
            f"{path} splits augmented pictures (protocol `original`), not images: name a split of "
            "images."
        )
    table["image"] = table[name].str.replace("\\", "/").str.removeprefix("./").map(composed)
    table["split"] = parts_in(table["split"], path)
    doubled = table["image"][table["image"].duplicated()]
    if len(doubled):
        raise InputError(f"{path} names {doubled.iloc[0]!r} twice: an image belongs to one part.")
    rows = rows_of_images(manifest, table, path)
    images = manifest.assign(split=rows["split"].to_numpy(), fold=folds_in(rows, path))
    if {"sha256", "group", "label"} <= set(rows):
        other = manifest["label"].to_numpy() != rows["label"].to_numpy()
        if other.any():
            raise InputError(
                f"{path} gives {counted(other.sum(), 'image', 'images')} another class than the "
                f"folders, the first is {manifest['image_id'][other].iloc[0]!r}: make them agree "
                "(parameter `classes`)."
            )
        return GivenSplit(
            images, "a table", fingerprint(rows.assign(fold=images["fold"].to_numpy()))
        )
    return GivenSplit(images, "a table")


def parts_in(split: pd.Series, path: Path) -> pd.Series:
    """`train`, `val` and `test` from the words of a column, indexed by row number."""
    found = {word: {PART_OF_WORD.get(each) for each in words_of(word)} for word in set(split)}
    found = {word: parts - {None} for word, parts in found.items()}
    for row, word in split.items():
        if len(found[word]) != 1:
            raise InputError(
                f"{path}, row {row}: the split is {word[:40]!r}; it must be train, val or test."
            )
    return split.map(lambda word: next(iter(found[word])))


def rows_of_images(manifest: pd.DataFrame, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The row of each image; `InputError` if images are missing, extra or changed."""
    image_id = manifest["image_id"]
    keys = keys_of(image_id, table["image"])
    rows = table.set_index("image").reindex(keys)
    missing = image_id[keys.isna().to_numpy()]
    extra = table["image"][~table["image"].isin(keys)]
    known = rows["sha256"].fillna("").to_numpy() if "sha256" in rows else ""
    other = image_id[(known != "") & (known != manifest["sha256"].to_numpy())]
    wrong = [
        f"{counted(len(names), *words)} ({shorten_list([repr(name) for name in names])})"
        for names, words in (
            (missing, ("image of this run is not in it", "images of this run are not in it")),
            (extra, ("image in it is not in this run", "images in it are not in this run")),
            (other, ("image has changed", "images have changed")),
        )
        if len(names)
    ]
    if wrong:
        raise InputError(
            f"{path} does not match the images of this run: {'; '.join(wrong)}. Use the same "
            "images, or remove rows of missing ones (rejected.csv lists what was left out)."
        )
    return rows.rename_axis("image").reset_index()


def folds_in(rows: pd.DataFrame, path: Path) -> pd.Series:
    """The folds of a table, empty in test; all empty if it has none."""
    if "fold" not in rows or (rows["fold"] == "").all():
        return pd.array([pd.NA] * len(rows), dtype="Int64")
    number = pd.to_numeric(rows["fold"].replace("", None), errors="coerce")
    of_test = (rows["split"] == "test").to_numpy()
    wrong = ~of_test & ~((number >= 0) & (number % 1 == 0)).to_numpy()
    if wrong.any():
        first = rows[wrong].iloc[0]
        raise InputError(
            f"{path}: the fold of {first['image']!r} is {first['fold'][:40]!r}; in train and val "
            "it must be a whole number, or the column must be empty."
        )
    return number.mask(of_test).astype("Int64").array


# ---------------------------------------------------------------------------- using it


def split_from(
    given: GivenSplit, protocol: str, folds: int, val_share: float, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """The split of the run, made from a given one, and sentences about what was changed.

    Repaired under the protocol `grouped`, unchanged under `given`. If it has no val, whole groups
    of train become val; if it has no folds, or they cut groups, new ones are made. Raises
    `InputError` if train or test is missing, images are left out, or a part lacks a class.
    """
    images, said = given.images[[*ABOUT_IMAGE, "split", "fold"]].copy(), []
    check_complete(images)
    if protocol == "grouped":
        whole = repair_split(images)
        moved = int((whole != images["split"]).sum())
        images = images.assign(split=whole)
        said.append(f"It is used after repair: {counted(moved, 'image', 'images')} moved." if moved
                    else "It is used unchanged: no group crosses it.")  # fmt: skip
    else:
        cut = (images.groupby("group")["split"].nunique() > 1).sum()
        said.append("It is used unchanged, and results on its test are the ones to compare"
                    + (f". {counted(cut, 'group is', 'groups are')} in several of its parts: "
                       "every page of this run warns of it." if cut else "."))  # fmt: skip
    if not (images["split"] == "val").any():
        train = images[images["split"] == "train"]
        share = min(0.5, val_share * len(images) / len(train))
        val = train.index[best_part(train, share, seed)]
        images.loc[val, "split"] = "val"
        said.append(f"It has no val: {counted(len(val), 'image', 'images')} of train became val.")
    held = images[images["split"] != "test"]
    images.loc[images["split"] == "test", "fold"] = pd.NA
    if held["fold"].isna().any() or (held.groupby("group")["fold"].nunique() > 1).any():
        images = with_folds(images, folds, seed)
        why = "cut groups" if held["fold"].notna().all() else "do not cover all of train and val"
        why = "are missing" if held["fold"].isna().all() else why
        said.append(f"Its folds {why}: {folds} folds of whole groups were made.")
    check_labels_everywhere(images)
    if given.fingerprint:
        same = given.fingerprint == fingerprint(images)
        said.append("It equals the split of that table, folds included: the fingerprints agree."
                    if same else "It is no longer the split of that table: the fingerprints "
                    "differ.")  # fmt: skip
    return images, said


def check_complete(images: pd.DataFrame) -> None:
    """`InputError` if an image is in no part, or train or test is empty."""
    nowhere = images.loc[images["split"] == "", "image_id"]
    if len(nowhere):
        raise InputError(
            f"{counted(len(nowhere), 'image is', 'images are')} not in train, val or test, the "
            f"first is {nowhere.iloc[0]!r}: move them, or name a table as `given_split`."
        )
    for part in ("train", "test"):
        if not (images["split"] == part).any():
            raise InputError(
                f"The given split has no {part}: leave `given_split` empty, and the series makes a "
                "split."
            )
