"""Repeats a training with other seeds, and with each fold held out in turn.

Each point of the grid is a plain run folder below the run's, `grid/seed1` or `grid/seed0-fold2`,
in which notebooks 04 to 06 were executed. Seeds change the luck of training; the patients stay the
same. `plan` needs only the points, so splitting, whose scikit-learn starts slowly, is imported
where a split is made.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from cytology.run import Run
from cytology.settings import InputError

GRID = "grid"


@dataclass(frozen=True)
class GridPoint:
    """A training of the grid; `fold` is held out, None for the run's own split."""

    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """`seed1`, or `seed0-fold2`."""
        return f"seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")

    def folder(self, of: Path) -> Path:
        """The point's run folder below that of the run."""
        return of / GRID / self.name

    def in_run(self, run: Run) -> Run:
        """The run folder of this point, opened."""
        return Run(self.folder(run.folder))


def grid_points(seed: int, seeds: int, folds: int | None) -> tuple[GridPoint, ...]:
    """The points of `seeds` seeds from `seed` on; without `folds`, the run itself is the first."""
    numbers = range(seed, seed + seeds)
    if folds is None:
        return tuple(GridPoint(number) for number in numbers[1:])
    return tuple(GridPoint(number, fold) for number, fold in product(numbers, range(folds)))


def points_from_names(names: Iterable[str]) -> list[GridPoint]:
    """The points that `names` name, each once, sorted; other names are ignored."""
    matches = [re.fullmatch(r"seed(\d+)(?:-fold(\d+))?", name) for name in names]
    found = {GridPoint(int(m[1]), None if m[2] is None else int(m[2])) for m in matches if m}
    return sorted(found, key=lambda point: (point.fold is not None, point.seed, point.fold))


def points_in(run: Run) -> list[GridPoint]:
    """The points whose folders exist, sorted by seed and fold."""
    return points_from_names(folder.name for folder in (run / GRID).glob("seed*"))


# ------------------------------------------------------------------------- making


def split_of(split: pd.DataFrame, point: GridPoint, seed: int) -> pd.DataFrame:
    """The split of a point: the run's, or one whose test part is the held-out fold.

    In the latter the run's own test images are left out, and val, for early stopping, is a fifth of
    the other folds' groups, the same for all seeds.
    """
    if point.fold is None:
        return split
    from cytology.data.splitting import inner_group_split

    rows = split[split["split"] != "test"].reset_index(drop=True)
    held = rows["fold"] == point.fold
    if not held.any():
        raise InputError(
            f"The split has no fold {point.fold}: run notebook 03 again with enough `folds`."
        )
    others = rows[~held]
    val = others.index[inner_group_split(others, seed)]
    part = pd.Series("train", index=rows.index)
    part[val], part[held] = "val", "test"
    return rows.assign(split=part, fold=rows["fold"].mask(held))


def _expected(run: Run, point: GridPoint) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """The expected content of a point's `split.csv`, `manifest.csv` and `split.json`."""
    from cytology.data.splitting import read_split, split_facts

    about = run.facts("split.json")
    split, manifest = split_of(read_split(run), point, about["seed"]), run.manifest
    manifest = manifest[manifest["image_id"].isin(split["image_id"])]
    found = split_facts(split, manifest, about["protocol"], about["unit"], about["seed"])
    return split, manifest, found


def make_run(run: Run, point: GridPoint) -> None:
    """Write the inputs of notebooks 04 to 06 into the point's folder, replacing old ones.

    Raises `InputError` if notebooks 01 to 03 have not run.
    """
    split, manifest, about = _expected(run, point)
    of_point, labels = point.in_run(run), manifest["label"].value_counts()
    dataset = run.facts("dataset.json")
    dataset |= {"images": len(manifest), "groups": int(manifest["group"].nunique())}
    dataset |= {"benign": int(labels["B"]), "malignant": int(labels["M"])}
    of_point.write("dataset.json", dataset)
    of_point.write("augmentation.json", dict(run.facts("augmentation.json")))
    of_point.write("manifest.csv", manifest)
    of_point.write("split.csv", split)
    of_point.write("split.json", about)


def is_done(run: Run, point: GridPoint, architecture: str) -> bool:
    """Whether this network was trained in the point's folder, on the split in it."""
    of_point = point.in_run(run)
    files = ("predictions.csv", "timing.json", "metrics.json")  # the last to be written
    if not all(of_point.has(f"{architecture}/{name}") for name in files):
        return False
    fingerprint = of_point.facts("split.json")["fingerprint"]
    return of_point.about(architecture)["split"] == fingerprint


def check_split(run: Run, point: GridPoint) -> None:
    """`InputError` if the run was split again since the point was trained."""
    of_point = point.in_run(run)
    if _expected(run, point)[2]["fingerprint"] != of_point.facts("split.json")["fingerprint"]:
        raise InputError(
            f"{of_point} was trained on another split than the run has now: remove it, or run it "
            "again with --seeds or --folds."
        )
