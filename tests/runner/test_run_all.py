"""`run_all.py` on tiny projects: what is refused, what runs, which files it leaves.

Tests that start a kernel share the runs of three fixtures; in the others `started` stands in for
the execution, so that they also prove that a refusal comes before anything is started.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import nbformat
import pandas as pd
import psutil
import pytest

from cytology.run import Run
from cytology.runner import headless, notebooks, plan, terminal
from cytology.runner.notebooks import Project
from cytology.settings import PROJECT_ROOT

_spec = importlib.util.spec_from_file_location("run_all", PROJECT_ROOT / "run_all.py")
run_all = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run_all)

FIRST = 'run_dir = "outputs/quick"\ndata = "sample"\nseed = 0'
SECOND = f'{FIRST}\nfolds = 5\nval_share = 0.15\npatient_pattern = ""'
THIRD = f'{FIRST}\npredict_with = "mobilenetv2"\nimages = ""\nwrite_files = False'
PROFILE = """\
run_dir: outputs/quick
data: sample
seed: 3
folds: 4
val_share: 0.2
patient_pattern: ""
predict_with: mobilenetv2
images: ""
write_files: false
"""
COLAB = "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://a.test)"


def write_notebook(root, name, parameters, *cells):
    """Write `notebooks/NAME.ipynb`: a title, the tagged parameters, then code."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell(f"# Title of {name[:2]}\n\n{COLAB} $x^2$")
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[title, tagged, *code], metadata=kernel)
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def make_project(root, second="print(folds)"):
    """A project of three notebooks and two profiles; `second` is the code of the second."""
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "notebooks" / "profiles" / "quick.yaml").write_text(PROFILE)
    longer = PROFILE.replace("quick", "longer").replace("folds: 4", "folds: 10")
    (root / "notebooks" / "profiles" / "longer.yaml").write_text(longer)
    write_notebook(root, "01_a", FIRST, "print('seed', repr(seed))", "x = bytearray(10**6)")
    write_notebook(root, "02_b", SECOND, "print('before')", second, "print('after')")
    write_notebook(root, "03_c", THIRD, "print(predict_with)")
    return root


def start(root, *argv):
    """`run_all.main` with what it printed: exit code and text of both streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_all.main(list(argv), root=root)
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), root=root)


def record_of(run):
    return json.loads((run / "run.json").read_text("utf-8"))


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def started(monkeypatch):
    """Executes nothing; the list of what would have been: (name, parameters)."""
    calls = []

    def execute(notebook, output, parameters, progress=None):
        calls.append((notebook.stem, parameters))
        return headless.Result("ok", 0.1, 1)

    monkeypatch.setattr(headless, "execute", execute)
    return calls


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "argv, words",
    [
        (["-p", "sead", "1"], ["`sead`", "`seed`"]),
        (["--profile", "quik"], ["`quik`", "`quick`"]),
        (["--only", "02_bb"], ["`02_bb`", "`02_b`"]),
        (["--from", "3_c_"], ["`3_c_`", "`03_c`"]),
        (["--only", "1", "77"], ["`77`"]),
        (["-p", "xyzzyx", "1"], ["`xyzzyx`", "Choose from:", "predict_with"]),
        (["-p", "folds", "1"], ["`folds`", "1", "from 2 to 20"]),
        (["-p", "folds", "many"], ["`folds`", "'many'"]),
        (["-p", "val_share", "nan"], ["`val_share`", "0.05 to 0.4"]),
        (["--data", "nowhere"], ["`data`", "no folder", "nowhere"]),
        (["--data", ""], ["`data` is empty", "name a folder"]),
        (["-p", "images", "nowhere"], ["`images`", "no file or folder", "nowhere"]),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(project, started, argv, words):
    done = start(project, *argv)
    assert done.code == 2
    assert all(word in done.err for word in words), done.err
    assert len(done.err.splitlines()) == 1 and "Traceback" not in done.err
    assert not started and not done.out
    assert not (project / "outputs").exists()


@pytest.mark.parametrize(
    "argv",
    [["--only", "1", "--from", "2"], ["-p", "seed"], ["-p", "seed", "1", "-p"], ["--prof", "x"]],
)
def test_a_wrong_command_line_exits_with_2(project, started, argv):
    with pytest.raises(SystemExit) as refusal:
        start(project, *argv)
    assert refusal.value.code == 2 and not started


def test_a_profile_with_an_unknown_name_is_refused(project, started):
    path = project / "notebooks" / "profiles" / "quick.yaml"
    path.write_text(path.read_text() + "fold: 3\n")
    done = start(project)
    assert done.code == 2 and "`fold`" in done.err and "`folds`" in done.err and not started


def test_a_damaged_record_is_refused(project, started):
    run = project / "outputs" / "quick"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{")
    done = start(project)
    assert done.code == 2 and "run.json is damaged" in done.err and not started


def test_a_run_folder_that_is_a_file_is_refused(project, started, tmp_path):
    (tmp_path / "file").write_text("")
    done = start(project, "--run-dir", str(tmp_path / "file"))
    assert done.code == 2 and "is a file" in done.err and not started


# ------------------------------------------------------------------- machines


def test_the_record_is_machine_readable(project, started):
    run = project / "outputs" / "quick"
    table = "architecture,weights,protocol,auc,auc_low\nmobilenetv2,imagenet,grouped,0.9,\n"
    (run / "tables").mkdir(parents=True)
    (run / "tables" / "comparison.csv").write_text(table)
    assert start(project).code == 0
    record = record_of(run)
    assert record["exit_code"] == 0 and record["caveats"] == []
    (row,) = record["comparison"]
    assert row["auc"] == 0.9 and row["auc_low"] is None


def test_left_out_images_are_counted_at_the_end(tmp_path, capsys):
    run = Run(tmp_path)
    terminal.print_left_out(run)
    run.write("rejected.csv", pd.DataFrame({"image_id": ["a.png"], "reason": "damaged"}))
    run.write("unseen.csv", pd.DataFrame({"image_id": ["b.png", "c.png"], "category": "C3"}))
    terminal.print_left_out(run)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("NOTE: 1 file was left out; rejected.csv gives the reasons. 2 images")
    assert said.endswith("of neither class; unseen.csv lists them.")


def test_the_record_of_a_failure_names_the_error(project, monkeypatch):
    failure = headless.Failure("ValueError", "no such thing", "x = 1")
    failed_run = headless.Result("failed", 0.1, 1, failure)
    monkeypatch.setattr(headless, "execute", lambda *_: failed_run)
    assert start(project).code == 1
    record = record_of(project / "outputs" / "quick")
    assert record["exit_code"] == 1 and record["notebooks"]["01_a"]["status"] == "failed"
    assert "no such thing" in record["notebooks"]["01_a"]["error"]


# ----------------------------------------------------------------- parameters


def test_values_are_converted_to_their_type(project, started):
    given = {"seed": "7", "val_share": "0.1", "write_files": "TRUE", "patient_pattern": r"-(\d+)-"}
    words = [word for pair in given.items() for word in ("-p", *pair)]
    assert start(project, *words).code == 0
    together = {name: value for _, each in started for name, value in each.items()}
    assert together["seed"] == 7 and isinstance(together["seed"], int)
    assert together["val_share"] == 0.1
    assert together["write_files"] is True
    assert together["patient_pattern"] == r"-(\d+)-"


def test_a_value_may_look_like_an_option():
    arguments = run_all.parse(
        ["-p", "a", "-(\\d+)-", "--jobs", "2", "-p", "b", "-p", "-p", "c", "-1"]
    )
    assert arguments.parameters == {"a": "-(\\d+)-", "b": "-p", "c": "-1"} and arguments.jobs == 2


def test_text_that_looks_like_a_number_stays_text(project, started):
    start(project, "-p", "patient_pattern", "007")
    assert dict(started)["02_b"]["patient_pattern"] == "007"


def test_the_command_line_overrides_the_profile_and_the_notebook(project, started):
    assert start(project, "-p", "folds", "6").code == 0
    assert dict(started)["02_b"] | {"run_dir": ""} == {
        "run_dir": "",
        "data": "sample",
        "seed": 3,
        "folds": 6,
        "val_share": 0.2,
        "patient_pattern": "",
    }


def test_relative_paths_are_relative_to_the_working_directory(
    project, started, tmp_path, monkeypatch
):
    caller = tmp_path / "else where"
    (caller / "smears").mkdir(parents=True)
    monkeypatch.chdir(caller)
    words = ["--data", "smears", "--run-dir", "my run", "-p", "images", "./smears"]
    assert start(project, *words).code == 0
    parameters = dict(started)["03_c"]
    assert parameters["data"] == parameters["images"] == str(caller / "smears")
    assert parameters["run_dir"] == str(caller / "my run")
    assert (caller / "my run" / "run.json").is_file()


def test_paths_in_a_profile_are_relative_to_the_project(project, started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start(project)
    assert dict(started)["01_a"]["run_dir"] == str(project / "outputs" / "quick")
    assert dict(started)["01_a"]["data"] == "sample"


def test_other_data_get_their_own_folder(project, started, tmp_path):
    (tmp_path / "smears").mkdir()
    start(project, "--data", str(tmp_path / "smears"))
    assert dict(started)["01_a"]["run_dir"] == str(project / "outputs" / "quick-smears")


def test_data_with_the_longest_names_get_a_folder_too(project, started, tmp_path):
    data = tmp_path / ("ü" * 127)
    data.mkdir()
    for profile in ("quick", "longer"):
        assert start(project, "--data", str(data), "--profile", profile).code == 0
    runs = sorted(path.name for path in (project / "outputs").iterdir())
    assert [name.split("-")[0] for name in runs] == ["longer", "quick"]


# ------------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    "argv, names",
    [
        ([], ["01_a", "02_b", "03_c"]),
        (["--only", "3", "01"], ["01_a", "03_c"]),
        (["--only", "c", "--only", "notebooks/02_b.ipynb"], ["02_b", "03_c"]),
        (["--from", "2"], ["02_b", "03_c"]),
        (["--from", "03_c"], ["03_c"]),
    ],
)
def test_only_and_from_select_notebooks(project, started, argv, names):
    assert start(project, *argv).code == 0
    assert [name for name, _ in started] == names


def test_the_list_option_runs_nothing(project, started):
    done = start(project, "--list")
    assert done.code == 0 and not started and not (project / "outputs").exists()
    assert "Profiles: longer, quick" in done.out
    for text in ("01_a   Title of 01", "folds = 5", "folds of the cross-validation"):
        assert text in done.out


@pytest.mark.parametrize("option", ["--help", "--list"])
def test_help_and_list_answer_without_tensorflow(option, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(PROJECT_ROOT / "run_all.py"), option],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert ("--force" if option == "--help" else "07_comparison") in done.stdout
    imported = set(re.findall(r"\|\s*(\w+)\s*$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    slow = {"tensorflow", "keras", "papermill"} | ({"numpy"} if option == "--help" else set())
    assert not imported & slow


# ------------------------------------------------------------ Python, closed pipes


def test_another_python_is_refused_in_one_sentence():
    code = (
        "import runpy, sys; sys.version_info, sys.version = (3, 14, 0), '3.14.0 (main)'; "
        f"runpy.run_path({str(PROJECT_ROOT / 'run_all.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("This is Python 3.14.0; the series needs Python 3.11, 3.12 or")
    assert len(done.stderr.splitlines()) == 1


def test_the_supported_pythons_are_the_same_everywhere():
    about = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))
    assert about["project"]["requires-python"] == ">=3.11,<3.14"
    assert about["tool"]["ruff"]["target-version"] == "py311"
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (PROJECT_ROOT / "run_all.py").read_text(
        "utf-8"
    )
    assert "Python 3.11 to 3.13" in (PROJECT_ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def run_into(pipe, *words, **options):
    """A command of the project, its standard output going into `pipe`."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT / "notebooks")}
    options = {"stderr": subprocess.PIPE, "text": True, "env": environment} | options
    return subprocess.run([sys.executable, *words], cwd=PROJECT_ROOT, stdout=pipe, **options)


@pytest.mark.parametrize(
    "words",
    [
        ["run_all.py", "--help"],
        ["run_all.py", "--list"],
        ["-u", "run_all.py", "--list"],
        ["-m", "benchmarks", "--list"],
        ["-m", "benchmarks.faults", "--list"],
    ],
)
def test_a_closed_output_pipe_is_no_error(closed_pipe, words):
    done = run_into(closed_pipe, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_refusal_to_a_closed_pipe_keeps_its_exit_code(closed_pipe):
    words = ["run_all.py", "-p", "folds", "many"]
    assert run_into(closed_pipe, *words, stderr=closed_pipe).returncode == 2


def test_a_run_continues_when_its_output_pipe_closes(project):
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r}); import run_all; "
        "from pathlib import Path; "
        "sys.exit(run_all.main(['--only', '1', '2'], root=Path(sys.argv[1])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, project], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline().startswith(b"Profile quick, 2 notebooks")
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    run = project / "outputs" / "quick"
    record = record_of(run)
    assert {entry["status"] for entry in record["notebooks"].values()} == {"ok"}
    assert record["ended"] and (run / "report.html").is_file()


# ---------------------------------------------------------- in the same folder


def test_other_parameters_in_the_same_folder_are_refused(project, started):
    assert start(project, "-p", "seed", "7").code == 0
    before = record_of(project / "outputs" / "quick")
    started.clear()
    done = start(project, "-p", "seed", "8", "-p", "folds", "9")
    assert done.code == 2 and not started
    for text in ("seed=7, now seed=8", "folds=4, now folds=9", "--run-dir", "--force"):
        assert text in done.err
    assert "val_share" not in done.err
    assert record_of(project / "outputs" / "quick") == before


def test_another_profile_in_the_same_folder_is_refused(project, started, tmp_path):
    run = str(tmp_path / "run")
    start(project, "--run-dir", run)
    done = start(project, "--run-dir", run, "--profile", "longer")
    assert done.code == 2 and "folds=4, now folds=10" in done.err


def test_force_continues_with_other_parameters(project, started):
    start(project, "-p", "seed", "7")
    started.clear()
    assert start(project, "-p", "seed", "8", "--force").code == 0
    assert [each["seed"] for _, each in started] == [8, 8, 8]
    assert record_of(project / "outputs" / "quick")["parameters"]["seed"] == 8


def test_other_new_images_are_not_another_run(project, started, tmp_path):
    start(project)
    started.clear()
    words = ["-p", "predict_with", "densenet121", "-p", "images", str(tmp_path)]
    assert start(project, "--only", "3", *words).code == 0
    assert [name for name, _ in started] == ["03_c"]
    assert dict(started)["03_c"]["predict_with"] == "densenet121"


def test_a_run_continues_with_its_own_parameters(project, started):
    start(project, "--only", "1", "-p", "seed", "7", "-p", "folds", "6")
    started.clear()
    assert start(project, "--from", "2").code == 0
    assert dict(started)["02_b"]["seed"] == 7 and dict(started)["02_b"]["folds"] == 6
    record = record_of(project / "outputs" / "quick")
    assert list(record["notebooks"]) == ["01_a", "02_b", "03_c"]
    assert "-p seed 7" in record["command"] and "-p folds 6" in record["command"]


def test_parameters_taken_from_a_run_folder_are_reported(project, started, tmp_path):
    """The paths and addresses of its `run.json`, which may come from a stranger."""
    run, new = project / "outputs" / "quick", tmp_path / "new images"
    new.mkdir()
    assert "NOTE" not in start(project, "-p", "images", str(new)).out
    told = f"NOTE: from run.json: images={str(new)!r}\n"
    assert told in start(project, "--run-dir", str(run)).out
    assert told in start(project, "--verify", str(run)).out
    assert "NOTE" not in start(project, "-p", "images", "").out
    assert "NOTE" not in start(project).out


def test_only_paths_and_addresses_taken_from_a_run_folder_are_reported():
    stored = {"run_dir": "/run", "data": "breakhis", "address": "https://evil.example/a\x1b[2J.gz"}
    stored |= {"images": "", "patients_csv": "/p.csv", "seed": 5, "weights": "random"}
    told = plan.stored_paths_notice(Project(), "quick", stored, {"weights": "random"})
    address = r"'https://evil.example/a\x1b[2J.gz'"
    assert told == (
        f"NOTE: from run.json: address={address}, data='breakhis', patients_csv='/p.csv'"
    )
    profile = plan.profile_parameters(Project(), "quick", {"data": "", "weights": ""})
    assert plan.stored_paths_notice(Project(), "quick", profile, {}) == ""


def test_a_failed_run_does_not_fix_its_parameters(project, monkeypatch):
    failure = headless.Failure("ValueError", "no", "1/0")
    result = headless.Result("failed", 0.1, 1, failure)
    monkeypatch.setattr(headless, "execute", lambda *_: result)
    assert start(project, "-p", "seed", "7").code == 1
    assert start(project, "-p", "seed", "8").code == 1


def test_an_interruption_exits_with_130_and_is_recorded(project, monkeypatch):
    result = headless.Result("interrupted", 0.1, 1)
    monkeypatch.setattr(headless, "execute", lambda *_: result)
    done = start(project)
    assert done.code == 130 and "Interrupted in 01_a" in done.out
    notebooks = record_of(project / "outputs" / "quick")["notebooks"]
    assert {name: entry["status"] for name, entry in notebooks.items()} == {"01_a": "interrupted"}
    assert record_of(project / "outputs" / "quick")["exit_code"] == 130


# ------------------------------------------------------------------- real runs


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    """A series that goes well, in a folder with a space, an umlaut and braces."""
    root = make_project(tmp_path_factory.mktemp("good") / "project")
    run = root.parent / "Läufe {1} x"
    done = start(root, "--run-dir", str(run), "-p", "seed", "7")
    done.run = run
    return done


def test_a_successful_series_exits_with_0(good_run):
    assert good_run.code == 0, good_run.out + good_run.err
    for name in ("01_a", "02_b", "03_c"):
        assert len(re.findall(rf"^{name} .* ok\b", good_run.out, re.MULTILINE)) == 2
        assert (good_run.run / "notebooks" / f"{name}.ipynb").is_file()
    assert "seed 7" in (good_run.run / "notebooks" / "01_a.ipynb").read_text("utf-8")
    assert f"Report: {good_run.run / 'report.html'}" in good_run.out
    assert good_run.err == ""


def test_the_source_notebooks_are_unchanged(good_run):
    for path in (good_run.root / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells)
    assert not (good_run.root / "outputs").exists()


def test_the_record_describes_the_run(good_run):
    record = record_of(good_run.run)
    assert record["profile"] == "quick"
    assert record["parameters"]["seed"] == 7 and record["parameters"]["folds"] == 4
    assert record["parameters"]["run_dir"] == str(good_run.run)
    assert record["started"] <= record["ended"]
    assert list(record["notebooks"]) == ["01_a", "02_b", "03_c"]
    for entry in record["notebooks"].values():
        assert entry["status"] == "ok" and entry["parameters"]["seed"] == 7
        assert 0 < entry["seconds"] < 60
        assert 20 < entry["peak_memory_mib"] < 2000
        assert "error" not in entry
    assert record["versions"]["python"] == sys.version.split()[0]
    assert {"papermill", "tensorflow", "numpy"} <= set(record["versions"])
    assert "commit" in record["git"]
    assert record["fingerprint"] is None and record["device"] is None
    assert record["command"].startswith("python run_all.py --profile quick")


def test_pages_load_nothing_from_the_internet(good_run):
    for name in ("01_a", "02_b", "03_c"):
        page = (good_run.run / "notebooks" / f"{name}.html").read_text("utf-8")
        assert f"Title of {name[:2]}" in page and "Colab" in page
        assert not re.search(r"""<[^>]*\bsrc\s*=\s*["']?(https?:)?//""", page)
        assert not re.search(r"""<link\b[^>]*\bhref\s*=\s*["']?(https?:)?//""", page)
        assert not re.search(r"""@import|url\(\s*["']?(https?:)?//""", page)
        assert "<script src" not in page and "requirejs" not in page


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """A series whose second notebook fails half-way."""
    root = make_project(
        tmp_path_factory.mktemp("failed") / "project", "result = {}['no such key']  # here"
    )
    done = start(root)
    done.run = root / "outputs" / "quick"
    return done


def test_a_failure_reports_error_and_cell(failed_run):
    assert failed_run.code == 1
    assert "02_b failed: KeyError: 'no such key'" in failed_run.out
    assert "In this cell:\n    result = {}['no such key']  # here" in failed_run.out
    assert "Traceback" not in failed_run.out + failed_run.err and "\x1b" not in failed_run.out
    assert f"Executed so far: {failed_run.run / 'notebooks' / '02_b.ipynb'}" in failed_run.out


def test_a_failure_keeps_earlier_results_and_ends_the_series(failed_run):
    cells = nbformat.read(failed_run.run / "notebooks" / "02_b.ipynb", as_version=4).cells
    texts = [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]
    assert "before\n" in texts and "after\n" not in texts
    assert (failed_run.run / "notebooks" / "02_b.html").is_file()
    assert not list((failed_run.run / "notebooks").glob("03_c*"))
    notebooks = record_of(failed_run.run)["notebooks"]
    assert {name: entry["status"] for name, entry in notebooks.items()} == {
        "01_a": "ok",
        "02_b": "failed",
    }
    assert notebooks["02_b"]["error"] == "KeyError: 'no such key'"
    page = (failed_run.run / "report.html").read_text("utf-8")
    assert "This run is not complete." in page and "the executed notebook says why" in page


@pytest.fixture(scope="module")
def refused_run(tmp_path_factory):
    """One notebook that refuses the user's input."""
    code = "from cytology.settings import InputError\nraise InputError('Folder B is empty.')"
    root = make_project(tmp_path_factory.mktemp("mistaken") / "project", code)
    return start(root, "--only", "02")


def test_a_user_error_is_reported_in_one_sentence(refused_run):
    assert refused_run.code == 1
    assert "02_b stopped: Folder B is empty.\n" in refused_run.out
    assert "InputError" not in refused_run.out and "In this cell" not in refused_run.out
    assert "raise" not in refused_run.out and "Traceback" not in refused_run.out + refused_run.err


def test_no_kernel_outlives_its_notebook(good_run, failed_run, refused_run):
    children = psutil.Process().children(recursive=True)
    kernels = [each for each in children if "ipykernel_launcher" in " ".join(each.cmdline())]
    assert not kernels


def test_a_notebook_runs_after_those_whose_files_it_reads(tmp_path, monkeypatch):
    """A network that is added later has a later number, and is trained before the comparison."""
    for name in ("13_train_other", "07_comparison", "04_train_mobilenetv2", "99_unknown"):
        page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")])
        nbformat.write(page, tmp_path / f"{name}.ipynb")
    owners = ["04_train_mobilenetv2", "13_train_other"]
    monkeypatch.setattr(notebooks, "needs", lambda name: owners if name == "07_comparison" else [])
    found = [notebook.name for notebook in notebooks.find_notebooks(tmp_path)]
    assert found == ["04_train_mobilenetv2", "13_train_other", "07_comparison", "99_unknown"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no process that has ended")
def test_a_process_that_has_exited_is_not_waited_for():
    """Its parent, this test, does not collect its exit code."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = headless.Watch(lambda: None)
    watch.follow(ended.pid)
    assert [process.pid for process in watch.at_work()] == [ended.pid]
    watch.end_processes()
    assert psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE and watch.at_work() == []
    ended.communicate()
