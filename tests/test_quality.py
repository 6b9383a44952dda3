"""Files that are images are read upright in RGB; the others say why not; poor pictures are told."""

import os
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cytology import quality
from cytology.augmentation import ORIENTATIONS, orient
from cytology.copies import discs, find_copies
from cytology.folders import folder
from cytology.inspection import findings, inspect_images
from cytology.quality import (
    UnreadableImage,
    how_converted,
    inspect_image,
    measure,
    open_rgb,
    perceptual_hash,
    poor_picture,
)


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
        "text.png": (b"This is no picture.", "not a JPEG, PNG, BMP or TIFF image"),
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
    monkeypatch.setattr(quality, "MOST_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="3,072 pixels: at most 1,000 are read"):
        open_rgb(encoded(smear(1), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own error says it as well
    with pytest.raises(UnreadableImage, match="3,072 pixels: at most 1,000 are read"):
        open_rgb(encoded(smear(1), "PNG"))


def test_few_bytes_that_promise_many_pixels_are_refused(smear, monkeypatch):
    monkeypatch.setattr(quality, "FEW_PIXELS", 100)
    monkeypatch.setattr(quality, "PIXELS_A_BYTE", 0.01)
    with pytest.raises(UnreadableImage, match="bytes cannot hold 3,072 pixels"):
        open_rgb(encoded(smear(1), "PNG"))


def test_another_format_never_reaches_its_reader(tmp_path, monkeypatch):
    """Pillow would start Ghostscript for this one, whatever the file is called."""
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "smear.jpg").write_bytes(page)
    assert Image.open(tmp_path / "smear.jpg").format == "EPS"
    found = quality.inspect_image(tmp_path / "smear.jpg")
    assert found == {"reason": "not a JPEG, PNG, BMP or TIFF image"}


def test_a_telephones_two_pictures_in_one_jpeg_are_read(smear, tmp_path):
    smear(1).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[smear(2)])
    found = quality.inspect_image(tmp_path / "a.jpg")
    assert found["converted"] == "2 frames: only the first is used" and found["width"] == 64


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
    assert found["converted"] == "" and found["discs"] == discs(open_rgb(tmp_path / "a.png"))
    assert (found["contrast"], found["overexposed"]) == (0, 0)


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


# ----------------------------------------------------------- ten kinds of damage


def huge_header():
    """A PNG of 20,000 x 20,000 pixels, none of which is in the file."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animated_gif(image):
    frames = [image.rotate(30 * number) for number in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_ten_kinds_of_damaged_input_stop_nothing_and_each_has_its_reason(
    tmp_path, smear, smear_folder, monkeypatch
):
    root = smear_folder(tmp_path / "data", patients=4)
    jpeg = encoded(smear(900), "JPEG")
    grey = np.arange(48 * 64).reshape(48, 64).astype(np.uint16) % 4000
    contents = {
        "B/truncated.jpg": jpeg[: len(jpeg) // 2],
        "B/text.png": b"This is no picture.",
        "B/zero.jpg": b"",
        "B/cmyk.jpg": encoded(smear(901).convert("CMYK"), "JPEG"),
        "B/sixteen.tif": encoded(Image.fromarray(grey), "TIFF"),
        "M/animated.gif": animated_gif(smear(902)),
        "M/animated_in_disguise.png": animated_gif(smear(903)),
        "M/huge.png": huge_header(),
        "M/forbidden.png": encoded(smear(904), "PNG"),
    }
    for name, content in contents.items():
        (root / name).write_bytes(content)
    (root / "B" / "loop").symlink_to(root, target_is_directory=True)
    (root / "M" / "round.png").symlink_to(root / "M" / "round.png")
    (root / "M" / "x.png").mkdir()
    forbid(root / "M" / "forbidden.png", monkeypatch)

    readable, rejected = inspect_images(folder(root), tmp_path / "cache")
    found = findings(readable, rejected, find_copies(readable))
    reasons = rejected.set_index("image_id")["reason"]
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "B/truncated.jpg": "damaged",
        "B/text.png": "not a JPEG, PNG, BMP or TIFF image",
        "B/zero.jpg": "empty file",
        "M/animated.gif": ".gif files are not read",
        "M/animated_in_disguise.png": "not a JPEG, PNG, BMP or TIFF image",
        "M/huge.png": "400,000,000 pixels",
        "M/forbidden.png": "cannot be read",
        "B/loop": "a link to a folder that was read already",
        "M/round.png": "cannot be read",
        "M/x.png": "a folder that is named like an image",
    }
    assert reasons["M/forbidden.png"] == "cannot be read: Permission denied"
    assert "symbolic links" in reasons["M/round.png"]
    by_finding = {name: rows.set_index("image_id") for name, rows in found.groupby("finding")}
    assert by_finding["unusable"]["detail"].to_dict() == reasons.to_dict()
    assert by_finding["converted"]["detail"].to_dict() == {
        "B/cmyk.jpg": "CMYK: converted to RGB",
        "B/sixteen.tif": "16- or 32-bit grey: scaled by its own range",
    }
    good = {path.relative_to(root).as_posix() for path in root.glob("*/p0*.png")}
    assert len(good) == 8 and set(readable["image_id"]) == good | set(by_finding["converted"].index)


def forbid(path, monkeypatch):
    """Take the right to read a file away, from root too."""
    if os.geteuid() != 0:
        path.chmod(0)
        return
    for name in ("read_bytes", "open"):
        allowed = getattr(Path, name)

        def guarded(self, *arguments, allowed=allowed, **options):
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return allowed(self, *arguments, **options)

        monkeypatch.setattr(Path, name, guarded)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("RGB", ""),
        ("L", ""),
        ("P", ""),
        ("RGBA", "transparent: laid on white"),
        ("CMYK", "CMYK: converted to RGB"),
        ("I;16", "16- or 32-bit grey: scaled by its own range"),
        ("F", "16- or 32-bit grey: scaled by its own range"),
    ],
)
def test_what_had_to_be_converted_is_said(smear, mode, words):
    image = Image.new("I;16", (8, 8), 300) if mode == "I;16" else smear(1).convert(mode)
    assert how_converted(encoded(image, "PNG" if mode in ("P", "RGBA") else "TIFF")) == words


# ----------------------------------------------------------------- poor pictures


def verdict(image):
    return poor_picture(**measure(image))


def over_exposed(image):
    return image.point(lambda level: min(255, 5 * level))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_good_pictures_are_not_called_poor(smears, format):
    assert {verdict(open_rgb(encoded(image, format))) for image in smears} == {""}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda image: Image.new("RGB", image.size, image.getpixel((0, 0))), "blank"),
        (lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 50)), "blurred"),
        (over_exposed, "over-exposed"),
    ],
    ids=["blank", "blurred", "over-exposed"],
)
@pytest.mark.parametrize("size", [(256, 192), (768, 576)])
def test_poor_pictures_are_called_what_they_are(smears, change, word, size):
    assert {verdict(change(image.resize(size))) for image in smears} == {word}


def test_a_pale_stain_does_not_pass_for_blur(smears):
    pale = [image.point(lambda level: 200 + level // 5) for image in smears]
    assert {verdict(image) for image in pale} == {""}


def test_a_white_field_is_over_exposed_and_a_saturated_colour_is_not():
    assert verdict(Image.new("RGB", (60, 40), "white")) == "over-exposed"
    assert verdict(Image.new("RGB", (60, 40), (255, 255, 200))) == "blank"
