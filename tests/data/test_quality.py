"""The measurements of a file; poor pictures are reported; damaged input stops nothing."""

import os
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cytology.data.copies import discs, find_copies
from cytology.data.images.opening import open_rgb
from cytology.data.inspection import findings, inspect_images
from cytology.data.quality import MOST_COLOURS, count_colours, inspect_image, measure, poor_picture
from cytology.data.sources.listing import folder


def encoded(image, kind, **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_all_measurements_of_the_manifest_are_taken(tmp_path):
    Image.new("RGB", (60, 40), (200, 100, 50)).save(tmp_path / "a.png")
    found = inspect_image(tmp_path / "a.png")
    assert (found["width"], found["height"]) == (60, 40)
    assert (found["red"], found["green"], found["blue"]) == (200, 100, 50)
    assert found["brightness"] == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert len(found["sha256"]) == 64
    assert found["converted"] == "" and found["discs"] == discs(open_rgb(tmp_path / "a.png"))
    assert (found["contrast"], found["overexposed"], found["colours"]) == (0, 0, 1)


def test_colours_are_counted_up_to_the_limit_for_a_mask(smear):
    few = smear(1).quantize(5, dither=Image.Dither.NONE).convert("RGB")
    assert count_colours(few) == len(few.getcolors()) == 5
    levels = np.arange(300, dtype=np.uint16).reshape(30, 10)
    pixels = np.dstack([levels % 256, levels // 256, levels * 0]).astype(np.uint8)
    assert count_colours(Image.fromarray(pixels[:25])) == 250
    assert count_colours(Image.fromarray(pixels)) == count_colours(smear(1)) == MOST_COLOURS


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
def test_ten_kinds_of_damaged_input_are_rejected_each_with_a_reason(
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
    remove_read_permission(root / "M" / "forbidden.png", monkeypatch)

    readable, rejected = inspect_images(folder(root), tmp_path / "cache")
    found = findings(readable, rejected, find_copies(readable))
    reasons = rejected.set_index("image_id")["reason"]
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "B/truncated.jpg": "damaged",
        "B/text.png": "not a JPEG, PNG, BMP or TIFF image",
        "B/zero.jpg": "empty file",
        "M/animated.gif": "a GIF image",
        "M/animated_in_disguise.png": "a GIF image",
        "M/huge.png": "400,000,000 pixels",
        "M/forbidden.png": "cannot be read",
        "B/loop": "a link to a folder that was already read",
        "M/round.png": "cannot be read",
        "M/x.png": "a folder that is named like an image",
    }
    assert reasons["M/forbidden.png"] == "cannot be read: Permission denied"
    assert "symbolic links" in reasons["M/round.png"]
    by_finding = {name: rows.set_index("image_id") for name, rows in found.groupby("finding")}
    assert by_finding["unusable"]["detail"].to_dict() == reasons.to_dict()
    assert by_finding["converted"]["detail"].to_dict() == {
        "B/cmyk.jpg": "CMYK: converted to RGB",
        "B/sixteen.tif": "16-bit grey: scaled by its own depth, 0 to 4,095",
    }
    good = {path.relative_to(root).as_posix() for path in root.glob("*/p0*.png")}
    assert len(good) == 8 and set(readable["image_id"]) == good | set(by_finding["converted"].index)


def remove_read_permission(path, monkeypatch):
    """Remove the permission to read a file, even for root."""
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
def test_poor_pictures_are_described_correctly(smears, change, word, size):
    assert {verdict(change(image.resize(size))) for image in smears} == {word}


def test_a_pale_stain_is_not_called_blurred(smears):
    pale = [image.point(lambda level: 200 + level // 5) for image in smears]
    assert {verdict(image) for image in pale} == {""}


def test_a_white_field_is_over_exposed_and_a_saturated_colour_is_not():
    assert verdict(Image.new("RGB", (60, 40), "white")) == "over-exposed"
    assert verdict(Image.new("RGB", (60, 40), (255, 255, 200))) == "blank"
