"""Pictures with more than 8 bits look as they would in 8, and the conversion is reported."""

import struct
import tracemalloc
import zlib
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from cytology.data.images import deep
from cytology.data.images.deep import TURNS, eight_bits, full_scale, short_number, turn_upright
from cytology.data.images.kinds import UnreadableImage
from cytology.data.images.opening import read_image
from cytology.data.quality import measure, poor_picture

WHITE = {10: 1023, 12: 4095, 14: 16383, 16: 65535}


def pixels(image, bits=16):
    """An 8-bit image as one of `bits`, in 16."""
    return np.rint(np.asarray(image) * (WHITE[bits] / 255)).astype(np.uint16)


def difference(image, expected):
    """The largest difference in grey levels."""
    return np.abs(np.asarray(image, int) - np.asarray(expected, int)).max()


# ------------------------------------------------------------------------- scaling


@pytest.mark.parametrize("bits", WHITE)
def test_camera_bit_depths_look_like_8_bits(smear, bits):
    image, told = eight_bits(pixels(smear(1), bits), 16, False)
    assert difference(image, smear(1)) <= 1
    assert told == [f"16-bit colour: scaled by its own depth, 0 to {WHITE[bits]:,}"]


@pytest.mark.parametrize("white", [1, 255, 4095])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_look_like_8_bits(smear, white, dtype):
    values = (np.asarray(smear(1)) * (white / 255)).astype(dtype)
    assert difference(eight_bits(values, 32, False)[0], smear(1)) <= 1


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_integers_of_full_range_look_like_8_bits(smear, dtype):
    most = np.iinfo(dtype).max
    values = np.rint(np.asarray(smear(1)) * (most / 255)).astype(dtype)
    assert difference(eight_bits(values, 32, False)[0], smear(1)) <= 1


def stretched(image, low, high):
    """The values of an 8-bit image, from `low` to `high`."""
    values = np.asarray(image, float)
    return low + (values - values.min()) / np.ptp(values) * (high - low)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (1000, 5000, np.uint16),
        (0, 0.1, np.float32),
        (-20_000, 9000, np.int16),
        (1e5, 3e5, np.float64),
        (1e5, 3e5, np.uint32),
        (-128, 127, np.int8),
    ],
)
def test_stretching_a_narrow_range_keeps_the_colour_balance(smear, low, high, dtype):
    values = stretched(smear(1), low, high)
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values)
    image, told = eight_bits(values.astype(dtype), 16, False)
    # The outermost thousandths are cut off.
    inner = [np.percentile(values, share) for share in (0.1, 99.9)]
    expected = (values - inner[0]) / (inner[1] - inner[0]) * 255
    assert difference(image, expected.clip(0, 255)) <= 1
    assert told[0].endswith(
        f"scaled by its own range, {short_number(inner[0])} to {short_number(inner[1])}"
    )


@pytest.mark.parametrize("place", [(5, 5, 0), (20, 30, 2)])
def test_hot_pixels_do_not_darken_the_picture(smear, place):
    values = pixels(smear(1), 12)
    values[place] = 65535
    image, _ = eight_bits(values, 16, False)
    expected = np.array(smear(1))
    expected[place] = 255
    assert difference(image, expected) <= 1


@pytest.mark.parametrize("level", [0, 1, 300, 3000, 60_000])
@pytest.mark.parametrize("noise", [0, 0.005])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_blank_field_stays_blank(level, noise, dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(level, noise * level, (48, 64, 3)).round().clip(0, 65535).astype(dtype)
    image, told = eight_bits(values, 16, False)
    contrast, sharpness, overexposed = measure(image.convert("RGB")).values()
    assert poor_picture(contrast, sharpness, overexposed) in ("blank", "over-exposed")
    assert "depth" in told[0]


def test_negative_values_are_scaled_too():
    assert not np.ptp(np.asarray(eight_bits(np.full((4, 4, 1), -300, np.int16), 16, False)[0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_refused(value):
    values = np.full((9, 9, 1), 3, np.float32)
    values[4, 4] = value
    with pytest.raises(UnreadableImage, match="damaged: some pixels are not numbers"):
        eight_bits(values, 32, False)


def test_the_scale_of_a_value_is_the_smallest_depth_that_holds_it():
    whole, single = np.dtype(np.uint16), np.dtype(np.float32)
    assert [full_scale(v, whole) for v in (0, 255, 1000, 1100, 4095, 4200, 65535)] == [
        *(255, 255, 1023, 4095, 4095, 16383, 65535)
    ]
    assert [full_scale(v, single) for v in (0, 0.1, 1.005, 2, 7e4)] == [1, 1, 1, 255, np.inf]
    assert full_scale(100, np.dtype(np.int8)) == 127


def test_large_pictures_are_scaled_in_blocks(monkeypatch, smear):
    monkeypatch.setattr("cytology.data.images.deep._BLOCK", 100)
    monkeypatch.setattr("cytology.data.images.deep.SAMPLE", 500)
    assert difference(eight_bits(pixels(smear(1), 12), 16, False)[0], smear(1)) <= 1


# ----------------------------------------------------------------------------- PNG


def png(values):
    return imagecodecs.png_encode(np.ascontiguousarray(values.squeeze()))


@pytest.mark.parametrize("bits", WHITE)
def test_a_png_of_16_bits_keeps_its_colours(smear, bits):
    image, told = read_image(png(pixels(smear(1), bits)))
    assert image.mode == "RGB" and difference(image, smear(1)) <= 1
    assert told == f"16-bit colour: scaled by its own depth, 0 to {WHITE[bits]:,}"


def test_a_grey_16_bit_png_is_read(smear):
    grey = smear(1).convert("L")
    image, told = read_image(png(pixels(grey, 12)))
    assert difference(image, grey.convert("RGB")) <= 1 and told.startswith("16-bit grey: scaled")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("alpha", "told"),
    [
        (0, "; alpha is 0 everywhere: ignored"),
        (65535, ""),
        (None, "; transparent: placed on white"),
    ],
)
def test_a_16_bit_alpha_channel_is_applied(smear, mode, alpha, told):
    plain = smear(1).convert(mode)
    values = np.full((48, 64), 65535 if alpha is None else alpha, np.uint16)
    values[:, :20] = 0 if alpha is None else alpha
    image, said = read_image(png(np.dstack([pixels(plain, 12), values])))
    expected = np.array(plain.convert("RGB"))
    if alpha is None:
        expected[:, :20] = 255
    assert difference(image, expected) <= 1
    what = "grey" if mode == "L" else "colour"
    assert said == f"16-bit {what}: scaled by its own depth, 0 to 4,095{told}"


def test_transparent_pixels_do_not_set_the_range(smear):
    values = np.dstack([pixels(smear(1), 12), np.full((48, 64), 65535, np.uint16)])
    values[:, :20] = (65535, 65535, 65535, 0)
    image, _ = read_image(png(values))
    assert difference(np.asarray(image)[:, 20:], np.asarray(smear(1))[:, 20:]) <= 1


def test_a_16_bit_png_is_rotated_by_its_exif_orientation(smear):
    exif = Image.Exif()
    exif[274] = 6
    content, block = png(pixels(smear(1))), exif.tobytes()[6:]
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    image, _ = read_image(content[:33] + chunk + content[33:])
    assert np.array_equal(image, np.rot90(np.asarray(smear(1)), -1))


def test_a_truncated_16_bit_png_is_refused(smear):
    content = png(pixels(smear(1)))
    with pytest.raises(UnreadableImage, match="damaged: "):
        read_image(content[: len(content) // 2])


@pytest.mark.parametrize("orientation", [None, 1, *TURNS, 99])
def test_images_are_rotated_like_in_pillow(smear, orientation):
    exif, stream = Image.Exif(), BytesIO()
    if orientation:
        exif[274] = orientation
    smear(1).save(stream, "TIFF", exif=exif)
    assert np.array_equal(turn_upright(smear(1), orientation), read_image(stream.getvalue())[0])


def test_scaling_a_picture_takes_less_memory_than_the_picture(monkeypatch):
    """In blocks: a picture of 89 million pixels must not become one of as many float64."""
    monkeypatch.setattr(deep, "_BLOCK", 10_000)
    monkeypatch.setattr(deep, "SAMPLE", 10_000)
    pixels = np.full((3000, 3000, 1), 40_000, np.uint16)
    tracemalloc.start()
    try:
        deep.eight_bits(pixels, 16, has_alpha=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < pixels.nbytes
