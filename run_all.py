"""Run the notebooks one after the other, each in a process of its own, and write a report.

    python run_all.py                                    # profile `quick` on the drawn sample
    python run_all.py --profile full --data ~/smears     # your own images, classes in B/ and M/
    python run_all.py --only 04 07 -p head_epochs 20     # some notebooks, another parameter
    python run_all.py --jobs 2 --seeds 5                 # two at once; training with five seeds
    python run_all.py --list                             # notebooks and what they can be told
    python run_all.py --share ~/for-others               # a copy of the run without names
    python run_all.py --json > run.json                  # for machines: the outcome as JSON

A run folder (by default outputs/NAME_OF_PROFILE) gets the executed notebooks, tables, figures,
run.json and report.html. Started again in the same folder, the run goes on with the parameters
stored there; notebooks whose code, parameters and inputs are unchanged are kept. On a terminal
each notebook shows how far it is; in a file it gets one line when it ends. Whoever stops reading
(`run_all.py | head`) stops nothing: the run goes on to its end. Exit codes: 0 all went well, 1 a
notebook failed, the machine gave out, or --verify found a difference, 2 refused before the start,
or --share found a name, 130 interrupted.
"""

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.stderr.write(
        f"This is Python {sys.version.split()[0]}; the series needs Python 3.11, 3.12 or 3.13: "
        "README.md says under Set-up how to get one.\n"
    )
    sys.exit(2)

ROOT = Path(__file__).resolve().parent
# The package of this checkout, wherever the command is started and whatever else is installed.
sys.path.insert(0, str(ROOT / "notebooks"))


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit code."""
    from cytology.runner import streams

    streams.prepare()
    arguments = parse(sys.argv[1:] if argv is None else argv)
    # A batch queue ends a job so, some seconds before it kills it.
    signal.signal(signal.SIGTERM, interrupt)
    if not arguments.json:
        return answer(arguments, root).code
    # What people read goes to the other stream, so that this one holds JSON and nothing else.
    with contextlib.redirect_stdout(sys.stderr):
        outcome = answer(arguments, root)
    print(outcome.as_json())
    return outcome.code


def answer(arguments: argparse.Namespace, root: Path):
    """Do what the options ask for, and say how it ended: an `Outcome`."""
    # Late: `--help` has answered by now, and these take a moment.
    from cytology.runner import series
    from cytology.runner.outcome import Outcome
    from cytology.settings import InputError, MachineError

    project, folder = series.Project(root), None
    try:
        if arguments.list:
            print_list(project)
            return Outcome(0, listed=series.find_notebooks(project.notebooks))
        if arguments.jobs is not None and arguments.jobs < 1:
            raise InputError(
                f"--jobs is {arguments.jobs}; it must be a whole number of at least 1."
            )
        if arguments.verify is not None:
            check_alone(arguments)
            folder = Path(arguments.verify)
            return Outcome(verify(project, folder, arguments.jobs), folder.resolve())
        if arguments.share is not None:
            folder = share(project, arguments)
            return Outcome(0, folder)
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
        folder = plan.run
        return Outcome(run(plan, arguments.jobs or 1, arguments.dask), folder)
    except InputError as refusal:
        print(refusal, file=sys.stderr)
        return Outcome(1 if isinstance(refusal, MachineError) else 2, folder, str(refusal))
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return Outcome(130, folder)


def check_alone(arguments: argparse.Namespace) -> None:
    """`InputError` if --verify stands beside an option that would make it another run."""
    from cytology.settings import InputError

    if has_any(arguments, "profile data run_dir only start parameters dask folds force share"):
        raise InputError("--verify runs RUN again as it was: beside it only --jobs may stand.")


def has_any(arguments: argparse.Namespace, names: str) -> bool:
    """Whether any of these options was given, or other seeds."""
    return any(getattr(arguments, name) for name in names.split()) or arguments.seeds != 1


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
        "--jobs",
        type=int,
        metavar="N",
        help="N notebooks at once (default: 1; --verify: as RUN)",
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
    add(
        "--share",
        metavar="FOLDER",
        help="write a copy of the run in --run-dir there that names no patient, file or user",
    )
    add("--json", action="store_true", help="the outcome as JSON; what people read goes to stderr")
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
    from cytology.parameters import PARAMETERS
    from cytology.runner import series

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
    from cytology.runner import series
    from cytology.runner.record import Journal, sole_run
    from cytology.runner.terminal import print_end
    from cytology.settings import short

    # asyncio would log that an interrupted notebook was interrupted.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    tasks = series.tasks(plan)
    with sole_run(plan.run):
        if plan.taken:
            print(plan.taken, flush=True)
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
    from cytology.runner import parallel

    where = parallel.on_cluster(dask) if dask else parallel.on_this_machine(jobs)
    with where as executor:
        how = f"on {dask}" if dask else f"{jobs} at once"
        print(f"Profile {plan.profile}, {many}, {how}, run folder {short(plan.run)}", flush=True)
        return together(tasks, executor, journal)


def verify(project, folder: Path, jobs: int | None) -> int:
    """Run a finished run again from its images and compare every table; returns the exit code.

    As many notebooks at once as the run had, unless `jobs` says otherwise: how the last bits round
    hangs on the cores that each of them has.
    """
    from cytology.runner import series, verification
    from cytology.runner.record import sole_run
    from cytology.runner.terminal import print_verification

    folder = folder.resolve()
    record = verification.check_finished(folder)
    with sole_run(folder):
        again = verification.scratch(folder)
        # A cache of its own: what was computed before proves nothing.
        with variable("CYTOLOGY_CACHE", str(again / "cache")):
            at_once = jobs or record.get("notebooks_at_once") or 1
            code = run(series.plan_again(project, record, again), at_once)
        if code:
            return code
        files, found = verification.compare(folder, again)
        verification.write_verification(folder, files, found)
    print_verification(folder, again, files, found)
    if len(found) == 0:
        shutil.rmtree(again)
    return int(len(found) > 0)


def share(project, arguments: argparse.Namespace) -> Path:
    """Write a copy of a run that can be given away; returns its folder."""
    from cytology.report import sharing
    from cytology.runner import series
    from cytology.settings import InputError, short

    if has_any(arguments, "profile data only start parameters dask folds force jobs"):
        raise InputError("--share copies a run as it is: beside it only --run-dir may stand.")
    run = Path(arguments.run_dir or project.home / "outputs" / series.DEFAULT_PROFILE).resolve()
    folder = Path(arguments.share).resolve()
    files = sharing.share(run, folder)
    print(f"{short(run)} as {len(files)} files in {short(folder)}, which name no patient, file or")
    print("user. Its pictures are the patients' own: look at them before you give it away.")
    return folder


@contextlib.contextmanager
def variable(name: str, value: str):
    """Set a variable of the environment for the processes that are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def one_by_one(tasks: list, journal) -> dict:
    """Execute tasks in their order until one fails; returns the results by name."""
    from cytology.runner import headless
    from cytology.runner.terminal import Progress

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
    from cytology.runner import parallel
    from cytology.runner.terminal import Board

    board = Board(max(len(task.name) for task in tasks))

    def end(task, result):
        board.end(task.name, result, journal.reasons.get(task.name, ""))
        journal.end(task, result)

    return parallel.run_together(tasks, executor, journal.begin, end, board.show)


if __name__ == "__main__":
    sys.exit(main())
