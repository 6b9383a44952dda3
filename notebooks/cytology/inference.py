"""A trained model on new images: a folder in, a table of predictions out.

With labels it is an external validation: train here, test there, at what was locked before.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.augmentation import fit_to_square
from cytology.backend import keras
from cytology.datasets import image_root
from cytology.evaluation import without_probabilities
from cytology.folders import (
    IMAGE_SUFFIXES,
    add_patients_from_csv,
    add_patients_from_pattern,
    class_of,
    find_files,
    parse_classes,
    unit_of,
)
from cytology.intervals import metrics_with_intervals
from cytology.loading import load_safely
from cytology.predictions import by_group, fingerprint
from cytology.quality import UnreadableImage, open_rgb
from cytology.settings import InputError, resolve
from cytology.splitting import read_split
from cytology.tables import read_json, read_table, require


def load_trained(run: Path, architecture: str) -> tuple[keras.Model, dict]:
    """The saved model of a run and its `metrics.json`; see `loading.load_safely`."""
    path = require(run, f"{architecture}/model.keras")
    about = read_json(run, f"{architecture}/metrics.json")
    return load_safely(path, architecture, about), about


@dataclass(frozen=True)
class Images:
    """Images to predict: `table` has `image_id`, `label` and `group`, empty where unknown.

    `unit` is what a group is; empty if nobody knows whose the images are.
    """

    root: Path
    table: pd.DataFrame
    unit: str


def choose_images(
    run: Path, data: str, images: str, classes: str, patient_pattern: str, patients_csv: str
) -> Images:
    """The images to predict.

    `images` is a folder, `unseen` (the run's images of neither class) or empty: the test part.
    The others are for a folder, as for training data; it may have classes and patients, or none.
    """
    if images == "unseen":
        unseen = read_table(run, "unseen.csv")
        if unseen.empty:
            raise InputError(
                "Parameter `images` is unseen, but this data set has no images of neither class: "
                "name a folder."
            )
        return Images(image_root(run, data), unseen[["image_id"]].assign(label="", group=""), "")
    if images:
        return new_images(resolve(images), classes, patient_pattern, patients_csv)
    split = read_split(run)
    test = split[split["split"] == "test"].drop_duplicates("image_id")
    unit = read_json(run, "split.json")["unit"]
    return Images(image_root(run, data), test[["image_id", "label", "group"]], unit)


def new_images(root: Path, classes: str, patient_pattern: str, patients_csv: str) -> Images:
    """Images of a folder, with the classes and patients that can be told."""
    names, found = parse_classes(classes, "images_classes"), images_in(root)
    table = pd.DataFrame({"image_id": found, "label": [class_of(name, names) for name in found]})
    if patients_csv:
        table = add_patients_from_csv(table, resolve(patients_csv))
    elif patient_pattern:
        table = add_patients_from_pattern(table, patient_pattern, "images_patient_pattern")
    else:
        return Images(root, table.assign(group=""), "")
    unit = unit_of("" if patients_csv else patient_pattern)
    return Images(root, table.rename(columns={"patient": "group"}), unit)


def images_in(folder: Path) -> list[str]:
    """Image files below `folder`, as posix paths; `InputError` if there is none."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: check the parameter `images`.")
    files, _ = find_files(folder)
    files = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError(f"No JPEG, PNG, BMP or TIFF file in {folder}: check `images`.")
    return sorted(path.relative_to(folder).as_posix() for path in files)


def predict_files(
    model: keras.Model, root: Path, image_ids: list[str], fit: str, batch_size: int = 32
) -> pd.DataFrame:
    """Predict image files: `image_id, logit, reason`.

    A file that cannot be read gets a row with its `reason` and no logit; the batch goes on.
    """
    size = model.input_shape[1]
    rows = []
    for start in range(0, len(image_ids), batch_size):
        pixels, found = [], []
        for image_id in image_ids[start : start + batch_size]:
            try:
                pixels.append(fit_to_square(open_rgb(root / image_id), size, fit))
                found.append({"image_id": image_id, "reason": ""})
            except UnreadableImage as error:
                rows.append({"image_id": image_id, "reason": str(error)})
        if pixels:
            logits = model.predict_on_batch(np.stack(pixels)).ravel()
            rows += [row | {"logit": z} for row, z in zip(found, logits, strict=True)]
    table = pd.DataFrame(rows, columns=["image_id", "logit", "reason"])
    return table.sort_values("image_id", ignore_index=True)


# -------------------------------------------------------------------- decisions


@dataclass(frozen=True)
class Decision:
    """What was chosen before test was looked at, by `rule`; both apply to the network's logit."""

    rule: str
    chosen_on: str
    threshold_logit: float
    temperature: float

    @property
    def threshold(self) -> float:
        """The calibrated probability from which on an image is called malignant."""
        return float(expit(self.threshold_logit / self.temperature))


def locked_decision(run: Path, architecture: str, rule: str) -> Decision:
    """The threshold and temperature that notebook 07 chose for a network."""
    thresholds = read_table(run, "tables/thresholds.csv")
    row = thresholds[(thresholds["model"] == architecture) & (thresholds["rule"] == rule)]
    calibrations = read_table(run, "tables/calibration.csv")
    cooled = calibrations[
        (calibrations["model"] == architecture) & (calibrations["method"] == "temperature")
    ]
    if row.empty or cooled.empty:
        raise InputError(
            f"tables/thresholds.csv and tables/calibration.csv know no {architecture}: run "
            "notebook 07 again."
        )
    row, cooled = row.iloc[0], cooled.iloc[0]
    if row["predictions"] != fingerprint(run, architecture):
        raise InputError(
            f"{architecture} was trained again after its threshold was chosen: run notebook 07."
        )
    return Decision(rule, row["chosen_on"], row["threshold_logit"], cooled["temperature"])


def decide(table: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """The table of `predict_files` with calibrated `probability` and `predicted` class."""
    logit = table["logit"].astype(float)
    called = np.where(logit >= decision.threshold_logit, "M", "B")
    return table.assign(
        probability=expit(logit / decision.temperature),
        predicted=np.where(logit.isna(), "", called),
    )


def judge(
    table: pd.DataFrame, decision: Decision, unit: str, rule: str = "mean_logit"
) -> pd.DataFrame:
    """Every metric with intervals at the locked threshold and temperature: train here, test there.

    A row at image level and, where each group has one class, one at the level of `unit`, by `rule`
    (`predictions.by_group`). `table` has `label` and `group`; an image without a group counts as
    one of its own.
    """
    rows = table[(table["label"] != "") & (table["reason"] == "")]
    alone = "image " + rows["image_id"]
    rows = rows.assign(
        group=rows["group"].where(rows["group"] != "", alone),
        logit=rows["logit"].astype(float) / decision.temperature,
    )
    found = [{"level": "image"} | metrics_with_intervals(rows, decision.threshold)]
    grouped = by_group(rows, rule, decision.threshold) if unit else None
    if grouped is not None:
        voted = rule == "vote"
        at_unit = metrics_with_intervals(grouped, 0.5 if voted else decision.threshold)
        found.append({"level": unit} | (without_probabilities(at_unit) if voted else at_unit))
    about = {"rule": decision.rule, "threshold": decision.threshold}
    return pd.DataFrame(found).assign(**about, temperature=decision.temperature)
