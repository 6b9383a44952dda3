"""The class of an image, from the folder on its path that is named like a class."""

from collections import Counter
from pathlib import Path

import pandas as pd

from cytology.settings import InputError
from cytology.wording import counted, normalized, shorten_list

CLASS_NAMES = {"b": "B", "benign": "B", "m": "M", "malignant": "M"}
BENIGN_MALIGNANT = {"B": "benign", "M": "malignant"}
# Published sets that come as a folder (Herlev, UCSB): their file names and classes.
KNOWN_FILES = {
    r"(normal|light-dysplastic|moderate-dysplastic|severe-dysplastic|carcinoma-in-situ)[-_]": {
        "B": "normal cells of the cervix",
        "M": "light to severe dysplasia of the cervix, and carcinoma in situ",
    },
    r"ytma\d+_\d+_(benign|malignant)\d+_ccd": {
        "B": "benign breast tissue (histology)",
        "M": "malignant breast tissue (histology)",
    },
}


def parse_classes(classes: str, parameter: str = "classes") -> dict[str, str]:
    """Folder names (lower case) to labels; `normal=B, cancer=M` replaces the usual names.

    `parameter` is its name for the user, for the message of an `InputError`.
    """
    if not classes:
        return CLASS_NAMES
    pairs = [pair.split("=") for pair in normalized(classes).split(",")]
    names = {
        normalized(pair[0]).lower(): normalized(pair[1]).upper() for pair in pairs if len(pair) == 2
    }
    if len(names) != len(pairs) or set(names.values()) != {"B", "M"}:
        raise InputError(
            f"Parameter `{parameter}` is {classes!r}; write it like 'normal=B, cancer=M', "
            "with at least one folder for B and one for M."
        )
    return names


def class_of(image_id: str, names: dict[str, str], parameter: str = "classes") -> str:
    """The label of an image, from the folder on its path named like a class; empty if none is.

    Raises `InputError` if folders on its path name both classes: only the user knows which one is
    meant.
    """
    found = classes_on(image_id, names)
    if len(found) > 1:
        inner = list(found.values())[-1]
        raise InputError(
            f"Two folders on the path {image_id!r} are named like classes, "
            f"{' and '.join(repr(part) for part in found.values())}: name the class folders with "
            f"`{parameter}`, like '{normalized(inner)}={list(found)[-1]}, ...' (no other folder "
            "then counts), or rename the one that is not a class."
        )
    return next(iter(found), "")


def class_or_none(image_id: str, names: dict[str, str]) -> str:
    """`class_of` for a file that is not used: empty if the class is doubtful."""
    found = list(classes_on(image_id, names))
    return found[0] if len(found) == 1 else ""


def classes_on(image_id: str, names: dict[str, str]) -> dict[str, str]:
    """The labels named by folders on a path, each with the first such folder."""
    found: dict[str, str] = {}
    for part in image_id.split("/")[:-1]:
        label = names.get(normalized(part).lower())
        if label:
            found.setdefault(label, part)
    return found


def what_classes_are(images: pd.DataFrame, names: dict[str, str]) -> dict[str, str]:
    """What B and M mean in a listing: from known files of published sets, else from the folders.

    Folders with the usual names mean only benign and malignant.
    """
    files = images["image_id"].str.rsplit("/").str[-1]
    for pattern, known in KNOWN_FILES.items():
        if files.str.match(pattern).all():
            return known
    folders: dict[str, Counter[str]] = {label: Counter() for label in BENIGN_MALIGNANT}
    for image_id, label in zip(images["image_id"], images["label"], strict=True):
        folders[label][normalized(classes_on(image_id, names)[label])] += 1
    return {
        label: usual
        if {name.lower() for name in folders[label]} <= CLASS_NAMES.keys()
        else shorten_list([repr(name) for name, _ in folders[label].most_common()], 6)
        for label, usual in BENIGN_MALIGNANT.items()
    }


def classes_in_words(folders: Counter) -> str:
    """Folders with their numbers of images, the largest first."""
    return shorten_list([f"{name!r} ({number:,})" for name, number in folders.most_common()], 8)


def content_in_words(image_ids: pd.Series, refused: pd.DataFrame) -> str:
    """The folders with images, and the first file that is left out, in sentences."""
    folders = Counter(name for i in image_ids for name in dict.fromkeys(i.split("/")[:-1]))
    said = (
        f"Folders with images: {classes_in_words(folders)}."
        if folders
        else "No folder contains an image."
    )
    if len(refused):
        name, reason = refused[["image_id", "reason"]].iloc[0]
        files = counted(len(refused), "file is", "files are")
        said += f" {files} left out; the first is {name}: {reason}."
    return said


def check_classes(root: Path, images: pd.DataFrame, classes: str, refused: pd.DataFrame) -> None:
    """Raise `InputError` unless both classes have images, and all folders in `classes` exist.

    `images` has `image_id` and `label`, which is empty if the image belongs to no class.
    """
    names, there = parse_classes(classes), content_in_words(images["image_id"], refused)
    folders = {normalized(part).lower() for i in images["image_id"] for part in i.split("/")[:-1]}
    gone = [name for name in names if name not in folders]
    if classes and gone:
        raise InputError(
            f"Parameter `classes` is {classes!r}, but no folder with images in {root} is named "
            f"{' or '.join(map(repr, gone))}. {there}"
        )
    found = set(images["label"]) - {""}
    if not found:
        raise InputError(
            f"No image in {root} is in a folder named {', '.join(sorted(names))} (in any letter "
            "case); name your own folders with `classes`, like 'normal=B, cancer=M'. "
            f"{there}"
        )
    if len(found) == 1:
        raise InputError(
            f"All images in {root} belong to one class, {found.pop()}, but two are needed. "
            f"Folders that count: {', '.join(sorted(names))}; name others with `classes`. "
            f"{there}"
        )


def categories(image_ids: pd.Series, of_classes: pd.Series) -> list[str]:
    """For each image of no class, the folder that distinguishes it from those of the classes.

    The first folder on its path that has no image of a class; its own folder if all do.
    """
    known = {tuple(i.split("/")[:k]) for i in of_classes for k in range(i.count("/") + 1)}
    found = []
    for image_id in image_ids:
        parts = image_id.split("/")[:-1]
        apart = [p for k, p in enumerate(parts, start=1) if tuple(parts[:k]) not in known]
        found.append((apart or parts[-1:] or ["."])[0])
    return found


def about_unseen(category: pd.Series) -> tuple[str, ...]:
    """A sentence about the images in folders of neither class."""
    if category.empty:
        return ()
    images = counted(len(category), "image is", "images are")
    return (
        f"{images} in folders of neither class and not used for training: "
        f"{classes_in_words(Counter(category))}. unseen.csv lists them; to use them, name their "
        "folder in `classes`.",
    )
