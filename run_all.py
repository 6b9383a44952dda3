"""Run the notebooks one after the other, each in its own process, and write a report.

    python run_all.py                                    # profile `quick` on the drawn sample
    python run_all.py --profile full --data ~/smears     # your own images, in folders B/ and M/
    python run_all.py --only 04 07 -p head_epochs 20     # two notebooks, one parameter changed
    python run_all.py --jobs 2 --seeds 5                 # two at a time; train with five seeds
    python run_all.py --given-split split.csv            # use a split made elsewhere
    python run_all.py --list                             # list notebooks and their parameters
    python run_all.py --share ~/for-others               # copy the run, without names

The run folder (default: outputs/NAME_OF_PROFILE) receives the executed notebooks, tables, figures,
report.html, and run.json for other programs. If you start again in the same folder, the run
continues with the parameters stored there and keeps notebooks whose code, parameters and inputs are
unchanged. A terminal shows the progress of each notebook; a log file gets one line when a notebook
ends. Closing the output (`run_all.py | head`) does not stop the run. Exit codes: 0 success; 1 a
notebook or the machine failed, or --verify found a difference; 2 refused before the start, or
--share found a name; 130 interrupted.
"""

import argparse
import signal
import sys
from pathlib import Path

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.stderr.write(
        f"This is Python {sys.version.split()[0]}; the series needs Python 3.11, 3.12 or 3.13. "
        "docs/installation.md says how to get one.\n"
    )
    sys.exit(2)

ROOT = Path(__file__).resolve().parent
# Import this checkout's package, from any working directory and whatever else is installed.
sys.path.insert(0, str(ROOT / "notebooks"))


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit code."""
    from cytology.runner import streams

    streams.prepare()
    arguments = parse(sys.argv[1:] if argv is None else argv)
    # A batch queue sends SIGTERM some seconds before it kills a job.
    signal.signal(signal.SIGTERM, interrupt)
    # Imported late, since it takes a moment that `--help` does not need.
    from cytology.settings import InputError, MachineError

    try:
        return run_command(arguments, root)
    except InputError as refusal:
        print(refusal, file=sys.stderr)
        return 1 if isinstance(refusal, MachineError) else 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def run_command(arguments: argparse.Namespace, root: Path) -> int:
    """Do what the options request; returns the exit code."""
    from cytology.runner.notebooks import Project
    from cytology.settings import InputError

    project = Project(root)
    if arguments.list:
        return print_list(project)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise InputError(f"--jobs is {arguments.jobs}; it must be a whole number of at least 1.")
    if arguments.share is not None and arguments.verify is None:
        return share(project, arguments)
    from cytology.runner import execution
    from cytology.runner.plan import make_plan

    if arguments.verify is not None:
        if has_any(
            arguments,
            "profile data given_split outside run_dir only start parameters dask folds force share",
        ):
            raise InputError("--verify repeats RUN as it was; only --jobs can be combined with it.")
        return execution.verify(project, Path(arguments.verify).resolve(), arguments.jobs)
    plan = make_plan(
        project,
        given_parameters(arguments),
        profile=arguments.profile,
        only=arguments.only,
        start=arguments.start,
        force=arguments.force,
        seeds=arguments.seeds,
        folds=arguments.folds,
    )
    return execution.run(plan, arguments.jobs or 1, arguments.dask)


def has_any(arguments: argparse.Namespace, names: str) -> bool:
    """Whether any of these options was given, or `--seeds`."""
    return any(getattr(arguments, name) for name in names.split()) or arguments.seeds != 1


def interrupt(*_) -> None:
    """Handle the signal to end like Ctrl-C."""
    raise KeyboardInterrupt


def parse(argv: list[str]) -> argparse.Namespace:
    """The options as given; `parameters` holds those of `-p`, as text."""
    parameters, options = split_parameters(argv)
    parser = argparse.ArgumentParser(
        "run_all.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", metavar="NAME", help="a file of notebooks/profiles/ (default: quick)")
    add("--data", metavar="FOLDER", help="`sample`, or a folder of images in two classes")
    add(
        "--given-split",
        metavar="TABLE",
        help="use this split: a table with image,split, or `folders`",
    )
    add("--outside", metavar="FOLDER", help="models from outside to compare in notebook 07")
    add("--run-dir", metavar="FOLDER", help="folder for all results of this run")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NOTEBOOK",
        help="run only these notebooks, by number or name",
    )
    some.add_argument(
        "--from", dest="start", metavar="NOTEBOOK", help="run this notebook and later ones"
    )
    add(  # argparse only sees a `-p` that lacks a name or a value
        "-p",
        nargs=2,
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks; may be repeated",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="run N notebooks at once (default: 1; with --verify: as RUN)",
    )
    where.add_argument("--dask", metavar="ADDRESS", help="send notebooks to this Dask scheduler")
    add("--seeds", type=int, default=1, metavar="N", help="train again with N - 1 other seeds")
    add(
        "--folds",
        type=int,
        metavar="K",
        help="split into K folds, and train again for each held-out fold",
    )
    add("--list", action="store_true", help="list the notebooks and their parameters; run nothing")
    add(
        "--force",
        action="store_true",
        help="with other parameters in an existing run folder: redo what depends on them; "
        "with the same parameters: redo everything",
    )
    add("--verify", metavar="RUN", help="repeat RUN in another folder and compare every table")
    add(
        "--share",
        metavar="FOLDER",
        help="write a copy of the run in --run-dir that names no patient, file or user",
    )
    return parser.parse_args(options, argparse.Namespace(parameters=parameters))


def split_parameters(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """(values by name of each `-p NAME VALUE`, the other words).

    argparse would take a value that begins with a hyphen, like `-(\\d+)-`, for an option.
    """
    given, others = {}, list(argv)
    while "-p" in others[:-2]:
        at = others.index("-p")
        given[others[at + 1]] = others[at + 2]
        del others[at : at + 3]
    return given, others


def given_parameters(arguments: argparse.Namespace) -> dict[str, str]:
    """Parameters given on the command line, as text, by `-p` or by their own option."""
    from cytology.runner.plan import OWN_OPTIONS

    options = {name: getattr(arguments, name) for name in OWN_OPTIONS}
    given = {name: value for name, value in options.items() if value is not None}
    return arguments.parameters | given


def print_list(project) -> int:
    """Print the profiles, and each notebook's parameters with default and meaning."""
    from cytology.parameters import meaning
    from cytology.runner.notebooks import find_notebooks

    print("Profiles:", ", ".join(sorted(path.stem for path in project.profiles.glob("*.yaml"))))
    for notebook in find_notebooks(project.notebooks):
        print(f"\n{notebook.name}   {notebook.title}")
        for name, default in notebook.parameters.items():
            print(f"    {f'{name} = {default!r}':34} {meaning(name)}".rstrip())
    return 0


def share(project, arguments: argparse.Namespace) -> int:
    """Write a copy of a run without names, and print where it is."""
    from cytology.report import sharing
    from cytology.run import Run
    from cytology.runner.plan import DEFAULT_PROFILE
    from cytology.settings import InputError, short

    alone = "profile data given_split outside only start parameters dask folds force jobs"
    if has_any(arguments, alone):
        raise InputError("--share copies a run as it is; only --run-dir can be combined with it.")
    run = Path(arguments.run_dir or project.home / "outputs" / DEFAULT_PROFILE).resolve()
    folder = Path(arguments.share).resolve()
    files = sharing.share(Run(run), folder)
    print(f"{short(run)} is copied to {short(folder)}: {len(files)} files that name no patient,")
    print("file or user. The images are still the patients': look at them before you share.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
