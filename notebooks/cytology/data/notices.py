"""Warnings about the images that a reader needs before trusting a number."""

import pandas as pd

from cytology.data.augmentation import looks_augmented
from cytology.data.given_split import given_split, split_in_words
from cytology.data.manifest import of_unknown_unit
from cytology.data.sources.listing import Listing
from cytology.data.sources.masks import FEW_COLOURS
from cytology.wording import about_patients, counted, plural, shorten_list


def warnings_about(listing: Listing, manifest: pd.DataFrame, findings: pd.DataFrame) -> list[str]:
    """Warnings about the images, in sentences; may be empty."""
    unit, counts = listing.unit, findings["finding"].value_counts()
    found = list(listing.notes)
    found += split_in_words(given_split(manifest), unit)
    if counts.get("unusable"):
        files = counted(counts["unusable"], "file", "files")
        found.append(f"{files} cannot be used; rejected.csv gives the reasons.")
    if counts.get("mask"):
        files = counted(counts["mask"], "file is a mask", "files are masks")
        found.append(f"{files} and left out; rejected.csv names the images that they belong to.")
    found += about_patients(len(manifest), of_unknown_unit(manifest), unit)
    found += about_names(manifest["patient"], unit)
    found += about_copies(manifest, counts)
    for poor in ("blank", "blurred", "over-exposed", "converted"):
        if counts.get(poor):
            images = counted(counts[poor], "image is", "images are")
            found.append(f"{images} {poor}: tables/quality.csv lists them.")
    if counts.get("badly cut"):
        images = counted(counts["badly cut"], "crop is", "crops are")
        found.append(
            f"{images} badly cut, with no cell in the middle or one half empty: tables/quality.csv "
            "lists them; cut them again or move them away."
        )
    if counts.get("few colours"):
        images = counted(counts["few colours"], "image has", "images have")
        found.append(
            f"{images} at most {FEW_COLOURS} colours, like a drawing or a mask: tables/quality.csv "
            "lists them; move them away if they are not photographs."
        )
    return found


def about_names(patients: pd.Series, unit: str) -> list[str]:
    """A sentence about names that differ only in letter case: they may mean one patient."""
    names = patients[patients != ""].drop_duplicates()
    alike = names[names.str.casefold().duplicated(keep=False)].sort_values(
        key=lambda n: n.str.casefold()
    )
    if alike.empty:
        return []
    return [
        f"{shorten_list([repr(name) for name in alike], 4)} differ only in letter case and count "
        f"as {len(alike)} {plural(unit)}: use one spelling if they are the same."
    ]


def about_copies(manifest: pd.DataFrame, counts: pd.Series) -> list[str]:
    """Sentences about copies: how many, whether the folder was augmented, conflicting labels."""
    found, family = [], manifest["family"]
    originals, copies = family.nunique(), len(manifest) - family.nunique()
    if copies:
        kinds = [f"{counts[k]:,} {k}" for k in ("same file", "turned", "rotated") if k in counts]
        images = counted(copies, "image is a copy", "images are copies")
        found.append(
            f"{images} of others ({', '.join(kinds)}): the split keeps all copies of an image "
            "together."
        )
    if looks_augmented(len(manifest), originals):
        found.append(
            f"THIS FOLDER LOOKS AUGMENTED: its {len(manifest):,} files seem to come from "
            f"{originals:,} originals, with up to {family.value_counts().max()} copies of one. "
            f"Intervals must be based on the {originals:,} originals. Use only these if you have "
            "them: the series makes the copies itself."
        )
    if "conflicting labels" in counts:
        images = counted(counts["conflicting labels"], "image has", "images have")
        found.append(
            f"{images} the other class in a copy: one label is wrong; tables/quality.csv "
            "lists them."
        )
    return found
