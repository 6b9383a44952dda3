"""A folder of one's own: which files count, of which class, and of which patient."""

import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from cytology.folders import (
    LISTED,
    add_patients_from_csv,
    add_patients_from_pattern,
    differences_of,
    folder,
    image_files,
    parse_classes,
    some,
    unit_of,
)
from cytology.settings import InputError

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


@pytest.fixture
def root(tmp_path, smear_folder):
    return smear_folder(tmp_path / "Übung mit Leerzeichen", patients=4)


def listed(*image_ids):
    table = pd.DataFrame({"image_id": image_ids, "label": [name[0] for name in image_ids]})
    return table.assign(patient="", slide="")


def refused(call, *arguments):
    """The sentence with which `call` refuses its arguments."""
    with pytest.raises(InputError) as error:
        call(*arguments)
    return str(error.value)


# ------------------------------------------------------------------- the folder


def test_a_folder_is_a_listing_sorted_by_path(root):
    listing = folder(root, patient_pattern=r"(?P<case>p\d+)_")
    assert list(listing.images) == LISTED
    assert listing.images["image_id"].tolist() == sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*.png")
    )
    assert listing.images["patient"].unique().tolist() == ["p000", "p002", "p001", "p003"]
    assert (listing.root, listing.unit, listing.source) == (root, "case", "folder")
    assert len(listing.refused) == len(listing.unseen) == len(listing.notes) == 0


@pytest.mark.parametrize("names", [("B", "M"), ("b", "m"), ("Benign", "MALIGNANT")])
def test_class_folders_count_in_any_letter_case_and_nested(tmp_path, smear, names):
    for seed, name in enumerate(names):
        for place in (name, f"site 1/{name}/slide"):
            (tmp_path / place).mkdir(parents=True)
            smear(seed).save(tmp_path / place / "a.PNG")
    listing = folder(tmp_path).images
    benign, malignant = names
    assert dict(listing[["image_id", "label"]].to_numpy()) == {
        f"{benign}/a.PNG": "B",
        f"site 1/{benign}/slide/a.PNG": "B",
        f"{malignant}/a.PNG": "M",
        f"site 1/{malignant}/slide/a.PNG": "M",
    }


def test_classes_replace_the_usual_names(tmp_path, smear):
    for name in ("Normal", "cancer", "B"):
        (tmp_path / name).mkdir()
        smear(1).save(tmp_path / name / "a.png")
    listing = folder(tmp_path, "normal=B, Cancer=m").images
    assert listing["image_id"].tolist() == ["Normal/a.png", "cancer/a.png"]
    assert listing["label"].tolist() == ["B", "M"]


@pytest.mark.parametrize("classes", ["normal", "normal=B", "normal=B,cancer=X", "a=B=M", "a=B,a=M"])
def test_a_bad_mapping_of_classes_is_refused(classes):
    sentence = refused(parse_classes, classes)
    assert sentence.startswith(f"Parameter `classes` is {classes!r}; write it like 'normal=B, ")


def test_masks_hidden_files_and_other_folders_are_never_read(root, smear):
    before = folder(root).images["image_id"].tolist()
    for place in ("masks/B", "B/Masks", "B/.thumbnails", "other"):
        (root / place).mkdir(parents=True)
        smear(1).save(root / place / "a.png")
    smear(1).save(root / "a.png")
    smear(1).save(root / "B" / ".a.png")
    (root / "B" / "notes.txt").write_text("no image")
    assert folder(root).images["image_id"].tolist() == before


@links
def test_a_link_to_its_own_parent_ends_and_a_linked_folder_is_read(root, tmp_path):
    before = folder(root).images["image_id"].tolist()
    (root / "B" / "loop").symlink_to(root, target_is_directory=True)
    listing = folder(root)
    assert listing.images["image_id"].tolist() == before
    assert listing.refused.to_numpy().tolist() == [
        ["B/loop", "B", "a link to a folder that was read already"]
    ]
    shutil.move(root / "M", tmp_path / "elsewhere")
    (root / "M").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert folder(root).images["image_id"].tolist() == before


def test_a_folder_named_like_an_image_is_named_and_what_it_holds_is_read(root, smear):
    (root / "M" / "x.png").mkdir()
    smear(7).save(root / "M" / "x.png" / "a.png")
    listing = folder(root)
    assert "M/x.png/a.png" in set(listing.images["image_id"])
    assert listing.refused.to_numpy().tolist() == [
        ["M/x.png", "M", "a folder that is named like an image"]
    ]


def test_a_folder_that_cannot_be_entered_is_named_with_its_reason(root, monkeypatch):
    locked = root / "M" / "locked"
    locked.mkdir()
    scandir = os.scandir

    def guarded(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert folder(root).refused.to_numpy().tolist() == [
        ["M/locked", "M", "cannot be opened: Permission denied"]
    ]


def test_no_such_folder(tmp_path):
    sentence = f"There is no folder {tmp_path / 'no'}: check the parameter `data`."
    assert refused(folder, tmp_path / "no") == sentence


def test_a_folder_without_class_folders(tmp_path):
    assert refused(folder, tmp_path).startswith(
        f"No image in {tmp_path} lies in a folder named b, benign, m, malignant"
    )


def test_one_class_only(root):
    shutil.rmtree(root / "M")
    assert refused(folder, root).startswith(
        f"All images in {root} are of one class, B: two classes are needed."
    )


# --------------------------------------------------------------------- patients


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        (r"(p\d+", "is no regular expression: missing )"),
        (r"p\d+_", "has no group: put the part that is the patient in parentheses"),
        (r"(case\d+)", "matches no image path; a path looks like 'B/p1_0.png'"),
    ],
)
def test_a_bad_pattern_is_refused(pattern, part):
    sentence = refused(add_patients_from_pattern, listed("B/p1_0.png", "M/p2_0.png"), pattern)
    assert f"Parameter `patient_pattern` {pattern!r}" in sentence and part in sentence


def test_the_first_group_of_the_pattern_is_the_patient():
    table = listed("B/007-a_0.png", "M/12-b_0.png", "M/other.png")
    found = add_patients_from_pattern(table, r"(?P<field_of_view>\d+)-(\w)")
    assert found["patient"].tolist() == ["007", "12", ""]
    assert unit_of(r"(?P<field_of_view>\d+)-(\w)") == "field of view"
    assert unit_of(r"(\d+)-(?P<slide>\w)") == unit_of("") == "patient"


def test_an_optional_group_that_did_not_match_is_an_unknown_patient():
    found = add_patients_from_pattern(listed("B/1_x.png", "M/x.png"), r"(\d+_)?x")
    assert found["patient"].tolist() == ["1_", ""]


@pytest.mark.parametrize(
    ("text", "patients", "slides"),
    [
        ("image,patient\nB/a.png,007\nM/c.png,NA\n", ["007", "", "NA"], ["", "", ""]),
        ("patient;image;slide\n1;B/a.png;s\n1;b.png;\n", ["1", "1", ""], ["s", "", ""]),
        ("\ufeffimage\tpatient\tage\na.png\t1\t50\n", ["1", "", ""], ["", "", ""]),
        ("image,patient\nB\\a.png,1\nB/a.png,1\nnot here.png,2\n", ["1", "", ""], ["", "", ""]),
        ('image,patient\r\n"B/a.png","Ä, B"\r\n', ["Ä, B", "", ""], ["", "", ""]),
    ],
    ids=["comma", "semicolon", "tab and BOM", "backslash", "quoted"],
)
def test_patients_from_a_csv(tmp_path, text, patients, slides):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    found, notes = add_patients_from_csv(listed("B/a.png", "B/b.png", "M/c.png"), path)
    assert found["patient"].tolist() == patients and found["slide"].tolist() == slides
    assert len(notes) == ("not here" in text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_as_any_spreadsheet_writes_it(tmp_path, encoding, separator, end):
    path = tmp_path / "Patientinnen.csv"
    rows = ["Image, PATIENT ,Note", 'B/a.png , Müller,"one, or; two"', "z.png,9", ",,", "q.png,8,x"]
    if separator != ",":
        rows = [
            row.replace('"one, or; two"', '"one or two"').replace(",", separator) for row in rows
        ]
    path.write_bytes((end.join(rows) + end).encode(encoding))
    found, notes = add_patients_from_csv(listed("B/a.png", "B/b.png"), path)
    assert found["patient"].tolist() == ["Müller", ""]
    assert notes == ("Patientinnen.csv names 2 images that are not there, like q.png.",)


def test_a_bare_name_counts_only_where_it_is_unique(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("image,patient\na.png,1\nb.png,2\n")
    found, notes = add_patients_from_csv(listed("B/a.png", "M/a.png", "M/b.png"), path)
    assert found["patient"].tolist() == ["", "", "2"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("image\na.png\n", "needs the columns image,patient[,slide], each once; it has image."),
        (
            "file;case\na;1\n",
            "needs the columns image,patient[,slide], each once; it has file, case.",
        ),
        ("image,patient\nB/a.png,1\nB/a.png,2\n", "names 'B/a.png' twice, with different"),
        ("image,patient\nB/a.png,1\nB\\a.png,2\n", "names 'B/a.png' twice, with different"),
        ("image,patient\nz.png,1\n", "names none of the images; an image is named like 'B/a.png'"),
        ("", "has no names of columns in its first line"),
        ('image,patient\n"a.png,1\n', "is no readable CSV: unexpected end of data"),
        ("image,patient\na.png,1,2\n", "has 3 cells in row 2, and 2 names of columns"),
        ("image,patient,patient\na.png,1,2\n", "each once; it has image, patient, patient."),
        ("image,patient\na.png,1\0\n", "holds bytes that are no text"),
    ],
)
def test_a_bad_csv_is_refused_with_its_path(tmp_path, text, part):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    sentence = refused(add_patients_from_csv, listed("B/a.png", "M/b.png"), path)
    assert str(path) in sentence and part in sentence


def test_a_csv_that_is_missing_or_not_in_utf8(tmp_path):
    path = tmp_path / "patients.csv"
    assert refused(add_patients_from_csv, listed("B/a.png"), path) == (
        f"There is no file {path}: check the parameter `patients_csv`."
    )
    path.write_bytes("image,patient\nB/ä.png,1\n".encode("latin-1"))
    said = refused(add_patients_from_csv, listed("B/a.png"), path)
    assert said.endswith("is no text in UTF-8 (line 2): save it as 'CSV UTF-8'.")


# --------------------------------------------------- for the published sets


@links
def test_image_files_are_those_with_the_suffix_of_an_image(root):
    (root / "B" / "a.csv").write_text("no image")
    (root / "B" / "loop").symlink_to(root, target_is_directory=True)
    files, refusals = image_files(root)
    assert sorted(files) == sorted(root.rglob("*.png"))
    assert refusals == [("B/loop", "", "a link to a folder that was read already")]


def test_counts_that_are_none_of_those_published_are_said():
    found = {"images": 7000, "slides": 82}
    assert differences_of(found, {"images": (7909, 7000), "slides": (82,)}) == ()
    sentences = differences_of(found, {"images": (7909,), "patients": (70, 71)})
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "7,000 images found, 7,909 expected",
        "0 patients found, 70 expected",
    ]


def test_of_many_words_the_first_are_shown():
    assert some(["a", "b", "c"]) == "a, b, c" and some(list("abcde")) == "a, b, c and 2 more"
