"""A TIFF of any kind looks like its 8-bit original, or is refused with the reason."""

import logging
import struct
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytology.data.images import kinds, tiffs
from cytology.data.images.opening import UnreadableImage, read_image


def tiff(values, **options):
    """A TIFF of one or several pages."""
    stream = BytesIO()
    tifffile.imwrite(stream, values, **{"metadata": None, "photometric": "rgb", **options})
    return stream.getvalue()


def deep(image, white=65535):
    """An 8-bit image in 16 bits, as a camera of the depth `white` takes it."""
    return np.rint(np.asarray(image) * (white / 255)).astype(np.uint16)


def planes(pixels):
    """Channels first."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(pixels), -1, 0))


def difference(image, expected):
    """The largest difference in grey levels."""
    return np.abs(np.asarray(image, int) - np.asarray(expected, int)).max()


GREY = {"photometric": "minisblack"}
OME_COLOURS = [65535, 16711935, -16776961]  # blue, green, red as OME writes them
TABLES = np.zeros((3, 3, 256), np.uint8)  # as in ImageJ, by channel, colour and level
for channel, colour in enumerate((1, 2, 0)):
    TABLES[channel, colour] = np.arange(256)
COLOUR = {
    "12-bit colour in 16 bits": lambda s: tiff(deep(s, 4095)),
    "10-bit colour, big-endian": lambda s: tiff(deep(s, 1023), byteorder=">"),
    "16-bit colour, planes apart": lambda s: tiff(planes(deep(s)), planarconfig="separate"),
    "8-bit colour, planes apart": lambda s: tiff(planes(s), planarconfig="separate"),
    "planes apart, LZW": lambda s: tiff(
        planes(deep(s)), planarconfig="separate", compression="lzw", predictor=True
    ),
    "float colour": lambda s: tiff((np.asarray(s) / 255).astype(np.float32)),
    "float64 colour, 0 to 255": lambda s: tiff(np.asarray(s, np.float64)),
    "int16": lambda s: tiff(np.rint(np.asarray(s) * (32767 / 255)).astype(np.int16)),
    "32-bit colour": lambda s: tiff(np.asarray(s, np.uint32) * (2**32 // 255)),
    "LZW with predictor": lambda s: tiff(deep(s), compression="lzw", predictor=True),
    "floats with predictor": lambda s: tiff(
        (np.asarray(s) / 255).astype(np.float32), compression="zlib", predictor=True
    ),
    "Zstandard": lambda s: tiff(np.asarray(s), compression="zstd"),
    "JPEG 2000, 16 bits": lambda s: tiff(deep(s), compression="jpeg2000"),
    "tiled BigTIFF": lambda s: tiff(deep(s, 16383), bigtiff=True, tile=(32, 32)),
    "3 channels called grey": lambda s: tiff(np.asarray(s), **GREY, planarconfig="contig"),
    "OME, samples": lambda s: tiff(deep(s), ome=True, metadata={"axes": "YXS"}),
    "OME, channels as pages": lambda s: tiff(
        planes(deep(s)), ome=True, **GREY, metadata={"axes": "CYX"}
    ),
    "OME, blue first": lambda s: tiff(
        planes(deep(s))[::-1],
        ome=True,
        **GREY,
        metadata={"axes": "CYX", "Channel": {"Color": OME_COLOURS}},
    ),
    "ImageJ composite": lambda s: tiff(
        planes(deep(s)), imagej=True, **GREY, metadata={"axes": "CYX", "mode": "composite"}
    ),
    "ImageJ, green first": lambda s: tiff(
        planes(s)[[1, 2, 0]],
        imagej=True,
        **GREY,
        metadata={"axes": "CYX", "mode": "composite", "LUTs": list(TABLES)},
    ),
    "channels of the first slice": lambda s: tiff(
        np.stack([planes(deep(s)), planes(deep(s)) // 2], axis=1),
        ome=True,
        **GREY,
        metadata={"axes": "CZYX"},
    ),
    "8-bit RGB": lambda s: tiff(np.asarray(s)),
    "8-bit JPEG": lambda s: pillows(s, compression="jpeg", quality=100, subsampling=0),
}


def pillows(image, **options):
    stream = BytesIO()
    image.save(stream, "TIFF", **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", COLOUR)
def test_colour_looks_like_its_8_bit_original(smear, kind):
    image, told = read_image(COLOUR[kind](smear(1)))
    assert image.mode == "RGB" and difference(image, smear(1)) <= (4 if "JPEG" in kind else 1)
    assert ("scaled by its own depth" in told) == (
        not kind.startswith(("8-bit", "Zstandard", "3 channels", "ImageJ, green"))
    )
    as_pages = kind.startswith(("OME, ch", "OME, bl", "ImageJ", "channels of"))
    assert ("3 channels as pages: taken as red, green and blue" in told) == as_pages
    assert ("2 frames: only the first is used" in told) == (kind == "channels of the first slice")


GREYS = {
    "16-bit grey": lambda g: tiff(deep(g), **GREY),
    "12 bits packed": lambda g: pack_12(deep(g, 4095)),
    "16-bit grey, 0 is white": lambda g: tiff(65535 - deep(g), photometric="miniswhite"),
    "8-bit grey, 0 is white": lambda g: tiff(255 - np.asarray(g), photometric="miniswhite"),
    "8-bit grey": lambda g: tiff(np.asarray(g), **GREY),
}


def pack_12(values):
    """A TIFF whose pixels of 12 bits follow each other without a gap."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    both = (pairs[:, 0] << 12) | pairs[:, 1]
    body = np.stack([both >> 16, both >> 8, both], axis=-1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(body))]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = b"II*\0" + struct.pack("<I", 8 + len(body))
    return start + body + struct.pack("<H", len(tags)) + rows + bytes(4)


@pytest.mark.parametrize("kind", GREYS)
def test_grey_looks_like_its_8_bit_original(smear, kind):
    grey = smear(1).convert("L")
    image, told = read_image(GREYS[kind](grey))
    assert difference(image, grey.convert("RGB")) <= 1
    assert bool(told) == (not kind.startswith("8-bit"))


# -------------------------------------------------------------------------- alpha


def half_transparent(image):
    """8-bit alpha: the left of the picture is 40 % opaque."""
    alpha = np.full((image.height, image.width, 1), 255)
    alpha[:, :30] = 102
    return alpha


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_alpha_is_composited_on_white(smear, kind, bits):
    alpha, factor = half_transparent(smear(1)), 257 if bits == 16 else 1
    colours = np.asarray(smear(1), int) * factor
    stored = colours * alpha / 255 if kind == "assocalpha" else colours
    values = np.dstack([np.rint(stored), alpha * factor]).astype(f"u{bits // 8}")
    image, told = read_image(tiff(values, extrasamples=[kind]))
    expected = np.asarray(smear(1)) * (alpha / 255) + 255 * (1 - alpha / 255)
    assert difference(image, np.rint(expected)) <= 2
    assert told.endswith("transparent: placed on white")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_grey_with_alpha_is_composited_on_white(smear, kind, planar):
    grey, alpha = np.asarray(smear(1).convert("L"))[..., None], half_transparent(smear(1))
    stored = grey * alpha / 255 if kind == "assocalpha" else grey
    values = np.dstack([np.rint(stored), alpha]).astype(np.uint8)
    values = values if planar == "contig" else planes(values)
    image, told = read_image(tiff(values, **GREY, planarconfig=planar, extrasamples=[kind]))
    expected = grey * (alpha / 255) + 255 * (1 - alpha / 255)
    assert difference(np.asarray(image)[..., :1], np.rint(expected)) <= 2
    assert told == "transparent: placed on white"


def test_premultiplied_alpha_is_scaled_like_the_colours(smear):
    """Stretched to their own range, dark ones would no longer fit it."""
    alpha, dark = half_transparent(smear(1)), np.asarray(smear(1)) // 8
    values = np.rint(np.dstack([dark * alpha / 255, alpha]) * (4095 / 255)).astype(np.uint16)
    image, told = read_image(tiff(values, extrasamples=["assocalpha"]))
    assert difference(np.asarray(image)[:, 30:], dark[:, 30:]) <= 1
    assert told.startswith("16-bit colour: scaled by its own depth, 0 to 4,095")


@pytest.mark.parametrize("white", [255, 65535])
def test_a_fourth_channel_that_is_not_alpha_is_ignored(smear, white):
    values = (np.dstack([smear(1), half_transparent(smear(1))]) * (white // 255)).astype(
        np.uint8 if white == 255 else np.uint16
    )
    image, told = read_image(tiff(values, extrasamples=["unspecified"]))
    assert difference(image, smear(1)) <= 1
    assert told.startswith("a fourth channel that is not alpha: ignored")


# --------------------------------------------------------------- frames and copies


def of_pages(*pages):
    """A TIFF of pages: (values, options)."""
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for values, options in pages:
            writer.write(np.asarray(values), **{"photometric": "rgb", "metadata": None} | options)
    return stream.getvalue()


@pytest.mark.parametrize("convert", [np.asarray, deep], ids=["8 bits", "16 bits"])
def test_reduced_copies_do_not_count_as_frames(smear, convert):
    whole, small = convert(smear(1)), convert(smear(1))[::4, ::4]
    reduced = {"subfiletype": 1}
    for content in (
        of_pages((whole, {}), (small, reduced)),
        of_pages((small, reduced), (whole, {})),
        of_pages((whole, {"subifds": 1}), (small, reduced)),
    ):
        image, told = read_image(content)
        assert difference(image, smear(1)) <= 1 and "frames" not in told


def test_the_first_of_several_frames_is_used_and_this_is_reported(smear):
    grey, told = np.asarray(smear(1).convert("L")), "3 frames: only the first is used"
    stack = np.stack([grey, grey // 2, grey // 3])
    for content in (
        tiff(stack, ome=True, **GREY, metadata={"axes": "ZYX"}),
        tiff(stack, imagej=True, **GREY, metadata={"axes": "TYX"}),
        of_pages(*[(page, GREY) for page in (grey, grey[:9], grey[:, :9])]),
        tiff(np.stack([np.dstack([page] * 3) for page in stack])),
    ):
        image, said = read_image(content)
        assert difference(image, smear(1).convert("L").convert("RGB")) == 0 and said == told
    many = tiff(np.stack([grey] * 300), **GREY)
    assert read_image(many)[1] == "300 frames: only the first is used"


# ------------------------------------------------------------------ what is refused


def five(smear):
    return np.dstack([smear(1), smear(2)])[..., :5]


def preview_only(smear):
    return of_pages((smear(1), {"subfiletype": 1}))


def holed(smear):
    """A TIFF of tiles whose third was never written."""
    content = tiff(deep(smear(1)), tile=(16, 16))
    with tifffile.TiffFile(BytesIO(content)) as file:
        tag = file.pages[0].tags["TileByteCounts"]
    at = tag.valueoffset + 2 * struct.calcsize("H")
    assert content[at : at + 2] == struct.pack("<H", tag.value[2])
    return content[:at] + bytes(2) + content[at + 2 :]


REFUSED = {
    "five bands": (lambda s: tiff(five(s), **GREY, planarconfig="contig"), "a TIFF of 5 bands"),
    "five bands, RGB": (lambda s: tiff(five(s), planarconfig="contig"), "a TIFF of 5 bands"),
    "two channels": (
        lambda s: tiff(five(s)[..., :2].copy(), **GREY, planarconfig="contig"),
        "2 channels",
    ),
    "bare pages": (lambda s: tiff(planes(s(1)), **GREY), "3 grey pages, perhaps the channels"),
    "four channels": (
        lambda s: tiff(planes(five(s))[:4], ome=True, **GREY, metadata={"axes": "CYX"}),
        "4 channels that are not red, green and blue",
    ),
    "other colours": (
        lambda s: tiff(
            planes(s(1)),
            ome=True,
            **GREY,
            metadata={"axes": "CYX", "Channel": {"Color": [65535, 65535, 16711935]}},
        ),
        "3 channels that are not red, green and blue",
    ),
    "ImageJ, two channels": (
        lambda s: tiff(planes(s(1))[:2], imagej=True, **GREY, metadata={"axes": "CYX"}),
        "2 channels that are not red, green and blue",
    ),
    "complex": (lambda s: tiff(np.ones((9, 9), np.complex64), **GREY), "a TIFF of MINISBLACK"),
    "CIELAB": (lambda s: tiff(np.asarray(s(1)), photometric="cielab"), "a TIFF of CIELAB colours"),
    "raw": (lambda s: tiff(deep(s(1))[..., 0], photometric="cfa"), "a TIFF of CFA colours"),
    "CMYK of 16 bits": (
        lambda s: tiff(deep(s(1).convert("CMYK")), photometric="separated"),
        "a TIFF of SEPARATED colours of 16 bits",
    ),
    "preview": (preview_only, "only a preview, as in raw"),
    "hole": (holed, "damaged: a part of the picture is missing"),
    "cut": (lambda s: tiff(deep(s(1)))[:-2000], "damaged: "),
    "no numbers": (
        lambda s: tiff(np.full((9, 9), np.nan, np.float32), **GREY),
        "damaged: some pixels are not numbers",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tiff_that_is_not_a_picture_is_refused_with_the_reason(smear, kind):
    make, reason = REFUSED[kind]
    with pytest.raises(UnreadableImage) as error:
        read_image(make(smear))
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}])
def test_the_pixel_limit_is_checked_before_decoding(smear, monkeypatch, options):
    content = tiff(deep(smear(1)), **options)
    monkeypatch.setattr(kinds, "MOST_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="3,072 pixels: the limit is 1,000"):
        read_image(content)


def test_a_huge_tile_of_a_small_picture_is_refused(smear, monkeypatch):
    content = tiff(deep(smear(1)), tile=(160, 160))
    monkeypatch.setattr(kinds, "MOST_PIXELS", 10_000)
    with pytest.raises(UnreadableImage, match="25,600 pixels: the limit is 10,000"):
        read_image(content)


# ------------------------------------------------------------------------- reports


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_matches_that_of_8_bits(smear, orientation):
    mark = {"extratags": [(274, "H", 1, orientation, True)]}
    image, _ = read_image(tiff(deep(smear(1)), **mark))
    assert difference(image, read_image(tiff(np.asarray(smear(1)), **mark))[0]) <= 1


def test_an_unreadable_tag_is_reported_only_with_the_image(smear, capsys):
    content = tiff(deep(smear(1)), extratags=[(65000, "I", 9, tuple(range(9)), True)])
    at = content.index(struct.pack("<HHI", 65000, 4, 9)) + 8
    content = content[:at] + b"\xff\xff\xff\x7f" + content[at + 4 :]
    image, told = read_image(content)
    assert difference(image, smear(1)) <= 1 and "damaged TIFF: " in told and "65000" in told
    assert capsys.readouterr() == ("", "") and not logging.getLogger("tifffile").propagate


def test_other_files_of_an_ome_set_are_not_opened(smear, tmp_path):
    """Each file of an OME set names the files of all channels."""
    parts = "".join(
        f'<TiffData FirstC="{k}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="c{k}.ome.tif">urn:uuid:{k}</UUID></TiffData>'
        for k in range(3)
    )
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        f'SizeX="64" SizeY="48" SizeC="3" SizeZ="1" SizeT="1">{parts}</Pixels></Image></OME>'
    )
    for k in range(3):
        channel = deep(smear(1))[..., k]
        (tmp_path / f"c{k}.ome.tif").write_bytes(tiff(channel, **GREY, description=xml.format(k)))
    assert tifffile.imread(tmp_path / "c0.ome.tif").shape == (3, 48, 64)
    for source in (tmp_path / "c0.ome.tif", (tmp_path / "c0.ome.tif").read_bytes()):
        with pytest.raises(UnreadableImage, match="one channel; the others"):
            read_image(source)


def test_palettes_and_cmyk_are_read_by_pillow(smear):
    for mode, most in (("P", 0), ("CMYK", 0), ("1", 0)):
        image = smear(1).convert(mode)
        assert difference(read_image(pillows(image))[0], image.convert("RGB")) <= most
    turned = Image.Exif()
    turned[274] = 6
    image, _ = read_image(pillows(smear(1).convert("P"), exif=turned))
    assert image.size == (48, 64)


def test_a_tiff_with_too_many_frames_is_refused_without_counting_them(smear, monkeypatch):
    pages = of_pages(*[(np.asarray(smear(seed)), {}) for seed in range(12)])
    assert read_image(pages)[1] == "12 frames: only the first is used"
    monkeypatch.setattr(tiffs, "MOST_FRAMES", 10)
    with pytest.raises(UnreadableImage, match="^more than 10 frames: save it as one RGB picture$"):
        read_image(pages)


def test_oversized_raw_pixels_are_refused_before_decoding(smear, monkeypatch):
    content = tiff(deep(smear(1)).astype(np.float64), photometric="rgb")
    raw = 64 * 48 * 3 * 8
    monkeypatch.setattr(tiffs, "MOST_PIXEL_BYTES", raw)
    read_image(content)
    monkeypatch.setattr(tiffs, "MOST_PIXEL_BYTES", raw - 1)
    with pytest.raises(
        UnreadableImage, match=f"^{raw:,} bytes of pixels: the limit is {raw - 1:,}"
    ):
        read_image(content)
