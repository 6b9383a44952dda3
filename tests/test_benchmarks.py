"""The benchmarks' helpers with dummy functions, and their command line; no TensorFlow."""

import ast
import json
import os
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from cytology.settings import PROJECT_ROOT, InputError

sys.path.insert(0, str(PROJECT_ROOT))

from benchmarks import __main__ as command
from benchmarks import coverage, images, places, profiling, promises, scale
from benchmarks.comparison import Result, compare, growth, in_turn, table_of
from benchmarks.figures import ratios
from benchmarks.registry import BENCHMARKS, Options, choose_benchmarks
from benchmarks.sampler import sitecustomize as sampler

EQUAL = "nothing but the name"


def rates(*pairs):
    """The rows of one comparison in images a second, with the target 2."""
    ours, other = zip(*pairs, strict=True)
    return compare("fake", "images/s", list(ours), list(other), EQUAL, at_least=2)


# -------------------------------------------------------------------- measuring


def test_alternatives_are_timed_in_turn():
    called = []
    ways = {name: lambda name=name: called.append(name) or len(called) for name in "abc"}
    assert in_turn(ways, 2) == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}
    assert called == list("abcabc")


def test_a_ratio_is_the_median_of_the_ratios_of_the_runs():
    row = rates((10, 1), (30, 10), (100, 50))
    assert (row.ours, row.other, row.ratio) == (30, 10, 3)
    assert row.runs == [(10, 1, 10), (30, 10, 3), (100, 50, 2)]
    skewed = rates((10, 10), (20, 5), (90, 30))
    assert skewed.ratio == 3 and skewed.ours / skewed.other == 2


@pytest.mark.parametrize(("other", "met"), [(10, True), (10.1, False)])
def test_a_target_is_met_or_missed(other, met):
    row = rates((20, other))
    assert row.met is met
    assert row.target == "at least 2" and row.limit == 2


def test_fewer_seconds_are_better():
    row = compare("fake", "s", [2.0], [6.0], EQUAL, at_least=3)
    assert row.ratio == 3 and row.met
    assert compare("fake", "s", [2.0], [6.0], EQUAL).met is None


@pytest.mark.parametrize(("large", "met"), [(115, True), (116, False)])
def test_growth_is_the_ratio_of_the_large_to_the_small_case(large, met):
    row = growth("memory", "MiB", [large], [100], EQUAL, at_most=1.15)
    assert row.ratio == large / 100 and row.met is met


def test_the_table_names_missed_targets_and_lists_equal_settings_once():
    text = table_of([rates((20, 10)), rates((10, 10))])
    assert "met" in text.splitlines()[1] and "MISSED" in text.splitlines()[2]
    assert text.count(EQUAL) == 1


# ------------------------------------------------------------------ command line


def test_every_benchmark_of_the_registry_can_be_measured():
    for benchmark in BENCHMARKS.values():
        source = (PROJECT_ROOT / "benchmarks" / f"{benchmark.module}.py").read_text("utf-8")
        functions = [each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)]
        arguments = {each.name: [a.arg for a in each.args.args] for each in functions}
        assert arguments["measure"] == ["options", "folder"]


def test_names_may_be_lower_case_and_no_name_means_all():
    assert [each.name for each in choose_benchmarks(["b4", "B1"])] == ["B4", "B1"]
    assert choose_benchmarks([]) == list(BENCHMARKS.values())


def test_an_unknown_name_is_refused_in_one_sentence(capsys):
    with pytest.raises(InputError, match="no benchmark 'B99'"):
        choose_benchmarks(["B1", "B99"])
    assert command.main(["B1", "B99"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert all(name in said.err for name in BENCHMARKS)


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--data", "nowhere"]])
def test_unusable_options_are_refused_before_anything_starts(arguments, capsys):
    assert command.main(["B1", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_list_describes_each_benchmark():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    assert all(line.endswith("?") for line in lines)


def test_a_run_prints_its_table_and_saves_results_machine_and_figure(tmp_path, monkeypatch, capsys):
    class Fake:
        @staticmethod
        def measure(options, folder):
            found = in_turn({"ours": lambda: 20.0, "other": lambda: 5.0}, options.repeats)
            row = compare("fake", "images/s", found["ours"], found["other"], EQUAL, at_least=2)
            return Result([row], [f"Weights: {options.weights}."])

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "machine", lambda: {"cores": 2})
    monkeypatch.setattr(type(BENCHMARKS["B1"]), "load", lambda self: Fake)
    assert command.main(["B1", "--repeats", "3"]) == 0
    assert "Weights: random." in capsys.readouterr().out
    kept = json.loads((tmp_path / "B1.json").read_text("utf-8"))
    row = kept["rows"][0]
    assert {"what", "ours", "other", "ratio", "held_equal", "runs"} <= set(row)
    assert row["runs"] == [[20, 5, 4]] * 3 and row["ratio"] == 4
    assert kept["machine"] == {"cores": 2} and kept["notes"] == ["Weights: random."]
    assert (tmp_path / "B1.png").read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------- figures, pictures


def test_the_figure_shows_every_run_its_median_and_the_target():
    figure = ratios(Result([rates((10, 5), (30, 10)), rates((10, 10))], []))
    axis = figure.axes[0]
    drawn = [list(line.get_xdata()) for line in axis.lines]
    assert [2.0, 3.0] in drawn and [2.5] in drawn and [2, 2] in drawn
    assert [text.get_text() for text in axis.texts] == ["2.5", "1"]


def test_drawn_pictures_are_distinct_jpegs_of_two_classes(tmp_path):
    images.draw_jpegs(tmp_path, 20, width=120, height=90)
    manifest = images.manifest_of(tmp_path)
    assert len(manifest) == 20 and manifest["sha256"].is_unique
    assert set(manifest["label"]) == {"B", "M"}


def test_the_users_own_images_are_copied_and_counted(tmp_path, smear_folder):
    mine = smear_folder(tmp_path / "my images")
    options = Options(1, images=6, data=mine)
    root, manifest, about = images.large_jpegs(options, tmp_path / "copies", 100)
    assert len(manifest) == 6 and "6 of" in about
    assert all((root / image_id).is_file() for image_id in manifest["image_id"])
    hashes = images.manifest_of(mine).set_index("sha256")["label"]
    assert (manifest["sha256"].map(hashes) == manifest["label"]).all()


# ------------------------------------------------------------------------ scale


@pytest.fixture
def series():
    """Two repeats of three sizes, with memory that does not grow and time that does."""
    rows = []
    for repeat in range(2):
        for size in (1_000, 4_000, 16_000):
            row = {"repeat": repeat, "images": size, "start_s": 4.0, "memory": "RssAnon"}
            row |= {f"{part}_mib": 400.0 for part in scale.PARTS} | {"peak_mib": 400.0}
            for unit in ("s", "cpu"):
                row |= {f"{part}_{unit}": size / 1000 for part in scale.PARTS}
                row[f"all_{unit}"] = 3 * size / 1000
            rows.append(row)
    return pd.DataFrame(rows)


def test_growth_is_measured_relative_to_4000_images(series):
    rows = {row.what: row for row in scale.rows_of(series)}
    peak = rows["peak memory, 16,000 to 4,000"]
    each = rows["time an image, 16,000 to 4,000"]
    assert peak.ratio == 1 and peak.met and len(peak.runs) == 2
    assert each.ours == each.other == pytest.approx(3) and each.met
    series.loc[series["images"] == 16_000, "peak_mib"] = 480.0
    assert scale.rows_of(series)[0].met is False


def test_the_slope_is_described_in_words(series):
    series["peak_mib"] = 400 + series["images"] / 2**10  # a KiB an image
    assert "takes 1.00 KiB of memory and 3.00 ms" in scale.slopes(series)[0]


GIVEN_BACK = """
import time
import numpy as np
from benchmarks import scale

before = scale.own_memory()
with scale.PeakMemory() as memory:
    block = np.ones(40 * 2**17)  # 40 MiB
    for _ in range(1000):  # until the thread has looked
        if memory.peak > before + 30:
            break
        time.sleep(0.01)
    del block
print(memory.peak - before)
"""


def test_peak_memory_includes_freed_memory():
    # In a separate process: here the block could reuse memory that other tests have freed.
    command = [sys.executable, "-c", GIVEN_BACK]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 30


def test_the_scale_benchmark_refuses_too_few_images(tmp_path):
    with pytest.raises(InputError, match="16,000"):
        scale.measure(Options(1, images=4_000), tmp_path)


# --------------------------------------------------------------------- coverage


def test_a_small_coverage_study_writes_its_table_and_figure(tmp_path, monkeypatch, capsys):
    """One design per question, three studies each."""
    small = coverage.FixedDesign(12, (2, 4), 0.5, 0.4, 0.95)
    for name in ("FIXED", "HEADS", "TRIPLES", "NESTED"):
        monkeypatch.setattr(coverage, name, [small])
    for name, value in (("NOISE", small), ("SWAPS", 9), ("REPEATS", 1), ("RESULTS", tmp_path)):
        monkeypatch.setattr(coverage, name, value)
    monkeypatch.setenv("CYTOLOGY_CORES", "1")
    assert command.main(["coverage", "--studies", "3"]) == 0
    table = pd.read_csv(tmp_path / "coverage.csv")
    assert set(table["question"]) == {"fixed", "pairs", "heads", "triples", "noise", "nested"}
    assert (tmp_path / "coverage.png").is_file()
    shares = table[table["question"].isin(["fixed", "pairs", "heads", "triples"])]["share"]
    assert shares.dropna().between(0, 1).all() and "nested" in capsys.readouterr().out


def test_a_study_of_a_single_head_counts_the_intervals_that_hold_the_truth(monkeypatch):
    """Intervals of everything and of nothing; the truth of a threshold is at the study's share."""
    design = coverage.FixedDesign(12, (2, 4), 0.5, 0.4, 0.95)
    monkeypatch.setattr(coverage, "auc_interval", lambda rows: (0.0, 1.0))
    monkeypatch.setattr(
        coverage,
        "threshold_intervals",
        lambda rows, at, found: dict.fromkeys(found, (0.99, 1.0)) | {"mcc": (float("nan"),) * 2},
    )
    found = coverage.study_intervals(coverage.cross_validated_study, design, 4, 0).set_index("what")
    assert found.loc["auc", ["share", "above", "width"]].tolist() == [1, 0, 1]
    assert found.loc["recall", ["share", "above"]].tolist() == [0, 1]
    assert found.loc["mcc", "without"] == 1 and pd.isna(found.loc["mcc", "share"])
    both = found.loc[["recall", "specificity"], "truth"].mean()
    assert found.loc["balanced_accuracy", "truth"] == pytest.approx(both)


def test_a_small_study_of_promises_has_one_row_per_design(monkeypatch, capsys):
    """The smallest study per question; guarantees are listed with the observed results."""
    small = [(question, 10, (2, 3)) for question, *_ in promises.DESIGNS]
    monkeypatch.setattr(promises, "DESIGNS", list(dict.fromkeys(small)))
    monkeypatch.setattr(promises, "SHUFFLES", 2)
    monkeypatch.setenv("CYTOLOGY_CORES", "1")
    assert command.main(["promises", "--studies", "2"]) == 0
    words = capsys.readouterr().out.split()
    assert {"audit", "sensitivity", "optimism", "unlike", "promised", "kept"} <= set(words)


def test_a_small_study_of_places_has_one_row_per_design_and_size(tmp_path, monkeypatch, capsys):
    """One design per question; held shares are between 0 and 1."""
    monkeypatch.setattr(places, "RESULTS", tmp_path)
    monkeypatch.setenv("CYTOLOGY_CORES", "1")
    few = {name: (function, designs[:1]) for name, (function, designs) in places.QUESTIONS.items()}
    heads = places.Place(12, (2, 3), new=8, heads=True)
    few["share"] = (places.share, [heads])
    monkeypatch.setattr(places, "QUESTIONS", few)
    assert command.main(["places", "--studies", "2"]) == 0
    table = pd.read_csv(tmp_path / "places.csv")
    assert set(table["question"]) == set(few)
    held = table[table["what"].str.endswith("held")]
    assert len(held) > 6 and held["mean"].dropna().between(0, 1).all()
    assert "referral" in capsys.readouterr().out


def test_found_images_are_counted_by_patient():
    """A threshold below all finds all; above two of three images of one of two patients, 2/3."""
    rows = pd.DataFrame({"group": [0, 0, 0, 1], "logit": [1.0, 1.0, 5.0, 5.0]})
    assert promises.share_found(rows, 0.0) == 1 and promises.share_found(
        rows, 3.0
    ) == pytest.approx(2 / 3)


# ---------------------------------------------------------------------- profile

PACKAGE, LIBRARIES = "/project/notebooks/cytology", "/lib/site-packages"


@pytest.mark.parametrize(
    ("kind", "stack"),
    [
        ("heads", [f"{LIBRARIES}/scipy/optimize/x.py/f", f"{PACKAGE}/networks/linear_head.py/g"]),
        ("figures", [f"{LIBRARIES}/numpy/x.py/mean", f"{LIBRARIES}/matplotlib/axes.py/draw"]),
        ("statistics", [f"{LIBRARIES}/sklearn/x.py/f", f"{PACKAGE}/audits/robustness.py/g"]),
        (
            "libraries",
            ["<frozen importlib._bootstrap>/_load", f"{PACKAGE}/plots/style.py/<module>"],
        ),
        ("TensorFlow", ["<frozen importlib._bootstrap>/_load", f"{LIBRARIES}/tensorflow/a.py/f"]),
        ("waiting", ["/lib/python3.11/selectors.py/select", f"{LIBRARIES}/nbclient/client.py/f"]),
        ("workers", [f"{LIBRARIES}/joblib/parallel.py/_retrieve", f"{PACKAGE}/audits/x.py/audit"]),
        ("other", ["/lib/python3.11/json/decoder.py/decode", "/somewhere.py/<module>"]),
    ],
)
def test_a_stack_is_attributed_to_an_activity(kind, stack):
    assert sampler.kind_of(stack) == kind


def test_a_process_records_its_seconds(tmp_path):
    """Half a second of sleep belongs to no kind, and is recorded completely."""
    over = threading.Event()
    looks = threading.Thread(target=sampler.watch, args=(tmp_path / "1.json", over))
    looks.start()
    time.sleep(0.5)
    over.set()
    looks.join()
    left = json.loads((tmp_path / "1.json").read_text("utf-8"))
    assert sum(left["seconds"].values()) > 0 and left["process"] == os.getpid()


def process(number, parent, command, **seconds):
    return {"process": number, "parent": parent, "command": command.split(), "seconds": seconds}


def test_waiting_for_workers_is_split_by_the_work_they_did():
    """The kernel waited 8 s for two processes of which three quarters were heads."""
    processes = [
        process(1, 0, "python run_all.py", waiting=20.0, HTML=1.0),
        process(2, 1, "python -m ipykernel_launcher", figures=3.0),
        process(3, 1, "python -m ipykernel_launcher", workers=8.0, heads=1.0, libraries=1.0),
        process(4, 3, "python -m joblib", heads=6.0, libraries=2.0, waiting=5.0),
        process(5, 3, "python -m joblib", heads=6.0, libraries=2.0),
        process(6, 3, "python -c resource_tracker", other=9.0),
    ]
    table = profiling.with_sums(profiling.seconds_by_kind(processes, ["01_a", "02_b"]))
    assert table.loc["02_b", ["heads", "libraries", "sum"]].tolist() == [7, 3, 10]
    assert table.loc["all", ["waiting", "HTML", "figures", "sum"]].tolist() == [0, 1, 3, 14]
    assert table.loc["percent", "heads"] == 50
