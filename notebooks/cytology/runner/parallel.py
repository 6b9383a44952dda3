"""Several notebooks at once: on this machine, or on a Dask cluster.

Both give the executor of `concurrent.futures`, so that what waits for what is written once.
"""

import contextlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from pathlib import Path

import psutil

from cytology.machine import cores
from cytology.runner.headless import Failure, Result, end_all, execute
from cytology.runner.series import Task
from cytology.settings import InputError

ANSWER_SECONDS = 10  # how long a cluster may take to answer
# What takes longest (profile quick) is sent first: else a worker would wait for it in the end.
LONGEST_FIRST = ("06_train_densenet121", "10_robustness", "05_train_inceptionv3")


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
    """The workers of the Dask scheduler at `address`.

    A notebook whose worker is lost runs again, until it has lost more workers than the scheduler's
    `allowed-failures` (3). Workers must see the project and the run folder under the same paths.
    Raises `InputError` if nobody answers, or if there is no worker.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError("--dask needs the package distributed: pip install distributed") from None
    # It would log a traceback when the scheduler is lost, which is told in a sentence.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL + 1)
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
        yield client.get_executor(pure=False)


def execute_where_sent(notebook: Path, output: Path, parameters: dict) -> Result:
    """`headless.execute` in a process of this machine or of a cluster.

    On a cluster the notebook's kernel is ended when nobody waits for it any more.
    """
    wanted = _wanted_by_cluster() if "distributed" in sys.modules else lambda: True
    return execute(notebook, output, parameters, wanted=wanted)


def _wanted_by_cluster() -> Callable[[], bool]:
    """Whether somebody still waits for the task that this Dask worker executes."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    # Images must not be read by the cluster here: its workers may all be executing notebooks,
    # which then wait for each other for ever.
    os.environ.pop("DASK_SCHEDULER_ADDRESS", None)
    return lambda: task.state != "cancelled"


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
            ready = [task for task in waiting if _may_start(task, results)]
            for task in sorted(ready, key=_place_in_line):
                waiting.remove(task)
                early = begin(task)
                if early is None:
                    early = _send(task, executor, sent)
                if early is not None:
                    finish(task, early)
            if not sent and not any(_may_start(task, results) for task in waiting):
                break  # what still waits needs something that failed
            for future in wait(sent, timeout=seconds, return_when=FIRST_COMPLETED).done:
                if future.cancelled():  # the scheduler is lost: there is nowhere to send more
                    waiting.clear()
                finish(sent.pop(future), _result_of(future))
            look([task.name for task in sent.values()])
    except KeyboardInterrupt:
        _take_back(list(sent))
        for task in sent.values():
            why = Failure("KeyboardInterrupt", "interrupted", "")
            finish(task, Result("interrupted", 0.0, 0, why))
    return results


def _place_in_line(task: Task) -> int:
    name = task.name.split("/")[-1]  # of the grid too: grid/seed1/06_train_densenet121
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


def _may_start(task: Task, results: dict[str, Result]) -> bool:
    return all(name in results and results[name].is_good for name in task.needs)


def _send(task: Task, executor: Executor, sent: dict[Future, Task]) -> Result | None:
    """Give the task to the executor; a result only if that cannot be done any more."""
    what = (task.notebook, task.output, task.parameters)
    try:
        sent[executor.submit(execute_where_sent, *what)] = task
    except BrokenExecutor as error:
        return _lost(error)
    return None


def _result_of(future: Future) -> Result:
    if future.cancelled():
        return _lost(ConnectionError("no connection to the scheduler any more"))
    error = future.exception()
    return future.result() if error is None else _lost(error)


def _lost(error: BaseException) -> Result:
    """The result of a notebook that could not be executed to its end, whatever its code."""
    text = f"it could not be executed to its end: {error}"
    return Result("failed", 0.0, 0, Failure(type(error).__name__, text, ""))


def _take_back(futures: list[Future]) -> None:
    """Take back what was sent, and end the processes of this machine that execute notebooks.

    Workers of a cluster see that nobody waits any more, and end their notebooks themselves.
    """
    for future in futures:
        future.cancel()
    end_all(psutil.Process().children(recursive=True))
