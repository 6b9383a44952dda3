"""What a notebook shows while it runs: the source of a function, how far long work is."""

import ast
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cytology.settings import InputError, short


def show(thing) -> None:
    """Print the real source of a function or class, coloured in a notebook."""
    from IPython import get_ipython
    from IPython.display import Markdown, display

    source = inspect.getsource(thing)
    if get_ipython() is None:
        print(source)
    else:
        display(Markdown(f"```python\n{source}```"))


def somebody_looks_on() -> bool:
    """Whether a person may be watching; `run_all.py` says in the environment that nobody is."""
    return "CYTOLOGY_HEADLESS" not in os.environ


def progress(work, what: str, total: int | None = None, unit: str = "image"):
    """Go through `work` and show how far it is; the bar disappears when it is done."""
    shown = {"leave": False, "mininterval": 0.5, "file": sys.stdout}
    disable = not somebody_looks_on()
    return tqdm(work, desc=what, total=total, unit=unit, disable=disable, **shown)


# ------------------------------------------------------------------ its own cells


def source_of(cell: dict[str, Any]) -> str:
    """The text of a notebook's cell."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def own_parameters(path: Path) -> dict[str, Any]:
    """Names and defaults of a notebook's parameters cell; a value that is no literal as its text.

    Read from the file, without executing it. Raises `InputError` if there is no such notebook.
    """
    if not path.is_file():
        raise InputError(
            f"There is no notebook {short(path)}: give the name of the notebook's file."
        )
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return _assignments(source_of(cell))
    return {}


def _assignments(code: str) -> dict[str, Any]:
    """Names and values that `code` assigns at top level; a value that is no literal as its text."""
    found: dict[str, Any] = {}
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Assign):
            targets, expression = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, expression = [statement.target], statement.value
        else:
            continue
        try:
            value = ast.literal_eval(expression)
        except ValueError:
            value = ast.unparse(expression)
        found |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return found
