"""What a run of the series is: its notebooks, their parameters, its folder and `run.json`.

Everything that can be refused is refused here, before the first notebook starts. Nothing of this
needs TensorFlow; `headless` executes what is planned here.
"""

import ast
import difflib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cytology.architectures import TRAINING_NOTEBOOKS
from cytology.catalogue import READS, needs
from cytology.evaluation.repeats import GridPoint, grid_points, points_named
from cytology.files import fitting
from cytology.parameters import DATA_WORDS, FIXED_PARAMETERS, PARAMETERS, check_parameters
from cytology.runner.record import read_run
from cytology.settings import HOME, PROJECT_ROOT, InputError, resolve, short

DEFAULT_PROFILE = "quick"
PATH_PARAMETERS = ("run_dir", "data", "archive", "patients_csv", "images", "weights")
PATH_PARAMETERS += ("images_patients_csv",)
# Words that stand where a path may stand.
NO_PATHS = {"data": DATA_WORDS, "images": ("unseen",), "weights": ("auto", "imagenet", "random")}
# What is asked of a finished run: other questions do not make it another run.
QUESTIONS = ("predict_with", "images", "show_images", "threshold_rule", "refer_share")
QUESTIONS += ("images_classes", "images_patient_pattern", "images_patients_csv")
QUESTIONS += ("explain_with", "explain_layer", "map_method")
QUESTIONS += ("export_with", "export_formats", "check_images", "calibration_images")


# ----------------------------------------------------------------- notebooks


@dataclass(frozen=True)
class Project:
    """The folder that holds `notebooks/` and `notebooks/profiles/`; tests bring their own."""

    root: Path = PROJECT_ROOT

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def profiles(self) -> Path:
        return self.notebooks / "profiles"

    @property
    def home(self) -> Path:
        """Where `data` and `outputs` lie."""
        return HOME if self.root == PROJECT_ROOT else self.root


@dataclass(frozen=True)
class Notebook:
    """A notebook of the series; `parameters` are the names and defaults of its tagged cell."""

    path: Path
    title: str
    parameters: dict

    @property
    def name(self) -> str:
        return self.path.stem


def find_notebooks(folder: Path) -> list[Notebook]:
    """The notebooks `NN_name.ipynb` of `folder` in the order of their numbers, but each after those
    whose files it reads; `InputError` if there are none."""
    paths = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not paths:
        raise InputError(f"There are no notebooks NN_name.ipynb in {short(folder)}.")
    order: dict[str, None] = {}

    def place(name: str) -> None:
        for earlier in needs(name) if name in READS else ():
            if earlier in paths:
                place(earlier)
        order.setdefault(name)

    for name in paths:
        place(name)
    return [read_notebook(paths[name]) for name in order]


def read_notebook(path: Path) -> Notebook:
    """Title and parameters of one notebook, read from the file without executing it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join(_source(cell) for cell in cells if cell["cell_type"] == "markdown")
    title = re.search(r"^#\s+(.+)$", prose, re.MULTILINE)
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    assigned = assignments(_source(tagged[0])) if tagged else {}
    settable = {name: value for name, value in assigned.items() if name not in FIXED_PARAMETERS}
    return Notebook(path, title[1].strip() if title else path.stem, settable)


def _source(cell: dict) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def assignments(code: str) -> dict:
    """Names and values that `code` assigns at top level; a value that is no literal as its text."""
    found = {}
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        else:
            continue
        try:
            value = ast.literal_eval(statement.value)
        except ValueError:
            value = ast.unparse(statement.value)
        found |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return found


def choose(
    notebooks: list[Notebook], only: Iterable[str] = (), start: str | None = None
) -> list[Notebook]:
    """The notebooks named in `only`, or those from `start` on, or all; always in their order."""
    if start:
        return notebooks[notebooks.index(find(notebooks, start)) :]
    wanted = [find(notebooks, word) for word in only]
    return [notebook for notebook in notebooks if not wanted or notebook in wanted]


def find(notebooks: list[Notebook], word: str) -> Notebook:
    """The notebook that `word` means: `4`, `04`, `04_train_mobilenetv2` or its file name."""
    stem = Path(word).name.removesuffix(".ipynb")
    for notebook in notebooks:
        number, _, rest = notebook.name.partition("_")
        if stem in (notebook.name, rest) or stem.zfill(2) == number:
            return notebook
    names = [notebook.name for notebook in notebooks]
    raise InputError(f"There is no notebook `{word}`.{nearest(stem, names)}")


def nearest(word: str, words: Iterable[str]) -> str:
    """A sentence that names the nearest of `words`, or all of them when none is near."""
    words = list(words)
    # A name without its number should be found too: `comparisn` means 07_comparison.
    keys = {word.lower(): word for word in words} | {re.sub(r"^\d\d_", "", w): w for w in words}
    close = difflib.get_close_matches(word.lower(), keys, n=1, cutoff=0.5)
    return f" Did you mean `{keys[close[0]]}`?" if close else f" There are: {', '.join(words)}."


# ---------------------------------------------------------------- parameters


def read_profile(project: Project, name: str) -> dict:
    """The parameters of `notebooks/profiles/NAME.yaml`."""
    import yaml

    names = sorted(path.stem for path in project.profiles.glob("*.yaml"))
    if name not in names:
        raise InputError(f"There is no profile `{name}`.{nearest(name, names)}")
    path = project.profiles / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{short(path)} is no YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{short(path)} must hold lines like `seed: 0`.")
    return content


def typed(name: str, text: str):
    """`text` from the command line as a value: as papermill's `-p`, but text stays text.

    A parameter whose rule asks for text keeps it: a data folder may be called `2024`.
    """
    if name in PARAMETERS and PARAMETERS[name].kind is str:
        return text
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def check_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """`InputError` with the nearest name if one of `names` is not known."""
    known = sorted(known)
    for name in names:
        if name not in known:
            raise InputError(f"No notebook has a parameter `{name}`{where}.{nearest(name, known)}")


def absolute_paths(parameters: dict, base: Path) -> dict:
    """`parameters` with relative paths made absolute from `base`; words like `sample` stay."""
    changed = dict(parameters)
    for name in PATH_PARAMETERS:
        value = parameters.get(name)
        if isinstance(value, str) and value and value not in NO_PATHS.get(name, ()):
            changed[name] = str(resolve(value, base))
    return changed


def check_paths(parameters: dict) -> None:
    """`InputError` if a path that a notebook will read is not there: now, not in ten minutes."""
    tests = {"data": Path.is_dir, "images": Path.exists}
    tests |= dict.fromkeys(("patients_csv", "images_patients_csv"), Path.is_file)
    for name, exists in (tests | {"weights": Path.exists, "archive": Path.exists}).items():
        value = parameters.get(name)
        if value and value not in NO_PATHS.get(name, ()) and not exists(Path(value)):
            kind = {"data": "folder", "patients_csv": "file"}.get(name, "file or folder")
            raise InputError(f"Parameter `{name}`: there is no {kind} {value}.")


# ---------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Plan:
    """What to run: every parameter of the series by name, and the notebooks in their order."""

    profile: str
    parameters: dict
    notebooks: list[Notebook]
    command: str
    points: tuple[GridPoint, ...] = ()  # the grid: trainings with other seeds, or a fold held out
    again: bool = False  # also what is finished and unchanged
    taken: str = ""  # the paths and addresses that `run.json` brought along, in a sentence

    @property
    def run(self) -> Path:
        return Path(self.parameters["run_dir"])

    def parameters_of(self, notebook: Notebook) -> dict:
        """The parameters that `notebook` has: papermill would only warn about others."""
        return {name: self.parameters[name] for name in notebook.parameters}


@dataclass(frozen=True)
class Task:
    """A notebook to execute: with what, to which file, after which others."""

    name: str
    notebook: Path
    output: Path
    parameters: dict
    needs: tuple[str, ...]
    point: GridPoint | None = None  # of the grid


def tasks(plan: Plan) -> list[Task]:
    """What is to be executed, in an order that serves all needs.

    The training notebooks stand again for each point of the grid, in a run folder of its own
    below the run's.
    """
    found, chosen = [], [notebook.name for notebook in plan.notebooks]
    for place, notebook in enumerate(plan.notebooks):
        after = needs(notebook.name) if notebook.name in READS else chosen[:place]
        if notebook.name == "07_comparison":
            after = [*after, *(task.name for task in found if task.point)]
        after = tuple(name for name in after if name in {task.name for task in found})
        output = plan.run / "notebooks" / notebook.path.name
        parameters = plan.parameters_of(notebook)
        found.append(Task(notebook.name, notebook.path, output, parameters, after))
        if notebook.name in TRAINING_NOTEBOOKS.values():
            for point in plan.points:
                below = point.folder(plan.run)
                own = parameters | {"run_dir": str(below), "seed": point.seed}
                name, output = f"{point.name}/{notebook.name}", below / "notebooks"
                output /= notebook.path.name
                found.append(Task(name, notebook.path, output, own, after, point))
    return found


def make_plan(
    project: Project,
    given: dict,
    *,
    profile: str | None = None,
    only: Iterable[str] = (),
    start: str | None = None,
    caller: Path | None = None,
    force: bool = False,
    seeds: int = 1,
    folds: int | None = None,
) -> Plan:
    """Plan a run, or raise `InputError` before anything is started or written.

    `given` are parameters from the command line, texts not yet typed; their relative paths start
    at `caller` (default: the working folder), those of a profile at the project's root. Without
    `profile` the parameters of the run folder's `run.json` are the base, if it has one. `seeds`
    and `folds` make the grid: how many seeds, and whether each of so many folds is held out.
    """
    if folds is not None:
        given = given | with_folds(given, folds)
    notebooks = find_notebooks(project.notebooks)
    defaults = {}
    for notebook in notebooks:
        defaults = notebook.parameters | defaults
    check_names(given, defaults, "")
    given = {name: typed(name, text) for name, text in given.items()}
    given = absolute_paths(given, caller or Path.cwd())
    chosen = choose(notebooks, only, start)

    base = profile_parameters(project, profile or DEFAULT_PROFILE, defaults)
    run = Path(
        given.get("run_dir") or default_run(project, profile or DEFAULT_PROFILE, base, given)
    )
    earlier, taken = read_run(run), ""
    name = profile or earlier.get("profile") or DEFAULT_PROFILE
    if profile is None and earlier:
        if name != DEFAULT_PROFILE and (project.profiles / f"{name}.yaml").is_file():
            base = profile_parameters(project, name, defaults)
        stored = earlier.get("parameters", {})
        base = base | {key: stored[key] for key in base if key in stored}
        taken = taken_over(project, name, stored, given)
    parameters = base | given | {"run_dir": str(run)}
    check_parameters(**{key: value for key, value in parameters.items() if key in PARAMETERS})
    if not parameters["data"]:
        raise InputError(
            "Parameter `data` is empty: name a folder of images in two classes, or `sample`."
        )
    check_paths(parameters)
    if run.exists() and not run.is_dir():
        raise InputError(f"The run folder {run} is a file.")
    other = differences(earlier, parameters)
    if other and not force:
        raise InputError(
            f"{short(run)} was made with {'; '.join(other)}: choose another folder with --run-dir, "
            "or --force to redo here what depends on it."
        )
    points = points_of(parameters, chosen, seeds, folds)
    noted = points_named(name.split("/")[0] for name in earlier.get("grid", {}))
    command = command_line(project, name, parameters, grid_options(parameters, {*points, *noted}))
    # With other parameters, --force redoes what depends on them; else everything.
    again = bool(start) or (force and not other)
    return Plan(name, parameters, chosen, command, points, again, taken)


def plan_again(project: Project, record: dict, run: Path) -> Plan:
    """The plan that does in the folder `run` what `record`, the `run.json` of a run, tells of."""
    notebooks = [
        notebook
        for notebook in find_notebooks(project.notebooks)
        if notebook.name in record["notebooks"]
    ]
    parameters = record["parameters"] | {"run_dir": str(run)}
    points = points_named(dict.fromkeys(name.split("/")[0] for name in record["grid"]))
    command = command_line(project, record["profile"], parameters, grid_options(parameters, points))
    taken = taken_over(project, record["profile"], record["parameters"], {})
    return Plan(record["profile"], parameters, notebooks, command, tuple(points), taken=taken)


def taken_over(project: Project, profile: str, stored: dict, given: dict) -> str:
    """A sentence with the paths and addresses that a run takes from its `run.json`; may be empty.

    The run folder may come from somebody else: one should see what is read, and from where it is
    downloaded. What is `given` anew, or what the profile says too, is not told.
    """
    base = absolute_paths(read_profile_or_nothing(project, profile), project.home)
    names = {*PATH_PARAMETERS, "address"} - {"run_dir", *given}
    found = {name: stored[name] for name in sorted(names) if stored.get(name)}
    told = [f"{name}={value!r}" for name, value in found.items() if value != base.get(name)]
    return f"NOTE: taken from run.json: {', '.join(told)}" if told else ""


def with_folds(given: dict, folds: int) -> dict:
    """The parameter `folds` as `--folds` sets it; `InputError` if `-p folds` says otherwise."""
    if given.get("folds", str(folds)) != str(folds):
        raise InputError(f"--folds {folds} and -p folds {given['folds']} differ: give one of them.")
    return {"folds": str(folds)}


def points_of(parameters: dict, chosen: list[Notebook], seeds: int, folds: int | None) -> tuple:
    """The grid's points; `InputError` where there can be none."""
    if seeds < 1:
        raise InputError(f"--seeds is {seeds}; it must be a whole number of at least 1.")
    found = grid_points(parameters.get("seed", 0), seeds, folds)
    if found and not {notebook.name for notebook in chosen} & {*TRAINING_NOTEBOOKS.values()}:
        raise InputError("--seeds and --folds are for notebooks 04 to 06, and none is to be run.")
    if folds is not None and parameters.get("protocol") == "original":
        raise InputError(
            "--folds keeps groups apart, which the protocol `original` does not: leave it out."
        )
    return found


def grid_options(parameters: dict, points: set[GridPoint]) -> list[str]:
    """The options that make `points`, of this call and of earlier ones, as words of a command."""
    first = parameters.get("seed", 0)
    seeds = max((point.seed - first + 1 for point in points), default=1)
    words = ["--seeds", str(seeds)] if seeds > 1 else []
    if any(point.fold is not None for point in points):
        words += ["--folds", str(parameters["folds"])]
    return words


def profile_parameters(project: Project, profile: str, defaults: dict) -> dict:
    """Every parameter of the series: the notebooks' defaults, changed by the profile."""
    content = read_profile(project, profile)
    check_names(content, defaults.keys() | PARAMETERS.keys(), f", but profile `{profile}` sets it")
    content = {key: value for key, value in content.items() if key in defaults}
    return absolute_paths({"run_dir": f"outputs/{profile}"} | defaults | content, project.home)


def default_run(project: Project, profile: str, base: dict, given: dict) -> str:
    """The run folder when none is given: the profile's, or one that also names the data."""
    data = given.get("data")
    if data is None or data == base.get("data"):
        return base["run_dir"]
    return str(project.home / "outputs" / fitting(f"{profile}-{Path(data).name or 'data'}"))


def differences(earlier: dict, parameters: dict) -> list[str]:
    """Parameters that a finished notebook of the run had another value of, in words.

    Notebooks that failed protect nothing: whoever corrects a parameter goes on in the same folder.
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
    """The shell command that gives this run again, with what differs from the profile."""
    base = absolute_paths(read_profile_or_nothing(project, profile), project.home)
    words = ["python", "run_all.py", "--profile", profile]
    for name, value in parameters.items():
        if name in base and base[name] != value:
            options = {"data": ["--data"], "run_dir": ["--run-dir"]}
            words += [*options.get(name, ["-p", name]), str(value)]
    words += more
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def read_profile_or_nothing(project: Project, profile: str) -> dict:
    """The profile's parameters; nothing if the file is gone since the run was made."""
    return (
        read_profile(project, profile) if (project.profiles / f"{profile}.yaml").is_file() else {}
    )
