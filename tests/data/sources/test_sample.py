"""The drawn sample: complete, the same bytes for the same seed, and drawn as described."""

import shutil

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from PIL import Image
from scipy import ndimage

from cytology.data.copies import find_copies
from cytology.data.inspection import inspect_images
from cytology.data.load import folder as listing_of
from cytology.data.sources import sample
from cytology.data.sources.sample import draw_sample, images_per_patient, is_whole, patient_cards


def contents(folder):
    """Every file below `folder` by its path, as bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def nuclei(folder, row):
    """The mask of a row of the table, as uint8 (height, width)."""
    return np.asarray(Image.open(folder / row.mask))


def stopped_before_the_last_item(work, what, total):
    """Replaces `progress`: the user interrupts before the last item is counted."""
    for done, item in enumerate(work, start=1):
        if done == total:
            raise KeyboardInterrupt
        yield item


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    return folder, draw_sample(folder, images=32, patients=8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    draw_sample(folder, images=8, patients=4)
    return folder


def test_the_table_lists_every_image_and_mask_once(drawn):
    folder, table = drawn
    columns = ["image", "label", "patient", "slide", "stain", "mask", "copy_of"]
    assert list(table.columns) == [*columns, "sha256", "mask_sha256", "version"]
    assert len(table) == table.image.nunique() == table["mask"].nunique() == 32
    for label in "BM":
        images = {path.relative_to(folder).as_posix() for path in (folder / label).iterdir()}
        masks = {f"{label}/{path.name}" for path in (folder / "masks" / label).iterdir()}
        assert images == masks == set(table.image[table.label == label])
        assert set(table["mask"][table.label == label]) == {f"masks/{mask}" for mask in masks}
    assert (table.image.str.extract(r"(patient\d+)_", expand=False) == table.patient).all()


def test_the_written_table_equals_the_returned_one(drawn):
    folder, table = drawn
    written = pd.read_csv(folder / "sample.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(written, table.astype(written.dtypes))


def test_each_class_contains_one_copy_of_an_image_of_the_same_patient(drawn):
    folder, table = drawn
    copies = table[table.copy_of != ""]
    assert sorted(copies.label) == ["B", "M"]
    for row in copies.itertuples():
        original = table[table.image == row.copy_of].iloc[0]
        assert original.patient == row.patient
        for one, other in [(row.image, original.image), (row.mask, original["mask"])]:
            pixels = np.asarray(Image.open(folder / other))
            flipped = np.flip(pixels, sample.COPIES[row.label])
            assert (np.asarray(Image.open(folder / one)) == flipped).all()


def test_exactly_the_planted_copies_are_found(drawn):
    folder, table = drawn
    readable, _ = inspect_images(listing_of(folder))
    found = find_copies(readable)
    copies = table[table.copy_of != ""]
    assert dict(zip(found.image_id, found.family, strict=True)) == dict(
        zip(copies.image, copies.copy_of, strict=True)
    )


def test_a_patient_has_one_label_and_one_stain(drawn):
    _, table = drawn
    assert table.patient.nunique() == 8
    assert (table.groupby("patient")[["label", "stain"]].nunique() == 1).all(axis=None)
    assert (table.groupby("label").patient.nunique() == 4).all()
    assert (table.groupby("label").stain.nunique() == 2).all()


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_state(tiny, tmp_path):
    np.random.seed(123)
    before = np.random.get_state()[1].copy()
    draw_sample(tmp_path, images=8, patients=4)
    assert (np.random.get_state()[1] == before).all()
    assert contents(tmp_path) == contents(tiny)


def test_another_seed_gives_different_images(tiny, tmp_path):
    draw_sample(tmp_path, images=8, patients=4, seed=1)
    ours, other = contents(tiny), contents(tmp_path)
    assert not {ours[name] for name in ours if name.endswith(".png")} & set(other.values())


def test_the_number_of_workers_changes_nothing(tmp_path):
    """48 images are drawn by several processes, or by threads if the caller set joblib so."""
    draw_sample(tmp_path / "many", images=48, patients=4, height=48, width=64)
    with parallel_config(backend="threading"):
        draw_sample(tmp_path / "threads", images=48, patients=4, height=48, width=64)
    assert contents(tmp_path / "many") == contents(tmp_path / "threads")


def test_masks_match_their_images_and_contain_nuclei(drawn):
    folder, table = drawn
    for row in table.itertuples():
        image, mask = Image.open(folder / row.image), Image.open(folder / row.mask)
        assert image.mode == "RGB" and mask.mode == "L"
        assert image.size == mask.size == (256, 192)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.005 < (np.asarray(mask) > 0).mean() < 0.6


def test_nuclei_are_darker_than_what_surrounds_them(drawn):
    folder, table = drawn
    for row in table.itertuples():
        grey = np.asarray(Image.open(folder / row.image).convert("L"), float)
        inside = nuclei(folder, row) > 0
        around = ndimage.binary_dilation(inside, iterations=12) & ~inside
        assert grey[inside].mean() < 0.8 * grey[around].mean(), row.image


def test_malignant_nuclei_are_larger(drawn):
    folder, table = drawn
    areas = {"B": [], "M": []}
    for row in table.itertuples():
        mask = nuclei(folder, row) > 0
        areas[row.label].append(mask.sum() / ndimage.label(mask)[1])
    assert np.mean(areas["M"]) > 1.3 * np.mean(areas["B"])


def test_an_interrupted_drawing_leaves_no_table_even_an_older_one(tmp_path, monkeypatch):
    (tmp_path / "sample.csv").write_text("image\n", encoding="utf-8")
    monkeypatch.setattr(sample, "progress", stopped_before_the_last_item)
    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path, images=8, patients=4)
    assert len(list(tmp_path.glob("[BM]/*.png"))) == 8
    assert not (tmp_path / "sample.csv").exists()


@pytest.mark.parametrize(("images", "patients"), [(8, 4), (9, 5), (320, 24), (1000, 33)])
def test_images_are_distributed_unequally_and_completely(images, patients):
    counts = images_per_patient(images, patients, np.random.default_rng(0))
    assert counts.sum() == images and len(counts) == patients and counts.min() >= 1
    if (images, patients) == (320, 24):
        assert counts.min() >= 7 and counts.max() <= 20 and len(set(counts)) > 3


def test_too_few_patients_or_images_are_refused():
    for images, patients in [(8, 3), (5, 6)]:
        with pytest.raises(ValueError, match="4 patients"):
            images_per_patient(images, patients, np.random.default_rng(0))


def test_atypia_overlaps_between_the_classes():
    cards = patient_cards(200, np.random.default_rng(0))
    atypia = {label: [c["atypia"] for c in cards if c["label"] == label] for label in "BM"}
    assert max(atypia["B"]) > min(atypia["M"])
    assert np.mean(atypia["M"]) - np.mean(atypia["B"]) > 0.3


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_bytes(b"\x89PNG"), lambda path: path.unlink()]
)
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_modified_picture_is_detected(tmp_path, harm, kind):
    assert not is_whole(tmp_path)
    table = draw_sample(tmp_path, images=8, patients=4)
    assert is_whole(tmp_path)
    harm(tmp_path / table[kind].iloc[3])
    assert not is_whole(tmp_path)


def test_a_sample_of_another_or_unknown_version_is_drawn_again(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "sample")
    table = pd.read_csv(folder / "sample.csv")
    assert is_whole(folder)
    table.assign(version="of last year").to_csv(folder / "sample.csv", index=False)
    assert not is_whole(folder)
    table.drop(columns="version").to_csv(folder / "sample.csv", index=False)
    assert not is_whole(folder)


@pytest.mark.parametrize("patients", [4, 9, 40])
def test_each_class_has_both_stains(patients):
    for seed in range(20):
        cards = pd.DataFrame(patient_cards(patients, np.random.default_rng(seed)))
        assert (cards.groupby("label")["stain"].nunique() == 2).all()


def test_stains_are_assigned_independently_in_each_class():
    """Equally many of each stain in both classes would push a baseline below 0.5."""
    shares = []
    for seed in range(200):
        cards = pd.DataFrame(patient_cards(40, np.random.default_rng(seed)))
        shares.append((cards["stain"] == "Giemsa").groupby(cards["label"]).mean())
    shares = pd.DataFrame(shares)
    assert abs(shares.corr().loc["B", "M"]) < 0.25
    assert shares.std().min() > 0.08 and np.allclose(shares.mean(), 0.5, atol=0.02)
