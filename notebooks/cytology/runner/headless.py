"""Executing a notebook unattended: papermill, memory, progress, errors."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from cytology.files import written_whole

SAMPLE_SECONDS = 0.2
END_SECONDS = 5  # how long a process may take to end when asked to
# Tells kernels that nobody is watching. Debuggers warn about frozen modules at every start.
HEADLESS = {"CYTOLOGY_HEADLESS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
# What the machine lacks, by words in the error of any library.
SHORTAGES = {
    "No space left on device": "The disk is full: make room",
    "database or disk is full": "The disk is full: make room",
    "Disk quota exceeded": "Your share of the disk is full: make room",
    "Read-only file system": "The disk is read-only: choose another folder with --run-dir",
    "Permission denied": "Permission was denied: change the permissions",
    "File name too long": "A name is too long for this disk: choose a shorter one",
}
OUT_OF_MEMORY = ("MemoryError", "_ArrayMemoryError", "ResourceExhaustedError")
NEW_ENVIRONMENT = "Fix that, or set up the environment again (README.md), then start again."
LESS_MEMORY = "lower `batch_size` or `image_size`, or run fewer notebooks at once"


@dataclass(frozen=True)
class Failure:
    """Why a notebook stopped: the error as plain text, and the cell in which it happened."""

    name: str
    text: str
    cell: str

    @property
    def is_input(self) -> bool:
        """Whether the message alone is enough: the user's input cannot be used."""
        return self.name in ("InputError", "MachineError")

    def __str__(self) -> str:
        return self.text if self.is_input else f"{self.name}: {self.text}"


@dataclass(frozen=True)
class Result:
    """How a notebook ended: `ok`, `failed`, `interrupted`, or `kept` from an earlier run.

    With its time in seconds and its peak memory in MiB.
    """

    status: str
    seconds: float
    peak_memory_mib: int
    failure: Failure | None = None

    @property
    def is_good(self) -> bool:
        """Whether other notebooks can use its results."""
        return self.status in ("ok", "kept")


class Watch(threading.Thread):
    """Watches a notebook's kernel: measures its peak memory, and calls `look` each time.

    Peak memory is the largest resident set of any single process, kernel or worker, in MiB.
    """

    def __init__(self, look: Callable[[], None]):
        super().__init__(daemon=True)
        self.look = look
        self.peak = 0.0
        self.seen: dict[int, psutil.Process] = {}
        self._ended = threading.Event()

    def follow(self, pid: int) -> None:
        """Watch this process and its children."""
        with contextlib.suppress(psutil.Error):
            self.seen[pid] = psutil.Process(pid)

    def run(self):
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()
            self.look()
        self.look()

    def sample(self) -> None:
        """Measure every process once."""
        for process in list(self.seen.values()):
            with contextlib.suppress(psutil.Error):
                self.peak = max(self.peak, process.memory_info().rss / 2**20)
                self.seen |= {child.pid: child for child in process.children()}

    def end(self) -> None:
        """Stop watching, and end a kernel that survived an interruption."""
        self._ended.set()
        self.join()
        self.end_processes()

    def end_processes(self) -> None:
        """Ask each process that still runs to end, and kill it after 5 s if it does not."""
        for process in self.at_work():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        latest = time.monotonic() + END_SECONDS
        while (left := self.at_work()) and time.monotonic() < latest:
            time.sleep(0.02)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def at_work(self) -> list[psutil.Process]:
        """The watched processes that have not ended.

        Zombies are left out, although psutil would wait for them: the process that adopted them
        may be slow to collect their exit codes.
        """
        left = []
        # psutil compares start times, so a process that reuses a number is never hit.
        for process in list(self.seen.values()):
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
        return left


def execute(
    notebook: Path,
    output: Path,
    parameters: dict,
    progress: Callable[[int, int, float], None] = lambda done, cells, seconds: None,
    wanted: Callable[[], bool] = lambda: True,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Result:
    """Execute `notebook` in its own process and write it, with its outputs, to `output`.

    `progress(done, cells, seconds)` and `wanted()` are called several times a second; the kernel
    is ended when `wanted()` returns False. The kernel gets `environment` in addition to this
    process's own; its working folder is the notebook's, as in JupyterLab. Several threads may
    each execute a notebook. Never raises for errors in the notebook; an interruption (Ctrl-C)
    ends the kernel and gives the status `interrupted`. `output` is replaced only at the end, so
    a killed run leaves no half-written notebook.
    """
    import nbformat
    import papermill
    from jupyter_client import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    cells = nbformat.read(notebook, as_version=4).cells
    begun, at_cell, started = 0, "", time.perf_counter()

    def seconds():
        return time.perf_counter() - started

    class Kernel(AsyncKernelManager):
        async def start_kernel(self, **options):
            # Set here, since papermill would change the working folder of the whole process.
            options |= {"cwd": str(notebook.parent), "env": os.environ | HEADLESS | environment}
            await super().start_kernel(**options)
            watch.follow(self.provisioner.pid)

    def on_cell_start(cell, cell_index):
        nonlocal begun, at_cell
        # papermill's own cell with the parameters is not one of the notebook's.
        if "injected-parameters" not in cell.metadata.get("tags", []):
            begun += 1
        at_cell = cell.source

    def look():
        progress(max(begun - 1, 0), len(cells), seconds())
        if not wanted():
            watch.end_processes()

    watch = Watch(look)
    status, failure = "ok", None
    watch.start()
    try:
        with written_whole(output) as unfinished:
            try:
                papermill.execute_notebook(
                    _literal(notebook),
                    _literal(unfinished),
                    parameters,
                    progress_bar=False,
                    on_cell_start=on_cell_start,
                    kernel_manager_class=Kernel,
                    extra_arguments=["--log-level=CRITICAL"],
                )
            except KeyboardInterrupt:
                status = "interrupted"
                failure = Failure("KeyboardInterrupt", "interrupted", at_cell)
            except (PapermillExecutionError, DeadKernelError) as error:
                # papermill has written what was executed: keep it for inspection.
                status, failure = "failed", failure_of(error, at_cell)
    except Exception as error:  # any error counts as this notebook's failure
        status, failure = "failed", failure_of(error, at_cell)
    finally:
        watch.end()
    return Result(status, round(seconds(), 1), round(watch.peak), failure)


def _literal(path: Path) -> str:
    """`path` with braces escaped, since papermill formats paths with the parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def failure_of(error: Exception, cell: str) -> Failure:
    """The failure to report for an exception that a notebook raised in `cell`.

    Without a cell, the notebook's process did not start.
    """
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    if isinstance(error, DeadKernelError):
        text = "The notebook's process died; the usual reason is too little memory"
        return Failure("MachineError", f"{text}: {LESS_MEMORY}, then start again.", cell)
    if not cell and isinstance(error, (OSError, RuntimeError, NoSuchKernel)):
        text = f"The notebook's process could not be started: {error}. {NEW_ENVIRONMENT}"
        return Failure("MachineError", text, cell)
    name = getattr(error, "ename", type(error).__name__)
    # IPython colours tracebacks.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", getattr(error, "evalue", str(error))).strip()
    shortage = "" if name == "MachineError" else shortage_of(name, text)
    if shortage:
        name, text = "MachineError", f"{shortage}, then start again ({text.splitlines()[0][:200]})."
    return Failure(name, text, getattr(error, "source", cell))


def shortage_of(name: str, text: str) -> str:
    """What the machine lacks and what to do, from the name and text of an error; may be empty."""
    if name in OUT_OF_MEMORY:
        return f"There is not enough memory: {LESS_MEMORY}"
    if name not in ("OSError", "PermissionError", "OperationalError", "RuntimeError"):
        return ""
    return next((advice for words, advice in SHORTAGES.items() if words in text), "")
