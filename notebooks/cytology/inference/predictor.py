"""A trained model applied to new images: files in, a table of predictions out.

With labels it is an external validation: train here, test there, with everything locked before.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.data.augmentation import fit_to_square
from cytology.data.images.opening import UnreadableImage, read_image
from cytology.data.splitting import read_split
from cytology.evaluation.predictions import by_group
from cytology.evaluation.statistics import decisions
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.evaluation.statistics.metrics import AT_A_THRESHOLD, OF_PROBABILITIES
from cytology.evaluation.statistics.recalibration import recalibration
from cytology.files import file_hash
from cytology.inference import similarity
from cytology.inference.locked import Decision
from cytology.inference.new_images import Images
from cytology.inference.similarity import Reference, nearest
from cytology.networks.backend import enough_memory, keras
from cytology.networks.building import linear_head
from cytology.networks.engines import Passes
from cytology.networks.model_files import features_of_model
from cytology.notebook import progress
from cytology.run import Run


def reference_of_run(
    run: Run, model: keras.Model, passes: Passes, batch_size: int = 32
) -> tuple[Reference, float]:
    """The training images to compare new ones with, and the share of test images flagged.

    No test image should be flagged, since they come from the same place. Both are kept in
    `<architecture>/reference.npz`, so the training images are needed only once.
    """
    path, used = run / model.name / "reference.npz", file_hash(run / model.name / "model.keras")
    kept = similarity.read_reference(path, used)
    if kept is not None:
        return kept
    images = read_split(run).drop_duplicates("image_id")
    train, test = (images[images["split"] == part] for part in ("train", "test"))
    values, of_test = (
        features_of_model(run, model, passes, part, batch_size) for part in (train, test)
    )
    known = similarity.reference(train, values)
    distances, _ = nearest(known, of_test, 1)
    falsely = float((distances[:, 0] > known.limit).mean())
    similarity.write_reference(path, known, used, falsely)
    return known, falsely


def predict_files(
    model: keras.Model,
    passes: Passes,
    root: Path,
    image_ids: list[str],
    fit: str,
    batch_size: int = 32,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Predict image files: (`image_id, logit, reason, converted`, features of those with a logit).

    `passes` makes the features, the head of `model` the logits.
    A file that cannot be read gets a row with its `reason` and no logit; the batch continues.
    `converted` says how it was converted (`opening.read_image`). Rows are in the order of
    `image_ids`; the features have shape (rows with a logit, width).
    """
    size, head = model.input_shape[1], linear_head(model)
    rows, features = [], []
    batches = [image_ids[k : k + batch_size] for k in range(0, len(image_ids), batch_size)]
    for batch in progress(batches, "predicting", unit="batch"):
        pixels, found = [], []
        for image_id in batch:
            rows.append({"image_id": image_id, "logit": np.nan, "reason": "", "converted": ""})
            try:
                image, rows[-1]["converted"] = read_image(root / image_id)
                pixels.append(fit_to_square(image, size, fit))
                found.append(rows[-1])
            except UnreadableImage as error:
                rows[-1]["reason"] = str(error)
        if pixels:
            with enough_memory(batch_size):
                values = passes(np.stack(pixels))
            features.append(values)
            for row, logit in zip(found, head.logits(values), strict=True):
                row["logit"] = float(logit)
    values = np.concatenate(features) if features else np.empty((0, *passes.shape), np.float32)
    return pd.DataFrame(rows, columns=["image_id", "logit", "reason", "converted"]), values


# -------------------------------------------------------------------- predictions


def decide(table: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """The table of `predict_files` with raw and calibrated probability and `predicted` class."""
    logit = table["logit"].astype(float)
    called = np.where(logit >= decision.threshold_logit, "M", "B")
    return table.assign(
        probability=expit(logit),
        calibrated_probability=expit(decision.calibrated(logit)),
        predicted=np.where(logit.isna(), "", called),
    )


def with_neighbours(table: pd.DataFrame, features: np.ndarray, known: Reference) -> pd.DataFrame:
    """The table with the nearest training image of each readable one.

    Columns: `nearest`, `nearest_label`, `distance`, and `unlike_training` if that is beyond the
    reference's limit. `features` belong to the rows with a logit, in order.
    """
    readable = table["logit"].notna().to_numpy()
    found = table.assign(nearest="", nearest_label="", distance=np.nan, unlike_training=False)
    if readable.any():
        distances, order = nearest(known, features, 1)
        other = known.table.iloc[order[:, 0]]
        found.loc[readable, "nearest"] = other["image_id"].to_numpy()
        found.loc[readable, "nearest_label"] = other["label"].to_numpy()
        found.loc[readable, "distance"] = distances[:, 0]
        found.loc[readable, "unlike_training"] = distances[:, 0] > known.limit
    return found


def refer(
    table: pd.DataFrame, decision: Decision, least_margin: float, every: bool = False
) -> pd.DataFrame:
    """The table with `refer`, whether a pathologist must see the image, and `refer_why`.

    Reasons: it has no prediction, is unlike all training images, or is nearer to the threshold
    than `least_margin`, in calibrated logits (`operating_points.least_margin`). With `every`, all
    images, because they belong to neither class of the run.
    """
    margin = decision.margin(table["logit"].astype(float))
    reasons = [
        ("no prediction", table["logit"].isna()),
        ("of neither class", pd.Series(every, index=table.index)),
        ("unlike all training images", table["unlike_training"].astype(bool)),
        ("too near the threshold", margin < least_margin),
    ]
    why = ["; ".join(reason for reason, applies in reasons if applies[row]) for row in table.index]
    return table.assign(refer=[bool(words) for words in why], refer_why=why)


@dataclass(frozen=True)
class Predictor:
    """A model with everything that its predictions depend on.

    `about` is the network's `metrics.json`.
    """

    model: keras.Model
    passes: Passes
    about: dict[str, Any]
    decision: Decision
    known: Reference
    least_margin: float
    batch_size: int = 32

    def predict(self, images: Images) -> pd.DataFrame:
        """One row per image, from `predict_files`, `decide`, `with_neighbours` and `refer`.

        With `label` and `group` if known, and the model, weights and rule of the predictions.
        """
        ids, fit = list(images.table["image_id"]), self.about["fit"]
        what = (self.model, self.passes, images.root, ids, fit)
        table, features = predict_files(*what, self.batch_size)
        refused = images.refused.assign(logit=np.nan, converted="")
        table = pd.concat([table, refused], ignore_index=True) if len(refused) else table
        table = with_neighbours(decide(table, self.decision), features, self.known)
        table = refer(table, self.decision, self.least_margin, images.of_neither_class)
        table = table.merge(images.table, on="image_id", how="left")
        return table.fillna({"label": "", "group": ""}).assign(
            weights=self.about["weights"],
            engine=self.passes.engine,
            protocol=self.about["protocol"],
            calibrated_threshold=self.decision.threshold,
            unlike_rate=self.known.rate,
            slope=self.decision.slope,
            intercept=self.decision.intercept,
        )


def external_validation(
    table: pd.DataFrame, decision: Decision, unit: str, rule: str = "mean_logit"
) -> pd.DataFrame:
    """Every metric with intervals at the locked threshold and calibration: train here, test there.

    One row at image level and, if groups are known, one at the level of `unit`, by `rule`
    (`predictions.by_group`). `table` has `label` and `group`; an image without a group counts as
    one group.
    """
    rows = table[(table["label"] != "") & (table["reason"] == "")]
    alone = "image " + rows["image_id"]
    logit = decision.calibrated(rows["logit"].astype(float))
    rows = rows.assign(
        group=rows["group"].where(rows["group"] != "", alone), logit=logit, probability=expit(logit)
    )
    found = [{"level": "image"} | metrics_with_intervals(rows, decision.threshold)]
    # Even if all probabilities round to 1, logits show which reach the threshold.
    called = decisions.relative_to_threshold(rows, decision.calibrated(decision.threshold_logit))
    found[0] |= metrics_with_intervals(called, names=AT_A_THRESHOLD) | recalibration(rows)
    if unit:
        voted, grouped = rule == "vote", by_group(rows, rule, decision.threshold)
        at_unit = metrics_with_intervals(grouped, 0.5 if voted else decision.threshold)
        at_unit |= dict.fromkeys(OF_PROBABILITIES, np.nan) if voted else {}
        found.append({"level": unit} | at_unit)
    about = {"rule": decision.rule, "calibrated_threshold": decision.threshold}
    about |= {"slope": decision.slope, "intercept": decision.intercept}
    return pd.DataFrame(found).assign(**about, malignant_share=(rows["label"] == "M").mean())
