"""A folder of images of one's own: which files are images, of which class and of which patient.

Every source of images yields a `Listing`, so that nothing after it needs to know where the
images came from.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cytology.settings import InputError, resolve
from cytology.spreadsheets import read_spreadsheet

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
NEVER_IMAGES = {"", ".csv", ".txt", ".md", ".json", ".db", ".ini", ".xlsx", ".pdf"}
CLASS_NAMES = {"b": "B", "benign": "B", "m": "M", "malignant": "M"}
LISTED = ["image_id", "label", "patient", "slide"]


@dataclass(frozen=True)
class Listing:
    """What a source of images yields before any image is opened.

    `images` has the columns of `LISTED`, sorted by `image_id` (the posix path below `root`);
    `label` is B or M, an unknown patient or slide is empty text; then the source's own columns.
    `unit` is the word for the independent unit. `source` says what the images are, under which
    licence, and what to cite. `notes` are sentences that a reader must see. `refused` (`image_id`,
    `label`, `reason`) names what looked like an image and is none. `unseen` (`image_id`,
    `category` and more) are images of neither class: no network is trained or judged on them.
    """

    root: Path
    images: pd.DataFrame
    unit: str = "patient"
    source: str = "folder"
    notes: tuple[str, ...] = ()
    refused: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["image_id", "label", "reason"])
    )
    unseen: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["image_id", "category"])
    )


# ---------------------------------------------------------------------- folder


def folder(
    root: Path, classes: str = "", patient_pattern: str = "", patients_csv: str = ""
) -> Listing:
    """A folder of one's own.

    The class of an image is the first folder on its path that is named like a class, whatever
    the letter case. Patients come from `patients_csv` or else from `patient_pattern`; an image
    that neither knows has an empty patient. Raises `InputError` with the path for anything that
    cannot be used.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: check the parameter `data`.")
    names = parse_classes(classes)

    def labelled(path: Path) -> tuple[str, str]:
        image_id = path.relative_to(root).as_posix()
        return image_id, class_of(image_id, names)

    files, refusals = find_files(root)
    rows = [labelled(path) for path in files if path.suffix.lower() not in NEVER_IMAGES]
    listing = pd.DataFrame(rows, columns=["image_id", "label"])
    listing = listing[listing["label"] != ""].sort_values("image_id", ignore_index=True)
    check_both_classes(root, listing, names)
    listing["patient"], listing["slide"] = "", ""
    notes = ()
    if patients_csv:
        listing, notes = add_patients_from_csv(listing, resolve(patients_csv))
    elif patient_pattern:
        listing = add_patients_from_pattern(listing, patient_pattern)
    refused = [(*labelled(path), reason) for path, reason in refusals.items()]
    return Listing(
        root,
        listing,
        unit_of("" if patients_csv else patient_pattern),
        notes=notes,
        refused=pd.DataFrame(refused, columns=["image_id", "label", "reason"]),
    )


def class_of(image_id: str, names: dict[str, str]) -> str:
    """The label of an image by the first folder on its path named like a class; else empty."""
    folders = image_id.split("/")[:-1]
    return next((names[part.lower()] for part in folders if part.lower() in names), "")


def find_files(root: Path) -> tuple[list[Path], dict[Path, str]]:
    """All files below `root`, and what looked like images and is none, with the reason.

    Hidden files and folders named `masks` are passed over. Links are followed, but no folder is
    entered twice: a link to its own parent ends there, and is named.
    """
    files, refused, seen = [], {}, set()

    def note(error: OSError) -> None:
        refused[Path(error.filename)] = f"cannot be opened: {error.strerror}"

    for place, folders, names in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            refused[Path(place)] = "a link to a folder that was read already"
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f.lower() != "masks")
        for name in folders:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                refused[Path(place, name)] = "a folder that is named like an image"
        files += (Path(place, name) for name in sorted(names) if not name.startswith("."))
    return files, refused


def parse_classes(classes: str, parameter: str = "classes") -> dict[str, str]:
    """Folder names (lower case) to labels; `normal=B, cancer=M` replaces the usual names.

    `parameter` is what the user knows it by, for the sentence of an `InputError`.
    """
    if not classes:
        return CLASS_NAMES
    pairs = [pair.split("=") for pair in classes.split(",")]
    names = {pair[0].strip().lower(): pair[-1].strip().upper() for pair in pairs if len(pair) == 2}
    if len(names) != len(pairs) or set(names.values()) != {"B", "M"}:
        raise InputError(
            f"Parameter `{parameter}` is {classes!r}; write it like 'normal=B, cancer=M', "
            "with at least one folder for B and one for M."
        )
    return names


def check_both_classes(root: Path, listing: pd.DataFrame, names: dict[str, str]) -> None:
    """Raise `InputError` unless the listing has images of both classes."""
    found = set(listing["label"])
    if not found:
        raise InputError(
            f"No image in {root} lies in a folder named {', '.join(sorted(names))} (in any "
            "letter case); give your own folder names with `classes`, like 'normal=B, cancer=M'."
        )
    if len(found) == 1:
        raise InputError(
            f"All images in {root} are of one class, {found.pop()}: two classes are needed. "
            f"Folders that count: {', '.join(sorted(names))}; others are named with `classes`."
        )


# -------------------------------------------------------------------- patients


def add_patients_from_pattern(
    listing: pd.DataFrame, pattern: str, parameter: str = "patient_pattern"
) -> pd.DataFrame:
    """Fill `patient` with the first group of `pattern`, searched in each image's path."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} is no regular expression: {error}."
        ) from None
    if expression.groups < 1:
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} has no group: put the part that is the "
            "patient in parentheses, like '(patient\\d+)_'."
        )
    matches = [expression.search(image_id) for image_id in listing["image_id"]]
    if not any(matches):
        raise InputError(
            f"Parameter `{parameter}` {pattern!r} matches no image path; a path looks like "
            f"{listing['image_id'].iloc[0]!r}."
        )
    return listing.assign(patient=[(match and match.group(1)) or "" for match in matches])


def unit_of(patient_pattern: str) -> str:
    """What the groups are: the name of the pattern's first group, like `slide`, else `patient`."""
    if not patient_pattern:
        return "patient"
    names = {number: name for name, number in re.compile(patient_pattern).groupindex.items()}
    return names.get(1, "patient").replace("_", " ")


def add_patients_from_csv(
    listing: pd.DataFrame, path: Path, parameter: str = "patients_csv"
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Fill `patient` and `slide` from a CSV `image,patient[,slide]`: (listing, notes on it).

    `image` is the path below the data folder, or the bare file name where that is unique. How the
    file may be written, `spreadsheets` says. Raises `InputError` for what cannot be used.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the parameter `{parameter}`.")
    table = read_spreadsheet(path, parameter)
    if (
        sorted({"image", "patient"} & set(table)) != ["image", "patient"]
        or table.columns.has_duplicates
    ):
        raise InputError(
            f"{path} needs the columns image,patient[,slide], each once; it has "
            f"{', '.join(table.columns)}."
        )
    table = table.reindex(columns=["image", "patient", "slide"], fill_value="")
    table["image"] = table["image"].str.replace("\\", "/")  # as Windows writes paths
    table = table[table["image"] != ""].drop_duplicates()
    doubled = table["image"][table["image"].duplicated()]
    if len(doubled):
        raise InputError(f"{path} names {doubled.iloc[0]!r} twice, with different patients.")
    known = table.set_index("image")
    names = listing["image_id"].str.rsplit("/", n=1).str[-1]
    unique_name = ~names.duplicated(keep=False)
    key = listing["image_id"].where(listing["image_id"].isin(known.index), names.where(unique_name))
    if not key.isin(known.index).any():
        raise InputError(
            f"{path} names none of the images; an image is named like "
            f"{listing['image_id'].iloc[0]!r}."
        )
    found = known.reindex(key).fillna("")
    unknown, notes = known.index.difference(key.dropna()), ()
    if len(unknown):
        notes = (
            f"{path.name} names {len(unknown):,} images that are not there, like {unknown[0]}.",
        )
    filled = listing.assign(patient=found["patient"].to_numpy(), slide=found["slide"].to_numpy())
    return filled, notes


# --------------------------------------------------- for the published sets


def image_files(root: Path) -> tuple[list[Path], list[tuple[str, str, str]]]:
    """Image files below `root`, and rows of `Listing.refused` for what cannot be opened."""
    files, refusals = find_files(root)
    refused = [(path.relative_to(root).as_posix(), "", why) for path, why in refusals.items()]
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES], refused


def refusals(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """`Listing.refused` from rows of (image_id, label, reason)."""
    return pd.DataFrame(rows, columns=["image_id", "label", "reason"])


def differences_of(found: dict[str, int], expected: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """A sentence for every count that is none of those published."""
    return tuple(
        f"{found.get(what, 0):,} {what} found, {numbers[0]:,} expected: the set is incomplete or "
        "is another version."
        for what, numbers in expected.items()
        if found.get(what, 0) not in numbers
    )


def some(words: list[str], most: int = 3) -> str:
    """The first words of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
