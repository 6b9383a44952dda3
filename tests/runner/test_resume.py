"""Resuming a run: what is kept, what runs again and why, locks, kills.

Notebooks without TensorFlow, with names of the series, so that what they read and write is known.
"""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from test_run_all import FIRST, record_of, start, started, write_notebook

from cytology.architectures import ARCHITECTURES
from cytology.catalogue import WRITTEN_BY, written_by
from cytology.files import UNFINISHED
from cytology.notebook import own_parameters
from cytology.run import open_run
from cytology.runner import changes, headless
from cytology.runner.notebooks import find_notebooks
from cytology.runner.record import LOCK, sole_run
from cytology.settings import PROJECT_ROOT, InputError

sys.path.insert(0, str(PROJECT_ROOT))

from benchmarks import kills

__all__ = ["started"]
PATIENCE = 120
PROFILE = "run_dir: outputs/quick\ndata: sample\nseed: 3\norientations: 8\naudit_seeds: 5\n"
WRITE = """
from pathlib import Path
from cytology.tables import write_json, write_table
import pandas as pd
"""
ONE = WRITE + "write_table(Path(run_dir), 'manifest.csv', pd.DataFrame({'image_id': [seed]}))"
TWO = WRITE + "write_json(Path(run_dir), 'augmentation.json', {'orientations': orientations})"
THREE = WRITE + (
    "table = pd.read_csv(Path(run_dir) / 'manifest.csv')\n"
    "write_table(Path(run_dir), 'split.csv', table.assign(split='train'))"
)
TEN = WRITE + (
    "text = (Path(run_dir) / 'augmentation.json').read_text()\n"
    "write_json(Path(run_dir), 'tables/leakage.md', {'seeds': audit_seeds, 'text': text})"
)


@pytest.fixture
def project(tmp_path):
    """Four notebooks: 02 and 03 read what 01 writes, 10 what 02 writes."""
    root = tmp_path / "project"
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "notebooks" / "profiles" / "quick.yaml").write_text(PROFILE)
    write_notebook(root, "01_data_exploration", FIRST, ONE)
    write_notebook(root, "02_augmentation", f"{FIRST}\norientations = 8", TWO)
    write_notebook(root, "03_splitting", FIRST, THREE)
    write_notebook(root, "10_leakage_audit", f"{FIRST}\naudit_seeds = 5", TEN)
    return root


@pytest.fixture
def execution(monkeypatch):
    """Executes the notebooks' code in this process; the list of their numbers."""
    calls = []

    def execute(notebook, output, parameters, progress=None):
        calls.append(notebook.stem[:2])
        names = dict(parameters)
        for cell in nbformat.read(notebook, as_version=4).cells[2:]:
            exec(cell.source, names)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(notebook.read_bytes())
        return headless.Result("ok", 0.1, 1)

    monkeypatch.setattr(headless, "execute", execute)
    return calls


def rerun(project, execution, *argv):
    """Start the series again; returns the numbers of the notebooks that ran, and the output."""
    execution.clear()
    done = start(project, *argv)
    assert done.code == 0, done.out + done.err
    return list(execution), done.out


# ------------------------------------------------------------------------ kept


def test_unchanged_notebooks_are_kept_and_reported_as_kept(project, execution):
    assert rerun(project, execution)[0] == ["01", "02", "03", "10"]
    before = record_of(project / "outputs" / "quick")["notebooks"]
    ran, said = rerun(project, execution)
    assert ran == [] and said.count("kept: unchanged") == 4
    assert "Kept, because code, parameters and inputs are unchanged: 01_data_exploration" in said
    assert record_of(project / "outputs" / "quick")["notebooks"] == before


@pytest.mark.parametrize(
    ("argv", "numbers"),
    [
        (["-p", "audit_seeds", "6", "--force"], ["10"]),
        (["-p", "orientations", "4", "--force"], ["02", "03", "10"]),
        (["--from", "3"], ["03", "10"]),
        (["--force"], ["01", "02", "03", "10"]),
        (["--only", "2"], []),
        (["--only", "2", "--force"], ["02"]),
    ],
)
def test_exactly_the_dependent_notebooks_run_again(project, execution, argv, numbers):
    rerun(project, execution)
    assert rerun(project, execution, *argv)[0] == numbers


def test_dependents_run_again_only_if_the_content_changes(project, execution):
    rerun(project, execution)
    write_notebook(project, "01_data_exploration", FIRST, ONE + "\n# another comment")
    ran, said = rerun(project, execution)
    assert ran == ["01"] and "again: other code" in said
    write_notebook(project, "01_data_exploration", FIRST, ONE.replace("[seed]", "[7, 8]"))
    ran, said = rerun(project, execution)
    assert ran == ["01", "02", "03", "10"] and "again: other manifest.csv" in said


def test_a_missing_result_is_recomputed_and_an_edited_one_is_kept(project, execution):
    rerun(project, execution)
    run = project / "outputs" / "quick"
    (run / "split.csv").unlink()
    assert rerun(project, execution)[0] == ["03"]
    (run / "augmentation.json").write_text('{"orientations": 1}')
    ran, said = rerun(project, execution)
    assert ran == ["03", "10"]
    assert "augmentation.json of" in said
    assert "changed after 02_augmentation ended" in " ".join(said.split())
    assert json.loads((run / "augmentation.json").read_text()) == {"orientations": 1}


def test_an_unfinished_notebook_runs_again(project, execution):
    rerun(project, execution)
    path = project / "outputs" / "quick" / "run.json"
    record = record_of(path.parent)
    record["notebooks"]["02_augmentation"]["status"] = "running"
    path.write_text(json.dumps(record))
    ran, said = rerun(project, execution)
    assert ran == ["02"] and "again: it was not finished" in said


def test_a_run_of_an_earlier_version_runs_again(project, execution):
    rerun(project, execution)
    path = project / "outputs" / "quick" / "run.json"
    record = record_of(path.parent)
    del record["notebooks"]["10_leakage_audit"]["code"]
    path.write_text(json.dumps(record))
    assert rerun(project, execution)[0] == ["10"]


def test_results_of_another_version_are_kept_and_named(project, execution):
    rerun(project, execution)
    path = project / "outputs" / "quick" / "run.json"
    record = record_of(path.parent)
    record["notebooks"]["10_leakage_audit"]["versions"]["keras"] = "3.0.1"
    path.write_text(json.dumps(record))
    ran, said = rerun(project, execution)
    assert (
        ran == [] and "10_leakage_audit is kept, although it was computed with keras 3.0.1" in said
    )


# --------------------------------------------------------------------- fingerprints


def test_every_file_that_is_read_is_written_by_an_earlier_notebook():
    notebooks = find_notebooks(PROJECT_ROOT / "notebooks")
    assert list(changes.READS) == [notebook.name for notebook in notebooks]
    for notebook, names in changes.READS.items():
        for name in names:
            if name.startswith("grid/"):
                continue
            writer = written_by(name)
            assert writer in changes.READS and writer < notebook, name
    assert set(WRITTEN_BY.values()) == set(changes.READS)


def test_the_code_of_a_notebook_includes_its_imports(tmp_path, monkeypatch):
    package = tmp_path / "cytology"
    (package / "plots").mkdir(parents=True)
    sources = {"__init__": "", "a": "from cytology import b", "plots/__init__": "", "plots/x": ""}
    sources |= {"b": "def f():\n    import cytology.c", "c": "", "d": ""}
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
    (package / "c.html.jinja").write_text("page")
    monkeypatch.setattr(changes, "PACKAGE", package)
    (tmp_path / "notebooks").mkdir()

    def code(
        cell="%pwd\nfrom cytology.a import g\nfrom cytology.plots import x", parameters="n = 1"
    ):
        changes.source.cache_clear()
        changes.imported_by.cache_clear()
        write_notebook(tmp_path, "01_a", parameters, cell)
        return changes.code_hash(tmp_path / "notebooks" / "01_a.ipynb")

    first = code()
    assert code(parameters="n = 2") == first and code("1") != first
    for name in ("d.py", "__init__.py", "plots/__init__.py"):
        (package / name).write_text("1")
        assert code() == first
    for name in ("a.py", "b.py", "c.py", "c.html.jinja", "plots/x.py"):
        kept = (package / name).read_text()
        (package / name).write_text(f"{kept}\n# changed")
        assert code() != first, name
        (package / name).write_text(kept)
    assert code() == first


def test_the_fingerprint_of_a_folder_depends_on_its_files(tmp_path):
    folder = tmp_path / "Bilder ü"
    assert changes.path_fingerprint(folder) == ""
    folder.mkdir()
    marks = [changes.path_fingerprint(folder)]
    (folder / "a.png").write_bytes(b"1")
    marks.append(changes.path_fingerprint(folder))
    assert changes.path_fingerprint(folder) == marks[-1]
    os.utime(folder / "a.png", (1, 1))
    marks.append(changes.path_fingerprint(folder))
    (folder / "a.png").rename(folder / "b.png")
    marks.append(changes.path_fingerprint(folder))
    assert len(set(marks)) == 4


def test_weights_that_become_available_are_a_change(monkeypatch, tmp_path):
    from cytology.networks import weights

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "unreachable", lambda address: "no network")
    marks = [weights.weights_fingerprint("mobilenetv2", "auto")]
    monkeypatch.setattr(weights, "unreachable", lambda address: "")
    marks.append(weights.weights_fingerprint("mobilenetv2", "auto"))
    (tmp_path / "models").mkdir()
    name = ARCHITECTURES["mobilenetv2"].weights.split("/")[-1]
    (tmp_path / "models" / name).write_bytes(b"weights")
    marks.append(weights.weights_fingerprint("mobilenetv2", "auto"))
    (tmp_path / "mobilenetv2.weights.h5").write_bytes(b"others")
    marks.append(weights.weights_fingerprint("mobilenetv2", str(tmp_path)))
    assert len(set(marks)) == 4 and weights.weights_fingerprint("mobilenetv2", "random") == "random"


# ------------------------------------------------------------------------- lock


def test_two_runs_cannot_use_one_folder(project, execution):
    run = project / "outputs" / "quick"
    with sole_run(run):
        done = start(project)
        assert done.code == 2 and "Another run is using" in done.err and not execution
    assert start(project).code == 0


def test_the_lock_of_a_killed_process_is_released(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from cytology.runner.record import sole_run\n"
        "with sole_run(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match="Another run is using"), sole_run(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with sole_run(tmp_path):
        assert (tmp_path / LOCK).is_file()


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "tables").mkdir()
    half = tmp_path / "tables" / f"{UNFINISHED}abc.csv"
    half.write_text("image_id,la")
    (tmp_path / f"{UNFINISHED}folder" / "new").mkdir(parents=True)
    (tmp_path / "tables" / "whole.csv").write_text("image_id\n")
    with sole_run(tmp_path):
        pass
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == {"tables", "whole.csv", LOCK}


# ------------------------------------------------------------------------ links


@pytest.fixture
def victim(tmp_path):
    """Somebody's folder, to which a link in a stranger's run folder leads."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "comparison.csv").write_text("mine")
    return folder


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (LOCK, "comparison.csv"),
        (LOCK, "not there"),
        ("tables", ""),
        ("figures", "not there"),
        ("run.json", "comparison.csv"),
        ("grid/seed1/tables", ""),
    ],
)
def test_a_run_folder_with_a_link_to_the_outside_is_refused(
    project, execution, victim, link, target
):
    path = project / "outputs" / "quick" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(victim / target)
    if link == "run.json":
        (victim / target).write_text("{}")
    before = {each.name: each.read_text() for each in victim.iterdir()}
    done = start(project)
    parameters = own_parameters(PROJECT_ROOT / "notebooks" / "01_data_exploration.ipynb")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and not execution
    assert "holds a link that leads out of it" in done.err and str(victim) in done.err
    with pytest.raises(InputError, match=f"leads out of it, {link} to"):
        open_run("01_data_exploration", parameters | {"run_dir": str(project / "outputs/quick")})
    assert {each.name: each.read_text() for each in victim.iterdir()} == before


def test_a_link_within_the_run_folder_is_allowed(project, execution):
    run = project / "outputs" / "quick"
    (run / "tables").mkdir(parents=True)
    (run / "best").symlink_to(run / "tables")
    (run / "loop").symlink_to("loop")
    assert start(project).code == 0


def test_a_link_in_place_of_the_lock_is_reported(project, execution):
    run = project / "outputs" / "quick"
    rerun(project, execution)
    (run / LOCK).unlink()
    (run / LOCK).symlink_to("run.json")
    before = (run / "run.json").read_text()
    done = start(project)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "there is a link in its place" in done.err
    assert (run / "run.json").read_text() == before


# ------------------------------------------------------------------------ kills

SLOW = """
import time
for number in range(20):
    write_table(Path(run_dir), "manifest.csv", pd.DataFrame({"image_id": range(20_000)}))
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_a_series_killed_at_any_moment_can_be_resumed_to_the_same_tables(project, tmp_path):
    write_notebook(project, "01_data_exploration", FIRST, ONE, WRITE + SLOW)
    (project / "run_all.py").write_text(
        f"import sys\nsys.path.insert(0, {str(PROJECT_ROOT)!r})\n"
        "import run_all\nfrom pathlib import Path\n"
        "sys.exit(run_all.main(root=Path(__file__).parent))\n"
    )
    runs = tmp_path / "runs"
    assert kills.start(project, runs / "whole").wait() == 0
    found = list(kills.killed_and_started_again(project, runs / "killed", [], [2.5, 4.0]))
    assert len(found) == 2 and [halves for *_, halves in found] == [[], []]
    files, different = kills.compare_runs(runs / "whole", runs / "killed")
    assert {"manifest.csv", "split.csv", "augmentation.json"} <= set(files)
    assert different.empty, different


@pytest.mark.parametrize(
    "name", ["a.json", "a.csv", "a.ipynb", "a.npy", "a.png", "a.keras", "a.html"]
)
def test_a_half_written_file_is_detected(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert len(kills.half_written(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal to end that can be heard")
def test_a_termination_by_a_batch_queue_is_handled(project, tmp_path):
    write_notebook(
        project, "02_augmentation", f"{FIRST}\norientations = 8", "import time; time.sleep(600)"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r}); import run_all; "
        "from pathlib import Path; sys.exit(run_all.main([], root=Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, project], stdout=subprocess.PIPE)
    run, deadline = project / "outputs" / "quick", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (run / "run.json").is_file() and "02_augmentation" in record_of(run)["notebooks"]:
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Interrupted in 02_augmentation" in said
    status = {name: entry["status"] for name, entry in record_of(run)["notebooks"].items()}
    assert status == {"01_data_exploration": "ok", "02_augmentation": "interrupted"}


# ------------------------------------------------------ failures of the machine


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("OSError", "[Errno 28] No space left on device: '/x'", "The disk is full"),
        ("OperationalError", "database or disk is full", "The disk is full"),
        ("PermissionError", "[Errno 13] Permission denied: '/x'", "Permission was denied"),
        ("OSError", "[Errno 30] Read-only file system: '/x'", "read-only"),
        ("_ArrayMemoryError", "Unable to allocate 9 TiB", "not enough memory"),
        ("ResourceExhaustedError", "OOM when allocating", "`batch_size`"),
    ],
)
def test_missing_resources_are_reported_in_one_sentence(name, text, words):
    class Raised(Exception):
        ename, evalue, source = name, text, "1"

    failure = headless.failure_of(Raised(), "1")
    assert (
        failure.is_input
        and words in str(failure)
        and text.split("'")[0].strip(": ") in str(failure)
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("{file}", "Permission denied: '{file}'"),
        ("{file}.gone", "No such file or directory: '{file}.gone'"),
        (sys.executable, "Kernel died before replying"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows names errors of its own")
def test_a_process_that_does_not_start_is_reported_with_the_error_of_the_system(
    project, tmp_path, monkeypatch, command, words
):
    file = tmp_path / "python"
    file.write_text("not to be executed")
    kernel = {"argv": [command.format(file=file), "-c", ""], "display_name": "", "language": ""}
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    done = start(project, "--only", "1")
    assert done.code == 1 and words.format(file=file) in done.out
    assert "01_data_exploration stopped: The notebook's process could not be started" in done.out
    assert "cannot be written" not in done.out


def test_other_errors_are_raised_unchanged():
    class Raised(Exception):
        ename, evalue = "OSError", "[Errno 2] No such file or directory: '/x'"

    assert not headless.failure_of(Raised(), "1").is_input


def test_a_run_folder_that_cannot_be_written_ends_with_1(project, execution, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cytology.files.new_beside", full)
    done = start(project)
    assert done.code == 1 and "the disk is full" in done.err and len(done.err.splitlines()) == 1


# ---------------------------------------------------------------------- verify


def test_a_run_is_verified(project, execution):
    rerun(project, execution)
    run = project / "outputs" / "quick"
    ran, said = rerun(project, execution, "--verify", str(run))
    assert ran == ["01", "02", "03", "10"]
    assert "tables are identical" in said and not (run.parent / "quick-verification").exists()
    assert json.loads((run / "verification.json").read_text())["different"] == 0
    assert record_of(run)["verification"]["different"] == 0
    rerun(project, execution)
    assert "verification" in record_of(run)
    rerun(project, execution, "--force")
    assert "verification" not in record_of(run)


def test_a_number_that_changed_is_named(project, execution):
    rerun(project, execution)
    run = project / "outputs" / "quick"
    (run / "manifest.csv").write_text("image_id\n4\n")
    done = start(project, "--verify", str(run))
    assert done.code == 1
    assert "1 of 4 tables differ" in done.out and "manifest.csv, image_id, 4: 4, then 3" in done.out
    assert (run / "verification.csv").is_file()


@pytest.mark.parametrize("is_link", [False, True])
def test_verify_removes_no_folder_that_it_did_not_make(project, execution, tmp_path, is_link):
    rerun(project, execution)
    run, mine = project / "outputs" / "quick", tmp_path / "mine"
    other = run.with_name("quick-verification")
    (mine if is_link else other).mkdir()
    if is_link:
        other.symlink_to(mine)
    (other / "thesis.txt").write_text("three years")
    execution.clear()
    done = start(project, "--verify", str(run))
    assert done.code == 2 and len(done.err.splitlines()) == 1 and not execution
    assert "was not made by --verify" in done.err
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_verify_removes_the_leftovers_of_an_earlier_verify(project, execution):
    rerun(project, execution)
    run = project / "outputs" / "quick"
    (run / "manifest.csv").write_text("image_id\n4\n")
    assert start(project, "--verify", str(run)).code == 1
    left = run.with_name("quick-verification")
    assert (left / "manifest.csv").is_file()
    (left / "old.csv").write_text("image_id\n")
    assert start(project, "--verify", str(run)).code == 1
    assert (left / "manifest.csv").is_file() and not (left / "old.csv").exists()


@pytest.mark.parametrize("make", [lambda run: None, lambda run: (run / "run.json").write_text("{")])
def test_a_run_that_cannot_be_verified_is_refused(project, execution, tmp_path, make):
    make(tmp_path)
    done = start(project, "--verify", str(tmp_path))
    assert done.code == 2 and "run.json" in done.err and not execution


def test_verify_cannot_be_combined_with_other_options(project, execution, tmp_path):
    done = start(project, "--verify", str(tmp_path), "-p", "seed", "4")
    assert done.code == 2 and "only --jobs can be combined with it" in done.err and not execution
