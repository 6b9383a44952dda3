"""What a page may show of `run.json` and `dataset.json`: no path of this machine, no name.

The files themselves keep all of it, since a run continues from them.
"""

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cytology.run import Run
from cytology.settings import PROJECT_ROOT

# A note puts the names of files, folders and people in quotation marks, as `repr` does.
QUOTED = re.compile(r"""(?<!\w)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)""")
HOMES = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\"]+")


def folder_name(run: Run) -> str:
    """What a page calls a run folder: its path in the project, elsewhere its last part."""
    folder = run.folder
    inside = folder.is_relative_to(PROJECT_ROOT)
    return folder.relative_to(PROJECT_ROOT).as_posix() if inside else folder.name


def facts(run: Run) -> tuple[dict, dict]:
    """(`run.json`, `dataset.json`) of a run as a page may show them; empty where missing.

    A path in the project is shown relative to it, another one by its purpose, as `<data>`; names in
    notes are left out.
    """
    record, dataset = run.facts_if_there("run.json"), run.facts_if_there("dataset.json")
    paths = paths_in(dataset) | paths_in(record) | {str(run.folder): folder_name(run)}
    if record.get("command"):
        record["command"] = without_paths_in(record["command"], paths, is_command=True)
    record, dataset = without_paths(record, paths), without_paths(dataset, paths)
    if "notes" in dataset:
        files = {PureWindowsPath(path).name: shown for path, shown in paths.items()}
        notes = (without_paths_in(note, files) for note in dataset["notes"])
        dataset["notes"] = [QUOTED.sub("…", note) for note in notes]
    return record, dataset


def paths_in(content: Any, key: str = "path") -> dict[str, str]:
    """The absolute paths among the values of JSON content, each with what a page calls it."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else ((key, part) for part in content)
        found = [paths_in(part, name) for name, part in pairs]
        return {path: shown for part in found for path, shown in part.items()}
    if not isinstance(content, str) or not is_absolute(content):
        return {}
    inside = Path(content).is_relative_to(PROJECT_ROOT)
    shown = Path(content).relative_to(PROJECT_ROOT).as_posix() if inside else f"<{key}>"
    return {content: shown}


def is_absolute(text: str) -> bool:
    """Whether a text is an absolute path, of this system or of another."""
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def without_paths_in(text: str, paths: dict[str, str], is_command: bool = False) -> str:
    """`text` with `paths` as a page shows them, and any other path below a home without its user.

    In a command, what stands in the place of a path is quoted for the shell.
    """
    for path in sorted(paths, key=len, reverse=True):
        shown = {path: paths[path]}
        if is_command:
            shown |= {shlex.quote(path): shlex.quote(paths[path])}
        for whole, instead in shown.items():
            place = rf"(?<![\w/\\]){re.escape(whole)}(?!\w)"
            text = re.sub(place, instead.replace("\\", r"\\"), text)
    text = text.replace(f"{Path.home()}/", "~/") if Path.home() != Path("/") else text
    return HOMES.sub("~", text)


def without_paths(content: Any, paths: dict[str, str]) -> Any:
    """JSON content in which every text is shown as by `without_paths_in`."""
    if isinstance(content, dict):
        return {key: without_paths(value, paths) for key, value in content.items()}
    if isinstance(content, list):
        return [without_paths(value, paths) for value in content]
    return without_paths_in(content, paths) if isinstance(content, str) else content
