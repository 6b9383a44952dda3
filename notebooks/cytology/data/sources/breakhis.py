"""BreaKHis: its file names, what the authors published, and what is missing."""

import re
from pathlib import Path

import pandas as pd

from cytology.data.sources.listing import LISTED, Listing, images_below, refusals
from cytology.settings import InputError
from cytology.wording import shorten_list

SUBTYPES = {
    **{"B_A": "adenosis", "B_F": "fibroadenoma", "B_PT": "phyllodes_tumor"},
    **{"B_TA": "tubular_adenoma", "M_DC": "ductal_carcinoma", "M_LC": "lobular_carcinoma"},
    **{"M_MC": "mucinous_carcinoma", "M_PC": "papillary_carcinoma"},
}
MAGNIFICATIONS = ("40X", "100X", "200X", "400X")
IMAGE_NAME = re.compile(r"SOB_([BM]_[A-Z]{1,2})-(\d+-(\d+)[A-Z]*)-(40|100|200|400)-(\d+)\.png")


def slides() -> pd.DataFrame:
    """Published images of BreaKHis; one row per slide folder and magnification.

    Columns: `folder`, `magnification`, `label` and `expected` (images), from the table next to this
    file, which lists the 82 folders.
    """
    table = pd.read_csv(Path(__file__).with_name("breakhis.slides.csv"))
    table = table.melt("folder", var_name="magnification", value_name="expected")
    return table.assign(label=table["folder"].str[4])


def read_breakhis(root: Path, magnification: str = "all") -> Listing:
    """Histology of surgical biopsies; everything is read from the file names.

    `SOB_B_A-14-22549AB-40-001.png` is benign, adenosis, slide 14-22549AB, patient 22549 (slides
    of one case differ in their letters), magnification 40X, which is a 4x objective. Case 13412
    appears under two subtypes.
    """
    ids, refused = images_below(root)
    rows, strange = [], []
    for image_id in ids:
        name = IMAGE_NAME.fullmatch(image_id.rsplit("/", 1)[-1])
        if name is None or name[1] not in SUBTYPES:
            strange.append((image_id, "", "not named like an image of BreaKHis"))
        elif magnification in ("all", f"{name[4]}X"):
            code, slide = name[1], name[2]
            row = (image_id, code[0], name[3], slide, SUBTYPES[code], f"{name[4]}X")
            rows.append((*row, f"SOB_{code}_{slide}", int(name[5])))
    if not rows:
        raise InputError(
            f"No image below {root} is named like those of BreaKHis at magnification "
            f"{magnification} (SOB_B_A-14-22549AB-40-001.png): name the archive or its unpacked "
            "folder with the parameter `archive`."
        )
    columns = [*LISTED, "subtype", "magnification", "folder", "number"]
    images = pd.DataFrame(rows, columns=columns)
    wanted = MAGNIFICATIONS if magnification == "all" else (magnification,)
    notes = _breakhis_differences(images, wanted)
    images = images.drop(columns=["folder", "number"])
    refused = pd.concat([refused, refusals(strange)], ignore_index=True)
    return Listing(root, images, notes=notes, refused=refused)


def _breakhis_differences(images: pd.DataFrame, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Differences from the published set: slide folders, then counts by class and magnification."""
    keys = ["magnification", "label", "folder"]
    expected = slides().set_index(keys)["expected"]
    numbers = images.groupby(keys)["number"].agg(list).rename("numbers")
    counts = pd.concat([expected, numbers.map(len).rename("found")], axis=1)
    counts = counts.fillna(0).astype(int).loc[list(wanted)]
    known, here = set(slides()["folder"]), set(images["folder"])
    notes = []
    if here != known:
        absent = f"; missing: {shorten_list(sorted(known - here))}" if known - here else ""
        other = (
            f"; not in the published set: {shorten_list(sorted(here - known))}"
            if here - known
            else ""
        )
        notes.append(f"BreaKHis has 82 slide folders, {len(here)} are here{absent}{other}.")
    for (magnification, label), part in counts.groupby(level=[0, 1], sort=False):
        off = part[part["found"] != part["expected"]]
        details = [
            f"{key[2]} has {row.found} of {row.expected}{_gap(key, row, numbers)}"
            for key, row in zip(off.index, off.itertuples(), strict=True)
        ]
        if details:
            found, should = part["found"].sum(), part["expected"].sum()
            notes.append(
                f"BreaKHis at {magnification}, {'benign' if label == 'B' else 'malignant'}: "
                f"{found:,} images found, {should:,} expected; {shorten_list(details)}."
            )
    return tuple(notes)


def _gap(key: tuple[str, str, str], row, numbers: pd.Series) -> str:
    """The missing files of a slide, if the gaps in the numbers match the missing images."""
    have = numbers.get(key, [])
    gaps = sorted(set(range(min(have), max(have))) - set(have)) if have else []
    if not gaps or len(gaps) != row.expected - row.found:
        return ""
    magnification, _, folder = key
    stem = f"{'-'.join(folder.rsplit('_', 1))}-{magnification[:-1]}"
    names = shorten_list([f"{stem}-{number:03}.png" for number in gaps])
    return f" (by the gap in their numbers: {names})"
