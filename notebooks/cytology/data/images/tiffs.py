"""Reads TIFFs that Pillow cuts to 8 bits, garbles or refuses, with `tifffile`, the field's reader.

These have more than 8 bits, floats, separate planes, channels as pages, or newer compressions.
"""

import contextlib
import logging
import math
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image

from cytology.data.images.deep import eight_bits, turn_upright
from cytology.data.images.kinds import MOST_PIXEL_BYTES, UnreadableImage, check_pixels
from cytology.wording import printable

SAVE_AS_RGB = "save it as one RGB picture"
# Pillow reads 8 bits or fewer with a compression that all its builds know (none, CCITT, LZW, JPEG,
# Deflate, PackBits).
PILLOWS_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}
MIN_IS_WHITE, RGB, GREYS = 0, 2, (0, 1)  # values of the tag PhotometricInterpretation
SAMPLES = {0: 1, 1: 1, RGB: 3, 3: 1, 5: 4, 6: 3}  # per pixel: grey, RGB, palette, CMYK, YCbCr
PREMULTIPLIED, ALPHA = 1, (1, 2)  # values of the tag ExtraSamples
ORIENTATION = 274
MOST_FRAMES = 10_000  # the time to find them grows with the square of their number
PRIMARIES = np.eye(3, dtype=int).tolist()


def read_tiff(file: BinaryIO, size: int) -> tuple[Image.Image | None, list[str]]:
    """The first picture of a TIFF of `size` bytes, and notes about it.

    The picture is upright, 8-bit L or RGB, perhaps with alpha; None if Pillow reads it correctly.
    Raises `UnreadableImage` with the reason.
    """
    notes = []
    with errors_logged() as errors, tifffile.TiffFile(file, _multifile=False) as tiff:
        check_frames(tiff)
        series = first_series(tiff.series)
        page, pages = series.keyframe, [series.keyframe]
        check_pixels(page.imagewidth * page.imagelength * page.imagedepth, size)
        if (frames := frames_of(tiff.series)) > 1:
            notes.append(f"{frames} frames: only the first is used")
        if sizes_of(series).get("C", 1) > 1:  # as recorded by OME, ImageJ and others
            pages = channel_pages(series, channel_colours(tiff))
            notes.append("3 channels as pages: taken as red, green and blue")
        elif int(ome_pixels(tiff).get("SizeC", 1)) > page.samplesperpixel:
            raise UnreadableImage(f"one channel; the others are in other files: {SAVE_AS_RGB}")
        elif may_be_channels(series):
            raise UnreadableImage(
                f"{frames} grey pages, perhaps the channels of one picture: {SAVE_AS_RGB}"
            )
        notes += notes_on_bands(page)
        if len(pages) == 1 and page.index == 0 and is_pillows(page):
            return None, notes
        image, told = picture_of(pages, size)
    # Serious damage has raised an exception by now; an unreadable tag may not have.
    damage = [printable(f"damaged TIFF: {' '.join(error.split())[:200]}") for error in errors[:1]]
    return image, notes + told + damage


def check_frames(tiff: tifffile.TiffFile) -> None:
    """Raise `UnreadableImage` for a TIFF with more than `MOST_FRAMES` pages."""
    try:
        tiff.pages[MOST_FRAMES]
    except IndexError:
        return
    raise UnreadableImage(f"more than {MOST_FRAMES:,} frames: {SAVE_AS_RGB}")


def first_series(found: list) -> tifffile.TiffPageSeries:
    """The first picture (or stack of them) that is not a reduced copy of another."""
    if not found:
        raise UnreadableImage("damaged: a TIFF without a picture")
    whole = [series for series in found if not series.keyframe.is_reduced]
    if not whole:
        raise UnreadableImage("only a preview, as in raw files of cameras")
    return whole[0]


def frames_of(found: list) -> int:
    """How many pictures a TIFF holds: slices, times or pages, without reduced copies."""
    return sum(
        math.prod(size for axis, size in sizes_of(series).items() if axis not in "CYXS")
        for series in found
        if not series.keyframe.is_reduced
    )


def sizes_of(series: tifffile.TiffPageSeries) -> dict[str, int]:
    """The length of each axis: C channels, S samples of a page, Z slices, T times."""
    return dict(zip(series.axes, series.shape, strict=True))


def may_be_channels(series: tifffile.TiffPageSeries) -> bool:
    """Whether there are 2 to 4 grey pages of one size with no information on what they are."""
    page = series.keyframe
    is_grey = page.photometric in GREYS and page.samplesperpixel == 1 and page.bitspersample >= 8
    return is_grey and set(series.axes) <= set("IQYX") and frames_of([series]) in (2, 3, 4)


def channel_pages(series: tifffile.TiffPageSeries, colours: list[list[int]]) -> list:
    """The pages of the first picture's red, green and blue channel.

    Three channels without colours are used in this order. Raises `UnreadableImage` for others.
    """
    sizes, colours = sizes_of(series), colours or PRIMARIES
    count = sizes["C"]
    if count != 3 or sorted(colours) != sorted(PRIMARIES) or series.keyframe.samplesperpixel > 1:
        raise UnreadableImage(f"{count} channels that are not red, green and blue: {SAVE_AS_RGB}")
    inner = series.axes[series.axes.index("C") + 1 : -len(series.keyframe.axes)]
    stride = math.prod(sizes[axis] for axis in inner)
    places = [stride * colours.index(primary) for primary in PRIMARIES]
    pages = [series.pages[k] for k in places if k < len(series.pages)]
    there = [page.aspage() for page in pages if page is not None]
    if len(there) < len(PRIMARIES):
        raise UnreadableImage(f"channels outside this file or its pages: {SAVE_AS_RGB}")
    return there


def channel_colours(tiff: tifffile.TiffFile) -> list[list[int]]:
    """The channels' colours as rows of 0 or 1 (red, green, blue); empty if none are given."""
    channels = ome_pixels(tiff).get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    codes = [int(channel["Color"]) for channel in channels if "Color" in channel]  # RGBA
    colours = [[code >> 24 & 255, code >> 16 & 255, code >> 8 & 255] for code in codes]
    if tiff.imagej_metadata:
        colours = [table[:, -1].tolist() for table in tiff.imagej_metadata.get("LUTs", [])]
    plain = [[level // 255 for level in colour] for colour in colours]
    # In OME white means no colour.
    return [] if all(colour == [1, 1, 1] for colour in plain) else plain


def ome_pixels(tiff: tifffile.TiffFile) -> dict:
    """The OME metadata of the first picture; empty if there are none."""
    if not tiff.ome_metadata:
        return {}
    image = tifffile.xml2dict(tiff.ome_metadata)["OME"].get("Image", {})
    return (image[0] if isinstance(image, list) else image).get("Pixels", {})


def notes_on_bands(page: tifffile.TiffPage) -> list[str]:
    """Notes about a page's samples; `UnreadableImage` if they do not make a picture."""
    samples, photometric = page.samplesperpixel, page.photometric
    if photometric not in SAMPLES:
        raise UnreadableImage(f"a TIFF of {tag_name(photometric)} colours: {SAVE_AS_RGB}")
    if photometric in GREYS and samples == 3:
        return ["3 channels: taken as red, green and blue"]
    extra = samples - SAMPLES[photometric]
    if not 0 <= extra <= 1:
        raise UnreadableImage(f"a TIFF of {samples} bands: {SAVE_AS_RGB}")
    if extra == 0 or page.extrasamples in [(kind,) for kind in ALPHA]:
        return []
    if photometric in GREYS:
        raise UnreadableImage(f"2 channels: {SAVE_AS_RGB}")
    # Without the tag, the fourth sample is alpha, as for other readers.
    return ["a fourth channel that is not alpha: ignored"] if page.extrasamples else []


def tag_name(photometric: int) -> str:
    """The name of a colour type, or its number if TIFF has no name for it."""
    return str(getattr(photometric, "name", photometric))


def is_pillows(page: tifffile.TiffPage) -> bool:
    """Whether Pillow reads a page correctly: at most 8 bits, not grey with alpha."""
    return (
        np.max(page.bitspersample) <= 8
        and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        and page.compression in PILLOWS_COMPRESSIONS
        and not (page.photometric in GREYS and page.samplesperpixel > 1)
    )


def picture_of(pages: list, size: int) -> tuple[Image.Image, list[str]]:
    """Pages of one channel each, or one page of all, as an upright 8-bit picture, and notes."""
    page = pages[0]
    if page.photometric not in (*GREYS, RGB) or page.dtype is None or page.dtype.kind not in "uif":
        raise UnreadableImage(
            f"a TIFF of {tag_name(page.photometric)} colours of {page.bitspersample} bits: "
            f"{SAVE_AS_RGB}"
        )
    if (raw := sum(each.nbytes for each in pages)) > MOST_PIXEL_BYTES:
        raise UnreadableImage(
            f"{raw:,} bytes of pixels: the limit is {MOST_PIXEL_BYTES:,}; save it as 8 or 16 bits"
        )
    for each in pages:
        check_whole(each, size)
    planes = [each.asarray(maxworkers=1) for each in pages]
    pixels = np.stack(planes, axis=-1) if len(planes) > 1 else planes[0]
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)
    colours = 3 if pixels.shape[2] > 2 else 1
    has_alpha = pixels.shape[2] > colours and page.extrasamples != (0,)
    image, notes = eight_bits(
        pixels[..., : colours + has_alpha],
        page.bitspersample,
        has_alpha,
        PREMULTIPLIED in page.extrasamples,
        inverted=page.photometric == MIN_IS_WHITE and colours == 1,
    )
    return turn_upright(image, page.tags.valueof(ORIENTATION)), notes


def check_whole(page: tifffile.TiffPage, size: int) -> None:
    """Raise `UnreadableImage` if strips or tiles are missing: they would be black."""
    ends = [at + n for at, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    whole = len(ends) >= math.prod(page.chunked) and all(page.databytecounts)
    if not whole or max(ends) > size:
        raise UnreadableImage("damaged: a part of the picture is missing")
    if page.is_tiled:
        check_pixels(page.tilewidth * page.tilelength * page.tiledepth, size)


class ErrorsOfThread(logging.Handler):
    """Collects logged errors of one thread, and shows them nowhere."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.of = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        getattr(self.of, "errors", []).append(record.getMessage())


ERRORS = ErrorsOfThread()
LOGGER = logging.getLogger("tifffile")
LOGGER.addHandler(ERRORS)
LOGGER.propagate = False


@contextlib.contextmanager
def errors_logged() -> Iterator[list[str]]:
    """Collects the errors that `tifffile` logs in this thread; they would fill the notebook."""
    errors: list[str] = []
    ERRORS.of.errors = errors
    yield errors
