"""With some labelled patients of another place: are the probabilities right there, or fixable?

Rows are images of the new place with `label`, `group` and the `logit` as calibrated where the model
comes from.
"""

import numpy as np
import pandas as pd

from cytology.evaluation.statistics.calibration import (
    Calibrator,
    calibrate,
    fit_calibrator,
    log_losses,
    smoothed_targets,
)
from cytology.evaluation.statistics.clusters import CROSS_VALIDATED
from cytology.evaluation.statistics.intervals import (
    FEWEST_GROUPS,
    NO_BOUNDS,
    counts,
    mean_interval,
    named_interval,
)
from cytology.evaluation.statistics.recalibration import MOST_LEFT_OUT, in_the_large, recalibration

WAYS = ("as it is", "intercept", "slope and intercept")


def calibration_there(rows: pd.DataFrame) -> dict[str, float]:
    """Calibration in the large and slope at the new place, as `recalibration` gives them.

    Also the mean `loss` (log loss, nats), `malignant_share` and the `counts`.
    """
    found = recalibration(rows) | {"loss": log_losses(rows).mean()}
    return found | {"malignant_share": float((rows["label"] == "M").mean())} | counts(rows)


def recalibrated_by(rows: pd.DataFrame, way: str) -> Calibrator:
    """A calibrator for the new place, fitted on its labelled patients.

    `intercept` adds one number to all logits, which corrects for another share of malignant images;
    `slope and intercept` is Platt's. Both are fitted to `calibration.smoothed_targets`. With 20
    patients the first is safer (Van Calster et al. 2019, doi 10.1186/s12916-019-1466-7).
    """
    if way == "as it is":
        return Calibrator()
    if way == "intercept":
        score = rows["logit"].to_numpy(float)
        (added,) = in_the_large(score, smoothed_targets(rows), np.ones((1, len(rows))))
        return Calibrator(intercept=float(added))
    return fit_calibrator(rows.drop(columns="class_shift", errors="ignore"), "platt")


def recalibration_gain(rows: pd.DataFrame) -> pd.DataFrame:
    """What recalibration by these patients would gain, one row for each of `WAYS`.

    `loss` is the log loss of patients that were left out of the fit, one at a time (beyond
    `MOST_LEFT_OUT` several together). `loss_change` is the difference from the loss without
    recalibration, negative is better, with `_low` and `_high` by patient; its variance is doubled,
    since patients fit the calibrators that judge the others (`clusters.CROSS_VALIDATED`). `slope`
    and `intercept` are fitted on all, for future images. NaN if a class has fewer than
    `FEWEST_GROUPS` patients.
    """
    before, about = log_losses(rows), counts(rows)
    enough = min(about["groups_malignant"], about["groups_benign"]) >= FEWEST_GROUPS
    parts = np.unique(rows["group"], return_inverse=True)[1] % MOST_LEFT_OUT
    table = []
    for way in WAYS:
        row = {"way": way, "slope": np.nan, "intercept": np.nan, "loss": before.mean()}
        row |= named_interval("loss_change", np.nan, *NO_BOUNDS)
        if way == "as it is":
            row |= {"slope": 1.0, "intercept": 0.0, "loss_change": 0.0}
        elif enough:
            losses = _left_out_losses(rows, parts, way)
            fitted, change = recalibrated_by(rows, way), losses - before
            bounds = mean_interval(change, rows["group"].to_numpy(), CROSS_VALIDATED)
            row |= {"slope": fitted.slope, "intercept": fitted.intercept, "loss": losses.mean()}
            row |= named_interval("loss_change", change.mean(), *bounds)
        else:
            row["loss"] = np.nan
        table.append(row | about)
    return pd.DataFrame(table)


def _left_out_losses(rows: pd.DataFrame, parts: np.ndarray, way: str) -> np.ndarray:
    """The log loss of each image, recalibrated by the patients of all other parts, shape (n,)."""
    losses = np.empty(len(rows))
    for part in np.unique(parts):
        here = parts == part
        losses[here] = log_losses(calibrate(rows[here], recalibrated_by(rows[~here], way)))
    return losses
