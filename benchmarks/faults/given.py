"""Faults: parameters and files that a user gives."""

import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

from benchmarks.faults.bench import SPLIT, TRAIN, Bench, fault, text_of


@fault("another parameter in the same run folder", "refused, exit 2, with both values")
def other_parameter(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=SPLIT)
    done = bench.call(run, "-p", "val_share", "0.3", only=SPLIT)
    good = done.code == 2 and done.says("val_share=0.2, now val_share=0.3", "--run-dir")
    return good, f"exit {done.code}: {done.sentence('now')}"


@fault(
    "a parameter that does not exist, or out of its range", "refused, exit 2, with what is allowed"
)
def wrong_parameters(bench: Bench):
    run = bench.new("run")
    wrong = [("sead", "1"), ("folds", "1"), ("image_size", "10"), ("wanted_sensitivity", "nan")]
    done = [bench.call(run, "-p", *pair) for pair in wrong]
    return all(each.code == 2 for each in done), f"exit 2 each: {done[1].sentence('folds')}"


@fault("a run folder inside the data folder", "refused, exit 2")
def run_inside_data(bench: Bench):
    data = drawn_data(bench)
    done = bench.call(data / "run", "--data", str(data), only=SPLIT)
    good = done.code == 2 and done.says("inside the data folder") and not (data / "run").exists()
    return good, f"exit {done.code}: {done.sentence('inside')}"


@fault("a batch larger than the training set", "a message before anything is decoded, exit 1")
def too_large_a_batch(bench: Bench):
    run = bench.new("run")
    done = bench.call(run, "-p", "batch_size", "1000", "-p", "orientations", "1", only=TRAIN)
    return done.code == 1 and done.says("`batch_size` is 1000"), f"exit {done.code}: " + (
        done.sentence("batch_size")
    )


@fault("more folds than there are patients", "a sentence, exit 1")
def too_many_folds(bench: Bench):
    done = bench.call(bench.new("run"), "-p", "folds", "20", only=SPLIT)
    return done.code == 1 and done.says("`folds`"), f"exit {done.code}: {done.sentence('folds')}"


@fault("an EPS, a bomb of 400 million pixels and a text, named .png", "left out with their reasons")
def disguised_images(bench: Bench):
    data, run = drawn_data(bench), bench.new("run")
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, (b"IHDR", b"IDAT"), (header, b"")))
    contents = {"eps": page, "bomb": bomb, "text": b"no image"}
    for name, content in contents.items():
        (data / "B" / f"{name}.png").write_bytes(content)
    done = bench.call(run, "--data", str(data), only=SPLIT)
    rows = text_of(run / "rejected.csv").splitlines()[1:]
    reasons = [row.split(",", 2)[2].strip(',"') for row in rows]
    return done.code == 0 and len(reasons) == 3, f"exit {done.code}; {'; '.join(reasons)}"


@fault("a list of patients in UTF-16 with tabs, as Excel writes it", "read")
def patients_from_excel(bench: Bench):
    data, run = drawn_data(bench), bench.new("run")
    names = sorted(path.relative_to(data).as_posix() for path in data.glob("[BM]/*.png"))
    rows = ["Image\tPatient", *(f"{name}\t{name.split('_')[0]}" for name in names)]
    path = data.parent / "Patientinnen.csv"
    path.write_text("\r\n".join(rows), encoding="utf-16")
    done = bench.call(run, "--data", str(data), "-p", "patients_csv", str(path), only=SPLIT)
    groups = json.loads(text_of(run / "dataset.json") or "{}").get("groups")
    return done.code == 0 and groups == 16, f"exit {done.code}, {groups} patients"


@fault("a list of patients that names an image twice", "a sentence with the name, exit 1")
def doubled_patients(bench: Bench):
    data = drawn_data(bench)
    name = sorted(path.relative_to(data).as_posix() for path in data.glob("B/*.png"))[0]
    path = data.parent / "patients.csv"
    path.write_text(f"image,patient\n{name},1\n{name},2\n", encoding="utf-8")
    words = ["--data", str(data), "-p", "patients_csv", str(path)]
    done = bench.call(bench.new("run"), *words, only=SPLIT)
    return done.code == 1 and done.says("twice"), f"exit {done.code}: {done.sentence('twice')}"


@fault("an archive of new images with a member ../../outside.png", "not unpacked, exit 1")
def archive_outside(bench: Bench):
    run = bench.new("run")
    path = run.parent / "new.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../outside.png", b"no image")
    done = bench.call(run, "-p", "images", str(path), only=(*TRAIN, "07", "08", "09"))
    good = (
        done.code == 1
        and done.says("would be written outside")
        and not list(path.parents[1].glob("out*"))
    )
    return good, f"exit {done.code}: {done.sentence('outside')}"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file: length, kind, content, checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def drawn_data(bench: Bench) -> Path:
    """A user's folder: the drawn sample in two classes, nothing else."""
    run, data = bench.new("first"), bench.new("Präparate ü") / "data"
    bench.call(run, only=("01",))
    root = Path(json.loads(text_of(run / "dataset.json"))["root"])
    for label in "BM":
        shutil.copytree(root / label, data / label)
    return data
