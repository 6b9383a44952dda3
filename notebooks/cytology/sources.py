"""Published image sets: where they come from, how their folders are read, what to know of them.

Each yields a `Listing`, like a folder of one's own. What is found is compared with what the
authors published; a difference is a sentence for the reader, not an error.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cytology import folders
from cytology.archives import Unreachable, download, mark, unpack, unpacked_from
from cytology.folders import IMAGE_SUFFIXES, LISTED, Listing, find_files
from cytology.settings import PROJECT_ROOT, InputError, resolve, short

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """A published set. `read(root, magnification)` lists what was unpacked to `root`.

    `page` is for people; `address` is the file itself, empty where there is no direct one.
    `caveats` are what every reader of a result must know.
    """

    title: str
    unit: str
    licence: str
    citation: str
    page: str
    address: str
    archive: str
    caveats: tuple[str, ...]
    read: Callable[[Path, str], Listing]
    magnifications: tuple[str, ...] = ("all",)

    @property
    def source(self) -> str:
        """What the images are, under which licence, and what to cite."""
        return f"{self.title}. Licence: {self.licence}. Cite: {self.citation}."


def published(
    name: str,
    archive: str = "",
    address: str = "",
    magnification: str = "all",
    folder: Path = PROJECT_ROOT / "data",
) -> Listing:
    """The published set `name` (a key of `PUBLISHED`), fetched if it has to be.

    `archive` is an archive or an unpacked folder. Without it: what lies unpacked in
    `folder/<name>`, else an archive in `folder`, else the download from `address` (empty: the
    official one). Raises `InputError` with what to do where the images cannot be had.
    """
    if name not in PUBLISHED:
        raise InputError(f"There is no published set {name!r}; there are {', '.join(PUBLISHED)}.")
    chosen = PUBLISHED[name]
    if magnification not in chosen.magnifications:
        raise InputError(
            f"Parameter `magnification` is {magnification!r}; for {name} it must be "
            f"{' or '.join(chosen.magnifications)}."
        )
    root = _root(name, resolve(archive) if archive else None, address, Path(folder))
    listing = chosen.read(root, magnification)
    notes = chosen.caveats + listing.notes
    return dataclasses.replace(listing, unit=chosen.unit, source=chosen.source, notes=notes)


def _root(name: str, given: Path | None, address: str, folder: Path) -> Path:
    """The folder with the unpacked images of a published set."""
    place, chosen = folder / name, PUBLISHED[name]
    if given is not None and given.is_dir():
        return given
    if given is not None and not given.is_file():
        raise InputError(f"There is no file or folder {given}: check the parameter `archive`.")
    if place.is_dir() and any(place.iterdir()):
        if given is not None and unpacked_from(place) != mark(given):
            raise InputError(
                f"{short(place)} holds images that are not from {given}: move that folder away, or "
                "leave `archive` empty to use them."
            )
        return place
    here = [folder / file for file in (chosen.archive, *(name + s for s in ARCHIVE_SUFFIXES))]
    found = given or next((file for file in here if file.is_file()), None)
    unpack(found or _downloaded(name, address, here[0]), place)
    return place


def _downloaded(name: str, address: str, path: Path) -> Path:
    """Download the archive of a set to `path`; `InputError` says how to get it otherwise."""
    chosen = PUBLISHED[name]
    address = address or chosen.address
    by_hand = (
        f"download {address or 'it'} in a browser (see {chosen.page}), then put the file into "
        f"{short(path.parent)} as {path.name}, or name it with the parameter `archive`."
    )
    if not address:
        raise InputError(f"{name} has no direct download: {by_hand}")
    try:
        download(address, path)
    except Unreachable as error:
        raise InputError(
            f"{name} is not in {short(path.parent)} and cannot be downloaded ({error}): {by_hand}"
        ) from None
    return path


def _images(root: Path) -> tuple[list[Path], list[tuple[str, str, str]]]:
    """Image files below `root`, and rows of `Listing.refused` for what cannot be opened."""
    files, refusals = find_files(root)
    refused = [(path.relative_to(root).as_posix(), "", why) for path, why in refusals.items()]
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES], refused


def _refused(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_id", "label", "reason"])


def _differences(found: dict[str, int], expected: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """A sentence for every count that is none of those published."""
    return tuple(
        f"{found.get(what, 0):,} {what} found, {numbers[0]:,} expected: the set is incomplete or "
        "is another version."
        for what, numbers in expected.items()
        if found.get(what, 0) not in numbers
    )


# -------------------------------------------------------------------- BreaKHis

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
    """Histology of surgical biopsies; everything is told by the names of the files.

    `SOB_B_A-14-22549AB-40-001.png` is benign, adenosis, slide 14-22549AB, patient 22549 (slides
    of one case differ in their letters), magnification 40X, which is a 4x objective. The case
    13412 stands under two subtypes.
    """
    files, refused = _images(root)
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
    return Listing(root, images, notes=notes, refused=_refused(refused))


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
        absent = f"; missing: {_some(sorted(known - here))}" if known - here else ""
        other = f"; not in the published set: {_some(sorted(here - known))}" if here - known else ""
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
                f"{found:,} images found, {should:,} expected; {_some(details)}."
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
    names = _some([f"{stem}-{number:03}.png" for number in gaps])
    return f" (by the gap in their numbers: {names})"


def _some(words: list[str], most: int = 3) -> str:
    """The first words of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


# ------------------------------------------------------------------------ FNAC

CATEGORIES = {"I": "C1", "II": "C2", "III": "C3", "IV": "C4", "V": "C5"}
# The authors publish two counts of C4 and C5: README and paper, and their own checking script.
PATCHES = {"C1": (33,), "C2": (3706,), "C3": (478,), "C4": (402, 398), "C5": (2779, 2778)}
FNAC_TABLES = ("master_metadata.csv", "slide_metadata.csv")
# The names that the authors' own scripts accept, the likeliest first.
FNAC_COLUMNS = {
    "slide": ("wsi_file_stem", "slide_number", "slide_id", "wsi_id"),
    "patient": ("patient_id",),
    "site": ("study_site", "site", "center", "centre", "hospital_center"),
    "stain": ("stain_type", "stain", "staining"),
}


def read_fnac(root: Path, magnification: str = "all") -> Listing:
    """Patches of breast FNAC slides, `patches/<slide>/<I to V>/<slide>_x.._y...png`.

    C2 is B and C5 is M. C3 and C4 are `unseen`; C1 (too little material) is left out. Patient,
    site and stain of a slide come from the metadata. Labels are the patches' own: a patient may
    have patches of several categories.
    """
    files, refused = _images(root)
    patches = pd.DataFrame(
        [
            (path.relative_to(root).as_posix(), path.parts[-3], CATEGORIES[path.parts[-2]])
            for path in files
            if path.parts[-2] in CATEGORIES
        ],
        columns=["image_id", "slide", "category"],
    ).sort_values("image_id", ignore_index=True)
    if not set(patches["category"]) >= {"C2", "C5"}:
        raise InputError(
            f"{root} has no patches/<slide>/II and patches/<slide>/V with images: give the archive "
            "breast-cytology-main.zip or its unpacked folder with the parameter `archive`."
        )
    metadata = _fnac_metadata(root)
    known = metadata.reindex(patches["slide"]).fillna("").reset_index(drop=True)
    patches = pd.concat([patches, known], axis=1)
    patches["label"] = patches["category"].map({"C2": "B", "C5": "M"}).fillna("")
    notes = _fnac_notes(patches, metadata)
    of_class = patches[patches["label"] != ""].reset_index(drop=True)
    unseen = patches[patches["category"].isin(["C3", "C4"])].reset_index(drop=True)
    details = ["site", "stain"]
    return Listing(
        root,
        of_class[[*LISTED, *details, "category"]],
        notes=notes,
        refused=_refused(refused),
        unseen=unseen[["image_id", "category", "patient", "slide", *details]],
    )


def _fnac_metadata(root: Path) -> pd.DataFrame:
    """Patient, site and stain of every slide; index the slide's name without its suffix."""
    files = {path.name: path for path in find_files(root)[0] if path.name in FNAC_TABLES}
    path = next((files[name] for name in FNAC_TABLES if name in files), None)
    if path is None:
        raise InputError(
            f"There is no metadata/{FNAC_TABLES[0]} below {root}, which says whose the slides are: "
            "unpack the whole of breast-cytology-main.zip."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is no readable CSV in UTF-8: {error}.") from None
    columns = {
        what: next((n for n in FNAC_COLUMNS[what] if n in table), "") for what in FNAC_COLUMNS
    }
    if not columns["slide"] or not columns["patient"]:
        raise InputError(
            f"{path} needs the columns patient_id and wsi_file_stem; it has "
            f"{', '.join(table.columns)}."
        )
    found = {what: table[name].str.strip() for what, name in columns.items() if name}
    slides_of = (
        pd.DataFrame(found).reindex(columns=list(FNAC_COLUMNS), fill_value="").drop_duplicates()
    )
    slides_of["slide"] = slides_of["slide"].str.replace(r"\.ndpi$", "", regex=True)
    doubled = slides_of["slide"][slides_of["slide"].duplicated()]
    if len(doubled):
        raise InputError(f"{path} names slide {doubled.iloc[0]!r} twice, with different entries.")
    return slides_of.set_index("slide")


def _fnac_notes(patches: pd.DataFrame, metadata: pd.DataFrame) -> tuple[str, ...]:
    """Differences from the published counts, and what the metadata leaves open."""
    found = patches["category"].value_counts()
    counts = {f"patches of {name}": int(found.get(name, 0)) for name in PATCHES}
    counts |= {"patients": metadata["patient"].nunique(), "slides": len(metadata)}
    expected = {f"patches of {name}": numbers for name, numbers in PATCHES.items()}
    notes = list(_differences(counts, expected | {"patients": (321,), "slides": (470,)}))
    nameless = patches[patches["patient"] == ""]
    if len(nameless):
        notes.append(
            f"{len(nameless):,} patches are of slides that the metadata gives no patient: "
            f"{_some(sorted(set(nameless['slide'])))}."
        )
    notes += [
        f"The metadata has no column for the {w}."
        for w in ("site", "stain")
        if (metadata[w] == "").all()
    ]
    of_class = patches[(patches["label"] != "") & (patches["patient"] != "")]
    both = int((of_class.groupby("patient")["label"].nunique() == 2).sum())
    if both:
        notes.append(f"Patients with patches of both classes: {both:,}.")
    return tuple(notes)


# ------------------------------------------------------------------- FNAC 2019


def read_fnac2019(root: Path, magnification: str = "all") -> Listing:
    """212 FNAC images in folders `B` and `M`, or otherwise named like the classes; no patients."""
    listing = folders.folder(root)
    found = listing.images["label"].value_counts()
    counts = {"benign images": int(found["B"]), "malignant images": int(found["M"])}
    expected = {"benign images": (99,), "malignant images": (113,)}
    return dataclasses.replace(listing, notes=_differences(counts, expected))


# -------------------------------------------------------------------- registry

FNAC_RECORD = 20763900

PUBLISHED = {
    "breakhis": PublishedSet(
        title="BreaKHis v1: 7,909 images of breast tumour histology, 82 slide folders",
        unit="patient",
        licence="CC BY 4.0, as the documentation of kaiko-ai/eva states",
        citation="Spanhol et al., IEEE Trans. Biomed. Eng. 63(7):1455-1462, 2016, "
        "doi 10.1109/TBME.2015.2496264",
        page="https://web.inf.ufpr.br/vri/databases/"
        "breast-cancer-histopathological-database-breakhis/",
        address="http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",
        archive="BreaKHis_v1.tar.gz",
        caveats=(
            "BreaKHis is histology of surgical biopsies, not cytology; its 40X, 100X, 200X and "
            "400X are objectives of 4x, 10x, 20x and 40x.",
            "Patients are the case numbers without their letters (70 in 82 slide folders); "
            "phyllodes tumours are of 3 patients, one of whom also has fibroadenomas.",
        ),
        read=read_breakhis,
        magnifications=("all", *MAGNIFICATIONS),
    ),
    "fnac": PublishedSet(
        title="Multi-centre breast FNAC: 7,398 patches C1 to C5 of 321 patients",
        unit="patient",
        licence="see the Zenodo record (the MIT licence in the authors' repository is of their "
        "scripts)",
        citation=f"Patil, Jain and Sethi, Zenodo, 2026, doi 10.5281/zenodo.{FNAC_RECORD}, and "
        "arXiv:2606.30209",
        page=f"https://zenodo.org/records/{FNAC_RECORD}",
        address=f"https://zenodo.org/records/{FNAC_RECORD}/files/breast-cytology-main.zip"
        "?download=1",
        archive="breast-cytology-main.zip",
        caveats=(
            "B is category C2 (benign) and M is C5 (malignant), each patch's own label and no "
            "patient's diagnosis; C1 (insufficient) is left out, and C3 and C4 are only looked at.",
        ),
        read=read_fnac,
    ),
    "fnac2019": PublishedSet(
        title="FNAC 2019: 212 images of breast FNAC, 99 benign and 113 malignant",
        unit="image",
        licence="not stated",
        citation="Saikia et al., Tissue and Cell 57:8-14, 2019, doi 10.1016/j.tice.2019.02.001",
        page="https://1drv.ms/u/s!Al-T6d-_ENf6axsEbvhbEc2gUFs",
        address="",
        archive="fnac2019.zip",
        caveats=(
            "FNAC 2019 names no patients: images of one patient cannot be kept together, every "
            "number may be too good by an amount that nobody can tell, and the intervals take "
            "images for independent, so they are too narrow.",
        ),
        read=read_fnac2019,
    ),
}
