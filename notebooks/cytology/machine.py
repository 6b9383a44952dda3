"""The machine and software of a run: versions, commit, processor cores."""

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess

from joblib import Parallel, delayed, parallel_config

from cytology.notebook import progress
from cytology.settings import PROJECT_ROOT


def versions() -> dict[str, str]:
    """Versions of Python and of the packages in `requirements.txt`, or `not installed`."""
    names = re.findall(
        r"^([A-Za-z][\w-]*)", (PROJECT_ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE
    )
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in [*names, "keras", "numpy"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state() -> dict:
    """Commit of the project and whether tracked files were changed; `unknown` without git."""

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError) as error:
        return {"commit": "unknown", "why": str(error)}


def cores() -> int:
    """Processor cores that this process may use: `CYTOLOGY_CORES` if set, else all."""
    return int(os.environ.get("CYTOLOGY_CORES", all_cores()))


def all_cores() -> int:
    """Processor cores that the system allows this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(function, items: list, what: str, unit: str = "image", chunk: int = 512):
    """Yield `function(item)` for each item, in order, from all workers, with a progress bar."""
    with workers(), progress(None, what, len(items), unit) as bar:
        # Chunk by chunk, since not every backend returns results one by one.
        for start in range(0, len(items), chunk):
            yield from Parallel()(delayed(function)(item) for item in items[start : start + chunk])
            bar.update(min(chunk, len(items) - start))


@contextlib.contextmanager
def workers():
    """Let joblib use all cores or, if `DASK_SCHEDULER_ADDRESS` is set, that Dask cluster.

    The workers of the cluster must have this project installed and see the images under the same
    paths.
    """
    if "DASK_SCHEDULER_ADDRESS" not in os.environ:
        with parallel_config(n_jobs=cores(), prefer="threads"):
            yield
        return
    from dask.distributed import Client

    # By name: Dask reads the variable only once, when it is imported.
    with Client(os.environ["DASK_SCHEDULER_ADDRESS"]), parallel_config(backend="dask", n_jobs=-1):
        yield
