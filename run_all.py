"""Run the notebooks one after the other, each in a process of its own, and write a report.

    python run_all.py                                    # profile `quick` on the drawn sample
    python run_all.py --profile full --data ~/smears     # your own images, classes in B/ and M/
    python run_all.py --only 04 07 -p head_epochs 20     # some notebooks, another parameter
    python run_all.py --jobs 2 --seeds 5                 # two at once; training with five seeds
    python run_all.py --list                             # notebooks and what they can be told

A run folder (by default outputs/NAME_OF_PROFILE) gets the executed notebooks, tables, figures,
run.json and report.html. Started again in the same folder, the run goes on with the parameters
stored there; notebooks whose code, parameters and inputs are unchanged are kept. Exit codes: 0 all
went well, 1 a notebook failed, the machine gave out, or --verify found a difference, 2 refused
before the start, 130 interrupted.
"""

import argparse
import logging
import os
import shutil
import signal
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# The package of this checkout, wherever the command is started and whatever else is installed.
sys.path.insert(0, str(ROOT / "notebooks"))

WIDTH = 100


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A console that cannot write an umlaut shall show a question mark, not fail.
            stream.reconfigure(errors="replace")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    # Late: `--help` has answered by now, and these take a moment.
    from cytology import series
    from cytology.settings import InputError, MachineError

    # A batch queue ends a job so, some seconds before it kills it.
    signal.signal(signal.SIGTERM, interrupt)
    project = series.Project(root)
    try:
        if arguments.list:
            print_list(project)
            return 0
        if arguments.jobs < 1:
            raise InputError(
                f"--jobs is {arguments.jobs}; it must be a whole number of at least 1."
            )
        if arguments.verify is not None:
            return verify(project, Path(arguments.verify), arguments.jobs)
        plan = series.make_plan(
            project,
            given_parameters(arguments),
            profile=arguments.profile,
            only=arguments.only,
            start=arguments.start,
            force=arguments.force,
            seeds=arguments.seeds,
            folds=arguments.folds,
        )
        return run(plan, arguments.jobs, arguments.dask)
    except InputError as refusal:
        print(refusal, file=sys.stderr)
        return 1 if isinstance(refusal, MachineError) else 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def interrupt(*_) -> None:
    """What a signal to end does: the same as Ctrl-C."""
    raise KeyboardInterrupt


def parse(argv: list[str]) -> argparse.Namespace:
    """The options as given; values of `-p` stay text."""
    parser = argparse.ArgumentParser(
        "run_all.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", metavar="NAME", help="a file of notebooks/profiles/ (default: quick)")
    add("--data", metavar="FOLDER", help="`sample`, or a folder of images in two classes")
    add("--run-dir", metavar="FOLDER", help="folder for everything of this run")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NOTEBOOK",
        help="these notebooks, by number or name",
    )
    some.add_argument("--from", dest="start", metavar="NOTEBOOK", help="this notebook and later")
    add(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks; may be repeated",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="run N notebooks at once (default: 1)"
    )
    where.add_argument("--dask", metavar="ADDRESS", help="send notebooks to this Dask scheduler")
    add("--seeds", type=int, default=1, metavar="N", help="train again with N - 1 other seeds")
    add("--folds", type=int, metavar="K", help="split into K folds, and train anew for each")
    add("--list", action="store_true", help="show the notebooks and their parameters, run nothing")
    add(
        "--force",
        action="store_true",
        help="other parameters in an existing run folder: redo what depends on them; "
        "the same parameters: redo everything",
    )
    add("--verify", metavar="RUN", help="run RUN again elsewhere and compare every table")
    return parser.parse_args(guard_values(argv))


def guard_values(argv: list[str]) -> list[str]:
    """Shield values after `-p NAME`: argparse takes a pattern like `-(\\d+)-` for an option."""
    guarded = list(argv)
    for place, word in enumerate(argv):
        if word == "-p" and place + 2 < len(argv) and argv[place - 1] != "-p":
            guarded[place + 2] = "\0" + argv[place + 2]
    return guarded


def given_parameters(arguments: argparse.Namespace) -> dict[str, str]:
    """Parameters named on the command line, as text; `--data` and `--run-dir` are two of them."""
    given = {name: value.removeprefix("\0") for name, value in arguments.parameters}
    options = {"data": arguments.data, "run_dir": arguments.run_dir}
    return given | {name: value for name, value in options.items() if value is not None}


def print_list(project) -> None:
    """The profiles, and every notebook with its parameters, their defaults and meaning."""
    from cytology import series
    from cytology.settings import PARAMETERS

    print("Profiles:", ", ".join(sorted(path.stem for path in project.profiles.glob("*.yaml"))))
    for notebook in series.find_notebooks(project.notebooks):
        print(f"\n{notebook.name}   {notebook.title}")
        for name, default in notebook.parameters.items():
            meaning = PARAMETERS[name].meaning if name in PARAMETERS else ""
            print(f"    {f'{name} = {default!r}':34} {meaning}".rstrip())


# ----------------------------------------------------------------- running


def run(plan, jobs: int = 1, dask: str | None = None) -> int:
    """Run the notebooks of `plan`, print how it went, write the report; returns the exit code.

    One after the other, or `jobs` at once, or on the cluster at `dask`. Raises `InputError` if
    that does not answer, or another run is at work in the folder, `MachineError` if the folder
    cannot be written to.
    """
    from cytology import series
    from cytology.journal import Journal, sole_run
    from cytology.settings import short

    # asyncio would log that an interrupted notebook was interrupted.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    tasks = series.tasks(plan)
    with sole_run(plan.run):
        journal = Journal(plan, jobs)
        results = execute_all(plan, tasks, journal, jobs, dask)
        journal.close()
        results = {task.name: results[task.name] for task in tasks if task.name in results}
        for task in tasks:
            if task.name in results and results[task.name].status == "interrupted":
                print(f"Interrupted in {task.name}; what is done is kept in {short(plan.run)}.")
                return 130
        print_end(plan, tasks, results, journal)
    return 0 if all(result.is_good for result in results.values()) else 1


def execute_all(plan, tasks: list, journal, jobs: int, dask: str | None) -> dict:
    """Execute `tasks` where the options say; returns the results by name."""
    from cytology.settings import short

    many = f"{len(tasks)} notebook{'s' if len(tasks) > 1 else ''}"
    if jobs == 1 and dask is None:
        print(f"Profile {plan.profile}, {many}, run folder {short(plan.run)}", flush=True)
        return one_by_one(tasks, journal)
    from cytology import scheduling

    where = scheduling.on_cluster(dask) if dask else scheduling.on_this_machine(jobs)
    with where as executor:
        how = f"on {dask}" if dask else f"{jobs} at once"
        print(f"Profile {plan.profile}, {many}, {how}, run folder {short(plan.run)}", flush=True)
        return together(tasks, executor, journal)


def verify(project, folder: Path, jobs: int) -> int:
    """Run a finished run again from its images and compare every table; returns the exit code."""
    from cytology import series, verification
    from cytology.journal import sole_run
    from cytology.settings import short

    folder = folder.resolve()
    record = verification.check_finished(folder)
    with sole_run(folder):
        again = verification.scratch(folder)
        # A cache of its own: what was computed before proves nothing.
        os.environ["CYTOLOGY_CACHE"] = str(again / "cache")
        code = run(series.plan_again(project, record, again), jobs)
        if code:
            return code
        files, found = verification.compare(folder, again)
        verification.write_verification(folder, files, found)
    print(f"\nVerification of {short(folder)}:")
    print(*(textwrap.fill(line, WIDTH) for line in verification.in_words(found, files)), sep="\n")
    if len(found):
        print(f"The second run stays in {short(again)} to be looked at.")
        return 1
    shutil.rmtree(again)
    return 0


def one_by_one(tasks: list, journal) -> dict:
    """Execute tasks in their order until one fails; returns the results by name."""
    from cytology import headless

    results, width = {}, max(len(task.name) for task in tasks)
    for task in tasks:
        result = journal.begin(task)
        progress = Progress(task.name, width, journal.reasons.get(task.name, ""))
        if result is None:
            result = headless.execute(task.notebook, task.output, task.parameters, progress.show)
        progress.end(result)
        journal.end(task, result)
        results[task.name] = result
        if not result.is_good:
            break
    return results


def together(tasks: list, executor, journal) -> dict:
    """Execute tasks as soon as what they need is done; returns the results by name."""
    from cytology import scheduling

    board = Board(max(len(task.name) for task in tasks))

    def end(task, result):
        board.end(task.name, result, journal.reasons.get(task.name, ""))
        journal.end(task, result)

    return scheduling.run_together(tasks, executor, journal.begin, end, board.show)


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
    from cytology import headless
    from cytology.report import write_report
    from cytology.settings import short

    for task in tasks:
        result = results.get(task.name)
        if result and result.status != "kept" and task.output.is_file():
            headless.to_html(task.output)
        if result and result.failure:
            print_failure(task.name, result.failure, task.output)
    left = [task.name for task in tasks if task.name not in results]
    if left:
        print(f"\nNot started: {', '.join(left)}")
    print_times(results)
    print_kept(results, journal)
    print_caveats(plan.run)
    print_comparison(plan.run)
    print(f"\nReport: {short(write_report(plan.run))}")


def print_failure(name: str, failure, executed: Path) -> None:
    """The sentence for what the user can mend; for anything else the error and its cell."""
    from cytology.settings import short

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
    from cytology.caveats import caveats

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for caveat in caveats(folder):
        text = textwrap.fill(caveat.text, WIDTH, initial_indent="!! ", subsequent_indent="!! ")
        print("\n" + (f"\033[1;31m{text}\033[0m" if colour and caveat.kind == "leak" else text))


def print_comparison(folder: Path) -> None:
    """`tables/comparison.csv` as text, as many of its columns as fit."""
    from cytology.tables import read_table

    if not (folder / "tables" / "comparison.csv").is_file():
        return
    table = read_table(folder, "tables/comparison.csv")
    first = "architecture weights accuracy precision recall f1 loss auc auc_low auc_high".split()
    columns = [name for name in first if name in table]
    if "weights" in table:  # of a long path the file's name tells which it is
        table["weights"] = [Path(str(value)).name for value in table["weights"]]
    while True:
        text = table[columns].to_string(index=False, float_format="{:.3f}".format, line_width=None)
        if len(columns) <= 2 or max(map(len, text.splitlines())) <= WIDTH:
            break
        columns.pop()
    print(f"\n{text}")


if __name__ == "__main__":
    sys.exit(main())
