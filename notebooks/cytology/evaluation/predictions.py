"""The table of predictions, from which everything after training is computed.

One row per (`image_id`, `model`, `seed`, `orientation`). `model` is `oof` (the fold model that
never saw the image), `fold0`, `fold1`, ... (that fold's model on test) or `final` (the saved
model, on val and test).
"""

import hashlib

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.architectures import TRAINING_NOTEBOOKS
from cytology.run import Run
from cytology.settings import InputError

PREDICTION_COLUMNS = ["image_id", "group", "label", "split", "fold", "model", "seed", "orientation"]
PREDICTION_COLUMNS += ["logit", "probability"]


def prediction_rows(pictures: pd.DataFrame, logits, model: str, seed: int) -> pd.DataFrame:
    """Rows of `predictions.csv` for pictures (`judged_pictures`) and their logits, shape (n,)."""
    logit = np.asarray(logits, np.float32).ravel()
    # In float64, since in float32 a logit of 17 is already a probability of exactly 1.
    probability = expit(logit.astype(float))
    rows = pictures.assign(model=model, seed=seed, logit=logit, probability=probability)
    return rows[PREDICTION_COLUMNS]


def as_taken(rows: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """The predictions of images as taken.

    Under the original's protocol, whose `split` has a column `orientation`, each row is a separate
    picture, and all are kept.
    """
    return rows if "orientation" in split else rows[rows["orientation"] == 0]


def read_predictions(run: Run, architecture: str, turned: bool = False) -> pd.DataFrame:
    """Read `<architecture>/predictions.csv`; refuse it if it belongs to another split.

    Only images as taken; with `turned`, all predicted orientations.
    """
    name = f"{architecture}/predictions.csv"
    if run.about(architecture)["split"] != run.facts("split.json")["fingerprint"]:
        raise InputError(
            f"{name} was made with a split that differs from split.csv: run notebook "
            f"{TRAINING_NOTEBOOKS.get(architecture, '07_comparison')} again."
        )

    def read() -> tuple[pd.DataFrame, pd.DataFrame]:
        table, split = run.table(name), run.table("split.csv")
        _check_rows(run, name, table, split)
        table["probability"] = expit(table["logit"])
        return table, as_taken(table, split)

    return run.cached(("predictions", name), (name, "split.csv"), read)[0 if turned else 1].copy()


def _check_rows(run: Run, name: str, table: pd.DataFrame, split: pd.DataFrame) -> None:
    """`InputError` for rows that no notebook writes: duplicate, missing, with another label."""
    if not table["image_id"].isin(split["image_id"]).all():
        raise InputError(f"{name} names images that are not in split.csv.")
    keys = ["image_id", "model", "seed", "orientation"]
    doubled = table[table.duplicated(keys)]
    label = split.drop_duplicates("image_id").set_index("image_id")["label"]
    other = table[table["image_id"].map(label) != table["label"]]
    there = set(table.loc[table["model"] == "oof", "image_id"])
    lost = sorted(set(split.loc[split["fold"].notna(), "image_id"]) - there) if there else []
    for rows, what in (
        (doubled["image_id"].tolist(), "it has two rows of the same model for"),
        (other["image_id"].tolist(), "its label differs from split.csv for"),
        (table.loc[table["logit"].isna(), "image_id"].tolist(), "it has no logit for"),
        (lost, "it has no out-of-fold row for"),
    ):
        if rows:
            raise run.damage_error(name, f"{what} {rows[0]}")


def predictions_fingerprint(run: Run, architecture: str) -> str:
    """A hash of a network's logits, in any order of rows; locked choices record it."""
    keys = ["image_id", "orientation", "model", "seed"]
    table = read_predictions(run, architecture, turned=True).sort_values(keys)
    return hashlib.sha256(table[[*keys, "logit"]].to_csv(index=False).encode()).hexdigest()


def mean_logits(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per picture: the mean logit of all its rows, matched by key; an ensemble."""
    keys = ["image_id", "orientation", "group", "label", "split", "fold"]
    mean = rows.groupby(keys, sort=True, dropna=False)["logit"].mean().reset_index()
    return mean.assign(probability=expit(mean["logit"]))


def by_group(rows: pd.DataFrame, rule: str = "mean_logit", threshold: float = 0.5) -> pd.DataFrame:
    """One prediction per group, by `rule`; a group with images of both classes has one for each.

    The mean logit, the mean probability, the highest probability, or the share of images with a
    probability of at least `threshold` (`vote`, which is not a probability and has a threshold of
    one half). `images` counts the images of each prediction; a column `fold` is kept.
    """
    grouped = rows.groupby(["group", "label"])
    table = pd.DataFrame({"images": grouped.size()})
    if "fold" in rows:
        table["fold"] = grouped["fold"].first()
    if rule == "mean_logit":
        table["logit"] = grouped["logit"].mean()
        table["probability"] = expit(table["logit"])
    elif rule == "vote":
        called = rows["probability"] >= threshold
        table["probability"] = called.groupby([rows["group"], rows["label"]]).mean()
    else:
        table["probability"] = grouped["probability"].agg("max" if rule == "highest" else "mean")
    return table.reset_index()


def surest_of_groups(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows, one per group, the most certain first."""
    ordered = rows.sort_values("logit", key=np.abs, ascending=False, kind="stable")
    return ordered.drop_duplicates("group").head(count)
