"""The notebooks of the series and its profiles, read from their files."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cytology.catalogue import READS, needs
from cytology.notebook import own_parameters, source_of
from cytology.parameters import FIXED_PARAMETERS
from cytology.settings import HOME, PROJECT_ROOT, InputError, short


@dataclass(frozen=True)
class Project:
    """The folder with `notebooks/` and `notebooks/profiles/`; tests use their own."""

    root: Path = PROJECT_ROOT

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def profiles(self) -> Path:
        return self.notebooks / "profiles"

    @property
    def home(self) -> Path:
        """The folder of `data` and `outputs`."""
        return HOME if self.root == PROJECT_ROOT else self.root


@dataclass(frozen=True)
class Notebook:
    """A notebook of the series; `parameters` holds names and defaults from its tagged cell."""

    path: Path
    title: str
    parameters: dict

    @property
    def name(self) -> str:
        return self.path.stem


def find_notebooks(folder: Path) -> list[Notebook]:
    """The notebooks `NN_name.ipynb` of `folder` by number, but each after those whose files it
    reads; `InputError` if there are none."""
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
    """Title and parameters of a notebook, read from the file without executing it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join(source_of(cell) for cell in cells if cell["cell_type"] == "markdown")
    title = re.search(r"^#\s+(.+)$", prose, re.MULTILINE)
    own = own_parameters(path)
    settable = {name: value for name, value in own.items() if name not in FIXED_PARAMETERS}
    return Notebook(path, title[1].strip() if title else path.stem, settable)


def choose(
    notebooks: list[Notebook], only: Iterable[str] = (), start: str | None = None
) -> list[Notebook]:
    """The notebooks named in `only`, or those from `start` on, or all; in order."""
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
    raise InputError(f"There is no notebook `{word}`.{did_you_mean(stem, names)}")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A sentence with the most similar of `words`, or with all of them if none is similar."""
    words = list(words)
    # Also find a name without its number: `comparisn` means 07_comparison.
    keys = {word.lower(): word for word in words} | {re.sub(r"^\d\d_", "", w): w for w in words}
    close = difflib.get_close_matches(word.lower(), keys, n=1, cutoff=0.5)
    return f" Did you mean `{keys[close[0]]}`?" if close else f" Choose from: {', '.join(words)}."


def check_parameter_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """`InputError` with the most similar name if one of `names` is unknown."""
    known = sorted(known)
    for name in names:
        if name not in known:
            raise InputError(
                f"No notebook has a parameter `{name}`{where}.{did_you_mean(name, known)}"
            )


def read_profile(project: Project, name: str) -> dict:
    """The parameters of `notebooks/profiles/NAME.yaml`."""
    import yaml

    names = sorted(path.stem for path in project.profiles.glob("*.yaml"))
    if name not in names:
        raise InputError(f"There is no profile `{name}`.{did_you_mean(name, names)}")
    path = project.profiles / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{short(path)} is not a YAML file: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{short(path)} must contain lines like `seed: 0`.")
    return content
