"""The manifest: one row per image, with the group that must stay together."""

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cytology.data.copies import family_of
from cytology.data.inspection import INSPECTED
from cytology.data.sources.listing import Listing
from cytology.parameters import data_name

MANIFEST_COLUMNS = ["image_id", "label", "patient", "slide", "group", "width", "height"]
MANIFEST_COLUMNS += ["sha256", "family"]
APPEARANCE_COLUMNS = ["image_id", "brightness", "red", "green", "blue", "sharpness"]


def independent_groups(images: pd.DataFrame) -> pd.Series:
    """The independent unit of each image, named after its patient, slide or first image.

    Groups are the connected components of images that share a patient (if unknown, a slide) or a
    family of copies: a copy joins two patients. An image with a known patient is also joined by
    its slide if another image of that slide has no patient.
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
    # Images and keys are the nodes of one graph, whose size grows only linearly with the images.
    points = len(images) + key.max() + 1
    graph = coo_array((np.ones(len(key)), (row, len(images) + key)), shape=(points, points))
    component = connected_components(graph, directed=False)[1][: len(images)]
    component = pd.Series(component, index=images.index)
    known = patient.where(patient != "", slide)
    name = known.where(known != "", images["family"])
    joined = name.groupby(component).agg(lambda names: "+".join(sorted(set(names))[:3]))
    # A name lists at most three members; two groups must not get the same name because of that.
    twice = joined.duplicated(keep=False)
    joined[twice] += " #" + joined.index[twice].astype(str)
    return component.map(joined)


def build_manifest(readable: pd.DataFrame, copies: pd.DataFrame) -> pd.DataFrame:
    """The manifest: `readable` with `family` and `group`; extra columns of the source come last."""
    manifest = readable.assign(family=family_of(readable["image_id"], copies))
    manifest["group"] = independent_groups(manifest)
    extra = [c for c in manifest if c not in MANIFEST_COLUMNS and c not in INSPECTED]
    return manifest[MANIFEST_COLUMNS + extra]


def dataset_facts(
    data: str, listing: Listing, manifest: pd.DataFrame, rejected: pd.DataFrame
) -> dict:
    """The content of `dataset.json`; its fingerprint changes with any image, name or label.

    `unit` is the name of the groups' unit, or `group` if it is unknown for all images.
    """
    keys = manifest.sort_values("image_id")[["image_id", "label", "group", "sha256"]]
    unknown = of_unknown_unit(manifest)
    return {
        "data": data_name(data),
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
    """How many images have neither a patient (or another unit) nor a slide."""
    return int(((manifest["patient"] == "") & (manifest["slide"] == "")).sum())
