"""What new images reveal about the place that they come from, with and without labels."""

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.evaluation.operating_points import predictions_to_choose_on, with_class_shift
from cytology.evaluation.place_sentences import gain_sentence, share_sentences, there_sentence
from cytology.evaluation.statistics.elsewhere import calibration_there, recalibration_gain
from cytology.evaluation.statistics.label_shift import estimated_share
from cytology.inference.locked import Decision
from cytology.run import Run


def with_groups(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions with a logit; an image without a group counts as one group."""
    rows = predictions[predictions["reason"] == ""]
    alone = "image " + rows["image_id"]
    return rows.assign(group=rows["group"].where(rows["group"] != "", alone))


def share_of_new_images(
    run: Run, architecture: str, predictions: pd.DataFrame
) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """`label_shift.estimated_share` of new images, with these and the images to compare with.

    Both tables have logits on the same scale: the shift by class weights is undone.
    """
    new = with_groups(predictions).assign(model="final", fold=np.nan)
    new = with_class_shift(run, architecture, new)
    known = predictions_to_choose_on(run, architecture)[1]
    found = estimated_share(new, known)
    parts = [rows.assign(logit=rows["logit"] + rows["class_shift"]) for rows in (new, known)]
    return found, parts[0], parts[1]


def labelled(predictions: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """The predictions whose class is known, with the calibrated `logit` and `probability`."""
    rows = with_groups(predictions)
    rows = rows[rows["label"] != ""]
    logit = decision.calibrated(rows["logit"].astype(float))
    return rows.assign(logit=logit, probability=expit(logit))


def recalibration_there(rows: pd.DataFrame, unit: str) -> tuple[pd.DataFrame, list[str]]:
    """`elsewhere.recalibration_gain` of `labelled` images of both classes, and its sentences."""
    gain = recalibration_gain(rows)
    return gain, [there_sentence(calibration_there(rows), unit), gain_sentence(gain, unit)]


def place_sentences(found: dict, unit: str, weights: str) -> list[str]:
    """Sentences about an estimated share; none for random weights."""
    if weights == "random":
        return ["No pretrained weights: no share of malignant images is estimated."]
    return share_sentences(found, unit)


def sentences_of_run(run: Run) -> list[str]:
    """The place of the new images in words, from the tables of notebook 09, for the report.

    Empty if the split leaks. There is no share for random weights, and nothing is taken from a
    table of images other than those of `inference/predictions.csv`.
    """
    predictions = run.rows("inference/predictions.csv")
    if predictions.empty or run.leaks:
        return []
    predictions = predictions[predictions["reason"] == ""]
    share, gain = (run.rows(f"inference/{name}.csv") for name in ("share", "recalibration"))
    levels = set(run.rows("inference/metrics.csv").get("level", [])) - {"image"}
    alone = (predictions["group"] == "").all()
    unit = "image" if alone else levels.pop() if len(levels) == 1 else "group"
    said = []
    if len(share) and share["images"].iloc[0] == len(predictions):
        row = share.iloc[0]
        said += place_sentences(row.to_dict(), unit, row["weights"])
    known = (predictions["label"] != "").sum()
    if len(gain) and gain["images"].iloc[0] == known and "random" not in set(gain["weights"]):
        said.append(gain_sentence(gain, unit))
    return said
