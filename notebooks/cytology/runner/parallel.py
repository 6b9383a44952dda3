"""Several notebooks at once: on this machine, or on a Dask cluster.

Both provide a function that sends a task and returns its future, so the rule for what waits for
what is written once. Each notebook has its own process, so threads are enough to wait for them.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from cytology.machine import cores
from cytology.runner import headless
from cytology.runner.headless import Failure, Result
from cytology.runner.plan import Task
from cytology.settings import InputError

# How long they take in `quick` with empty caches.
LONGEST_FIRST = ("06", "05", "11", "12", "10", "13", "04", "14", "07", "09", "08")
ANSWER_SECONDS = 10  # how long a cluster may take to answer
Send = Callable[[Task], Future]


# ------------------------------------------------------------------------- places


@contextlib.contextmanager
def on_this_machine(jobs: int) -> Iterator[Send]:
    """Threads for `jobs` notebooks at once, each with an equal share of the cores."""
    share = {"CYTOLOGY_CORES": str(max(1, cores() // jobs))}
    pool, interrupted = ThreadPoolExecutor(jobs), threading.Event()

    def wanted() -> bool:
        return not interrupted.is_set()

    def send(task: Task) -> Future:
        what = (task.notebook, task.output, task.parameters)
        return pool.submit(headless.execute, *what, wanted=wanted, environment=share)

    try:
        yield send
    finally:  # only after an interruption do notebooks still run here
        interrupted.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def on_cluster(address: str) -> Iterator[Send]:
    """The workers of the Dask scheduler at `address`.

    A notebook whose worker is lost runs again, up to the scheduler's `allowed-failures` (3).
    Workers must see the project and the run folder under the same paths. Raises `InputError` if
    the scheduler does not answer or has no workers.
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
    with client:  # if its client is gone, the cluster cancels what was sent
        if not client.scheduler_info()["workers"]:
            raise InputError(f"--dask {address}: the cluster has no workers. Start one.")
        pool = client.get_executor(pure=False)

        def send(task: Task) -> Future:
            return pool.submit(execute_on_worker, task.notebook, task.output, task.parameters)

        yield send


def execute_on_worker(notebook: Path, output: Path, parameters: dict) -> Result:
    """`headless.execute` on a Dask worker; ends the kernel when nobody waits for it any more."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    # The notebook must not read its images through the cluster: if all workers are executing
    # notebooks, they would wait for each other for ever.
    os.environ.pop("DASK_SCHEDULER_ADDRESS", None)

    def wanted() -> bool:
        return task.state != "cancelled"

    return headless.execute(notebook, output, parameters, wanted=wanted)


# ------------------------------------------------------------------------ running


def run_together(
    tasks: list[Task],
    send: Send,
    begin: Callable[[Task], Result | None],
    end: Callable[[Task, Result], None],
    look: Callable[[list[str]], None],
    seconds: float = 0.5,
) -> dict[str, Result]:
    """Execute each task as soon as its inputs are ready; returns the results by name.

    `begin` is called before a task is sent; if it returns a result, the task is not sent. `end` is
    called with each result, `look` every few moments with the names of the running tasks. After a
    failure nothing that depends on it is started; everything else continues. After an interruption
    running tasks have the status `interrupted`.
    """
    waiting = list(tasks)
    sent: dict[Future, Task] = {}
    results: dict[str, Result] = {}

    def finish(task: Task, result: Result) -> None:
        results[task.name] = result
        end(task, result)

    try:
        while waiting or sent:
            ready = [task for task in waiting if _may_start(task, results)]
            for task in sorted(ready, key=partial(_urgency, tasks), reverse=True):
                waiting.remove(task)
                early = begin(task)
                if early is None:
                    sent[send(task)] = task
                else:
                    finish(task, early)
            if not sent and not any(_may_start(task, results) for task in waiting):
                break  # the waiting tasks need something that failed
            for future in wait(sent, timeout=seconds, return_when=FIRST_COMPLETED).done:
                if future.cancelled():  # the scheduler is lost: no more can be sent
                    waiting.clear()
                finish(sent.pop(future), _result_of(future))
            look([task.name for task in sent.values()])
    except KeyboardInterrupt:
        for task in sent.values():
            why = Failure("KeyboardInterrupt", "interrupted", "")
            finish(task, Result("interrupted", 0.0, 0, why))
    return results


def _urgency(tasks: list[Task], task: Task) -> tuple[int, int]:
    """Sort key: tasks that most others wait for come first, and among these the longest.

    The greater, the sooner.
    """
    waiting = {task.name}
    for other in tasks:  # each comes after what it needs
        if waiting.intersection(other.needs):
            waiting.add(other.name)
    number = task.name[:2]
    place = LONGEST_FIRST.index(number) if number in LONGEST_FIRST else len(LONGEST_FIRST)
    return len(waiting), -place


def _may_start(task: Task, results: dict[str, Result]) -> bool:
    return all(name in results and results[name].is_good for name in task.needs)


def _result_of(future: Future) -> Result:
    lost = ConnectionError("the connection to the scheduler was lost")
    error = lost if future.cancelled() else future.exception()
    if error is None:
        return future.result()
    text = f"it could not be completed: {error}"
    return Result("failed", 0.0, 0, Failure(type(error).__name__, text, ""))
