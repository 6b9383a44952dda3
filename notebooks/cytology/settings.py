"""Where things lie, and the two errors that a user may see."""

import os
from pathlib import Path

from cytology.wording import composed

PROJECT_ROOT = Path(__file__).resolve().parents[2]
# `data` and `outputs` may lie elsewhere than the code: on Google Drive, on a scratch disk.
HOME = Path(os.environ.get("CYTOLOGY_HOME", PROJECT_ROOT))
# A fast disk may hold the cache, or a verification may begin with an empty one.
CACHE = Path(os.environ.get("CYTOLOGY_CACHE", HOME / "outputs" / "cache"))
MOST_FOLDERS = 100  # in one another: Python 3.11 makes and reads some hundred more, then gives up


class InputError(ValueError):
    """Something that the user gave cannot be used. The message says what, where and what to do."""

    def _render_traceback_(self):
        # IPython's hook: the reader of a notebook needs the sentence, not our stack.
        return [f"{type(self).__name__}: {self}"]


class MachineError(InputError):
    """What the machine has does not suffice: disk, memory or permission. The message says what."""


def resolve(path, base: Path = HOME) -> Path:
    """`path` as an absolute path; a relative one starts at `base`, `~` is the home folder."""
    return as_on_disk((base / Path(path).expanduser()).resolve())


def as_on_disk(path: Path) -> Path:
    """An absolute path in the Unicode form of the disk, if there is one by that name in another."""
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
    """`path` relative to the project where it lies inside, for messages."""
    path = Path(path)
    inside = path.is_relative_to(PROJECT_ROOT)
    return path.relative_to(PROJECT_ROOT).as_posix() if inside else str(path)
