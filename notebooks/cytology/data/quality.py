"""Measures whether a picture is usable, and everything else that the manifest needs."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from cytology.data import crops
from cytology.data.copies import discs
from cytology.data.images.kinds import UnreadableImage, check_file
from cytology.data.images.opening import read_image

# Limits of a poor picture. `benchmarks/quality_limits.py`: all 837 Herlev, 58 UCSB and 320 sample
# images keep them, and 1,177 of the 1,215 fail them when blurred by a fiftieth of their side.
BLANK_CONTRAST = 4.0  # standard deviation of the grey levels, 0 to 255
BLURRED_SHARPNESS = 0.10  # deviation of the Laplacian over deviation of the greys, 256 px a side
OVEREXPOSED_SHARE = 0.60  # share of pixels that are 250 or more in every channel
# Counting a picture's exact colours ends here: a mask holds a handful.
MOST_COLOURS = 256


def poor_picture(contrast: float, sharpness: float, overexposed: float) -> str:
    """`blank`, `over-exposed`, `blurred` or empty text; the limits stand at the top."""
    if overexposed > OVEREXPOSED_SHARE:
        return "over-exposed"
    if contrast < BLANK_CONTRAST:
        return "blank"
    return "blurred" if sharpness < BLURRED_SHARPNESS else ""


def measure(image: Image.Image) -> dict[str, float]:
    """`contrast` (grey levels), `sharpness`, `overexposed` (share), on at most 256 pixels a side.

    Sharpness is the deviation of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in
    brightfield microscopy") over that of the greys, so that a pale stain does not pass for blur.
    """
    small = image.copy()
    small.thumbnail((256, 256))
    grey = np.asarray(small.convert("L"), np.float32)
    contrast = float(grey.std())
    darkest = np.minimum.reduce([np.asarray(channel) for channel in small.split()])
    return {
        "contrast": round(contrast, 3),
        "sharpness": round(float(ndimage.laplace(grey).std()) / max(contrast, 1.0), 4),
        "overexposed": round(float((darkest >= 250).mean()), 4),
    }


def count_colours(image: Image.Image) -> int:
    """How many exact colours a picture has; `MOST_COLOURS` means that many or more.

    Counted row by row, since a photograph has that many colours in its first rows.
    """
    seen = set()
    for row in np.asarray(image):
        pixels = row.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        seen.update(np.unique(pixels).tolist())
        if len(seen) >= MOST_COLOURS:
            return MOST_COLOURS
    return len(seen)


def inspect_image(path: Path) -> dict:
    """What a manifest needs to know of one file, or `{"reason": ...}` if it cannot be used.

    Keys: `width`, `height` in pixels, `sha256` of the file, the mean `brightness`, `red`, `green`,
    `blue` in 0 to 255, those of `measure` and `crops.measure`, `converted` (what was changed to
    read it, see `images.read_image`), `colours` (see `count_colours`) and `discs`, the bytes that
    `copies.find_copies` compares. The file's name does not matter, only its content.
    """
    try:
        check_file(path)
        content = path.read_bytes()
        if not content:
            return {"reason": "empty file"}
        image, converted = read_image(content)
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror}"}
    except UnreadableImage as error:
        return {"reason": str(error)}
    small = np.asarray(image.resize((crops.SIDE, crops.SIDE), Image.Resampling.BOX))
    red, green, blue = small.mean(axis=(0, 1))
    return {
        "width": image.width,
        "height": image.height,
        "sha256": hashlib.sha256(content).hexdigest(),
        "brightness": round(float(0.299 * red + 0.587 * green + 0.114 * blue), 3),
        "red": round(float(red), 3),
        "green": round(float(green), 3),
        "blue": round(float(blue), 3),
        **measure(image),
        **crops.measure(small),
        "converted": converted,
        "colours": count_colours(image),
        "discs": discs(image),
    }
