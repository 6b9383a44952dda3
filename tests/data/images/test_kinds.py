"""An image is recognized by its first bytes, even if its suffix is missing or wrong."""

import os
from io import BytesIO

import numpy as np
import pytest
import tifffile

from cytology.data.images import kinds
from cytology.data.images.kinds import (
    READ,
    SIGNATURES,
    UnreadableImage,
    kind_of,
    kind_of_file,
    refusal,
)
from cytology.data.images.opening import open_rgb
from cytology.data.quality import inspect_image


def ftyp(*brands):
    """The first box of an ISO media file: its brand, a version, the compatible brands."""
    brand, *compatible = brands
    box = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return (len(box) + 4).to_bytes(4, "big") + box


HEADS = {
    "WebP": b"RIFF\x24\0\0\0WEBPVP8 ",
    "Canon CR2": b"II*\0\x10\0\0\0CR\x02\0",
    "HEIC": ftyp(b"mif1", b"mif1", b"heic"),
    "AVIF": ftyp(b"mif1", b"miaf", b"avif"),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
    "JPEG XR": b"II\xbc\x01\x08\0\0\0",
    "DICOM": bytes(128) + b"DICM\x02\0",
    "PSD": b"8BPS\0\x01",
    "GIMP XCF": b"gimp xcf v011\0",
    "ICO": b"\0\0\x01\0\x02\0\x10\x10",
    "Zeiss CZI": b"ZISRAWFILE\0\0\0\0\0\0",
    "Leica LIF": b"p\0\0\0\x20\x01\0\0*\x8b\0\0\0<\0L\0",
    "Nikon ND2": b"\xda\xce\xbe\x0a\xf0\x0f\0\0",
    "Olympus OIR": b"OLYMPUSRAWFORMAT\x0c\0",
}


@pytest.mark.parametrize("form", "JPEG MPO PNG BMP TIFF GIF WebP PPM JPEG2000 ICO".split())
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_that_pillow_writes_is_recognized(smear, form, mode):
    stream = BytesIO()
    smear(1).convert(mode).save(stream, form)
    told = {"MPO": "JPEG", "PPM": "PNM", "JPEG2000": "JPEG 2000"}
    assert kind_of(stream.getvalue()) == told.get(form, form)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_every_tiff_is_recognized(options):
    stream = BytesIO()
    tifffile.imwrite(stream, np.zeros((8, 8), np.uint16), **options)
    assert kind_of(stream.getvalue()) == "TIFF"


@pytest.mark.parametrize("kind", HEADS)
def test_unsupported_formats_are_recognized_by_name(kind):
    assert kind_of(HEADS[kind]) == kind and kind not in READ


def test_each_signature_is_tested():
    assert set(SIGNATURES) == {*READ, *HEADS, "GIF", "PNM"}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"BM",
        b"BMI,patient,age\n23,P001,50\n",  # text that begins like a bitmap
        b"P5 is the patient of slide 3\n",
        b"image,patient\n",
        b"%PDF-1.7\n",
        b"PK\x03\x04\x14\0",
        b"RIFF\x24\0\0\0WAVEfmt ",
        ftyp(b"isom", b"isom", b"mp41"),
        b"\0\0\0\0\0\0\0\0",
    ],
)
def test_other_files_are_not_recognized_as_images(head):
    assert kind_of(head) == ""


def test_a_file_is_recognized_whatever_its_name(smear, tmp_path):
    smear(1).save(tmp_path / "P01", "JPEG")
    assert kind_of_file(tmp_path / "P01") == "JPEG"
    assert kind_of_file(tmp_path) == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert kind_of_file(tmp_path / "pipe") == ""


def test_the_error_for_every_other_format_says_what_to_do():
    assert refusal("WebP") == "a WebP image: save it as PNG or TIFF"
    assert refusal("AVIF") == "an AVIF image: save it as PNG or TIFF"


def test_a_file_too_large_to_be_read_whole_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(kinds, "MOST_FILE_BYTES", 99)
    reason = "a file of 100 bytes: the limit is 99"
    with pytest.raises(UnreadableImage, match=f"^{reason}$"):
        open_rgb(path)
    assert inspect_image(path) == {"reason": reason}
