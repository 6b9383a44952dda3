"""An edit of the package repeats what was made with it, and no more."""

import ast
import re
import statistics

import pytest

from cytology.runner import changes
from cytology.settings import PROJECT_ROOT

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PLOTS = [
    path.stem
    for path in sorted((changes.PACKAGE / "plots").glob("*.py"))
    if path.stem not in ("__init__", "style")
]
MODULES = {
    ".".join(path.relative_to(changes.PACKAGE.parent).with_suffix("").parts)
    for path in changes.PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
MOST_COMMON = 15  # modules whose edit makes every notebook run again
MOST_REDONE = 1 / 3  # of the notebooks that an edit of a module repeats, on average


def changed_by_an_edit_of(module, monkeypatch):
    """The numbers of the notebooks that would run again."""
    before = {path: changes.code_hash(path) for path in NOTEBOOKS}
    source = changes.source
    edited = {module: b"# edited"}
    monkeypatch.setattr(changes, "source", lambda name: source(name) + edited.get(name, b""))
    return [path.name[:2] for path in NOTEBOOKS if changes.code_hash(path) != before[path]]


@pytest.mark.parametrize("name", PLOTS)
def test_editing_a_figure_repeats_the_notebooks_that_draw_it(name, monkeypatch):
    named = re.compile(rf"from cytology\.plots(\.{name}\b| import [\w, ]*\b{name}\b)")
    drawing = [path.name[:2] for path in NOTEBOOKS if named.search(path.read_text("utf-8"))]
    assert changed_by_an_edit_of(f"cytology.plots.{name}", monkeypatch) == drawing != []


def test_editing_the_audit_figure_repeats_the_audit(monkeypatch):
    assert changed_by_an_edit_of("cytology.plots.audit", monkeypatch) == ["10"]


def test_editing_the_report_repeats_no_notebook(monkeypatch):
    for module in ("cytology.report.page", "cytology.runner.plan", "cytology.runner.terminal"):
        assert changed_by_an_edit_of(module, monkeypatch) == []


def test_few_modules_affect_every_notebook():
    behind = [changes.modules_behind(path) for path in NOTEBOOKS]
    common = set.intersection(*behind)
    assert len(common) <= MOST_COMMON, sorted(common)
    redone = {name: sum(name in each for each in behind) for name in MODULES}
    assert statistics.mean(redone.values()) <= MOST_REDONE * len(NOTEBOOKS), redone


def test_package_init_files_contain_only_docstrings():
    """So an edit of one changes no result, and no notebook runs again."""
    for path in changes.PACKAGE.rglob("__init__.py"):
        (words,) = ast.parse(path.read_text("utf-8")).body
        assert isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant), path
        name = ".".join(path.parent.relative_to(changes.PACKAGE.parent).parts)
        assert changes.modules_of(frozenset({name})) == set()
