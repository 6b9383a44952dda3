"""The same training again: with other seeds, and with each fold held out in turn.

Each point of the grid is a plain run folder below the run's, `grid/seed1` or `grid/seed0-fold2`,
in which notebooks 04 to 06 were executed. What seeds change is the luck of training; the patients
stay the same. `series` needs the points only, so splitting, whose scikit-learn takes long to
start, is imported where a split is made.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from cytology.settings import InputError, short
from cytology.tables import read_json, read_table, write_json, write_table

FOLDER = "grid"


@dataclass(frozen=True)
class GridPoint:
    """A training of the grid; `fold` is the one held out, None for the run's own split."""

    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """`seed1`, or `seed0-fold2`."""
        return f"seed{self.seed}" + ("" if self.fold is None else f"-fold{self.fold}")

    def folder(self, run: Path) -> Path:
        """The point's run folder."""
        return run / FOLDER / self.name


def grid_points(seed: int, seeds: int, folds: int | None) -> tuple[GridPoint, ...]:
    """The points of `seeds` seeds from `seed` on; without `folds` the run itself is the first."""
    numbers = range(seed, seed + seeds)
    if folds is None:
        return tuple(GridPoint(number) for number in numbers[1:])
    return tuple(GridPoint(number, fold) for number, fold in product(numbers, range(folds)))


def points_named(names: Iterable[str]) -> list[GridPoint]:
    """The points that `names` name, each once, by seed and fold; what names none is left out."""
    matches = [re.fullmatch(r"seed(\d+)(?:-fold(\d+))?", name) for name in names]
    found = {
        GridPoint(int(match[1]), None if match[2] is None else int(match[2]))
        for match in matches
        if match
    }
    return sorted(found, key=lambda point: (point.fold is not None, point.seed, point.fold))


def points_in(run: Path) -> list[GridPoint]:
    """The points whose folders are there, by seed and fold."""
    return points_named(folder.name for folder in (run / FOLDER).glob("seed*"))


# ------------------------------------------------------------------------- making


def split_of(split: pd.DataFrame, point: GridPoint, seed: int) -> pd.DataFrame:
    """The split of a point: the run's, or one whose test part is the fold that is held out.

    Then the run's own test images are left out, and val, on which early stopping looks, is a
    fifth of the other folds' groups, the same for all seeds.
    """
    if point.fold is None:
        return split
    from cytology.data.splitting import inner_group_split

    rows = split[split["split"] != "test"].reset_index(drop=True)
    held = rows["fold"] == point.fold
    if not held.any():
        raise InputError(
            f"The split has no fold {point.fold}: run notebook 03 again with as many `folds`."
        )
    others = rows[~held]
    val = others.index[inner_group_split(others, seed)]
    part = pd.Series("train", index=rows.index)
    part[val], part[held] = "val", "test"
    return rows.assign(split=part, fold=rows["fold"].mask(held))


def make_run(run: Path, point: GridPoint) -> None:
    """Write what notebooks 04 to 06 read into the point's folder; replaces what stands there.

    Raises `InputError` if notebooks 01 to 03 have not run.
    """
    from cytology.data.splitting import describe, read_split

    about, dataset = read_json(run, "split.json"), read_json(run, "dataset.json")
    split = split_of(read_split(run), point, about["seed"])
    manifest = read_table(run, "manifest.csv")
    manifest = manifest[manifest["image_id"].isin(split["image_id"])]
    folder, labels = point.folder(run), manifest["label"].value_counts()
    dataset |= {"images": len(manifest), "groups": int(manifest["group"].nunique())}
    dataset |= {"benign": int(labels["B"]), "malignant": int(labels["M"])}
    write_json(folder, "dataset.json", dataset)
    write_json(folder, "augmentation.json", read_json(run, "augmentation.json"))
    write_table(folder, "manifest.csv", manifest)
    write_table(folder, "split.csv", split)
    found = describe(split, manifest, about["protocol"], about["unit"], about["seed"])
    write_json(folder, "split.json", found)


def is_done(run: Path, point: GridPoint, architecture: str) -> bool:
    """Whether this network was trained in the point's folder, on the split that lies there."""
    folder = point.folder(run)
    files = ("predictions.csv", "timing.json", "metrics.json")  # the last that are written
    if not all((folder / architecture / name).is_file() for name in files):
        return False
    made_with = read_json(folder, f"{architecture}/metrics.json")["split"]
    return made_with == read_json(folder, "split.json")["fingerprint"]


def check_split(run: Path, point: GridPoint) -> None:
    """`InputError` if the run was split anew since the point was trained."""
    from cytology.data.splitting import describe, read_split

    about, folder = read_json(run, "split.json"), point.folder(run)
    split = split_of(read_split(run), point, about["seed"])
    manifest = read_table(folder, "manifest.csv")
    found = describe(split, manifest, about["protocol"], about["unit"], about["seed"])
    if found["fingerprint"] != read_json(folder, "split.json")["fingerprint"]:
        raise InputError(
            f"{short(folder)} was trained on another split than the run has now: remove it, or "
            "run it again with --seeds or --folds."
        )
