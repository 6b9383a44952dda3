"""How images of neither class are scored, as atypical and suspicious smears (C3 and C4).

No network was trained or judged on them, and no answer is right. What can be asked is where their
scores lie between those of benign and of malignant images, judged in the same way.
"""

import zlib
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.audits.leakage import features_of_run
from cytology.data.inspection import inspect_files
from cytology.data.splitting import read_split
from cytology.evaluation.judged import OUT_OF_FOLD
from cytology.evaluation.operating_points import (
    predictions_to_choose_on,
    test_predictions,
    with_class_shift,
)
from cytology.evaluation.readable import title
from cytology.evaluation.statistics import calibration, decisions
from cytology.evaluation.statistics.clusters import variance_inflation
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS, named_interval, share_interval
from cytology.networks.linear_head import logits_by_fold, read_heads
from cytology.run import Run
from cytology.settings import CACHE
from cytology.wording import counted, join_words, plural

MOST_IMAGES = 2000  # that are scored, drawn at random of more
QUARTILES = {"lower": 0.25, "median": 0.5, "upper": 0.75}


# ------------------------------------------------------------------------- images


def images_to_score(run: Run, on: str, seed: int) -> tuple[pd.DataFrame, str]:
    """The images of neither class that the networks can judge, and a sentence about them.

    Columns `image_id, category, group, split, fold, model, sha256`; `group` is that of the run
    if it knows the image's patient or slide, and empty if nobody knows whose it is. Judged
    `out-of-fold`, an image goes to the fold of its group, and any other image to one that only its
    group decides; judged on `test`, images of groups in train and val are left out.
    """
    unseen = run.table("unseen.csv")
    if unseen.empty:
        return unseen, "This data set has no images of neither class: nothing is scored here."
    if run.leaks:
        why = "The split leaks, so the networks may know these patients: nothing is scored here."
        return unseen.head(0), why
    drawn = unseen.sample(min(len(unseen), MOST_IMAGES), random_state=seed).sort_index()
    found = inspect_files([run.images / image_id for image_id in drawn["image_id"]], CACHE)
    hashes = pd.Series([each.get("sha256", "") for each in found], index=drawn.index)
    images = drawn[hashes != ""].assign(sha256=hashes[hashes != ""]).reset_index(drop=True)
    images["group"] = groups_of(images, run.manifest)
    where = read_split(run).drop_duplicates("group").set_index("group")
    images["split"] = images["group"].map(where["split"]).fillna("")
    if on == OUT_OF_FOLD:
        count = where["fold"].nunique()
        key = images["group"].where(images["group"] != "", images["sha256"])
        drawn_fold = key.map(lambda name: zlib.crc32(name.encode()) % count)
        images["fold"] = images["group"].map(where["fold"]).fillna(drawn_fold).astype(int)
        kept = images.assign(model="oof")
    else:
        kept = images[~images["split"].isin(["train", "val"])].assign(fold=-1, model="final")
    left_out = {
        "not drawn": len(unseen) - len(drawn),
        "that cannot be read": len(drawn) - len(images),
        f"of {plural(run.unit)} in training": len(images) - len(kept),
    }
    clauses = [f"{number:,} {why}" for why, number in left_out.items() if number]
    columns = ["image_id", "category", "group", "split", "fold", "model", "sha256"]
    note = f"{len(kept):,} images of neither class are scored."
    note += f" Left out: {join_words(clauses)}." if clauses else ""
    return kept[columns].reset_index(drop=True), note


def groups_of(images: pd.DataFrame, manifest: pd.DataFrame) -> pd.Series:
    """The group of each image: the run's, else its patient or slide, else empty text.

    An image whose very file is in the manifest, or whose patient or slide is, has that group.
    """
    group = pd.Series("", index=images.index)
    for column in ("sha256", "patient", "slide"):
        if column in images:
            known = manifest[manifest[column] != ""].drop_duplicates(column)
            known = images[column].map(known.set_index(column)["group"]).fillna("")
            group = group.where(group != "", known)
    for column in ("patient", "slide"):
        if column in images:
            group = group.where(group != "", images[column].fillna(""))
    return group


# ------------------------------------------------------------------------- scores


def scores_of_run(
    run: Run, names: list[str], images: pd.DataFrame, on: str, rule: str, wanted_sensitivity: float
) -> pd.DataFrame:
    """Scores of images of neither class and of both classes, one row per network and image.

    `images` are those of `images_to_score`. `logit` is the network's own, `probability` the
    calibrated one; `called` is M from the threshold of `rule` on, which is `threshold` as a
    calibrated probability. If heads were cross-validated, an image's head, calibration and
    threshold come from the other folds.
    """
    tables = []
    for name in names:
        chosen_on = predictions_to_choose_on(run, name)[1]
        known = chosen_on if on == OUT_OF_FOLD else test_predictions(run, name)
        new = with_class_shift(run, name, images.assign(logit=logits_of(run, name, images, on)))
        rows = pd.concat([known.assign(category=category_of(known, run)), new.assign(label="")])
        if on == OUT_OF_FOLD:
            pairs = [(rows["fold"] == k, chosen_on["fold"] != k) for k in known["fold"].unique()]
            parts = [
                apply_threshold(rows[here], chosen_on[others], rule, wanted_sensitivity)
                for here, others in pairs
            ]
        else:
            parts = [apply_threshold(rows, chosen_on, rule, wanted_sensitivity)]
        table = pd.concat(parts).assign(model=name)
        tables.append(table.sort_values(["category", "image_id"]))
    columns = ["model", "image_id", "group", "label", "category", "fold", "logit"]
    columns += ["probability", "threshold", "called"]
    table = pd.concat(tables, ignore_index=True)[columns]
    return run.marked(table.assign(rule=rule, judged_on=on))


def logits_of(run: Run, name: str, images: pd.DataFrame, on: str) -> np.ndarray:
    """The logits of images by the network's heads of their folds, or by its saved model."""
    if on == OUT_OF_FOLD:
        features = features_of_run(run, name, images, 1).of(images.assign(orientation=0))
        return logits_by_fold(read_heads(run, name), features, images["fold"].to_numpy())
    # Imported late: they start TensorFlow.
    from cytology.networks.building import linear_head
    from cytology.networks.model_files import features_of_model, load_trained, passes_of_model

    model, _ = load_trained(run, name)
    passes, batch_size = passes_of_model(run, model), run.parameters["batch_size"]
    return linear_head(model).logits(features_of_model(run, model, passes, images, batch_size))


def category_of(rows: pd.DataFrame, run: Run) -> pd.Series:
    """The name of each row's class: the source's category, if each class has only one."""
    manifest = run.manifest
    if "category" in manifest and (manifest.groupby("label")["category"].nunique() == 1).all():
        return rows["label"].map(manifest.drop_duplicates("label").set_index("label")["category"])
    return rows["label"].map({"B": "benign", "M": "malignant"})


def apply_threshold(
    rows: pd.DataFrame, chosen_on: pd.DataFrame, rule: str, wanted_sensitivity: float
) -> pd.DataFrame:
    """The rows with calibrated `probability`, `threshold` and `called`, by what was `chosen_on`."""
    calibrator = calibration.fit_calibrator(chosen_on, "platt")
    at = decisions.choose_threshold(chosen_on, rule, wanted_sensitivity)
    return rows.assign(
        probability=expit(calibrator.logit(rows["logit"], rows["class_shift"])),
        threshold=expit(calibrator.logit(np.full(len(rows), at), rows["class_shift"])),
        called=np.where(rows["logit"] >= at, "M", "B"),
    )


# ------------------------------------------------------------------------- by category


def by_category(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per network and category, from benign to malignant: how its images are scored.

    `median`, `lower` and `upper` (quartiles) are of the calibrated probability; `called_malignant`
    is the share called so, with its 95 % interval by group. An image of an unknown group counts as
    a group alone; `of_unknown_group` says how many do.
    """
    table = []
    scores = scores.assign(place=scores["label"].map({"B": 0, "": 1, "M": 2}))
    # Networks in their own order, categories from benign to malignant.
    number = pd.factorize(scores["model"])[0]
    parts = scores.groupby([number, "place", "category"])
    for _, rows in parts:
        alone = rows["group"] == ""
        group = rows["group"].where(~alone, "image " + rows["image_id"]).to_numpy()
        called = (rows["called"] == "M").to_numpy()
        row: dict[str, Any] = dict(rows[["model", "category", "label"]].iloc[0])
        row |= {"images": len(rows), "groups": len(np.unique(group))}
        row["of_unknown_group"] = int(alone.sum())
        row |= {name: rows["probability"].quantile(share) for name, share in QUARTILES.items()}
        inflation = variance_inflation(rows.drop(columns="model"))  # here that is the network
        bounds = share_interval(called, group, rows["logit"].to_numpy(float), inflation)
        table.append(row | named_interval("called_malignant", called.mean(), *bounds))
    about = ["weights", "protocol", "rule", "judged_on"]
    of_model = scores.drop_duplicates("model").set_index("model")[about]
    return pd.DataFrame(table).join(of_model, on="model")


def category_sentences(table: pd.DataFrame, unit: str) -> list[str]:
    """The table in words: one sentence per network, and one on what no table can show."""
    sentences = []
    for name, rows in table.groupby("model", sort=False):
        if (rows["weights"] == "random").any():
            sentences.append(f"{title(name)}: no pretrained weights, so its scores mean nothing.")
            continue
        clauses = [f"{share_called(row)} of {row['category']}" for _, row in rows.iterrows()]
        sentences.append(f"{title(name)} calls malignant {join_words(clauses)} images.")
    unseen = table[table["label"] == ""].drop_duplicates("category")
    few = unseen[unseen["groups"] < FEWEST_GROUPS]
    if len(few):
        names = [f"{row.category} ({row.groups})" for row in few.itertuples()]
        sentences.append(f"Too few {plural(unit)} for an interval: {join_words(names)}.")
    if unknown := unseen["of_unknown_group"].sum():
        images = counted(unknown, "image", "images")
        sentences.append(
            f"Nobody knows whose {images} of neither class are: each counts as a {unit}, so these "
            "intervals are too narrow, and a network may know some of them."
        )
    sentences.append("No such answer is right or wrong: a pathologist must see these images.")
    return sentences


def share_called(row: pd.Series) -> str:
    """The share of a category that is called malignant, with its interval if it is shown."""
    share = f"{row['called_malignant']:.0%}"
    low, high = row["called_malignant_low"], row["called_malignant_high"]
    if row["groups"] < FEWEST_GROUPS or np.isnan(low):
        return share
    return f"{share} ({low:.0%} to {high:.0%})"
