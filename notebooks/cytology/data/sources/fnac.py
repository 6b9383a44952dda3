"""Two sets of breast fine-needle aspirates: the multi-centre set of 2026, and the set of 2019."""

import dataclasses
from pathlib import Path

import pandas as pd

from cytology.data.sources import listing
from cytology.data.sources.listing import Listing
from cytology.data.sources.patients import check_patient_names
from cytology.settings import InputError
from cytology.wording import composed, normalized, shorten_list

CATEGORIES = {"I": "C1", "II": "C2", "III": "C3", "IV": "C4", "V": "C5"}
# The authors publish two counts of C4 and C5: in README and paper, and in their checking script.
PATCHES = {"C1": (33,), "C2": (3706,), "C3": (478,), "C4": (402, 398), "C5": (2779, 2778)}
FNAC_TABLES = ("master_metadata.csv", "slide_metadata.csv")
# The names that the authors' scripts accept, the most likely first.
FNAC_COLUMNS = {
    "slide": ("wsi_file_stem", "slide_number", "slide_id", "wsi_id"),
    "patient": ("patient_id",),
    "site": ("study_site", "site", "center", "centre", "hospital_center"),
    "stain": ("stain_type", "stain", "staining"),
}


def read_fnac(root: Path, magnification: str = "all") -> Listing:
    """Patches of breast FNAC slides, `patches/<slide>/<I to V>/<slide>_x.._y...png`.

    C2 is B and C5 is M. C3 and C4 are `unseen`; C1 (too little material) is left out. Patient,
    site and stain of a slide come from the metadata. Each patch has its own label: a patient may
    have patches of several categories.
    """
    ids, refused = listing.images_below(root)
    rows = [
        (image_id, slide, CATEGORIES[numeral])
        for image_id in ids
        for slide, numeral in [(root / image_id).parts[-3:-1]]
        if numeral in CATEGORIES
    ]
    patches = pd.DataFrame(rows, columns=["image_id", "slide", "category"])
    if not set(patches["category"]) >= {"C2", "C5"}:
        raise InputError(
            f"{root} has no patches/<slide>/II and patches/<slide>/V with images: name the archive "
            "breast-cytology-main.zip or its unpacked folder with the parameter `archive`."
        )
    metadata = _fnac_metadata(root)
    known = metadata.reindex(patches["slide"].map(composed)).fillna("").reset_index(drop=True)
    patches = pd.concat([patches, known], axis=1)
    patches["label"] = patches["category"].map({"C2": "B", "C5": "M"}).fillna("")
    notes = _fnac_notes(patches, metadata)
    of_class = patches[patches["label"] != ""].reset_index(drop=True)
    unseen = patches[patches["category"].isin(["C3", "C4"])].reset_index(drop=True)
    details = ["site", "stain"]
    return Listing(
        root,
        of_class[[*listing.LISTED, *details, "category"]],
        notes=notes,
        refused=refused,
        unseen=unseen[["image_id", "category", "patient", "slide", *details]],
    )


def _fnac_metadata(root: Path) -> pd.DataFrame:
    """Patient, site and stain of every slide, indexed by the slide's name without suffix."""
    files = {path.name: path for path in listing.find_files(root)[0] if path.name in FNAC_TABLES}
    path = next((files[name] for name in FNAC_TABLES if name in files), None)
    if path is None:
        raise InputError(
            f"There is no metadata/{FNAC_TABLES[0]} below {root}, with the slides' patients: "
            "unpack all of breast-cytology-main.zip."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is not a readable CSV in UTF-8: {error}.") from None
    columns = {
        what: next((n for n in FNAC_COLUMNS[what] if n in table), "") for what in FNAC_COLUMNS
    }
    if not columns["slide"] or not columns["patient"]:
        raise InputError(
            f"{path} needs the columns patient_id and wsi_file_stem; it has "
            f"{', '.join(table.columns)}."
        )
    found = {what: table[name].map(normalized) for what, name in columns.items() if name}
    for what, names in found.items():
        check_patient_names(
            names, (f"{path}, row {number + 2}: the {what}" for number in names.index)
        )
    slides_of = (
        pd.DataFrame(found).drop_duplicates().reindex(columns=[*FNAC_COLUMNS], fill_value="")
    )
    slides_of["slide"] = slides_of["slide"].str.replace(r"\.ndpi$", "", regex=True)
    doubled = slides_of["slide"][slides_of["slide"].duplicated()]
    if len(doubled):
        raise InputError(f"{path} names slide {doubled.iloc[0]!r} twice, with different entries.")
    return slides_of.set_index("slide")


def _fnac_notes(patches: pd.DataFrame, metadata: pd.DataFrame) -> tuple[str, ...]:
    """Differences from the published counts, and gaps in the metadata."""
    found = patches["category"].value_counts()
    counts = {f"patches of {name}": int(found.get(name, 0)) for name in PATCHES}
    counts |= {"patients": metadata["patient"].nunique(), "slides": len(metadata)}
    expected = {f"patches of {name}": numbers for name, numbers in PATCHES.items()}
    notes = list(listing.differences_of(counts, expected | {"patients": (321,), "slides": (470,)}))
    nameless = patches[patches["patient"] == ""]
    if len(nameless):
        notes.append(
            f"{len(nameless):,} patches are from slides without a patient in the metadata: "
            f"{shorten_list(sorted(set(nameless['slide'])))}."
        )
    for what in ("site", "stain"):
        if (metadata[what] == "").all():
            notes.append(f"The metadata has no column for the {what}.")
    of_class = patches[(patches["label"] != "") & (patches["patient"] != "")]
    both = int((of_class.groupby("patient")["label"].nunique() == 2).sum())
    if both:
        notes.append(f"Patients with patches of both classes: {both:,}.")
    return tuple(notes)


def read_fnac2019(root: Path, magnification: str = "all") -> Listing:
    """212 FNAC images in folders `B` and `M`, or others named like the classes; no patients."""
    taken = listing.folder(root)
    found = taken.images["label"].value_counts()
    counts = {"benign images": int(found["B"]), "malignant images": int(found["M"])}
    expected = {"benign images": (99,), "malignant images": (113,)}
    return dataclasses.replace(taken, notes=taken.notes + listing.differences_of(counts, expected))
