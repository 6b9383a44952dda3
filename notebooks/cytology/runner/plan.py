"""What to run: the notebooks, their parameters, the run folder, the grid.

Invalid input is refused here, before the first notebook starts.
"""

import os
import shlex
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cytology.architectures import TRAINING_NOTEBOOKS
from cytology.catalogue import READS, needs
from cytology.evaluation.repeats import GRID, GridPoint, grid_points, points_from_names
from cytology.files import fitting_name
from cytology.parameters import (
    FIELDS,
    PLACES,
    QUESTIONS,
    absolute_paths,
    check_parameters,
    check_places,
    parse_value,
)
from cytology.run import Run
from cytology.runner.notebooks import (
    Notebook,
    Project,
    check_parameter_names,
    choose,
    find_notebooks,
    read_profile,
)
from cytology.runner.record import read_run
from cytology.settings import InputError, short

OWN_OPTIONS = ("data", "given_split", "outside", "run_dir")  # parameters with their own option
DEFAULT_PROFILE = "quick"


@dataclass(frozen=True)
class Plan:
    """What to run: every parameter of the series by name, and the notebooks in order."""

    profile: str
    parameters: dict
    notebooks: list[Notebook]
    command: str
    points: tuple[
        GridPoint, ...
    ] = ()  # the grid: training with other seeds, or with a fold held out
    again: bool = False  # also run what is finished and unchanged
    taken: str = ""  # a sentence with the paths and addresses taken from `run.json`
    # By run folder and notebook: the engine of a training that is repeated.
    engines: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return Path(self.parameters["run_dir"])

    def engine_again(self, point: str, notebook: str) -> dict[str, str]:
        """The parameter `engine` recorded for a notebook, or for it at a `point` of the grid."""
        found = self.engines.get((point, notebook))
        return {"engine": found} if found else {}


@dataclass(frozen=True)
class Task:
    """A notebook to execute: its parameters, its output file, and which others come first."""

    name: str
    notebook: Path
    output: Path
    parameters: dict
    needs: tuple[str, ...]
    point: GridPoint | None = None  # of the grid


def tasks_of(plan: Plan) -> list[Task]:
    """The notebooks to execute, each after those that it needs.

    The training notebooks are repeated for each point of the grid, each with its own run folder
    below the run's.
    """
    found: list[Task] = []
    chosen = [notebook.name for notebook in plan.notebooks]
    for place, notebook in enumerate(plan.notebooks):
        name = notebook.name
        parameters = {each: plan.parameters[each] for each in notebook.parameters}
        parameters |= plan.engine_again("", name)
        reads = needs(name) if name in READS else chosen[:place]
        if any(file.startswith(f"{GRID}/") for file in READS.get(name, ())):
            reads += [task.name for task in found if task.point]
        after = tuple(name for name in reads if name in {task.name for task in found})
        output = Path("notebooks", notebook.path.name)
        found.append(Task(name, notebook.path, plan.run / output, parameters, after))
        if name in TRAINING_NOTEBOOKS.values():
            for point in plan.points:
                below = point.folder(plan.run)
                own = parameters | {"run_dir": str(below), "seed": point.seed}
                own |= plan.engine_again(point.name, name)
                file = below / output
                found.append(Task(f"{point.name}/{name}", notebook.path, file, own, after, point))
    return found


def make_plan(
    project: Project,
    given: dict,
    *,
    profile: str | None = None,
    only: Iterable[str] = (),
    start: str | None = None,
    force: bool = False,
    seeds: int = 1,
    folds: int | None = None,
) -> Plan:
    """Plan a run, or raise `InputError` before anything is started or written.

    `given` holds parameters from the command line as text; their paths are relative to the working
    folder, those of a profile to the project's root. Without `profile`, the parameters start from
    the run folder's `run.json`, if it has one. `seeds` and `folds` make the grid: the number of
    seeds, and the number of folds of which each is held out once.
    """
    if folds is not None:
        given = given | with_folds(given, folds)
    notebooks = find_notebooks(project.notebooks)
    check_parameter_names(given, defaults_of(notebooks), "")
    given = {name: parse_value(name, text) for name, text in given.items()}
    given = absolute_paths(given, Path.cwd())
    chosen = choose(notebooks, only, start)

    name = profile or DEFAULT_PROFILE
    base = profile_parameters(project, name)
    run = Path(given.get("run_dir") or default_run(project, name, base, given))
    earlier, taken = read_run(run), ""
    if profile is None and earlier:
        name = earlier.get("profile") or DEFAULT_PROFILE
        if name != DEFAULT_PROFILE:
            base = profile_parameters(project, name, may_be_gone=True)
        stored = earlier.get("parameters", {})
        base = base | {key: stored[key] for key in base if key in stored}
        taken = stored_paths_notice(project, name, stored, given)
    parameters = base | given | {"run_dir": str(run)}
    check_parameters(parameters)
    if not parameters["data"]:
        raise InputError(
            "Parameter `data` is empty: name a folder of images in two classes, or `sample`."
        )
    check_places(parameters)
    if run.exists() and not run.is_dir():
        raise InputError(f"The run folder {run} is a file.")
    other = other_parameters(earlier, parameters)
    if other and not force:
        raise InputError(
            f"{short(run)} was made with {'; '.join(other)}: choose another folder with --run-dir, "
            "or use --force to redo what depends on it."
        )
    points = points_of(parameters, chosen, seeds, folds)
    noted = points_from_names(name.split("/")[0] for name in earlier.get("grid", {}))
    command = command_line(project, name, parameters, grid_options(parameters, {*points, *noted}))
    # With other parameters, --force redoes what depends on them, otherwise everything.
    again = bool(start) or (force and not other)
    return Plan(name, parameters, chosen, command, points, again, taken)


def plan_again(project: Project, record: dict, first: Path, run: Path) -> Plan:
    """The plan that repeats the run `first`, according to its `record`, in the folder `run`.

    It uses the same engines: on another machine `auto` might choose others.
    """
    notebooks = [
        notebook
        for notebook in find_notebooks(project.notebooks)
        if notebook.name in record["notebooks"]
    ]
    parameters = record["parameters"] | {"run_dir": str(run)}
    points = points_from_names(dict.fromkeys(name.split("/")[0] for name in record["grid"]))
    command = command_line(project, record["profile"], parameters, grid_options(parameters, points))
    taken = stored_paths_notice(project, record["profile"], record["parameters"], {})
    engines = {}
    for point, folder in [("", first), *((point.name, point.folder(first)) for point in points)]:
        for architecture, notebook in TRAINING_NOTEBOOKS.items():
            about = Run(folder).facts_if_there(f"{architecture}/metrics.json")
            engines[point, notebook] = about.get("engine", "")
    what = (record["profile"], parameters, notebooks, command, tuple(points))
    return Plan(*what, taken=taken, engines=engines)


def stored_paths_notice(project: Project, profile: str, stored: dict, given: dict) -> str:
    """A sentence with the paths and addresses that a run takes from its `run.json`; may be empty.

    The run folder may come from somebody else, so the user should see what is read and from where
    it is downloaded. Values that are `given`, or that the profile has too, are left out.
    """
    base = profile_parameters(project, profile, may_be_gone=True)
    names = {*PLACES, "address"} - {"run_dir", *given}
    found = {name: stored[name] for name in sorted(names) if stored.get(name)}
    other = [f"{name}={value!r}" for name, value in found.items() if value != base.get(name)]
    return f"NOTE: from run.json: {', '.join(other)}" if other else ""


def with_folds(given: dict, folds: int) -> dict:
    """The parameter `folds` as set by `--folds`; `InputError` if `-p folds` differs."""
    if given.get("folds", str(folds)) != str(folds):
        raise InputError(f"--folds {folds} and -p folds {given['folds']} differ: give one of them.")
    return {"folds": str(folds)}


def points_of(parameters: dict, chosen: list[Notebook], seeds: int, folds: int | None) -> tuple:
    """The grid's points; `InputError` where there can be none."""
    if seeds < 1:
        raise InputError(f"--seeds is {seeds}; it must be a whole number of at least 1.")
    found = grid_points(parameters.get("seed", 0), seeds, folds)
    if found and not {notebook.name for notebook in chosen} & {*TRAINING_NOTEBOOKS.values()}:
        raise InputError("--seeds and --folds need one of the notebooks 04 to 06; none is chosen.")
    if folds is not None and parameters.get("protocol") == "original":
        raise InputError(
            "--folds keeps groups together, which the protocol `original` does not: remove --folds."
        )
    return found


def grid_options(parameters: dict, points: Collection[GridPoint]) -> list[str]:
    """The options that make `points`, from this call and earlier ones, as words of a command."""
    first = parameters.get("seed", 0)
    seeds = max((point.seed - first + 1 for point in points), default=1)
    words = ["--seeds", str(seeds)] if seeds > 1 else []
    if any(point.fold is not None for point in points):
        words += ["--folds", str(parameters["folds"])]
    return words


def defaults_of(notebooks: list[Notebook]) -> dict:
    """Every parameter of the series with its default, from the first notebook that has it."""
    defaults: dict = {}
    for notebook in notebooks:
        defaults = notebook.parameters | defaults
    return defaults


def profile_parameters(project: Project, profile: str, may_be_gone: bool = False) -> dict:
    """Every parameter of the series: the notebooks' defaults, changed by the profile.

    If `may_be_gone`, the profile's file may be missing: an old run may have used it.
    """
    defaults = defaults_of(find_notebooks(project.notebooks))
    gone = may_be_gone and not (project.profiles / f"{profile}.yaml").is_file()
    content = {} if gone else read_profile(project, profile)
    check_parameter_names(
        content, defaults.keys() | FIELDS.keys(), f", but profile `{profile}` sets it"
    )
    content = {key: value for key, value in content.items() if key in defaults}
    return absolute_paths(defaults | {"run_dir": f"outputs/{profile}"} | content, project.home)


def default_run(project: Project, profile: str, base: dict, given: dict) -> str:
    """The default run folder: named after the profile, and after the data if not the profile's."""
    data = given.get("data")
    if data is None or data == base.get("data"):
        return base["run_dir"]
    return str(project.home / "outputs" / fitting_name(f"{profile}-{Path(data).name or 'data'}"))


def other_parameters(earlier: dict, parameters: dict) -> list[str]:
    """Parameters whose value differs from that of a finished notebook of the run, in words.

    Failed notebooks do not count: after correcting a parameter one continues in the same folder.
    """
    found = {}
    for entry in earlier.get("notebooks", {}).values():
        if entry.get("status") != "ok":
            continue
        for name, old in entry.get("parameters", {}).items():
            if name not in (*QUESTIONS, "run_dir") and parameters.get(name, old) != old:
                found[name] = f"{name}={old!r}, now {name}={parameters[name]!r}"
    return list(found.values())


def command_line(project: Project, profile: str, parameters: dict, more: list[str]) -> str:
    """The shell command that repeats this run, with the differences from the profile."""
    base = profile_parameters(project, profile, may_be_gone=True)
    words = ["python", "run_all.py", "--profile", profile]
    for name, value in parameters.items():
        if name in base and base[name] != value:
            words += [f"--{name.replace('_', '-')}"] if name in OWN_OPTIONS else ["-p", name]
            words.append(str(value))
    words += more
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
