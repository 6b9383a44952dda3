"""What a finished notebook depends on, and whether any of it has changed since.

For each notebook, `run.json` keeps its parameters and the hashes of its code, inputs and outputs.
A run that is started again redoes what differs, and nothing else.
"""

import ast
import functools
import hashlib
import json
from pathlib import Path

import cytology
from cytology.architectures import TRAINED_BY
from cytology.catalogue import READS, WRITTEN_BY, is_meant, written_by
from cytology.files import UNFINISHED, file_hash
from cytology.notebook import source_of
from cytology.parameters import PLACES
from cytology.run import Run
from cytology.wording import shorten_list

PACKAGE = Path(cytology.__file__).parent
# Other versions of these may give other numbers: kept results of other versions are reported.
COMPUTED_WITH = ("python", "tensorflow", "openvino", "keras", "numpy", "scikit-learn")


# -------------------------------------------------------------------- now


def state(notebook: Path, run: Path, parameters: dict) -> dict:
    """The current hashes of what a notebook depends on: `code`, `inputs` and `outside`."""
    return {
        "code": code_hash(notebook),
        "inputs": {name: hash_of(run / name) for name in inputs(notebook.stem, run)},
        "outside": outside_inputs(notebook.stem, run, parameters),
    }


def inputs(notebook: str, run: Path) -> list[str]:
    """The files of the run that the notebook reads, including those that do not exist yet."""
    found = []
    for name in READS.get(notebook, tuple(WRITTEN_BY)):
        matching = sorted(run.glob(name)) if "*" in name else [run / name]
        found += [path.relative_to(run).as_posix() for path in matching]
    return found


def outputs(notebook: str, run: Path) -> dict[str, str | None]:
    """Hashes by name of the files of the run that the notebook wrote."""
    files = (path for path in run.rglob("*") if path.is_file() and UNFINISHED not in str(path))
    names = (path.relative_to(run).as_posix() for path in files)
    return {name: hash_of(run / name) for name in sorted(names) if is_from(notebook, name)}


def is_from(notebook: str, name: str) -> bool:
    """Whether the notebook wrote this file; names of figures begin with its number or network."""
    if name.startswith("figures/"):
        figure = name.removeprefix("figures/")
        return figure.startswith((f"{notebook[:2]}_", f"{TRAINED_BY.get(notebook)}_"))
    return written_by(name) == notebook


def code_hash(notebook: Path) -> str:
    """A hash of a notebook's code and of all modules that it imports, directly or not."""
    digest = hashlib.sha256("\n".join(cells_of(notebook)).encode())
    for module in sorted(modules_behind(notebook)):
        digest.update(module.encode() + source(module))
    return digest.hexdigest()


def cells_of(notebook: Path) -> list[str]:
    """The source of a notebook's code cells, except parameters and set-up."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        source_of(cell)
        for cell in cells
        if cell["cell_type"] == "code"
        and not {"parameters", "colab-setup"} & set(cell["metadata"].get("tags", []))
    ]


def modules_behind(notebook: Path) -> set[str]:
    """The modules of the package that a notebook imports, directly or not."""
    return modules_of(frozenset().union(*map(imported_by_cell, cells_of(notebook))))


def modules_of(names: frozenset[str]) -> set[str]:
    """The modules of the package among `names`, and those that they import in turn."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        if name not in found and source_files(name):
            found.add(name)
            waiting |= imported_by(name)
    return found


@functools.cache
def imported_by(module: str) -> frozenset[str]:
    """Dotted names that a module of the package imports from the package."""
    return imported_names(source_files(module)[0].read_text(encoding="utf-8"))


def imported_by_cell(text: str) -> frozenset[str]:
    """Dotted names that a cell imports from the package."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return imported_names(TransformerManager().transform_cell(text))
    except SyntaxError:
        return frozenset()  # executing the notebook gives a better message


def imported_names(text: str) -> frozenset[str]:
    """Dotted names that Python source imports from the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from cytology import plots` names a module, `from cytology.plots import roc` not.
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE.name)


def source_files(module: str) -> list[Path]:
    """The source of a module and the files that go with it; empty for a package."""
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    return [path, *path.parent.glob(f"{path.stem}.*.*")] if path.is_file() else []


@functools.cache
def source(module: str) -> bytes:
    """The bytes of a module's files."""
    return b"".join(path.read_bytes() for path in source_files(module))


def outside_inputs(notebook: str, run: Path, parameters: dict) -> dict[str, str]:
    """A hash of each input outside the run folder, by the parameter that names it."""
    found: dict[str, str] = {}
    for name, place in PLACES.items():
        value = parameters.get(name)
        if not is_meant(notebook, place.read_by):
            continue
        if name == "weights" and value:
            from cytology.networks.weights import weights_fingerprint

            found[name] = weights_fingerprint(TRAINED_BY[notebook], value)
        elif name == "data":
            # Also for words like `sample`: notebook 01 has recorded where the images are.
            found[name] = path_fingerprint(
                Path(Run(run).facts_if_there("dataset.json").get("root", ""))
            )
        elif value:
            found[name] = path_fingerprint(Path(value))
    return found


def path_fingerprint(path: Path) -> str:
    """A hash that changes with a file, or with any file of a folder; empty if neither exists.

    For a folder of names, sizes and times: reading tens of thousands of images would take minutes.
    """
    if path.is_file():
        return hash_of(path) or ""
    if not path.is_dir() or path == Path():
        return ""
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        about = file.stat()
        digest.update(f"{file.relative_to(path)} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def hash_of(path: Path) -> str | None:
    """SHA-256 of a file; None if it is missing. Computed again only if the file changes."""
    if not path.is_file():
        return None
    about = path.stat()
    return _hash_of(path, about.st_mtime_ns, about.st_size)


@functools.cache
def _hash_of(path: Path, changed: int, size: int) -> str:
    return file_hash(path)


# -------------------------------------------------------------------- changes


def changes(entry: dict, now: dict, parameters: dict, run: Path) -> list[str]:
    """Why a notebook must run again, in words; empty if its results are still valid.

    `entry` is its entry in `run.json`, `now` its `state`. A result that was edited by hand is not
    a reason: it is kept (see `altered_outputs`), and the notebooks that read it run again.
    """
    if entry.get("status") != "ok":
        return ["it was not finished"] if entry else []
    if "code" not in entry:
        return ["run.json does not record its inputs"]
    before = entry["parameters"]
    names = [
        name
        for name in {**before, **parameters}
        if name != "run_dir" and before.get(name) != parameters.get(name)
    ]
    found = [f"other {shorten_list(names)}"] if names else []
    found += ["other code"] if entry["code"] != now["code"] else []
    for part, word in (("inputs", ""), ("outside", "other files in ")):
        old, new = entry[part], now[part]
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        found += [f"{word or 'other '}{shorten_list(names)}"] if names else []
    lost = [name for name in entry["outputs"] if not (run / name).is_file()]
    return found + ([f"missing {shorten_list(lost)}"] if lost else [])


def altered_outputs(entry: dict, run: Path) -> list[str]:
    """Results of a notebook that changed after it wrote them."""
    hashes = entry["outputs"].items()
    return [name for name, old in hashes if (run / name).is_file() and hash_of(run / name) != old]
