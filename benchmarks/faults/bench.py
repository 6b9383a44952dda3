"""Tools for faults: a copy of the project, folders, small disks; and the list of all faults."""

import contextlib
import itertools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kills import environment
from cytology.runner.verification import compare_runs

SPLIT, TRAIN = ("01", "02", "03"), ("01", "02", "03", "04")
FINE_TUNE = ("-p", "fine_tune", "true", "-p", "fine_tune_from", "last", "-p", "orientations", "1")


class NotTried(Exception):
    """This machine cannot provoke the fault; the message says why."""


@dataclass(frozen=True)
class CallResult:
    """The result of a call of `run_all.py`: exit code and output."""

    code: int
    said: str

    def says(self, *words: str) -> bool:
        """Whether all `words` are in the output."""
        return all(word in self.said for word in words)

    def sentence(self, word: str) -> str:
        """The first sentence of the first line of the output with `word`."""
        line = next((line for line in self.said.splitlines() if word in line), "no such line")
        return re.split(r"(?<=\.) (?=[A-Z])", " ".join(line.split()))[0]


@dataclass
class Bench:
    """A copy of the project, and a folder for what a fault needs."""

    project: Path
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new(self, name: str) -> Path:
        """A new empty folder."""
        path = self.folder / f"{next(self.numbers)}-{name}"
        path.mkdir(parents=True)
        return path

    def call(self, run: Path, *arguments: str, only=(), cache: Path | None = None) -> CallResult:
        """Call `run_all.py` of profile smoke with random weights and wait for its end."""
        words = [sys.executable, "run_all.py", "--run-dir", run, "-p", "weights", "random"]
        words += [*(["--only", *only] if only else []), *arguments]
        words += [] if (run / "run.json").is_file() else ["--profile", "smoke"]
        more = {"CYTOLOGY_CACHE": str(cache)} if cache else {}
        done = subprocess.run(
            words,
            cwd=self.project,
            env=environment(self.project) | more,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        return CallResult(done.returncode, f"{done.stderr}\n{done.stdout}")

    @contextlib.contextmanager
    def small_disk(self, megabytes: int):
        """A disk in memory of this size: its path, and a function that changes its size."""
        if platform.system() != "Linux" or os.geteuid() != 0:
            raise NotTried("needs Linux and root for a small disk")
        disk = self.new("disk")
        options = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
        subprocess.run(options, check=True)

        def change(*how: str) -> None:
            words = ",".join(("remount", *how))
            subprocess.run(["mount", "-o", words, str(disk)], check=True)

        try:
            yield disk, change
        finally:
            subprocess.run(["umount", str(disk)], check=True)


@dataclass(frozen=True)
class Fault:
    """What is broken, what is expected, and a function that returns the outcome and a verdict."""

    name: str
    expected: str
    provoke: Callable[[Bench], tuple[bool, str]]


FAULTS: list[Fault] = []


def fault(name: str, expected: str):
    """Register a function as a fault."""

    def note(provoke):
        FAULTS.append(Fault(name, expected, provoke))
        return provoke

    return note


def same_tables(first: Path, second: Path) -> tuple[bool, str]:
    """Whether two runs have the same tables, also in words."""
    files, found = compare_runs(first, second)
    if len(found):
        return False, f"{found['file'].nunique()} tables differ"
    return bool(files), f"all {len(files)} tables are the same"


def text_of(path: Path) -> str:
    """The text of a file; empty if it is missing."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""
