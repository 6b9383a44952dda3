"""B6: the notebooks of a series one after the other, and two at once."""

import contextlib
import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.comparison import Result, compare, in_turn, seconds
from benchmarks.registry import Options
from cytology.machine import cores
from cytology.settings import PROJECT_ROOT

PROFILE = "smoke"
EQUAL = (
    f"profile {PROFILE} with all its notebooks, a new run folder each time, caches that one run "
    "filled beforehand; notebooks at once share the cores of this machine"
)


def measure(options: Options, folder: Path) -> Result:
    """Seconds of `run_all.py` with one and two jobs, and on one and two Dask workers."""
    numbers = itertools.count()

    def run(*arguments: str) -> float:
        return seconds(lambda: run_series(folder / f"run{next(numbers)}", *arguments))

    run()
    ways = {f"--jobs {jobs}": lambda jobs=jobs: run("--jobs", str(jobs)) for jobs in (1, 2)}
    notes = [f"Images: those of profile {PROFILE}. This machine has {cores()} cores."]
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("distributed"):
            for workers in (1, 2):
                address = stack.enter_context(dask_workers(workers))
                ways[f"Dask workers: {workers}"] = lambda address=address: run("--dask", address)
        else:
            notes.append("`distributed` is not installed: Dask was not measured.")
        found = in_turn(ways, options.repeats)
    rows = [
        compare(f"{kind} 2 against 1", "s", found[f"{kind} 2"], found[f"{kind} 1"], EQUAL)
        for kind in ("--jobs", "Dask workers:")
        if f"{kind} 2" in found
    ]
    return Result(rows, notes)


def run_series(run_dir: Path, *arguments: str) -> None:
    """Run the series into `run_dir`; raises RuntimeError with what it said if it fails."""
    done = subprocess.run(
        [sys.executable, "run_all.py", "--profile", PROFILE, "--run-dir", run_dir, *arguments],
        cwd=PROJECT_ROOT,
        env=os.environ | {"CYTOLOGY_HEADLESS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        said = f"run_all.py {' '.join(arguments)} ended with code {done.returncode}"
        raise RuntimeError(f"{said}:\n{done.stdout[-3000:]}")


@contextlib.contextmanager
def dask_workers(workers: int):
    """The address of a Dask scheduler on this machine with so many workers, one thread each."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address
