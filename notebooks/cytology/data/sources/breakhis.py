"""BreaKHis: how its files are named, what the authors published, and what is missing."""

import re
from pathlib import Path

import pandas as pd

from cytology.data.sources.listing import LISTED, Listing, image_files, refusals
from cytology.settings import InputError
from cytology.wording import some

SUBTYPES = {
    **{"B_A": "adenosis", "B_F": "fibroadenoma", "B_PT": "phyllodes_tumor"},
    **{"B_TA": "tubular_adenoma", "M_DC": "ductal_carcinoma", "M_LC": "lobular_carcinoma"},
    **{"M_MC": "mucinous_carcinoma", "M_PC": "papillary_carcinoma"},
}
MAGNIFICATIONS = ("40X", "100X", "200X", "400X")
# The 82 slide folders with their images at 40X, 100X, 200X and 400X.
SLIDES = """
B_A: 14-22549AB 29 30 32 30, 14-22549CD 35 36 31 30, 14-22549G 35 34 32 29, 14-29960CD 15 13 16 17
B_F: 14-14134 36 31 38 37, 14-14134E 29 32 21 12, 14-21998CD 37 31 37 32, 14-21998EF 31 33 29 28
B_F: 14-23060AB 23 22 18 18, 14-23060CD 14 11 16 16, 14-23222AB 17 16 17 18, 14-25197 22 33 32 33
B_F: 14-29960AB 18 15 18 17, 14-9133 26 36 38 26
B_PT: 14-21998AB 58 66 52 59, 14-22704 38 39 42 39, 14-29315EF 13 16 14 17
B_TA: 14-13200 15 14 21 15, 14-15275 12 14 12 15, 14-16184 39 34 35 24, 14-16184CD 35 37 23 29
B_TA: 14-19854C 16 16 16 16, 14-21978AB 16 18 17 14, 14-3411F 16 17 16 17
M_DC: 14-10926 11 10 9 9, 14-11031 14 17 14 15, 14-11520 25 26 24 23, 14-11951 27 25 28 20
M_DC: 14-12312 32 41 35 38, 14-13412 32 33 32 26, 14-13993 37 42 34 32, 14-14015 18 27 30 20
M_DC: 14-14926 20 19 18 16, 14-14946 31 32 34 34, 14-15572 23 23 19 15, 14-15696 23 23 22 15
M_DC: 14-15792 14 14 12 15, 14-16188 24 19 21 23, 14-16336 13 19 19 9, 14-16448 11 14 13 15
M_DC: 14-16601 12 10 10 13, 14-16716 38 36 34 29, 14-16875 14 22 17 8, 14-17614 39 29 33 28
M_DC: 14-17901 26 26 24 28, 14-17915 26 16 21 16, 14-18650 29 22 28 29, 14-20629 36 33 32 24
M_DC: 14-20636 25 37 27 22, 14-2523 10 23 18 24, 14-2773 30 41 35 38, 14-2980 20 25 21 18
M_DC: 14-2985 20 11 14 14, 14-3909 26 26 29 14, 14-4364 1 10 25 8, 14-4372 21 22 17 24
M_DC: 14-5287 23 21 21 23, 14-5694 22 21 21 26, 14-5695 23 21 22 24, 14-6241 32 21 12 13
M_DC: 14-8168 10 10 9 9, 14-9461 26 36 62 31
M_LC: 14-12204 20 31 28 24, 14-13412 32 33 32 26, 14-15570 51 54 55 41, 14-15570C 31 35 30 29
M_LC: 14-16196 22 17 18 17
M_MC: 14-10147 15 12 22 15, 14-12773 26 25 21 18, 14-13413 29 41 23 26, 14-13418DE 15 15 14 11
M_MC: 14-16456 46 50 47 35, 14-18842 15 22 16 9, 14-18842D 16 16 16 16, 14-19979 26 27 21 24
M_MC: 14-19979C 17 14 16 15
M_PC: 14-12465 21 21 19 13, 14-15687B 17 16 14 15, 14-15704 30 29 33 35, 14-19440 35 38 33 36
M_PC: 14-9146 23 22 21 24, 15-190EF 19 16 15 15
"""
IMAGE_NAME = re.compile(r"SOB_([BM]_[A-Z]{1,2})-(\d+-(\d+)[A-Z]*)-(40|100|200|400)-(\d+)\.png")


def slides() -> pd.DataFrame:
    """Published images of BreaKHis; one row a slide folder and magnification.

    Columns `folder`, `magnification`, `label` and `expected` (images).
    """
    rows = []
    for line in SLIDES.split("\n"):
        code, _, entries = line.partition(": ")
        for slide, *counts in (entry.split() for entry in entries.split(", ") if entry):
            rows += [
                (f"SOB_{code}_{slide}", magnification, code[0], int(count))
                for magnification, count in zip(MAGNIFICATIONS, counts, strict=True)
            ]
    return pd.DataFrame(rows, columns=["folder", "magnification", "label", "expected"])


def read_breakhis(root: Path, magnification: str = "all") -> Listing:
    """Histology of surgical biopsies; the names of the files say everything.

    `SOB_B_A-14-22549AB-40-001.png` is benign, adenosis, slide 14-22549AB, patient 22549 (slides
    of one case differ in their letters), magnification 40X, which is a 4x objective. The case
    13412 stands under two subtypes.
    """
    files, refused = image_files(root)
    rows = []
    for path in files:
        image_id = path.relative_to(root).as_posix()
        name = IMAGE_NAME.fullmatch(path.name)
        if name is None or name[1] not in SUBTYPES:
            refused.append((image_id, "", "not named like an image of BreaKHis"))
        elif magnification in ("all", f"{name[4]}X"):
            code, slide = name[1], name[2]
            row = (image_id, code[0], name[3], slide, SUBTYPES[code], f"{name[4]}X")
            rows.append((*row, f"SOB_{code}_{slide}", int(name[5])))
    if not rows:
        raise InputError(
            f"No image below {root} is named like those of BreaKHis at magnification "
            f"{magnification} (SOB_B_A-14-22549AB-40-001.png): give the archive or its unpacked "
            "folder with the parameter `archive`."
        )
    columns = [*LISTED, "subtype", "magnification", "folder", "number"]
    images = pd.DataFrame(rows, columns=columns).sort_values("image_id", ignore_index=True)
    wanted = MAGNIFICATIONS if magnification == "all" else (magnification,)
    notes = _breakhis_differences(images, wanted)
    images = images.drop(columns=["folder", "number"])
    return Listing(root, images, notes=notes, refused=refusals(refused))


def _breakhis_differences(images: pd.DataFrame, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """What is not as published: missing slide folders, then counts a class and magnification."""
    keys = ["magnification", "label", "folder"]
    expected = slides().set_index(keys)["expected"]
    numbers = images.groupby(keys)["number"].agg(list).rename("numbers")
    counts = pd.concat([expected, numbers.map(len).rename("found")], axis=1)
    counts = counts.fillna(0).astype(int).loc[list(wanted)]
    known, here = set(slides()["folder"]), set(images["folder"])
    notes = []
    if here != known:
        absent = f"; missing: {some(sorted(known - here))}" if known - here else ""
        other = f"; not in the published set: {some(sorted(here - known))}" if here - known else ""
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
                f"{found:,} images found, {should:,} expected; {some(details)}."
            )
    return tuple(notes)


def _gap(key: tuple[str, str, str], row, numbers: pd.Series) -> str:
    """The missing files of a slide, if as many numbers are left out as images are missing."""
    have = numbers.get(key, [])
    gaps = sorted(set(range(min(have), max(have))) - set(have)) if have else []
    if not gaps or len(gaps) != row.expected - row.found:
        return ""
    magnification, _, folder = key
    stem = f"{'-'.join(folder.rsplit('_', 1))}-{magnification[:-1]}"
    names = some([f"{stem}-{number:03}.png" for number in gaps])
    return f" (by the gap in their numbers: {names})"
