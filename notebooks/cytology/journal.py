"""What happens in a run, noted in its `run.json`."""

import datetime
import json
from pathlib import Path

from cytology.grid import is_done, make_run
from cytology.headless import Failure, Result
from cytology.settings import ARCHITECTURE_NAMES, InputError, git_state, short, versions
from cytology.tables import TRAINED_BY, write_json


class Journal:
    """Notes in `run.json` what begins and how it ended; only this process writes it."""

    def __init__(self, plan):
        self.plan = plan
        self.record = new_record(plan)

    def begin(self, task):
        """Note that a task begins; for a point of the grid make its folder first.

        Returns a result if there is nothing to execute: training that is done, or cannot begin.
        """
        entries = self._entries(task)
        earlier = entries.get(task.name, {})
        entry = {"status": "running", "started": now(), "parameters": task.parameters}
        if task.point is not None:
            try:
                make_run(self.plan.run, task.point)
            except InputError as error:
                entries[task.name] = entry
                return Result("failed", 0.0, 0, Failure("InputError", str(error), ""))
            same = earlier.get("status") == "ok" and earlier["parameters"] == task.parameters
            if same and is_done(self.plan.run, task.point, TRAINED_BY[task.notebook.stem]):
                return Result("kept", 0.0, 0)
        entries[task.name] = entry
        write_record(self.plan.run, self.record)
        return None

    def end(self, task, result) -> None:
        """Note how a task ended; what was kept keeps its earlier note."""
        if result.status == "kept":
            return
        entry = self._entries(task)[task.name]
        entry |= {
            "status": result.status,
            "seconds": result.seconds,
            "peak_memory_mib": result.peak_memory_mib,
            "ended": now(),
        }
        if result.failure:
            entry["error"] = str(result.failure)
        write_record(self.plan.run, self.record)

    def close(self) -> None:
        """Note that the run is over."""
        self.record["ended"] = now()
        write_record(self.plan.run, self.record)

    def _entries(self, task) -> dict:
        return self.record["notebooks" if task.point is None else "grid"]


def read_run(run: Path) -> dict:
    """The `run.json` of a run folder; empty if there is none."""
    path = run / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError:
        raise InputError(
            f"{short(path)} is damaged: remove it, or choose another folder."
        ) from None


def new_record(plan) -> dict:
    """`run.json` at the start of a run; notebooks not run this time keep their earlier entry."""
    return {
        "profile": plan.profile,
        "command": plan.command,
        "started": now(),
        "ended": None,
        "parameters": plan.parameters,
        "notebooks": dict(plan.earlier.get("notebooks", {})),
        "grid": dict(plan.earlier.get("grid", {})),
        "fingerprint": None,
        "device": None,
        "versions": versions(),
        "git": git_state(),
    }


def write_record(run: Path, record: dict) -> None:
    """Write `run.json`, with the data's fingerprint and the device as far as they are known."""
    record["fingerprint"] = _key(run / "dataset.json", "fingerprint")
    devices = [_key(run / name / "timing.json", "device") for name in ARCHITECTURE_NAMES]
    record["device"] = ", ".join(dict.fromkeys(filter(None, devices))) or None
    for part in ("notebooks", "grid"):
        record[part] = dict(sorted(record[part].items()))
    write_json(run, "run.json", record)


def _key(path: Path, key: str):
    return json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else None


def now() -> str:
    """The time in the local zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
