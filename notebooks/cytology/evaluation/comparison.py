"""The evaluation of a run, from its tables of predictions alone: no model is loaded.

What is judged on what, the comparison of the networks and of what combines them, and what they
cost. Thresholds and calibration stand in `locked`.
"""

import re
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from cytology.evaluation.baseline import BASELINE
from cytology.evaluation.predictions import by_group, mean_logits, read_predictions
from cytology.evaluation.statistics.intervals import auc_interval, metrics_with_intervals
from cytology.evaluation.statistics.metrics import (
    OF_PROBABILITIES,
    THRESHOLD,
    auc_within_folds,
    equal_groups_auc,
    pooled_auc,
)
from cytology.evaluation.statistics.significance import (
    compare_pairs,
    fold_aucs,
    fold_differences,
    with_gate,
)
from cytology.run import Run
from cytology.settings import InputError

ENSEMBLE = "ensemble"
OUT_OF_FOLD, TEST = "out-of-fold", "test"

# From the README of BirajDas27/Breast_cancer_detection_system_training (MIT licence).
PUBLISHED_RESULTS = pd.DataFrame(
    [
        ("densenet121", 0.96, 0.94, 0.93, 0.93, 0.12),
        ("mobilenetv2", 0.92, 0.91, 0.89, 0.90, 0.18),
        ("inceptionv3", 0.87, 0.88, 0.85, 0.86, 0.25),
    ],
    columns=["architecture", "accuracy", "precision", "recall", "f1", "loss"],
)


def classification_report(rows: pd.DataFrame, judged_on: str) -> str:
    """scikit-learn's classification report with what it was judged on, as text.

    A dash stands for what does not exist, as the precision of a class that is never called.
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


# --------------------------------------------------------------- what is judged


def headline(predictions: pd.DataFrame, fine_tuned: bool) -> tuple[str, pd.DataFrame]:
    """What the comparison rests on: ("out-of-fold", rows) or ("test", rows).

    Out-of-fold, since five times as many groups are judged there as on test, and nothing is chosen
    on these predictions; they exist for a head that was cross-validated and not fine-tuned
    afterwards.
    """
    out_of_fold = predictions[predictions["model"] == "oof"]
    if len(out_of_fold) and not fine_tuned:
        return OUT_OF_FOLD, out_of_fold
    return TEST, judged_rows(predictions, TEST)


def headline_part(run: Run) -> str:
    """What the comparison of this run rests on, the same for all its networks.

    Out-of-fold only where every network was cross-validated and not fine-tuned.
    """
    names = run.networks
    if not names:
        raise InputError(f"{run} holds no predictions: run notebook 04, 05 or 06 first.")
    found = {headline(read_predictions(run, name), fine_tuned(run, name))[0] for name in names}
    return OUT_OF_FOLD if found == {OUT_OF_FOLD} else TEST


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

    What was fine-tuned afterwards is another network than its out-of-fold heads.
    """
    tables = {
        name: judged_rows(read_predictions(run, name), on)
        for name in run.networks
        if on == TEST or not fine_tuned(run, name)
    }
    return {name: rows for name, rows in tables.items() if len(rows)}


def combined(run: Run, on: str) -> dict[str, pd.DataFrame]:
    """What more than one prediction makes of an image: mean logits of the same images.

    Each network over the orientations it was judged in (test-time augmentation) and, on test,
    over its fold models; the networks together (the ensemble), as taken and over orientations.
    """
    single, found, turned = judged_networks(run, on), {}, {}
    for name in single:
        table = read_predictions(run, name, turned=True)
        rows = judged_rows(table, on)
        # Under the original's protocol a turned picture is an image of its own.
        orientations = rows.groupby("image_id")["orientation"].nunique().max()
        if orientations > 1 and len(rows) > len(single[name]):
            turned[name] = mean_logits(rows.assign(orientation=0))
            found[f"{name}, {orientations} orientations"] = turned[name]
        if on == TEST:
            folds = read_predictions(run, name)
            folds = folds[folds["model"].str.startswith("fold")]
            if len(folds) and not fine_tuned(run, name):
                found[f"{name}, mean of folds"] = mean_logits(folds)
    if len(single) > 1:
        found[ENSEMBLE] = mean_logits(pd.concat(single.values()))
        if len(turned) == len(single):
            found[f"{ENSEMBLE}, {orientations} orientations"] = mean_logits(
                pd.concat(turned.values())
            )
    return found


def weights_of(run: Run) -> dict[str, str]:
    """What weights each architecture of the run had: `imagenet`, `file` or `random`."""
    return {name: run.about(name)["weights"] for name in run.networks}


def weights_behind(run: Run, model: str) -> str:
    """The weights of a network or of what combines several; empty for the baseline."""
    weights = weights_of(run)
    if model.startswith(ENSEMBLE):
        return "random" if "random" in weights.values() else "pretrained"
    return weights.get(model.split(",")[0], "")


def marked(run: Run, table: pd.DataFrame, column: str = "model") -> pd.DataFrame:
    """The table with the weights behind each model of a `column` and the split's protocol."""
    weights = table[column].map(lambda model: run.weights_behind(model))
    return table.assign(weights=weights, protocol=run.protocol)


# ------------------------------------------------------------------ comparison


def comparison(run: Run) -> pd.DataFrame:
    """One row an architecture, at image level: the table that a run is for.

    `auc` is within folds; beside it `auc_pooled` and, where the headline is out-of-fold, the AUC of
    the kept model on test, with interval and groups.
    """
    on = headline_part(run)
    rows = []
    for name, table in judged_networks(run, on).items():
        about = run.about(name)
        row = {"architecture": name, "weights": about["weights"]}
        row |= metrics_with_intervals(table) | {"auc_pooled": pooled_auc(table)}
        if on == OUT_OF_FOLD:
            test = judged_rows(read_predictions(run, name), TEST)
            found = metrics_with_intervals(test, names=("auc",))
            row |= {f"test_{key}": value for key, value in found.items()}
        rows.append(row | {"judged_on": on, "recipe": about["recipe"]})
    return pd.DataFrame(rows).assign(protocol=run.protocol)


def comparison_all(run: Run, baseline: pd.DataFrame, rule: str = "mean_logit") -> pd.DataFrame:
    """Every model at image level and at that of the group, out-of-fold and on test.

    `level` is `image` or what a group is: patient, slide, field of view. `auc_pooled` takes pairs
    of all folds together, `auc_groups_alike` gives each group the same weight, whatever its number
    of images.
    """
    unit, rows = run.facts("split.json")["unit"], []
    for on in (OUT_OF_FOLD, TEST):
        models = judged_networks(run, on)
        if not models:
            continue
        models |= combined(run, on) | {BASELINE: judged_rows(baseline, on)}
        for name, table in models.items():
            for level, part in (("image", table), (unit, by_group(table, rule))):
                found = metrics_with_intervals(part)
                if level == unit and rule == "vote":
                    found |= dict.fromkeys(OF_PROBABILITIES, np.nan)  # votes are none
                found |= {
                    "auc_pooled": pooled_auc(part),
                    "auc_groups_alike": equal_groups_auc(part),
                }
                rows.append({"model": name, "level": level, "judged_on": on} | found)
    return run.marked(pd.DataFrame(rows))


def pairs_of_models(run: Run, baseline: pd.DataFrame, rule: str = "mean_logit") -> pd.DataFrame:
    """`significance.compare_pairs` of the run's models, by image and by group, `with_gate`.

    `family` says which pairs are corrected together: `networks` (the question of the run), `more
    than one` (each network against what combines it) and `baseline` (against size and colour).
    """
    on, unit, parts = headline_part(run), run.facts("split.json")["unit"], []
    single, more = judged_networks(run, on), combined(run, on)
    tables = single | more | {BASELINE: judged_rows(baseline, on)}
    families = {
        "networks": list(combinations(single, 2)),
        "more than one": [
            (name, other) for name in single for other in more
            if other.startswith((f"{name},", ENSEMBLE))
        ],
        "baseline": [(BASELINE, name) for name in single],
    }  # fmt: skip
    grouped = {name: by_group(table, rule) for name, table in tables.items()}
    for level, at_level in (("image", tables), (unit, grouped)):
        for family, pairs in families.items():
            if pairs:
                found = compare_pairs(at_level, pairs)
                parts.append(found.assign(family=family, level=level, judged_on=on))
    table = pd.concat(parts, ignore_index=True)
    first = ["family", "level", "judged_on"]
    table = table[[*first, *table.columns.drop(first)]]
    behind = table[["first", "second"]].map(lambda model: run.weights_behind(model))
    weights = behind.agg(lambda pair: " and ".join(filter(None, dict.fromkeys(pair))), axis=1)
    table = table.assign(weights=weights, protocol=run.protocol)
    return with_gate(table)


# ------------------------------------------------------------------- the others


def fold_pairs(run: Run) -> pd.DataFrame:
    """`significance.fold_differences` of the networks; empty where none share folds."""
    single = judged_networks(run, OUT_OF_FOLD)
    if len(single) < 2:
        return pd.DataFrame()
    table = fold_differences(fold_aucs(single), list(combinations(single, 2)))
    return table.assign(protocol=run.protocol)


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


def cost(run: Run) -> pd.DataFrame:
    """Parameters, size, seconds and speed of each architecture, from `timing.json`."""
    columns = ["parameters", "megabytes", "features_computed", "feature_seconds"]
    columns += ["training_seconds", "images_per_second", "precision", "device"]
    rows = [
        {"architecture": name, "weights": weights} | {key: timing[key] for key in columns}
        for name, weights in weights_of(run).items()
        for timing in [run.facts(f"{name}/timing.json")]
    ]
    return pd.DataFrame(rows)


def worst_mistakes(tables: dict[str, pd.DataFrame], count: int) -> pd.DataFrame:
    """The surest mistake of the networks' mean logit in each group, the surest groups first."""
    rows = mean_logits(pd.concat(tables.values()))
    rows["predicted"] = np.where(rows["probability"] >= THRESHOLD, "M", "B")
    return surest_of_groups(rows[rows["predicted"] != rows["label"]], count)


def surest_of_groups(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows, the surest first, one a group."""
    ordered = rows.sort_values("logit", key=np.abs, ascending=False, kind="stable")
    return ordered.drop_duplicates("group").head(count)
