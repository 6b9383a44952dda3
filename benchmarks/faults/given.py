"""Faults: parameters and files that a user gives."""

from benchmarks.faults.bench import SPLIT, Bench, fault


@fault("another parameter in the same run folder", "refused, exit 2, with both values")
def other_parameter(bench: Bench):
    run = bench.new("run")
    bench.call(run, only=SPLIT)
    done = bench.call(run, "-p", "val_share", "0.3", only=SPLIT)
    good = done.code == 2 and done.says("val_share=0.2, now val_share=0.3", "--run-dir")
    return good, f"exit {done.code}: {done.sentence('now')}"


@fault(
    "a parameter that does not exist, or out of its range", "refused, exit 2, with what is allowed"
)
def wrong_parameters(bench: Bench):
    run = bench.new("run")
    wrong = [("sead", "1"), ("folds", "1"), ("image_size", "10"), ("wanted_sensitivity", "nan")]
    done = [bench.call(run, "-p", *pair) for pair in wrong]
    return all(each.code == 2 for each in done), f"exit 2 each: {done[1].said.strip()[:120]}"
