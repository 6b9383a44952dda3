"""Referral with a promise: who need not be seen by a pathologist, and how many are missed by that.

A patient whose score is below a limit gets the answer "benign" and is not referred; all others are
referred. A malignant patient who is not referred is missed. The promise is about the share of *all*
patients who are missed: on average over studies and over the next patient, it is at most `level`.
The units are patients, not images: their scores must be exchangeable, as those of one place are.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cytology.evaluation.statistics.calibration import by_fold
from cytology.evaluation.statistics.clusters import variance_inflation
from cytology.evaluation.statistics.intervals import (
    NO_BOUNDS,
    called_intervals,
    counts,
    named_interval,
    of_two_shares,
)
from cytology.evaluation.statistics.metrics import OF_TWO_SHARES, sensitivity_and_specificity
from cytology.evaluation.statistics.prevalence import check_prevalence
from cytology.settings import InputError

ROUNDING = 1e-9  # of a count of patients


def by_patient(rows: pd.DataFrame, score: str = "mean") -> pd.DataFrame:
    """One row per group: `group, label, logit, images` and, if there is one, `fold`.

    A group is malignant if any of its images is. `score`: the `mean` logit, or the `highest`, so
    that one image is enough to be referred.
    """
    grouped = rows.assign(label=rows["label"] == "M").groupby("group")
    logits = grouped["logit"]
    table = pd.DataFrame({"label": np.where(grouped["label"].any(), "M", "B")}, logits.size().index)
    table["logit"] = logits.mean() if score == "mean" else logits.max()
    table["images"] = logits.size()
    if "fold" in rows:
        table["fold"] = grouped["fold"].first()
    return table.reset_index()


@dataclass(frozen=True)
class Referral:
    """A limit for the patients' score, and its promise.

    Patients with a score of `limit` or more are referred. `level` bounds the share of all patients
    who are missed. `patients` is the number of patients that the promise is based on, `needed` how
    many it needs; with fewer, nothing is promised and all are referred. `prevalence` is the share
    of malignant patients for which the promise is made, NaN for that of the place where these
    patients come from.
    """

    limit: float
    level: float
    patients: int
    needed: int
    prevalence: float = np.nan

    @property
    def promised(self) -> bool:
        """Whether the promise can be made."""
        return self.patients >= self.needed


def patients_needed(level: float, prevalence: float = np.nan) -> int:
    """The smallest number of patients from which a missed share of at most `level` can be promised.

    If none of n is missed, the next may still be: (0 + 1) / (n + 1) must not exceed the level. With
    a `prevalence` it is the number of malignant patients, at `level` / `prevalence`.
    """
    of_units = level if np.isnan(prevalence) else min(level / prevalence, 1.0)
    return int(np.ceil(1 / of_units - 1 - ROUNDING))


def choose_referral(patients: pd.DataFrame, level: float, prevalence: float = np.nan) -> Referral:
    """The highest limit at which at most a share `level` of all patients is missed, on average.

    `patients` come from `by_patient`: judged by heads that did not learn from them, never test.
    Conformal risk control (Angelopoulos et al., ICLR 2024, arXiv 2208.02814): the loss of a patient
    is 1 if missed, else 0, and only grows with the limit; with n patients the limit is the highest
    at which (missed + 1) / (n + 1) is at most the level. This is valid for the next patient of the
    same place. With `prevalence`, the share of malignant *patients* elsewhere, only malignant ones
    count, at `level` / `prevalence`: this is valid there if they look the same as here.
    """
    if not 0 < level < 1:
        raise InputError(f"The level {level:g} of a referral must be between 0 and 1.")
    scores = np.sort(patients.loc[patients["label"] == "M", "logit"].to_numpy(float))
    units, of_units = len(patients), level
    if not np.isnan(prevalence):
        units, of_units = len(scores), min(level / check_prevalence(prevalence), 1.0)
    allowed = int(np.floor(of_units * (units + 1) - 1 + ROUNDING))
    limit = -np.inf if allowed < 0 else np.inf
    if 0 <= allowed < len(scores):
        limit = scores[allowed]  # so many are below, or fewer if scores tie
    return Referral(float(limit), level, units, patients_needed(level, prevalence), prevalence)


def referred_out_of_fold(
    patients: pd.DataFrame, level: float, prevalence: float = np.nan
) -> pd.DataFrame:
    """The patients with a column `referred`, each fold by the limit chosen on the others."""

    def made(here, others):
        limit = choose_referral(others, level, prevalence).limit
        return here.assign(referred=here["logit"] >= limit)

    return by_fold(patients, made)


def outcome(patients: pd.DataFrame, prevalence: float = np.nan) -> dict[str, float]:
    """Results of a referral, from patients with `referred`, with intervals by patient.

    All are shares: `found` of malignant patients, referred; `spared` of benign ones, not referred;
    `missed` of all, malignant and not referred; `malignant_unreferred` of those not referred,
    malignant, which is not what is promised; `referred` of all. The last three are at `prevalence`,
    the share of malignant patients, or at that of these patients.
    """
    truth = (patients["label"] == "M").to_numpy()
    m = truth.mean() if np.isnan(prevalence) else check_prevalence(prevalence)
    called = patients["referred"].to_numpy()
    shares = [np.float64(each) for each in sensitivity_and_specificity(truth, called)]
    bounds = called_intervals(patients, called, variance_inflation(patients))
    found = {"prevalence": m}
    for name, value, ends in zip(("found", "spared"), shares, bounds, strict=True):
        found |= named_interval(name, value, *ends)
    (low, high), value = bounds[0], shares[0]
    found |= named_interval("missed", m * (1 - value), m * (1 - high), m * (1 - low))
    metric, ends = OF_TWO_SHARES["negative_predictive_value"], NO_BOUNDS
    if np.isfinite([*shares, *np.ravel(bounds)]).all():
        ends = of_two_shares(metric, m, shares, bounds)
    right = float(metric(shares[0], shares[1], m))
    found |= named_interval("malignant_unreferred", 1 - right, 1 - ends[1], 1 - ends[0])
    found["referred"] = m * shares[0] + (1 - m) * (1 - shares[1])
    return found | counts(patients)


def referral_curve(patients: pd.DataFrame, prevalence: float = np.nan) -> pd.DataFrame:
    """One row per limit, the lowest first: `limit`, `referred` and `missed` (of all), `bound`.

    `bound` is what could be promised with that limit: the missed share with one more miss.
    """
    scores = patients["logit"].to_numpy(float)
    malignant = (patients["label"] == "M").to_numpy()
    limits = np.append(np.unique(scores), np.inf)
    below = [np.searchsorted(np.sort(scores[w]), limits) for w in (malignant, ~malignant)]
    counts_of = malignant.sum(), (~malignant).sum()
    alone = np.isnan(prevalence)
    m = malignant.mean() if alone else check_prevalence(prevalence)
    missed, spared = below[0] / counts_of[0], below[1] / counts_of[1]
    units = len(patients) if alone else counts_of[0]
    bound = (below[0] + 1) / (units + 1) * (1.0 if alone else m)
    return pd.DataFrame(
        {
            "limit": limits,
            "referred": 1 - m * missed - (1 - m) * spared,
            "missed": m * missed,
            "bound": np.minimum(bound, 1.0 if alone else m),
        }
    )
