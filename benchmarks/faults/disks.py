"""Faults: disks that are full or read-only."""

import json
import shutil
from pathlib import Path

from benchmarks.faults.bench import FINE_TUNE, SPLIT, TRAIN, Bench, fault, text_of
from benchmarks.kills import half_written


@fault(
    "the disk is full while images are decoded into the cache", "a message, exit 1; then continues"
)
def full_cache(bench: Bench):
    run = bench.new("run")
    with bench.small_disk(1) as (disk, change):
        full = bench.call(run, only=TRAIN, cache=disk)
        change("size=500m")
        again = bench.call(run, only=TRAIN, cache=disk)
    good = full.code == 1 and full.says("the disk is full") and again.code == 0
    return good, f"exit {full.code}: {full.sentence('full')} Started again: exit {again.code}"


@fault("the disk is full while a checkpoint is written", "a message, exit 1; then continues")
def full_checkpoint(bench: Bench):
    with bench.small_disk(500) as (disk, change):
        run = disk / "run"
        bench.call(run, *FINE_TUNE, only=SPLIT)
        used = shutil.disk_usage(disk).used
        change(f"size={used + 4_000_000}")  # for tables and heads, not for a state of 8 MB
        full = bench.call(run, only=TRAIN)
        change("size=500m")
        again = bench.call(run, only=TRAIN)
    good = full.code == 1 and full.says("checkpoint", "the disk is full") and again.code == 0
    return good, f"exit {full.code}: {full.sentence('full')} Started again: exit {again.code}"


@fault("the disk is full while the report is written", "a message, exit 1; then continues")
def full_report(bench: Bench):
    with bench.small_disk(100) as (disk, _):
        run = disk / "run"
        bench.call(run, only=SPLIT)
        (run / "report.html").unlink()
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 200_000))
        full = bench.call(run, only=SPLIT)
        halves = half_written(run)
        filler.unlink()
        again = bench.call(run, only=SPLIT)
        whole = (run / "report.html").is_file()
    good = full.code == 1 and full.says("the disk is full") and again.code == 0 and whole
    return (
        good and not halves,
        f"exit {full.code}: {full.sentence('full')} Started again: exit {again.code}",
    )


@fault("the run folder is on a read-only disk", "a message, exit 1")
def read_only_run(bench: Bench):
    with bench.small_disk(10) as (disk, change):
        change("ro")
        done = bench.call(disk / "run", only=SPLIT)
    return done.code == 1 and done.says(
        "read-only"
    ), f"exit {done.code}: {done.sentence('read-only')}"


@fault("the data folder is on a read-only disk", "nothing: it is only read")
def read_only_data(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=("01",))
    root = Path(json.loads(text_of(run / "dataset.json"))["root"])
    with bench.small_disk(50) as (disk, change):
        for label in "BM":
            shutil.copytree(root / label, disk / label)
        change("ro")
        done = bench.call(bench.new("run"), "--data", str(disk), only=SPLIT)
    return done.code == 0, f"exit {done.code}"
