"""Mutated images, tables and settings: each is read, or refused with its reason, and soon.

Seeded, so that what fails once fails again.
"""

import io
import json
import time
from contextlib import contextmanager

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from cytology.data.quality import inspect_image
from cytology.data.sources.listing import add_patients_from_csv
from cytology.data.splitting import read_split
from cytology.evaluation.predictions import read_predictions
from cytology.inference.new_images import listed_paths
from cytology.parameters import FIELDS, check_parameters
from cytology.run import Run
from cytology.runner.notebooks import Project, read_profile
from cytology.runner.record import read_run
from cytology.settings import PROJECT_ROOT, InputError

IMAGES = 1200
TEXTS = 80  # of each kind of file
MOST_SECONDS = 5


@contextmanager
def watched(what):
    """Fail if the body takes longer than anybody would wait."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < MOST_SECONDS, what


def encoded(picture, form, **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def pictures():
    """(suffix, bytes) of every kind of file that is read."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16))
    turned = Image.Exif()
    turned[274] = 6
    few, two = colour.quantize(16), colour.convert("1")
    for picture in (colour, colour.convert("L"), colour.convert("CMYK")):
        yield ".jpg", encoded(picture, "JPEG")
    yield ".jpg", encoded(colour, "JPEG", progressive=True, exif=turned)
    yield ".jpg", encoded(colour, "MPO", save_all=True, append_images=[colour])
    for picture in (colour, few, two, deep, colour.convert("RGBA"), colour.convert("LA")):
        yield ".png", encoded(picture, "PNG")
    yield ".png", encoded(few, "PNG", transparency=3, exif=turned)
    for picture in (colour, few, two):
        yield ".bmp", encoded(picture, "BMP")
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield ".tif", encoded(colour, "TIFF", compression=compression)
    yield ".tif", encoded(two, "TIFF", compression="group4")
    yield ".tif", encoded(colour, "TIFF", save_all=True, append_images=[few, two])
    for picture in (deep, colour.convert("F")):
        yield ".tif", encoded(picture, "TIFF")
    many = rng.integers(0, 65536, (40, 50, 4), dtype=np.uint16)
    for channels in (2, 3, 4):
        yield ".png", imagecodecs.png_encode(many[..., :channels].copy())
    yield from ((".tif", content) for content in deep_tiffs(many[..., :3].copy()))


def deep_tiffs(colour):
    """TIFF of the kinds that Pillow does not read."""
    planes = np.moveaxis(colour, -1, 0).copy()
    rgb, grey = {"photometric": "rgb"}, {"photometric": "minisblack"}
    for values, options in (
        (colour, rgb),
        (colour, rgb | {"compression": "lzw", "predictor": True}),
        (colour, rgb | {"compression": "jpeg2000"}),
        (colour, rgb | {"tile": (16, 16), "bigtiff": True, "compression": "zstd"}),
        (planes, rgb | {"planarconfig": "separate", "compression": "zlib"}),
        (planes, grey | {"ome": True, "metadata": {"axes": "CYX"}}),
        (planes, grey | {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}}),
        (colour.astype(np.float32), rgb | {"compression": "zlib", "predictor": True}),
        (colour.astype(np.float64), rgb),
    ):
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, **options)
        yield stream.getvalue()


def mutated(content, rng):
    """The bytes with flipped bits, an edited header, a part cut off, left out or doubled."""
    changed, kind = bytearray(content), rng.integers(5)
    if kind == 0:
        for place in rng.integers(len(changed), size=rng.integers(1, 20)):
            changed[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del changed[rng.integers(len(changed)) :]
    elif kind == 2:
        for place in rng.integers(min(200, len(changed)), size=rng.integers(1, 6)):
            changed[place] = rng.integers(256)
    elif kind == 3:
        place = rng.integers(max(1, min(120, len(changed) - 4)))
        numbers = (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", rng.bytes(4))
        changed[place : place + 4] = numbers[rng.integers(4)]
    else:
        one, other = sorted(rng.integers(len(changed), size=2))
        again = changed[one:] if rng.integers(2) else changed[other:]
        changed = changed[: one if again else other] + again
    return bytes(changed)


def test_mutated_images_are_read_or_rejected_with_a_reason(tmp_path):
    rng, kinds, seen = np.random.default_rng(7), list(pictures()), {"read": 0, "refused": 0}
    for number in range(IMAGES):
        suffix, content = kinds[number % len(kinds)]
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(mutated(content, rng))
        with watched(path):
            found = inspect_image(path)
        seen["refused" if found.get("reason") else "read"] += 1
        assert found.get("reason") or found["width"] > 0
        path.unlink()
    assert sum(seen.values()) == IMAGES and min(seen.values()) > IMAGES / 10


# ------------------------------------------------------------------------ texts

WORDS = (b",", b";", b"\t", b'"', b"\n", b"\r\n", b"\xef\xbb\xbf", b"\x00", b"\xe4", b"nan", b"inf")
WORDS += (b"-1", b"1e999", b"''", b"#", b": ", b"{", b"[", b"&a", b"*a", b"!!python/object:os.x ")
WORDS += (b"B", b"Q", b"train", "Köln".encode(), b"=1+1", b"<img src=x>", b"9" * 400)


def mutated_text(content, rng):
    """A text with troublesome words, doubled, swapped or lost lines; or mutated bytes."""
    kind = rng.integers(4)
    if kind == 0:
        return mutated(content, rng)
    if kind == 1:
        for _ in range(rng.integers(1, 4)):
            place, word = rng.integers(len(content)), WORDS[rng.integers(len(WORDS))]
            content = content[:place] + word + content[place:]
        return content
    lines = content.split(b"\n")
    chosen = rng.integers(len(lines), size=len(lines)) if kind == 2 else rng.permutation(len(lines))
    return b"\n".join(lines[number] for number in chosen)


def mutations(content, seed):
    rng = np.random.default_rng(seed)
    return [mutated_text(content, rng) for _ in range(TEXTS)]


def read_or_refused(read, path, contents):
    """How many of `contents`, written to `path`, are read, and how many refused."""
    seen = {"read": 0, "refused": 0}
    for content in contents:
        path.write_bytes(content)
        try:
            with watched(content):
                read()
            seen["read"] += 1
        except InputError as refusal:
            assert str(refusal).strip() and "\n" not in str(refusal), content
            seen["refused"] += 1
    assert sum(seen.values()) == TEXTS
    return seen


def test_mutated_patient_lists_are_read_or_refused(tmp_path):
    listing = pd.DataFrame({"image_id": [f"B/{n}.png" for n in range(9)], "label": "B"})
    listing = listing.assign(patient="", slide="")
    path = tmp_path / "patients.csv"
    content = b"image,patient,slide\n" + b"".join(b"B/%d.png,p%d,s\n" % (n, n) for n in range(9))
    seen = read_or_refused(
        lambda: add_patients_from_csv(listing, path), path, mutations(content, 1)
    )
    assert min(seen.values()) > 0


@pytest.mark.parametrize("name", ["split.csv", "split.json"])
def test_mutated_splits_are_read_or_refused(run, name):
    content = (run / name).read_bytes()
    seen = read_or_refused(lambda: read_split(Run(run)), run / name, mutations(content, 2))
    assert seen["refused"] > 0


@pytest.mark.parametrize("name", ["predictions.csv", "metrics.json"])
def test_mutated_predictions_are_read_or_refused(run, name):
    path = run / "mobilenetv2" / name
    contents = mutations(path.read_bytes(), 3)
    seen = read_or_refused(lambda: read_predictions(Run(run), "mobilenetv2"), path, contents)
    assert seen["refused"] > 0


@pytest.mark.parametrize("name", ["new.csv", "new.txt"])
def test_mutated_image_lists_are_read_or_refused(tmp_path, name):
    path = tmp_path / name
    content = b"image\n" + b"".join(b"folder/%d.png\n" % number for number in range(20))
    read_or_refused(lambda: listed_paths(path), path, mutations(content, 4))


def test_mutated_profiles_are_read_or_refused(tmp_path):
    profiles = tmp_path / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    content = (PROJECT_ROOT / "notebooks" / "profiles" / "smoke.yaml").read_bytes()

    def read():
        found = read_profile(Project(tmp_path), "smoke")
        check_parameters({name: found[name] for name in found if name in FIELDS})

    seen = read_or_refused(read, profiles / "smoke.yaml", mutations(content, 5))
    assert min(seen.values()) > 0


def test_yaml_creates_no_objects(tmp_path):
    profiles = tmp_path / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "smoke.yaml").write_text("seed: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match="smoke.yaml is not a YAML file"):
        read_profile(Project(tmp_path), "smoke")


def test_nothing_is_unpickled():
    """A pickle runs code when it is read; NumPy reads one only if it is told to."""
    code = "".join(
        path.read_text("utf-8")
        for folder in ("notebooks", "benchmarks", ".")
        for path in (PROJECT_ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
        if "venv" not in path.parts
    )
    for word in ("pickle.", "import pickle", "joblib.load", "read_pickle", "allow_pickle=True"):
        assert word not in code
    assert code.count("np.load(") == code.count("allow_pickle=False")


def test_mutated_records_are_read_or_refused(tmp_path):
    record = {"profile": "quick", "parameters": {"seed": 0}, "notebooks": {}, "grid": {}}
    content = json.dumps(record, indent=2).encode()
    path = tmp_path / "run.json"
    seen = read_or_refused(lambda: read_run(tmp_path), path, mutations(content, 6))
    assert min(seen.values()) > 0
