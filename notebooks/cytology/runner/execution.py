"""Executing a plan, one notebook after the other or several at once."""

import contextlib
import json
import logging
import os
import shutil
import textwrap
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from cytology.architectures import TRAINED_BY
from cytology.evaluation.caveats import about_outside, caveats
from cytology.evaluation.repeats import make_run
from cytology.networks.weights import warning_of_random
from cytology.report.checklist import write_checklist
from cytology.report.model_card import write_model_card
from cytology.report.notebook_pages import to_html
from cytology.report.page import write_report
from cytology.run import Run
from cytology.runner import changes, headless, terminal
from cytology.runner.headless import Failure, Result
from cytology.runner.notebooks import Project
from cytology.runner.parallel import Send, on_cluster, on_this_machine, run_together
from cytology.runner.plan import Plan, Task, plan_again, tasks_of
from cytology.runner.record import Record, now, read_run, sole_run
from cytology.runner.verification import (
    check_finished,
    compare_runs,
    scratch_folder,
    write_verification,
)
from cytology.settings import InputError, short
from cytology.tables import write_json
from cytology.wording import shorten_list


class Execution:
    """Carries out a plan: decides what to do with each task, and records it.

    `reasons` says why a notebook runs again; `notices` holds warnings about notebooks that are
    kept; `pages` are the HTML pages of executed notebooks, which `writer` writes while the next
    notebook runs.
    """

    def __init__(self, plan: Plan, record: Record, writer: Executor):
        self.plan = plan
        self.record = record
        self.writer = writer
        self.pages: list[Future] = []
        self.reasons: dict[str, str] = {}
        self.notices: list[str] = []

    def begin(self, task: Task) -> Result | None:
        """Decide on a task: keep it, refuse it, or execute it (None).

        A finished and unchanged task is kept. A point of the grid first gets its run folder, and
        is refused if that cannot be made.
        """
        run, earlier = Path(task.parameters["run_dir"]), self.record.entry(task.name)
        if task.point is not None:
            try:
                make_run(Run(self.plan.run), task.point)
            except InputError as error:
                self.record.begin(task.name, task.parameters, {})
                return Result("failed", 0.0, 0, Failure("InputError", str(error), ""))
        made_from = changes.state(task.notebook, run, task.parameters)
        why = changes.changes(earlier, made_from, task.parameters, run)
        if earlier and not why and not self.plan.again:
            self.notices += self.about_kept(task.name, earlier, run)
            return Result("kept", 0.0, 0)
        self.reasons[task.name] = "; ".join(why)
        self.record.begin(task.name, task.parameters, made_from)
        return None

    def end(self, task: Task, result: Result) -> None:
        """Record how a task ended and its outputs; a kept task keeps its entry."""
        if result.status == "kept":
            return
        facts = {"status": result.status, "seconds": result.seconds}
        facts["peak_memory_mib"] = result.peak_memory_mib
        if result.status == "ok":
            notebook, run = task.notebook.stem, Path(task.parameters["run_dir"])
            # Again, since the notebook may have drawn or downloaded its input.
            facts["outside"] = changes.outside_inputs(notebook, run, task.parameters)
            facts["outputs"] = changes.outputs(notebook, run)
            facts["versions"] = self.versions()
        if result.failure:
            facts["error"] = str(result.failure)
        self.record.end(task.name, facts)
        if result.status != "interrupted" and task.output.is_file():
            self.pages.append(self.writer.submit(to_html, task.output))

    def versions(self) -> dict[str, str]:
        """The package versions that the numbers of this run may depend on."""
        return {name: self.record.content["versions"][name] for name in changes.COMPUTED_WITH}

    def about_kept(self, name: str, entry: dict, run: Path) -> Iterator[str]:
        """Warnings about results that were edited by hand or made with other versions."""
        if files := changes.altered_outputs(entry, run):
            yield (
                f"{shorten_list(files)} of {short(run)} changed after {name} ended, and is used in "
                f"its present state; --from {name[:2]} runs the notebook again."
            )
        present, before = self.versions(), entry["versions"].items()
        old = [f"{what} {version}" for what, version in before if version != present[what]]
        if old:
            yield f"{name} is kept, although it was computed with {', '.join(old)}."

    def run_in_order(self, tasks: list[Task]) -> dict[str, Result]:
        """Execute tasks in order until one fails; returns the results by name."""
        results, width = {}, max(len(task.name) for task in tasks)
        for task in tasks:
            result = self.begin(task)
            progress = terminal.Progress(task.name, width, self.reasons.get(task.name, ""))
            if result is None:
                what = (task.notebook, task.output, task.parameters)
                result = headless.execute(*what, progress.show)
            progress.end(result)
            self.end(task, result)
            results[task.name] = result
            if not result.is_good:
                break
        return results

    def run_in_parallel(self, tasks: list[Task], send: Send) -> dict[str, Result]:
        """Execute each task as soon as its inputs are ready; returns the results by name."""
        board = terminal.Board(max(len(task.name) for task in tasks))

        def end(task: Task, result: Result) -> None:
            board.end(task.name, result, self.reasons.get(task.name, ""))
            self.end(task, result)

        return run_together(tasks, send, self.begin, end, board.show)


def run(plan: Plan, jobs: int = 1, dask: str | None = None) -> int:
    """Run the notebooks of `plan`, print the outcome, write the report; returns the exit code.

    One after the other, or `jobs` at once, or on the cluster at `dask`. Raises `InputError` if
    the cluster does not answer or another run is using the folder, `MachineError` if the folder
    cannot be written to.
    """
    tasks = tasks_of(plan)
    with sole_run(plan.run), silence_logs(), ThreadPoolExecutor(1) as writer:
        if plan.taken:
            print(plan.taken, flush=True)
        about = {"profile": plan.profile, "command": plan.command, "parameters": plan.parameters}
        record = Record(plan.run, about | {"notebooks_at_once": jobs})
        execution = Execution(plan, record, writer)
        found = execute_all(execution, tasks, jobs, dask)
        results = {task.name: found[task.name] for task in tasks if task.name in found}
        code = exit_code(results)
        record.note(ended=now())
        made = Run(plan.run)
        if code == 130:
            name = next(name for name, each in results.items() if each.status == "interrupted")
            print(f"Interrupted in {name}; finished work is kept in {short(plan.run)}.")
        else:
            for page in execution.pages:
                page.result()
            write_checklist(made)
            terminal.print_end(made, tasks, results, execution.notices)
            if made.networks:
                write_model_card(made)
            print(f"\nReport: {short(write_report(made))}")
        record.note(exit_code=code, **conclusions(made))
    return code


def execute_all(
    execution: Execution, tasks: list[Task], jobs: int, dask: str | None
) -> dict[str, Result]:
    """Execute `tasks` here or on a cluster; returns the results by name."""
    plan, how = execution.plan, ""
    where: contextlib.AbstractContextManager[Send | None] = contextlib.nullcontext()
    if dask:
        where, how = on_cluster(dask), f", on {dask}"
    elif jobs > 1:
        where, how = on_this_machine(jobs), f", {jobs} at once"
    with where as send:
        names = [task.notebook.stem for task in tasks]
        trained = [TRAINED_BY[name] for name in dict.fromkeys(names) if name in TRAINED_BY]
        weights = plan.parameters.get("weights")
        if weights and (warning := warning_of_random(trained, weights)):
            print(textwrap.fill(warning, terminal.WIDTH) + "\n", flush=True)
        many = f"{len(tasks)} notebook{'s' if len(tasks) > 1 else ''}"
        print(f"Profile {plan.profile}, {many}{how}, run folder {short(plan.run)}", flush=True)
        return execution.run_in_parallel(tasks, send) if send else execution.run_in_order(tasks)


def exit_code(results: dict[str, Result]) -> int:
    """The exit code of the command: 0 success, 1 a notebook failed, 130 interrupted."""
    if any(result.status == "interrupted" for result in results.values()):
        return 130
    return 0 if all(result.is_good for result in results.values()) else 1


def conclusions(run: Run) -> dict[str, list[dict]]:
    """A run's caveats, and its comparison as records, for other programs."""
    table = run.rows("tables/comparison.csv")
    return {
        "caveats": [asdict(caveat) for caveat in caveats(run) + about_outside(run)],
        "comparison": json.loads(table.to_json(orient="records")),
    }


def verify(project: Project, folder: Path, jobs: int | None) -> int:
    """Repeat a finished run from its images and compare every table; returns the exit code.

    Runs as many notebooks at once as the first time, unless `jobs` is given: the rounding of the
    last bits depends on the number of cores per notebook.
    """
    record = check_finished(folder)
    with sole_run(folder):
        again = scratch_folder(folder)
        # A separate cache: reusing earlier results would prove nothing.
        with environment_variable("CYTOLOGY_CACHE", str(again / "cache")):
            at_once = jobs or record.get("notebooks_at_once") or 1
            code = run(plan_again(project, record, folder, again), at_once)
        if code:
            return code
        files, found = compare_runs(folder, again)
        verdict = write_verification(folder, files, found)
        write_json(folder, "run.json", read_run(folder) | {"verification": verdict})
    terminal.print_verification(folder, again, files, found)
    if len(found) == 0:
        shutil.rmtree(again)
    return int(len(found) > 0)


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Context that sets an environment variable for the processes started in it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def silence_logs() -> Iterator[None]:
    """Context without the logs of papermill and its helpers; failures are printed as a sentence."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
