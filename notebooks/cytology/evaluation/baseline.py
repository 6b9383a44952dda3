"""The shortcut baseline: what image size and mean colour predict without looking at any cell."""

import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.wording import counted, plural, with_interval


def shortcut_baseline(manifest: pd.DataFrame, appearance: pd.DataFrame, split: pd.DataFrame):
    """Logistic regression on image size, aspect and mean colour, in the split's own folds.

    Returns rows like `predictions.csv`: `oof` over the folds and `final` on test. A network that
    does not beat it may have learned the stain or the camera, not the cells.
    """
    table = manifest.merge(appearance, on="image_id").set_index("image_id")
    signs = table[["width", "height", "red", "green", "blue"]].astype(float)
    signs["aspect"] = signs["width"] / signs["height"]
    held = split[split["split"] != "test"]
    parts = [
        ("oof", held[held["fold"] != k], held[held["fold"] == k]) for k in held["fold"].unique()
    ]
    parts += [("final", split[split["split"] == "train"], split[split["split"] == "test"])]
    rows = []
    for name, train, judged in parts:
        model = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
        )
        model.fit(signs.loc[train["image_id"]], train["label"] == "M")
        logit = model.decision_function(signs.loc[judged["image_id"]])
        rows.append(judged.assign(model=name, logit=logit, probability=expit(logit)))
    rows = pd.concat(rows, ignore_index=True)
    return rows if "orientation" in rows else rows.assign(orientation=0)


def number_to_beat(rows: pd.DataFrame, unit: str) -> str:
    """The AUC of out-of-fold rows of the baseline, with its interval, in a sentence."""
    found = metrics_with_intervals(rows, names=("auc",))
    groups = counted(int(found["groups"]), unit, plural(unit))
    reached = with_interval(found, "auc", "95 % ")
    return (
        f"The number to beat: size and colour alone reach an AUC of {reached}, out of fold, on "
        f"{found['images']:,} images of {groups}."
    )
