"""What `run_all.py` tells in a terminal: how far it is, and at the end how it went."""

import os
import sys
import textwrap
import time
from pathlib import Path

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.caveats import caveats
from cytology.evaluation.readable import gaps, groups_in_words, is_number, number_or_not_shown
from cytology.report.page import write_report
from cytology.runner import headless
from cytology.runner.verification import in_words
from cytology.settings import short
from cytology.tables import json_if_there, read_table

WIDTH = 100


class Progress:
    """One line a notebook: rewritten live on a terminal, printed once at the end elsewhere."""

    def __init__(self, name: str, width: int, again: str = ""):
        self.name = f"{name:{width}}"
        self.again = f"   again: {again}" if again else ""
        self.live = sys.stdout.isatty()
        self.cells = (0, 0)
        self.shown = 0.0
        if self.live:
            self._rewrite(self.name)

    def show(self, done: int, cells: int, seconds: float) -> None:
        """Show how far the notebook is; at most twice a second."""
        self.cells = (done, cells)
        if self.live and time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            self._rewrite(f"{self.name}   cells {done:>2}/{cells}   {seconds:.0f} s")

    def end(self, result) -> None:
        """The line that stays."""
        done, cells = self.cells
        far = f"cells {cells:>2}/{cells}" if result.status == "ok" else f"cells {done:>2}/{cells}"
        line = f"{self.name}   {far}   {result.seconds:.0f} s   {result.status}{self.again}"
        if result.status == "kept":
            line = f"{self.name}   kept: unchanged"
        if self.live:
            self._rewrite(line)
            print()
        else:
            print(line, flush=True)

    def _rewrite(self, line: str) -> None:
        print(f"\r{line:<{WIDTH - 1}}", end="", flush=True)


class Board:
    """Notebooks that run at once: on a terminal a live line of them, and a line for each ended."""

    def __init__(self, width: int):
        self.width = width
        self.live = sys.stdout.isatty()
        self.since: dict[str, float] = {}

    def show(self, names: list[str]) -> None:
        """Show what runs, and for how long it has."""
        now = time.monotonic()
        self.since = {name: self.since.get(name, now) for name in names}
        if self.live:
            running = ", ".join(f"{name} {now - at:.0f} s" for name, at in self.since.items())
            print(f"\r{textwrap.shorten(running, WIDTH - 1):<{WIDTH - 1}}", end="", flush=True)

    def end(self, name: str, result, again: str = "") -> None:
        """The line that stays."""
        line = f"{name:{self.width}}   {result.seconds:.0f} s   {result.status}"
        line += f"   again: {again}" if again else ""
        if result.status == "kept":
            line = f"{name:{self.width}}   kept: unchanged"
        print(f"\r{line:<{WIDTH - 1}}" if self.live else line, flush=True)


# ------------------------------------------------------------------ the end


def print_end(plan, tasks: list, results: dict, journal) -> None:
    """Failure, times, what was kept, caveats, comparison and where the report is."""
    for task in tasks:
        result = results.get(task.name)
        if result and result.status != "kept" and task.output.is_file():
            headless.to_html(task.output)
        if result and result.failure:
            print_failure(task.name, result.failure, task.output)
    left = [task.name for task in tasks if task.name not in results]
    if left:
        print("\n" + textwrap.fill(f"Not started: {', '.join(left)}", WIDTH))
    print_times(results)
    print_kept(results, journal)
    print_caveats(plan.run)
    print_comparison(plan.run)
    print(f"\nReport: {short(write_report(plan.run))}")


def print_failure(name: str, failure, executed: Path) -> None:
    """The sentence for what the user can mend; for anything else the error and its cell."""
    print(f"\n{name} stopped: {failure}" if failure.is_input else f"\n{name} failed: {failure}")
    if not failure.is_input and failure.cell:
        print("In this cell:\n" + textwrap.indent(failure.cell.rstrip(), "    "))
    if executed.is_file():
        print(f"Executed so far: {short(executed)}")


def print_times(results: dict) -> None:
    """A table of status, time and peak memory of what was executed."""
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


def print_kept(results: dict, journal) -> None:
    """Which notebooks were kept, and what a reader must know of them."""
    kept = [name for name, result in results.items() if result.status == "kept"]
    if kept:
        text = f"Kept, since code, parameters and inputs are unchanged: {', '.join(kept)}. "
        print("\n" + textwrap.fill(text + "--force runs them again.", WIDTH))
    for notice in journal.notices:
        print("\n" + textwrap.fill(f"NOTE: {notice}", WIDTH))


def print_caveats(folder: Path) -> None:
    """What the run must say aloud; a leak in red on a terminal."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for caveat in caveats(folder):
        text = textwrap.fill(caveat.text, WIDTH, initial_indent="!! ", subsequent_indent="!! ")
        print("\n" + (f"\033[1;31m{text}\033[0m" if colour and caveat.kind == "leak" else text))


def print_comparison(folder: Path) -> None:
    """`tables/comparison.csv` as text, as many of its columns as fit, and who was judged."""
    if not (folder / "tables" / "comparison.csv").is_file():
        return
    table = read_table(folder, "tables/comparison.csv")
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
        row, unit = table.iloc[0], json_if_there(folder, "split.json").get("unit", "group")
        who = groups_in_words(row, unit)
        print(f"Judged {row['judged_on']}: {row['images']} images of {who}.")
    if missing := gaps(table, columns):
        print(textwrap.fill(missing, WIDTH))


def print_verification(run: Path, again: Path, files: list[str], found) -> None:
    """How a run compared with the same run again in the folder `again`."""
    print(f"\nVerification of {short(run)}:")
    for sentence in in_words(found, files):
        print(textwrap.fill(sentence, WIDTH))
    if len(found):
        print(f"The second run stays in {short(again)} to be looked at.")
