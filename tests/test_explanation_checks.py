"""Checks of heatmaps on maps whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytology.augmentation import fit_to_square, orient
from cytology.explanation_checks import (
    CHECKS,
    by_cell,
    covered,
    deletion_and_insertion,
    from_curves,
    in_words,
    likeness,
    likeness_to_others,
    nuclei_in_square,
    of_others,
    of_turned_copies,
    on_nuclei,
    summarize,
    turned_back,
    values_of,
)

pytestmark = pytest.mark.numeric

SIZE = 64


@pytest.fixture(scope="module")
def field():
    """16 images of 16 patients, each with one nucleus of 12 x 12 at a place of its own."""
    rng = np.random.default_rng(0)
    nuclei = np.zeros((16, SIZE, SIZE), bool)
    for mask, (y, x) in zip(nuclei, rng.integers(0, SIZE - 12, (16, 2)), strict=True):
        mask[y : y + 12, x : x + 12] = True
    rows = pd.DataFrame({"image_id": [f"{k:02}" for k in range(16)], "label": list("BM") * 8})
    return rows.assign(group=rows["image_id"]), nuclei, np.ones_like(nuclei)


def means(values):
    return values.groupby("check")[["value", "chance"]].mean()


def test_heat_that_is_the_nuclei_wins_and_even_heat_is_chance(field):
    rows, nuclei, image = field
    table = summarize(on_nuclei(rows, nuclei * 1.0, nuclei, image)).set_index("check")
    assert np.allclose(table["value"], 1) and (table["passed"] == "yes").all()
    assert table.loc["heat on nuclei", "chance"] == pytest.approx(144 / SIZE**2)
    even = means(on_nuclei(rows, np.ones((16, SIZE, SIZE)), nuclei, image))
    assert even.loc["heat on nuclei", "value"] == pytest.approx(144 / SIZE**2)


def test_random_heat_is_no_better_than_chance(field):
    rows, nuclei, image = field
    heat = np.random.default_rng(1).random((16, SIZE, SIZE))
    table = summarize(on_nuclei(rows, heat, nuclei, image)).set_index("check")
    assert table.loc["heat on nuclei", "difference"] == pytest.approx(0, abs=0.01)
    assert (table["passed"] == "no").all()


def test_a_habit_is_told_from_an_answer(field):
    """Heat in the middle, nuclei in the middle: right every time, but not because of the image."""
    rows, _, image = field
    middle = np.zeros((16, SIZE, SIZE), bool)
    for k, mask in enumerate(middle):
        mask[20 : 40 + k, 20:40] = True
    heat = np.repeat(middle[:1] * 1.0, 16, axis=0)
    table = summarize(on_nuclei(rows, heat, middle, image)).set_index("check")
    assert table.loc["pointing game", "passed"] == "yes"
    assert table.loc["pointing game, habit", "difference"] == 0
    assert table.loc["pointing game, habit", "passed"] != "yes"


def test_near_a_nucleus_counts_and_chance_counts_it_too(field):
    rows, nuclei, image = field
    beside = np.roll(nuclei, 1, axis=1) & ~nuclei  # the row below each nucleus
    found = on_nuclei(rows, beside * 1.0, nuclei, image)
    assert means(found).loc["pointing game", "value"] == 1
    area = 144 / SIZE**2
    assert area * 1.5 < means(found).loc["pointing game", "chance"] < area * 3.5


def test_heat_on_the_padding_and_below_zero_is_no_heat(field):
    rows, nuclei, _ = field
    image = np.zeros_like(nuclei)
    image[:, 8:56] = True
    heat = np.where(image, -1.0, 9.0)
    heat[nuclei & image] = 0.5
    found = means(on_nuclei(rows, heat, nuclei & image, image))
    assert found.loc["heat on nuclei", "value"] == pytest.approx(1)
    assert found.loc["pointing game", "value"] == 1


def test_images_without_nucleus_or_heat_are_left_out(field):
    rows, nuclei, image = field
    empty, cold = nuclei.copy(), nuclei * 1.0
    empty[0], cold[1] = False, -1.0
    table = summarize(on_nuclei(rows, cold, empty, image)).set_index("check")
    assert table.loc["pointing game", "images"] == 15
    assert table.loc["heat on nuclei", "images"] == 14


def test_masks_lie_as_the_picture_lies(tmp_path):
    mask = Image.new("L", (128, 96))
    mask.paste(255, (32, 24, 96, 72))
    mask.save(tmp_path / "maß e.png")
    nuclei, image = nuclei_in_square(tmp_path / "maß e.png", SIZE, "pad")
    assert image[8:56].all() and not image[:8].any() and not image[56:].any()
    picture = fit_to_square(mask.convert("RGB"), SIZE, "pad")[..., 0] > 127
    np.testing.assert_array_equal(nuclei, picture)
    stretched, everywhere = nuclei_in_square(tmp_path / "maß e.png", SIZE, "stretch")
    assert everywhere.all() and stretched[16:48, 16:48].all() and stretched.sum() == 32 * 32


def test_the_mean_of_others():
    np.testing.assert_allclose(
        of_others(np.array([[9.0, 1, 3], [2, 9, np.nan], [4, 6, 9]])), [2, 2, 5]
    )


def test_covered_cells_have_the_colour_of_the_border():
    picture = np.random.default_rng(0).integers(0, 255, (70, 70, 3)).astype(np.uint8)
    picture[0] = picture[-1] = picture[:, 0] = picture[:, -1] = 200
    changed = covered(picture, np.array([0, 8]), (7, 7))
    assert (changed[:10, :10] == 200).all() and (changed[10:20, 10:20] == 200).all()
    changed[:10, :10] = picture[:10, :10]
    changed[10:20, 10:20] = picture[10:20, 10:20]
    np.testing.assert_array_equal(changed, picture)
    np.testing.assert_array_equal(covered(picture, np.array([], int), (7, 7)), picture)


def test_deletion_and_insertion_of_a_judge_who_counts_red_cells(field):
    """The judge's logit is the share of red cells: by heat it must fall, and rise, at once."""
    rows, nuclei, _ = field
    pixels = np.full((16, 70, 70, 3), 200, np.uint8)
    heat = np.random.default_rng(0).random((16, 7, 7)) < 0.2
    for picture, red in zip(pixels, heat, strict=True):
        picture[np.kron(red, np.ones((10, 10))).astype(bool)] = 255, 0, 0
    for picture in pixels:
        picture[0] = picture[-1] = picture[:, 0] = picture[:, -1] = 200

    def logits(pictures, of):
        assert (of == of[0]).all()
        return (pictures[..., 1] == 0).mean(axis=(1, 2))

    curves = deletion_and_insertion(logits, pixels, heat * 1.0, np.ones(16), 7, 0)
    ends = curves[curves["share"].isin([0, 1])].groupby(["curve", "share", "image"])["logit"]
    assert (ends.nunique() == 1).all()  # nothing or everything is covered, in any order
    table = summarize(from_curves(rows, curves)).set_index("check")
    assert (table["passed"] == "yes").all()
    against = deletion_and_insertion(logits, pixels, -1.0 * heat, np.ones(16), 7, 0)
    assert (summarize(from_curves(rows, against))["passed"] == "no").all()
    mirrored = deletion_and_insertion(logits, pixels, heat * 1.0, -np.ones(16), 7, 0)
    np.testing.assert_allclose(mirrored["logit"], -curves["logit"])


def test_likeness_is_spearmans_and_knows_maps_without_places():
    one = np.arange(9.0).reshape(1, 3, 3)
    assert likeness(one, np.exp(one))[0] == pytest.approx(1)
    assert likeness(one, -one)[0] == pytest.approx(-1)
    assert np.isnan(likeness(one, np.ones((1, 3, 3)))[0])
    assert np.isnan(likeness(np.ones((1, 1, 1)), np.ones((1, 1, 1)))[0])
    maps = np.stack([one[0], -one[0], one[0]])
    np.testing.assert_allclose(likeness_to_others(maps, maps), [0, -1, 0])


@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_map_is_turned_back(orientation):
    maps = np.random.default_rng(0).random((3, 5, 5))
    turned = orient(maps[..., None], orientation)[..., 0]
    np.testing.assert_array_equal(turned_back(turned, orientation), maps)


def test_a_network_that_turns_with_its_picture_agrees_with_itself():
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 6, 3)).astype(np.uint8)

    def follows(pictures):
        return pictures.mean(axis=-1)

    np.testing.assert_allclose(of_turned_copies(follows, pixels, follows(pixels)), 1)
    stays = of_turned_copies(lambda pictures: follows(pixels), pixels, follows(pixels))
    assert (stays < 0.5).all()


def test_attributions_are_summed_over_cells():
    values = np.random.default_rng(0).normal(size=(2, 70, 70))
    cells = by_cell(values, (7, 5))
    assert cells.shape == (2, 7, 5)
    np.testing.assert_allclose(cells[1, 2, 3], values[1, 20:30, 42:56].sum())
    np.testing.assert_allclose(cells.sum(axis=(1, 2)), values.sum(axis=(1, 2)))


def test_the_summary_counts_groups_and_says_what_failed():
    labels = list("BM") * 6
    rows = pd.DataFrame({"image_id": [str(k) for k in range(12)], "label": labels})
    rows["group"] = rows["image_id"]
    rng = np.random.default_rng(0)
    good = values_of("turned copies", rows, 0.8 + rng.normal(0, 0.05, 12), 0.1)
    alike = values_of("shuffled head", rows, 0.9 + rng.normal(0, 0.05, 12), 0.5)
    few = rows.assign(group=["a", "b"] * 6)
    table = summarize(pd.concat([good, alike])).assign(architecture="mobilenetv2")
    assert table.set_index("check")["passed"].to_dict() == {
        "shuffled head": "no",
        "turned copies": "yes",
    }
    (sentence,) = in_words(table)
    assert "1 of 2 checks passed" in sentence and "NOT PASSED: shuffled head" in sentence
    unknown = summarize(values_of("insertion", few, 1.0, 0.5))
    assert unknown["passed"].tolist() == ["unclear"]
    assert np.isnan(unknown["difference_low"][0]) and unknown["groups"][0] == 2
    assert "Not to be told" in in_words(unknown.assign(architecture="mobilenetv2"))[0]
    nothing = summarize(values_of("insertion", rows, np.nan, 0.5))
    assert nothing["images"][0] == 0 and nothing["passed"][0] == "unclear"


def test_every_check_says_what_it_asks():
    for check in CHECKS.values():
        assert check.asks.endswith("?") and check.better in (1, -1) and check.chance
