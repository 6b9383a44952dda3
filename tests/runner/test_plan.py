"""The whole series, executed through `run_all.py` with profile smoke: tiny, but real."""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient
from nbformat import from_dict
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from cytology.architectures import ARCHITECTURE_NAMES, NETWORK_TITLE
from cytology.audits.leakage import LABELS, PROTOCOLS
from cytology.audits.shifts import SHIFT_STRENGTHS, SHIFTS
from cytology.catalogue import READS, written_by
from cytology.evaluation.predictions import PREDICTION_COLUMNS
from cytology.evaluation.statistics.metrics import AT_A_THRESHOLD, METRICS, OF_PROBABILITIES
from cytology.files import UNFINISHED
from cytology.report import model_card
from cytology.report.checklist import answered_items
from cytology.run import Run
from cytology.runner.changes import inputs, is_from
from cytology.runner.verification import compare_runs
from cytology.settings import PROJECT_ROOT
from cytology.tables import read_json, read_table
from cytology.wording import join_words

# Python runs this when it starts: it notes which files of the run each process opens and writes.
TRACE = """
import os, sys

def note(event, given):
    path = {"open": given[:1], "os.rename": given[1:2]}.get(event, ())
    if path and str(path[0]).startswith(os.environ["TRACED_RUN"]):
        log = os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(log, f"{os.getpid()} {event} {path[0]}\\n".encode())
        os.close(log)

if "TRACE" in os.environ:
    sys.addaudithook(note)
"""


def run_all(*arguments, umask=-1, **environment):
    """Run the series as a user would, without a terminal and with ImageNet out of reach."""
    return subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "run_all.py"), "--profile", "smoke", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        umask=umask,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of the whole series on the sample: (its output, its folder).

    Two notebooks at once, which on two cores saves a third of the time.
    """
    folder = tmp_path_factory.mktemp("series")
    run = folder / "smoke"
    (folder / "sitecustomize.py").write_text(TRACE)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    traced = {"PYTHONPATH": path, "TRACE": str(folder / "trace"), "TRACED_RUN": str(run)}
    done = run_all("--run-dir", str(run), "-p", "weights", "random", "--jobs", "2", **traced)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, run


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_every_file_respects_the_umask(tmp_path, mask):
    home = tmp_path / "home"
    places = {"CYTOLOGY_HOME": str(home), "CYTOLOGY_CACHE": str(home / "cache")}
    more = ("--only", "01", "02", "03", "-p", "write_files", "true", "--run-dir", str(home / "run"))
    done = run_all(*more, umask=mask, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {path: path.stat().st_mode & 0o777 for path in [home, *home.rglob("*")]}
    allowed = {path: (0o777 if path.is_dir() else 0o666) & ~mask for path in found}
    assert found == allowed
    names = {path.name for path in found}
    assert {"run.json", "report.html", ".lock", "inspected.sqlite", "sample.csv"} <= names


def test_every_notebook_ran_successfully(smoke):
    _, run = smoke
    names = [path.stem for path in sorted((PROJECT_ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    assert [path.stem for path in sorted((run / "notebooks").glob("*.ipynb"))] == names
    assert [path.stem for path in sorted((run / "notebooks").glob("*.html"))] == names
    assert (run / "report.html").is_file()


def test_every_notebook_reads_and_writes_the_files_in_the_catalogue(smoke):
    """What runs again after a change follows from `catalogue.READS` and `WRITTEN_BY`."""
    _, run = smoke
    opened, written = defaultdict(set), defaultdict(set)
    for line in (run.parent / "trace").read_text("utf-8").splitlines():
        process, event, path = line.split(" ", 2)
        name = Path(path).relative_to(run).as_posix()
        if UNFINISHED not in name:
            (written if event == "os.rename" else opened)[process].add(name)
    notebooks = set()
    for process, names in written.items():
        writers = {written_by(name) for name in names if not name.startswith("figures/")} - {None}
        if not writers:
            continue  # run_all.py itself, or one of its workers
        (notebook,) = writers
        notebooks.add(notebook)
        said = {*inputs(notebook, run), "run.json"}
        if notebook == "13_export":  # it shows the card as it stands; run_all.py writes it last
            said |= set(model_card.SOURCES)
        unsaid = {name for name in opened[process] - said if not is_from(notebook, name)}
        assert not unsaid, f"{notebook} reads {unsaid}"
        assert all(is_from(notebook, name) for name in names)
    assert notebooks == set(READS)


def test_unchanged_notebooks_are_not_repeated(smoke):
    _, run = smoke
    done = run_all("--run-dir", str(run), "-p", "weights", "random")
    assert done.returncode == 0 and done.stdout.count("kept: unchanged") == len(READS)


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_predictions_follow_their_specification(smoke, name):
    _, run = smoke
    table, split = read_table(run, f"{name}/predictions.csv"), read_table(run, "split.csv")
    assert list(table.columns) == PREDICTION_COLUMNS
    assert not table.duplicated(["image_id", "model", "seed", "orientation"]).any()
    known = split.set_index("image_id")
    assert (table["label"].to_numpy() == known["label"].loc[table["image_id"]].to_numpy()).all()
    out_of_fold = table[table["model"] == "oof"]
    assert set(out_of_fold["image_id"]) == set(split.loc[split["split"] != "test", "image_id"])
    final = table[table["model"] == "final"]
    assert set(final["image_id"]) == set(split.loc[split["split"] != "train", "image_id"])
    assert np.isfinite(table["logit"]).all()
    assert read_json(run, f"{name}/metrics.json")["architecture"] == name
    files = {"model.keras"} | ({"model.h5"} if name == "densenet121" else set())
    assert all((run / name / file).is_file() for file in files)


def test_no_group_crosses(smoke):
    _, run = smoke
    split = read_table(run, "split.csv")
    assert (split.groupby("group")["split"].nunique() == 1).all()
    assert (split.dropna(subset=["fold"]).groupby("group")["fold"].nunique() == 1).all()


def test_every_network_is_exported_with_a_model_card(smoke):
    _, run = smoke
    table = read_table(run, "tables/exports.csv")
    assert table["format"].tolist() == ["keras", "tflite_int8"]
    assert (table["images"] == 8).all() and (table["warning"] == "").equals(table["agrees"])
    assert all((run / file).is_file() for file in table["file"])
    card = (run / "model_card.md").read_text("utf-8")
    assert "not to rank networks" in card.split("## Model details")[0]
    assert f"Model card: {join_words(NETWORK_TITLE.values())}" in card
    assert 'id="card"' in (run / "report.html").read_text("utf-8")


def test_the_checklist_misses_no_file_of_the_series(smoke):
    _, run = smoke
    assert (run / "checklist.md").is_file()
    assert not [each.missing for each in answered_items(Run(run)) if "(from " in each.missing]


def test_the_comparison_has_a_row_for_each_architecture(smoke):
    _, run = smoke
    table = pd.read_csv(run / "tables" / "comparison.csv")
    assert sorted(table["architecture"]) == sorted(ARCHITECTURE_NAMES)
    wanted = "architecture weights accuracy precision recall f1 loss auc".split()
    assert set(wanted) <= set(table.columns)
    assert table[wanted].notna().all().all()
    bounded = ("auc", *AT_A_THRESHOLD)
    assert {*METRICS, *(f"{name}{end}" for name in bounded for end in ("_low", "_high"))} <= set(
        table
    )
    assert not {f"{name}_low" for name in OF_PROBABILITIES} & set(table)


def test_every_table_of_the_comparison_and_of_robustness_is_written(smoke):
    _, run = smoke
    tables = {
        path.stem: read_table(run, f"tables/{path.name}") for path in run.glob("tables/*.csv")
    }
    everything = tables["comparison_all"]
    assert set(everything["level"]) == {"image", "patient"}
    assert {"ensemble", "densenet121, 4 orientations"} <= set(everything["model"])
    pairs = tables["pairwise"]
    counts = pairs[pairs["family"] == "networks"].groupby("level").size()
    assert (counts == comb(len(ARCHITECTURE_NAMES), 2)).all()
    assert pairs["p_holm"].between(0, 1).all() and (pairs["p_holm"] >= pairs["p"]).all()
    thresholds = tables["thresholds"]
    assert thresholds.groupby(["model", "rule"])["threshold"].nunique().eq(1).all()
    assert set(thresholds["chosen_on"]) == {"out-of-fold"}
    assert set(tables["calibration"]["judged_on"]) == {"out-of-fold", "test"}
    assert set(tables["abstention"]["certainty"]) == {
        "margin", "orientations disagree", "networks disagree",
    }  # fmt: skip
    assert sorted(set(tables["learning_curve"]["architecture"])) == sorted(ARCHITECTURE_NAMES)
    shifts = tables["robustness"]
    assert shifts.groupby("architecture").size().eq(1 + len(SHIFTS) * len(SHIFT_STRENGTHS)).all()
    assert (shifts.loc[shifts["strength"] == 0, "auc_change"] == 0).all()


def test_the_audit_has_every_protocol_and_kind_of_labels_of_each_architecture(smoke):
    _, run = smoke
    table = read_table(run, "tables/leakage_audit.csv")
    expected = ["architecture", "protocol", "labels", "seed", "auc", "accuracy", "weights"]
    assert list(table) == expected
    seeds = sorted(table["seed"].unique())
    expected = pd.MultiIndex.from_product([ARCHITECTURE_NAMES, PROTOCOLS, LABELS, seeds])
    found = pd.MultiIndex.from_frame(table[["architecture", "protocol", "labels", "seed"]])
    assert len(seeds) >= 2 and len(table) == len(expected) and set(found) == set(expected)
    assert table[["auc", "accuracy"]].stack().between(0, 1).all()
    summary = pd.read_csv(run / "tables" / "leakage_summary.csv")
    assert (summary["weights"] == "random").all()
    assert len(summary) == len(ARCHITECTURE_NAMES) * len(PROTOCOLS) * len(LABELS)
    assert (run / "figures" / "10_leakage.png").is_file()


def test_the_sample_has_two_planted_copies_and_no_other_finding(smoke):
    _, run = smoke
    table = read_table(run, "tables/quality.csv")
    assert list(table) == ["image_id", "label", "finding", "other", "detail"]
    assert list(table["finding"]) == ["turned"] * 2 and sorted(table["label"]) == ["B", "M"]
    assert run.joinpath("figures", "01_copies.png").is_file()


def test_an_unavailable_published_set_stops_the_series_with_one_sentence(tmp_path):
    data = PROJECT_ROOT / "data"
    if any(data.glob("breakhis*")) or any(data.glob("BreaKHis*")):
        pytest.skip("BreaKHis is here")
    address = "http://127.0.0.1:9/BreaKHis_v1.tar.gz"  # nobody listens at the port for discarding
    run = tmp_path / "run"
    done = run_all("--data", "breakhis", "--run-dir", str(run), "-p", "address", address)
    assert done.returncode == 1
    said = [" ".join(line.split()) for line in (done.stdout + done.stderr).splitlines()]
    sentence = next(line for line in said if "breakhis is not in data and cannot be" in line)
    assert f"download {address} in a browser" in sentence
    assert "put the file into data as BreaKHis_v1.tar.gz, or name it with the parameter" in sentence
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((run / "notebooks").glob("02*"))
    assert not (data / "breakhis").exists()


def test_random_weights_are_reported_everywhere(smoke):
    output, run = smoke
    sentence = "not to rank networks"
    assert sentence in " ".join(output.replace("!!", "").split())
    assert sentence in (run / "report.html").read_text("utf-8")
    assert (pd.read_csv(run / "tables" / "comparison.csv")["weights"] == "random").all()
    assert sentence in (run / "tables" / "summary.md").read_text("utf-8")
    for number in ("04", "05", "06", "07"):
        notebook = next((run / "notebooks").glob(f"{number}_*.ipynb"))
        assert sentence in notebook.read_text("utf-8"), notebook


def test_executed_notebooks_contain_no_error_output(smoke):
    _, run = smoke
    for path in (run / "notebooks").glob("*.ipynb"):
        assert '"output_type": "error"' not in path.read_text("utf-8"), path


@pytest.mark.slow
def test_the_same_predictions_give_identical_tables_and_figures(smoke):
    _, run = smoke

    def written():
        drawn = [path for part in ("07", "08", "14") for path in run.glob(f"figures/{part}_*")]
        paths = [*run.glob("tables/*"), *drawn]
        return {path.name: path.read_bytes() for path in paths}

    first, only = written(), ("--only", "07", "08", "14")
    done = run_all("--run-dir", str(run), *only, "--force", "-p", "weights", "random")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(first) > 25 and written() == first


@pytest.mark.slow
def test_a_run_works_on_a_folder_with_a_space_and_an_umlaut(tmp_path):
    """A user's folder: odd names, mixed formats, a broken file, patients in the file name."""
    folder = tmp_path / "Präparate 2024 Köln"
    rng = np.random.default_rng(0)
    for patient in range(16):
        label = ("Benign", "MALIGNANT")[patient % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            tone = rng.integers(90, 200, 3) + (patient % 2) * 20
            pixels = np.clip(rng.normal(tone, 25, (80, 100, 3)), 0, 255).astype(np.uint8)
            suffix = (".jpg", ".png", ".tif")[number]
            name = f"größe P{patient:02d} {number}{suffix}"
            Image.fromarray(pixels).save(folder / label / name)
    (folder / "Benign" / "kaputt P00 9.png").write_bytes(b"no image")
    run = tmp_path / "Läufe" / "erster Lauf"
    done = run_all(
        *("--data", str(folder), "--run-dir", str(run)),
        *("-p", "patient_pattern", r"P(\d+)", "-p", "weights", "random"),
        *("-p", "write_files", "true", "--only", "01", "02", "03", "04", "07", "08", "09", "11"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_table(run, "manifest.csv")["patient"].nunique() == 16
    assert list(read_table(run, "rejected.csv")["reason"]) == ["not a JPEG, PNG, BMP or TIFF image"]
    quality = read_table(run, "tables/quality.csv")
    assert quality.to_numpy().tolist() == [
        ["Benign/kaputt P00 9.png", "B", "unusable", "", "not a JPEG, PNG, BMP or TIFF image"]
    ]
    assert len(pd.read_csv(run / "tables" / "comparison.csv")) == 1
    assert (run / "tables" / "robustness.csv").is_file()
    assert (run / "report.html").is_file()
    assert len(list((run / "augmented").rglob("*.png"))) == 48 * 4
    counts = read_json(run, "split.json")["counts"]
    for part, factor in (("train", 4), ("val", 1), ("test", 1)):
        files = list((run / "split_data" / part).rglob("*.png"))
        assert len(files) == factor * counts[part]["images"]


@pytest.mark.slow
def test_the_original_protocol_says_that_it_leaks(tmp_path):
    run = tmp_path / "original"
    done = run_all(
        *("--run-dir", str(run), "-p", "protocol", "original", "-p", "weights", "random"),
        *("-p", "train_head", "false", "-p", "fine_tune", "true", "-p", "epochs", "1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    leak = read_json(run, "split.json")["leak"]
    assert leak["test_images_with_copy_in_training"] > 0
    assert "THIS SPLIT LEAKS" in (run / "report.html").read_text("utf-8")
    assert "THIS SPLIT LEAKS" in done.stdout


@pytest.mark.slow
def test_fine_tuning_moves_the_headline_to_test(tmp_path):
    run = tmp_path / "fine-tuned"
    done = run_all(
        *("--run-dir", str(run), "--only", "01", "02", "03", "04", "07", "08", "09"),
        *("-p", "weights", "random", "-p", "fine_tune", "true", "-p", "patience", "5"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = pd.read_csv(run / "tables" / "comparison.csv").iloc[0]
    assert row["judged_on"] == "test" and row["recipe"] == "head, then every layer"
    history = read_table(run, "mobilenetv2/history.csv")
    assert set(history["stage"]) == {"head", "fine_tune"}


def execute(path, parameters, again):
    """Execute a notebook; `again`: each cell twice, then all from the last to the first."""
    page = load_notebook_node(str(path))
    named = re.findall(r"(?m)^(\w+) = ", page.cells[3].source)
    page = parameterize_notebook(
        page, {name: parameters[name] for name in named if name in parameters}
    )
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    if again:
        code = [cell for cell in code for _ in range(2)] + code[::-1]
    page.cells = [from_dict(cell | {"id": f"{place}"}) for place, cell in enumerate(code)]
    folder = {"metadata": {"path": str(PROJECT_ROOT / "notebooks")}}
    NotebookClient(page, timeout=600, kernel_name="python3", resources=folder).execute()


@pytest.fixture
def parameters(monkeypatch):
    monkeypatch.setenv("CYTOLOGY_HEADLESS", "1")
    profile = yaml.safe_load((PROJECT_ROOT / "notebooks/profiles/smoke.yaml").read_text("utf-8"))
    return profile | {"weights": "random"}


@pytest.mark.slow
def test_cells_can_be_run_again(smoke, parameters, tmp_path):
    for path in sorted((PROJECT_ROOT / "notebooks").glob("[0-9]*.ipynb")):
        execute(path, parameters | {"run_dir": str(tmp_path)}, again=True)
    files, different = compare_runs(smoke[1], tmp_path)
    # The rounding of an exported file depends on the number of cores, which `--jobs` divides.
    exports = different["file"] == "tables/exports.csv"
    different = different[~(exports & (different["column"] == "largest_difference"))]
    assert len(files) > 40 and different.empty, different.to_string()


@pytest.mark.slow
def test_fine_tuning_restarts_when_run_again(smoke, parameters, tmp_path):
    path = next((PROJECT_ROOT / "notebooks").glob("04_*.ipynb"))
    for name in ("once", "again"):
        run = shutil.copytree(smoke[1], tmp_path / name)
        tuned = parameters | {"run_dir": str(run), "fine_tune": True}
        execute(path, tuned, again=name == "again")
    files, different = compare_runs(tmp_path / "once", tmp_path / "again")
    assert "mobilenetv2/predictions.csv" in files and different.empty, different.to_string()
    history = read_table(tmp_path / "again", "mobilenetv2/history.csv")
    assert set(history["stage"]) == {"head", "fine_tune"}


@pytest.fixture(scope="module")
def folder_with_split(tmp_path_factory, smear_folder):
    """A folder with a split of its own: test holds copies of train, and two of its patients."""
    root = tmp_path_factory.mktemp("brought") / "data"
    for part, patients in (("train", 14), ("test", 6)):
        smear_folder(root / part, patients=patients, images=2)
    for path in sorted((root / "test").rglob("*.png")):
        number = int(path.stem[1:4])
        picture = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        path.unlink()
        picture.save(
            path.with_name(f"p{number if number < 2 else 100 + number:03}_t{path.stem[-1]}.png")
        )
    return root


def finished(run, data, *arguments):
    """Run the smoke profile on a folder, successfully; returns the output."""
    pattern = ("-p", "patient_pattern", r"(p\d+)_", "-p", "weights", "random")
    done = run_all("--run-dir", str(run), "--data", str(data), *pattern, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_supplied_split_is_checked_and_used_unchanged_with_a_banner(tmp_path, folder_with_split):
    run, used = tmp_path / "judged", tmp_path / "used"
    finished(run, folder_with_split, "--only", "01", "03")
    crossings = read_table(run, "tables/given_split.csv")
    assert crossings["kind"].value_counts().to_dict() == {
        "turned or re-encoded copies": 12,
        "patients": 2,
    }
    for name in ("given_split.html", "figures/03_given_split.png", "report.html"):
        assert (run / name).is_file()
    assert read_json(run, "split.json")["protocol"] == "grouped"
    given = ("--given-split", "folders", "-p", "protocol", "given")
    told = finished(used, folder_with_split, "--only", "01", "02", "03", "04", "07", *given)
    for text in (told, (used / "report.html").read_text("utf-8")):
        assert "THE GIVEN SPLIT LEAKS AND IS USED UNCHANGED: 12 of 12 test images" in text
    row = read_table(used, "tables/comparison.csv").iloc[0]
    assert (row["protocol"], row["judged_on"], row["images"]) == ("given, leaks", "test", 12)
    assert "No winner is named" in (used / "tables/summary.md").read_text("utf-8")


@pytest.mark.slow
def test_another_run_can_use_a_published_split_and_gets_the_same_number(
    tmp_path, folder_with_split
):
    """In a second checkout everything that determined the split is different."""
    there, only = tmp_path / "second checkout", ("--only", "01", "02", "03", "04", "07")
    shutil.copytree(folder_with_split, there)
    cited = ("--given-split", str(tmp_path / "ours" / "split.csv"))
    finished(tmp_path / "ours", folder_with_split, *only)
    finished(
        tmp_path / "theirs", there, *only, *cited, "-p", "test_share", "0.3", "-p", "folds", "4"
    )
    ours, theirs = (
        (read_json(run, "split.json"), read_table(run, "tables/comparison.csv"))
        for run in (tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours[0]["fingerprint"] == theirs[0]["fingerprint"]
    assert ours[1]["auc"].tolist() == theirs[1]["auc"].tolist()
    path = min(there.rglob("*.png"))
    Image.open(path).save(path, compress_level=0)
    with pytest.raises(AssertionError, match="1 image has changed"):
        finished(tmp_path / "third", there, "--only", "01", "03", *cited)
