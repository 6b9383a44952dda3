"""Which image files are read: the format from the first bytes, and limits of size.

Own signatures instead of a library: `filetype` does not know the formats of microscopes,
`puremagic` also guesses from the name, and Pillow would have to decode a file to name its format.
"""

import re
from pathlib import Path

from PIL import Image

READ = ("JPEG", "PNG", "BMP", "TIFF")
HEAD_BYTES = 256
# Pillow's limit; a field of a slide scanner has 10 million.
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
# A blank picture takes a byte per several hundred pixels. Small ones are always decoded.
PIXELS_A_BYTE = 1000
FEW_PIXELS = 4_000_000
MOST_PIXEL_BYTES = 8 * MOST_PIXELS  # of raw pixels: four channels of 16 bits
MOST_FILE_BYTES = 2 * MOST_PIXEL_BYTES  # of a file, which is read into memory

# Matched in this order. ISO media files (HEIC, AVIF) name their brand first, then compatible ones.
SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    # Two letters are too few, so the size of the following header is checked too.
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "Canon CR2": rb"II\*\0.{4}CR",  # a TIFF, but its first picture is only a preview
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WebP": rb"RIFF.{4}WEBP",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb".{4}ftyp(?:.{4})*?avi[fs]",
    "HEIC": rb".{4}ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
    "JPEG XR": rb"II\xbc\x01",
    "DICOM": rb".{128}DICM",
    "PSD": rb"8BPS",
    "GIMP XCF": rb"gimp xcf",
    "ICO": rb"\0\0\x01\0[^\0]\0",
    "PNM": rb"P[1-6]\s+(?:#|\d+\s+\d+\s)",
    "Zeiss CZI": rb"ZISRAWFILE",
    "Leica LIF": rb"p\0\0\0.{4}\*",
    "Nikon ND2": rb"\xda\xce\xbe\x0a",
    "Olympus OIR": rb"OLYMPUSRAWFORMAT",
}
PATTERNS = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in SIGNATURES.items()}


class UnreadableImage(ValueError):
    """A file that is not a usable image; the message is the reason."""


def kind_of(head: bytes) -> str:
    """The image format of a file from its first `HEAD_BYTES`; empty text if unknown."""
    head = head[:HEAD_BYTES]
    return next((kind for kind, pattern in PATTERNS.items() if pattern.match(head)), "")


def kind_of_file(path: Path) -> str:
    """`kind_of` the file at `path`; empty text if it is not a regular file.

    Raises `OSError` if the file cannot be read.
    """
    if not path.is_file():
        return ""  # reading a pipe or a device might never end
    with path.open("rb") as file:
        return kind_of(file.read(HEAD_BYTES))


def refusal(kind: str) -> str:
    """Why a file of a `kind` that is not in `READ` is not read, and what to do."""
    if not kind:
        return "not a JPEG, PNG, BMP or TIFF image"
    article = "an" if kind[0] in "AEIOU" else "a"
    return f"{article} {kind} image: save it as PNG or TIFF"


def check_file(path: Path) -> None:
    """Raise `UnreadableImage` if it is not a regular file or is too large."""
    if path.exists() and not path.is_file():
        raise UnreadableImage("a pipe or a device, not a file")  # reading it might never end
    if path.exists() and (size := path.stat().st_size) > MOST_FILE_BYTES:
        raise UnreadableImage(f"a file of {size:,} bytes: the limit is {MOST_FILE_BYTES:,}")


def check_pixels(pixels: int, size: int) -> None:
    """Raise `UnreadableImage` for more pixels than a smear has, or than the file's bytes can hold.

    A few bytes can claim gigabytes of pixels: such a file is refused before decoding.
    """
    if pixels > MOST_PIXELS:
        raise UnreadableImage(f"{pixels:,} pixels: the limit is {MOST_PIXELS:,}")
    if pixels > max(FEW_PIXELS, PIXELS_A_BYTE * size):
        raise UnreadableImage(f"damaged: {size:,} bytes cannot hold {pixels:,} pixels")
