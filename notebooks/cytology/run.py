"""A run: its folder and the files in it, read once and checked."""

import random
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cytology import tables
from cytology.architectures import ARCHITECTURE_NAMES, TRAINING_NOTEBOOKS
from cytology.catalogue import entry_of
from cytology.files import refuse_links_out
from cytology.notebook import own_parameters
from cytology.parameters import FIXED_PARAMETERS, check_parameters, data_name
from cytology.settings import PROJECT_ROOT, InputError, resolve, short
from cytology.wording import composed, plural

ENSEMBLE = "ensemble"  # names of means of several networks begin with it
BASELINE = "baseline (size and colour)"
OUTSIDE = "outside/"  # names of models from outside begin with it: their folder in the run
# Protocols of a split from outside that is used unchanged; the second one if it leaks.
GIVEN, GIVEN_LEAKS = "given", "given, leaks"
LEAKING = ("original", GIVEN_LEAKS)
Made = TypeVar("Made")


class Run:
    """The folder of a run; `run / name` is a path in it, `parameters` those of the open notebook.

    A table or a JSON file is read once, and again when it has changed. Reading raises `InputError`
    if the file is missing (naming the notebook that writes it), damaged, or lacks a column that
    the catalogue requires.
    """

    def __init__(self, folder: Path, parameters: dict[str, Any] | None = None):
        self.folder = Path(folder)
        self.parameters = parameters or {}
        self._kept: dict[tuple, tuple[tuple, Any]] = {}

    def __truediv__(self, name: str | Path) -> Path:
        return self.folder / name

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return short(self.folder)

    # ------------------------------------------------------------- reading

    def has(self, name: str) -> bool:
        """Whether the run holds the file `name`."""
        return (self / name).is_file()

    def cached(self, key: tuple, names: tuple[str, ...], make: Callable[[], Made]) -> Made:
        """The result of `make`, kept under `key` until one of the files `names` changes."""
        state = tuple(_state(self / name) for name in names)
        if key not in self._kept or self._kept[key][0] != state:
            self._kept[key] = (state, make())
        return self._kept[key][1]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run; the caller may change it."""

        def read() -> pd.DataFrame:
            table, entry = tables.read_table(self.folder, name), entry_of(name)
            if entry:
                tables.check_columns(table, self.folder, name, entry.numbers, entry.texts)
            return table

        return self.cached(("table", name), (name,), read).copy()

    def rows(self, name: str, **keys: Any) -> pd.DataFrame:
        """Rows of a table whose columns have the given values; no rows if there is no table."""
        if not self.has(name):
            return pd.DataFrame()
        rows = self.table(name)
        for column, value in keys.items():
            rows = rows[rows[column] == value]
        return rows

    def facts(self, name: str) -> tables.Facts:
        """A JSON file of the run; the caller may change it."""
        read = partial(tables.read_json, self.folder, name)
        return deepcopy(self.cached(("facts", name), (name,), read))

    def facts_if_there(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; empty if it is missing."""
        return dict(self.facts(name)) if self.has(name) else {}

    def damage_error(self, name: str, why: str) -> InputError:
        """The error for a file that can be read but whose content cannot be true."""
        return InputError(tables.damage_message(self.folder, name, why))

    # ------------------------------------------------------ its content

    @property
    def manifest(self) -> pd.DataFrame:
        """One row per image: `image_id`, `label`, `group`, patient, slide, size, hash."""
        return self.table("manifest.csv")

    @property
    def unit(self) -> str:
        """The unit that is kept together: `patient`, `slide` or `group`."""
        return self.facts("dataset.json")["unit"]

    @property
    def units(self) -> str:
        """The plural of `unit`: `patients`, `slides` or `groups`."""
        return plural(self.unit)

    @property
    def protocol(self) -> str:
        """`grouped`, `given`, or one of `LEAKING`."""
        return self.facts("split.json")["protocol"]

    @property
    def is_original(self) -> bool:
        """Whether the split follows the original's protocol, which splits single pictures."""
        return self.protocol == "original"

    @property
    def leaks(self) -> bool:
        """Whether groups are on both sides of the split; False if there is no split yet."""
        return self.has("split.json") and self.protocol in LEAKING

    @property
    def is_given(self) -> bool:
        """Whether a split from outside is used unchanged: then test is the result to compare."""
        return self.protocol in (GIVEN, GIVEN_LEAKS)

    @property
    def images(self) -> Path:
        """The folder of the run's images.

        Raises `InputError` if they are gone, or if the open notebook's parameter `data` differs
        from what notebook 01 read.
        """
        made_with, data = self.facts("dataset.json"), self.parameters.get("data")
        root = Path(made_with["root"])
        if not made_with["root"]:
            raise InputError(
                f"{self} was shared without its images: use the parameter `images` of notebook 09 "
                "to name new ones."
            )
        wanted = data_name(data) if data else made_with["data"]
        if composed(made_with["data"]) != composed(wanted):
            raise InputError(
                f"{self} holds {made_with['data']}, but `data` is {wanted}: "
                "run notebook 01 first, or name another `run_dir`."
            )
        if not root.is_dir():
            raise InputError(f"The images of this run are gone from {root}: run notebook 01 again.")
        return root

    @property
    def networks(self) -> list[str]:
        """The architectures with predictions in the run, in the usual order."""
        return [name for name in ARCHITECTURE_NAMES if self.has(f"{name}/predictions.csv")]

    @property
    def outside(self) -> list[str]:
        """The models from outside with predictions in the run, as `outside/NAME`, sorted."""
        found = (self / OUTSIDE).glob("*/predictions.csv")
        return sorted(f"{OUTSIDE}{path.parent.name}" for path in found)

    def of_models(self, name: str) -> dict[str, pd.DataFrame]:
        """The table `<model>/<name>` of each network and model from outside that has one."""
        paths = {each: f"{each}/{name}" for each in (*self.networks, *self.outside)}
        return {each: self.table(path) for each, path in paths.items() if self.has(path)}

    def about(self, model: str) -> tables.Facts:
        """`metrics.json` of a network or a model from outside: how it was trained."""
        return self.facts(f"{model}/metrics.json")

    # ------------------------------------------------------------- writing

    def write(self, name: str, content: pd.DataFrame | dict | str) -> None:
        """Write a table, facts or text as `name`, atomically; results are `marked`."""
        if isinstance(content, pd.DataFrame):
            entry = entry_of(name)
            is_result = entry and entry.is_result
            tables.write_table(self.folder, name, self.marked(content) if is_result else content)
        elif isinstance(content, dict):
            tables.write_json(self.folder, name, content)
        else:
            tables.write_text(self.folder, name, content)

    def marked(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of results with the columns `weights` and `protocol` added.

        So each table carries the warning that its numbers rank nothing, or leak. Existing columns
        are kept.
        """
        named = (["model"], ["architecture"], ["first", "second"])
        columns = next((each for each in named if set(each) <= set(table)), [])
        if columns and "weights" not in table:
            behind = table[columns].map(cache(self.weights_behind))
            joined = behind.agg(lambda row: " and ".join(filter(None, dict.fromkeys(row))), axis=1)
            table = table.assign(weights=joined.astype(str) if len(table) else "")
        return table if "protocol" in table else table.assign(protocol=self.protocol)

    def weights_behind(self, model: str) -> str:
        """The weights of a network, or of an ensemble's networks; empty for the baseline."""
        if model.startswith(OUTSIDE):
            return self.about(model)["weights"]
        weights = {name: self.about(name)["weights"] for name in self.networks}
        if model.startswith(ENSEMBLE):
            return "random" if "random" in weights.values() else "pretrained"
        return weights.get(model.split(",")[0], "")


def outside_title(model: str) -> str:
    """`“x” (from outside)` for the model `outside/x`."""
    return f"“{model.removeprefix(OUTSIDE)}” (from outside)"


def _state(path: Path) -> tuple:
    """Size and time of a file, which change when it is rewritten; empty if it is missing."""
    if not path.is_file():
        return ()
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def open_run(notebook: str, values: dict[str, Any]) -> Run:
    """Check a notebook's parameters, make the run folder, fix the seeds.

    `notebook` is the name of its file, or the network that it trains; `values` is `globals()`,
    from which the notebook's parameters are taken. Keras is seeded when it is first used, so
    notebooks without a network start quickly. Raises `InputError`.
    """
    name = TRAINING_NOTEBOOKS.get(notebook, notebook)
    names = own_parameters(PROJECT_ROOT / "notebooks" / f"{name}.ipynb")
    own = {each: values[each] for each in names if each not in FIXED_PARAMETERS}
    check_parameters(own)
    run = Run(resolve(own["run_dir"]), own)
    refuse_links_out(run.folder)
    for folder in ("tables", "figures"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    random.seed(own["seed"])
    np.random.seed(own["seed"])
    return run
