"""Doubtful labels: images, and whole patients, whose label the held-out predictions contradict.

Scores come from heads that never saw the patient, so no label vouches for itself. `cleanlab`
decides which contradictions exceed the expected errors, by confident learning (Northcutt, Jiang &
Chuang 2021, doi 10.1613/jair.1.12125). It names suspects; only a person who looks at the image can
distinguish a wrong label from a hard image.
"""

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from scipy.special import expit

from cytology.evaluation.judged import OUT_OF_FOLD, judged_networks, judged_rows
from cytology.evaluation.predictions import mean_logits, read_predictions
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.run import Run
from cytology.settings import InputError
from cytology.wording import counted, plural, shorten_list, with_interval

FEWEST_OF_GROUP = 3  # images of a group, to judge the group as a whole
MOST_OF_GROUP = 0.75  # the share of a group's images that makes it doubtful as a whole
FILE = "tables/doubtful_labels.csv"
COLUMNS = ["image_id", "group", "label", "predicted", "probability", "margin"]
COLUMNS += ["group_images", "group_contradicted", "whole_group", "decision"]


def doubtful_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The images with doubtful labels, the most doubtful first, with a column for a `decision`.

    `rows` are held-out predictions, one per image: `image_id, group, label, logit, probability`.
    `group_images` counts the images of the same group and label, `group_contradicted` those of them
    that are predicted to be of the other class. If these are most of at least `FEWEST_OF_GROUP`
    images, they are listed first, marked `whole_group`, the most certain group at the top: more
    likely the group's label is wrong, or the networks do not know such groups. Then follow single
    images, by `margin` (`margins_in_group`; below 0: contradicted). Raises `InputError` if an
    image has several rows, or a class has none.
    """
    if rows["image_id"].duplicated().any() or rows["label"].nunique() < 2:
        raise InputError(
            "Doubtful labels need one held-out prediction per image, and images of both classes: "
            "use the out-of-fold rows of predictions.csv."
        )
    predicted = np.where(rows["logit"] >= 0, "M", "B")
    rows = rows.assign(predicted=predicted, margin=margins_in_group(rows), decision="")
    against = (rows["predicted"] != rows["label"]).astype(int)
    of_group = against.groupby([rows["group"], rows["label"]])
    rows["group_images"], rows["group_contradicted"] = (
        of_group.transform("size"), of_group.transform("sum")
    )  # fmt: skip
    rows["whole_group"] = (rows["group_images"] >= FEWEST_OF_GROUP) & (
        rows["group_contradicted"] >= MOST_OF_GROUP * rows["group_images"]
    )
    doubted = confident_contradictions(rows) | (rows["whole_group"] & (against == 1))
    mean = signed_logits(rows).groupby([rows["group"], rows["label"]]).transform("mean")
    rows["mean"] = mean.where(rows["whole_group"], np.inf)  # single images come last
    found = rows[doubted].sort_values(["mean", "margin", "image_id"])
    return found[COLUMNS].reset_index(drop=True)


def signed_logits(rows: pd.DataFrame) -> pd.Series:
    """The logit of each row, positive if it agrees with the label."""
    return rows["logit"].where(rows["label"] == "M", -rows["logit"])


def margins_in_group(rows: pd.DataFrame) -> pd.Series:
    """How far an image's logit is on the side of its label, minus the effect of its group.

    A contradiction means more if the same heads agree with the labels of the group's other images
    than in a hard group, where they contradict several. The effect of a group of n images is how
    far the margins of the others exceed the mean of all images, shrunk by (n - 1) / n; a single
    image keeps its own margin.
    """
    margin = signed_logits(rows)
    above = margin - margin.mean()
    of_group = above.groupby(rows["group"])
    return margin - (of_group.transform("sum") - above) / of_group.transform("size")


def confident_contradictions(rows: pd.DataFrame) -> np.ndarray:
    """Whether `cleanlab` doubts the label of each row, by its `margin`: shape (n,), bool."""
    of_label = expit(rows["margin"].to_numpy(float))
    malignant = (rows["label"] == "M").to_numpy()
    of_malignant = np.where(malignant, of_label, 1 - of_label)
    return find_label_issues(
        malignant.astype(int),
        np.stack([1 - of_malignant, of_malignant], axis=1),
        n_jobs=1,  # several jobs would be processes that each import everything
    )


def doubtful_groups(table: pd.DataFrame) -> pd.DataFrame:
    """The groups that are doubtful as a whole: `group, label`, images, contradicted images."""
    whole = table[table["whole_group"]]
    return whole[["group", "label", "group_images", "group_contradicted"]].drop_duplicates(
        ["group", "label"], ignore_index=True
    )


def auc_without(tables: dict[str, pd.DataFrame], doubtful: pd.DataFrame) -> pd.DataFrame:
    """AUC of each model with and without the doubtful images: an upper bound, one row per model.

    `auc_without` would be right if every doubtful label were wrong. The networks themselves chose
    which images are left out, so it rises even if all labels are right; for the same reason it has
    no interval. `left_out` counts the images.
    """
    found = []
    for name, rows in tables.items():
        kept = rows[~rows["image_id"].isin(doubtful["image_id"])]
        whole = metrics_with_intervals(rows, names=("auc",))
        row = {"model": name} | whole | {"left_out": len(rows) - len(kept)}
        found.append(row | {"auc_without": metrics_with_intervals(kept, names=("auc",))["auc"]})
    return pd.DataFrame(found)


def doubtful_labels_of_run(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`doubtful_labels` of a run, and `auc_without` of each of its networks.

    Uses the mean logit of all networks and orientations. Both are empty if no prediction is fit to
    question a label: under the original's protocol, whose heads saw copies of the images they
    judge, with random weights, and without cross-validation. Entries in the column `decision` of
    an earlier `FILE` are kept.
    """
    tables = judged_networks(run, OUT_OF_FOLD)
    random = any(run.about(name)["weights"] == "random" for name in tables)
    if run.is_original or random or not tables:
        nothing = pd.DataFrame(columns=["model", "auc", "left_out", "auc_without"])
        return pd.DataFrame(columns=COLUMNS), run.marked(nothing)
    turned = [judged_rows(read_predictions(run, name, turned=True), OUT_OF_FOLD) for name in tables]
    doubtful = doubtful_labels(mean_logits(pd.concat(turned).assign(orientation=0)))
    decided = run.rows(FILE)
    if len(decided):
        before = decided.set_index("image_id")["decision"].fillna("").astype(str)
        doubtful["decision"] = doubtful["image_id"].map(before).fillna("")
    return doubtful, run.marked(auc_without(tables, doubtful))


def doubtful_sentences(
    doubtful: pd.DataFrame, aucs: pd.DataFrame, names: dict[str, str], unit: str
) -> list[str]:
    """The tables of `doubtful_labels_of_run` in words.

    `names` maps each `model` of `aucs` to its title. Sentences name groups: pass a table with
    pseudonyms if they leave the house.
    """
    if aucs.empty:
        return [
            "No label is questioned: this needs pretrained networks, cross-validated by whole "
            f"{plural(unit)}."
        ]
    if doubtful.empty:
        return ["No label is contradicted beyond the expected errors of the networks."]
    sentences = [
        f"The held-out predictions contradict the label of "
        f"{counted(len(doubtful), 'image', 'images')}: look at them, and write your decision into "
        "the column `decision`. Hard images with the right label are among them, too."
    ]
    groups = doubtful_groups(doubtful)
    if len(groups):
        words = [
            f"{row.group} ({row.group_contradicted} of {row.group_images} labelled {row.label})"
            for row in groups.itertuples()
        ]
        sentences.append(
            f"{counted(len(groups), unit + ' is', plural(unit) + ' are')} contradicted as a whole: "
            f"{shorten_list(words, 5)}. Check the label of the {unit} first."
        )
    sentences += [
        f"{names[row['model']]}: AUC {with_interval(row, 'auc')}; without these images "
        f"{row['auc_without']:.3f}, an upper bound: the networks chose what is left out, so it "
        "would rise even if every label were right."
        for _, row in aucs.iterrows()
    ]
    return sentences
