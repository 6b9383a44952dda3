"""B4: memory and time as the number of images grows.

Each size is measured in a separate process: decoding, one epoch of the input pipeline, frozen
features of MobileNetV2. `python -m benchmarks.scale ROOT MANIFEST IMAGES CACHE` is that process; it
prints its results as JSON.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil
from matplotlib.figure import Figure

from benchmarks.comparison import Result, Row, growth
from benchmarks.figures import OURS, TARGET
from benchmarks.images import small_jpegs
from benchmarks.registry import Options
from cytology.data.augmentation import pictures_of
from cytology.notebook import progress
from cytology.settings import PROJECT_ROOT, InputError

SIZES = (1_000, 4_000, 16_000, 35_000)
SMALL = 4_000  # the larger sizes are compared with this one
IMAGE_SIZE = 75
BATCH = 32
ORIENTATIONS = 8
PARTS = {"decode": "decode", "feed": "one epoch of the pipeline", "features": "frozen features"}
LINES = {"decode": ("#E69F00", "--"), "feed": ("#009E73", "-."), "features": ("#CC79A7", ":")}
LOOK_EVERY = 0.02  # seconds
STATUS = Path("/proc/self/status")
MEMORY = "RssAnon" if STATUS.is_file() else "unique set size (this system has no RssAnon)"
EQUAL = (
    f"files of one kind, {IMAGE_SIZE} pixels, batches of {BATCH}, a new process and an empty cache "
    "for each size; importing TensorFlow, building the network and tracing are not in the times"
)


def measure(options: Options, folder: Path) -> Result:
    """Run every size, in turn, in a separate process."""
    sizes = [size for size in SIZES if size <= (options.images or SIZES[-1])]
    if SMALL not in sizes[:-1]:
        raise InputError(
            f"B4 compares with {SMALL:,} images: set --images to {SIZES[2]:,} or more."
        )
    small_jpegs(folder / "images", sizes[-1]).to_csv(folder / "manifest.csv", index=False)
    found = [
        {"repeat": repeat, "images": size} | in_a_process(folder, size)
        for repeat in progress(range(options.repeats), "measuring", unit="repeat")
        for size in sizes
    ]
    series = pd.DataFrame(found)
    notes = [
        f"Images: JPEGs of coloured noise, 96 x 96. Weights: random. Memory: {series['memory'][0]}."
    ]
    return Result(rows_of(series), notes + slopes(series), series)


def in_a_process(folder: Path, images: int) -> dict:
    """The result of `main` for the first `images` of the manifest."""
    cache = folder / "cache"
    arguments = [folder / "images", folder / "manifest.csv", images, cache]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *map(str, arguments)],
        cwd=PROJECT_ROOT,
        env=os.environ | {"CYTOLOGY_HEADLESS": "1"},  # no progress bars in the output
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(cache)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(series: pd.DataFrame) -> list[Row]:
    """Peak memory at the largest size, and time per image at the larger ones, against 4,000."""
    largest = series["images"].max()
    rows = [
        growth_rows(series, f"{part}_mib", largest, f"peak memory, {name}")
        for part, name in PARTS.items()
    ]
    rows.insert(0, growth_rows(series, "peak_mib", largest, "peak memory", at_most=1.15))
    for size in sorted(series.loc[series["images"] > SMALL, "images"].unique()):
        rows.append(growth_rows(series, "all_s", size, "time an image", at_most=1.15))
        rows.append(growth_rows(series, "all_cpu", size, "processor time an image"))
        for part, name in PARTS.items():
            rows.append(growth_rows(series, f"{part}_s", size, f"time an image, {name}"))
    return rows


def growth_rows(
    series: pd.DataFrame, column: str, size: int, what: str, at_most: float | None = None
) -> Row:
    """A column at `size` images against 4,000, repeat by repeat; times in ms per image."""
    table = series.pivot(index="repeat", columns="images", values=column)
    unit = "MiB" if column.endswith("_mib") else "ms"
    if unit == "ms":
        table = 1000 * table / table.columns
    what = f"{what}, {size:,} to {SMALL:,}"
    return growth(what, unit, list(table[size]), list(table[SMALL]), EQUAL, at_most)


def slopes(series: pd.DataFrame) -> list[str]:
    """Sentences: the cost of each further image, by a straight line through all sizes."""
    per_image = np.polyfit(series["images"], series["peak_mib"], 1)[0] * 2**10
    each = np.polyfit(series["images"], series["all_s"], 1)[0] * 1000
    start = series["start_s"].median()
    return [
        f"A further image takes {per_image:.2f} KiB of memory and {each:.2f} ms. Starting "
        f"TensorFlow, building and tracing took another {start:.1f} s."
    ]


# ------------------------------------------------------------------ the process


class PeakMemory(threading.Thread):
    """Samples this process's own memory all the time; `peak` is the largest, in MiB.

    Mapped files are not counted: the system reclaims them when it needs memory.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0.0
        self._ended = threading.Event()

    def run(self):
        while not self._ended.wait(LOOK_EVERY):
            self.peak = max(self.peak, own_memory())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
        self.peak = max(self.peak, own_memory())


def own_memory() -> float:
    """Anonymous memory of this process in MiB; its unique set if the system does not report it."""
    if STATUS.is_file():
        line = next(each for each in STATUS.read_text().splitlines() if each.startswith("RssAnon"))
        return int(line.split()[1]) / 2**10
    return psutil.Process().memory_full_info().uss / 2**20


@contextlib.contextmanager
def record_cost(found: dict, part: str):
    """Context that records seconds, processor seconds and peak memory of its body."""
    with PeakMemory() as memory:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        found[f"{part}_s"] = time.perf_counter() - wall
        found[f"{part}_cpu"] = time.process_time() - processor
    found[f"{part}_mib"] = memory.peak


def main(root: Path, manifest: Path, images: int, cache: Path) -> dict:
    """Seconds and peak memory of each part for the first `images` of the manifest."""
    started = time.perf_counter()
    from cytology.networks.batches import batches, decode, frozen_features
    from cytology.networks.passes import KerasPasses

    extractor, table = traced_extractor(), pd.read_csv(manifest, nrows=images)
    found = {"start_s": time.perf_counter() - started, "memory": MEMORY}
    with record_cost(found, "decode"):
        decoded = decode(root, table, IMAGE_SIZE, "pad", cache)
    with record_cost(found, "feed"):
        for _ in batches(decoded, pictures_of(table, ORIENTATIONS), BATCH, shuffle_seed=0):
            pass
    with record_cost(found, "features"):
        pictures = pictures_of(table[["image_id"]], 1)
        passes = KerasPasses(extractor)  # the same engine for every size
        frozen_features(passes, decoded, pictures, ["mobilenetv2"], BATCH, cache)
    for unit in ("s", "cpu"):
        found[f"all_{unit}"] = sum(found[f"{part}_{unit}"] for part in PARTS)
    return found | {"peak_mib": max(found[f"{part}_mib"] for part in PARTS)}


def traced_extractor():
    """MobileNetV2 up to its features, random weights, its graph built for batches of any length."""
    from cytology.networks.building import build, feature_extractor

    extractor = feature_extractor(build("mobilenetv2", IMAGE_SIZE))
    for length in (BATCH, BATCH - 1):
        extractor.predict_on_batch(np.zeros((length, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
    return extractor


# ----------------------------------------------------------------------- figure


def figure(result: Result) -> Figure:
    """Peak memory and seconds against the number of images, the parts apart."""
    drawn, axes = plt.subplots(1, 2, figsize=(11, 4.4))
    for axis, unit, whole in zip(axes, ("mib", "s"), ("peak_mib", "all_s"), strict=True):
        draw_parts(axis, result.series, unit, whole)
        axis.set_xlabel("images")
        axis.xaxis.set_major_locator(plt.MultipleLocator(10_000))
        axis.xaxis.set_major_formatter("{x:,.0f}")
    small = result.series[result.series["images"] == SMALL]
    ends = np.array([SMALL, result.series["images"].max()])
    pace = ends * small["all_s"].median() / SMALL
    axes[0].plot(ends, [1.15 * small["peak_mib"].median()] * 2, color=TARGET, linewidth=2)
    axes[1].fill_between(ends, 0.85 * pace, 1.15 * pace, color=TARGET, alpha=0.2, linewidth=0)
    axes[0].set(title="Peak memory of the process's own", ylabel="MiB")
    axes[1].set(title="Time after the start", ylabel="seconds")
    for axis in axes:
        axis.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    handles += [plt.Line2D([], [], color=TARGET), plt.Rectangle((0, 0), 1, 1, fc=TARGET, alpha=0.2)]
    labels += [f"1.15 times that at {SMALL:,}", f"within 15 % of the pace at {SMALL:,}"]
    drawn.legend(handles, labels, loc="outside lower center", ncols=3)
    return drawn


def draw_parts(axis, series: pd.DataFrame, unit: str, whole: str) -> None:
    """The medians of the whole and of each part, and every run of the whole."""
    axis.plot(
        series.groupby("images")[whole].median(), color=OURS, linewidth=5, alpha=0.35,
        label="all parts, median",
    )  # fmt: skip
    axis.plot(
        series["images"], series[whole], "o", color=OURS, markerfacecolor="none",
        label="all parts, each run",
    )  # fmt: skip
    for part, (colour, line) in LINES.items():
        middle = series.groupby("images")[f"{part}_{unit}"].median()
        axis.plot(middle, line, color=colour, label=PARTS[part])


if __name__ == "__main__":
    root, manifest, images, cache = sys.argv[1:]
    print(json.dumps(main(Path(root), Path(manifest), int(images), Path(cache))))
