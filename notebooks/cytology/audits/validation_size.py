"""How many images an external validation needs, by the four criteria of Riley et al. 2021.

"Minimum sample size for external validation of a clinical prediction model with a binary outcome",
doi 10.1002/sim.9025. Each criterion limits the width of an interval: of observed over expected
cases, of the calibration slope, of the C statistic (the AUC) and of the standardized net benefit.
The paper counts independent persons; several images of a patient are not independent, see
`validation_size`.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

from cytology.evaluation.judged import compared_on, judged_networks
from cytology.evaluation.places import CLINIC_ACTS_FROM
from cytology.evaluation.readable import title
from cytology.evaluation.statistics.calibration import cross_fitted, fit_calibrator
from cytology.evaluation.statistics.clusters import folds_of, intraclass_correlation
from cytology.evaluation.statistics.intervals import LEVEL
from cytology.evaluation.statistics.metrics import (
    auc_within_folds,
    sensitivity_and_specificity,
    truth_and_score,
)
from cytology.run import LEAKING, Run
from cytology.settings import InputError
from cytology.wording import plural

Z = norm.ppf((1 + LEVEL) / 2)
# Widths of the 95 % intervals, as in the paper.
WIDTHS = {"observed over expected": 0.2, "calibration slope": 0.2, "AUC": 0.1, "net benefit": 0.2}
MOST = 1e12  # largest number of images that is tried


def size_for_observed_over_expected(prevalence: float, width: float) -> float:
    """Images for an interval of observed over expected cases of this `width`, around 1.

    Its logarithm has the variance (1 - p) / (n p), the paper's equation for the standard error.
    """
    error = np.arcsinh(width / 2) / Z  # exp(Z error) - exp(-Z error) is the width
    return (1 - prevalence) / (prevalence * error**2)


def size_for_calibration_slope(
    linear_predictor: np.ndarray, width: float, weights: np.ndarray | None = None
) -> float:
    """Images for an interval of the calibration slope of this `width`, if it is 1.

    `linear_predictor` holds calibrated logits like those of the new images, shape (n,), with
    `weights`. From the information matrix of a logistic regression on them, averaged over their
    distribution.
    """
    share = expit(linear_predictor)
    information = [
        np.average(linear_predictor**power * share * (1 - share), weights=weights)
        for power in (0, 1, 2)
    ]
    determinant = information[0] * information[2] - information[1] ** 2
    return float(information[0] / (determinant * (width / 2 / Z) ** 2))


def auc_error(auc: float, prevalence: float, size: float) -> float:
    """The standard error of an AUC of `size` independent images (Newcombe 2006, method 4).

    doi 10.1002/sim.2324; equation of the paper.
    """
    half = size / 2 - 1
    spread = 1 + half * (1 - auc) / (2 - auc) + half * auc / (1 + auc)
    variance = auc * (1 - auc) * spread / (size**2 * prevalence * (1 - prevalence))
    return float(np.sqrt(variance))


def size_for_auc(auc: float, prevalence: float, width: float) -> float:
    """Images for an interval of the AUC of this `width`."""

    def too_wide(log_size):
        return np.log(2 * Z * auc_error(auc, prevalence, np.exp(log_size)) / width)

    if np.isnan(auc):
        return np.nan
    with np.errstate(divide="ignore"):  # an AUC of 1 has no error
        if too_wide(np.log(2)) <= 0:
            return 2.0
    return float(np.exp(brentq(too_wide, np.log(2), np.log(MOST))))


def size_for_net_benefit(
    sensitivity: float, specificity: float, prevalence: float, threshold: float, width: float
) -> float:
    """Images for an interval of this `width` of the net benefit, standardized by the prevalence.

    `threshold` is the probability at which one acts. A net benefit of 1 means that every case is
    found without a false alarm.
    """
    odds = (1 - prevalence) / prevalence * threshold / (1 - threshold)
    one, other = sensitivity, specificity
    spread = one * (1 - one) / prevalence
    spread += odds**2 * other * (1 - other) / (1 - prevalence)
    spread += odds**2 * (1 - other) ** 2 / (prevalence * (1 - prevalence))
    return spread / (width / 2 / Z) ** 2


# ----------------------------------------------------------------------- from a run


def validation_size(
    rows: pd.DataFrame,
    prevalence: float,
    threshold: float,
    widths: dict[str, float] | None = None,
) -> pd.DataFrame:
    """One row per criterion: `images` if all were independent, `groups` of as many images as here.

    `rows` are judged predictions with `label, group, logit` (and `fold`, for cross-fitted
    calibration). At the new place a share `prevalence` of the images is malignant, each class looks
    the same as here, and one acts at the calibrated probability `threshold` or more. Several images
    of a patient are worth less: their number is multiplied by the design effect, 1 + (m - 1) times
    the likeness, with m images in the group of an image (Kish 1965). The likeness is that of the
    scores; for observed over expected it is 1, since the patient is malignant, not the image.
    Raises `InputError` if a share is not between 0 and 1, or a class is missing.
    """
    for name, share in (("prevalence", prevalence), ("threshold", threshold)):
        if not 0 < share < 1:
            raise InputError(f"Parameter `{name}` is {share}: it must be between 0 and 1.")
    if rows["label"].nunique() < 2:
        raise InputError("Planning a validation needs images of both classes.")
    widths = WIDTHS | (widths or {})
    several = folds_of(rows).any()
    calibrated = cross_fitted(rows, "platt") if several else _calibrated(rows)
    truth, score = truth_and_score(calibrated)
    share = truth.mean()
    there = score + logit(prevalence) - logit(share)
    weights = np.where(truth, prevalence / share, (1 - prevalence) / (1 - share))
    called = expit(there) >= threshold
    sensitivity, specificity = sensitivity_and_specificity(truth, called)
    size_of = {
        "observed over expected": lambda width: size_for_observed_over_expected(prevalence, width),
        "calibration slope": lambda width: size_for_calibration_slope(there, width, weights),
        "AUC": lambda width: size_for_auc(auc_within_folds(rows), prevalence, width),
        "net benefit": lambda width: size_for_net_benefit(
            sensitivity, specificity, prevalence, threshold, width
        ),
    }
    group = rows["group"].to_numpy()
    sizes = rows.groupby("group").size().to_numpy()
    of_scores = max(intraclass_correlation(score[k], group[k]) for k in (truth, ~truth))
    table = []
    for name, size in size_of.items():
        images = size(widths[name])
        likeness = 1.0 if name == "observed over expected" else of_scores
        effect = 1 + ((sizes**2).sum() / sizes.sum() - 1) * likeness
        row = {"criterion": name, "width": widths[name], "prevalence": prevalence}
        row |= {"images": np.ceil(images), "malignant": np.ceil(images * prevalence)}
        row |= {"likeness": likeness, "design_effect": effect}
        table.append(row | {"groups": np.ceil(images * effect / sizes.mean())})
    return pd.DataFrame(table)


def _calibrated(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one head with calibrated logits, fitted on themselves: two numbers overfit little."""
    found = fit_calibrator(rows, "platt")
    return rows.assign(logit=found.logit(rows["logit"], rows.get("class_shift", 0.0)))


def sizes_of_run(run: Run, prevalence: float) -> pd.DataFrame:
    """`validation_size` of each network of a run that was judged on both classes.

    `prevalence` is the share of malignant images at the new place, 0: that of the images judged.
    The clinic there acts at a probability of `places.CLINIC_ACTS_FROM` or more.
    """
    parts = [pd.DataFrame({"architecture": [], "criterion": [], "groups": []})]
    for name, rows in judged_networks(run, compared_on(run)).items():
        if rows["label"].nunique() == 2:
            share = prevalence or float((rows["label"] == "M").mean())
            parts.append(validation_size(rows, share, CLINIC_ACTS_FROM).assign(architecture=name))
    return run.marked(pd.concat(parts[1:] or parts, ignore_index=True))


def validation_sentences(table: pd.DataFrame, unit: str) -> list[str]:
    """`validation_sentence` of each network in a table of `sizes_of_run`.

    Empty if the split leaks or weights are random; `planning_sentences` warns of both.
    """
    if (table["weights"] == "random").any() or table["protocol"].isin(LEAKING).any():
        return []
    return [
        f"{title(name)}: {validation_sentence(rows, unit)}"
        for name, rows in table.groupby("architecture", sort=False)
        if np.isfinite(rows["groups"]).any()
    ]


def validation_sentence(table: pd.DataFrame, unit: str) -> str:
    """`validation_size` in words: how many images and patients, and the strictest criterion."""
    table = table[np.isfinite(table["groups"])]
    most = table.loc[table["groups"].idxmax()]
    each = "; ".join(
        f"{row.criterion} {row.images:,.0f} ({row.groups:,.0f})" for row in table.itertuples()
    )
    return (
        f"An external validation where {most['prevalence']:.0%} of the images are malignant needs "
        f"{most['groups']:,.0f} {plural(unit)} with as many images each as here; the strictest "
        f"criterion is the {most['criterion']}. Independent images (and {plural(unit)}) for each "
        f"criterion of Riley et al. 2021: {each}."
    )
