"""Several notebooks at once: what waits for what, failures, and a cluster that loses a worker.

Notebooks without TensorFlow, with the names of the series; those that must overlap meet by files.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
from test_run_all import FIRST, PROFILE, record_of, run_all, start, write_notebook

from cytology.architectures import TRAINING_NOTEBOOKS
from cytology.evaluation.repeats import GridPoint
from cytology.machine import cores
from cytology.runner import headless
from cytology.runner.changes import READS
from cytology.runner.headless import Result
from cytology.runner.notebooks import Notebook, Project
from cytology.runner.parallel import run_together
from cytology.runner.plan import Task, make_plan, points_of, tasks_of, with_folds
from cytology.settings import PROJECT_ROOT, InputError
from cytology.tables import read_json, write_json

TRAINING = list(TRAINING_NOTEBOOKS.values())
PATIENCE = 120  # seconds, enough for any machine

MEET = """
import os, time
from pathlib import Path
mine, other = {mine!r}, {other!r}
(Path(run_dir) / mine).write_text(os.environ.get("CYTOLOGY_CORES", ""))
deadline = time.monotonic() + 120
while not (Path(run_dir) / other).is_file():
    assert time.monotonic() < deadline, "the other notebook never ran beside this one"
    time.sleep(0.1)
"""


def project_of(root, **code):
    """A project whose notebooks have the names of the series and the given code."""
    (root / "notebooks" / "profiles").mkdir(parents=True)
    lines = [line for line in PROFILE.splitlines() if line.split(":")[0] in ("data", "seed")]
    profile = "\n".join(["run_dir: outputs/quick", *lines]) + "\n"
    (root / "notebooks" / "profiles" / "quick.yaml").write_text(profile)
    for name, source in code.items():
        full = next(full for full in READS if full.startswith(name.removeprefix("n")))
        write_notebook(root, full, FIRST, source)
    return root


# ------------------------------------------------------------------------- plans


def planned(root, *argv):
    arguments = run_all.parse(list(argv))
    plan = make_plan(
        Project(root), {}, only=arguments.only, seeds=arguments.seeds, folds=arguments.folds
    )
    return plan, tasks_of(plan)


@pytest.fixture
def full_project(tmp_path):
    """A project with all notebooks, and one with an unknown name."""
    root = project_of(tmp_path / "project", **{f"n{n:02}": "" for n in range(1, 15)})
    write_notebook(root, "15_mine", FIRST, "")
    return root


def test_a_notebook_waits_for_those_whose_files_it_reads(full_project):
    needs = {task.name: set(task.needs) for task in planned(full_project)[1]}
    assert needs["01_data_exploration"] == set()
    split = {"01_data_exploration", "03_splitting"}
    assert needs["05_train_inceptionv3"] == split | {"02_augmentation"}
    assert needs["07_comparison"] == needs["11_robustness"] == split | set(TRAINING)
    assert needs["15_mine"] == set(needs) - {"15_mine"}


def test_only_selected_notebooks_are_waited_for(full_project):
    _, tasks = planned(full_project, "--only", "05", "07")
    assert [task.needs for task in tasks] == [(), ("05_train_inceptionv3",)]


def test_the_grid_trains_in_its_own_folders(full_project):
    plan, tasks = planned(full_project, "--only", "3", "4", "7", "--seeds", "3")
    found = {task.name: task for task in tasks}
    name = "seed5/04_train_mobilenetv2"
    assert [*found] == [
        *("03_splitting", "04_train_mobilenetv2", "seed4/04_train_mobilenetv2", name),
        "07_comparison",
    ]
    assert found[name].point == GridPoint(5) and found[name].needs == ("03_splitting",)
    below = plan.run / "grid" / "seed5"
    assert found[name].parameters == {"run_dir": str(below), "data": "sample", "seed": 5}
    assert found[name].output == below / "notebooks" / "04_train_mobilenetv2.ipynb"
    assert set(found["07_comparison"].needs) == set(found) - {"07_comparison"}
    assert plan.command.endswith("--seeds 3")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seeds", "0"], "--seeds is 0; it must be a whole number of at least 1."),
        (["--jobs", "0"], "--jobs is 0; it must be a whole number of at least 1."),
        (["--seeds", "2", "--only", "7"], "need one of the notebooks 04 to 06; none is chosen."),
        (["--folds", "3"], "No notebook has a parameter `folds`"),
        (["--dask", "tcp://127.0.0.1:9"], "no Dask scheduler answers there"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(
    full_project, monkeypatch, argv, words
):
    monkeypatch.setattr(headless, "execute", None)
    monkeypatch.setattr("cytology.runner.parallel.ANSWER_SECONDS", 1)
    done = start(full_project, *argv)
    assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 1


def test_folds_given_twice_are_refused_and_the_original_protocol_has_no_grid_folds():
    assert with_folds({}, 4) == {"folds": "4"}
    with pytest.raises(InputError, match="--folds 4 and -p folds 5 differ"):
        with_folds({"folds": "5"}, 4)
    with pytest.raises(InputError, match="which the protocol `original` does not"):
        training = Notebook(Path("04_train_mobilenetv2.ipynb"), "", {})
        points_of({"seed": 0, "protocol": "original"}, [training], 1, 3)


# ------------------------------------------------------------------ without processes


def send_immediately(task):
    """Submit a task that is executed immediately."""
    future = Future()
    future.set_result(Result("failed" if "bad" in task.name else "ok", 0.0, 0))
    return future


def send_to_lost_scheduler(task):
    """Submit a task to a scheduler whose connection is lost."""
    future = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


def run_tasks(needs, send=send_immediately, begin=lambda task: None):
    """The results of tasks that need others, by name."""
    tasks = [Task(name, name, None, {}, others) for name, others in needs.items()]
    return run_together(tasks, send, begin, lambda task, result: None, lambda names: None)


def test_after_a_failure_only_its_dependents_are_not_started():
    needs = {"a": (), "bad": ("a",), "c": ("a",), "d": ("bad", "c"), "e": ("d",), "f": ("c",)}
    assert set(run_tasks(needs)) == {"a", "bad", "c", "f"}


def test_tasks_with_kept_results_are_not_submitted():
    kept = Result("kept", 0.0, 0)
    results = run_tasks({"a": (), "b": ("a",)}, begin=lambda task: {"a": kept}.get(task.name))
    assert [result.status for result in results.values()] == ["kept", "ok"]


def test_tasks_that_others_need_start_first_then_the_longest():
    needs = {"06": (), "07": ("06",), "08": ("07",), "10": ("06",), "11": ("06",), "12": ("06",)}
    needs |= {"13": ("07", "12"), "mine": ("06",)}
    sent = []
    run_tasks(needs, send=lambda task: sent.append(task.name) or send_immediately(task))
    assert sent == ["06", "07", "12", "11", "10", "mine", "13", "08"]


def test_nothing_more_is_submitted_after_the_scheduler_is_lost():
    results = run_tasks({"a": (), "b": ("a",)}, send=send_to_lost_scheduler)
    assert [*results] == ["a"] and results["a"].status == "failed"
    assert "the connection to the scheduler was lost" in str(results["a"].failure)


# ---------------------------------------------------------------- on this machine


def test_two_notebooks_run_in_parallel_with_their_share_of_cores_and_the_third_waits(tmp_path):
    four, five = ({"mine": a, "other": b} for a, b in (("a", "b"), ("b", "a")))
    root = project_of(
        tmp_path / "mit Übung",
        n04=MEET.format(**four),
        n05=MEET.format(**five),
        n07="from pathlib import Path\nassert (Path(run_dir) / 'a').is_file()",
    )
    done = start(root, "--jobs", "2")
    assert done.code == 0, done.out + done.err
    run = root / "outputs" / "quick"
    assert (run / "a").read_text() == str(max(1, cores() // 2))
    lines = done.out.splitlines()
    assert "2 at once" in lines[0] and lines[3].startswith("07_comparison")
    record = record_of(run)
    assert [*record["notebooks"]] == [TRAINING[0], TRAINING[1], "07_comparison"]
    assert {entry["status"] for entry in record["notebooks"].values()} == {"ok"}


def test_a_failure_in_parallel_is_reported_and_the_other_notebook_is_kept(tmp_path):
    root = project_of(tmp_path / "p", n04="raise ValueError('so not')", n05="1", n07="1")
    done = start(root, "--jobs", "2")
    assert done.code == 1
    assert "04_train_mobilenetv2 failed: ValueError: so not" in done.out
    assert "Not started: 07_comparison" in done.out
    entries = record_of(root / "outputs" / "quick")["notebooks"]
    assert [entry["status"] for entry in entries.values()] == ["failed", "ok"]


@pytest.fixture
def interruptible():
    """Interruptions are handled even if a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_ends_the_kernels(tmp_path, interruptible):
    wait = "import os, time, pathlib\n(pathlib.Path(run_dir) / f'pid{os.getpid()}').write_text('')"
    root = project_of(
        tmp_path / "p", n04=f"{wait}\ntime.sleep(600)", n05=f"{wait}\ntime.sleep(600)"
    )
    run = root / "outputs" / "quick"

    def interrupt():
        wait_for(lambda: len(list(run.glob("pid*"))) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    done = start(root, "--jobs", "2")
    assert done.code == 130 and "Interrupted in 04_train_mobilenetv2" in done.out
    statuses = {entry["status"] for entry in record_of(run)["notebooks"].values()}
    assert statuses == {"interrupted"}
    kernels = [int(path.name[3:]) for path in run.glob("pid*")]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in kernels))


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ------------------------------------------------------------------------ the grid

LEAVE = """
import json, pathlib
run = pathlib.Path(run_dir)
(run / "mobilenetv2").mkdir(exist_ok=True)
assert "grid" in run.parts or (run / "mobilenetv2" / "predictions.csv").is_file()
split = json.loads((run / "split.json").read_text())["fingerprint"]
about = {"split": split, "seed": seed, "engine": "tensorflow"}
for name in ("predictions.csv", "timing.json", "metrics.json") if "grid" in run.parts else ():
    (run / "mobilenetv2" / name).write_text(json.dumps(about))
"""


def test_more_seeds_add_missing_results_and_keep_the_rest(tmp_path, run):
    root = project_of(tmp_path / "p", n04=LEAVE)
    about = dict.fromkeys(("images", "benign", "malignant", "groups", "rejected"), 0)
    about |= {"data": "sample", "source": "", "unit": "patient", "fingerprint": "", "families": 0}
    write_json(run, "dataset.json", about | {"of_unknown_unit": 0})
    write_json(run, "augmentation.json", {"orientations": 1, "image_size": 224, "fit": "pad"})
    first = start(root, "--run-dir", str(run), "--seeds", "2", "--jobs", "2")
    assert first.code == 0, first.out + first.err
    stood = (run / "grid" / "seed4" / "mobilenetv2" / "metrics.json").stat().st_mtime_ns
    without = start(root, "--run-dir", str(run))
    assert without.code == 0 and "--seeds 2" in record_of(run)["command"]
    again = start(root, "--run-dir", str(run), "--seeds", "3")
    assert again.code == 0, again.out + again.err
    assert (run / "grid" / "seed4" / "mobilenetv2" / "metrics.json").stat().st_mtime_ns == stood
    assert read_json(run / "grid" / "seed5", "mobilenetv2/metrics.json")["seed"] == 5
    assert "seed4/04_train_mobilenetv2   kept: unchanged" in again.out
    grid = record_of(run)["grid"]
    assert {name: entry["status"] for name, entry in grid.items()} == {
        "seed4/04_train_mobilenetv2": "ok",
        "seed5/04_train_mobilenetv2": "ok",
    }
    assert (run / "grid" / "seed5" / "notebooks" / "04_train_mobilenetv2.html").is_file()


def test_a_grid_without_a_split_is_refused_in_one_sentence(tmp_path):
    root = project_of(tmp_path / "p", n04="1")
    done = start(root, "--seeds", "2")
    assert done.code == 1
    assert "seed4/04_train_mobilenetv2 stopped: split.json is missing" in done.out


# ---------------------------------------------------------------------- a cluster

LOSE = """
import os, time
from pathlib import Path
attempts = Path(run_dir) / "attempts"
with attempts.open("a") as log:
    log.write(f"{os.getppid()} {os.getpid()}\\n")
while len(attempts.read_text().splitlines()) == 1:
    time.sleep(0.1)
"""


def test_a_notebook_whose_worker_is_killed_runs_again(tmp_path):
    """Two worker processes over TCP; the one that executes 04 is killed in the middle of it."""
    distributed = pytest.importorskip("distributed")
    root = project_of(tmp_path / "p", n04=LOSE, n05="1", n07="1")
    run, killed = root / "outputs" / "quick", []
    run.mkdir(parents=True)

    def kill():
        wait_for(lambda: (run / "attempts").is_file() and (run / "attempts").read_text().strip())
        killed.extend(int(pid) for pid in (run / "attempts").read_text().split())
        os.kill(killed[0], signal.SIGKILL)

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        assert cluster.scheduler_address.startswith("tcp://")
        threading.Thread(target=kill, daemon=True).start()
        done = start(root, "--dask", cluster.scheduler_address)
    assert done.code == 0, done.out + done.err
    attempts = [line.split() for line in (run / "attempts").read_text().splitlines()]
    assert len(attempts) == 2 and attempts[0][0] != attempts[1][0]
    assert {entry["status"] for entry in record_of(run)["notebooks"].values()} == {"ok"}
    wait_for(lambda: not psutil.pid_exists(killed[1]))  # the kernel of the lost worker


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import run_all
sys.exit(run_all.main(sys.argv[3:], root=Path(sys.argv[2])))
"""


def test_an_interruption_ends_the_kernels_of_a_cluster_and_keeps_its_workers(
    tmp_path, interruptible
):
    distributed = pytest.importorskip("distributed")
    wait = "import os, time, pathlib\n(pathlib.Path(run_dir) / f'pid{os.getpid()}').write_text('')"
    reading = "assert 'DASK_SCHEDULER_ADDRESS' not in os.environ"
    root = project_of(tmp_path / "p", n04=f"{wait}\n{reading}\ntime.sleep(600)")
    run = root / "outputs" / "quick"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        command = [sys.executable, "-c", RUN, PROJECT_ROOT, root]
        started = subprocess.Popen([*command, "--dask", cluster.scheduler_address])
        wait_for(lambda: list(run.glob("pid*")))
        kernel = int(next(run.glob("pid*")).name[3:])
        started.send_signal(signal.SIGINT)
        assert started.wait(PATIENCE) == 130
        wait_for(lambda: not psutil.pid_exists(kernel))
        assert len(cluster.scheduler_info["workers"]) == 1
    statuses = [entry["status"] for entry in record_of(run)["notebooks"].values()]
    assert statuses == ["interrupted"]


def test_a_cluster_without_workers_is_refused(tmp_path):
    distributed = pytest.importorskip("distributed")
    root = project_of(tmp_path / "p", n04="1")
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=None) as cluster:
        done = start(root, "--dask", cluster.scheduler_address)
    assert done.code == 2 and "the cluster has no worker" in done.err
