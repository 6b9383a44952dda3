"""Crops of one cell: a cell beside its picture is found, in any stain; fields of view are not."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytology.data import crops
from cytology.data.copies import find_copies
from cytology.data.inspection import findings, inspect_images
from cytology.data.manifest import build_manifest
from cytology.data.notices import warnings_about
from cytology.data.sources.listing import folder

STAINS = {  # background, cytoplasm and nucleus, as in three stains, one on a dark slide
    "Pap": [(240, 235, 225), (120, 190, 190), (40, 40, 110)],
    "Giemsa": [(235, 225, 240), (190, 170, 215), (90, 30, 120)],
    "dim": [(120, 115, 112), (70, 90, 88), (25, 22, 50)],
}


def cell(seed, stain="Pap", at=(0.5, 0.5), size=(90, 80)):
    """A drawn cell whose nucleus lies at a share of width and height; debris in a corner."""
    rng, (width, height) = np.random.default_rng(seed), size
    y, x = np.mgrid[:height, :width] / np.array([[[height]], [[width]]])
    far = np.hypot((x - at[0]) / rng.uniform(0.8, 1.2), y - at[1])
    background, cytoplasm, nucleus = map(np.array, STAINS[stain])
    pixels = np.where((far < 0.4)[..., None], cytoplasm, background)
    pixels = np.where((far < rng.uniform(0.12, 0.2))[..., None], nucleus, pixels)
    pixels = np.where((np.hypot(x - 0.95, y - 0.9) < 0.05)[..., None], nucleus, pixels)
    return Image.fromarray((pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8))


def measured(images):
    small = (
        np.asarray(each.resize((crops.SIDE, crops.SIDE), Image.Resampling.BOX)) for each in images
    )
    return pd.DataFrame([crops.measure(pixels) for pixels in small])


def sound(stain, count=40):
    rng = np.random.default_rng(1)
    return [cell(k, stain, rng.uniform(0.4, 0.6, 2)) for k in range(count)]


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("at", [(0, 0.5), (0.97, 0.5), (0.5, 0), (0.5, 1), (0.02, 0.02)])
def test_a_crop_with_its_cell_at_the_edge_is_found_in_any_stain(stain, at):
    found = crops.badly_cut(measured([*sound(stain), cell(99, stain, at)]))
    assert found.index.tolist() == [40] and found["detail"].iloc[0].startswith("middle 0.")


def test_a_crop_that_is_half_padding_is_found():
    whole = cell(99)
    half = Image.new("RGB", whole.size, "white")
    half.paste(whole.crop((45, 0, 90, 80)), (0, 0))
    assert crops.badly_cut(measured([*sound("Pap"), half])).index.tolist() == [40]


def test_the_worst_crops_are_listed_first_and_good_ones_are_not_named():
    images = [*sound("Pap"), cell(99, at=(0.1, 0.5)), cell(98, at=(-0.1, 0.5))]
    found = crops.badly_cut(measured(images))
    assert set(found.index) == {40, 41} and found["middle"].is_monotonic_increasing
    assert crops.badly_cut(measured(sound("Pap"))).empty


def test_fields_of_view_are_not_reported_as_crops(smears):
    table = measured(smears)
    assert (table["middle"] < crops.PALE_MIDDLE).any() and not crops.are_crops(table)
    assert crops.badly_cut(table).empty
    assert "not taken for crops of one cell" in crops.in_words(table)


def test_a_few_images_are_not_mistaken_for_crops():
    table = measured([*sound("Pap", crops.FEWEST_IMAGES - 2), cell(99, at=(0, 0.5))])
    assert crops.badly_cut(table).empty
    assert crops.in_words(table).startswith("With fewer than 20 images")


def test_a_uniform_image_has_neither_a_centre_nor_an_empty_half():
    flat = Image.new("RGB", (50, 40), (200, 180, 210))
    assert measured([flat]).iloc[0].to_dict() == {"middle": 1.0, "emptiest_half": 1.0}


def test_otsus_threshold_separates_two_clusters():
    assert crops.otsu(np.array([1.0, 2, 1, 9, 8, 9, 2])) == 8
    assert crops.otsu(np.ones(5)) == 1


def test_badly_cut_crops_are_reported_by_notebook_01(tmp_path):
    for label in "BM":
        (tmp_path / label).mkdir()
    for number, image in enumerate(sound("Giemsa", 30)):
        image.save(tmp_path / "BM"[number % 2] / f"{number:02}.png")
    cell(99, "Giemsa", (0, 0.4)).save(tmp_path / "M" / "edge.png")
    listing = folder(tmp_path)
    readable, rejected = inspect_images(listing, tmp_path / "cache")
    copied = find_copies(readable)
    found = findings(readable, rejected, copied)
    cut = found[found["finding"] == "badly cut"]
    assert cut[["image_id", "label"]].to_numpy().tolist() == [["M/edge.png", "M"]]
    said = warnings_about(listing, build_manifest(readable, copied), found)
    assert any(note.startswith("1 crop is badly cut") for note in said)
    assert crops.in_words(readable).endswith("1 of 31 are badly cut.")
