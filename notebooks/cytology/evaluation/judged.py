"""Which images a network is judged on: one rule for the comparison and every later question.

Out-of-fold if heads were cross-validated and not fine-tuned afterwards: that has five times as many
groups as test, and nothing is chosen on these predictions. Otherwise on test.
"""

import re

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.evaluation.statistics.metrics import THRESHOLD, auc_within_folds
from cytology.run import Run
from cytology.settings import InputError

OUT_OF_FOLD, TEST = "out-of-fold", "test"


def compared_on(run: Run) -> str:
    """The part that the comparison of this run is based on, the same for all its networks.

    Out-of-fold only if every network was cross-validated and not fine-tuned, and the split was not
    published by others with its test part.
    """
    if not run.networks:
        raise InputError(f"{run} has no predictions: run notebook 04, 05 or 06 first.")
    on_test = {name: run.is_given or fine_tuned(run, name) for name in run.networks}
    each = (headline(read_predictions(run, name), on_test[name]) for name in run.networks)
    found = {on for on, _ in each}
    return OUT_OF_FOLD if found == {OUT_OF_FOLD} else TEST


def unseen_on(run: Run, names: list[str]) -> str:
    """The images for new questions to the networks: shifts, heatmaps.

    Out-of-fold if every network has heads of the folds. A fine-tuned network has none, heads of
    the original's protocol have seen copies of the images they judge, and with a given split test
    is what counts.
    """
    tuned = any(fine_tuned(run, name) for name in names)
    return TEST if tuned or run.is_original or run.is_given else OUT_OF_FOLD


def headline(predictions: pd.DataFrame, on_test: bool) -> tuple[str, pd.DataFrame]:
    """The part that one network is judged on, and those rows of its predictions.

    `on_test` if it was fine-tuned, or if the split was given with its test part.
    """
    out_of_fold = judged_rows(predictions, OUT_OF_FOLD)
    if len(out_of_fold) and not on_test:
        return OUT_OF_FOLD, out_of_fold
    return TEST, judged_rows(predictions, TEST)


def fine_tuned(run: Run, architecture: str) -> bool:
    """Whether more than the head of this network was trained."""
    return run.about(architecture)["fine_tuned"]


def judged_rows(table: pd.DataFrame, on: str) -> pd.DataFrame:
    """The rows of a table of predictions that are judged out-of-fold, or on test."""
    if on == OUT_OF_FOLD:
        rows = table[table["model"] == "oof"]
    else:
        rows = table[(table["model"] == "final") & (table["split"] == "test")]
    return rows.reset_index(drop=True)


def judged_networks(run: Run, on: str) -> dict[str, pd.DataFrame]:
    """The judged predictions of each network of the run that has any, images as taken.

    After fine-tuning, a network is not the one that its out-of-fold heads belong to.
    """
    names = [name for name in run.networks if on == TEST or not fine_tuned(run, name)]
    return _those_judged(run, names, on)


def judged_outside(run: Run, on: str) -> dict[str, pd.DataFrame]:
    """The judged predictions of each model from outside that has any."""
    return _those_judged(run, run.outside, on)


def _those_judged(run: Run, names: list[str], on: str) -> dict[str, pd.DataFrame]:
    tables = {name: judged_rows(read_predictions(run, name), on) for name in names}
    return {name: rows for name, rows in tables.items() if len(rows)}


# ------------------------------------------------- for the training notebooks


def classification_report(rows: pd.DataFrame, judged_on: str) -> str:
    """scikit-learn's classification report as text, with the part it was judged on.

    A dash means undefined, such as the precision of a class that is never predicted.
    """
    table = sk.classification_report(
        rows["label"] == "M",
        rows["probability"] >= THRESHOLD,
        labels=[False, True],
        target_names=["benign (B)", "malignant (M)"],
        digits=3,
        zero_division=np.nan,
    )
    table = re.sub(r"\bnan\b", "  –", table)
    return f"judged on {judged_on}: {len(rows)} images, {rows['group'].nunique()} groups\n{table}"


def orientation_gain(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """AUC of the same folds trained with 1, 4 and 8 orientations, with intervals by group.

    `tables` maps an architecture to rows `image_id, group, label, fold, orientations, logit`.
    """
    rows = [
        (name, orientations, auc_within_folds(part), *auc_interval(part))
        for name, table in tables.items()
        for orientations, part in table.groupby("orientations")
    ]
    return pd.DataFrame(
        rows, columns=["architecture", "orientations", "auc", "auc_low", "auc_high"]
    )
