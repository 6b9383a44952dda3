"""Several notebooks at once: on this machine, or on a Dask cluster.

Both give the executor of `concurrent.futures`, so that what waits for what is written once.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)

import psutil

from cytology.headless import Failure, Result, execute
from cytology.series import Task
from cytology.settings import InputError, cores

ANSWER_SECONDS = 10  # how long a cluster may take to answer
RETRIES = 2  # how often a notebook is sent again when its worker is lost


# ----------------------------------------------------------------------- executors


@contextlib.contextmanager
def on_this_machine(jobs: int) -> Iterator[Executor]:
    """Processes for `jobs` notebooks at once, each with its share of the cores."""
    context = multiprocessing.get_context("spawn")
    share = max(1, cores() // jobs)
    with ProcessPoolExecutor(jobs, context, initializer=_take_share, initargs=(share,)) as pool:
        yield pool


def _take_share(share: int) -> None:
    os.environ["CYTOLOGY_CORES"] = str(share)


@contextlib.contextmanager
def on_cluster(address: str) -> Iterator[Executor]:
    """The workers of the Dask scheduler at `address`; a notebook whose worker is lost runs again.

    Workers must see the project and the run folder under the same paths. Raises `InputError` if
    nobody answers, or if there is no worker.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError("--dask needs the package distributed: pip install distributed") from None
    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask {address}: no Dask scheduler answers there ({type(error).__name__}). "
            "Start one, or check the address."
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise InputError(f"--dask {address}: the cluster has no worker. Start one.")
        yield client.get_executor(pure=False, retries=RETRIES)


# ------------------------------------------------------------------------ running


def run_together(
    tasks: list[Task],
    executor: Executor,
    begin: Callable[[Task], Result | None],
    end: Callable[[Task, Result], None],
    look: Callable[[list[str]], None],
    seconds: float = 0.5,
) -> dict[str, Result]:
    """Execute each task as soon as what it needs is done; returns the results by name.

    `begin` is called before a task is sent; if it gives a result, nothing is sent. `end` is
    called with each result, `look` every few moments with the names of what was sent. After a
    failure nothing that depends on it is started; everything else goes on. After an interruption
    what runs is ended and has the status `interrupted`.
    """
    waiting, sent, results = list(tasks), {}, {}

    def finish(task: Task, result: Result) -> None:
        results[task.name] = result
        end(task, result)

    try:
        while waiting or sent:
            for task in [task for task in waiting if _may_start(task, results)]:
                waiting.remove(task)
                early = begin(task)
                if early is None:
                    early = _send(task, executor, sent)
                if early is not None:
                    finish(task, early)
            if not sent and not any(_may_start(task, results) for task in waiting):
                break  # what still waits needs something that failed
            for future in wait(sent, timeout=seconds, return_when=FIRST_COMPLETED).done:
                finish(sent.pop(future), _result_of(future))
            look([task.name for task in sent.values()])
    except KeyboardInterrupt:
        _end_all(list(sent))
        for task in sent.values():
            why = Failure("KeyboardInterrupt", "interrupted", "")
            finish(task, Result("interrupted", 0.0, 0, why))
    return results


def _may_start(task: Task, results: dict[str, Result]) -> bool:
    return all(name in results and results[name].is_good for name in task.needs)


def _send(task: Task, executor: Executor, sent: dict[Future, Task]) -> Result | None:
    """Give the task to the executor; a result only if that cannot be done any more."""
    try:
        sent[executor.submit(execute, task.notebook, task.output, task.parameters)] = task
    except BrokenExecutor as error:
        return _lost(error)
    return None


def _result_of(future: Future) -> Result:
    error = future.exception()
    return future.result() if error is None else _lost(error)


def _lost(error: BaseException) -> Result:
    """The result of a notebook whose process, not whose code, failed."""
    text = f"the process that executed it was lost: {error}"
    return Result("failed", 0.0, 0, Failure(type(error).__name__, text, ""))


def _end_all(futures: list[Future]) -> None:
    """Take back what was sent, and end the processes of this machine that execute notebooks.

    A worker of a cluster cannot be interrupted: it finishes the notebook that it has.
    """
    for future in futures:
        future.cancel()
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
