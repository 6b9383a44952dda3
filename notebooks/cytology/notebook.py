"""What a notebook shows while it runs (source code, progress), and how its cells are read."""

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
    """Print the source of a function or class, coloured in a notebook."""
    from IPython import get_ipython
    from IPython.display import Markdown, display

    source = inspect.getsource(thing)
    if get_ipython() is None:
        print(source)
    else:
        display(Markdown(f"```python\n{source}```"))


def is_interactive() -> bool:
    """Whether a person may be watching; `run_all.py` sets `CYTOLOGY_HEADLESS` if not."""
    return "CYTOLOGY_HEADLESS" not in os.environ


def progress(work, what: str, total: int | None = None, unit: str = "image"):
    """Iterate over `work` with a progress bar, which disappears at the end."""
    shown = {"leave": False, "mininterval": 0.5, "file": sys.stdout}
    disable = not is_interactive()
    return tqdm(work, desc=what, total=total, unit=unit, disable=disable, **shown)


# ------------------------------------------------------------------ cells of a notebook


def source_of(cell: dict[str, Any]) -> str:
    """The text of a notebook's cell."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def own_parameters(path: Path) -> dict[str, Any]:
    """Names and defaults of a notebook's parameters cell; a value that is not a literal as text.

    Read from the file, without executing it. Raises `InputError` if there is no such notebook.
    """
    if not path.is_file():
        raise InputError(f"There is no notebook {short(path)}: give the file name of a notebook.")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return _assignments(source_of(cell))
    return {}


def _assignments(code: str) -> dict[str, Any]:
    """Names and values that `code` assigns at top level; a value that is not a literal as text."""
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
