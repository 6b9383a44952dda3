"""The table of predictions, from which everything after the training is computed.

One row a (`image_id`, `model`, `seed`, `orientation`). `model` is `oof` (the fold model that
never saw the image), `fold0`, `fold1`, ... (that fold's model on test) or `final` (the saved
model, on val and test).
"""

import functools
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.architectures import ARCHITECTURE_NAMES, TRAINING_NOTEBOOKS
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import check_columns, damaged

PREDICTION_COLUMNS = ["image_id", "group", "label", "split", "fold", "model", "seed", "orientation"]
PREDICTION_COLUMNS += ["logit", "probability"]


def prediction_rows(pictures: pd.DataFrame, logits, model: str, seed: int) -> pd.DataFrame:
    """Rows of `predictions.csv` for pictures (`judged_pictures`) and their logits, shape (n,)."""
    logit = np.asarray(logits, np.float32).ravel()
    # In float64: in float32 a logit of 17 would already be a probability of exactly 1.
    probability = expit(logit.astype(float))
    rows = pictures.assign(model=model, seed=seed, logit=logit, probability=probability)
    return rows[PREDICTION_COLUMNS]


def as_taken(rows: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """The predictions of images as taken.

    Under the original's protocol, where `split` has a column `orientation`, each row is a picture
    of its own, and all are kept.
    """
    return rows if "orientation" in split else rows[rows["orientation"] == 0]


def read_predictions(run: Run, architecture: str, turned: bool = False) -> pd.DataFrame:
    """Read `<architecture>/predictions.csv`, refusing one that belongs to another split.

    Of images as taken; with `turned`, of all orientations that were predicted.
    """
    name = f"{architecture}/predictions.csv"
    states = file_state(run / "split.csv"), file_state(run / name)
    split, table = _parsed(run, "split.csv", states[0]), _parsed(run, name, states[1])
    trained_with = run.about(architecture)["split"]
    if trained_with != run.facts("split.json")["fingerprint"]:
        raise InputError(
            f"{architecture}/predictions.csv was made with another split than split.csv: run "
            f"notebook {TRAINING_NOTEBOOKS[architecture]} again."
        )
    _check_rows(run, name, *states)
    return table.copy() if turned else as_taken(table, split).copy()


@functools.lru_cache(maxsize=8)
def _check_rows(run: Run, name: str, split_state: tuple, state: tuple) -> None:
    """`InputError` for rows that no notebook wrote: doubled, missing, of another label."""
    split, table = _parsed(run, "split.csv", split_state), _parsed(run, name, state)
    if not table["image_id"].isin(split["image_id"]).all():
        raise InputError(f"{name} names images that split.csv does not.")
    keys = ["image_id", "model", "seed", "orientation"]
    doubled = table[table.duplicated(keys)]
    label = split.drop_duplicates("image_id").set_index("image_id")["label"]
    other = table[table["image_id"].map(label) != table["label"]]
    there = set(table.loc[table["model"] == "oof", "image_id"])
    lost = sorted(set(split.loc[split["fold"].notna(), "image_id"]) - there) if there else []
    for rows, what in (
        (doubled["image_id"].tolist(), "it has two rows of the same model for"),
        (other["image_id"].tolist(), "it has another label than split.csv for"),
        (table.loc[table["logit"].isna(), "image_id"].tolist(), "it has no logit for"),
        (lost, "it has no out-of-fold row for"),
    ):
        if rows:
            raise InputError(damaged(run, name, f"{what} {rows[0]}"))


def file_state(path: Path) -> tuple:
    """What changes when a file is written anew; empty if it is not there."""
    if not path.is_file():
        return ()
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


@functools.lru_cache(maxsize=8)
def _parsed(run: Run, name: str, state: tuple) -> pd.DataFrame:
    """A table of the run; kept in memory until the file changes, since notebook 07 asks often."""
    table = run.table(name)
    if name == "split.csv":
        check_columns(table, run, name, "fold", "image_id label")
        return table
    check_columns(
        table, run, name, "logit fold seed orientation", "image_id group label split model"
    )
    return table.assign(probability=expit(table["logit"]))


def predictions_fingerprint(run: Run, architecture: str) -> str:
    """A hash of a network's logits, whatever the order of the rows: what was chosen on them."""
    keys = ["image_id", "orientation", "model", "seed"]
    table = read_predictions(run, architecture, turned=True).sort_values(keys)
    return hashlib.sha256(table[[*keys, "logit"]].to_csv(index=False).encode()).hexdigest()


def trained(run: Run) -> list[str]:
    """The architectures whose predictions this run holds, in the usual order."""
    return [name for name in ARCHITECTURE_NAMES if (run / name / "predictions.csv").is_file()]


def read_of_networks(run: Run, name: str) -> dict[str, pd.DataFrame]:
    """`<architecture>/<name>` of each trained architecture that has such a table."""
    return {
        each: run.table(f"{each}/{name}") for each in run.networks if (run / each / name).is_file()
    }


def mean_logits(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a picture: the mean logit of all its rows, matched by key; an ensemble."""
    keys = ["image_id", "orientation", "group", "label", "split", "fold"]
    mean = rows.groupby(keys, sort=True, dropna=False)["logit"].mean().reset_index()
    return mean.assign(probability=expit(mean["logit"]))


def by_group(rows: pd.DataFrame, rule: str = "mean_logit", threshold: float = 0.5) -> pd.DataFrame:
    """One prediction a group, by `rule`; a group with images of both classes has one of each.

    The mean logit, the mean probability, the highest probability, or the share of images with a
    probability of at least `threshold` (`vote`, which is no probability, and whose own threshold
    is one half). `images` counts those behind each prediction; a column `fold` is kept.
    """
    grouped = rows.groupby(["group", "label"])
    table = pd.DataFrame({"images": grouped.size()})
    if "fold" in rows:
        table["fold"] = grouped["fold"].first()
    if rule == "mean_logit":
        table["logit"] = grouped["logit"].mean()
        table["probability"] = expit(table["logit"])
    elif rule == "mean_probability":
        table["probability"] = grouped["probability"].mean()
    elif rule == "highest":
        table["probability"] = grouped["probability"].max()
    elif rule == "vote":
        called = rows.assign(called=rows["probability"] >= threshold)
        table["probability"] = called.groupby(["group", "label"])["called"].mean()
    else:
        raise ValueError(f"no rule {rule}")
    return table.reset_index()
