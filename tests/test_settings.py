"""Opening a run, paths from the project, what a notebook shows."""

import inspect

import numpy as np
import pytest

from cytology import machine, notebook, settings
from cytology.notebook import own_parameters
from cytology.run import open_run
from cytology.settings import PROJECT_ROOT, InputError


def test_opening_a_run_checks_parameters_makes_folders_and_fixes_the_seed(tmp_path):
    values = own_parameters(PROJECT_ROOT / "notebooks" / "03_splitting.ipynb")
    values |= {"run_dir": str(tmp_path / "a run"), "seed": 3, "folds": 5}
    run = open_run("03_splitting", values)
    first = np.random.random()
    assert (run / "tables").is_dir() and (run / "figures").is_dir()
    assert run.parameters == values
    open_run("03_splitting", values | {"not_its_own": -1})
    assert np.random.random() == first
    with pytest.raises(InputError, match="folds"):
        open_run("03_splitting", values | {"run_dir": str(tmp_path / "other"), "folds": 1})
    assert not (tmp_path / "other").exists()


def test_a_relative_path_is_relative_to_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings.resolve("outputs/x") == settings.PROJECT_ROOT / "outputs" / "x"
    assert settings.resolve("x", base=tmp_path) == tmp_path / "x"
    assert settings.short(settings.PROJECT_ROOT / "outputs") == "outputs"
    assert settings.short(tmp_path) == str(tmp_path)


def test_show_prints_the_source_code(capsys):
    notebook.show(machine.cores)
    assert capsys.readouterr().out.strip() == inspect.getsource(machine.cores).strip()


def test_versions_list_required_and_missing_packages(monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy>=1\n# no\nno-such-package>=2\n-e .\n")
    monkeypatch.setattr(machine, "PROJECT_ROOT", tmp_path)
    found = machine.versions()
    assert found["numpy"] == np.__version__
    assert found["no-such-package"] == "not installed"


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git_state()["commit"] == "unknown"


def test_a_notebook_shows_the_message_of_an_input_error_without_a_traceback():
    assert InputError("No such folder.")._render_traceback_() == ["InputError: No such folder."]
