"""Parameters are checked in words, paths are resolved from the project."""

import ast
import inspect
import json

import numpy as np
import pytest

from cytology import machine, notebook, settings
from cytology.parameters import PARAMETERS, check_parameter, check_parameters
from cytology.run import open_run
from cytology.runner.notebooks import find_notebooks
from cytology.settings import PROJECT_ROOT, InputError

SEEDS = "a whole number from 0 to 4,294,967,295"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("seed", -1, "Parameter `seed` is -1; it must be a whole number from 0 to 4,294,967,295."),
        (
            "seed",
            True,
            "Parameter `seed` is True; it must be a whole number from 0 to 4,294,967,295.",
        ),
        (
            "seed",
            1.5,
            "Parameter `seed` is 1.5; it must be a whole number from 0 to 4,294,967,295.",
        ),
        ("folds", 1, "Parameter `folds` is 1; it must be a whole number from 2 to 20."),
        ("fit", "crop", "Parameter `fit` is 'crop'; it must be one of pad, stretch."),
        ("orientations", 2, "Parameter `orientations` is 2; it must be one of 1, 4, 8."),
        ("fine_tune", 1, "Parameter `fine_tune` is 1; it must be true or false."),
        ("data", None, "Parameter `data` is None; it must be text."),
        (
            "learning_rate",
            "fast",
            "Parameter `learning_rate` is 'fast'; it must be a number from 1e-09 to 1 "
            "or nothing (None).",
        ),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(name, value, sentence):
    with pytest.raises(InputError) as error:
        check_parameter(name, value)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", None), ("learning_rate", 1), ("val_share", 0.4), ("seed", 0), ("data", "x")],
)
def test_good_parameters_pass(name, value):
    check_parameter(name, value)


@pytest.mark.parametrize(
    ("together", "part"),
    [
        ({"val_share": 0.4, "test_share": 0.3}, "must leave 0.4 for training"),
        ({"train_head": False, "fine_tune": False}, "nothing would be trained"),
    ],
)
def test_parameters_are_checked_together(together, part):
    with pytest.raises(InputError, match=part):
        check_parameters(**together)


def test_opening_a_run_checks_makes_folders_and_fixes_the_seed(tmp_path):
    run = open_run(tmp_path / "a run", 3, folds=5)
    first = np.random.random()
    assert (run / "tables").is_dir() and (run / "figures").is_dir()
    open_run(tmp_path / "a run", 3)
    assert np.random.random() == first
    with pytest.raises(InputError, match="folds"):
        open_run(tmp_path / "other", 3, folds=1)
    assert not (tmp_path / "other").exists()


def test_a_relative_path_starts_at_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings.resolve("outputs/x") == settings.PROJECT_ROOT / "outputs" / "x"
    assert settings.resolve("x", base=tmp_path) == tmp_path / "x"
    assert settings.short(settings.PROJECT_ROOT / "outputs") == "outputs"
    assert settings.short(tmp_path) == str(tmp_path)


def test_show_prints_the_real_source(capsys):
    notebook.show(machine.cores)
    assert capsys.readouterr().out.strip() == inspect.getsource(machine.cores).strip()


def test_versions_name_what_is_required_and_what_is_absent(monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy>=1\n# no\nno-such-package>=2\n-e .\n")
    monkeypatch.setattr(settings, "PROJECT_ROOT", tmp_path)
    found = machine.versions()
    assert found["numpy"] == np.__version__
    assert found["no-such-package"] == "not installed"


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git_state()["commit"] == "unknown"


def test_a_notebook_shows_the_sentence_of_an_input_error_and_no_stack():
    assert InputError("No such folder.")._render_traceback_() == ["InputError: No such folder."]


# --------------------------------------------------- every parameter of every notebook

WRONG = (None, [], {}, object(), float("nan"), float("inf"), "\0", "many", -1, True, 10**400)


def notebooks():
    return find_notebooks(PROJECT_ROOT / "notebooks")


def test_every_parameter_of_every_notebook_has_a_rule():
    assert not [
        (notebook.name, name)
        for notebook in notebooks()
        for name in notebook.parameters
        if name not in PARAMETERS
    ]


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda notebook: notebook.name)
def test_every_notebook_checks_all_its_parameters_before_work_begins(notebook):
    cells = json.loads(notebook.path.read_text("utf-8"))["cells"]
    code = [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and not cell["metadata"].get("tags")
    ]
    # The first cell imports, the second may be the one that checks.
    tree = ast.parse("\n".join(code[:2]))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = {
        keyword.arg
        for call in calls
        if getattr(call.func, "id", "") in ("open_run", "check_parameters", "dict")
        for keyword in call.keywords
    }
    assert {*notebook.parameters} <= given | {"run_dir", "seed"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_wrong_values_are_refused_with_name_and_what_is_allowed(name):
    rule, refused = PARAMETERS[name], 0
    for value in WRONG:
        if rule.accepts(value):
            continue
        with pytest.raises(InputError, match=f"Parameter `{name}` is") as refusal:
            check_parameter(name, value)
        assert rule.allowed() in str(refusal.value)
        refused += 1
    assert refused >= 6 and rule.accepts(None) == rule.may_be_none
    assert not rule.accepts("\0") and not rule.accepts(float("nan")) and not rule.accepts([])


@pytest.mark.parametrize("below", ["", "run", "a/b/run"])
def test_a_run_inside_the_data_is_refused(tmp_path, below):
    with pytest.raises(InputError, match="Parameter `run_dir` is .*, inside the data folder"):
        open_run(str(tmp_path / "data" / below), 0, data=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    open_run(str(tmp_path / "run"), 0, data=str(tmp_path / "data"))
