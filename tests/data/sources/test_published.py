"""Published image sets, as trees of tiny files with the published names and counts."""

import dataclasses
import hashlib
import io
import shutil
import tarfile
import zipfile

import pandas as pd
import pytest
from PIL import Image

from cytology.data.sources import published as sources
from cytology.data.sources.breakhis import SUBTYPES, slides
from cytology.data.sources.fnac import PATCHES
from cytology.data.sources.published import PUBLISHED, published
from cytology.files import file_hash
from cytology.settings import InputError

# Spanhol et al. 2016: benign and malignant images a magnification.
COUNTS = {"40X": (625, 1370), "100X": (644, 1437), "200X": (623, 1390), "400X": (588, 1232)}
PUBLISHED_COUNTS = {
    (magnification, label): count
    for magnification, counts in COUNTS.items()
    for label, count in zip("BM", counts, strict=True)
}


def tiny_png():
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 120, 160)).save(picture, "PNG")
    return picture.getvalue()


PNG = tiny_png()


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG)


def pack(root, archive):
    """All files below `root`, packed as the suffix of `archive` says."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(root.rglob("*")):
                packed.write(path, path.relative_to(root))
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(root, ".")
    return archive


# -------------------------------------------------------------------- BreaKHis


@pytest.fixture(scope="module")
def breakhis(tmp_path_factory):
    """The whole tree of BreaKHis: 82 slide folders, 7,909 files."""
    root = tmp_path_factory.mktemp("breakhis")
    top = root / "BreaKHis_v1" / "histology_slides" / "breast"
    for row in slides().itertuples():
        code, slide = row.folder.removeprefix("SOB_").rsplit("_", 1)
        side = {"B": "benign", "M": "malignant"}[code[0]]
        place = top / side / "SOB" / SUBTYPES[code] / row.folder / row.magnification
        place.mkdir(parents=True)
        # The real numbers of 14-25197 at 400X begin late; so do all of its sequences here.
        first = 33 if slide == "14-25197" else 1
        for number in range(first, first + row.expected):
            name = f"SOB_{code}-{slide}-{row.magnification[:-1]}-{number:03}.png"
            (place / name).write_bytes(PNG)
    (root / "BreaKHis_v1" / "README.txt").write_text("about")
    return root


@pytest.fixture
def without(tmp_path):
    """Takes files or folders of a shared tree away and puts them back after the test."""
    away = []

    def take(path):
        aside = tmp_path / f"aside{len(away)}"
        path.rename(aside)
        away.append((aside, path))

    yield take
    for aside, path in away:
        aside.rename(path)


def standing_notes(name):
    return PUBLISHED[name].caveats


def test_the_complete_breakhis_set_is_read(breakhis):
    listing = published("breakhis", archive=str(breakhis))
    images = listing.images
    assert images.groupby(["magnification", "label"]).size().to_dict() == PUBLISHED_COUNTS
    assert len(images) == 7909 and slides()["folder"].nunique() == 82
    assert listing.notes == standing_notes("breakhis")  # nothing is missing
    assert list(images["image_id"]) == sorted(images["image_id"])
    assert listing.root == breakhis and (breakhis / images["image_id"].iloc[0]).is_file()
    assert len(listing.refused) == 0 and listing.unit == "patient"
    assert "CC BY 4.0" in listing.source and "10.1109/TBME.2015.2496264" in listing.source


def test_breakhis_patients_are_case_numbers(breakhis):
    images = published("breakhis", archive=str(breakhis)).images
    assert images["patient"].nunique() == 70
    assert images["slide"].nunique() == 81  # 14-13412 lies under two subtypes
    case = images[images["patient"] == "29960"]
    assert set(case["slide"]) == {"14-29960CD", "14-29960AB"}
    assert set(case["subtype"]) == {"adenosis", "fibroadenoma"}
    assert set(images.loc[images["patient"] == "190", "slide"]) == {"15-190EF"}
    assert images.loc[images["subtype"] == "phyllodes_tumor", "patient"].nunique() == 3
    assert (images.groupby("patient")["label"].nunique() == 1).all()


def test_breakhis_can_be_limited_to_one_magnification(breakhis):
    listing = published("breakhis", archive=str(breakhis), magnification="200X")
    assert listing.images["label"].value_counts().to_dict() == {"B": 623, "M": 1390}
    assert set(listing.images["magnification"]) == {"200X"}
    assert listing.notes == standing_notes("breakhis")
    with pytest.raises(InputError, match="`magnification` is '20X'"):
        published("breakhis", archive=str(breakhis), magnification="20X")


def test_breakhis_names_the_missing_file(breakhis, without):
    without(next(breakhis.rglob("SOB_B_A-14-22549AB-200-007.png")))
    listing = published("breakhis", archive=str(breakhis))
    assert listing.notes[len(standing_notes("breakhis")) :] == (
        "BreaKHis at 200X, benign: 622 images found, 623 expected; SOB_B_A_14-22549AB has 31 of 32 "
        "(by the gap in their numbers: SOB_B_A-14-22549AB-200-007.png).",
    )
    other = published("breakhis", archive=str(breakhis), magnification="40X")
    assert other.notes == standing_notes("breakhis")


def test_breakhis_names_no_file_if_the_missing_one_is_uncertain(breakhis, without):
    without(next(breakhis.rglob("SOB_M_LC-14-13412-40-032.png")))  # the last of its sequence
    note = published("breakhis", archive=str(breakhis)).notes[-1]
    assert "at 40X, malignant: 1,369 images found, 1,370 expected" in note
    assert note.endswith("SOB_M_LC_14-13412 has 31 of 32.")
    without(next(breakhis.rglob("SOB_M_LC-14-13412-40-010.png")))  # a gap, but two are missing
    note = published("breakhis", archive=str(breakhis)).notes[-1]
    assert note.endswith("SOB_M_LC_14-13412 has 30 of 32.")


def test_breakhis_sequences_need_not_start_at_one(breakhis, without):
    without(next(breakhis.rglob("SOB_B_F-14-25197-400-050.png")))
    note = published("breakhis", archive=str(breakhis)).notes[-1]
    assert "has 32 of 33 (by the gap in their numbers: SOB_B_F-14-25197-400-050.png)" in note


def test_breakhis_names_the_missing_slide(breakhis, without):
    without(next(breakhis.rglob("SOB_M_PC_15-190EF")))
    notes = published("breakhis", archive=str(breakhis)).notes[len(standing_notes("breakhis")) :]
    assert notes[0] == "BreaKHis has 82 slide folders, 81 are here; missing: SOB_M_PC_15-190EF."
    assert len(notes) == 5  # and one a magnification


def test_unexpected_breakhis_files_are_named(breakhis):
    strange = breakhis / "BreaKHis_v1" / "screenshot.png"
    write(strange)
    extra = breakhis / "SOB_B_A-14-99999-40-001.png"
    write(extra)
    try:
        listing = published("breakhis", archive=str(breakhis))
    finally:
        strange.unlink()
        extra.unlink()
    assert list(listing.refused["image_id"]) == ["BreaKHis_v1/screenshot.png"]
    assert "83 are here; not in the published set: SOB_B_A_14-99999." in listing.notes[2]
    assert "SOB_B_A_14-99999 has 1 of 0" in listing.notes[3]


def test_an_arbitrary_folder_is_not_accepted_as_breakhis(tmp_path):
    with pytest.raises(InputError, match="No image below .* is named like those of BreaKHis"):
        published("breakhis", archive=str(tmp_path))
    write(tmp_path / "benign" / "one.png")
    with pytest.raises(InputError, match="parameter `archive`"):
        published("breakhis", archive=str(tmp_path))


# -------------------------------------------------------------------- fetching


def test_an_archive_is_unpacked_once_and_then_used(breakhis, tmp_path, monkeypatch):
    archive, data = pack(breakhis, tmp_path / "mine.tar.gz"), tmp_path / "data"
    first = published("breakhis", archive=str(archive), folder=data)
    assert len(first.images) == 7909 and first.root == data / "breakhis"
    assert first.source.endswith(f" The archive's SHA-256: {file_hash(archive)}.")
    monkeypatch.setattr(sources, "unpack", None)  # neither this nor the next unpacks again
    published("breakhis", archive=str(archive), folder=data, magnification="40X")
    again = published("breakhis", folder=data, magnification="40X")
    assert again.source == first.source, "also when the archive is gone"
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"another archive")
    with pytest.raises(InputError, match="contains images that are not from .*other.tar.gz"):
        published("breakhis", archive=str(other), folder=data)


@pytest.mark.parametrize("name", ["BreaKHis_v1.tar.gz", "breakhis.zip"])
def test_an_archive_in_the_data_folder_is_found(tmp_path, name):
    data = tmp_path / "data"
    data.mkdir()
    write(tmp_path / "tree" / "BreaKHis_v1" / "SOB_B_A-14-22549AB-40-001.png")
    pack(tmp_path / "tree", data / name)
    listing = published("breakhis", folder=data)
    assert list(listing.images["slide"]) == ["14-22549AB"]
    assert listing.notes[2].startswith(
        "BreaKHis has 82 slide folders, 1 are here; missing: SOB_B_A_"
    )


@pytest.mark.parametrize("name", ["breakhis", "fnac"])
def test_without_a_connection_one_sentence_says_what_to_do(tmp_path, monkeypatch, name):
    def fail(address, path):
        raise sources.Unreachable("no network")

    monkeypatch.setattr(sources, "download", fail)
    address = "https://example.org/a.zip"
    with pytest.raises(InputError) as caught:
        published(name, address=address, folder=tmp_path / "data")
    sentence = str(caught.value)
    assert f"{name} is not in " in sentence and f"(no network): download {address} " in sentence
    assert PUBLISHED[name].page in sentence and PUBLISHED[name].archive in sentence
    assert "parameter `archive`" in sentence and sentence.count(". ") == 0


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_download_must_match_the_published_checksum(tmp_path, monkeypatch, kind):
    write(tmp_path / "tree" / "FNAC" / "B" / "1.png")
    write(tmp_path / "tree" / "FNAC" / "M" / "1.png")
    served, data = pack(tmp_path / "tree", tmp_path / "served.zip"), tmp_path / "data"
    monkeypatch.setattr(sources, "download", lambda address, path: shutil.copy(served, path))
    data.mkdir()

    def fetched(checksum):
        told = {"address": "https://example.org/a.zip", "checksum": checksum}
        changed = dataclasses.replace(PUBLISHED["fnac2019"], **told)
        monkeypatch.setitem(PUBLISHED, "fnac2019", changed)
        return published("fnac2019", folder=data)

    with pytest.raises(InputError, match=f"not the file that its authors published .{kind} .*0000"):
        fetched(f"{kind}:" + "0" * 64)
    assert not list(data.iterdir())
    right = hashlib.new(kind, served.read_bytes()).hexdigest()
    assert len(fetched(f"{kind}:{right}").images) == 2


def test_official_addresses_are_used(tmp_path, monkeypatch):
    asked = []

    def fail(address, path):
        asked.append((address, path.name))
        raise sources.Unreachable("no network")

    monkeypatch.setattr(sources, "download", fail)
    for name in PUBLISHED:
        with pytest.raises(InputError):
            published(name, folder=tmp_path)
    assert asked == [
        ("https://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz", "BreaKHis_v1.tar.gz"),
        (
            "https://zenodo.org/records/20763900/files/breast-cytology-main.zip?download=1",
            "breast-cytology-main.zip",
        ),
    ]


def test_wrong_parameters_of_published_sets_are_reported(tmp_path):
    with pytest.raises(InputError, match="nowhere.zip: check the parameter `archive`"):
        published("fnac", archive=str(tmp_path / "nowhere.zip"))
    with pytest.raises(InputError, match="`magnification` is '40X'; for fnac it must be all"):
        published("fnac", archive=str(tmp_path), magnification="40X")
    with pytest.raises(InputError, match="fnac2019 has no direct download: .*1drv.ms"):
        published("fnac2019", folder=tmp_path)


# ------------------------------------------------------------------------ FNAC

SLIDES_OF = {"11B1P": "P1", "11B1M": "P1", "12B2P": "P2", "13B3M": "P3"}
PATCH_COUNTS = {
    "11B1P": {"II": 3},
    "11B1M": {"II": 2, "III": 2},
    "12B2P": {"V": 4, "IV": 1},
    "13B3M": {"I": 5, "II": 1, "V": 1},
}


@pytest.fixture
def fnac(tmp_path):
    """A small tree like that of breast-cytology-main.zip: 3 patients, 4 slides, 19 patches."""
    root = tmp_path / "unpacked"
    top = root / "breast-cytology-main"
    for slide, counts in PATCH_COUNTS.items():
        for numeral, count in counts.items():
            for number in range(count):
                write(top / "patches" / slide / numeral / f"{slide}_x{number}_y7.png")
    (top / "metadata").mkdir()
    rows = [
        (patient, slide, f"site {patient}", "PAP" if slide.endswith("P") else "MGG")
        for slide, patient in SLIDES_OF.items()
    ]
    columns = ["patient_id", "wsi_file_stem", "study_site", "stain_type"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(top / "metadata" / "master_metadata.csv", index=False)
    return root


@pytest.fixture
def small_fnac(monkeypatch):
    """As if the authors had published the small tree."""
    counts = {"C1": (5,), "C2": (6,), "C3": (2,), "C4": (9, 1), "C5": (5,)}
    monkeypatch.setattr("cytology.data.sources.fnac.PATCHES", counts)


def test_fnac_has_classes_patients_and_images_of_neither_class(fnac, small_fnac):
    listing = published("fnac", archive=str(fnac))
    assert listing.images["label"].value_counts().to_dict() == {"B": 6, "M": 5}
    assert dict(zip(listing.images["label"], listing.images["category"], strict=True)) == {
        "B": "C2",
        "M": "C5",
    }
    one = listing.images[listing.images["slide"] == "11B1M"].iloc[0]
    assert one["image_id"] == "breast-cytology-main/patches/11B1M/II/11B1M_x0_y7.png"
    assert (one["patient"], one["site"], one["stain"]) == ("P1", "site P1", "MGG")
    assert listing.unseen["category"].value_counts().to_dict() == {"C3": 2, "C4": 1}
    assert set(listing.unseen.columns) == {
        *("image_id", "category", "patient", "slide", "site", "stain")
    }
    assert set(listing.unseen["patient"]) == {"P1", "P2"}
    assert (listing.root / listing.unseen["image_id"].iloc[0]).is_file()
    assert "C1 (insufficient) is left out" in listing.notes[0]
    assert listing.notes[1:] == (
        "3 patients found, 321 expected: the set is incomplete or another version.",
        "4 slides found, 470 expected: the set is incomplete or another version.",
        "Patients with patches of both classes: 1.",
    )


def test_fnac_counts_match_the_publication(fnac):
    assert sum(numbers[0] for numbers in PATCHES.values()) == 7398
    notes = published("fnac", archive=str(fnac)).notes
    assert "6 patches of C2 found, 3,706 expected" in notes[2]
    assert "5 patches of C5 found, 2,779 expected" in notes[5]


def test_fnac_is_read_from_a_zip_and_with_other_column_names(fnac, small_fnac, tmp_path):
    path = fnac / "breast-cytology-main" / "metadata" / "master_metadata.csv"
    table = pd.read_csv(path).rename(columns={"wsi_file_stem": "slide_number"})
    table["slide_number"] += ".ndpi"
    table.drop(columns="study_site").to_csv(path, index=False)
    archive = pack(fnac, tmp_path / "breast-cytology-main.zip")
    listing = published("fnac", archive=str(archive), folder=tmp_path / "data")
    assert set(listing.images["patient"]) == {"P1", "P2", "P3"}
    assert set(listing.images["site"]) == {""}
    assert "The metadata has no column for the site." in listing.notes


def test_fnac_without_metadata_or_patches_is_refused(fnac):
    top = fnac / "breast-cytology-main"
    path = top / "metadata" / "master_metadata.csv"
    path.write_text("patient_id,stain_type\nP1,PAP\n")
    with pytest.raises(InputError, match="needs the columns patient_id and wsi_file_stem; it has"):
        published("fnac", archive=str(fnac))
    path.write_text("patient_id,wsi_file_stem\nP1,11B1P\nP2,11B1P\n")
    with pytest.raises(InputError, match="names slide '11B1P' twice"):
        published("fnac", archive=str(fnac))
    path.write_text("")
    with pytest.raises(InputError, match="not a readable CSV"):
        published("fnac", archive=str(fnac))
    path.unlink()
    with pytest.raises(InputError, match="no metadata/master_metadata.csv below"):
        published("fnac", archive=str(fnac))
    shutil.rmtree(top / "patches" / "12B2P")
    shutil.rmtree(top / "patches" / "13B3M")
    with pytest.raises(InputError, match="has no patches/<slide>/II and patches/<slide>/V"):
        published("fnac", archive=str(fnac))


@pytest.mark.parametrize("what", ["patient_id", "wsi_file_stem", "study_site", "stain_type"])
def test_fnac_metadata_that_are_formulas_are_refused(fnac, small_fnac, what):
    path = fnac / "breast-cytology-main" / "metadata" / "master_metadata.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[1, what] = "=1+1"
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="master_metadata.csv, row 3: the .* is named '=1.1'"):
        published("fnac", archive=str(fnac))


def test_fnac_slides_without_a_patient_are_named(fnac, small_fnac):
    path = fnac / "breast-cytology-main" / "metadata" / "master_metadata.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    listing = published("fnac", archive=str(fnac))
    assert set(listing.images.loc[listing.images["slide"] == "13B3M", "patient"]) == {""}
    assert (
        listing.notes[-1] == "7 patches are from slides without a patient in the metadata: 13B3M."
    )


# ------------------------------------------------------------------- FNAC 2019


@pytest.mark.parametrize("names", [("B", "M"), ("Benign", "malignant")])
def test_fnac2019_has_no_patients_and_reports_it(tmp_path, names):
    for name, count in zip(names, (99, 113), strict=True):
        for number in range(count):
            write(tmp_path / "tree" / "FNAC" / name / f"{number}.png")
    archive = pack(tmp_path / "tree", tmp_path / "fnac2019.zip")
    listing = published("fnac2019", archive=str(archive), folder=tmp_path / "data")
    assert listing.images["label"].value_counts().to_dict() == {"B": 99, "M": 113}
    assert set(listing.images["patient"]) == {""} and listing.unit == "image"
    assert listing.notes == standing_notes("fnac2019")
    assert "names no patients" in listing.notes[0] and "too good" in listing.notes[0]
    assert "Licence: not stated" in listing.source
    next((tmp_path / "data").rglob(f"{names[0]}/98.png")).unlink()
    again = published("fnac2019", folder=tmp_path / "data")
    assert "98 benign images found, 99 expected" in again.notes[-1]
