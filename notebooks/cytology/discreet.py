"""What a page may tell of `run.json` and `dataset.json`: no path beyond its last part, no name.

The files themselves keep all of it, since a run goes on from them.
"""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from cytology.settings import PROJECT_ROOT
from cytology.tables import json_if_there

# A note puts the names of files, folders and people in quotation marks, as `repr` does.
QUOTED = re.compile(r"""(?<!\w)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)""")
HOMES = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\"]+")


def name_of(run: Path) -> str:
    """What a page calls a run folder: its path in the project, elsewhere its last part."""
    inside = run.is_relative_to(PROJECT_ROOT)
    return run.relative_to(PROJECT_ROOT).as_posix() if inside else run.name


def facts(run: Path) -> tuple[dict, dict]:
    """(`run.json`, `dataset.json`) of a run as a page may show them; empty where missing.

    Paths are cut to their last part, or to what lies below the project; names in notes are left
    out.
    """
    record, dataset = json_if_there(run, "run.json"), json_if_there(run, "dataset.json")
    paths = {text for text in texts_in([record, dataset]) if is_absolute(text)} | {str(run)}
    record, dataset = (each_text(part, lambda text: cut(text, paths)) for part in (record, dataset))
    if "notes" in dataset:
        dataset["notes"] = [QUOTED.sub("…", note) for note in dataset["notes"]]
    return record, dataset


def is_absolute(text: str) -> bool:
    """Whether a text is an absolute path, of this system or of another."""
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def cut(text: str, paths: set[str]) -> str:
    """`text` with each of `paths` cut to its last part; also what else names a home folder."""
    for path in sorted(paths, key=len, reverse=True):
        last = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
        if Path(path).is_relative_to(PROJECT_ROOT):
            last = Path(path).relative_to(PROJECT_ROOT).as_posix()
        if last:
            text = re.sub(rf"(?<![\w/\\]){re.escape(path)}(?!\w)", lambda _, to=last: to, text)
    text = text.replace(f"{Path.home()}/", "~/") if Path.home() != Path("/") else text
    return HOMES.sub("~", text)


def texts_in(content) -> set[str]:
    """All texts among the values of JSON content."""
    if isinstance(content, str):
        return {content}
    inside = content.values() if isinstance(content, dict) else content
    return set().union(*map(texts_in, inside)) if isinstance(content, dict | list) else set()


def each_text(content, change):
    """JSON content with every text among its values changed."""
    if isinstance(content, dict):
        return {key: each_text(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [each_text(value, change) for value in content]
    return change(content) if isinstance(content, str) else content
