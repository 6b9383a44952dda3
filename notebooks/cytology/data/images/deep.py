"""Converts pictures with more than 8 bits per channel, or floats, to 8 bits.

Pillow keeps the upper 8 of 16 bits, which leaves only 16 dark levels of a 12-bit camera.
"""

import math
from typing import Literal

import imagecodecs
import numpy as np
from PIL import Image

from cytology.data.images.kinds import UnreadableImage

SAMPLE = 1_000_000  # pixels from which the range is found
PERCENTILES = (0.1, 99.9)  # of the pixels: single hot or dead ones do not set the range
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras
FLAT = 1 / 16  # a range below this share of the highest value is a blank field and its noise
OVERSHOOT = 1.01  # floats that were sharpened or resized exceed white a little
_BLOCK = 1_000_000  # pixels scaled at once, in float64


def read_png(content: bytes) -> tuple[Image.Image, list[str]]:
    """A PNG of 16 bits, returned as by `read_tiff`, but without applying its orientation."""
    pixels = imagecodecs.png_decode(content)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return eight_bits(pixels, 16, has_alpha=pixels.shape[2] in (2, 4))


def eight_bits(
    pixels: np.ndarray,
    bits: int,
    has_alpha: bool,
    premultiplied: bool = False,
    inverted: bool = False,
) -> tuple[Image.Image, list[str]]:
    """Pixels of shape (height, width, 1 to 4) as an 8-bit picture, and how they were scaled.

    All channels except alpha are scaled by one range, so the colour balance is kept.
    """
    height, width, channels = pixels.shape
    notes: list[str] = []
    low, high = 0.0, 255.0
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UnreadableImage("damaged: some pixels are not numbers")
    opaque = full_scale(float(pixels[..., -1].max()), pixels.dtype) if has_alpha else 0
    if pixels.dtype != np.uint8:
        # Premultiplied colours have the scale of their alpha.
        low, high, how = (0, opaque, "depth") if premultiplied else window(pixels, has_alpha)
        kind = "float " if pixels.dtype.kind == "f" else ""
        what = "colour" if channels > 2 else "grey"
        notes.append(
            f"{bits}-bit {kind}{what}: scaled by its own {how}, "
            f"{short_number(low)} to {short_number(high)}"
        )
    result = np.empty(pixels.shape, np.uint8)
    colours = channels - has_alpha
    scale(pixels[..., :colours], low, high, result[..., :colours])
    if inverted:
        np.subtract(255, result[..., :colours], out=result[..., :colours])
    if has_alpha:
        scale(pixels[..., -1:], 0, opaque, result[..., -1:])
    mode = ("L" if channels < 3 else "RGB") + ("" if not has_alpha else "Aa"[premultiplied])
    # Without a copy if Pillow stores pixels in the same way.
    return Image.frombuffer(mode, (width, height), result, "raw", mode, 0, 1), notes


def short_number(value: float) -> str:
    """The value of a pixel as text with few digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def window(pixels: np.ndarray, has_alpha: bool) -> tuple[float, float, Literal["range", "depth"]]:
    """The values that become black and white, and where they come from.

    A picture that reaches into the upper half of a camera's depth (10, 12, 14, 16 bits), as the
    bright background of a smear does, is scaled by that depth and looks as it would in 8 bits.
    Any other is stretched to its own range, except a blank field, whose noise would fill it.
    """
    step = max(1, pixels.shape[0] * pixels.shape[1] // SAMPLE)
    sample = pixels.reshape(-1, pixels.shape[2])[::step]
    if has_alpha:
        seen = sample[sample[:, -1] > 0, :-1]
        sample = seen if len(seen) else sample[:, :-1]
    low, high = np.percentile(sample.astype(np.float64), PERCENTILES).tolist()
    full = full_scale(high, pixels.dtype)
    bright = low >= 0 and high >= full / 2
    flat = high - low <= FLAT * max(abs(low), abs(high))
    if bright or flat:
        return min(low, 0), full if full < math.inf else high, "depth"
    return low, high, "range"


def full_scale(highest: float, dtype: np.dtype) -> float:
    """White of the smallest depth that contains `highest`: 1 for floats, or 255, 1023 ... 65535.

    Above these it is the largest integer, or infinity for floats, which have no depth.
    """
    most = math.inf if dtype.kind == "f" else np.iinfo(dtype).max
    whites = [1.0] * (dtype.kind == "f") + [2**bits - 1 for bits in DEPTHS]
    return min(next((w for w in whites if highest <= OVERSHOOT * w), most), most)


def scale(pixels: np.ndarray, low: float, high: float, result: np.ndarray) -> None:
    """Write `pixels` into `result` (uint8) so that `low` becomes 0 and `high` 255."""
    rows = max(1, _BLOCK // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        block = pixels[top : top + rows].astype(np.float64).clip(low, high)
        result[top : top + rows] = np.rint((block - low) * (255 / (high - low)))


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """An image turned according to its orientation mark (EXIF, or a tag of a TIFF)."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image
