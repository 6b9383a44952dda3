"""Faults: processes killed from outside, and two runs at once."""

import time

import psutil

from benchmarks.faults.bench import FINE_TUNE, TRAIN, Bench, CallResult, fault, same_tables, text_of
from benchmarks.kills import half_written, kill_tree, start


@fault("a notebook's process is killed, as by the system when memory runs out", "a message, exit 1")
def kernel_is_killed(bench: Bench):
    run = bench.new("run")
    process = start(bench.project, run, "--profile", "smoke", "--only", "01")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        below = psutil.Process(process.pid).children(recursive=True)
        kernels = [each for each in below if "ipykernel" in " ".join(each.cmdline())]
        if kernels:
            time.sleep(1)
            kernels[0].kill()
            break
        time.sleep(0.05)
    code = process.wait()
    said = CallResult(code, run.with_suffix(".log").read_text(encoding="utf-8"))
    return code == 1 and said.says("too little memory"), f"exit {code}: {said.sentence('memory')}"


@fault("the run is killed with all its processes while it trains", "started again, the same tables")
def run_is_killed(bench: Bench):
    whole, run = bench.new("whole"), bench.new("killed")
    bench.call(whole, only=TRAIN)
    process = start(
        bench.project, run, "--profile", "smoke", "-p", "weights", "random", "--only", *TRAIN
    )
    while "04_train" not in text_of(run / "run.json"):
        time.sleep(0.1)
    time.sleep(3)
    kill_tree(process)
    halves = half_written(run)
    again = bench.call(run, only=TRAIN)
    same, words = same_tables(whole, run)
    good = again.code == 0 and same and not halves
    return good, f"{len(halves)} half-written files; exit {again.code}, {words}"


@fault(
    "the run is killed while a network is fine-tuned",
    "started again, it continues after its last epoch and ends with the same bits",
)
def fine_tuning_is_killed(bench: Bench):
    whole, run = bench.new("whole"), bench.new("killed")
    words = [*FINE_TUNE, "-p", "epochs", "6", "-p", "deterministic", "true", "--only", *TRAIN]
    bench.call(whole, *words)
    process = start(bench.project, run, "--profile", "smoke", "-p", "weights", "random", *words)
    while not list(run.glob("*/checkpoint/epoch-00002.npz")):
        time.sleep(0.05)
    kill_tree(process)
    states = [path.name for path in sorted(run.glob("*/checkpoint/epoch-*.npz"))]
    again = bench.call(run, only=TRAIN)
    same, words = same_tables(whole, run)
    notebook = text_of(run / "notebooks" / "04_train_mobilenetv2.ipynb")
    good = again.code == 0 and same and "Continuing after epoch" in notebook
    left = list(run.glob("*/checkpoint"))
    return good and not left, f"killed with {states[-1]}; exit {again.code}, {words}"


@fault("the run is killed and its notebook's process is not", "that process ends by itself")
def orphan(bench: Bench):
    run = bench.new("run")
    process = start(bench.project, run, "--profile", "smoke", "--only", "01")
    kernels = []
    while not kernels:
        below = psutil.Process(process.pid).children(recursive=True)
        kernels = [each for each in below if "ipykernel" in " ".join(each.cmdline())]
        time.sleep(0.05)
    time.sleep(2)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(kernels, timeout=20)
    return not alive, "it ended" if not alive else "it was still running after 20 s"


@fault("a second run in the same folder at the same time", "refused, exit 2; the first continues")
def two_runs(bench: Bench):
    run = bench.new("run")
    first = start(bench.project, run, "--profile", "smoke", "--only", "01")
    while "01_data" not in text_of(run / "run.json"):
        time.sleep(0.1)
    second = bench.call(run, only=("01",))
    code = first.wait()
    good = second.code == 2 and code == 0 and second.says("Another run is using")
    return good, f"exit {second.code}: {second.sentence('Another')}; the first: exit {code}"
