"""What `run_all.py` prints: its progress, and a summary at the end."""

import os
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.caveats import about_outside, caveats
from cytology.evaluation.readable import gaps, groups_in_words, is_number, number_or_not_shown
from cytology.run import Run
from cytology.runner.headless import Failure, Result
from cytology.runner.plan import Task
from cytology.runner.verification import verdict_in_words
from cytology.settings import short
from cytology.wording import counted

WIDTH = 100


class Progress:
    """One line per notebook: updated live on a terminal, otherwise printed once at the end."""

    def __init__(self, name: str, width: int, again: str = ""):
        self.name = f"{name:{width}}"
        self.again = again
        self.live = sys.stdout.isatty()
        self.cells = (0, 0)
        self.shown = 0.0
        if self.live:
            print_line(self.name, live=True, end="")

    def show(self, done: int, cells: int, seconds: float) -> None:
        """Show the progress of the notebook, at most twice a second."""
        self.cells = (done, cells)
        if self.live and time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            line = f"{self.name}   cells {done:>2}/{cells}   {seconds:.0f} s"
            print_line(line, live=True, end="")

    def end(self, result: Result) -> None:
        """Print the line that stays."""
        done, cells = self.cells
        far = f"cells {cells if result.status == 'ok' else done:>2}/{cells}   "
        print_line(line_of(self.name, result, self.again, far), self.live)


class Board:
    """Notebooks that run at once: a live line on a terminal, and a line for each when it ends."""

    def __init__(self, width: int):
        self.width = width
        self.live = sys.stdout.isatty()
        self.since: dict[str, float] = {}

    def show(self, names: list[str]) -> None:
        """Show which notebooks run, and for how long."""
        now = time.monotonic()
        self.since = {name: self.since.get(name, now) for name in names}
        if self.live:
            running = ", ".join(f"{name} {now - at:.0f} s" for name, at in self.since.items())
            print_line(textwrap.shorten(running, WIDTH - 1), live=True, end="")

    def end(self, name: str, result: Result, again: str = "") -> None:
        """Print the line that stays."""
        print_line(line_of(f"{name:{self.width}}", result, again), self.live)


def line_of(name: str, result: Result, again: str, far: str = "") -> str:
    """The line of a notebook that has ended; `again` is the reason if it had run before."""
    if result.status == "kept":
        return f"{name}   kept: unchanged"
    why = f"   again: {again}" if again else ""
    return f"{name}   {far}{result.seconds:.0f} s   {result.status}{why}"


def print_line(line: str, live: bool, end: str = "\n") -> None:
    """Print a line; on a terminal (`live`) replace the present one."""
    print(f"\r{line:<{WIDTH - 1}}" if live else line, end=end, flush=True)


# ------------------------------------------------------------------ the end


def print_end(run: Run, tasks: list[Task], results: dict[str, Result], notices: list[str]) -> None:
    """Print failures, times, kept notebooks, caveats and the comparison."""
    for task in tasks:
        result = results.get(task.name)
        if result and result.failure:
            print_failure(task.name, result.failure, task.output)
    left = [task.name for task in tasks if task.name not in results]
    if left:
        print("\n" + textwrap.fill(f"Not started: {', '.join(left)}", WIDTH))
    print_times(results)
    print_kept(results, notices)
    print_left_out(run)
    print_caveats(run)
    print_comparison(run)


def print_failure(name: str, failure: Failure, executed: Path) -> None:
    """Print a failure: the message alone if it says what to do, else the error with its cell."""
    print(f"\n{name} stopped: {failure}" if failure.is_input else f"\n{name} failed: {failure}")
    if not failure.is_input and failure.cell:
        print("In this cell:\n" + textwrap.indent(failure.cell.rstrip(), "    "))
    if executed.is_file():
        print(f"Executed so far: {short(executed)}")


def print_times(results: dict[str, Result]) -> None:
    """Print a table of status, time and peak memory of the executed notebooks."""
    results = {name: result for name, result in results.items() if result.status != "kept"}
    if not results:
        return
    width = max(len(name) for name in results)
    print(f"\n{'notebook':{width}}   {'status':8} {'seconds':>8} {'peak MiB':>9}")
    for name, result in results.items():
        print(
            f"{name:{width}}   {result.status:8} {result.seconds:8.1f} {result.peak_memory_mib:9,}"
        )
    total = sum(result.seconds for result in results.values())
    peak = max(result.peak_memory_mib for result in results.values())
    print(f"{'all':{width}}   {'':8} {total:8.1f} {peak:9,}")


def print_kept(results: dict[str, Result], notices: list[str]) -> None:
    """Print which notebooks were kept, and the warnings about them."""
    kept = [name for name, result in results.items() if result.status == "kept"]
    if kept:
        text = f"Kept, because code, parameters and inputs are unchanged: {', '.join(kept)}. "
        print("\n" + textwrap.fill(text + "--force runs them again.", WIDTH))
    for notice in notices:
        print("\n" + textwrap.fill(f"NOTE: {notice}", WIDTH))


def print_left_out(run: Run) -> None:
    """Print how many files of the folder are not compared, and where they are listed."""
    rejected, unseen = (len(run.rows(name)) for name in ("rejected.csv", "unseen.csv"))
    notes = []
    if rejected:
        files = counted(rejected, "file was", "files were")
        notes.append(f"{files} left out; rejected.csv gives the reasons.")
    if unseen:
        images = counted(unseen, "image is", "images are")
        notes.append(f"{images} of neither class; unseen.csv lists them.")
    if notes:
        print("\n" + textwrap.fill("NOTE: " + " ".join(notes), WIDTH))


def print_caveats(run: Run) -> None:
    """Print the caveats of the run; a leak in red on a terminal."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for caveat in caveats(run) + about_outside(run):
        text = textwrap.fill(caveat.text, WIDTH, initial_indent="!! ", subsequent_indent="!! ")
        print("\n" + (f"\033[1;31m{text}\033[0m" if colour and caveat.kind == "leak" else text))


def print_comparison(run: Run) -> None:
    """Print `tables/comparison.csv`, as many columns as fit, and on whom it was computed."""
    if not run.has("tables/comparison.csv"):
        return
    table = run.table("tables/comparison.csv")
    first = "architecture weights auc auc_low auc_high accuracy precision recall f1 loss".split()
    columns = [name for name in first if name in table]
    numbers = [name for name in columns if is_number(table[name])]
    cells = table.replace({"architecture": NETWORK_TITLE}).astype(dict.fromkeys(numbers, object))
    for name in numbers:
        cells[name] = [number_or_not_shown(row, name, table[name]) for _, row in table.iterrows()]
    while True:
        text = cells[columns].to_string(index=False, line_width=None)
        if len(columns) <= 2 or max(map(len, text.splitlines())) <= WIDTH:
            break
        columns.pop()
    print(f"\n{text}")
    if {"judged_on", "images", "groups"} <= set(table):
        row, unit = table.iloc[0], run.facts_if_there("split.json").get("unit", "group")
        who = groups_in_words(row, unit)
        print(f"Judged {row['judged_on']}: {row['images']} images of {who}.")
    if missing := gaps(table, columns):
        print(textwrap.fill(missing, WIDTH))


def print_verification(run: Path, again: Path, files: list[str], found: pd.DataFrame) -> None:
    """Print how a run compares with its repetition in the folder `again`."""
    print(f"\nVerification of {short(run)}:")
    for sentence in verdict_in_words(found, files):
        print(textwrap.fill(sentence, WIDTH))
    if len(found):
        print(f"The second run is kept in {short(again)} for inspection.")
