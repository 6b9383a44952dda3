"""Metrics, their intervals by group, the shortcut baseline and the comparison of a run.

Every function takes rows with `label` (B or M), `group` and `probability` (of M).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import rankdata
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytology.predictions import by_group, mean_over_models, read_predictions, trained
from cytology.settings import NETWORK_TITLE, InputError, plural
from cytology.tables import read_json, read_table

THRESHOLD = 0.5
FEW_GROUPS = 100  # below, 15 % of the groups are too few to carry the headline

# From the README of BirajDas27/Breast_cancer_detection_system_training (MIT licence).
PUBLISHED = pd.DataFrame(
    [
        ("densenet121", 0.96, 0.94, 0.93, 0.93, 0.12),
        ("mobilenetv2", 0.92, 0.91, 0.89, 0.90, 0.18),
        ("inceptionv3", 0.87, 0.88, 0.85, 0.86, 0.25),
    ],
    columns=["architecture", "accuracy", "precision", "recall", "f1", "loss"],
)


# --------------------------------------------------------------------- metrics


def classification_metrics(rows: pd.DataFrame) -> dict[str, float]:
    """Metrics of predictions at the threshold 0.5; `loss` is binary cross-entropy.

    M is the positive class, so recall is sensitivity. AUC needs both classes, else it is NaN.
    """
    truth = (rows["label"] == "M").to_numpy()
    probability = rows["probability"].to_numpy(float)
    called = probability >= THRESHOLD
    return {
        "accuracy": sk.accuracy_score(truth, called),
        "precision": sk.precision_score(truth, called, zero_division=0),
        "recall": sk.recall_score(truth, called, zero_division=0),
        "f1": sk.f1_score(truth, called, zero_division=0),
        "loss": sk.log_loss(truth, probability, labels=[False, True]),
        "auc": sk.roc_auc_score(truth, probability) if 0 < truth.sum() < len(truth) else np.nan,
        "specificity": sk.recall_score(~truth, ~called, zero_division=0),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
    }


def group_bootstrap(
    rows: pd.DataFrame, names=("accuracy", "auc"), draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of metrics, by drawing whole groups with replacement.

    Images of one patient are alike: drawing images would treat them as independent and give
    intervals that are too narrow (Field & Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x, the
    cluster bootstrap). Draws in which AUC has only one class are left out of its interval.
    """
    rng = np.random.default_rng(seed)
    members = list(rows.groupby("group", sort=True).indices.values())
    truth = (rows["label"] == "M").to_numpy()
    probability = rows["probability"].to_numpy(float)
    found = {name: [] for name in names}
    for _ in range(draws):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        y, p = truth[drawn], probability[drawn]
        if "accuracy" in names:
            found["accuracy"].append(np.mean((p >= THRESHOLD) == y))
        if "auc" in names and 0 < y.sum() < len(y):
            found["auc"].append(auc_from_ranks(y, p))
    return {
        name: tuple(np.quantile(values, [0.025, 0.975])) if values else (np.nan, np.nan)
        for name, values in found.items()
    }


def auc_from_ranks(truth: np.ndarray, score: np.ndarray) -> float:
    """AUC as the Mann-Whitney statistic (Hanley & McNeil 1982), ties counted half.

    The same as scikit-learn's `roc_auc_score`, about ten times faster: the bootstrap calls it
    thousands of times.
    """
    positives = int(truth.sum())
    ranks = rankdata(score)[truth].sum()
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))


def metrics_with_intervals(rows: pd.DataFrame) -> dict[str, float]:
    """`classification_metrics`, counts, and `_low` and `_high` of accuracy and AUC."""
    found = classification_metrics(rows)
    for name, (low, high) in group_bootstrap(rows).items():
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found | {"images": len(rows), "groups": rows["group"].nunique()}


def report(rows: pd.DataFrame, judged_on: str) -> str:
    """scikit-learn's classification report with what it was judged on, as text."""
    table = sk.classification_report(
        rows["label"] == "M",
        rows["probability"] >= THRESHOLD,
        labels=[False, True],
        target_names=["benign (B)", "malignant (M)"],
        digits=3,
        zero_division=0,
    )
    return f"judged on {judged_on}: {len(rows)} images, {rows['group'].nunique()} groups\n{table}"


# -------------------------------------------------------------------- baseline


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
    parts += [("final", held, split[split["split"] == "test"])]
    rows = []
    for name, train, judged in parts:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(signs.loc[train["image_id"]], train["label"] == "M")
        logit = model.decision_function(signs.loc[judged["image_id"]])
        rows.append(judged.assign(model=name, logit=logit, probability=expit(logit)))
    rows = pd.concat(rows, ignore_index=True)
    return rows if "orientation" in rows else rows.assign(orientation=0)


# ------------------------------------------------------------------ comparison


def headline(predictions: pd.DataFrame, fine_tuned: bool) -> tuple[str, pd.DataFrame]:
    """What the comparison rests on: ("out-of-fold", rows) or ("test", rows).

    With few groups the test part holds a handful of patients, so the pooled out-of-fold
    predictions carry the headline; they exist only for a head that was cross-validated and not
    fine-tuned afterwards.
    """
    out_of_fold = predictions[predictions["model"] == "oof"]
    final = predictions[predictions["model"] == "final"]
    groups = pd.concat([out_of_fold, final])["group"].nunique()
    if len(out_of_fold) and not fine_tuned and groups < FEW_GROUPS:
        return "out-of-fold", out_of_fold
    return "test", final[final["split"] == "test"]


def headline_rows(run: Path) -> dict[str, pd.DataFrame]:
    """The headline predictions of each architecture in the run."""
    names = trained(run)
    if not names:
        raise InputError(f"{run} holds no predictions: run notebook 04, 05 or 06 first.")
    metrics = {name: read_json(run, f"{name}/metrics.json") for name in names}
    return {
        name: headline(read_predictions(run, name), metrics[name]["fine_tuned"])[1]
        for name in names
    }


def comparison(run: Path) -> pd.DataFrame:
    """One row an architecture, at image level: the table that a run is for."""
    judged_by, rows = headline_rows(run), []
    protocol = read_json(run, "split.json")["protocol"]
    for name, judged in judged_by.items():
        about = read_json(run, f"{name}/metrics.json")
        on = "out-of-fold" if (judged["model"] == "oof").all() else "test"
        row = {
            "architecture": name,
            "weights": about["weights"],
            **metrics_with_intervals(judged),
            "judged_on": on,
            "recipe": about["recipe"],
            "protocol": protocol,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def comparison_all(run: Path, baseline: pd.DataFrame) -> pd.DataFrame:
    """Every model at image and at group level, out-of-fold and on test; ensemble and baseline.

    The group level is left out where a group has images of both classes.
    """
    tables = {name: read_predictions(run, name) for name in trained(run)}
    weights, protocol = weights_of(run), read_json(run, "split.json")["protocol"]
    weights["ensemble (mean logit)"] = "random" if "random" in weights.values() else "pretrained"
    rows = []
    for on, keep in (
        ("out-of-fold", lambda table: table[table["model"] == "oof"]),
        ("test", lambda table: table[(table["model"] == "final") & (table["split"] == "test")]),
    ):
        judged = {name: keep(table) for name, table in tables.items()}
        judged = {name: table for name, table in judged.items() if len(table)}
        if len(judged) > 1:
            judged["ensemble (mean logit)"] = mean_over_models(list(judged.values()))
        judged["baseline (size and colour)"] = keep(baseline)
        for name, table in judged.items():
            levels = {"image": table, "group": by_group(table)}
            rows += [
                {"model": name, "level": level, "judged_on": on}
                | metrics_with_intervals(part)
                | {"weights": weights.get(name, ""), "protocol": protocol}
                for level, part in levels.items()
                if part is not None
            ]
    return pd.DataFrame(rows)


def weights_of(run: Path) -> dict[str, str]:
    """What weights each architecture of the run had: `imagenet`, `file` or `random`."""
    return {name: read_json(run, f"{name}/metrics.json")["weights"] for name in trained(run)}


def orientation_gain(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """AUC of the same folds trained with 1, 4 and 8 orientations, with intervals by group.

    `tables` maps an architecture to rows `image_id, group, label, orientations, logit`.
    """
    rows = []
    for name, table in tables.items():
        for orientations, part in table.groupby("orientations"):
            part = part.assign(probability=expit(part["logit"]))
            low, high = group_bootstrap(part, names=("auc",))["auc"]
            auc = classification_metrics(part)["auc"]
            rows.append((name, orientations, auc, low, high))
    return pd.DataFrame(
        rows, columns=["architecture", "orientations", "auc", "auc_low", "auc_high"]
    )


def summary(table: pd.DataFrame, baseline_auc: float, unit: str) -> list[str]:
    """Sentences that the comparison allows, and no more."""
    if (table["protocol"] == "original").any():
        return [
            "Protocol original: the split leaks, so these numbers say how well copies are "
            "recognized. No winner is named."
        ]
    if (table["weights"] == "random").any():
        return [
            "No pretrained weights: this run shows the machinery and ranks nothing. "
            "No winner is named."
        ]
    ordered = table.sort_values("auc", ascending=False)
    best = ordered.iloc[0]
    highest = " has the highest AUC," if len(ordered) > 1 else " reaches AUC"
    sentences = [
        f"{NETWORK_TITLE[best['architecture']]}{highest} {best['auc']:.3f} "
        f"(95 % interval by {unit} {best['auc_low']:.3f} to {best['auc_high']:.3f}; "
        f"{best['judged_on']}, {best['images']} images, {best['groups']} {plural(unit)})."
    ]
    for _, other in ordered.iloc[1:].iterrows():
        separate = other["auc_high"] < best["auc_low"]
        verdict = (
            "its interval lies below the best one's."
            if separate
            else "the intervals overlap, so this run does not separate the two."
        )
        sentences.append(
            f"{NETWORK_TITLE[other['architecture']]}: {other['auc']:.3f} "
            f"({other['auc_low']:.3f} to {other['auc_high']:.3f}); {verdict}"
        )
    below = table.loc[table["auc_low"] <= baseline_auc, "architecture"].map(NETWORK_TITLE)
    above = (
        f"Not clearly above that: {', '.join(below)}." if len(below) else "All are clearly above."
    )
    sentences.append(f"Size and mean colour alone reach AUC {baseline_auc:.3f}. {above}")
    return sentences


def baseline_auc(baseline: pd.DataFrame, table: pd.DataFrame) -> float:
    """The baseline's AUC on what the comparison `table` was judged on."""
    model = "oof" if (table["judged_on"] == "out-of-fold").all() else "final"
    return classification_metrics(baseline[baseline["model"] == model])["auc"]


def read_orientations(run: Path) -> dict[str, pd.DataFrame]:
    """`<architecture>/orientations.csv` of each architecture that has one."""
    return {
        name: read_table(run, f"{name}/orientations.csv")
        for name in trained(run)
        if (run / name / "orientations.csv").is_file()
    }


def cost(run: Path) -> pd.DataFrame:
    """Parameters, size, seconds and speed of each architecture, from `timing.json`."""
    columns = ["parameters", "megabytes", "features_computed", "feature_seconds"]
    columns += ["training_seconds", "images_per_second", "device"]
    rows = [
        {"architecture": name, "weights": weights} | {key: timing[key] for key in columns}
        for name, weights in weights_of(run).items()
        for timing in [read_json(run, f"{name}/timing.json")]
    ]
    return pd.DataFrame(rows)


def worst_mistakes(judged: dict[str, pd.DataFrame], count: int) -> pd.DataFrame:
    """The images that the mean logit of all networks got wrong, the surest first."""
    rows = mean_over_models(list(judged.values()))
    rows["predicted"] = np.where(rows["probability"] >= THRESHOLD, "M", "B")
    wrong = rows[rows["predicted"] != rows["label"]].drop_duplicates("image_id")
    return wrong.sort_values("logit", key=np.abs, ascending=False).head(count)
