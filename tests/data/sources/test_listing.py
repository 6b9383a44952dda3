"""A user's own folder: which files count, of which class, and of which patient."""

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from refusals import refused

from cytology.data.sources.classes import parse_classes
from cytology.data.sources.listing import LISTED, folder
from cytology.tables import write_table

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


@pytest.fixture
def root(tmp_path, smear_folder):
    return smear_folder(tmp_path / "Übung mit Leerzeichen", patients=4)


# ------------------------------------------------------------------- the folder


def test_a_folder_is_listed_in_order_of_path(root):
    listing = folder(root, patient_pattern=r"(?P<case>p\d+)_")
    assert list(listing.images) == LISTED
    assert listing.images["image_id"].tolist() == sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*.png")
    )
    assert listing.images["patient"].unique().tolist() == ["p000", "p002", "p001", "p003"]
    assert (listing.root, listing.unit, listing.source) == (root, "case", "folder")
    assert len(listing.refused) == len(listing.unseen) == len(listing.notes) == 0


@pytest.mark.parametrize("names", [("B", "M"), ("b", "m"), ("Benign", "MALIGNANT ")])
def test_class_folders_are_found_in_any_case_with_spaces_and_nested(tmp_path, smear, names):
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


def test_the_classes_parameter_replaces_the_default_names(tmp_path, smear):
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
def test_a_link_to_its_own_parent_does_not_loop(root):
    before = folder(root).images["image_id"].tolist()
    (root / "B" / "loop").symlink_to(root, target_is_directory=True)
    listing = folder(root)
    assert listing.images["image_id"].tolist() == before
    assert listing.refused.to_numpy().tolist() == [
        ["B/loop", "B", "a link to a folder that was already read", ""]
    ]


@links
def test_a_link_within_the_folder_is_read(root):
    before = folder(root).images["image_id"].tolist()
    (root / "M").rename(root / "elsewhere")
    (root / "M").symlink_to(root / "elsewhere", target_is_directory=True)
    (root / "B" / "a copy.png").symlink_to(root / before[0])
    assert folder(root).images["image_id"].tolist() == ["B/a copy.png", *before]


@links
def test_links_out_of_the_folder_are_named_and_followed_only_on_request(root, tmp_path, smear):
    before = folder(root).images["image_id"].tolist()
    (tmp_path / "private").mkdir()
    smear(7).save(tmp_path / "private" / "a.png")
    (root / "B" / "all").symlink_to(tmp_path / "private", target_is_directory=True)
    (root / "M" / "one.png").symlink_to(tmp_path / "private" / "a.png")
    (root / "M" / "up").symlink_to(tmp_path, target_is_directory=True)
    listing = folder(root)
    assert listing.images["image_id"].tolist() == before
    private = tmp_path / "private"
    places = {"B/all": private, "M/one.png": private / "a.png", "M/up": tmp_path}
    assert dict(listing.refused[["image_id", "reason"]].to_numpy()) == {
        name: f"a link to {place}, outside the data folder: not followed; use that folder "
        "as `data`, or set `follow_links` in notebook 01"
        for name, place in places.items()
    }
    asked = folder(root, follow_links=True).images["image_id"].tolist()
    assert set(asked) >= {*before, "B/all/a.png", "M/one.png"}


@links
def test_a_data_folder_that_is_itself_a_link_is_read(root, tmp_path):
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert len(folder(tmp_path / "link").images) == len(folder(root).images)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such paths")
def test_a_folder_nested_too_deeply_is_left_out(root, smear):
    before, place = folder(root).images["image_id"].tolist(), root / "M"
    here = os.getcwd()
    try:
        os.chdir(place)
        for _ in range(1200):
            os.mkdir("a")
            os.chdir("a")
        smear(1).save("x.png")
    finally:
        os.chdir(here)
    listing = folder(root)
    assert listing.images["image_id"].tolist() == before
    deep = listing.refused
    assert deep["reason"].tolist() == ["in more than 100 nested folders: not read"]
    assert deep["image_id"].iloc[0] == "/".join(["M", *["a"] * 100])
    subprocess.run(["rm", "-r", place / "a"], check=True)  # `shutil.rmtree` recurses


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "@SUM(1)", "-cmd", "-1+cmd|x!A0", "a;=1", "\uff1d1", '=1+1&"', " =1"]
)
def test_names_that_are_formulas_are_left_out_and_no_cell_begins_with_them(tmp_path, smear, name):
    put(tmp_path, smear, "B/1.png", "M/1.png", f"{name}/B/2.png", f"x/{name}/3.png", f"{name}.png")
    listing = folder(tmp_path)
    assert listing.images["image_id"].tolist() == ["B/1.png", "M/1.png"]
    assert listing.unseen.empty and len(listing.refused) == 3
    assert all("like a formula in a spreadsheet: rename" in why for why in listing.refused.reason)
    write_table(tmp_path, "rejected.csv", listing.refused)  # which refuses formulas


def test_names_that_only_look_like_formulas_are_accepted(tmp_path, smear):
    names = ["-5 degrees/B/1.png", "B/=1.png", "B/a=b.png", "M/1+1.png", "M/-20.png"]
    put(tmp_path, smear, *names)
    assert folder(tmp_path).images["image_id"].tolist() == sorted(names)


def test_a_folder_named_like_an_image_is_reported_and_its_files_are_read(root, smear):
    (root / "M" / "x.png").mkdir()
    smear(7).save(root / "M" / "x.png" / "a.png")
    listing = folder(root)
    assert "M/x.png/a.png" in set(listing.images["image_id"])
    assert listing.refused.to_numpy().tolist() == [
        ["M/x.png", "M", "a folder that is named like an image", ""]
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
        ["M/locked", "M", "cannot be opened: Permission denied", ""]
    ]


def test_a_missing_folder_is_refused(tmp_path):
    sentence = f"There is no folder {tmp_path / 'no'}: check the parameter `data`."
    assert refused(folder, tmp_path / "no") == sentence


def test_a_folder_without_class_folders_is_refused(tmp_path):
    assert refused(folder, tmp_path).startswith(
        f"No image in {tmp_path} is in a folder named b, benign, m, malignant"
    )


def test_a_folder_with_one_class_is_refused(root):
    shutil.rmtree(root / "M")
    assert refused(folder, root).startswith(
        f"All images in {root} belong to one class, B, but two are needed."
    )


# ------------------------------------------------------ folders as users have them


def put(root, smear, *paths):
    """Write a different small picture to each of `paths` below `root`."""
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        smear(seed).save(root / path, "PNG")
    return root


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("M/benign/P1.png", "'M' and 'benign'"),  # a sex
        ("B/malignant/P1.png", "'B' and 'malignant'"),  # a site
        ("benign/patient 7/M/1.png", "'benign' and 'M'"),
        ("b /MALIGNANT/1.png", "'b ' and 'MALIGNANT'"),
        ("train/Malignant/a/b/1.png", "'Malignant' and 'b'"),
    ],
)
def test_two_class_names_on_one_path_are_refused(tmp_path, smear, path, names):
    put(tmp_path, smear, path, "B/1.png", "M/1.png")
    sentence = refused(folder, tmp_path)
    assert sentence.startswith(f"Two folders on the path {path!r} are named like classes, {names}:")
    assert "name the class folders with `classes`" in sentence


def test_the_classes_parameter_resolves_two_class_names_on_one_path(tmp_path, smear):
    put(tmp_path, smear, *(f"{sex}/{name}/1.png" for sex in "MF" for name in ("benign", "Cancer")))
    found = folder(tmp_path, "benign=B, cancer=M").images
    assert found["label"].tolist() == ["M", "B", "M", "B"]


@pytest.mark.parametrize("name", ["José", "Müller", "Åsa", "Ñandú", "Đặng"])
def test_a_patient_in_two_unicode_forms_counts_as_one(tmp_path, smear, name):
    two = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    assert two[0] != two[1]
    put(tmp_path, smear, f"B/{two[0]}/1.png", f"B/{two[1]} /2.png", "M/x/1.png")
    for pattern in (r"/([^/]+)/", rf"/({two[0]}|x) ?/", rf"/({two[1]}|x) ?/"):
        found = folder(tmp_path, patient_pattern=pattern).images
        assert set(found["patient"]) == {name, "x"}
    assert {path.split("/")[1] for path in found["image_id"]} == {two[0], f"{two[1]} ", "x"}


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_classes_in_any_unicode_form_and_with_spaces_are_found(tmp_path, smear, typed, on_disk):
    names = [unicodedata.normalize(on_disk, name) for name in ("Gutartig ü ", " bösartig")]
    put(tmp_path, smear, f"{names[0]}/1.png", f"{names[1]}/1.png")
    classes = unicodedata.normalize(typed, "gutartig ü=B, bösartig=M")
    assert sorted(folder(tmp_path, classes).images["label"]) == ["B", "M"]


def test_images_of_neither_class_are_counted_by_their_folder_and_listed(tmp_path, smear):
    paths = ["B/1.png", "M/1.png", "normal/p1/1.png", "normal/p2/1.png", "train/M/2.png"]
    put(tmp_path, smear, *paths, "train/atypical/1.png", "loose.png")
    listing = folder(tmp_path)
    assert listing.notes == (
        "4 images are in folders of neither class and not used for training: 'normal' (2), "
        "'.' (1), 'atypical' (1). unseen.csv lists them; to use them, name their folder in "
        "`classes`.",
    )
    assert dict(listing.unseen.to_numpy()) == {
        "loose.png": ".",
        "normal/p1/1.png": "normal",
        "normal/p2/1.png": "normal",
        "train/atypical/1.png": "atypical",
    }


def test_images_of_neither_class_get_their_patients_from_pattern_or_table(tmp_path, smear):
    paths = ["B/p1_1.png", "M/p2_1.png", "C3/p1_2.png", "C3/odd.png"]
    put(tmp_path / "data", smear, *paths)
    unseen = folder(tmp_path / "data", patient_pattern=r"(p\d)_").unseen
    assert unseen[["image_id", "patient"]].to_numpy().tolist() == [
        ["C3/odd.png", ""],
        ["C3/p1_2.png", "p1"],
    ]
    (tmp_path / "whose.csv").write_text("image,patient\np1_1.png,1\np2_1.png,2\nodd.png,3\n")
    listing = folder(tmp_path / "data", patients_csv=str(tmp_path / "whose.csv"))
    assert listing.unseen["patient"].tolist() == ["3", ""]
    only = folder(tmp_path / "data", patient_pattern=r"(?:B|M)/(p\d)_").unseen
    assert only["patient"].tolist() == ["", ""]


def test_a_class_without_a_folder_is_refused_with_the_existing_ones(tmp_path, smear):
    put(tmp_path, smear, "normal/1.png", "cancer/1.png", "cancer/2.png")
    assert refused(folder, tmp_path, "norml=B, cancer=M") == (
        f"Parameter `classes` is 'norml=B, cancer=M', but no folder with images in {tmp_path} is "
        "named 'norml'. Folders with images: 'cancer' (2), 'normal' (1)."
    )
    assert "Folders with images: 'cancer' (2), 'normal' (1)." in refused(folder, tmp_path)


def test_images_without_a_suffix_are_recognized_by_their_first_bytes(tmp_path, smear):
    put(tmp_path, smear, "B/1", "B/2.2024", "M/1.jfif", "M/IM000")
    (tmp_path / "B" / "README").write_text("no image")
    (tmp_path / "B" / "1.dat").write_bytes((tmp_path / "B" / "1").read_bytes())
    (tmp_path / "M" / "notes.xml").write_text("<none/>")
    (tmp_path / "M" / "empty").touch()
    smear(9).save(tmp_path / "M" / "slide.mrxs", "JPEG")
    listing = folder(tmp_path)
    assert listing.images["image_id"].tolist() == ["B/1", "B/2.2024", "M/1.jfif", "M/IM000"]
    assert listing.unseen.empty and listing.refused[["image_id", "reason"]].to_numpy().tolist() == [
        ["M/slide.mrxs", "only a preview of a slide: export images from the slide"]
    ]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="such names need Linux")
def test_names_that_are_not_valid_text_are_left_out_and_reported(tmp_path, smear):
    put(tmp_path, smear, "B/1.png", "M/1.png", "M/two\nlines.png")
    os.rename(tmp_path / "B" / "1.png", os.fsencode(tmp_path / "B") + b"/M\xfcller.png")
    put(tmp_path, smear, "B/2.png")
    os.mkdir(os.fsencode(tmp_path / "M") + b"/\xe4")
    smear(5).save(os.fsencode(tmp_path / "M") + b"/\xe4/1.png")
    listing = folder(tmp_path)
    assert listing.images["image_id"].tolist() == ["B/2.png", "M/1.png"]
    why = "a name that is not UTF-8 or has a line break: rename the file or its folder"
    assert sorted(listing.refused.to_numpy().tolist()) == [
        [r"B/M\xfcller.png", "B", why, ""],
        [r"M/\xe4/1.png", "M", why, ""],
        [r"M/two\nlines.png", "M", why, ""],
    ]
    listing.refused.to_csv(tmp_path / "rejected.csv", encoding="utf-8")
    os.unlink(tmp_path / "B" / "2.png")
    assert rf"left out; the first is B/M\xfcller.png: {why}." in refused(folder, tmp_path)


def test_masks_are_left_out_and_listed_with_their_image(tmp_path, smear):
    put(tmp_path, smear, "B/1.png", "B/1_mask.png", "M/2.png", "M/masks/other.png", "x/1_gt.png")
    listing = folder(tmp_path)
    assert listing.images["image_id"].tolist() == ["B/1.png", "M/2.png"]
    assert sorted(listing.refused.to_numpy().tolist()) == [
        ["B/1_mask.png", "B", "a mask of B/1.png, by its name", "B/1.png"],
        ["M/masks/other.png", "M", "in a folder of masks", ""],
    ]
    assert listing.unseen["image_id"].tolist() == ["x/1_gt.png"], "no image `x/1` is there"
