"""The project's folders, and the two errors that a user may see."""

import os
from pathlib import Path

from cytology.wording import composed

PROJECT_ROOT = Path(__file__).resolve().parents[2]
# `data` and `outputs` need not be beside the code: they may be on Google Drive or a scratch disk.
HOME = Path(os.environ.get("CYTOLOGY_HOME", PROJECT_ROOT))
# The cache may be on a fast disk; a verification starts with an empty one.
CACHE = Path(os.environ.get("CYTOLOGY_CACHE", HOME / "outputs" / "cache"))
MOST_FOLDERS = 100  # deepest nesting; Python 3.11 fails at a few hundred more


class InputError(ValueError):
    """Invalid input from the user. The message says what is wrong, where, and what to do."""

    def _render_traceback_(self):
        # IPython's hook: the reader of a notebook needs the sentence, not our stack.
        return [f"{type(self).__name__}: {self}"]


class MachineError(InputError):
    """The machine lacks disk space, memory or a permission. The message says which."""


def resolve(path, base: Path = HOME) -> Path:
    """`path` as an absolute path; relative to `base` if it is not. `~` is the home folder."""
    return as_on_disk((base / Path(path).expanduser()).resolve())


def as_on_disk(path: Path) -> Path:
    """An absolute path, spelled as on the disk if the disk uses another Unicode form of it."""
    if os.path.exists(path):  # False, and no error, for a name that is too long
        return path
    place = Path(path.anchor)
    for part in path.relative_to(place).parts:
        if not os.path.exists(place / part) and place.is_dir():
            same = (each for each in place.iterdir() if composed(each.name) == composed(part))
            place = next(same, place / part)
        else:
            place = place / part
    return place


def short(path) -> str:
    """`path` for messages: relative to the project if it is inside."""
    path = Path(path)
    inside = path.is_relative_to(PROJECT_ROOT)
    return path.relative_to(PROJECT_ROOT).as_posix() if inside else str(path)
