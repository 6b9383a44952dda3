"""Image files are read upright in RGB, with a note of conversions; others give the reason."""

import struct
import warnings
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytology.data.images import kinds
from cytology.data.images.opening import UnreadableImage, open_rgb, read_image, warnings_of_pillow
from cytology.data.quality import inspect_image


def encoded(image, kind, **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_usual_formats_are_read(smear, kind, mode):
    opened = open_rgb(encoded(smear(1).convert(mode), kind))
    expected = np.asarray(smear(1).convert(mode).convert("RGB"), float)
    assert opened.mode == "RGB" and opened.size == (64, 48)
    difference = np.abs(np.asarray(opened, float) - expected).mean()
    assert difference < 8 if kind == "JPEG" else difference == 0


def test_cmyk_becomes_rgb(smear):
    opened = open_rgb(encoded(smear(1).convert("CMYK"), "JPEG", quality=95))
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened, float) - np.asarray(smear(1), float)).mean() < 4


def test_transparent_pixels_become_white(smear):
    image = smear(1).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 48))
    opened = np.asarray(open_rgb(encoded(image, "PNG")))
    assert (opened[:, :32] == 255).all()
    assert np.array_equal(opened[:, 32:], np.asarray(smear(1))[:, 32:])


def test_the_exif_orientation_is_applied(smear):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    opened = open_rgb(encoded(smear(1), "PNG", exif=exif))
    assert np.array_equal(opened, np.rot90(np.asarray(smear(1)), -1))


def test_a_png_with_a_changed_byte_is_damaged(smear):
    png = bytearray(encoded(smear(1), "PNG"))
    png[60] ^= 255
    with pytest.raises(UnreadableImage, match="^damaged: "):
        open_rgb(bytes(png))


def test_a_missing_file_has_a_reason(tmp_path):
    assert inspect_image(tmp_path / "gone.png") == {
        "reason": "cannot be read: No such file or directory"
    }


def test_too_many_pixels_are_refused_before_decoding(smear, monkeypatch):
    monkeypatch.setattr(kinds, "MOST_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="3,072 pixels: the limit is 1,000"):
        open_rgb(encoded(smear(1), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own error has the same text
    with pytest.raises(UnreadableImage, match="3,072 pixels: the limit is 1,000"):
        open_rgb(encoded(smear(1), "PNG"))


def test_a_small_file_that_claims_many_pixels_is_refused(smear, monkeypatch):
    monkeypatch.setattr(kinds, "FEW_PIXELS", 100)
    monkeypatch.setattr(kinds, "PIXELS_A_BYTE", 0.01)
    with pytest.raises(UnreadableImage, match="bytes cannot hold 3,072 pixels"):
        open_rgb(encoded(smear(1), "PNG"))


def test_other_formats_never_reach_their_decoder(tmp_path, monkeypatch):
    """Pillow would start Ghostscript for this one, whatever the name of the file."""
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "smear.jpg").write_bytes(page)
    assert Image.open(tmp_path / "smear.jpg").format == "EPS"
    found = inspect_image(tmp_path / "smear.jpg")
    assert found == {"reason": "not a JPEG, PNG, BMP or TIFF image"}


def test_a_phone_jpeg_with_two_pictures_is_read(smear, tmp_path):
    smear(1).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[smear(2)])
    found = inspect_image(tmp_path / "a.jpg")
    assert found["converted"] == "2 frames: only the first is used" and found["width"] == 64


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("RGB", ""),
        ("L", ""),
        ("P", ""),
        ("RGBA", "transparent: placed on white"),
        ("CMYK", "CMYK: converted to RGB"),
        ("I;16", "16-bit grey: scaled by its own depth, 0 to 1,023"),
        ("F", "32-bit float grey: scaled by its own depth, 0 to 255"),
    ],
)
def test_conversions_are_reported(smear, mode, words):
    image = Image.new("I;16", (8, 8), 300) if mode == "I;16" else smear(1).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    assert read_image(encoded(image, "PNG" if mode in ("P", "RGBA") else "TIFF"))[1] == words


@pytest.mark.parametrize("suffix", ["", ".jfif", ".dat"])
def test_the_name_of_a_file_is_ignored(smear, tmp_path, suffix):
    smear(1).save(tmp_path / f"P01{suffix}", "JPEG")
    assert inspect_image(tmp_path / f"P01{suffix}")["width"] == 64


def test_an_unsupported_jpeg_is_not_called_another_format(smear):
    content = bytearray(encoded(smear(1), "JPEG"))
    content[content.index(b"\xff\xc0") + 4] = 12  # bits per channel
    with pytest.raises(UnreadableImage, match="damaged, or of a rare type"):
        open_rgb(bytes(content))


# ------------------------------------------------------------------------- alpha


def bmp_of_32_bits(pixels):
    """A bitmap with a mask for alpha, from the bottom up, as Windows programs write it."""
    height, width = pixels.shape[:2]
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    start = struct.pack("<2sIHHI", b"BM", 122 + len(body), 0, 0, 122)
    return start + header.ljust(108, b"\0") + body


def with_alpha(image, alpha):
    """RGBA pixels of shape (height, width, 4)."""
    colours = np.asarray(image)
    return np.dstack([colours, np.broadcast_to(np.uint8(alpha), colours.shape[:2])])


@pytest.mark.parametrize(
    ("alpha", "told"), [(0, "alpha is 0 everywhere: ignored"), (255, "")], ids=["none", "opaque"]
)
def test_a_constant_alpha_channel_is_ignored(smear, alpha, told):
    pixels = with_alpha(smear(1), alpha)
    grey = smear(1).convert("L")
    grey.putalpha(alpha)
    for content, expected in (
        (bmp_of_32_bits(pixels), smear(1)),
        (encoded(Image.fromarray(pixels), "PNG"), smear(1)),
        (encoded(Image.fromarray(pixels), "TIFF"), smear(1)),
        (encoded(grey, "PNG"), grey.convert("RGB")),
    ):
        image, converted = read_image(content)
        assert np.array_equal(image, expected) and converted == told


def test_the_colour_that_marks_transparency_becomes_white(smear):
    pixels = np.array(smear(1))
    pixels[pixels.sum(axis=-1) == 765] = 254
    assert read_image(encoded(Image.fromarray(pixels), "PNG", transparency=(255,) * 3))[1] == ""
    pixels[:8] = 9
    image, told = read_image(encoded(Image.fromarray(pixels), "PNG", transparency=(9, 9, 9)))
    assert (np.asarray(image)[:8] == 255).all() and told == "transparent: placed on white"


# -------------------------------------------------------------------------- EXIF


def exif_block():
    block = Image.Exif()
    block[274], block[271] = 6, "maker"
    block.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return block.tobytes()


DAMAGED = {
    "cut": exif_block()[:20],
    "cut late": exif_block()[:-4],
    "another": b"Exif\0\0" + bytes(range(40)),
    "count": exif_block()[:14] + b"\xff\x7f" + exif_block()[16:],
    "offset": exif_block()[:10] + b"\xff\xff\xff\x7f" + exif_block()[14:],
}
TOLD = "damaged EXIF block: its orientation mark may be lost"


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_exif_block_is_reported_once_with_the_image(smear, form, how):
    content = encoded(smear(1), form, exif=DAMAGED[how])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, told = read_image(content)
    assert told == TOLD and sorted(image.size) == [48, 64]


def test_the_damaged_exif_block_of_a_tiff_is_reported_too(smear):
    stream = BytesIO()
    beyond_the_end = (65000, "I", 1, 100_000, True)
    tifffile.imwrite(
        stream, np.asarray(smear(1)), extratags=[beyond_the_end, (274, "H", 1, 6, True)]
    )
    content = stream.getvalue().replace(struct.pack("<HHI", 65000, 4, 1), b"\x69\x87\4\0\1\0\0\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, told = read_image(content)
    assert told == TOLD and np.array_equal(image, np.rot90(np.asarray(smear(1)), -1))


def test_python_warnings_are_captured_by_one_thread_at_a_time(smear):
    content, before = encoded(smear(1), "JPEG", exif=DAMAGED["cut"]), list(warnings.filters)
    with ThreadPoolExecutor(1) as pool:
        with warnings_of_pillow():
            other = pool.submit(read_image, content)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.2)
        assert other.result(timeout=60)[1] == TOLD
    assert warnings.filters == before
