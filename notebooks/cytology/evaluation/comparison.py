"""Compares the networks of a run, their combinations, and their costs.

From the tables of predictions alone; no model is loaded.
"""

from itertools import combinations, product

import numpy as np
import pandas as pd

from cytology.evaluation.baseline import shortcut_baseline
from cytology.evaluation.judged import (
    OUT_OF_FOLD,
    TEST,
    compared_on,
    fine_tuned,
    judged_networks,
    judged_outside,
    judged_rows,
)
from cytology.evaluation.predictions import (
    by_group,
    mean_logits,
    read_predictions,
)
from cytology.evaluation.readable import title
from cytology.evaluation.statistics.bootstrap import curve_bands
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.evaluation.statistics.metrics import (
    OF_PROBABILITIES,
    equal_groups_auc,
    pooled_auc,
)
from cytology.evaluation.statistics.significance import (
    UNRANKED,
    compare_pairs,
    fold_aucs,
    fold_differences,
    holm,
    with_gate,
)
from cytology.run import BASELINE, ENSEMBLE, Run


def averaged_predictions(run: Run, on: str) -> dict[str, pd.DataFrame]:
    """Averages of several predictions: mean logits of the same images.

    For each network over the orientations of an image (test-time augmentation) and, on test, over
    its fold models; for all networks together (the ensemble), as taken and over orientations.
    """
    single, found, turned = judged_networks(run, on), {}, {}
    for name in single:
        table = read_predictions(run, name, turned=True)
        rows = judged_rows(table, on)
        # Under the original's protocol each turned picture counts as an image.
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


def comparison(run: Run) -> pd.DataFrame:
    """One row per architecture, at image level: the main table of a run.

    `auc` is within folds; if the headline is out-of-fold, `test_auc` is that of the kept model.
    `precision` is valid for the `malignant_share` of the images judged.
    """
    on = compared_on(run)
    rows = []
    for name, table in judged_networks(run, on).items():
        about = run.about(name)
        row = {"architecture": name, "weights": about["weights"]}
        row |= metrics_with_intervals(table) | {"auc_pooled": pooled_auc(table)}
        row["malignant_share"] = (table["label"] == "M").mean()
        if on == OUT_OF_FOLD:
            test = judged_rows(read_predictions(run, name), TEST)
            found = metrics_with_intervals(test, names=("auc",))
            row |= {f"test_{key}": value for key, value in found.items()}
        rows.append(row | {"judged_on": on, "recipe": about["recipe"]})
    return run.marked(pd.DataFrame(rows))


def baseline_of(run: Run) -> pd.DataFrame:
    """The `shortcut_baseline` of the run's images."""
    return shortcut_baseline(
        run.manifest, run.table("tables/appearance.csv"), run.table("split.csv")
    )


def comparison_all(run: Run, baseline: pd.DataFrame, rule: str = "mean_logit") -> pd.DataFrame:
    """Every model at image level and at group level, out-of-fold and on test.

    `level` is `image` or the unit of the groups: patient, slide, field of view. `auc_pooled` uses
    pairs of all folds together, `auc_groups_alike` gives each group the same weight, whatever its
    number of images. Models from outside are judged on the part in their file.
    """
    unit, rows = run.facts("split.json")["unit"], []
    for on in (OUT_OF_FOLD, TEST):
        models = judged_networks(run, on)
        if not models:
            continue
        models |= averaged_predictions(run, on) | judged_outside(run, on)
        models |= {BASELINE: judged_rows(baseline, on)}
        for name, table in models.items():
            for level, part in (("image", table), (unit, by_group(table, rule))):
                found = metrics_with_intervals(part)
                if level == unit and rule == "vote":
                    found |= dict.fromkeys(
                        OF_PROBABILITIES, np.nan
                    )  # a share of votes is not a probability
                found |= {
                    "auc_pooled": pooled_auc(part),
                    "auc_groups_alike": equal_groups_auc(part),
                }
                rows.append({"model": name, "level": level, "judged_on": on} | found)
    return run.marked(pd.DataFrame(rows))


def pairs_of_models(run: Run, baseline: pd.DataFrame, rule: str = "mean_logit") -> pd.DataFrame:
    """`significance.compare_pairs` of the run's models, by image and by group, `with_gate`.

    `family` says which pairs are corrected together: `networks` (the question of the run), `more
    than one` (each network against averages of its predictions), `outside` (each model from
    outside against the networks and other models from outside) and `baseline` (against size and
    colour). A model from outside with predictions for test only is compared there, the others on
    the same images as the run.
    """
    on, unit = compared_on(run), run.facts("split.json")["unit"]
    single, more, elsewhere = (
        judged_networks(run, on),
        averaged_predictions(run, on),
        judged_outside(run, on),
    )
    families = {
        "networks": list(combinations(single, 2)),
        "more than one": [
            (name, other) for name in single for other in more
            if other.startswith((f"{name},", ENSEMBLE))
        ],
        "outside": _pairs_of_outside(single, elsewhere),
        "baseline": [(BASELINE, name) for name in (*single, *elsewhere)],
    }  # fmt: skip
    tables = single | more | elsewhere | {BASELINE: judged_rows(baseline, on)}
    parts = _compared(tables, families, unit, rule, on)
    of_test = judged_outside(run, TEST)
    if on != TEST and (only := {name: of_test[name] for name in of_test if name not in elsewhere}):
        networks = judged_networks(run, TEST)
        tables = networks | only
        parts += _compared(tables, {"outside": _pairs_of_outside(networks, only)}, unit, rule, TEST)
    table = run.marked(pd.concat(parts, ignore_index=True))
    outside = table[table["family"] == "outside"]
    # One question, wherever it is judged; questions that cannot be answered are left out.
    asked = outside["p"].where(~outside["weights"].str.contains(UNRANKED))
    for _, of_level in asked.groupby(outside["level"]):
        table.loc[of_level.index, "p_holm"] = holm(of_level)
    first = ["family", "level", "judged_on"]
    return with_gate(table[[*first, *table.columns.drop(first)]])


def _pairs_of_outside(networks, outside) -> list[tuple[str, str]]:
    """Each network with each model from outside, and these among themselves."""
    return [*product(networks, outside), *combinations(outside, 2)]


def _compared(
    tables: dict[str, pd.DataFrame], families: dict[str, list], unit: str, rule: str, on: str
) -> list[pd.DataFrame]:
    """`compare_pairs` of each family, by image and by group."""
    grouped = {name: by_group(table, rule) for name, table in tables.items()}
    return [
        compare_pairs(at_level, pairs).assign(family=family, level=level, judged_on=on)
        for level, at_level in (("image", tables), (unit, grouped))
        for family, pairs in families.items()
        if pairs
    ]


def fold_pairs(run: Run) -> pd.DataFrame:
    """`significance.fold_differences` of the networks; empty if none share folds."""
    single = judged_networks(run, OUT_OF_FOLD)
    if len(single) < 2:
        return pd.DataFrame()
    return fold_differences(fold_aucs(single), list(combinations(single, 2)))


def bands(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The bands of each network's ROC and precision-recall curves."""
    return {name: curve_bands(rows) for name, rows in tables.items()}


def by_image_and_group(
    tables: dict[str, pd.DataFrame], unit: str, rule: str
) -> dict[str, pd.DataFrame]:
    """The judged rows of all networks by image, then by group, each with its title."""
    grouped = {name: by_group(rows, rule) for name, rows in tables.items()}
    found = {f"{title(name)}, by image": rows for name, rows in tables.items()}
    return found | {f"{title(name)}, by {unit}": rows for name, rows in grouped.items()}


# From the README of BirajDas27/Breast_cancer_detection_system_training (MIT licence).
PUBLISHED_RESULTS = pd.DataFrame(
    [
        ("densenet121", 0.96, 0.94, 0.93, 0.93, 0.12),
        ("mobilenetv2", 0.92, 0.91, 0.89, 0.90, 0.18),
        ("inceptionv3", 0.87, 0.88, 0.85, 0.86, 0.25),
    ],
    columns=["architecture", "accuracy", "precision", "recall", "f1", "loss"],
)


def with_published_results(table: pd.DataFrame) -> pd.DataFrame:
    """The original's published results above those of `comparison`; `whose` says which is which."""
    columns = list(PUBLISHED_RESULTS)
    original = PUBLISHED_RESULTS.assign(whose="original, published (the split leaks)")
    ours = table[columns].assign(whose="this run, " + table["judged_on"])
    return pd.concat([original, ours])[["whose", *columns]]


def cost(run: Run) -> pd.DataFrame:
    """Parameters, size, seconds and speed of each architecture, from `timing.json`."""
    columns = ["parameters", "megabytes", "features_computed", "feature_seconds"]
    columns += ["training_seconds", "images_per_second", "engine", "precision", "device"]
    rows = [
        {"architecture": name, "weights": run.about(name)["weights"]}
        | {key: run.facts(f"{name}/timing.json")[key] for key in columns}
        for name in run.networks
    ]
    return pd.DataFrame(rows)
