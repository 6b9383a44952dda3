"""Published image sets: where to get them, how to read their folders, what to know about them.

Each yields a `Listing`, like a folder of images. The images are compared with the published
counts; a difference gives a note for the reader, not an error.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from cytology.data.sources.archives import (
    Unreachable,
    download,
    unpack,
    unpacked_from,
    unpacked_mark,
)
from cytology.data.sources.breakhis import MAGNIFICATIONS, read_breakhis
from cytology.data.sources.fnac import read_fnac, read_fnac2019
from cytology.data.sources.listing import Listing
from cytology.settings import HOME, InputError, resolve, short

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """A published set. `read(root, magnification)` lists the images unpacked to `root`.

    `page` is for people; `address` is the file itself, empty if there is no direct link. `classes`
    says what B and M mean. `caveats` are warnings that every reader of a result needs. `checksum`
    is the authors' checksum of the archive, like `md5:...` or `sha256:...`; None if unknown.
    """

    title: str
    unit: str
    licence: str
    citation: str
    page: str
    address: str
    archive: str
    classes: dict[str, str]
    caveats: tuple[str, ...]
    read: Callable[[Path, str], Listing]
    magnifications: tuple[str, ...] = ("all",)
    checksum: str | None = None


def published(
    name: str,
    archive: str = "",
    address: str = "",
    magnification: str = "all",
    folder: Path = HOME / "data",
) -> Listing:
    """The published set `name` (a key of `PUBLISHED`), downloaded if necessary.

    `archive` is an archive or an unpacked folder. Without it: the unpacked set in `folder/<name>`,
    else an archive in `folder`, else a download from `address` (empty: the official one). Raises
    `InputError`, saying what to do, if the images cannot be found.
    """
    chosen = PUBLISHED[name]
    if magnification not in chosen.magnifications:
        raise InputError(
            f"Parameter `magnification` is {magnification!r}; for {name} it must be "
            f"{' or '.join(chosen.magnifications)}."
        )
    root = _root(name, resolve(archive) if archive else None, address, folder)
    listing = chosen.read(root, magnification)
    notes = chosen.caveats + listing.notes
    source = f"{chosen.title}. Licence: {chosen.licence}. Cite: {chosen.citation}."
    if seen := unpacked_from(root)[1]:  # to be compared with the authors' checksum
        source += f" The archive's SHA-256: {seen}."
    return dataclasses.replace(
        listing, unit=chosen.unit, source=source, notes=notes, classes=chosen.classes
    )


def _root(name: str, given: Path | None, address: str, folder: Path) -> Path:
    """The folder with the unpacked images of a published set."""
    place, chosen = folder / name, PUBLISHED[name]
    if given is not None and given.is_dir():
        return given
    if given is not None and not given.is_file():
        raise InputError(f"There is no file or folder {given}: check the parameter `archive`.")
    if place.is_dir() and any(place.iterdir()):
        if given is not None and unpacked_from(place)[0] != unpacked_mark(given):
            raise InputError(
                f"{short(place)} contains images that are not from {given}: move that folder away, "
                "or leave `archive` empty to use them."
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
        if address == chosen.address and chosen.checksum:  # a mirror may have a newer record
            check_sum(path, chosen.checksum)
    except Unreachable as error:
        raise InputError(
            f"{name} is not in {short(path.parent)} and cannot be downloaded ({error}): {by_hand}"
        ) from None
    return path


def check_sum(path: Path, checksum: str) -> None:
    """Remove `path` and raise `InputError` if its content does not match `checksum`, `kind:hex`."""
    kind, expected = checksum.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected:
        path.unlink()
        raise InputError(
            f"{path.name} is not the file that its authors published ({kind} {found} instead of "
            f"{expected}) and was removed: run it again, or download it in a browser."
        )


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
        address="https://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",
        archive="BreaKHis_v1.tar.gz",
        classes={
            "B": "benign breast tumours (histology)",
            "M": "malignant breast tumours (histology)",
        },
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
        classes={"B": "patches of category C2, benign", "M": "patches of category C5, malignant"},
        caveats=(
            "B is category C2 (benign) and M is C5 (malignant), the label of each patch, not the "
            "patient's diagnosis; C1 (insufficient) is left out; C3 and C4 are only looked at.",
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
        classes={"B": "benign breast aspirates", "M": "malignant breast aspirates"},
        caveats=(
            "FNAC 2019 names no patients: images of one patient cannot be kept together, every "
            "number may be too good by an unknown amount, and the intervals treat images as "
            "independent, so they are too narrow.",
        ),
        read=read_fnac2019,
    ),
}
