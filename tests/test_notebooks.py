"""Every notebook keeps the skeleton; the training notebooks do not drift apart."""

import ast
import re

import nbformat
import pytest
import yaml

from cytology.architectures import ARCHITECTURES
from cytology.parameters import FIELDS, FIXED_PARAMETERS, check_parameter
from cytology.settings import PROJECT_ROOT

FILES = sorted((PROJECT_ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in FILES}
TRAINING = [name for name in NOTEBOOKS if "_train_" in name]
PROFILES = sorted((PROJECT_ROOT / "notebooks" / "profiles").glob("*.yaml"))
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def code_cells(name):
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]


def tagged(name, tag):
    return [cell for cell in NOTEBOOKS[name].cells if tag in cell.metadata.get("tags", [])]


def parameters(name):
    """Names and values of the parameters cell."""
    tree = ast.parse(tagged(name, "parameters")[0].source)
    return {line.targets[0].id: ast.literal_eval(line.value) for line in tree.body}


def test_the_series_is_complete():
    assert [name[:2] for name in NOTEBOOKS] == [f"{n:02d}" for n in range(1, len(NOTEBOOKS) + 1)]
    assert set(TRAINING) == {network.notebook for network in ARCHITECTURES.values()}


@every_notebook
def test_every_notebook_follows_the_skeleton(name):
    cells = NOTEBOOKS[name].cells
    nbformat.validate(NOTEBOOKS[name])
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith(f"# {int(name[:2])} · ")
    assert all(word in cells[0].source for word in ("| reads |", "| writes |", "| takes |"))
    assert cells[1].metadata.tags == ["colab-setup"]
    assert len(tagged(name, "parameters")) == 1
    assert any("## What to take away" in cell.source for cell in cells[-2:])
    assert NOTEBOOKS[name].metadata.kernelspec.name == "python3"


def shown_source(name, call):
    """The source lines of what a notebook shows by `call`, such as `show(splitting.split)`."""
    code = "\n".join(cell.source for cell in code_cells(name))
    first, *rest = call.removeprefix("show(").removesuffix(")").split(".")
    place = re.search(rf"from (cytology[\w.]*) import [^\n]*\b{first}\b", code)[1].split(".")
    path = (PROJECT_ROOT / "notebooks").joinpath(*place, first).with_suffix(".py")
    if not path.is_file():  # `first` is no module, but in one
        path, rest = (PROJECT_ROOT / "notebooks").joinpath(*place).with_suffix(".py"), [first]
    node = ast.parse(source := path.read_text("utf-8"))
    for wanted in rest:
        node = next(each for each in node.body if getattr(each, "name", "") == wanted)
    return ast.get_source_segment(source, node).splitlines()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (name, call)
        for name, page in NOTEBOOKS.items()
        for cell in page.cells
        if cell.cell_type == "code"
        for call in re.findall(r"\bshow\([\w.]+\)", cell.source)
    ],
)
def test_shown_functions_fit_the_page(name, call):
    """JupyterLab in a window of 1,300 pixels breaks longer lines within a word."""
    assert max(map(len, shown_source(name, call))) <= 92


@every_notebook
def test_notebooks_are_stored_without_outputs(name):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(name))


@every_notebook
def test_cells_are_short(name):
    assert 15 <= len(NOTEBOOKS[name].cells) <= 30
    for cell in code_cells(name):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if not cell.metadata.get("tags"):  # each parameter has its own line, however many there are
            assert len(lines) <= 20, cell.source
        assert len(re.findall(r"^\s*(?:def|class) ", cell.source, re.MULTILINE)) <= 2


@every_notebook
def test_no_cell_reuses_an_imported_name(name):
    """Run again, an earlier cell would find a table where it looks for a module."""
    code = "\n".join(cell.source for cell in code_cells(name) if not cell.metadata.get("tags"))
    nodes = list(ast.walk(ast.parse(code)))
    imported = {
        (each.asname or each.name).split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }
    assigned = {
        node.id
        for node in nodes
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }
    assert not imported & assigned


@every_notebook
def test_imports_and_parameters_are_few(name):
    assert len(parameters(name)) <= 20
    code = "\n".join(cell.source for cell in code_cells(name) if not cell.metadata.get("tags"))
    imports = [
        line
        for line in ast.walk(ast.parse(code))
        if isinstance(line, ast.ImportFrom) and (line.module or "").startswith("cytology")
    ]
    assert sum(line.end_lineno - line.lineno + 1 for line in imports) <= 8


@every_notebook
def test_notebooks_have_more_words_than_lines_of_code(name):
    prose = " ".join(c.source for c in NOTEBOOKS[name].cells if c.cell_type == "markdown")
    lines = sum(len(cell.source.splitlines()) for cell in code_cells(name))
    assert len(prose.split()) > lines


@every_notebook
def test_parameters_are_known_and_explained(name):
    cell = tagged(name, "parameters")[0]
    found = parameters(name)
    assert {"run_dir", "data", "seed"} <= set(found)
    for parameter, value in found.items():
        if parameter not in FIXED_PARAMETERS:
            check_parameter(parameter, value)
    plain = [line for line in cell.source.splitlines() if line and "#" not in line]
    # `sample_patients` shares the comment of the line above it.
    assert all(line.startswith(("sample_patients", "architecture")) for line in plain), plain


def test_setup_cell_is_the_same_everywhere_and_leaves_tensorflow_alone():
    sources = {tagged(name, "colab-setup")[0].source for name in NOTEBOOKS}
    assert len(sources) == 1
    commands = [line for line in sources.pop().splitlines() if not line.startswith("#")]
    assert "tensorflow" not in "\n".join(commands).lower()
    assert all(line.startswith(" ") for line in commands if line.strip().startswith(("!", "%")))


def shared_code(name):
    """The code cells that all training notebooks must have; exercises may differ."""
    return [cell for cell in code_cells(name) if "only-here" not in cell.metadata.get("tags", [])]


def test_training_notebooks_do_not_drift_apart():
    first = shared_code(TRAINING[0])
    for other in TRAINING[1:]:
        cells = shared_code(other)
        assert len(cells) == len(first)
        for ours, theirs in zip(first, cells, strict=True):
            if "parameters" not in ours.metadata.get("tags", []):
                assert ours.source == theirs.source
    settings = [
        {k: v for k, v in parameters(name).items() if k not in FIXED_PARAMETERS}
        for name in TRAINING
    ]
    assert all(each == settings[0] for each in settings)
    assert [parameters(name)["architecture"] for name in TRAINING] == [
        name.split("_train_")[1] for name in TRAINING
    ]


def defaults():
    """The default of every parameter of the series; `data` is empty after notebook 01."""
    found = {}
    for name in NOTEBOOKS:
        for parameter, value in parameters(name).items():
            if parameter == "data" and not name.startswith("01_"):
                assert value == "", "`data` is given once, in notebook 01"
            elif parameter not in FIXED_PARAMETERS:
                assert found.setdefault(parameter, value) == value, (name, parameter)
    return found


def test_same_parameter_has_the_same_default_everywhere_and_is_declared():
    assert set(defaults()) == set(FIELDS)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profiles_list_only_what_differs_from_the_defaults(path):
    profile = yaml.safe_load(path.read_text("utf-8")) or {}
    assert (path.stem == "quick") == (not profile), "the notebooks' own defaults are profile quick"
    for parameter, value in profile.items():
        assert value != defaults()[parameter], f"{parameter} is the default already"
        check_parameter(parameter, value)
