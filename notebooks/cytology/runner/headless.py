"""Executing notebooks without a person looking on: papermill, memory, progress, HTML."""

import contextlib
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from cytology.files import written_whole
from cytology.report.page_parts import POLICY

SAMPLE_SECONDS = 0.2
# `execute` changes the environment and watches all children: a Dask worker with several threads
# must not execute two notebooks at once.
ONE_AT_A_TIME = threading.Lock()
# What the machine may lack, by what the error of any library says of it.
SHORTAGES = {
    "No space left on device": "The disk is full: make room",
    "database or disk is full": "The disk is full: make room",
    "Disk quota exceeded": "Your share of the disk is full: make room",
    "Read-only file system": "The disk is read-only: choose another folder with --run-dir",
    "Permission denied": "The system does not permit it: mend the permissions",
    "File name too long": "A name is too long for this disk: choose a shorter one",
}
OUT_OF_MEMORY = ("MemoryError", "_ArrayMemoryError", "ResourceExhaustedError")
NEW_ENVIRONMENT = "Mend that, or set up the environment anew (README.md), then start again."
LESS_MEMORY = "lower `batch_size` or `image_size`, or run fewer notebooks at once"


@dataclass(frozen=True)
class Failure:
    """Why a notebook stopped: the error without colours, and the cell it happened in."""

    name: str
    text: str
    cell: str

    @property
    def is_input(self) -> bool:
        """Whether the sentence alone helps: something that the user gave cannot be used."""
        return self.name in ("InputError", "MachineError")

    def __str__(self) -> str:
        return self.text if self.is_input else f"{self.name}: {self.text}"


@dataclass(frozen=True)
class Result:
    """How a notebook ended: `ok`, `failed`, `interrupted`, or `kept` from before.

    With its seconds, and its memory in MiB.
    """

    status: str
    seconds: float
    peak_memory_mib: int
    failure: Failure | None = None

    @property
    def is_good(self) -> bool:
        """Whether other notebooks can go on from it."""
        return self.status in ("ok", "kept")


class Watch(threading.Thread):
    """Watches the kernel while a notebook runs: its peak memory, and a call at every look.

    Peak memory is the largest resident set of any one process below this one, in MiB: that is the
    kernel, or one of its workers.
    """

    def __init__(self, look: Callable[[], None]):
        super().__init__(daemon=True)
        self.look = look
        self.peak = 0.0
        self.seen: dict[int, psutil.Process] = {}
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}
        self._ended = threading.Event()

    def run(self):
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()
            self.look()
        self.look()

    def sample(self):
        """Look once at every process that was started since the watch was made."""
        for child in psutil.Process().children(recursive=True):
            if child.pid not in self._before:
                with contextlib.suppress(psutil.Error):
                    self.peak = max(self.peak, child.memory_info().rss / 2**20)
                    self.seen[child.pid] = child

    def end(self):
        """Stop watching; a kernel that outlived an interruption is ended with it."""
        self._ended.set()
        self.join()
        self.end_processes()

    def end_processes(self):
        """End every process that was seen and still runs."""
        end_all(list(self.seen.values()))


def end_all(processes: list[psutil.Process]) -> None:
    """Ask each process that still runs to end, and end after 5 s what has not."""
    # psutil compares start times, so a number that was given away again is never hit.
    left = [process for process in processes if process.is_running()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=5)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def execute(
    notebook: Path,
    output: Path,
    parameters: dict,
    progress: Callable[[int, int, float], None] = lambda done, cells, seconds: None,
    wanted: Callable[[], bool] = lambda: True,
) -> Result:
    """Execute `notebook` in a process of its own and write it, with its outputs, to `output`.

    `progress(done, cells, seconds)` is called several times a second, and `wanted()` too: when
    that says no, the kernel is ended. The kernel's working folder is the notebook's, as in
    JupyterLab. Never raises for what a notebook does; an interruption
    (Ctrl-C) ends the kernel and gives the status `interrupted`. While it runs, `output` stays as
    it was: a killed run leaves no half of a notebook.
    """
    with ONE_AT_A_TIME:
        return _execute(notebook, output, parameters, progress, wanted)


def _execute(notebook: Path, output: Path, parameters: dict, progress, wanted) -> Result:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    cells = nbformat.read(notebook, as_version=4).cells
    begun, at_cell, started = 0, "", time.perf_counter()

    def seconds():
        return time.perf_counter() - started

    def on_cell_start(cell, cell_index):
        nonlocal begun, at_cell
        # papermill's own cell with the parameters is none of the notebook's.
        if "injected-parameters" not in cell.metadata.get("tags", []):
            begun += 1
        at_cell = cell.source

    def look():
        progress(max(begun - 1, 0), len(cells), seconds())
        if not wanted():
            watch.end_processes()

    watch = Watch(look)
    status, failure = "ok", None
    with quiet():
        watch.start()
        try:
            with written_whole(output) as unfinished:
                try:
                    papermill.execute_notebook(
                        _literal(notebook),
                        _literal(unfinished),
                        parameters,
                        progress_bar=False,
                        cwd=str(notebook.parent),
                        on_cell_start=on_cell_start,
                        extra_arguments=["--log-level=CRITICAL"],
                    )
                except KeyboardInterrupt:
                    status = "interrupted"
                    failure = Failure("KeyboardInterrupt", "interrupted", at_cell)
                except (PapermillExecutionError, DeadKernelError) as error:
                    # papermill has written what was executed: that is kept, and looked at.
                    status, failure = "failed", failure_of(error, at_cell)
        except Exception as error:  # whatever stops a notebook is that notebook's failure
            status, failure = "failed", failure_of(error, at_cell)
        finally:
            watch.end()
    return Result(status, round(seconds(), 1), round(watch.peak), failure)


def _literal(path: Path) -> str:
    """`path` so that papermill, which formats paths with the parameters, leaves it as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def failure_of(error: Exception, cell: str) -> Failure:
    """What to tell of an exception that executing a notebook raised in `cell`.

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
    text = without_colours(getattr(error, "evalue", str(error))).strip()
    shortage = "" if name == "MachineError" else shortage_of(name, text)
    if shortage:
        name, text = "MachineError", f"{shortage}, then start again ({text.splitlines()[0][:200]})."
    return Failure(name, text, getattr(error, "source", cell))


def shortage_of(name: str, text: str) -> str:
    """What the machine lacks and what to do, by the name and the text of an error; may be empty."""
    if name in OUT_OF_MEMORY:
        return f"There is too little memory: {LESS_MEMORY}"
    if name not in ("OSError", "PermissionError", "OperationalError", "RuntimeError"):
        return ""
    return next((told for words, told in SHORTAGES.items() if words in text), "")


def without_colours(text: str) -> str:
    """`text` without the ANSI codes that IPython colours tracebacks with."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@contextlib.contextmanager
def quiet():
    """Silence what papermill and its helpers log; tell the kernels that nobody looks on."""
    before = dict(os.environ)
    # Debuggers warn of Python's frozen modules at every kernel's start.
    os.environ.update(CYTOLOGY_HEADLESS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    loggers = [logging.getLogger(name) for name in ("papermill", "traitlets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        os.environ.clear()
        os.environ.update(before)


# ---------------------------------------------------------------------- HTML

# JupyterLab's own page without what it would load from the network: RequireJS, MathJax, Mermaid
# and the widgets. Executed notebooks hold tables, text and PNG pictures, which need none of them.
# Code among the outputs (`show`) looks like code in a cell, as it does in JupyterLab.
OFFLINE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_css -%}
{{ super() }}
<style>.jp-RenderedMarkdown .highlight pre { font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size); line-height: var(--jp-code-line-height) }</style>
{%- endblock -%}
{%- block html_head_js -%}
<meta http-equiv="Content-Security-Policy" content="POLICY">
{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""


def to_html(notebook: Path) -> Path:
    """Write an executed notebook as an HTML page beside it that loads nothing from the network."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    with quiet():
        exporter = HTMLExporter(
            extra_loaders=[DictLoader({"offline.html.j2": OFFLINE.replace("POLICY", POLICY)})],
            template_file="offline.html.j2",
            embed_images=True,
        )
        page, _ = exporter.from_filename(str(notebook))
    path = notebook.with_suffix(".html")
    with written_whole(path) as temporary:
        temporary.write_text(without_remote_images(page), encoding="utf-8")
    return path


def without_remote_images(page: str) -> str:
    """`page` with pictures that lie elsewhere (a Colab badge) replaced by their text."""

    def text(tag: re.Match) -> str:
        alternative = re.search(r"""\balt=(["'])(.*?)\1""", tag[0])
        return alternative[2] if alternative else ""

    return re.sub(r"""<img\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>""", text, page)
