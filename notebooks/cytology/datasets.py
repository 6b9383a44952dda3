"""Sources of images, and the manifest: one row an image, with the group that must stay together."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cytology.augmentation import orient
from cytology.quality import inspect_image, open_rgb
from cytology.sample import draw_sample
from cytology.settings import PROJECT_ROOT, InputError, cores, progress, resolve, short
from cytology.tables import read_json

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
NEVER_IMAGES = {"", ".csv", ".txt", ".md", ".json", ".db", ".ini", ".xlsx", ".pdf"}
CLASS_NAMES = {"b": "B", "benign": "B", "m": "M", "malignant": "M"}
MANIFEST_COLUMNS = ["image_id", "label", "patient", "slide", "group", "width", "height"]
MANIFEST_COLUMNS += ["sha256", "phash"]
APPEARANCE_COLUMNS = ["image_id", "brightness", "red", "green", "blue"]


# --------------------------------------------------------------------- sources


def sample(images: int, patients: int) -> tuple[Path, pd.DataFrame]:
    """The drawn sample: its folder and its listing. Drawn when it is not there yet."""
    root = PROJECT_ROOT / "data" / f"sample-{images}-images-{patients}-patients"
    if not (root / "sample.csv").is_file():
        with progress(None, "drawing the sample", images) as bar:
            draw_sample(root, images, patients, progress=lambda done, _: bar.update(done - bar.n))
    listing = pd.read_csv(root / "sample.csv", dtype=str, keep_default_na=False)
    return root, listing.rename(columns={"image": "image_id"})


def folder(
    root: Path, classes: str = "", patient_pattern: str = "", patients_csv: str = ""
) -> tuple[Path, pd.DataFrame]:
    """A folder of one's own: its path and a listing `image_id, label, patient, slide`.

    The class of an image is the first folder on its path that is named like a class, whatever
    the letter case. Patients come from `patients_csv` or else from `patient_pattern`; an image
    that neither knows has an empty patient. Raises `InputError` with the path for anything that
    cannot be used.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: check the parameter `data`.")
    names = parse_classes(classes)
    rows = []
    for path in find_files(root):
        parts = path.relative_to(root).parts[:-1]
        label = next((names[part.lower()] for part in parts if part.lower() in names), None)
        if label and path.suffix.lower() not in NEVER_IMAGES:
            rows.append((path.relative_to(root).as_posix(), label))
    listing = pd.DataFrame(rows, columns=["image_id", "label"]).sort_values("image_id")
    check_both_classes(root, listing, names)
    listing["patient"], listing["slide"] = "", ""
    if patients_csv:
        return root, add_patients_from_csv(listing, resolve(patients_csv))
    if patient_pattern:
        return root, add_patients_from_pattern(listing, patient_pattern)
    return root, listing


def find_files(root: Path) -> Iterator[Path]:
    """All files below `root`, without hidden ones and without folders named `masks`.

    Links are followed, but no folder is entered twice: a link to its own parent ends there.
    """
    seen = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f.lower() != "masks")
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def parse_classes(classes: str) -> dict[str, str]:
    """Folder names (lower case) to labels; `normal=B, cancer=M` replaces the usual names."""
    if not classes:
        return CLASS_NAMES
    pairs = [pair.split("=") for pair in classes.split(",")]
    names = {pair[0].strip().lower(): pair[-1].strip().upper() for pair in pairs if len(pair) == 2}
    if len(names) != len(pairs) or set(names.values()) != {"B", "M"}:
        raise InputError(
            f"Parameter `classes` is {classes!r}; write it like 'normal=B, cancer=M', "
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


def add_patients_from_pattern(listing: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """Fill `patient` with the first group of `pattern`, searched in each image's path."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"Parameter `patient_pattern` {pattern!r} is no regular expression: {error}."
        ) from None
    if expression.groups < 1:
        raise InputError(
            f"Parameter `patient_pattern` {pattern!r} has no group: put the part that is the "
            "patient in parentheses, like '(patient\\d+)_'."
        )
    matches = [expression.search(image_id) for image_id in listing["image_id"]]
    if not any(matches):
        raise InputError(
            f"Parameter `patient_pattern` {pattern!r} matches no image path; a path looks like "
            f"{listing['image_id'].iloc[0]!r}."
        )
    return listing.assign(patient=[(match and match.group(1)) or "" for match in matches])


def unit_of(patient_pattern: str) -> str:
    """What the groups are: the name of the pattern's first group, like `slide`, else `patient`."""
    if not patient_pattern:
        return "patient"
    names = {number: name for name, number in re.compile(patient_pattern).groupindex.items()}
    return names.get(1, "patient").replace("_", " ")


def add_patients_from_csv(listing: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Fill `patient` and `slide` from a CSV `image,patient[,slide]`; comma or semicolon.

    `image` is the path below the data folder, or the bare file name where that is unique.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the parameter `patients_csv`.")
    try:
        with path.open(encoding="utf-8-sig") as lines:
            separator = max(",;\t", key=lines.readline().count)
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is no readable CSV in UTF-8: {error}.") from None
    if not {"image", "patient"} <= set(table.columns):
        raise InputError(
            f"{path} needs the columns image,patient[,slide]; it has {', '.join(table.columns)}."
        )
    table = table.reindex(columns=["image", "patient", "slide"], fill_value="")
    table["image"] = table["image"].str.replace("\\", "/")  # as Windows writes paths
    table = table.drop_duplicates()
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
    return listing.assign(patient=found["patient"].to_numpy(), slide=found["slide"].to_numpy())


# -------------------------------------------------------------------- manifest


def load(data: str, classes="", patient_pattern="", patients_csv="", images=320, patients=24):
    """The source that `data` names: (root folder, listing, word for the independent unit)."""
    if data == "sample":
        return *sample(images, patients), "patient"
    listed = folder(resolve(data), classes, patient_pattern, patients_csv)
    return *listed, unit_of("" if patients_csv else patient_pattern)


def inspect_images(root: Path, listing: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Open every listed image, on all cores: (readable images, rejected with `reason`).

    The readable table has the listing's columns and those of `quality.inspect_image`.
    """
    work = Parallel(n_jobs=cores(), prefer="threads", return_as="generator")(
        delayed(examine)(root / image_id) for image_id in listing["image_id"]
    )
    found = pd.DataFrame(
        list(progress(work, "reading images", len(listing))),
        index=listing.index,
    ).reindex(columns=["width", "height", "sha256", "phash", *APPEARANCE_COLUMNS[1:], "reason"])
    bad = found["reason"].notna()
    rejected = listing[["image_id", "label"]][bad].assign(reason=found["reason"][bad])
    readable = listing[~bad].join(found[~bad].drop(columns="reason"))
    if readable["label"].nunique() < 2:
        raise InputError(
            f"No readable image of {'either class' if readable.empty else 'one class'} in {root}: "
            f"{len(rejected)} files were rejected, the first because: {rejected['reason'].iloc[0]}."
        )
    readable[["width", "height"]] = readable[["width", "height"]].astype(int)
    return readable.reset_index(drop=True), rejected.reset_index(drop=True)


def examine(path: Path) -> dict:
    """`inspect_image`, but a file type that we do not read is refused before it is opened."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return {"reason": f"{path.suffix} files are not read: use JPEG, PNG, BMP or TIFF"}
    return inspect_image(path)


def independent_groups(images: pd.DataFrame) -> pd.Series:
    """The independent unit of each image, named after its patient, slide or first image.

    Groups are the connected components of images that share a patient (else a slide), the same
    file or the same perceptual hash: a copy ties two patients together.
    """
    unit = "patient " + images["patient"]
    unit = unit.where(images["patient"] != "", "slide " + images["slide"])
    unit = unit.where((images["patient"] != "") | (images["slide"] != ""), images["image_id"])
    keys = pd.concat([unit, "sha " + images["sha256"], "hash " + images["phash"]])
    key = pd.factorize(keys)[0]
    row = np.tile(np.arange(len(images)), 3)
    links = coo_array((np.ones(len(key)), (row, key)), shape=(len(images), key.max() + 1))
    square = links @ links.T
    component = pd.Series(connected_components(square, directed=False)[1], index=images.index)
    name = images["patient"].where(images["patient"] != "", images["slide"])
    name = name.where(name != "", images["image_id"])
    joined = name.groupby(component).agg(lambda names: "+".join(sorted(set(names))[:3]))
    return component.map(joined)


def build_manifest(readable: pd.DataFrame) -> pd.DataFrame:
    """The manifest: `readable` with `group`, in the order that DESIGN gives, extras last."""
    manifest = readable.assign(group=independent_groups(readable))
    extra = [c for c in manifest if c not in MANIFEST_COLUMNS and c not in APPEARANCE_COLUMNS]
    return manifest[MANIFEST_COLUMNS + extra]


def describe(data: str, root: Path, manifest, rejected, unit: str) -> dict:
    """What `dataset.json` holds; its fingerprint changes with any image, name or label."""
    keys = manifest.sort_values("image_id")[["image_id", "label", "group", "sha256"]]
    return {
        "data": data if data == "sample" else str(resolve(data)),
        "root": str(root),
        "source": "procedural sample: drawings, no medical data" if data == "sample" else "folder",
        "images": len(manifest),
        "benign": int((manifest["label"] == "B").sum()),
        "malignant": int((manifest["label"] == "M").sum()),
        "groups": int(manifest["group"].nunique()),
        "unit": unit,
        "rejected": len(rejected),
        "fingerprint": hashlib.sha256(keys.to_csv(index=False).encode()).hexdigest(),
    }


def image_root(run: Path, data: str) -> Path:
    """Where the run's images lie; `InputError` if the run was made with other data."""
    made_with = read_json(run, "dataset.json")
    wanted = data if data == "sample" else str(resolve(data))
    if made_with["data"] != wanted:
        raise InputError(
            f"{short(run)} holds {made_with['data']}, but `data` is {wanted}: "
            "run notebook 01 first, or name another `run_dir`."
        )
    root = Path(made_with["root"])
    if not root.is_dir():
        raise InputError(f"The images of this run are gone from {root}: run notebook 01 again.")
    return root


def warnings_about(manifest: pd.DataFrame, rejected: pd.DataFrame, unit: str) -> list[str]:
    """Sentences about what a reader must know before trusting a number; may be empty."""
    found = []
    if len(rejected):
        found.append(f"{len(rejected)} files cannot be used; rejected.csv says why.")
    unknown = int(((manifest["patient"] == "") & (manifest["slide"] == "")).sum())
    if unknown:
        found.append(
            f"{unknown} of {len(manifest)} images have no {unit}: each counts as a group of its "
            f"own. If several come from one {unit}, the split cannot keep them together."
        )
    copies = int(manifest["sha256"].duplicated().sum())
    near = int(manifest["phash"].duplicated().sum())
    if near:
        found.append(
            f"{near} images are copies of others ({copies} to the byte): joined in groups."
        )
    by_hash = manifest.groupby("phash")["label"].nunique()
    if (by_hash > 1).any():
        found.append(f"{int((by_hash > 1).sum())} images stand in both classes.")
    return found


def write_pictures(pictures: pd.DataFrame, root: Path, folder: Path) -> int:
    """Write pictures as PNG files `folder/<label>/<image>_o<orientation>.png`; returns how many.

    `pictures` has `image_id`, `label` and `orientation`. The original project kept its augmented
    set this way. Existing files of the same name are replaced; others are left alone.
    """
    written = 0
    images = pictures.groupby(["image_id", "label"], sort=False)
    for (image_id, label), rows in progress(images, "writing pictures"):
        pixels = np.asarray(open_rgb(root / image_id))
        target = folder / label
        target.mkdir(parents=True, exist_ok=True)
        # Folder and suffix become part of the name: `a/1.png`, `b/1.png` and `a/1.jpg` are three.
        name = image_id.replace("/", "__")
        for orientation in rows["orientation"]:
            turned = np.ascontiguousarray(orient(pixels, orientation))
            Image.fromarray(turned).save(target / f"{name}_o{orientation}.png")
            written += 1
    return written
