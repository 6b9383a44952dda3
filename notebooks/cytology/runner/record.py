"""What happens in a run, noted in its `run.json`: what begins, how it ends, what is kept."""

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.catalogue import VERIFICATION, wrong
from cytology.evaluation.repeats import make_run
from cytology.files import (
    FORGOTTEN_SECONDS,
    disk_errors_told,
    lock_file,
    refuse_links_out,
    remove_unfinished,
)
from cytology.machine import cores, git_state, versions
from cytology.runner import changes
from cytology.runner.headless import Failure, Result
from cytology.settings import CACHE, InputError, short
from cytology.tables import write_json
from cytology.wording import some

LOCK = ".lock"


@contextlib.contextmanager
def sole_run(run: Path) -> Iterator[None]:
    """Keep other runs out of a run folder, and clear away what a killed one left half written.

    The system itself frees the lock when the process ends, however it ends. Raises `InputError`
    if another run is at work there, or a link leads out of the folder.
    """
    with disk_errors_told(run / LOCK):
        run.mkdir(parents=True, exist_ok=True)
        refuse_links_out(run)
        lock = lock_file(run / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"Another run is at work in {short(run)}: wait until it has ended, or choose "
                "another folder with --run-dir."
            ) from None
    try:
        remove_unfinished(run)
        remove_unfinished(CACHE, FORGOTTEN_SECONDS)  # other runs may be at work there
        yield
    finally:
        lock.release()


class Journal:
    """Notes in `run.json` what begins and how it ended; only this process writes it.

    `reasons` tells why a notebook that ran before runs again; `notices` what a reader must know
    of those that are kept.
    """

    def __init__(self, plan, jobs: int = 1):
        self.plan = plan
        self.record = new_record(plan, read_run(plan.run)) | {"notebooks_at_once": jobs}
        self.reasons: dict[str, str] = {}
        self.notices: list[str] = []

    def begin(self, task):
        """Note that a task begins; for a point of the grid make its folder first.

        Returns a result if there is nothing to execute: what is finished and unchanged is kept,
        and some training cannot begin.
        """
        entries, run = self._entries(task), Path(task.parameters["run_dir"])
        earlier = entries.get(task.name, {})
        entry = {"status": "running", "started": now(), "parameters": task.parameters}
        if task.point is not None:
            try:
                make_run(self.plan.run, task.point)
            except InputError as error:
                entries[task.name] = entry
                return Result("failed", 0.0, 0, Failure("InputError", str(error), ""))
        made_from = changes.state(task.notebook, run, task.parameters)
        why = changes.changes(earlier, made_from, task.parameters, run)
        if earlier and not why and not self.plan.again:
            self._look_at_kept(task.name, earlier, run)
            return Result("kept", 0.0, 0)
        self.reasons[task.name] = "; ".join(why)
        (self.plan.run / VERIFICATION).unlink(missing_ok=True)  # of what stood before
        entries[task.name] = entry | made_from
        write_record(self.plan.run, self.record)
        return None

    def end(self, task, result) -> None:
        """Note how a task ended; what was kept keeps its earlier note."""
        if result.status == "kept":
            return
        entry, run = self._entries(task)[task.name], Path(task.parameters["run_dir"])
        entry |= {
            "status": result.status,
            "seconds": result.seconds,
            "peak_memory_mib": result.peak_memory_mib,
            "ended": now(),
        }
        if result.status == "ok":
            # Again, since the notebook may have drawn or downloaded what it needs.
            entry["outside"] = changes.outside(task.notebook.stem, run, task.parameters)
            entry["outputs"] = changes.outputs(task.notebook.stem, run)
            entry["versions"] = computed_with(self.record)
        if result.failure:
            entry["error"] = str(result.failure)
        write_record(self.plan.run, self.record)

    def close(self) -> None:
        """Note that the run is over."""
        self.record["ended"] = now()
        write_record(self.plan.run, self.record)

    def _entries(self, task) -> dict:
        return self.record["notebooks" if task.point is None else "grid"]

    def _look_at_kept(self, name: str, entry: dict, run: Path) -> None:
        """Notice what was altered by hand, and what other versions computed."""
        files, present = changes.altered(entry, run), computed_with(self.record)
        if files:
            self.notices.append(
                f"{some(files)} of {short(run)} changed after {name} had ended, and is used as it "
                f"is now; --from {name[:2]} makes it anew."
            )
        before = entry["versions"].items()
        old = [f"{what} {version}" for what, version in before if version != present[what]]
        if old:
            self.notices.append(f"{name} is kept as computed with {', '.join(old)}.")


def computed_with(record: dict) -> dict:
    """The versions of a run that its numbers may depend on."""
    return {name: record["versions"][name] for name in changes.COMPUTED_WITH}


def read_run(run: Path) -> dict:
    """The `run.json` of a run folder; empty if there is none. `InputError` if it is damaged."""
    path = run / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError):
        record = None
    if problem := wrong("run.json", record):
        why = f" ({problem})" if record is not None else ""
        raise InputError(f"{short(path)} is damaged{why}: remove it, or choose another folder.")
    return record


def new_record(plan, earlier: dict) -> dict:
    """`run.json` at the start of a run; notebooks not run this time keep their `earlier` entry."""
    return {
        "profile": plan.profile,
        "command": plan.command,
        "started": now(),
        "ended": None,
        "parameters": plan.parameters,
        "notebooks": dict(earlier.get("notebooks", {})),
        "grid": dict(earlier.get("grid", {})),
        "fingerprint": None,
        "device": None,
        "cores": cores(),
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
