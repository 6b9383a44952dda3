"""From a source of images to the manifest: groups that must stay together, and warnings."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from refusals import refused

from cytology.data import load
from cytology.data.augmentation import orient
from cytology.data.copies import find_copies
from cytology.data.inspection import findings, inspect_images
from cytology.data.manifest import (
    MANIFEST_COLUMNS,
    build_manifest,
    dataset_facts,
    independent_groups,
)
from cytology.data.notices import warnings_about
from cytology.data.sources.listing import Listing, folder
from cytology.data.sources.published import PUBLISHED
from cytology.parameters import data_name
from cytology.run import Run
from cytology.settings import InputError


@pytest.fixture
def root(tmp_path, smear_folder):
    return smear_folder(tmp_path / "Übung mit Leerzeichen", patients=4)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def manifest_of(listing, cache):
    """(manifest, rejected, sentences) of a listing, as notebook 01 makes them."""
    readable, rejected = inspect_images(listing, cache)
    copied = find_copies(readable)
    manifest = build_manifest(readable, copied)
    said = warnings_about(listing, manifest, findings(readable, rejected, copied))
    return manifest, rejected, said


# ----------------------------------------------------------------- the manifest


def test_a_folder_with_a_space_and_an_umlaut_becomes_a_manifest(root, cache):
    listing = load.load(str(root), patient_pattern=r"(p\d+)_")
    manifest, rejected, said = manifest_of(listing, cache)
    assert (len(manifest), len(rejected), listing.unit, said) == (8, 0, "patient", [])
    assert list(manifest) == MANIFEST_COLUMNS
    assert manifest["image_id"].tolist() == sorted(manifest["image_id"])
    assert (manifest["family"] == manifest["image_id"]).all()
    assert (manifest["group"] == manifest["patient"]).all()


def test_a_turned_copy_joins_its_patients_and_is_reported(root, cache):
    image = Image.open(root / "B" / "p000_0.png")
    ImageOps.mirror(image.rotate(90, expand=True)).save(root / "M" / "p003_copy.png")
    manifest, _, said = manifest_of(load.load(str(root), patient_pattern=r"(p\d+)_"), cache)
    tied = manifest[manifest["group"] == "p000+p003"]
    assert set(tied["patient"]) == {"p000", "p003"} and len(tied) == 5
    family = manifest.set_index("image_id")["family"]
    assert family["M/p003_copy.png"] == family["B/p000_0.png"] == "B/p000_0.png"
    assert family.nunique() == 8
    assert said == [
        "1 image is a copy of others (1 turned): the split keeps all copies of an image together.",
        "1 image has the other class in a copy: one label is wrong; tables/quality.csv lists them.",
    ]


def test_unknown_patients_are_counted_and_reported(root, cache):
    manifest, _, said = manifest_of(load.load(str(root), patient_pattern=r"(p00[01])_"), cache)
    assert manifest["group"].nunique() == 2 + 4
    (sentence,) = said
    assert sentence.startswith(
        "4 of 8 images have no patient; each of them, with its copies, counts as one"
    )


def test_poor_and_unusable_images_and_notes_of_the_source_are_reported(root, cache):
    (root / "B" / "text.png").write_text("no image")
    Image.new("RGB", (64, 48), (180, 120, 160)).save(root / "B" / "p000_9.png")
    Image.new("RGB", (64, 48), "white").save(root / "M" / "p001_9.png")
    listing = load.load(str(root), patient_pattern=r"(p\d+)_")
    listing = Listing(root, listing.images, refused=listing.refused, notes=("A note.",))
    assert manifest_of(listing, cache)[2] == [
        "A note.",
        "1 file cannot be used; rejected.csv gives the reasons.",
        "1 image is blank: tables/quality.csv lists them.",
        "1 image is over-exposed: tables/quality.csv lists them.",
    ]


def test_the_number_of_originals_in_an_augmented_folder_is_reported(tmp_path, smears, cache):
    for label, images in (("B", smears[:3]), ("M", smears[3:6])):
        (tmp_path / label).mkdir()
        for number, image in enumerate(images):
            for orientation in range(4 + number):
                pixels = np.ascontiguousarray(orient(np.asarray(image), orientation))
                name = f"{number}_{orientation}.jpg"
                Image.fromarray(pixels).save(tmp_path / label / name, quality=90)
    manifest, _, said = manifest_of(folder(tmp_path), cache)
    (sentence,) = [words for words in said if "AUGMENTED" in words]
    assert sentence.startswith(
        "THIS FOLDER LOOKS AUGMENTED: its 30 files seem to come from 6 originals, with up to 6 "
        "copies of one. Intervals must be based on the 6 originals."
    )
    assert manifest["group"].nunique() == 6
    original = manifest["image_id"].str.rsplit("_", n=1).str[0]
    assert (manifest.groupby(original)["group"].nunique() == 1).all()


def test_a_folder_with_a_few_copies_does_not_look_augmented(root, cache):
    for number in range(3):
        shutil.copy(root / "B" / "p000_0.png", root / "B" / f"p000_copy{number}.png")
    _, _, said = manifest_of(load.load(str(root), patient_pattern=r"(p\d+)_"), cache)
    (sentence,) = said
    assert sentence.startswith("3 images are copies of others (3 same file)")


# ----------------------------------------------------------------------- groups


def groups(*rows):
    """The group of each row (image_id, patient, slide, family)."""
    columns = ["image_id", "patient", "slide", "family"]
    return independent_groups(pd.DataFrame(rows, columns=columns)).tolist()


def test_images_of_one_patient_or_else_of_one_slide_are_a_group():
    assert groups(
        ("a", "1", "s1", "a"),
        ("b", "2", "s1", "b"),
        ("c", "1", "s2", "c"),
        ("d", "", "s9", "d"),
        ("e", "", "s9", "e"),
    ) == ["1", "2", "1", "s9", "s9"]


def test_images_of_a_slide_are_a_group_even_if_one_has_no_patient():
    assert groups(
        ("a", "1", "s1", "a"),
        ("b", "", "s1", "b"),
        ("c", "1", "s2", "c"),
        ("d", "2", "s2", "d"),
    ) == ["1+s1", "1+s1", "1+s1", "2"]


def test_images_of_unknown_patients_are_separate_groups():
    assert groups(("a", "", "", "a"), ("b", "", "", "b")) == ["a", "b"]


def test_a_patient_and_a_slide_with_the_same_name_are_different():
    found = groups(("a", "7", "", "a"), ("b", "", "7", "b"))
    assert len(set(found)) == 2


def test_a_copy_joins_two_patients_with_all_their_images():
    assert groups(
        ("a", "1", "", "a"),
        ("b", "2", "", "a"),
        ("c", "2", "", "c"),
        ("d", "3", "", "d"),
        ("e", "", "", "d"),
    ) == ["1+2", "1+2", "1+2", "3+d", "3+d"]


def test_large_groups_with_similar_names_keep_different_names():
    """Of more than three names three are shown: here patients 0, 1, 2 and slides 0, 1, 2."""
    patients = [(f"x{n}", str(n), "", "x") for n in range(5)]
    slides = [(f"y{n}", "", str(n), "y") for n in range(4)]
    found = groups(*patients, *slides)
    assert len(set(found[:5])) == len(set(found[5:])) == 1 and found[0] != found[5]
    assert {name.split(" #")[0] for name in found} == {"0+1+2"}


def test_the_order_of_the_rows_does_not_matter(manifest):
    shuffled = manifest.sample(frac=1, random_state=0)
    found = independent_groups(shuffled)
    assert found.sort_index().tolist() == independent_groups(manifest).tolist()


# -------------------------------------------------------------------- the source


def described(root, cache):
    listing = folder(root)
    manifest, rejected, _ = manifest_of(listing, cache)
    return dataset_facts(str(root), listing, manifest, rejected)


def test_the_fingerprint_changes_with_an_image_and_not_with_time(root, smear, cache):
    before = described(root, cache)
    wanted = "images benign malignant groups families of_unknown_unit rejected".split()
    assert [before[name] for name in wanted] == [8, 4, 4, 8, 8, 8, 0]
    assert described(root, cache) == before
    smear(999).save(root / "B" / "p000_0.png")
    assert described(root, cache)["fingerprint"] != before["fingerprint"]


def test_a_run_made_with_other_data_is_refused(tmp_path, root, cache):
    run = Run(tmp_path / "run")
    run.write("dataset.json", described(root, cache))

    def images(data=""):
        return Run(run.folder, {"data": data}).images

    assert images(str(root)) == images() == root
    assert "holds" in refused(images, "sample")
    assert f"`data` is {next(iter(PUBLISHED))}" in refused(images, next(iter(PUBLISHED)))
    shutil.rmtree(root)
    assert refused(images, str(root)) == (
        f"The images of this run are gone from {root}: run notebook 01 again."
    )


@pytest.mark.parametrize("word", ["sample", *PUBLISHED])
def test_a_published_set_is_described_by_name_and_a_folder_by_its_path(word, tmp_path):
    assert data_name(word) == word
    assert data_name(str(tmp_path / "x" / ".." / word)) == str(tmp_path / word)


def test_a_published_set_is_loaded_with_its_own_parameters(monkeypatch):
    asked = []
    monkeypatch.setattr(load, "published", lambda *a, **k: asked.append((a, k)))
    load.load("breakhis", "x=B, y=M", magnification="40X", archive="a.tar.gz")
    assert asked == [(("breakhis",), {"magnification": "40X", "archive": "a.tar.gz"})]


def test_the_sample_is_drawn_once_and_keeps_its_own_columns(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(load, "HOME", tmp_path)
    listing = load.load("sample", sample_images=8, sample_patients=4)
    manifest, _, said = manifest_of(listing, cache)
    assert (len(manifest), manifest["group"].nunique(), said) == (8, 4, [])
    assert list(manifest)[-2:] == ["stain", "mask"]
    monkeypatch.setattr(load, "draw_sample", None)
    again = load.load("sample", sample_images=8, sample_patients=4)
    pd.testing.assert_frame_equal(again.images, listing.images)


def test_notebook_01_requires_the_data_parameter():
    with pytest.raises(InputError, match="`data` is empty: name a folder"):
        load.load("")


def test_a_given_split_and_its_crossings_are_reported(tmp_path, smear, cache):
    for part in ("train", "test"):
        for patient in range(4):
            place = tmp_path / "data" / part / "BM"[patient % 2]
            place.mkdir(parents=True, exist_ok=True)
            for number in range(2):
                seed = 10 * patient + number + 100 * (part == "test" and patient > 0)
                smear(seed).save(place / f"p{patient + 4 * (part == 'test')}_{number}.png")
    shutil.copy(tmp_path / "data/train/M/p1_0.png", tmp_path / "data/test/M/p1_9.png")
    _, _, said = manifest_of(load.load(str(tmp_path / "data"), patient_pattern=r"(p\d+)_"), cache)
    assert said[:2] == [
        "This folder came with a split (train 8, test 9 images). Notebook 03 checks it, and makes "
        "another one unless you set `given_split`.",
        "Of the 9 images in its test, 3 have a copy in train, 1 shares a patient with train: "
        "results on that part would be too good.",
    ]


def test_masks_found_by_colour_or_name_are_reported(tmp_path, smear, smear_folder, cache):
    root = smear_folder(tmp_path / "data", patients=4)
    image = Image.open(root / "B" / "p000_0.png")
    binary = image.convert("L").point(lambda grey: 255 * (grey > 120))
    binary.save(
        root / "B" / "p000_0 x.png"
    )  # no mask keyword in its name: recognized by its colours
    binary.save(root / "B" / "p000_1_mask.png")
    binary.rotate(90, expand=True).save(root / "B" / "p002_7.png")  # no image of its size
    smear(77).save(root / "M" / "P001_5.png")
    manifest, rejected, said = manifest_of(
        load.load(str(root), patient_pattern=r"([pP]\d+)_"), cache
    )
    assert sorted(rejected[["image_id", "reason", "other"]].to_numpy().tolist()) == [
        ["B/p000_0 x.png", "a mask of B/p000_0.png, by its few colours", "B/p000_0.png"],
        ["B/p000_1_mask.png", "a mask of B/p000_1.png, by its name", "B/p000_1.png"],
    ]
    assert (
        "2 files are masks and left out; rejected.csv names the images that they belong to." in said
    )
    assert any(note.startswith("1 image has at most 16 colours, like a drawing") for note in said)
    assert any(
        note.startswith("'P001', 'p001' differ only in letter case and count as 2 patients")
        for note in said
    )
    assert len(manifest) == 4 * 2 + 2


@pytest.mark.parametrize(
    "names, classes, benign, malignant",
    [
        (("B/a.png", "M/b.png"), "", "benign", "malignant"),
        (
            ("normal/a.png", "HSIL/b.png", "scc/c.png"),
            "normal=B, hsil=M, scc=M",
            "'normal'",
            "'HSIL', 'scc'",
        ),
        (
            ("B/normal-columnar_1-2-001.png", "M/severe-dysplastic_3-4-001.png"),
            "",
            "normal cells of the cervix",
            "light to severe dysplasia of the cervix, and carcinoma in situ",
        ),
    ],
)
def test_classes_are_named_as_in_the_data_set(tmp_path, smear, names, classes, benign, malignant):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        smear(number).save(tmp_path / name)
    assert load.load(str(tmp_path), classes).classes == {"B": benign, "M": malignant}


def test_groups_of_images_of_unknown_patients_are_called_groups(root, cache):
    about = described(root, cache)
    assert (about["unit"], about["of_unknown_unit"], about["images"]) == ("group", 8, 8)
