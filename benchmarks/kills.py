"""Kill the series at random moments, restart it, and compare every table with a complete run.

    python -m benchmarks.kills                    # 25 kills of profile `smoke`; about half an hour
    python -m benchmarks.kills --kills 4 --jobs 2

The whole process tree is killed as by `kill -9`, in a copy of the project with its own data, caches
and outputs. Each kill is followed by a restart in the same folder. After each kill every file is
opened: none may be half written. The exit code is 1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pandas as pd
import psutil
from PIL import Image

from cytology.files import UNFINISHED
from cytology.runner import streams
from cytology.runner.verification import compare_runs, verdict_in_words
from cytology.settings import PROJECT_ROOT

COPIED = ("notebooks", "run_all.py", "requirements.txt", "pyproject.toml")
KILLS_A_RUN = 5  # how often each run is killed before it may end


def copy_of_project(folder: Path) -> Path:
    """A copy of the project in `folder`, without data, caches and outputs; returns its root."""
    for name in COPIED:
        source, target = PROJECT_ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".ipynb*"))
        else:
            shutil.copy(source, target)
    return folder


def environment(project: Path) -> dict[str, str]:
    """Environment variables for the copy's package and its own caches."""
    own = {"PYTHONPATH": str(project / "notebooks"), "PYTHONIOENCODING": "utf-8"}
    return {name: value for name, value in os.environ.items() if name != "CYTOLOGY_CACHE"} | own


def start(project: Path, run: Path, *arguments: str) -> subprocess.Popen:
    """Start the series; its output is appended to `<run>.log` next to the run folder."""
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "run_all.py", "--run-dir", run, *arguments],
            cwd=project,
            env=environment(project),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a process and all its children, with no chance to clean up."""
    tree = [psutil.Process(process.pid)]
    tree += tree[0].children(recursive=True)
    for each in tree:
        each.kill()
    psutil.wait_procs(tree)
    process.wait()


def at_work(run: Path) -> str:
    """What was running according to `run.json`, to show where a kill hit."""
    if not (run / "run.json").is_file():
        return "the start"
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    entries = {**record["notebooks"], **record["grid"]}
    running = [name[:2] for name, entry in entries.items() if entry["status"] == "running"]
    return ", ".join(running) or "between notebooks"


def killed_and_started_again(
    project: Path, run: Path, arguments: list[str], moments: list[float]
) -> Iterator[tuple[float, str, list[str]]]:
    """Start the series, kill it after each of the `moments` (seconds), finally let it end.

    Yields for each kill (seconds, what was running, half-written files). Raises RuntimeError with
    the log if the last start fails.
    """
    for moment in moments:
        process = start(project, run, *arguments)
        time.sleep(moment)
        if process.poll() is not None:
            break
        where = at_work(run)
        kill_tree(process)
        yield moment, where, half_written(run) + half_written(project / "outputs" / "cache")
    if start(project, run, *arguments).wait():
        raise RuntimeError(run.with_suffix(".log").read_text(encoding="utf-8")[-3000:])


# ------------------------------------------------------------------ whole files


def half_written(folder: Path) -> list[str]:
    """Files below `folder` that cannot be read to the end, except those marked as unfinished."""
    files = (path for path in folder.rglob("*") if path.is_file() and UNFINISHED not in str(path))
    return [f"{path.name}: {why}" for path in files if (why := trouble_with(path))]


def trouble_with(path: Path) -> str:
    """Why a file cannot be read; empty if it can, or is of another kind."""
    readers = {
        ".json": lambda: json.loads(path.read_text(encoding="utf-8")),
        ".csv": lambda: pd.read_csv(path),
        ".ipynb": lambda: nbformat.read(path, as_version=4),
        ".npy": lambda: np.load(path, allow_pickle=False),
        ".npz": lambda: [*np.load(path, allow_pickle=False).values()],
        ".h5": lambda: h5py.File(path).close(),
        ".keras": lambda: check_zip(path),
        ".png": lambda: Image.open(path).load(),
        ".html": lambda: check_end(path),
    }
    try:
        readers.get(path.suffix, lambda: None)()
    except pd.errors.EmptyDataError:
        # A table without columns and rows is valid: nothing was rejected.
        return "" if path.read_bytes() == b"\n" else "empty"
    except Exception as error:  # readers raise many types for broken files
        return f"{type(error).__name__}: {error}"
    return ""


def check_zip(path: Path) -> None:
    """Raise `BadZipFile` for a zip with incomplete members."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken:
        raise zipfile.BadZipFile(broken)


def check_end(path: Path) -> None:
    """Raise `EOFError` for an incomplete page."""
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise EOFError("no </html>")


# -------------------------------------------------------------------- the study


def main(argv: list[str] | None = None) -> int:
    """Kill, restart, compare; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", help="these notebooks")
    options = parser.parse_args(argv)
    arguments = ["--profile", "smoke", "-p", "weights", "random", "--jobs", str(options.jobs)]
    arguments += ["--only", *options.only] if options.only else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return study(Path(folder), arguments, options.kills, random.Random(options.seed))


def study(folder: Path, arguments: list[str], kills: int, chance: random.Random) -> int:
    """Print one line per kill, and the differences at the end; returns 1 if any, else 0."""
    project, runs = copy_of_project(folder / "project"), folder / "runs"
    began = time.monotonic()
    if start(project, runs / "whole", *arguments).wait():
        raise RuntimeError((runs / "whole.log").read_text(encoding="utf-8")[-3000:])
    whole = time.monotonic() - began
    print(f"A complete run with cold caches takes {whole:.0f} s.", flush=True)
    done, broken, differing, number = 0, 0, 0, 0
    while done < kills:
        number += 1
        for name in ("data", "outputs"):  # every run starts with nothing
            shutil.rmtree(project / name, ignore_errors=True)
        few = min(KILLS_A_RUN, kills - done)
        moments = [chance.uniform(1, 2 * whole / (few + 1)) for _ in range(few)]
        run = runs / f"run{number}"
        for moment, where, halves in killed_and_started_again(project, run, arguments, moments):
            done, broken = done + 1, broken + len(halves)
            print(
                f"run {number}, killed after {moment:5.1f} s in {where}; {halves_in_words(halves)}",
                flush=True,
            )
        files, found = compare_runs(runs / "whole", run)
        differing += len(found)
        print(f"run {number} ended; {' '.join(verdict_in_words(found, files))}", flush=True)
    print(f"{done} kills in {number} runs: {broken} half-written files, {differing} differences.")
    return int(bool(broken or differing))


def halves_in_words(halves: list[str]) -> str:
    """The half-written files in words."""
    return "no file is half written" if not halves else f"HALF WRITTEN: {'; '.join(halves)}"


if __name__ == "__main__":
    streams.prepare()
    os.environ.setdefault("CYTOLOGY_HEADLESS", "1")
    sys.exit(main())
