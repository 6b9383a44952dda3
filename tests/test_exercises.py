"""The solutions of the exercises in notebooks 01 and 11 run, and find what their text says."""

import re

import nbformat
import numpy as np
import pandas as pd

from cytology.settings import PROJECT_ROOT

SOLUTION = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)```", re.DOTALL)


def solved(number, **given):
    """What the one solution of a notebook leaves, begun with what the notebook has by then."""
    (path,) = (PROJECT_ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (code,) = SOLUTION.findall("\n".join(c.source for c in cells if c.cell_type == "markdown"))
    assert any("# Your turn." in cell.source for cell in cells if cell.cell_type == "code")
    exec(code, given)
    return given


def test_01_unequal_patients_are_worth_fewer(capsys):
    counts = {"B": [10] * 10, "M": [91] + [1] * 9}
    rows = [
        (label, f"{label}{k}")
        for label in "BM"
        for k, n in enumerate(counts[label])
        for _ in range(n)
    ]
    solved("01", manifest=pd.DataFrame(rows, columns=["label", "group"]))
    assert capsys.readouterr().out == "B: 10 groups, worth 10.0\nM: 10 groups, worth 1.2\n"


def test_11_patients_give_the_wider_interval(capsys):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 4)
    images = pd.DataFrame({"image_id": [f"{k}.png" for k in range(48)], "group": group})
    images = images.assign(architecture="x", strength=0, shift="none", logit=rng.normal(size=48))
    flips = group % 3 == 0  # whole patients
    shifted = images.assign(strength=3, shift="stain")
    shifted["logit"] *= np.where(flips, -1, 1)
    pictures = pd.concat([images, shifted.sample(frac=1, random_state=0)])
    solved("11", pictures=pictures, names=["x"], reference_strength=3, pd=pd)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["0.33 of 12 units", "0.33 of 48 units"]
    wide, narrow = (np.ptp([float(x) for x in line.split(": ")[1].split(" to ")]) for line in lines)
    assert wide > 1.4 * narrow
