"""Faults: files damaged, deleted or edited between two runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.bench import SPLIT, TRAIN, Bench, fault, same_tables, text_of


def damage_files(folder: Path, pattern: str, how: Callable[[bytearray], bytes]) -> int:
    """Change every file below `folder` that matches; returns how many."""
    files = sorted(folder.rglob(pattern))
    for path in files:
        path.write_bytes(how(bytearray(path.read_bytes())))
    return len(files)


def flip_bit(content: bytearray) -> bytes:
    """The content with one bit of its middle byte flipped."""
    content[len(content) // 2] ^= 1
    return bytes(content)


def truncate(content: bytearray) -> bytes:
    """The first half of the content."""
    return bytes(content[: len(content) // 2])


def tables_after_damage(bench: Bench, pattern: str, how) -> tuple[bool, str]:
    """Spoil files of the cache between two runs, and compare the tables of both."""
    cache, first, second = bench.new("cache"), bench.new("first"), bench.new("second")
    bench.call(first, only=TRAIN, cache=cache)
    number = damage_files(cache, pattern, how)
    done = bench.call(second, only=TRAIN, cache=cache)
    same, words = same_tables(first, second)
    return number > 0 and done.code == 0 and same, f"spoiled: {number}; exit {done.code}, {words}"


@fault("a bit flipped in every pack of the cache", "noticed and made again: the same tables")
def flipped_cache(bench: Bench):
    return tables_after_damage(bench, "*.npy", flip_bit)


@fault("every pack of the cache cut to half", "noticed and made again: the same tables")
def truncated_cache(bench: Bench):
    return tables_after_damage(bench, "*.npy", truncate)


@fault("the random weights in the cache cut to half", "noticed and made again: the same tables")
def truncated_weights(bench: Bench):
    return tables_after_damage(bench, "*.weights.h5", truncate)


@fault("the cache of inspected images cut to half", "noticed and made again: the same tables")
def truncated_inspections(bench: Bench):
    return tables_after_damage(bench, "inspected.sqlite", truncate)


@fault("an image cut to half", "left out with its reason; the run continues")
def truncated_image(bench: Bench):
    run, data = bench.new("first"), bench.new("Präparate ü") / "data"
    bench.call(run, only=("01",))
    shutil.copytree(json.loads(text_of(run / "dataset.json"))["root"], data)
    path = sorted((data / "B").rglob("*.png"))[0]
    path.write_bytes(truncate(bytearray(path.read_bytes())))
    second = bench.new("run")
    done = bench.call(second, "--data", str(data), only=SPLIT)
    rows = text_of(second / "rejected.csv").splitlines()
    (row,) = [row for row in rows if row.startswith(f"B/{path.name},")] or ["not there"]
    return done.code == 0 and "truncated" in row, f"exit {done.code}; {row}"


@fault("run.json cut to half", "refused, exit 2, with the file's name")
def truncated_record(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=("01",))
    damage_files(run, "run.json", truncate)
    done = bench.call(run, only=("01",))
    return done.code == 2 and done.says(
        "run.json is damaged"
    ), f"exit {done.code}: {done.sentence('run.json')}"


@fault("a model file cut to half before prediction", "a message that names the notebook, exit 1")
def truncated_model(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=(*TRAIN, "07", "08"))
    damage_files(run, "model.keras", truncate)
    done = bench.call(run, only=("09",))
    good = done.code == 1 and done.says("model.keras", "04_train_mobilenetv2")
    return good, f"exit {done.code}: {done.sentence('model.keras')}"


@fault("a table is deleted after the run", "its notebook runs again, and no other")
def deleted_table(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=SPLIT)
    (run / "augmentation.json").unlink()
    done = bench.call(run, only=SPLIT)
    good = done.code == 0 and done.said.count("kept: unchanged") == 2
    return good, f"exit {done.code}: {done.sentence('02_')}"


@fault(
    "split.csv is edited by hand after the run",
    "the edit is kept and reported; notebooks that read it run again",
)
def edited_table(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=SPLIT)
    text = text_of(run / "split.csv") + "\n"
    (run / "split.csv").write_text(text, encoding="utf-8")
    done = bench.call(run, only=SPLIT)
    good = done.code == 0 and text_of(run / "split.csv") == text and done.says("NOTE: split.csv")
    notice = " ".join(done.said[done.said.find("NOTE") :].split("\n\n")[0].split())
    return good, f"exit {done.code}: {notice}"
