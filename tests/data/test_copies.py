"""Copies are found however they were turned, and different images are not joined."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageOps

from cytology.data.augmentation import ORIENTATIONS, looks_augmented, orient
from cytology.data.copies import (
    DISC,
    NEIGHBOURS,
    SAME_PICTURE,
    Discs,
    describe_copy,
    discs,
    family_of,
    find_copies,
)
from cytology.data.images.opening import open_rgb
from cytology.data.inspection import inspect_images
from cytology.data.sources.listing import folder
from cytology.settings import PROJECT_ROOT

pytestmark = pytest.mark.numeric

COLUMNS = ["image_id", "family", "kind", "similarity", "angle", "mirrored"]
HERLEV = PROJECT_ROOT.parent / "shared" / "data" / "herlev"
needs_herlev = pytest.mark.skipif(not HERLEV.is_dir(), reason="needs ../shared/data/herlev")


def square(image, side=192):
    """The middle of the image."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def oriented(image, orientation):
    return Image.fromarray(np.ascontiguousarray(orient(np.asarray(image), orientation)))


def jpeg(image, quality=85):
    """The image as it comes back from a JPEG file."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return open_rgb(stream.getvalue())


def tilted(image, angle, corners="black"):
    """Turned by any angle on a canvas of its own size; corners `black` or `mirrored`."""
    if corners == "black":
        return image.rotate(angle, Image.Resampling.BILINEAR)
    border = min(image.size) // 2
    wide = np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), "symmetric")
    turned = Image.fromarray(wide).rotate(angle, Image.Resampling.BILINEAR)
    return turned.crop((border, border, border + image.width, border + image.height))


def with_scale_bar(image):
    """A black bar in the lower right, as microscope software draws it."""
    image, (width, height) = image.copy(), image.size
    corners = (0.6 * width, 0.8 * height, 0.85 * width, 0.85 * height)
    ImageDraw.Draw(image).rectangle(corners, fill="black")
    return image


def table_of(images, files=None):
    """What `find_copies` takes, of images by name; `files` are hashes, else all differ."""
    hashes = files or [f"file {number}" for number in range(len(images))]
    rows = zip(images, hashes, map(discs, images.values()), strict=True)
    return pd.DataFrame(rows, columns=["image_id", "sha256", "discs"])


def copies_of(images, files=None):
    return find_copies(table_of(images, files))


def registered(one, other):
    """How `other` is turned against `one`, both square: similarity, angle, mirrored."""
    return Discs([discs(one), discs(other)]).register(np.array([0]), np.array([1])).iloc[0]


def difference(one, other):
    """Mean difference of grey levels within the largest circle."""
    side = one.width
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    within = np.hypot(rows, columns) < 0.9 * side / 2
    grey = [np.asarray(image.convert("L"), float)[within] for image in (one, other)]
    return np.abs(grey[0] - grey[1]).mean()


@pytest.fixture(scope="session")
def pictures(smears, smear):
    """Drawn smears and smooth noise, of different shapes, by name."""
    drawn = {f"smear {number:02}": image for number, image in enumerate(smears)}
    noise = {f"noise {seed:02}": smear(seed, 200, 150) for seed in range(6)}
    return drawn | noise


# --------------------------------------------------------------------- register


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 30, 90, -110, 180])
def test_applying_the_registered_transform_gives_the_other_image(smears, angle, mirrored):
    one = square(smears[5])
    other = tilted(ImageOps.mirror(one) if mirrored else one, angle)
    found = registered(one, other)
    assert found["mirrored"] == mirrored
    again = tilted(ImageOps.mirror(one) if found["mirrored"] else one, found["angle"])
    wrong = tilted(one if found["mirrored"] else ImageOps.mirror(one), found["angle"])
    assert difference(again, other) < 4 < 2 * difference(wrong, other) / 3
    assert difference(again, other) < difference(tilted(again, 5), other) / 2


def test_an_image_registers_with_itself_unrotated_and_with_no_other(smears):
    one, *others = map(square, smears)
    similarity, angle, mirrored = registered(one, one)
    assert (angle, mirrored) == (0, False) and similarity == pytest.approx(1, abs=1e-4)
    assert max(registered(one, other)["similarity"] for other in others) < SAME_PICTURE - 0.1


def test_no_pairs_give_an_empty_table():
    empty = np.empty(0, int)
    found = Discs([]).register(empty, empty)
    assert list(found) == ["similarity", "angle", "mirrored"] and len(found) == 0


def test_a_square_image_has_one_disc_and_any_other_has_two(smears):
    assert len(discs(square(smears[0]))) == DISC
    assert len(discs(smears[0])) == 2 * DISC


# --------------------------------------------------------------- what is found


def joined_rightly(pictures, change):
    """Each picture and its changed copy; all must be joined, and no other pair."""
    images = {name: image for name, image in pictures.items()}
    images |= {f"{name}, copy": change(image) for name, image in pictures.items()}
    found = copies_of(images)
    assert found["family"].tolist() == sorted(pictures)
    assert found["image_id"].tolist() == [f"{name}, copy" for name in sorted(pictures)]
    assert list(found) == COLUMNS
    return found


@pytest.mark.parametrize("orientation", range(len(ORIENTATIONS)))
def test_a_copy_in_any_orientation_is_found(pictures, orientation):
    found = joined_rightly(pictures, lambda image: oriented(image, orientation))
    assert (found["kind"] == "turned").all() and (found["similarity"] > 0.9).all()
    assert (found["mirrored"] == (orientation >= 4)).all()
    turned = (found["angle"].astype(float) - 90 * (orientation % 4) + 180) % 360 - 180
    assert np.abs(turned).max() < 1


def test_a_re_encoded_copy_is_found(pictures):
    found = joined_rightly(pictures, lambda image: jpeg(image, quality=75))
    assert (found["kind"] == "turned").all()


def test_a_resized_copy_is_found(pictures):
    joined_rightly(pictures, lambda image: image.resize((image.width // 2, image.height // 2)))


def test_a_small_copy_with_strong_compression_is_found(smears):
    images = {f"{number:02}": image for number, image in enumerate(smears)}
    joined_rightly(images, lambda image: jpeg(image.resize((128, 96)).rotate(20), quality=30))


@pytest.mark.parametrize("corners", ["black", "mirrored"])
@pytest.mark.parametrize("angle", [10, 20, 45])
def test_a_copy_at_any_angle_is_found_with_any_fill_of_its_corners(pictures, angle, corners):
    found = joined_rightly(pictures, lambda image: jpeg(tilted(image, angle, corners)))
    assert (found["kind"] == "rotated").all() and not found["mirrored"].any()
    assert found["angle"].astype(float).to_numpy() == pytest.approx(angle, abs=2)


def test_a_copy_that_was_stretched_to_a_square_and_then_rotated_is_found(smears):
    """As Keras' image generators do, here by 25 degrees and mirrored."""
    images = {f"{number:02}": image for number, image in enumerate(smears)}
    found = joined_rightly(
        images, lambda image: jpeg(tilted(ImageOps.mirror(image.resize((224, 224))), 25))
    )
    assert found["mirrored"].all()
    assert found["angle"].astype(float).to_numpy() == pytest.approx(25, abs=2)


@pytest.mark.parametrize("angle", [20, 45])
def test_a_copy_that_was_rotated_on_a_larger_canvas_is_found(smears, angle):
    images = {f"{number:02}": image for number, image in enumerate(smears)}
    found = joined_rightly(images, lambda image: jpeg(image.rotate(angle, expand=True)))
    assert found["angle"].astype(float).to_numpy() == pytest.approx(angle, abs=2)


def test_a_copy_with_a_scale_bar_is_found_and_the_bar_joins_no_other_images(smears):
    images = {f"{number:02}": with_scale_bar(image) for number, image in enumerate(smears)}
    assert len(copies_of(images)) == 0
    images |= {f"{number:02}, copy": image for number, image in enumerate(smears)}
    found = copies_of(images)
    assert (found["family"] == found["image_id"].str[:2]).all() and len(found) >= 22


def test_different_images_are_not_joined_as_copies(pictures):
    assert len(copies_of(pictures)) == 0


def test_black_frames_do_not_make_different_images_similar(smears):
    """A round field of view, and the corners of a larger canvas, are the same in all."""
    images = {}
    for number, image in enumerate(smears):
        image = square(image)
        images[f"{number:02} canvas"] = image.rotate(45, expand=True)
        view = Image.new("L", image.size)
        ImageDraw.Draw(view).ellipse((12, 12, image.width - 12, image.height - 12), fill=255)
        images[f"{number:02} view"] = Image.composite(
            ImageOps.mirror(image), Image.new("RGB", image.size), view
        )
    found = copies_of(images)
    assert (found["family"].str[:2] == found["image_id"].str[:2]).all()


# ------------------------------------------------------------------------ families


def test_forty_copies_of_one_image_are_one_family(smears):
    """More copies than the neighbours that are searched, so a family is joined in steps."""
    assert NEIGHBOURS < 40
    one, other = square(smears[0]), square(smears[1])
    images = {f"one {n:02}": jpeg(tilted(one, 9 * n)) for n in range(40)}
    images |= {f"other {n}": jpeg(tilted(other, 100 * n)) for n in range(3)}
    found = copies_of(images)
    assert found["family"].value_counts().to_dict() == {"one 00": 39, "other 0": 2}


def test_blank_images_are_joined_only_if_the_files_are_identical():
    grey = [Image.new("RGB", (64, 48), (level, level, level)) for level in (200, 200, 90, 90)]
    images = dict(zip("abcd", grey, strict=True))
    assert len(copies_of(images)) == 0
    found = copies_of(images, files=["1", "2", "3", "1"])
    assert found[["image_id", "family", "kind"]].to_numpy().tolist() == [["d", "a", "same file"]]


def test_a_faint_pattern_in_common_does_not_join_images():
    """Empty fields, all a little brighter on one side."""
    images = {}
    for level in (90, 150, 210):
        images[f"{level}"] = Image.new("RGB", (64, 64), (level,) * 3)
        images[f"{level}"].paste((level + 1,) * 3, (32, 0, 64, 64))
    assert len(copies_of(images)) == 0


def test_identical_files_are_distinguished_from_turned_copies(smears):
    images = dict(zip("abc", [smears[0], smears[0], oriented(smears[0], 1)], strict=True))
    found = copies_of(images, files=["1", "1", "2"])
    assert dict(found[["image_id", "kind"]].to_numpy()) == {"b": "same file", "c": "turned"}


def test_a_family_is_named_after_its_first_image_in_any_row_order(smears):
    images = {f"{n % 5} {n:02}": tilted(smears[n % 5], 40 * (n // 5)) for n in range(20)}
    table = table_of(images)
    found = find_copies(table)
    assert dict(found["family"].value_counts()) == {f"{n} {n:02}": 3 for n in range(5)}
    for seed in range(3):
        shuffled = table.sample(frac=1, random_state=seed)
        pd.testing.assert_frame_equal(find_copies(shuffled), found)


@pytest.mark.parametrize("count", [1, 2])
def test_without_copies_the_table_is_empty_and_each_image_its_own_family(smears, count):
    table = table_of({f"{n}": smears[n] for n in range(count)})
    found = find_copies(table)
    assert len(found) == 0 and list(found) == COLUMNS
    assert family_of(table["image_id"], found).tolist() == [f"{n}" for n in range(count)]


def test_an_image_without_copies_is_its_own_family():
    found = pd.DataFrame({"image_id": ["c"], "family": ["a"]})
    assert family_of(pd.Series(list("abc")), found).tolist() == ["a", "b", "a"]


@pytest.mark.parametrize(("images", "families", "augmented"), [(30, 20, False), (30, 19, True)])
def test_a_folder_with_a_third_of_copies_looks_augmented(images, families, augmented):
    assert looks_augmented(images, families) is augmented


@pytest.mark.parametrize(
    ("kind", "angle", "mirrored", "words"),
    [
        ("same file", 0.0, False, "the same file"),
        ("turned", 0.2, False, "not turned"),
        ("turned", -90.0, True, "mirrored, turned -90°"),
        ("turned", -180.0, False, "turned 180°"),
        ("turned", 0.0, True, "mirrored"),
        ("rotated", 19.7, False, "turned +20°"),
    ],
)
def test_the_difference_of_a_copy_is_described_in_words(kind, angle, mirrored, words):
    table = pd.DataFrame([(kind, angle, mirrored)], columns=["kind", "angle", "mirrored"])
    assert describe_copy(next(table.itertuples())) == words


# --------------------------------------------------------------------- real images


@needs_herlev
def test_real_cells_are_not_mistaken_for_copies():
    images = {path.name: open_rgb(path) for path in HERLEV.rglob("*.jpeg")}
    assert len(images) == 837 and len(copies_of(images)) == 0


@needs_herlev
def test_a_common_scale_bar_does_not_make_real_cells_copies():
    """Each ring counts, however much the bar stands out on some of them."""
    paths = sorted(HERLEV.rglob("*.jpeg"))[::3]
    assert len(copies_of({path.name: with_scale_bar(open_rgb(path)) for path in paths})) <= 3


@needs_herlev
def test_real_cells_written_in_eight_orientations_are_found_and_never_mixed(tmp_path):
    names = sorted(HERLEV.rglob("*.jpeg"))
    for path in names[:: len(names) // 60][:60]:
        place = tmp_path / path.parent.name
        place.mkdir(exist_ok=True)
        for number in range(8):
            turned = oriented(open_rgb(path), number)
            turned.save(place / f"{path.stem}~{number}.jpg", quality=90)
    readable, _ = inspect_images(folder(tmp_path), tmp_path / "cache")
    assert len(readable) == 480
    original = readable["image_id"].str.split("~").str[0]
    family = family_of(readable["image_id"], find_copies(readable))
    of_first = family[readable["image_id"].str.contains("~0")]
    copied = ~readable["image_id"].str.contains("~0")
    expected = original.map(dict(zip(original[of_first.index], of_first, strict=True)))
    assert (family == expected)[copied].mean() >= 0.99
    assert original.groupby(family).nunique().max() == 1
