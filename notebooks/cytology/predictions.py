"""The table of predictions, from which everything after the training is computed.

One row a (`image_id`, `model`, `seed`, `orientation`). `model` is `oof` (the fold model that
never saw the image), `fold0`, `fold1`, ... (that fold's model on test) or `final` (the saved
model, on val and test).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.settings import ARCHITECTURE_NAMES, InputError
from cytology.tables import TRAINING_NOTEBOOKS, read_json, read_table

COLUMNS = ["image_id", "group", "label", "split", "fold", "model", "seed", "orientation"]
COLUMNS += ["logit", "probability"]


def prediction_rows(pictures: pd.DataFrame, logits, model: str, seed: int) -> pd.DataFrame:
    """Rows of `predictions.csv` for pictures (`judged_pictures`) and their logits, shape (n,)."""
    logit = np.asarray(logits, np.float32).ravel()
    rows = pictures.assign(model=model, seed=seed, logit=logit, probability=expit(logit))
    return rows[COLUMNS]


def read_predictions(run: Path, architecture: str) -> pd.DataFrame:
    """Read `<architecture>/predictions.csv`, refusing one that belongs to another split."""
    split = read_table(run, "split.csv").set_index("image_id")
    table = read_table(run, f"{architecture}/predictions.csv")
    trained_with = read_json(run, f"{architecture}/metrics.json")["split"]
    if trained_with != read_json(run, "split.json")["fingerprint"]:
        raise InputError(
            f"{architecture}/predictions.csv was made with another split than split.csv: run "
            f"notebook {TRAINING_NOTEBOOKS[architecture]} again."
        )
    if not table["image_id"].isin(split.index).all():
        raise InputError(f"{architecture}/predictions.csv names images that split.csv does not.")
    return table


def trained(run: Path) -> list[str]:
    """The architectures whose predictions this run holds, in the usual order."""
    return [name for name in ARCHITECTURE_NAMES if (run / name / "predictions.csv").is_file()]


def mean_over_models(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """An ensemble: the mean logit of the same pictures in several tables, matched by key."""
    keys = ["image_id", "orientation", "group", "label"]
    logit = pd.concat(tables).groupby(keys, sort=False)["logit"].mean()
    return logit.reset_index().assign(probability=lambda rows: expit(rows["logit"]))


def by_group(rows: pd.DataFrame) -> pd.DataFrame | None:
    """One prediction a group: its mean logit. None if any group has images of both classes."""
    if (rows.groupby("group")["label"].nunique() > 1).any():
        return None
    grouped = rows.groupby("group").agg(label=("label", "first"), logit=("logit", "mean"))
    return grouped.reset_index().assign(probability=lambda table: expit(table["logit"]))
