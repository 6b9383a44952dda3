"""Images to predict: a folder, an archive or a list, with classes and patients if known."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cytology.data.sources.archives import MEGABYTE, unpack
from cytology.data.sources.classes import class_of, parse_classes
from cytology.data.sources.listing import find_files, images_below, why_no_id
from cytology.data.sources.patients import add_patients_from_csv, add_patients_from_pattern, unit_of
from cytology.data.sources.spreadsheets import read_spreadsheet, text_of
from cytology.data.splitting import read_split
from cytology.files import file_hash, is_sound, keep_checksum
from cytology.run import Run
from cytology.settings import CACHE, InputError, as_on_disk, resolve, short
from cytology.wording import printable, shorten_list

ARCHIVES = (".zip", ".tar", ".gz", ".tgz")
LISTS = (".txt", ".csv", ".xlsx")
NOTHING = pd.DataFrame(columns=["image_id", "reason"], dtype=str)


@dataclass(frozen=True)
class Images:
    """Images to predict: `table` has `image_id`, `label` and `group`, empty where unknown.

    `unit` is the name of the groups; empty if the patients are unknown. `refused` lists images that
    are not predicted, with the `reason`. `given` is what the user named, for messages: the images
    of an archive are below another `root`. For images `of_neither_class` no answer can be right.
    """

    root: Path
    table: pd.DataFrame
    unit: str
    refused: pd.DataFrame = field(default_factory=NOTHING.copy)
    given: Path | None = None
    of_neither_class: bool = False

    @property
    def name(self) -> str:
        """The folder, archive or list that was named, else the root."""
        return str(self.given or self.root)


def choose_images(
    run: Run, images: str, classes: str = "", patient_pattern: str = "", patients_csv: str = ""
) -> Images:
    """The images to predict.

    `images` names new ones (`new_images`), or is `unseen` (the run's images of neither class), or
    empty (the test part). The other parameters are for new images, as for training data.
    """
    if images == "unseen":
        unseen = run.table("unseen.csv")
        if unseen.empty:
            raise InputError(
                "Parameter `images` is 'unseen', but all images of this data set have a class: "
                "name a folder."
            )
        table = unseen[["image_id"]].assign(label="", group="")
        return Images(run.images, table, unit="", of_neither_class=True)
    if images:
        return new_images(resolve(images), classes, patient_pattern, patients_csv)
    split = read_split(run)
    test = split[split["split"] == "test"].drop_duplicates("image_id")
    return Images(run.images, test[["image_id", "label", "group"]], run.unit)


def new_images(
    path: Path, classes: str = "", patient_pattern: str = "", patients_csv: str = ""
) -> Images:
    """Images of a folder, an archive or a list, with the classes and patients that are known.

    An archive is unpacked into the cache, once. A list is a text file with one path per line, or a
    table (CSV or .xlsx) with a column `image`; its paths are relative to the list.
    """
    names = parse_classes(classes, "images_classes")
    root, found, refused = find_images(path)
    labels = [class_of(name, names, "images_classes") for name in found]
    table = pd.DataFrame({"image_id": found, "label": labels})
    if patients_csv:
        parameter = "images_patients_csv"
        table, notes = add_patients_from_csv(table, resolve(patients_csv), parameter, names)
        print(*(f"NOTE: {note}" for note in notes), sep="\n", end="\n" if notes else "")
    elif patient_pattern:
        table = add_patients_from_pattern(table, patient_pattern, "images_patient_pattern")
    else:
        return Images(root, table.assign(group=""), "", refused, path)
    unit = unit_of("" if patients_csv else patient_pattern)
    return Images(root, table.rename(columns={"patient": "group"}), unit, refused, path)


def find_images(path: Path) -> tuple[Path, list[str], pd.DataFrame]:
    """The root of the images that `path` names, their ids, and the left-out files with reasons."""
    if path.is_dir():
        return path, *images_in(path, path)
    if not path.is_file():
        raise InputError(f"There is no folder or file {path}: check the parameter `images`.")
    if path.suffix.lower() in ARCHIVES:
        folder = CACHE / "unpacked" / file_hash(path)[:20]
        if not is_sound(folder):
            unpack(path, folder)
            keep_checksum(folder)
            size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
            print(
                f"NOTE: {path.name} was unpacked to {short(folder)} ({size / MEGABYTE:,.1f} MB): "
                "delete that folder when you no longer need it."
            )
        return folder, *images_in(folder, path)
    if path.suffix.lower() in LISTS:
        return path.parent, *existing_files(path.parent, listed_paths(path))
    raise InputError(
        f"Parameter `images` is the file {path}: it must be a folder, an archive "
        f"({', '.join(ARCHIVES)}) or a list of paths ({', '.join(LISTS)})."
    )


def images_in(folder: Path, given: Path) -> tuple[list[str], pd.DataFrame]:
    """Images below `folder`, as posix paths, and the left-out files with reasons.

    Raises an `InputError` that names `given` if there are neither images nor left-out files.
    """
    found, refused = images_below(folder)
    if not found and refused.empty:
        others = [path.name for path in find_files(folder)[0]]
        holds = f"It contains {shorten_list(others)}" if others else "It contains no file"
        inner = [name for name in others if name.lower().endswith(ARCHIVES)]
        advice = f"unpack {inner[0]} and name its folder" if inner else "check `images`"
        raise InputError(f"No image in {given}. {holds}: {advice}.")
    return found, refused[["image_id", "reason"]]


def existing_files(folder: Path, names: list[str]) -> tuple[list[str], pd.DataFrame]:
    """The listed paths that are files, relative to `folder`; for the others the reason.

    A name is found in the spelling of the disk, whatever Unicode form the list uses.
    """
    found, refused = [], []
    for name in names:
        if name.startswith("//"):  # Windows would log in there, with the user's name
            why = "a path on another computer: copy the file to this one"
            refused.append((printable(name), why))
            continue
        path = as_on_disk(folder / name)
        below = path.is_relative_to(folder)
        image_id = path.relative_to(folder).as_posix() if below else str(path)
        reason = why_no_id(image_id) if os.path.exists(path) else "no such file"
        if reason:
            refused.append((printable(name), reason))
        else:
            found.append(image_id)
    return list(dict.fromkeys(found)), pd.DataFrame(refused, columns=["image_id", "reason"])


def listed_paths(path: Path) -> list[str]:
    """The paths of a list, each once; `InputError` if it has none or cannot be read."""
    if path.suffix.lower() in (".csv", ".xlsx"):
        table = read_spreadsheet(path, "images")
        if list(table).count("image") != 1:
            raise InputError(f"The list {path} needs exactly one column named `image`.")
        lines = table["image"].tolist()
    else:
        lines = text_of(path, "images").splitlines()
    found = list(dict.fromkeys(line.strip().replace("\\", "/") for line in lines if line.strip()))
    if not found:
        raise InputError(f"The list {path} names no image: write one path per line.")
    return found
