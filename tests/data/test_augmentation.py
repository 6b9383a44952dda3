"""The 8 orientations are exact and distinct; squares are padded or stretched as asked."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytology.data.augmentation import ORIENTATIONS, fit_to_square, orient, pictures_of
from cytology.data.pictures import write_pictures

IMAGE = np.arange(5 * 5 * 3).reshape(5, 5, 3).astype(np.uint8)


def test_the_orientations_are_eight_different_pictures():
    assert len({orient(IMAGE, o).tobytes() for o in range(len(ORIENTATIONS))}) == 8


@pytest.mark.parametrize("orientation", range(8))
def test_an_orientation_only_moves_pixels_and_can_be_undone(orientation):
    turned = orient(IMAGE, orientation)
    assert sorted(map(tuple, turned.reshape(-1, 3))) == sorted(map(tuple, IMAGE.reshape(-1, 3)))
    assert any(np.array_equal(orient(turned, back), IMAGE) for back in range(8))
    assert np.shares_memory(turned, IMAGE)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (0, IMAGE),
        (1, np.rot90(IMAGE)),
        (2, IMAGE[::-1, ::-1]),
        (3, np.rot90(IMAGE, 3)),
        (4, IMAGE[:, ::-1]),
        (6, IMAGE[::-1]),
    ],
)
def test_an_orientation_is_what_its_name_says(orientation, expected):
    assert np.array_equal(orient(IMAGE, orientation), expected)


def test_a_batch_is_rotated_like_its_images():
    batch = np.stack([IMAGE, IMAGE + 1])
    for orientation in range(8):
        turned = [orient(image, orientation) for image in batch]
        assert np.array_equal(orient(batch, orientation), turned)


def test_padding_keeps_the_shape_of_a_nucleus_and_stretching_does_not():
    image = Image.new("RGB", (80, 40), (200, 150, 220))
    image.paste((60, 20, 90), (30, 10, 50, 30))  # a square "nucleus"

    def extent(fit):
        dark = fit_to_square(image, 40, fit)[..., 0] < 130
        return np.ptp(np.argwhere(dark), axis=0) + 1

    height, width = extent("pad")
    assert height == width == 10
    height, width = extent("stretch")
    assert height == 2 * width


@pytest.mark.parametrize("size", [(80, 40), (40, 80), (60, 60), (1, 90)])
def test_padding_has_the_colour_of_the_border_on_both_sides(size):
    colour = (200, 150, 220)
    square = fit_to_square(Image.new("RGB", size, colour), 32, "pad")
    assert square.shape == (32, 32, 3) and square.dtype == np.uint8
    assert (square == colour).all()


def test_a_square_image_is_the_same_padded_or_stretched(smear):
    image = smear(1, 60, 60)
    assert np.array_equal(fit_to_square(image, 30, "pad"), fit_to_square(image, 30, "stretch"))


def test_an_augmented_set_has_every_image_in_every_orientation():
    images = pd.DataFrame({"image_id": ["a", "b"], "label": ["B", "M"]})
    pictures = pictures_of(images, 4)
    assert len(pictures) == 8 and not pictures.duplicated().any()
    assert pictures.groupby("image_id")["orientation"].apply(list).tolist() == [[0, 1, 2, 3]] * 2
    assert pictures_of(pictures.drop_duplicates("image_id"), 1)["orientation"].tolist() == [0, 0]


def test_written_pictures_have_distinct_file_names(tmp_path, smear):
    for place in ("B/x", "B/y"):
        (tmp_path / place).mkdir(parents=True)
        smear(len(place) + ord(place[-1])).save(tmp_path / place / "1.png")
    images = pd.DataFrame({"image_id": ["B/x/1.png", "B/y/1.png"], "label": "B"})
    written = write_pictures(pictures_of(images, 8), tmp_path, tmp_path / "augmented")
    files = sorted((tmp_path / "augmented" / "B").iterdir())
    assert written == len(files) == 16
    turned = Image.open(tmp_path / "augmented" / "B" / "B__x__1.png_o3.png")
    assert np.array_equal(turned, orient(np.asarray(Image.open(tmp_path / "B/x/1.png")), 3))


@pytest.mark.parametrize(
    "ids",
    [
        ["B/" + "x" * 250 + ".png", "B/" + "x" * 249 + "y.png"],
        ["B/" + "ü" * 120 + ".png", "B/" + "ü" * 119 + "ä.png"],  # 251 bytes: letters are fewer
        ["B/" + "k" * 200 + "/" + "l" * 200 + f"/{number}.png" for number in range(2)],
        ["B/a/b__1.png", "B/a__b/1.png", "B__a/b/1.png"],
        ["B/a_/1.png", "B/a/_1.png"],
    ],
    ids=["long", "bytes", "folders", "meeting", "at the edge"],
)
def test_images_with_any_valid_name_are_written(tmp_path, smear, ids):
    for number, image_id in enumerate(ids):
        (tmp_path / image_id).parent.mkdir(parents=True, exist_ok=True)
        smear(number).save(tmp_path / image_id)
    images = pd.DataFrame({"image_id": ids, "label": "B"})
    write_pictures(pictures_of(images, 2), tmp_path, tmp_path / "augmented")
    files = sorted((tmp_path / "augmented" / "B").iterdir())
    assert len(files) == 2 * len(ids)
    assert all(path.name.endswith(("_o0.png", "_o1.png")) for path in files)
    written = {Image.open(path).tobytes() for path in files if path.name.endswith("_o0.png")}
    assert written == {Image.open(tmp_path / image_id).tobytes() for image_id in ids}
