"""Estimates the malignant share of new images from their logits alone, and tests the assumption.

Label shift: at the new place malignant images look the same as here, and so do benign ones; only
their shares differ. Then the new logits are a mixture of the two classes' logits. If a stain or a
microscope has moved them, they may not be a mixture, and an estimated share is worthless.

`new` has `group` and `logit`; `fitted_on` also has `label` and, if folds matter, `fold`: images
that the model did not learn from, on which its calibration is fitted. Both may have `class_shift`.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import logit

from cytology.evaluation.statistics.calibration import FLATTEST, NO_SIGNAL
from cytology.evaluation.statistics.clusters import variance_inflation
from cytology.evaluation.statistics.intervals import (
    FEWEST_GROUPS,
    LEVEL,
    NO_BOUNDS,
    named_interval,
    t_quantile,
)
from cytology.evaluation.statistics.mixtures import SHARES, Gap, class_means, gap_to_mixtures
from cytology.evaluation.statistics.recalibration import logistic_fit
from cytology.settings import InputError

PARTS = 5  # of the range of logits, whose counts must fit a mixture
# The share of the labelled images in either outer part, both classes weighted equally: as small as
# possible, to see logits beyond both classes, but about four patients of a class. With fewer, up to
# 12 % of simulated studies without a move showed one.
OUTER, OUTER_PATIENTS, MOST_OUTER = 0.05, 4, 0.25
# Targets of the fit, so that a perfect order has a finite slope. The smoothing by patients used for
# probabilities (`calibration.smoothed_targets`) would pull a share of 0.10 down to 0.06.
SUREST = 0.001
LARGEST = 30.0  # log ratio: beyond this, images are as certain as can be


def em_share(log_ratio: np.ndarray) -> float:
    """The share of malignant images to which the EM of Saerens et al. 2002 converges.

    `log_ratio`, shape (n,), says how much more likely each logit is among malignant images: the
    calibrated logit minus the log odds of malignant images where it was fitted. EM
    (doi 10.1162/089976602753284446) corrects all probabilities for a share and uses their mean as
    the next share. It climbs a likelihood with a single maximum, which is found here directly.
    """

    def slope(share):
        return scores_at(log_ratio, np.array([share])).mean()

    if slope(0.0) <= 0:
        return 0.0
    return 1.0 if slope(1.0) >= 0 else float(brentq(slope, 0, 1))


def scores_at(log_ratio: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Each image's contribution to the slope of the log likelihood at each share, (shares, n).

    With r the ratio: (r - 1) / (1 - share + share r).
    """
    ratio = np.exp(np.clip(log_ratio, -LARGEST, LARGEST))
    share = shares[:, None]
    return (ratio - 1) / (1 - share + share * ratio)


def estimated_share(new: pd.DataFrame, fitted_on: pd.DataFrame) -> dict[str, Any]:
    """The share of malignant images at the place of `new`, without labels: a row of a table.

    `prevalence` comes from `em_share`; `_low` and `_high` enclose all shares that the place may
    have, by the patients of both tables (`_share_interval`). `p_moved` is the P value of
    `_moved_p`: small (`moved`: below 5 %) if the new logits are not a mixture of the two classes',
    whatever the share. A large P does not show that nothing moved. `fitted_share` is that of the
    images that the calibration was fitted on; `note` says why there is no number.
    """
    truth = (fitted_on["label"] == "M").to_numpy()
    found: dict[str, Any] = {"images": len(new), "groups": new["group"].nunique()}
    found |= {"fitted_share": truth.mean(), "moved": False, "p_moved": np.nan, "note": NO_SIGNAL}
    if not 0 < truth.mean() < 1:
        raise InputError("Estimating the malignant share needs labelled images of both classes.")
    here, there = (
        (rows["logit"] + rows.get("class_shift", 0.0)).to_numpy(float) for rows in (fitted_on, new)
    )
    targets = np.clip(truth.astype(float), SUREST, 1 - SUREST)
    intercept, slope = logistic_fit(here, targets)[0] if np.ptp(here) > 0 else (0.0, 0.0)
    if slope * here.std() < FLATTEST:
        return found | named_interval("prevalence", np.nan, *NO_BOUNDS)
    known, asked = (intercept + slope * score - logit(truth.mean()) for score in (here, there))
    groups = new["group"].nunique(), *fitted_on.groupby("label")["group"].nunique()
    share, bounds = em_share(asked), NO_BOUNDS
    if min(groups) >= FEWEST_GROUPS:
        scores = [scores_at(ratio, SHARES)[:, None] for ratio in (asked, known)]
        low, high = _share_interval(_gap(scores, new, fitted_on))
        bounds = min(low, share), max(high, share)
        parts = _counted_parts(asked, known, truth, min(groups[1:]))
        found["p_moved"] = _moved_p(_gap(parts, new, fitted_on), groups[0])
        found["moved"] = bool(found["p_moved"] < 1 - LEVEL)
    return found | named_interval("prevalence", share, *bounds) | {"note": ""}


def _gap(values: list[np.ndarray], new: pd.DataFrame, fitted_on: pd.DataFrame) -> Gap:
    """The `Gap` between new and labelled images, values of shape (shares, numbers, images)."""
    asked, known = values
    group, inflation = fitted_on["group"].to_numpy(), variance_inflation(fitted_on)
    of_class = [
        class_means(known[..., which], group[which], inflation)
        for which in ((fitted_on["label"] == label).to_numpy() for label in "MB")
    ]
    return gap_to_mixtures(asked, new["group"].to_numpy(), *of_class)


def _share_interval(gap: Gap) -> tuple[float, float]:
    """All shares at which the slope of the new likelihood is compatible with 0.

    At each share the slope is compared with that of the labelled images, mixed with this share. So
    its mean is 0 at the true share even if the calibration is wrong, and the method of calibration
    matters little. The whole range if no share fits.
    """
    reach = np.array([t_quantile(freedom) for freedom in gap.freedom])
    fits = np.abs(gap.means[:, 0]) <= reach * np.sqrt(gap.errors[:, 0, 0])
    if not fits.any():
        return 0.0, 1.0
    first, last = np.flatnonzero(fits)[[0, -1]]  # and the neighbouring shares, which do not fit
    return float(SHARES[max(first - 1, 0)]), float(SHARES[min(last + 1, len(SHARES) - 1)])


def _counted_parts(
    asked: np.ndarray, known: np.ndarray, truth: np.ndarray, patients: int
) -> list[np.ndarray]:
    """Which of `PARTS` parts of the logits each image is in, without the last part.

    `patients` is the number in the class with fewer. Shape of each: (1, PARTS - 1, images).
    """
    weight = np.where(truth, 1 / truth.sum(), 1 / (~truth).sum()) / 2
    order = np.argsort(known, kind="stable")
    # A single class has twice as much in its outer part.
    outer = np.clip(OUTER_PATIENTS / 2 / patients, OUTER, MOST_OUTER)
    ends = np.linspace(outer, 1 - outer, PARTS - 1)
    edges = known[order][np.searchsorted(np.cumsum(weight[order]), ends)]
    parts = np.arange(PARTS - 1)[:, None]
    return [(np.searchsorted(edges, x, side="right") == parts)[None] * 1.0 for x in (asked, known)]


def _moved_p(gap: Gap, groups: int) -> float:
    """P value of the hypothesis that the new logits are a mixture of the two classes' logits.

    The smallest distance, over all shares, of the counts of `_counted_parts` from those of a
    mixture, scaled by their covariance (minimum chi-squared; Hansen 1982, doi 10.2307/1912775),
    with an F distribution like Hotelling's, since patients are few. No degree of freedom is
    subtracted for the fitted share: with that, up to 11 % of studies without a move showed one.
    """
    count = gap.means.shape[1]
    # Half a patient away from 0 and 1, so an empty part proves nothing.
    floor = np.eye(count) / (2 * groups) ** 2
    solved = np.linalg.solve(gap.errors + floor, gap.means[..., None])[..., 0]
    distance = (gap.means * solved).sum(axis=1)
    best = int(distance.argmin())
    rest = max(gap.freedom[best] - count + 1, 1.0)
    return float(stats.f.sf(distance[best] * rest / (gap.freedom[best] * count), count, rest))
