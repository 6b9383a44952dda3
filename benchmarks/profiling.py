"""Where do the seconds of the series go? By notebook, and by kind of work.

    python -m benchmarks profile                      # from empty caches
    python -m benchmarks profile --warm               # the second run with the same caches
    python -m benchmarks profile --profile smoke --weights random

Runs the whole series, one notebook after the other, in a folder that is removed afterwards. In each
of its processes a thread samples the running work a hundred times a second
(`benchmarks/sampler/sitecustomize.py`). Prints seconds: one row per notebook, and one for
run_all.py, whose `waiting` is for the notebooks and is left out of the last two rows. If joblib's
processes work for a notebook, its seconds are divided like theirs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.sampler.sitecustomize import WAITING, WORKERS
from cytology.runner.notebooks import Project, find_notebooks
from cytology.settings import PROJECT_ROOT

RUNNER = "run_all.py"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--warm", action="store_true", help="run twice, profile the second")
    parser.add_argument("--profile", default="quick", help="like run_all.py's")
    parser.add_argument("--weights", help="like the notebooks' parameter")
    return parser.parse_args(arguments)


def run_series(folder: Path, name: str, given: argparse.Namespace, watched: bool) -> int:
    """Run the series in `folder / name`, with the caches of `folder`; returns its exit code.

    If it is `watched`, each process writes its seconds into `folder / "seconds"`.
    """
    surroundings = os.environ | {"CYTOLOGY_CACHE": str(folder / "cache")}
    if watched:
        (folder / "seconds").mkdir()
        sampler = str(Path(__file__).with_name("sampler"))
        paths = [sampler, *filter(None, [os.environ.get("PYTHONPATH")])]
        surroundings["PYTHONPATH"] = os.pathsep.join(paths)
        surroundings["CYTOLOGY_SECONDS"] = str(folder / "seconds")
    options = ["--run-dir", str(folder / name), "--profile", given.profile, "--jobs", "1"]
    if given.weights:
        options += ["-p", "weights", given.weights]
    command = [sys.executable, str(PROJECT_ROOT / RUNNER), *options]
    return subprocess.run(command, env=surroundings).returncode


def seconds_by_kind(processes: list[dict], notebooks: list[str]) -> pd.DataFrame:
    """One row per notebook and one for the runner, one column per kind of work, the largest first.

    `processes` is the sampler's output, in the order of their start. The n-th kernel is that of the
    n-th of `notebooks`.
    """
    kernels = [each for each in processes if "ipykernel" in " ".join(each["command"])]
    rows = dict(zip(notebooks, kernels, strict=False))
    (rows[RUNNER],) = [each for each in processes if RUNNER in " ".join(each["command"])]
    table = {}
    for name, process in rows.items():
        seconds = pd.Series(process["seconds"], dtype=float)
        waited = seconds.pop(WORKERS) if WORKERS in seconds else 0.0
        mine = [
            pd.Series(each["seconds"], dtype=float)
            for each in processes
            if each["parent"] == process["process"]
            and each not in kernels
            and "resource_tracker" not in " ".join(each["command"])  # always there, does nothing
        ]
        done = pd.concat(mine).groupby(level=0).sum() if mine else pd.Series(dtype=float)
        done = done.drop([WAITING, WORKERS], errors="ignore")
        shares = done / done.sum() if done.sum() else pd.Series({WAITING: 1.0})
        table[name] = seconds.add(waited * shares, fill_value=0)
    found = pd.DataFrame(table).T.fillna(0.0)
    return found[found.sum().sort_values(ascending=False).index]


def with_sums(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the sum of each row, and total rows: seconds, and shares in percent."""
    table = table.assign(sum=table.sum(axis=1))
    counted = table.copy()
    counted.loc[RUNNER, "sum"] -= table.loc[RUNNER, WAITING]
    counted.loc[RUNNER, WAITING] = 0.0
    table.loc["all"] = counted.sum()
    table.loc["percent"] = 100 * table.loc["all"] / table.loc["all", "sum"]
    return table


def most_unknown(processes: list[dict], most: int = 8) -> list[str]:
    """The places of unclassified work that were seen most often, innermost first."""
    places = [pd.Series(each["unknown"], dtype=float) for each in processes]
    seen = pd.concat(places).groupby(level=0).sum().sort_values(ascending=False).head(most)
    return [f"{int(count):6} looks  {place}" for place, count in seen.items()]


def main(arguments: list[str]) -> int:
    """Run the series and print the table; returns the exit code of a series that failed."""
    given = parse(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if given.warm and (code := run_series(folder, "first", given, watched=False)):
            return code
        if code := run_series(folder, "run", given, watched=True):
            return code
        files = sorted((folder / "seconds").glob("*.json"))
        processes = [json.loads(path.read_text("utf-8")) for path in files]
    names = [notebook.name for notebook in find_notebooks(Project().notebooks)]
    print(f"\n{with_sums(seconds_by_kind(processes, names)).round(1).to_string()}")
    print("\nUnclassified, and messages between processes:", *most_unknown(processes), sep="\n")
    return 0
