"""Calibration: does a probability of 0.9 come true nine times in ten, and what makes it so?

What calibrates is fitted on predictions of images that the model did not learn from, and never on
test. Rows have `label`, `group`, `logit` and, where folds matter, `fold`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from cytology.intervals import group_weights, over_draws, percentile_interval, with_width
from cytology.metrics import calibration_bins, truth_and_probability
from cytology.settings import InputError

METHODS = ("none", "temperature", "isotonic")
COLDEST, HOTTEST = 0.02, 50.0
# Why no temperature is fitted: the log loss falls up to the end of the search.
NO_SIGNAL = "no temperature fits: the log loss has no minimum, as where scores hold no signal"
NO_MISTAKE = "no temperature fits: the log loss has no minimum, as where no image is called wrongly"


@dataclass(frozen=True)
class Calibrator:
    """What turns logits into probabilities: a temperature, or the steps of isotonic regression.

    `unfitted` says why no temperature could be fitted; it is then 1, which changes nothing.
    """

    temperature: float = np.nan
    steps: IsotonicRegression | None = None
    unfitted: str = ""

    def probability(self, logit: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of logits, the same shape."""
        logit = np.asarray(logit, float)
        return expit(logit / self.temperature) if self.steps is None else self.steps.predict(logit)


def fit(rows: pd.DataFrame, method: str) -> Calibrator:
    """Fit a calibrator on rows that the model did not learn from.

    `temperature` divides the logit by the number that makes the log loss least (Guo et al. 2017,
    arXiv 1706.04599); it changes no order and no decision at 0.5. Where the log loss is least at an
    end of the search, none is fitted. `isotonic` fits the best rising steps (Zadrozny & Elkan 2002,
    doi 10.1145/775047.775151); it needs more images.
    """
    truth, logit = (rows["label"] == "M").to_numpy(), rows["logit"].to_numpy(float)
    if method == "none":
        return Calibrator(1.0)
    if not 0 < truth.sum() < len(truth):
        raise InputError("Calibration needs images of both classes to be fitted on.")
    if method == "isotonic":
        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logit, truth)
        return Calibrator(steps=steps)
    right = np.where(truth, logit, -logit)

    def loss(log_temperature):
        return np.logaddexp(0, -right / np.exp(log_temperature)).mean()

    def slope(temperature):  # of the log loss, by 1 / temperature, in which it is convex
        return (-right * expit(-right / temperature)).mean()

    if slope(HOTTEST) >= 0:
        return Calibrator(1.0, unfitted=NO_SIGNAL)
    if slope(COLDEST) <= 0:
        return Calibrator(1.0, unfitted=NO_MISTAKE)
    bounds = tuple(np.log([COLDEST, HOTTEST]))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return Calibrator(float(np.exp(best.x)))


def apply(rows: pd.DataFrame, calibrator: Calibrator) -> pd.DataFrame:
    """The rows with their calibrated `probability`."""
    return rows.assign(probability=calibrator.probability(rows["logit"].to_numpy()))


def cross_fitted(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows calibrated fold by fold, each by what was fitted on the other folds.

    A calibrator judged on what it was fitted on looks better than it is. A fold whose others
    hold one class only cannot be calibrated so: `InputError`.
    """
    parts = [
        apply(rows[rows["fold"] == fold], fit(rows[rows["fold"] != fold], method))
        for fold in sorted(rows["fold"].unique())
    ]
    return pd.concat(parts).loc[rows.index]


def is_surely_wrong(rows: pd.DataFrame) -> bool:
    """Whether a probability of exactly 0 or 1 is wrong, so that the log loss is infinite."""
    truth, probability = truth_and_probability(rows)
    return bool(((probability == 0) & truth | (probability == 1) & ~truth).any())


def reliability(rows: pd.DataFrame, draws: int = 500) -> pd.DataFrame:
    """A row a bin of ten: `said` (mean probability), `true` (share malignant), `images`, bounds.

    `true_low`, `true_high`: 95 % from drawing whole groups; none for a bin of one class, where no
    draw differs. Empty bins are left out.
    """
    truth, probability = truth_and_probability(rows)
    bins = calibration_bins(probability)
    weights, found = group_weights(rows, draws), []
    for number in np.unique(bins):
        here = bins == number

        def share(drawn, here=here):
            with np.errstate(invalid="ignore"):
                return {"true": drawn @ (here & truth) / (drawn @ here)}

        drawn = over_draws(rows, weights, share)["true"]
        low, high = with_width(percentile_interval(drawn))
        found.append((probability[here].mean(), truth[here].mean(), low, high, here.sum()))
    return pd.DataFrame(found, columns=["said", "true", "true_low", "true_high", "images"])
