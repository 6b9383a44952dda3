"""Files and patients with names that would be HTML, formulas or patterns, through the series."""

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
from html import unescape

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from cytology.settings import PROJECT_ROOT
from cytology.tables import read_table
from cytology.wording import is_formula

NAMES = [
    "<img src=x onerror=alert(1)>",
    "a&b;amp",
    "$x$",
    r"$\frac{1}$",
    "{0} %s *a* _b_ `c`",
    "=1+1",
]
NOTEBOOK_FOLDER = PROJECT_ROOT / "notebooks"
NOTEBOOKS = ["01", "02", "03", "04", "07", "08", "09", "11", "12", "13"]


def styled(source):
    """The calls of `format` by which a styled table is shown: (source of the call, its words)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "format":
            before = ast.unparse(node.func.value)
            if ".style" in before:
                yield ast.unparse(node), {word.arg for word in node.keywords}


def test_tables_escape_what_they_show():
    """Pandas' styled tables escape nothing unless they are told to, each time; numbers need not."""
    sources = [path.read_text("utf-8") for path in (NOTEBOOK_FOLDER / "cytology").rglob("*.py")]
    for path in NOTEBOOK_FOLDER.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        sources += map(TransformerManager().transform_cell, code)
    calls = [call for source in sources for call in styled(source)]
    assert len(calls) >= 3 and any("pd.DataFrame(cells)" in call for call, _ in calls)
    assert not [call for call, words in calls if not words & {"escape", "subset"}]


def rows_of(path):
    """The cells of a CSV file, as a spreadsheet splits them."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_names_are_shown_literally(tmp_path):
    rng = np.random.default_rng(0)
    for patient in range(18):
        label, name = "BM"[patient % 2], NAMES[patient % len(NAMES)]
        folder = tmp_path / "<b>daten & $bilder$" / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            pixels = rng.integers(0, 180, (12, 16, 3)) + 60 * (label == "M")
            picture = Image.fromarray(pixels.astype(np.uint8)).resize((128, 96))
            picture.save(folder / f"P{patient:02}{name}_{number}.png")
    (folder / f"broken {NAMES[0]}.png").write_bytes(b"no image")
    formula = folder.parent / '=1+1&"' / "B"
    formula.mkdir(parents=True)
    shutil.copy(next(folder.glob("P*.png")), formula / "1.png")
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, PROJECT_ROOT / "run_all.py", "--profile", "smoke", "--run-dir", run]
        + ["--data", folder.parent, "-p", "patient_pattern", r"/(P\d+.*)_\d", "--only", *NOTEBOOKS]
        + ["-p", "weights", "random", "-p", "images", folder, "--jobs", "2"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [run / "report.html", *run.glob("notebooks/*.html")]
    assert len(pages) == 1 + len(NOTEBOOKS)
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(r"<img\s+src=x", text), page.name
        assert "<b>daten" not in text, page.name
    first = unescape((run / "notebooks" / "01_data_exploration.html").read_text("utf-8"))
    assert f"broken {NAMES[0]}.png" in first
    rejected = read_table(run, "rejected.csv").set_index("image_id")["reason"]
    assert "formula in a spreadsheet" in rejected[r"\u003d1+1&" + '"/B/1.png']
    cells = [cell for path in run.rglob("*.csv") for row in rows_of(path) for cell in row]
    assert len(cells) > 1000 and not [cell for cell in cells if is_formula(cell)]
