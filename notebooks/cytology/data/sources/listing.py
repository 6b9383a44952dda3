"""A folder of the user's images: which files are images, of which class and which patient.

Every source of images yields a `Listing`, so later steps need not know where the images came from.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cytology.data.images.kinds import kind_of_file
from cytology.data.sources import classes as labels
from cytology.data.sources.masks import MASK_FOLDER, masks_by_name
from cytology.data.sources.patients import add_patients_from_csv, add_patients_from_pattern, unit_of
from cytology.settings import MOST_FOLDERS, InputError, resolve
from cytology.wording import is_formula, is_one_line, printable

# Files with these suffixes count as images, whether they can be read or not.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff"}
OTHER_IMAGES = set(
    ".webp .gif .heic .heif .avif .jp2 .j2k .jxl .jxr .svg .ico .psd .xcf .tga .ppm .pgm .pbm .pnm "
    ".dcm .dicom .svs .ndpi .scn .mrxs .vms .bif .czi .lif .nd2 .vsi .oib .oif .oir .lsm .stk .dm3 "
    ".raw .cr2 .cr3 .nef .arw .dng .orf .rw2 .raf".split()
)
PREVIEWS = {".mrxs"}  # a JPEG preview of a slide, whose data are in a folder beside it
# Files with these suffixes are not images; for all others the first bytes decide.
NEVER_IMAGES = set(
    ".csv .tsv .txt .md .json .xml .html .yaml .yml .db .ini .log .xlsx .xls .doc .docx .pdf .dat "
    ".mat .npy .npz .h5 .zip .gz .tar .py .ipynb".split()
)
LISTED = ["image_id", "label", "patient", "slide"]
REFUSED = ["image_id", "label", "reason", "other"]


@dataclass(frozen=True)
class Listing:
    """The images of a source before any is opened.

    `images` has the columns of `LISTED`, sorted by `image_id` (the posix path below `root`);
    `label` is B or M, an unknown patient or slide is empty text; then extra columns of the source.
    `unit` names the independent unit, `classes` says what B and M mean. `source` describes the
    images, their licence, and what to cite. `notes` are warnings for the reader. `refused` (columns
    `REFUSED`) lists files that look like images but are not, or are the mask of the image `other`.
    `unseen` (`image_id`, `category` and more) holds images of neither class, which are not used
    for training or evaluation.
    """

    root: Path
    images: pd.DataFrame
    unit: str = "patient"
    source: str = "folder"
    notes: tuple[str, ...] = ()
    refused: pd.DataFrame = field(default_factory=lambda: refusals([]))
    unseen: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["image_id", "category"])
    )
    classes: dict[str, str] = field(default_factory=labels.BENIGN_MALIGNANT.copy)


def folder(
    root: Path,
    classes: str = "",
    patient_pattern: str = "",
    patients_csv: str = "",
    follow_links: bool = False,
) -> Listing:
    """The images of a folder.

    The class of an image is the folder on its path that is named like a class, in any letter case.
    Patients come from `patients_csv`, else from `patient_pattern`; an image in neither has an
    empty patient. Masks are left out, and so are targets of links outside the folder unless
    `follow_links` is true. Images in other folders are `unseen`.
    Raises `InputError` with the path for anything that cannot be used.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: check the parameter `data`.")
    names = labels.parse_classes(classes)
    ids, refused = images_below(root, follow_links)
    found = pd.DataFrame({"image_id": ids}, dtype=str)
    found["label"] = [labels.class_of(image_id, names) for image_id in ids]
    labels.check_classes(root, found, classes, refused)
    other = found[found["label"] == ""].reset_index(drop=True)
    listing = found[found["label"] != ""].reset_index(drop=True).assign(patient="", slide="")
    whose = patients_csv, patient_pattern, names
    listing, notes = with_patients(listing, *whose)
    if len(other) and (patients_csv or patient_pattern):
        other = other.assign(patient="", slide="")
        with contextlib.suppress(InputError):  # that none of these is named: they need not be
            other, _ = with_patients(other, *whose)
    other["category"] = labels.categories(other["image_id"], listing["image_id"])
    refused["label"] = [labels.class_or_none(name, names) for name in refused["image_id"]]
    return Listing(
        root,
        listing,
        unit_of("" if patients_csv else patient_pattern),
        notes=labels.about_unseen(other["category"]) + notes,
        refused=refused,
        unseen=other[["image_id", "category", *other.columns.intersection(["patient", "slide"])]],
        classes=labels.what_classes_are(listing, names),
    )


def with_patients(
    images: pd.DataFrame, patients_csv: str, patient_pattern: str, names: dict[str, str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The images with the `patient` and `slide` that table or pattern know, and notes on it."""
    if patients_csv:
        return add_patients_from_csv(images, resolve(patients_csv), names=names)
    if patient_pattern:
        images = add_patients_from_pattern(images, patient_pattern)
    return images, ()


def images_below(root: Path, follow_links: bool = False) -> tuple[list[str], pd.DataFrame]:
    """The images below `root`: sorted ids, and rows of `REFUSED` for files that are left out.

    A file counts as an image by its suffix or its first bytes, until it is opened.
    """
    files, refused = find_files(root, follow_links)
    rows: list[tuple[str, ...]]
    rows = [(id_of(path, root), "", reason, "") for path, reason in refused.items()]
    found = []
    for path in files:
        image_id = id_of(path, root)
        try:
            if not looks_like_an_image(path):
                continue
        except OSError as error:
            rows.append((image_id, "", f"cannot be read: {error.strerror}", ""))
            continue
        reason = why_no_id(path.relative_to(root).as_posix())
        if path.suffix.lower() in PREVIEWS:
            reason = reason or "only a preview of a slide: export images from the slide"
        if reason:
            rows.append((image_id, "", reason, ""))
        else:
            found.append(image_id)
    for mask, image in masks_by_name(found).items():
        reason = f"a mask of {image}, by its name" if image else MASK_FOLDER
        rows.append((mask, "", reason, image))
    masks = {row[0] for row in rows}
    return sorted(name for name in found if name not in masks), refusals(rows)


def id_of(path: Path, root: Path) -> str:
    """The posix path below `root`, `printable`."""
    return printable(path.relative_to(root).as_posix())


def why_no_id(path: str) -> str:
    """Why a posix path cannot name an image in tables; empty if it can.

    Each folder is checked too: folders become patients, slides and categories.
    """
    if not is_one_line(path):
        return "a name that is not UTF-8 or has a line break: rename the file or its folder"
    if any(map(is_formula, [path, *path.split("/")[:-1]])):
        return (
            "a name that begins with =, +, @ or -, like a formula in a spreadsheet: rename the "
            "file or its folder"
        )
    return ""


def looks_like_an_image(path: Path) -> bool:
    """Whether a file counts as an image; `OSError` if its bytes are needed but cannot be read."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES | OTHER_IMAGES:
        return True
    return suffix not in NEVER_IMAGES and kind_of_file(path) != ""


def find_files(root: Path, follow_links: bool = False) -> tuple[list[Path], dict[Path, str]]:
    """All files below `root`, and the reasons for what cannot be read.

    Hidden files and folders are skipped. Links are followed, but out of `root` only with
    `follow_links`. No folder is entered twice, so loops of links end. Links that are not followed
    are reported.
    """
    files, refused, seen, home = [], {}, set(), Path(os.path.realpath(root))

    def note(error: OSError) -> None:
        refused[Path(error.filename)] = f"cannot be opened: {error.strerror}"

    for place, folders, names in os.walk(root, followlinks=True, onerror=note):
        real, depth = Path(os.path.realpath(place)), len(Path(place).relative_to(root).parts)
        reason = "" if follow_links else leads_out(real, home)
        if real in seen:
            reason = "a link to a folder that was already read"
        elif depth > MOST_FOLDERS:
            reason = f"in more than {MOST_FOLDERS} nested folders: not read"
        if reason:
            folders.clear()
            refused[Path(place)] = reason
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in folders:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                refused[Path(place, name)] = "a folder that is named like an image"
        for path in (Path(place, name) for name in sorted(names) if not name.startswith(".")):
            is_followed = follow_links or not path.is_symlink()
            reason = "" if is_followed else leads_out(Path(os.path.realpath(path)), home)
            if reason:
                refused[path] = reason
            else:
                files.append(path)
    return files, refused


def leads_out(real: Path, home: Path) -> str:
    """Why a link to `real` is not followed; empty if it leads below `home`."""
    if real.is_relative_to(home):
        return ""
    return (
        f"a link to {printable(str(real))}, outside the data folder: not followed; use that folder "
        "as `data`, or set `follow_links` in notebook 01"
    )


def refusals(rows: Iterable[tuple[str, ...]]) -> pd.DataFrame:
    """Columns `REFUSED` from rows of (image_id, label, reason) or (..., other)."""
    return pd.DataFrame([(*row, "")[: len(REFUSED)] for row in rows], columns=REFUSED)


def differences_of(
    found: dict[str, int], expected: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """A sentence for every count that differs from the published ones."""
    return tuple(
        f"{found.get(what, 0):,} {what} found, {numbers[0]:,} expected: the set is incomplete or "
        "another version."
        for what, numbers in expected.items()
        if found.get(what, 0) not in numbers
    )
