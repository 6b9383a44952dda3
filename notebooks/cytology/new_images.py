"""Images to predict: a folder, an archive or a list; with classes and patients where known."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cytology.archives import unpack
from cytology.datasets import image_root
from cytology.folders import (
    IMAGE_SUFFIXES,
    add_patients_from_csv,
    add_patients_from_pattern,
    class_of,
    find_files,
    parse_classes,
    unit_of,
)
from cytology.settings import CACHE, InputError, file_hash, resolve
from cytology.splitting import read_split
from cytology.spreadsheets import read_spreadsheet, text_of
from cytology.store import is_sound, keep_checksum
from cytology.tables import read_json, read_table

ARCHIVES = (".zip", ".tar", ".gz", ".tgz")
LISTS = (".txt", ".csv")


def no_refusals() -> pd.DataFrame:
    """An empty table of `Images.refused`."""
    return pd.DataFrame(columns=["image_id", "reason"], dtype=str)


@dataclass(frozen=True)
class Images:
    """Images to predict: `table` has `image_id`, `label` and `group`, empty where unknown.

    `unit` is what a group is; empty if nobody knows whose the images are. `refused` are those that
    cannot even be opened, with the `reason`.
    """

    root: Path
    table: pd.DataFrame
    unit: str
    refused: pd.DataFrame = field(default_factory=no_refusals)


def choose_images(
    run: Path, data: str, images: str, classes: str, patient_pattern: str, patients_csv: str
) -> Images:
    """The images to predict.

    `images` names new ones (`new_images`), is `unseen` (the run's images of neither class) or
    empty: the test part. The others are for new images, as for training data.
    """
    if images == "unseen":
        unseen = read_table(run, "unseen.csv")
        if unseen.empty:
            raise InputError(
                "Parameter `images` is unseen, but this data set has no images of neither class: "
                "name a folder."
            )
        return Images(image_root(run, data), unseen[["image_id"]].assign(label="", group=""), "")
    if images:
        return new_images(resolve(images), classes, patient_pattern, patients_csv)
    split = read_split(run)
    test = split[split["split"] == "test"].drop_duplicates("image_id")
    unit = read_json(run, "split.json")["unit"]
    return Images(image_root(run, data), test[["image_id", "label", "group"]], unit)


def new_images(path: Path, classes: str, patient_pattern: str, patients_csv: str) -> Images:
    """Images of a folder, an archive or a list, with the classes and patients that can be told.

    An archive is unpacked into the cache, once. A list is a text file with a path a line, or a CSV
    file with a column `image`; its paths begin where the list lies.
    """
    names = parse_classes(classes, "images_classes")
    root, found, refused = found_images(path)
    table = pd.DataFrame({"image_id": found, "label": [class_of(name, names) for name in found]})
    if patients_csv:
        parameter = "images_patients_csv"
        table, notes = add_patients_from_csv(table, resolve(patients_csv), parameter)
        print(*(f"NOTE: {note}" for note in notes), sep="\n", end="\n" if notes else "")
    elif patient_pattern:
        table = add_patients_from_pattern(table, patient_pattern, "images_patient_pattern")
    else:
        return Images(root, table.assign(group=""), "", refused)
    unit = unit_of("" if patients_csv else patient_pattern)
    return Images(root, table.rename(columns={"patient": "group"}), unit, refused)


def found_images(path: Path) -> tuple[Path, list[str], pd.DataFrame]:
    """The root of the images that `path` names, their ids, and what cannot be opened."""
    if path.is_dir():
        return path, *images_in(path)
    if not path.is_file():
        raise InputError(f"There is no folder or file {path}: check the parameter `images`.")
    if path.suffix.lower() in ARCHIVES:
        folder = CACHE / "unpacked" / file_hash(path)[:20]
        if not is_sound(folder):
            unpack(path, folder)
            keep_checksum(folder)
        return folder, *images_in(folder)
    if path.suffix.lower() in LISTS:
        return path.parent, listed(path), no_refusals()
    raise InputError(
        f"Parameter `images` is the file {path}: it must be a folder, an archive "
        f"({', '.join(ARCHIVES)}) or a list of paths ({', '.join(LISTS)})."
    )


def images_in(folder: Path) -> tuple[list[str], pd.DataFrame]:
    """Image files below `folder`, as posix paths, and what only looks like one.

    `InputError` if there is no image.
    """
    files, refusals = find_files(folder)
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise InputError(f"No JPEG, PNG, BMP or TIFF file in {folder}: check `images`.")
    refused = [(path.relative_to(folder).as_posix(), reason) for path, reason in refusals.items()]
    ids = sorted(path.relative_to(folder).as_posix() for path in found)
    return ids, pd.DataFrame(refused, columns=["image_id", "reason"])


def listed(path: Path) -> list[str]:
    """The paths of a list, each once; `InputError` if it has none or cannot be read."""
    if path.suffix.lower() == ".csv":
        table = read_spreadsheet(path, "images")
        if list(table).count("image") != 1:
            raise InputError(f"The list {path} has no column `image`: name it so, and once.")
        lines = table["image"].tolist()
    else:
        lines = text_of(path, "images").splitlines()
    found = list(dict.fromkeys(line.strip().replace("\\", "/") for line in lines if line.strip()))
    if not found:
        raise InputError(f"The list {path} names no image: write a path a line.")
    return found
