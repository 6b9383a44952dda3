"""Sources of images, what is refused, and the groups that must stay together."""

import shutil

import pandas as pd
import pytest
from PIL import Image, ImageOps

from cytology import datasets
from cytology.datasets import (
    add_patients_from_csv,
    add_patients_from_pattern,
    build_manifest,
    describe,
    folder,
    image_root,
    independent_groups,
    inspect_images,
    load,
    parse_classes,
    unit_of,
    warnings_about,
)
from cytology.settings import InputError
from cytology.tables import write_json


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


def test_a_folder_with_a_space_and_an_umlaut_becomes_a_manifest(root):
    place, listing, unit = load(str(root), patient_pattern=r"(p\d+)_")
    readable, rejected = inspect_images(place, listing)
    manifest = build_manifest(readable)
    assert (len(manifest), len(rejected), unit) == (8, 0, "patient")
    assert list(manifest) == datasets.MANIFEST_COLUMNS
    assert manifest["image_id"].tolist() == sorted(manifest["image_id"])
    assert manifest.groupby("group")["patient"].unique().str[0].tolist() == [
        "p000", "p001", "p002", "p003",
    ]  # fmt: skip


@pytest.mark.parametrize("names", [("B", "M"), ("b", "m"), ("Benign", "MALIGNANT")])
def test_class_folders_count_in_any_letter_case_and_nested(tmp_path, smear, names):
    for seed, name in enumerate(names):
        for place in (name, f"site 1/{name}/slide"):
            (tmp_path / place).mkdir(parents=True)
            smear(seed).save(tmp_path / place / "a.PNG")
    _, listing = folder(tmp_path)
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
    _, listing = folder(tmp_path, "normal=B, Cancer=m")
    assert listing["image_id"].tolist() == ["Normal/a.png", "cancer/a.png"]
    assert listing["label"].tolist() == ["B", "M"]


@pytest.mark.parametrize("classes", ["normal", "normal=B", "normal=B,cancer=X", "a=B=M", "a=B,a=M"])
def test_a_bad_mapping_of_classes_is_refused(classes):
    sentence = refused(parse_classes, classes)
    assert sentence.startswith(f"Parameter `classes` is {classes!r}; write it like 'normal=B, ")


def test_masks_hidden_files_and_other_folders_are_never_read(root, smear):
    before = folder(root)[1]["image_id"].tolist()
    for place in ("masks/B", "B/Masks", "B/.thumbnails", "other"):
        (root / place).mkdir(parents=True)
        smear(1).save(root / place / "a.png")
    smear(1).save(root / "a.png")
    smear(1).save(root / "B" / ".a.png")
    (root / "B" / "notes.txt").write_text("no image")
    assert folder(root)[1]["image_id"].tolist() == before


def test_a_link_to_its_own_parent_ends_and_a_linked_folder_is_read(root, tmp_path):
    before = folder(root)[1]["image_id"].tolist()
    (root / "B" / "loop").symlink_to(root, target_is_directory=True)
    assert folder(root)[1]["image_id"].tolist() == before
    shutil.move(root / "M", tmp_path / "elsewhere")
    (root / "M").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert folder(root)[1]["image_id"].tolist() == before


def test_no_such_folder(tmp_path):
    sentence = f"There is no folder {tmp_path / 'no'}: check the parameter `data`."
    assert refused(load, str(tmp_path / "no")) == sentence


def test_a_folder_without_class_folders(tmp_path):
    assert refused(folder, tmp_path).startswith(
        f"No image in {tmp_path} lies in a folder named b, benign, m, malignant"
    )


def test_one_class_only(root):
    shutil.rmtree(root / "M")
    assert refused(folder, root).startswith(
        f"All images in {root} are of one class, B: two classes are needed."
    )


# ------------------------------------------------------------- unreadable images


def test_unreadable_images_are_rejected_with_their_reason_and_the_rest_goes_on(root, smear):
    whole = (root / "B" / "p000_0.png").read_bytes()
    (root / "B" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "B" / "text.png").write_text("no image")
    (root / "M" / "empty.jpg").write_bytes(b"")
    (root / "M" / "gone.png").symlink_to(root / "nowhere.png")
    smear(1).save(root / "M" / "web.webp")
    _, listing = folder(root)
    readable, rejected = inspect_images(root, listing)
    reasons = rejected.set_index("image_id")["reason"]
    assert len(readable) == 8 and len(reasons) == 5
    assert reasons["B/cut.png"].startswith("damaged: ")
    assert reasons["B/text.png"] == "not an image"
    assert reasons["M/empty.jpg"] == "empty file"
    assert reasons["M/gone.png"] == "cannot be read: No such file or directory"
    assert reasons["M/web.webp"] == ".webp files are not read: use JPEG, PNG, BMP or TIFF"
    assert warnings_about(build_manifest(readable), rejected, "patient")[0] == (
        "5 files cannot be used; rejected.csv says why."
    )


@pytest.mark.parametrize(("broken", "which"), [("M", "one class"), ("BM", "either class")])
def test_no_readable_image_of_a_class(root, broken, which):
    for label in broken:
        for path in (root / label).iterdir():
            path.write_text("no image")
    count = 4 * len(broken)
    assert refused(inspect_images, root, folder(root)[1]) == (
        f"No readable image of {which} in {root}: {count} files were rejected, "
        "the first because: not an image."
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
    found = add_patients_from_csv(listed("B/a.png", "B/b.png", "M/c.png"), path)
    assert found["patient"].tolist() == patients and found["slide"].tolist() == slides


def test_a_bare_name_counts_only_where_it_is_unique(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("image,patient\na.png,1\nb.png,2\n")
    found = add_patients_from_csv(listed("B/a.png", "M/a.png", "M/b.png"), path)
    assert found["patient"].tolist() == ["", "", "2"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("image\na.png\n", "needs the columns image,patient[,slide]; it has image."),
        ("file;case\na;1\n", "needs the columns image,patient[,slide]; it has file, case."),
        ("image,patient\nB/a.png,1\nB/a.png,2\n", "names 'B/a.png' twice, with different"),
        ("image,patient\nB/a.png,1\nB\\a.png,2\n", "names 'B/a.png' twice, with different"),
        ("image,patient\nz.png,1\n", "names none of the images; an image is named like 'B/a.png'"),
        ("", "is no readable CSV in UTF-8"),
        ('image,patient\n"a.png,1\n', "is no readable CSV in UTF-8"),
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
    assert "is no readable CSV in UTF-8" in refused(add_patients_from_csv, listed("B/a.png"), path)


# ----------------------------------------------------------------------- groups


def groups(*rows):
    """The group of each row (image_id, patient, slide, sha256, phash)."""
    columns = ["image_id", "patient", "slide", "sha256", "phash"]
    return independent_groups(pd.DataFrame(rows, columns=columns)).tolist()


def test_images_of_one_patient_and_else_of_one_slide_are_a_group():
    assert groups(
        ("a", "1", "s1", "A", "x"),
        ("b", "2", "s1", "B", "y"),
        ("c", "1", "s2", "C", "z"),
        ("d", "", "s9", "D", "v"),
        ("e", "", "s9", "E", "w"),
    ) == ["1", "2", "1", "s9", "s9"]


def test_unknown_patients_are_groups_of_their_own():
    assert groups(("a", "", "", "A", "x"), ("b", "", "", "B", "y")) == ["a", "b"]


@pytest.mark.parametrize("copy", [("A", "y"), ("B", "x")], ids=["same file", "same hash"])
def test_a_copy_ties_two_patients_together_with_all_their_images(copy):
    assert groups(
        ("a", "1", "", "A", "x"),
        ("b", "2", "", *copy),
        ("c", "2", "", "C", "z"),
        ("d", "3", "", "D", "w"),
    ) == ["1+2", "1+2", "1+2", "3"]


def test_a_turned_copy_is_found_through_the_pixels(root):
    image = Image.open(root / "B" / "p000_0.png")
    ImageOps.mirror(image.rotate(90, expand=True)).save(root / "M" / "p003_copy.png")
    _, listing, unit = load(str(root), patient_pattern=r"(p\d+)_")
    readable, rejected = inspect_images(root, listing)
    manifest = build_manifest(readable)
    tied = manifest[manifest["group"] == "p000+p003"]
    assert set(tied["patient"]) == {"p000", "p003"} and len(tied) == 5
    assert warnings_about(manifest, rejected, unit) == [
        "1 images are copies of others (0 to the byte): joined in groups.",
        "1 images stand in both classes.",
    ]


def test_unknown_patients_are_counted_aloud(root):
    _, listing, unit = load(str(root), patient_pattern=r"(p00[01])_")
    readable, rejected = inspect_images(root, listing)
    manifest = build_manifest(readable)
    assert manifest["group"].nunique() == 2 + 4
    (sentence,) = warnings_about(manifest, rejected, unit)
    assert sentence.startswith("4 of 8 images have no patient: each counts as a group of its own.")


# -------------------------------------------------------------------- the source


def described(root):
    readable, rejected = inspect_images(root, folder(root)[1])
    return describe(str(root), root, build_manifest(readable), rejected, "patient")


def test_the_fingerprint_changes_with_an_image_and_not_with_time(root, smear):
    before = described(root)
    assert (before["images"], before["benign"], before["malignant"], before["groups"]) == (
        8,
        4,
        4,
        8,
    )
    assert described(root) == before
    smear(999).save(root / "B" / "p000_0.png")
    assert described(root)["fingerprint"] != before["fingerprint"]


def test_a_run_made_with_other_data_is_refused(tmp_path, root):
    run = tmp_path / "run"
    write_json(run, "dataset.json", described(root))
    assert image_root(run, str(root)) == root
    assert "holds" in refused(image_root, run, "sample")
    shutil.rmtree(root)
    assert refused(image_root, run, str(root)) == (
        f"The images of this run are gone from {root}: run notebook 01 again."
    )


def test_the_sample_is_drawn_once_and_keeps_its_own_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "PROJECT_ROOT", tmp_path)
    root, listing, unit = load("sample", images=8, patients=4)
    readable, _ = inspect_images(root, listing)
    manifest = build_manifest(readable)
    assert (len(manifest), manifest["group"].nunique(), unit) == (8, 4, "patient")
    assert list(manifest)[-2:] == ["stain", "mask"]
    monkeypatch.setattr(datasets, "draw_sample", None)
    pd.testing.assert_frame_equal(load("sample", images=8, patients=4)[1], listing)
