"""Opens an image file as an upright 8-bit RGB picture, or reports why not.

Pillow reads what it can read correctly; `tiffs` and `deep` read the rest.
"""

import contextlib
import inspect
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import PIL
import tifffile
from PIL import ExifTags, Image, UnidentifiedImageError

from cytology.data.images import deep, kinds, tiffs
from cytology.data.images.kinds import UnreadableImage
from cytology.files import digest
from cytology.wording import printable

MOST_LETTERS_OF_A_REASON = 200
# Python's way of suppressing warnings is not safe with several threads.
WARNINGS = threading.Lock()
# A hash of all code that turns a file into pixels: caches of pictures depend on it.
READING = digest(
    *(inspect.getsource(m) for m in (sys.modules[__name__], deep, kinds, tiffs)),
    *(library.__version__ for library in (PIL, tifffile, imagecodecs)),
)


def open_rgb(source) -> Image.Image:
    """Open a file (path or bytes) as an upright 8-bit RGB image: see `read_image`."""
    return read_image(source)[0]


def read_image(source) -> tuple[Image.Image, str]:
    """A file (path or bytes) as an upright 8-bit RGB image, and what was converted.

    Transparent pixels become white, more than 8 bits are scaled (`deep.window`), the camera's
    orientation mark (EXIF) is applied, and only the first of several frames is used. Raises
    `UnreadableImage` with the reason.
    """
    with stream(source) as (file, size):
        head = file.read(kinds.HEAD_BYTES)
        kind, image = kinds.kind_of(head), None
        notes: list[str] = []
        if kind not in kinds.READ:
            raise UnreadableImage(kinds.refusal(kind))
        file.seek(0)
        if kind == "TIFF":
            image, notes = tiffs.read_tiff(file, size)
            file.seek(0)
        if image is None:
            is_deep_png = kind == "PNG" and head[24:25] == b"\x10"  # bits a channel
            image, told = with_pillow(file, size, is_deep_png)
            notes += told
        image, told = on_white(image)
        return image, "; ".join(notes + told)


@contextlib.contextmanager
def opened(source) -> Iterator[Image.Image]:
    """A file (path or bytes) as Pillow opens it, its size checked before anything is decoded.

    Any error inside the context becomes `UnreadableImage` with the reason.
    """
    with stream(source) as (file, size), pillow_opens(file, size) as image:
        yield image


@contextlib.contextmanager
def stream(source) -> Iterator[tuple[BinaryIO, int]]:
    """The bytes of a file (path or bytes) and their number; any error is `UnreadableImage`."""
    try:
        if not isinstance(source, bytes):
            kinds.check_file(Path(source))
        with BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            yield file, size
    except UnreadableImage:
        raise
    except MemoryError:
        raise UnreadableImage("more pixels than fit into memory") from None
    except Exception as error:
        # A broken header can make readers raise anything: OSError, SyntaxError, ValueError,
        # TypeError, struct.error, ... (tests/test_fuzz.py). All mean the same. What a library
        # quotes from the file also goes into tables.
        why = " ".join(str(error).split())[:MOST_LETTERS_OF_A_REASON] or type(error).__name__
        raise UnreadableImage(printable(f"damaged: {why}")) from None


@contextlib.contextmanager
def pillow_opens(file: BinaryIO, size: int) -> Iterator[Image.Image]:
    """An image as Pillow opens it, its size checked."""
    try:
        # Pillow warns about a decompression bomb, and refuses one of twice that size; our limit
        # is where it warns. `with_pillow` reads its warnings about EXIF again.
        with warnings_of_pillow():
            image = Image.open(file, formats=kinds.READ)
        with image:
            kinds.check_pixels(image.width * image.height, size)
            yield image
    except UnidentifiedImageError:
        raise UnreadableImage("damaged, or of a rare type: save it as 8-bit PNG or TIFF") from None
    except Image.DecompressionBombError as error:
        if found := re.search(r"\d+", str(error)):
            kinds.check_pixels(int(found[0]), size)
        raise UnreadableImage("more pixels than Pillow reads") from None


@contextlib.contextmanager
def warnings_of_pillow() -> Iterator[list]:
    """Collects Pillow's warnings, which would fill the notebook."""
    with WARNINGS, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said


def with_pillow(file: BinaryIO, size: int, is_deep_png: bool) -> tuple[Image.Image, list[str]]:
    """An upright 8-bit image in Pillow's own mode, and notes about it."""
    notes = []
    with pillow_opens(file, size) as image:
        if image.format != "TIFF":
            image.load()  # first, since the EXIF block of a PNG may be at the end
            if (frames := getattr(image, "n_frames", 1)) > 1:
                notes.append(f"{frames} frames: only the first is used")
        exif, told = exif_of(image)
        notes += told
        image.load()  # warns about the EXIF block of a TIFF, unless that was already read
        if not is_deep_png and image.mode not in ("RGB", "L", "P", "RGBA", "LA", "La", "1"):
            notes.append(f"{image.mode}: converted to RGB")
    if is_deep_png:
        del image  # free the memory of its pixels, cut to 8 bits
        file.seek(0)
        image, told = deep.read_png(file.read())
        notes += told
    # Pillow turned a TIFF when loading it, and removed the mark.
    return deep.turn_upright(image, exif.get(tiffs.ORIENTATION)), notes


def exif_of(image: Image.Image) -> tuple[Image.Exif, list[str]]:
    """The EXIF block, and a note if it is damaged, which is no reason to refuse the picture."""
    exif = Image.Exif()
    with warnings_of_pillow() as said:
        try:
            # Read it again, since Pillow hides errors when it opens a JPEG.
            exif.load(image.info.get("exif", b""))
            exif = image.getexif()
            for block in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                exif.get_ifd(block)
        except Exception as error:  # any error, as in `stream`
            said.append(error)
    return exif, ["damaged EXIF block: its orientation mark may be lost"] if said else []


def on_white(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """An image of any mode as RGB: transparent pixels become white, unless all are transparent.

    Some programs leave alpha 0 everywhere, and every viewer shows the colours.
    """
    if "A" not in image.getbands() and "a" not in image.getbands():
        if "transparency" not in image.info:
            return image.convert("RGB"), []
    if image.mode == "La":  # premultiplied grey, which Pillow cannot convert
        image = image.convert("LA")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    least, most = image.getchannel("A").getextrema()
    if least == 255:
        return image.convert("RGB"), []
    if most == 0:
        return image.convert("RGB"), ["alpha is 0 everywhere: ignored"]
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white, ["transparent: placed on white"]
