"""Files that are images are read upright in RGB; the others say why not."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cytology.augmentation import ORIENTATIONS, orient
from cytology.quality import UnreadableImage, inspect_image, open_rgb, perceptual_hash


def encoded(image, kind, **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_a_plain_image_comes_back_pixel_by_pixel(smear):
    image = smear(1)
    opened = open_rgb(encoded(image, "PNG"))
    assert opened.mode == "RGB" and np.array_equal(opened, image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_usual_formats_are_read(smear, kind, mode):
    opened = open_rgb(encoded(smear(1).convert(mode), kind))
    expected = np.asarray(smear(1).convert(mode).convert("RGB"), float)
    assert opened.mode == "RGB" and opened.size == (64, 48)
    assert np.abs(np.asarray(opened, float) - expected).mean() < 8


def test_cmyk_becomes_rgb(smear):
    opened = open_rgb(encoded(smear(1).convert("CMYK"), "JPEG", quality=95))
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened, float) - np.asarray(smear(1), float)).mean() < 4


def test_sixteen_bit_greys_are_scaled_by_their_own_range():
    grey = np.linspace(1000, 5000, 48 * 64).reshape(48, 64).astype(np.uint16)
    opened = np.asarray(open_rgb(encoded(Image.fromarray(grey), "TIFF")))
    assert opened.shape == (48, 64, 3)
    assert (opened[0, 0] == 0).all() and (opened[-1, -1] == 255).all()
    assert abs(opened[24, 0, 0].astype(int) - 127) <= 2


def test_transparent_pixels_become_white(smear):
    image = smear(1).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 48))
    opened = np.asarray(open_rgb(encoded(image, "PNG")))
    assert (opened[:, :32] == 255).all()
    assert np.array_equal(opened[:, 32:], np.asarray(smear(1))[:, 32:])


def test_the_cameras_orientation_mark_is_applied(smear):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    opened = open_rgb(encoded(smear(1), "PNG", exif=exif))
    assert np.array_equal(opened, np.rot90(np.asarray(smear(1)), -1))


def broken_files(image):
    jpeg, png = encoded(image, "JPEG"), bytearray(encoded(image, "PNG"))
    png[60] ^= 255
    return {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "damaged: "),
        "chunk.png": (bytes(png), "damaged: "),
        "text.png": (b"This is no picture.", "not an image"),
        "empty.png": (b"", "empty file"),
    }


@pytest.mark.parametrize("name", ["truncated.jpg", "chunk.png", "text.png", "empty.png"])
def test_a_broken_file_has_a_reason(tmp_path, smear, name):
    content, reason = broken_files(smear(1))[name]
    (tmp_path / name).write_bytes(content)
    found = inspect_image(tmp_path / name)
    assert list(found) == ["reason"] and found["reason"].startswith(reason)


def test_a_file_that_is_gone_has_a_reason(tmp_path):
    assert inspect_image(tmp_path / "gone.png") == {
        "reason": "cannot be read: No such file or directory"
    }


def test_too_many_pixels_are_refused_before_they_fill_the_memory(smear, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="more pixels"):
        open_rgb(encoded(smear(1), "PNG"))


def test_damaged_bytes_never_raise_anything_else(smear):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "BMP"):
        whole = np.frombuffer(encoded(smear(1), kind), np.uint8)
        for _ in range(100):
            damaged = whole[: rng.integers(1, len(whole))].copy()
            damaged[rng.integers(len(damaged), size=3)] = rng.integers(256, size=3)
            try:
                open_rgb(damaged.tobytes())
            except UnreadableImage as error:
                assert str(error)


def test_what_a_manifest_needs_to_know(tmp_path):
    Image.new("RGB", (60, 40), (200, 100, 50)).save(tmp_path / "a.png")
    found = inspect_image(tmp_path / "a.png")
    assert (found["width"], found["height"]) == (60, 40)
    assert (found["red"], found["green"], found["blue"]) == (200, 100, 50)
    assert found["brightness"] == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert len(found["sha256"]) == 64 and len(found["phash"]) == 16


@pytest.mark.parametrize("size", [(64, 48), (61, 47), (200, 200)])
def test_the_perceptual_hash_is_the_same_for_all_orientations(smear, size):
    pixels = np.asarray(smear(5, *size))
    hashes = {perceptual_hash(Image.fromarray(orient(pixels, o))) for o in range(len(ORIENTATIONS))}
    assert len(hashes) == 1


def test_the_perceptual_hash_survives_jpeg_and_size_but_tells_images_apart(smear):
    image = smear(5, 256, 192)
    again = open_rgb(encoded(image.resize((128, 96)), "JPEG", quality=95))
    distance = bin(int(perceptual_hash(image), 16) ^ int(perceptual_hash(again), 16)).count("1")
    assert distance <= 6
    assert len({perceptual_hash(smear(seed)) for seed in range(50)}) == 50
