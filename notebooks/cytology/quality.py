"""Open an image as RGB, or say why not; measure what tells a usable picture from a poor one."""

import contextlib
import hashlib
import re
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from scipy.fft import dctn

from cytology.augmentation import ORIENTATIONS, orient
from cytology.copies import discs
from cytology.folders import IMAGE_SUFFIXES

# Limits of a poor picture. `benchmarks/quality_limits.py`: all 837 Herlev, 58 UCSB and 320 sample
# images keep them, and 1,177 of the 1,215 fail them when blurred by a fiftieth of their side.
BLANK_CONTRAST = 4.0  # standard deviation of the grey levels, 0 to 255
BLURRED_SHARPNESS = 0.10  # deviation of the Laplacian over deviation of the greys, 256 px a side
OVEREXPOSED_SHARE = 0.60  # share of pixels that are 250 or more in every channel
# What is decoded, told by the content: another format that is called .jpg never reaches its reader.
# (Of JPEG also MPO, which some telephones write.)
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
MOST_PIXELS = Image.MAX_IMAGE_PIXELS  # 89 million, Pillow's limit; a slide scanner's field has 10
# A blank picture takes a byte for some hundred pixels. Small ones are decoded whatever they claim.
PIXELS_A_BYTE = 1000
FEW_PIXELS = 4_000_000


class UnreadableImage(ValueError):
    """A file that is no usable image; the message is the reason."""


def open_rgb(source) -> Image.Image:
    """Open a file (path or bytes) as an upright 8-bit RGB image.

    Transparent pixels become white, 16-bit greys are scaled by their own range, the camera's
    orientation mark (EXIF) is applied. Raises `UnreadableImage` with the reason.
    """
    with opened(source) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


@contextlib.contextmanager
def opened(source) -> Iterator[Image.Image]:
    """A file (path or bytes) as Pillow opens it, its size checked before anything is decoded.

    Whatever goes wrong with it inside the context becomes `UnreadableImage` with the reason.
    """
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        file = BytesIO(source) if isinstance(source, bytes) else source
        with warnings.catch_warnings():
            # Pillow only warns about a decompression bomb until it is twice too large; our own
            # limit, below, is where it warns.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                check_pixels(image.width * image.height, size)
                yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage("not a JPEG, PNG, BMP or TIFF image") from None
    except Image.DecompressionBombError as error:
        check_pixels(int(re.search(r"\d+", str(error))[0]), size)
        raise UnreadableImage("more pixels than Pillow reads") from None
    except MemoryError:
        raise UnreadableImage("more pixels than the memory holds") from None
    except Exception as error:
        # Pillow's readers run into whatever a broken header leads them to: OSError, SyntaxError,
        # ValueError, TypeError, struct.error, ... (tests/test_fuzz.py). All mean the same.
        raise UnreadableImage(f"damaged: {error or type(error).__name__}") from None


def check_pixels(pixels: int, size: int) -> None:
    """Raise `UnreadableImage` for a header of more pixels than a smear has, or its bytes can hold.

    A few bytes can promise gigabytes: such a file is refused before anything is decoded.
    """
    if pixels > MOST_PIXELS:
        raise UnreadableImage(f"{pixels:,} pixels: at most {MOST_PIXELS:,} are read")
    if pixels > max(FEW_PIXELS, PIXELS_A_BYTE * size):
        raise UnreadableImage(f"damaged: {size:,} bytes cannot hold {pixels:,} pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16- and 32-bit greys
        grey = np.asarray(image, dtype=np.float64)
        if not np.isfinite(grey).all():
            raise UnreadableImage("damaged: pixels that are no numbers")
        low, high = grey.min(), grey.max()
        return Image.fromarray(((grey - low) / max(high - low, 1) * 255).astype(np.uint8)).convert(
            "RGB"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def perceptual_hash(image: Image.Image) -> str:
    """A 64-bit hash (16 hex digits) that is the same for the 8 orientations of an image.

    The discrete cosine transform of a 32x32 grey thumbnail, its 8x8 lowest frequencies compared
    with their median (pHash, Zauner 2010, "Implementation and benchmarking of perceptual image
    hash functions"); of the 8 orientations' hashes the smallest is kept.
    """
    # In whole numbers ("L") the two passes of the resizing round, and a quarter turn swaps them;
    # BOX gives a pixel on the border of two cells to one of them, and a flip to the other.
    small = image.convert("L").convert("F").resize((32, 32), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.float64)
    hashes = []
    for orientation in range(len(ORIENTATIONS)):
        low = dctn(orient(grey[..., None], orientation)[..., 0], norm="ortho")[:8, :8]
        bits = (low > np.median(low)).ravel()
        hashes.append(np.packbits(bits).tobytes().hex())
    return min(hashes)


def how_converted(content: bytes) -> str:
    """What had to be changed to read an image as 8-bit RGB; empty if nothing that matters.

    Raises `UnreadableImage` as `open_rgb` does: to count frames, all their headers are read.
    """
    with opened(content) as image:
        if getattr(image, "n_frames", 1) > 1:
            return f"{image.n_frames} frames: only the first is used"
        if image.mode.startswith("I") or image.mode == "F":
            return "16- or 32-bit grey: scaled by its own range"
        if image.mode not in ("RGB", "L", "P", "RGBA", "LA", "1"):
            return f"{image.mode}: converted to RGB"
        if "A" in image.getbands() or "transparency" in image.info:
            return "transparent: laid on white"
    return ""


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


def inspect_image(path: Path) -> dict:
    """What a manifest needs to know of one file, or `{"reason": ...}` if it cannot be used.

    Keys: `width`, `height` in pixels, `sha256` of the file, `phash`, the mean `brightness`,
    `red`, `green`, `blue` in 0 to 255, those of `measure`, `converted` (see `how_converted`) and
    `discs`, the bytes that `copies.find_copies` compares.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return {"reason": f"{path.suffix} files are not read: use JPEG, PNG, BMP or TIFF"}
    if path.exists() and not path.is_file():
        return {"reason": "a pipe or a device, no file"}  # reading it might never end
    try:
        content = path.read_bytes()
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror}"}
    if not content:
        return {"reason": "empty file"}
    try:
        image, converted = open_rgb(content), how_converted(content)
    except UnreadableImage as error:
        return {"reason": str(error)}
    red, green, blue = np.asarray(image.resize((64, 64), Image.Resampling.BOX)).mean(axis=(0, 1))
    return {
        "width": image.width,
        "height": image.height,
        "sha256": hashlib.sha256(content).hexdigest(),
        "phash": perceptual_hash(image),
        "brightness": round(float(0.299 * red + 0.587 * green + 0.114 * blue), 3),
        "red": round(float(red), 3),
        "green": round(float(green), 3),
        "blue": round(float(blue), 3),
        **measure(image),
        "converted": converted,
        "discs": discs(image),
    }
