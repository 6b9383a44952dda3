"""The record of a run, `run.json`: what started and how it ended. Also the lock of its folder."""

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from cytology import files
from cytology.architectures import ARCHITECTURE_NAMES
from cytology.catalogue import VERIFICATION
from cytology.machine import cores, git_state, versions
from cytology.settings import CACHE, InputError, short
from cytology.tables import write_json, wrong_types

LOCK = ".lock"


@contextlib.contextmanager
def sole_run(run: Path) -> Iterator[None]:
    """Keep other runs out of a run folder, and remove unfinished files of a killed run.

    The system frees the lock when the process ends, however it ends. Raises `InputError` if
    another run is using the folder, or a link leads out of it.
    """
    with files.disk_errors_explained(run / LOCK):
        run.mkdir(parents=True, exist_ok=True)
        files.refuse_links_out(run)
        lock = files.lock_file(run / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"Another run is using {short(run)}: wait until it ends, or choose another folder "
                "with --run-dir."
            ) from None
    try:
        files.remove_unfinished(run)
        files.remove_unfinished(CACHE, files.FORGOTTEN_SECONDS)  # other runs may be using it
        yield
    finally:
        lock.release()


class Record:
    """The `run.json` of a run in progress, rewritten after each note; by this process only.

    It starts with facts `about` the run; notebooks not run this time keep their earlier entry.
    """

    def __init__(self, run: Path, about: dict):
        earlier = read_run(run)
        self.run = run
        self.content = about | {
            "started": now(),
            "ended": None,
            "exit_code": None,
            "cores": cores(),
            "versions": versions(),
            "git": git_state(),
            "notebooks": dict(earlier.get("notebooks", {})),
            "grid": dict(earlier.get("grid", {})),
        }
        if "verification" in earlier:
            self.content["verification"] = earlier["verification"]

    def entry(self, name: str) -> dict:
        """The entry of a notebook, also of the grid; empty if it never started."""
        return self._entries(name).get(name, {})

    def begin(self, name: str, parameters: dict, made_from: dict) -> None:
        """Note that a notebook starts, with its parameters and the hashes of its inputs."""
        (self.run / VERIFICATION).unlink(missing_ok=True)  # it is about the old results
        self.content.pop("verification", None)
        entry = {"status": "running", "started": now(), "parameters": parameters}
        self._entries(name)[name] = entry | made_from
        self.write()

    def end(self, name: str, facts: dict) -> None:
        """Note how a notebook ended."""
        self._entries(name)[name] |= {"ended": now()} | facts
        self.write()

    def note(self, **facts) -> None:
        """Note facts about the whole run."""
        self.content |= facts
        self.write()

    def write(self) -> None:
        """Write `run.json`, with fingerprint, device and engines as far as they are known."""
        devices = [_key(self.run / name / "timing.json", "device") for name in ARCHITECTURE_NAMES]
        self.content["engines"] = {
            name: {key: _key(about, key) for key in ("engine", "engine_why")}
            for name in ARCHITECTURE_NAMES
            if (about := self.run / name / "metrics.json").is_file()
        }
        self.content["fingerprint"] = _key(self.run / "dataset.json", "fingerprint")
        self.content["device"] = ", ".join(dict.fromkeys(filter(None, devices))) or None
        for part in ("notebooks", "grid"):
            self.content[part] = dict(sorted(self.content[part].items()))
        write_json(self.run, "run.json", self.content)

    def _entries(self, name: str) -> dict:
        return self.content["grid" if "/" in name else "notebooks"]  # seed1/04_train_mobilenetv2


def read_run(run: Path) -> dict:
    """The `run.json` of a run folder; empty if there is none. `InputError` if it is damaged."""
    path = run / "run.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        record = None
    if problem := wrong_types("run.json", record):
        why = f" ({problem})" if record is not None else ""
        raise InputError(f"{short(path)} is damaged{why}: remove it, or choose another folder.")
    return record


def _key(path: Path, key: str):
    return json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else None


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
