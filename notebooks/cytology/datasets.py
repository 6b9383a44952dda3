"""Sources of images, and the manifest: one row an image, with the group that must stay together."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cytology.augmentation import orient
from cytology.caveats import about_patients
from cytology.copies import family_of, looks_augmented
from cytology.folders import Listing, folder
from cytology.given_split import given_split, split_in_words
from cytology.images import open_rgb
from cytology.inspection import INSPECTED
from cytology.masks import FEW_COLOURS
from cytology.sample import HASHED, draw_sample, is_whole
from cytology.settings import HOME, InputError, composed, plural, progress, resolve, short
from cytology.sources import PUBLISHED, published
from cytology.tables import fitting, lock_file, read_json
from cytology.wording import counted, some

MANIFEST_COLUMNS = ["image_id", "label", "patient", "slide", "group", "width", "height"]
MANIFEST_COLUMNS += ["sha256", "phash", "family"]
APPEARANCE_COLUMNS = ["image_id", "brightness", "red", "green", "blue"]


# --------------------------------------------------------------------- sources


def sample(images: int, patients: int) -> Listing:
    """The drawn sample; drawn when it is not there, or when a picture is not as it was drawn."""
    root = HOME / "data" / f"sample-{images}-images-{patients}-patients"
    root.parent.mkdir(parents=True, exist_ok=True)
    # Of two runs that find none at the same moment one draws, and the other waits.
    with lock_file(root.with_name(f".{root.name}.lock")):
        if not is_whole(root):
            with progress(None, "drawing the sample", images) as bar:
                draw_sample(
                    root, images, patients, progress=lambda done, _: bar.update(done - bar.n)
                )
    listing = pd.read_csv(root / "sample.csv", dtype=str, keep_default_na=False)
    listing = listing.rename(columns={"image": "image_id"}).drop(columns=[*HASHED.values()])
    return Listing(
        root,
        listing,
        source="procedural sample: drawings, no medical data",
        classes={"B": "drawings of benign smears", "M": "drawings of malignant smears"},
    )


def load(
    data: str,
    classes: str = "",
    patient_pattern: str = "",
    patients_csv: str = "",
    sample_images: int = 320,
    sample_patients: int = 24,
    follow_links: bool = False,
    **of_published,
) -> Listing:
    """The images that `data` names: `sample`, a published set, or a folder.

    `of_published` are the parameters of `sources.published`. Raises `InputError`.
    """
    if not data:
        raise InputError(
            "Parameter `data` is empty: name a folder of images in two classes, or `sample`."
        )
    if data == "sample":
        return sample(sample_images, sample_patients)
    if data in PUBLISHED:
        return published(data, **of_published)
    return folder(resolve(data), classes, patient_pattern, patients_csv, follow_links)


def named(data: str) -> str:
    """What `data` is called in `dataset.json`: its word, or the absolute path of a folder."""
    return data if data == "sample" or data in PUBLISHED else str(resolve(data))


# -------------------------------------------------------------------- manifest


def independent_groups(images: pd.DataFrame) -> pd.Series:
    """The independent unit of each image, named after its patient, slide or first image.

    Groups are the connected components of images that share a patient (else a slide) or a family
    of copies: a copy ties two patients together. A slide counts also for an image whose patient
    is known as long as some image of that slide has none.
    """
    patient, slide = images["patient"], images["slide"]
    without_patient = set(slide[(patient == "") & (slide != "")])
    keys = pd.concat(
        [
            ("patient " + patient)[patient != ""],
            ("slide " + slide)[slide.isin(without_patient)],
            "family " + images["family"],
        ]
    )
    row, key = pd.Index(images.index).get_indexer(keys.index), pd.factorize(keys)[0]
    # Images and keys are the points of one graph, so that its size grows with the images alone.
    points = len(images) + key.max() + 1
    graph = coo_array((np.ones(len(key)), (row, len(images) + key)), shape=(points, points))
    component = connected_components(graph, directed=False)[1][: len(images)]
    component = pd.Series(component, index=images.index)
    name = patient.where(patient != "", slide).where(
        (patient != "") | (slide != ""), images["family"]
    )
    joined = name.groupby(component).agg(lambda names: "+".join(sorted(set(names))[:3]))
    # Of more than three names only three are shown; two groups must not get the same name by that.
    twice = joined.duplicated(keep=False)
    joined[twice] += " #" + joined.index[twice].astype(str)
    return component.map(joined)


def build_manifest(readable: pd.DataFrame, copies: pd.DataFrame) -> pd.DataFrame:
    """The manifest: `readable` with `family` and `group`; a source's own columns come last."""
    manifest = readable.assign(family=family_of(readable["image_id"], copies))
    manifest["group"] = independent_groups(manifest)
    extra = [c for c in manifest if c not in MANIFEST_COLUMNS and c not in INSPECTED]
    return manifest[MANIFEST_COLUMNS + extra]


def describe(data: str, listing: Listing, manifest: pd.DataFrame, rejected: pd.DataFrame) -> dict:
    """What `dataset.json` holds; its fingerprint changes with any image, name or label.

    `unit` is what the groups are; where nobody knows that of any image, they are just groups.
    """
    keys = manifest.sort_values("image_id")[["image_id", "label", "group", "sha256"]]
    unknown = of_unknown_unit(manifest)
    return {
        "data": named(data),
        "root": str(listing.root),
        "source": listing.source,
        "images": len(manifest),
        "benign": int((manifest["label"] == "B").sum()),
        "malignant": int((manifest["label"] == "M").sum()),
        "groups": int(manifest["group"].nunique()),
        "families": int(manifest["family"].nunique()),
        "of_unknown_unit": unknown,
        "unit": listing.unit if unknown < len(manifest) else "group",
        "classes": listing.classes,
        "rejected": len(rejected),
        "unseen": len(listing.unseen),
        "fingerprint": hashlib.sha256(keys.to_csv(index=False).encode()).hexdigest(),
    }


def of_unknown_unit(manifest: pd.DataFrame) -> int:
    """How many images have neither a patient (or what else is kept together) nor a slide."""
    return int(((manifest["patient"] == "") & (manifest["slide"] == "")).sum())


def image_root(run: Path, data: str) -> Path:
    """Where the run's images lie; `InputError` if `data` is named and is not what 01 read."""
    made_with = read_json(run, "dataset.json")
    if not made_with["root"]:
        raise InputError(
            f"{short(run)} was shared without its images: name new ones with the parameter "
            "`images` of notebook 08."
        )
    wanted = named(data) if data else made_with["data"]
    if composed(made_with["data"]) != composed(wanted):
        raise InputError(
            f"{short(run)} holds {made_with['data']}, but `data` is {wanted}: "
            "run notebook 01 first, or name another `run_dir`."
        )
    root = Path(made_with["root"])
    if not root.is_dir():
        raise InputError(f"The images of this run are gone from {root}: run notebook 01 again.")
    return root


def warnings_about(listing: Listing, manifest: pd.DataFrame, findings: pd.DataFrame) -> list[str]:
    """Sentences about what a reader must know before trusting a number; may be empty."""
    unit, counts = listing.unit, findings["finding"].value_counts()
    found = list(listing.notes)
    found += split_in_words(given_split(manifest), unit)
    if counts.get("unusable"):
        files = counted(counts["unusable"], "file", "files")
        found.append(f"{files} cannot be used; rejected.csv says why.")
    if counts.get("mask"):
        files = counted(counts["mask"], "file is a mask", "files are masks")
        found.append(f"{files} and left out; rejected.csv names their images.")
    found += about_patients(len(manifest), of_unknown_unit(manifest), unit)
    found += about_names(manifest["patient"], unit)
    found += about_copies(manifest, counts)
    for poor in ("blank", "blurred", "over-exposed", "converted"):
        if counts.get(poor):
            images = counted(counts[poor], "image is", "images are")
            found.append(f"{images} {poor}: tables/quality.csv says which.")
    if counts.get("few colours"):
        images = counted(counts["few colours"], "image has", "images have")
        found.append(
            f"{images} at most {FEW_COLOURS} colours, like a drawing or a mask: tables/quality.csv "
            "says which; move them away if they are no photographs."
        )
    return found


def about_names(patients: pd.Series, unit: str) -> list[str]:
    """A sentence on names that differ in their letter case only: they may be one patient's."""
    names = patients[patients != ""].drop_duplicates()
    alike = names[names.str.casefold().duplicated(keep=False)].sort_values(
        key=lambda n: n.str.casefold()
    )
    if alike.empty:
        return []
    return [
        f"{some([repr(name) for name in alike], 4)} differ in letter case only, and count as "
        f"{len(alike)} {plural(unit)}: name them alike if they are not."
    ]


def about_copies(manifest: pd.DataFrame, counts: pd.Series) -> list[str]:
    """Sentences about copies: how many, whether the folder was augmented, conflicting labels."""
    found, family = [], manifest["family"]
    originals, copies = family.nunique(), len(manifest) - family.nunique()
    if copies:
        kinds = [f"{counts[k]:,} {k}" for k in ("same file", "turned", "rotated") if k in counts]
        images = counted(copies, "image is a copy", "images are copies")
        found.append(
            f"{images} of others ({', '.join(kinds)}): each family of copies is one group, and "
            "the split keeps it together."
        )
    if looks_augmented(len(manifest), originals):
        found.append(
            f"THIS FOLDER LOOKS AUGMENTED: its {len(manifest):,} files seem to be "
            f"{originals:,} originals, with up to {family.value_counts().max()} pictures of one. "
            f"Every interval must rest on the {originals:,}. Give the originals if you have them: "
            "the series makes the copies itself."
        )
    if "conflicting labels" in counts:
        images = counted(counts["conflicting labels"], "image has", "images have")
        found.append(
            f"{images} the other class in a copy: one label is wrong; tables/quality.csv says "
            "which."
        )
    return found


def name_of(image_id: str) -> str:
    """A name for what is made of one image: no two images have the same.

    Folders and suffix become part of it: `a/1.png`, `b/1.png` and `a/1.jpg` are three.
    """
    name = image_id.replace("/", "__")
    if name.replace("__", "/") == image_id:
        return name
    # `a__b/1.png` and `a/b__1.png` would meet.
    return f"{name}~{hashlib.sha256(image_id.encode()).hexdigest()[:16]}"


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
        name = name_of(image_id)
        for orientation in rows["orientation"]:
            turned = np.ascontiguousarray(orient(pixels, orientation))
            Image.fromarray(turned).save(target / fitting(name, f"_o{orientation}.png"))
            written += 1
    return written
