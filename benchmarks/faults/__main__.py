"""Provoke the faults, print what was seen, and write docs/faults.md."""

import argparse
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.faults import damaged, disks, ended, given
from benchmarks.faults.bench import FAULTS, Bench, NotTried
from benchmarks.kills import copy_of_project
from cytology.runner import streams
from cytology.settings import PROJECT_ROOT, short

PAGE = PROJECT_ROOT / "docs" / "faults.md"
# Importing them is what fills the list.
GROUPS = (ended, disks, damaged, given)


def main(argv: list[str] | None = None) -> int:
    """Provoke the chosen faults; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="words of the faults' names")
    parser.add_argument("--list", action="store_true", help="list the faults, provoke none")
    options = parser.parse_args(argv)
    chosen = [
        each for each in FAULTS if not options.words or any(w in each.name for w in options.words)
    ]
    if options.list:
        print(*(each.name for each in chosen), sep="\n")
        return 0
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(copy_of_project(Path(folder) / "project"), Path(folder) / "runs")
        for each in chosen:
            try:
                good, seen = each.provoke(bench)
                mark = "as expected" if good else "NOT AS EXPECTED"
            except NotTried as reason:
                good, mark, seen = True, "not tried", str(reason)
            seen = seen.replace(str(bench.folder), "").replace("|", "/").replace("\n", " ")
            rows.append((each.name, each.expected, f"{mark}: {seen}", good))
            print(f"{each.name}\n    {mark}: {seen}", flush=True)
    if not options.words:
        write_page(rows)
    return int(not all(good for *_, good in rows))


def write_page(rows: list[tuple]) -> None:
    """Write docs/faults.md."""
    lines = [
        "# Faults tried",
        "",
        "Written by `python -m benchmarks.faults`, which provokes each through `run_all.py` with "
        f"profile `smoke`; {platform.system()}, Python {platform.python_version()}.",
        "",
        "| fault | expected | seen |",
        "|---|---|---|",
        *(f"| {name} | {expected} | {seen} |" for name, expected, seen, _ in rows),
        "",
    ]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    print(f"Written: {short(PAGE)}")


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main())
