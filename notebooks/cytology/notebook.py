"""What a notebook shows while it runs: the source of a function, how far long work is."""

import inspect
import os
import sys

from tqdm import tqdm


def show(thing) -> None:
    """Print the real source of a function or class, coloured in a notebook."""
    source = inspect.getsource(thing)
    try:
        from IPython import get_ipython
        from IPython.display import Markdown, display
    except ModuleNotFoundError:
        print(source)
        return
    if get_ipython() is None:
        print(source)
    else:
        display(Markdown(f"```python\n{source}```"))


def somebody_looks_on() -> bool:
    """Whether a person may be watching; `run_all.py` says in the environment that nobody is.

    A progress bar that redraws itself is for a person, not for a page that is kept.
    """
    return "CYTOLOGY_HEADLESS" not in os.environ


def progress(work, what: str, total: int | None = None, unit: str = "image"):
    """Go through `work` and show how far it is; the bar disappears when it is done."""
    return tqdm(
        work,
        desc=what,
        total=total,
        unit=unit,
        leave=False,
        mininterval=0.5,
        file=sys.stdout,
        disable=not somebody_looks_on(),
    )
