"""What a page may tell of `run.json` and `dataset.json`: no path of this machine, no name.

The files themselves keep all of it, since a run goes on from them.
"""

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath

from cytology.run import Run
from cytology.settings import PROJECT_ROOT

# A note puts the names of files, folders and people in quotation marks, as `repr` does.
QUOTED = re.compile(r"""(?<!\w)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)""")
HOMES = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\"]+")


def name_of(run: Run) -> str:
    """What a page calls a run folder: its path in the project, elsewhere its last part."""
    inside = run.is_relative_to(PROJECT_ROOT)
    return run.relative_to(PROJECT_ROOT).as_posix() if inside else run.name


def facts(run: Run) -> tuple[dict, dict]:
    """(`run.json`, `dataset.json`) of a run as a page may show them; empty where missing.

    A path in the project is told from there on, another one as `<data>`, by what it was given for;
    names in notes are left out.
    """
    record, dataset = run.facts_if_there("run.json"), run.facts_if_there("dataset.json")
    paths = paths_in(dataset) | paths_in(record) | {str(run): name_of(run)}
    if record.get("command"):
        record["command"] = cut(record["command"], paths, is_command=True)
    record, dataset = (each_text(part, lambda text: cut(text, paths)) for part in (record, dataset))
    if "notes" in dataset:
        files = {PureWindowsPath(path).name: told for path, told in paths.items()}
        notes = (cut(note, files) for note in dataset["notes"])
        dataset["notes"] = [QUOTED.sub("…", note) for note in notes]
    return record, dataset


def paths_in(content, key: str = "path") -> dict[str, str]:
    """The absolute paths among the values of JSON content, each with what a page calls it."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else ((key, part) for part in content)
        found = [paths_in(part, name) for name, part in pairs]
        return {path: told for part in found for path, told in part.items()}
    if not isinstance(content, str) or not is_absolute(content):
        return {}
    inside = Path(content).is_relative_to(PROJECT_ROOT)
    told = Path(content).relative_to(PROJECT_ROOT).as_posix() if inside else f"<{key}>"
    return {content: told}


def is_absolute(text: str) -> bool:
    """Whether a text is an absolute path, of this system or of another."""
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def cut(text: str, paths: dict[str, str], is_command: bool = False) -> str:
    """`text` with `paths` as they are told; and of any other path below a home folder no user.

    In a command, what is told instead of a path is quoted for the shell.
    """
    for path in sorted(paths, key=len, reverse=True):
        told = {path: paths[path]}
        if is_command:
            told |= {shlex.quote(path): shlex.quote(paths[path])}
        for whole, instead in told.items():
            place = rf"(?<![\w/\\]){re.escape(whole)}(?!\w)"
            text = re.sub(place, lambda _, to=instead: to, text)
    text = text.replace(f"{Path.home()}/", "~/") if Path.home() != Path("/") else text
    return HOMES.sub("~", text)


def each_text(content, change):
    """JSON content with every text among its values changed."""
    if isinstance(content, dict):
        return {key: each_text(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [each_text(value, change) for value in content]
    return change(content) if isinstance(content, str) else content
