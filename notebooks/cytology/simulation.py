"""Studies whose truth is known: do the intervals cover it, and do the tests cry wolf?

Patients have several images each, and those of one patient are alike, as in any smear archive.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from cytology.intervals import auc_interval
from cytology.settings import progress

PATIENTS, IMAGES = 30, 10
# Share of the variance of a logit that the patient makes; and what models have in common, of the
# patient's part and of the image's.
LIKENESS, IN_COMMON = 0.5, 0.7


def simulated_study(
    auc: float, rng: np.random.Generator, models: int = 1, patients: int = PATIENTS
) -> list[pd.DataFrame]:
    """Predictions of equally good models on the same images, rows as in `predictions.csv`.

    Every patient has one class, drawn at random (at least two of each), and `IMAGES` images. A
    logit is normal, with a part that the patient's images share, so that an image of a malignant
    patient lies above one of a benign patient with probability `auc` exactly (the binormal model).
    """
    label = np.zeros(patients, int)
    while not 2 <= label.sum() <= patients - 2:
        label = rng.integers(0, 2, patients)
    shift = np.sqrt(2) * norm.ppf(auc)
    of_patient, of_image = rng.normal(size=(patients, 1)), rng.normal(size=(patients, IMAGES))
    tables = []
    for _ in range(models):
        alike = mixed(of_patient, rng.normal(size=(patients, 1)))
        alone = mixed(of_image, rng.normal(size=(patients, IMAGES)))
        noise = np.sqrt(LIKENESS) * alike + np.sqrt(1 - LIKENESS) * alone
        logit = (shift * (label[:, None] - 0.5) + noise).ravel()
        table = pd.DataFrame({"group": np.repeat(np.arange(patients), IMAGES), "logit": logit})
        table["label"] = np.where(label[table["group"]] == 1, "M", "B")
        table["image_id"] = np.arange(len(table))
        tables.append(table.assign(probability=expit(logit)))
    return tables


def mixed(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """What models have in common and what each has of its own, of variance 1."""
    return np.sqrt(IN_COMMON) * shared + np.sqrt(1 - IN_COMMON) * own


# -------------------------------------------------------------------- intervals


INTERVALS: dict[str, Callable[[pd.DataFrame], tuple[float, float]]] = {
    "by patient": auc_interval,
    "by image": lambda rows: auc_interval(rows.assign(group=np.arange(len(rows)))),
}


def coverage(aucs: list[float], studies: int, seed: int = 0) -> pd.DataFrame:
    """How often each kind of interval holds the true AUC: `interval, auc, coverage, width`.

    A study without an interval counts as not covered. `coverage_low` and `_high` are what chance
    leaves open with so many studies (Wilson).
    """
    rng, rows = np.random.default_rng(seed), []
    work = [auc for auc in aucs for _ in range(studies)]
    for auc in progress(work, "studies", unit="study"):
        (study,) = simulated_study(auc, rng)
        for name, interval in INTERVALS.items():
            low, high = interval(study)
            rows.append((name, auc, low <= auc <= high, high - low))
    table = pd.DataFrame(rows, columns=["interval", "auc", "coverage", "width"])
    table = table.groupby(["interval", "auc"], sort=False).mean().reset_index()
    hits = table["coverage"] * studies
    low, high = proportion_confint(hits.round(), studies, method="wilson")
    return table.assign(coverage_low=low, coverage_high=high, studies=studies)
