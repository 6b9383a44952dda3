"""Simulated studies with a known truth: do intervals contain it, and do tests raise false alarms?

Patients have several images each, and those of one patient are alike, as in any smear archive.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from cytology.data.splitting import group_folds
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.networks.linear_head import LinearHead, fitted_head
from cytology.notebook import progress

FEATURE_COUNT, FOLDS = 100, 5  # features of a cross-validated study, and its folds
IN_COMMON = 0.5  # share of the variance that models of one study have in common


@dataclass(frozen=True)
class Design:
    """The design of simulated studies.

    `images` per patient: (6, 6) gives all six, (1, 60) anything between, small numbers more often
    (the logarithm is uniform). `malignant` is the share of malignant patients. `likeness` is the
    share of a feature's variance that is due to the patient. `auc` is the true AUC.
    """

    patients: int = 30
    images: tuple[int, int] = (10, 10)
    malignant: float = 0.5
    likeness: float = 0.5
    auc: float = 0.92

    def draw_patients(self, rng: np.random.Generator) -> pd.DataFrame:
        """One row per image: `image_id, group, label`."""
        least, most = self.images
        sizes = np.exp(rng.uniform(np.log(least), np.log(most), self.patients)).round().astype(int)
        malignant = max(2, round(self.malignant * self.patients))
        group = np.repeat(np.arange(self.patients), sizes)
        label = np.where(group < malignant, "M", "B")
        return pd.DataFrame({"image_id": np.arange(len(group)), "group": group, "label": label})

    def draw_noise(self, rng: np.random.Generator, group: np.ndarray, *shape: int) -> np.ndarray:
        """Noise of variance 1 that is alike within groups, shape (*shape, images)."""
        of_patient = self.draw(rng, *shape, self.patients)[..., group]
        of_image = self.draw(rng, *shape, len(group))
        return np.sqrt(self.likeness) * of_patient + np.sqrt(1 - self.likeness) * of_image

    def draw(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Independent noise of variance 1."""
        return rng.normal(size=shape)

    @property
    def distance(self) -> float:
        """The distance of the classes' means, in standard deviations of a score."""
        return float(np.sqrt(2) * norm.ppf(self.auc))


@dataclass(frozen=True)
class Study:
    """Predictions of equally good models on the same images, and the truth about each.

    `tables` are like those of `predictions.csv`; `aucs`, `sensitivities` and `specificities` (at
    probability 0.5) have shape (models,), each the mean over a model's fold heads. `values` are the
    features of the last model, shape (images, features).
    """

    tables: list[pd.DataFrame]
    aucs: np.ndarray
    sensitivities: np.ndarray
    specificities: np.ndarray
    values: np.ndarray | None = None


def cross_validated_study(
    design: Design, rng: np.random.Generator, aucs: tuple[float, ...] | None = None
) -> Study:
    """Models whose heads learn in folds of whole patients, so patients train each other's judges.

    Features are normal; `design.auc`, or for several models `aucs`, is that of the best direction,
    which no head finds exactly. The AUC of each head on new patients has a closed form.
    """
    images = design.draw_patients(rng)
    group, malignant = images["group"].to_numpy(), (images["label"] == "M").to_numpy()
    fold = np.empty(len(images), int)
    seed = int(rng.integers(2**31))
    for number, held_out in enumerate(group_folds(FOLDS, seed, images["label"], images["group"])):
        fold[held_out] = number
    shared = design.draw_noise(rng, group, FEATURE_COUNT)
    tables, truths = [], []
    for auc in aucs or (design.auc,):
        shift = replace(design, auc=auc).distance * np.eye(FEATURE_COUNT)[0]
        own = design.draw_noise(rng, group, FEATURE_COUNT)
        noise = np.sqrt(IN_COMMON) * shared + np.sqrt(1 - IN_COMMON) * own
        values = noise.T + np.outer(malignant - 0.5, shift)
        found, of_heads = np.empty(len(images)), []
        for number in range(FOLDS):
            held_out = fold == number
            head = fitted_head(values[~held_out], malignant[~held_out])
            found[held_out] = head.logits(values[held_out])
            of_heads.append(truths_of_head(head, shift))
        tables.append(images.assign(fold=fold, logit=found, probability=expit(found)))
        truths.append(np.mean(of_heads, axis=0))
    aucs_found, sensitivities, specificities = np.transpose(truths)
    return Study(tables, aucs_found, sensitivities, specificities, values)


def truths_of_head(head: LinearHead, shift: np.ndarray) -> tuple[float, float, float]:
    """AUC, sensitivity and specificity of a linear head on new patients with normal features."""
    high, low = head.logits(np.stack([shift, -shift]) / 2)
    spread = np.linalg.norm(head.weights / head.deviation)
    return tuple(norm.cdf([(high - low) / (np.sqrt(2) * spread), high / spread, -low / spread]))


# -------------------------------------------------------------------- in notebook 14


def interval_coverage(designs: list[Design], studies: int, seed: int = 0) -> pd.DataFrame:
    """How often 95 % intervals contain the true AUC of heads: one row per interval and design.

    `interval, auc, coverage, width`: the interval of the series, that of pairs of all folds without
    doubling the variance, and that of an author who also counts images. A study without an interval
    counts as a miss. `auc` is the mean truth; `coverage_low` and `_high` are the uncertainty from
    the number of studies (Wilson).
    """
    rng, parts = np.random.default_rng(seed), []
    work = [design for design in designs for _ in range(studies)]
    for design in progress(work, "studies", unit="study"):
        study = cross_validated_study(design, rng)
        (table,) = study.tables
        kinds = {
            "by patient, cross-validated": table,
            "by patient, folds ignored": table.assign(model="fixed"),
            "by image": table.assign(model="fixed", group=table["image_id"]),
        }
        for name, rows in kinds.items():
            low, high = auc_interval(rows)
            parts.append((designs.index(design), name, study.aucs[0], low, high))
    table = pd.DataFrame(parts, columns=["design", "interval", "auc", "low", "high"])
    # The mean over the heads of a study, since that is the AUC of interest for a network.
    table["auc"] = table.groupby("design")["auc"].transform("mean")
    table["coverage"] = (table["low"] <= table["auc"]) & (table["auc"] <= table["high"])
    table["width"] = table["high"] - table["low"]
    columns = ["auc", "coverage", "width"]
    table = table.groupby(["interval", "design"], sort=False)[columns].mean().reset_index()
    low, high = proportion_confint((table["coverage"] * studies).round(), studies, method="wilson")
    return table.drop(columns="design").assign(
        coverage_low=low, coverage_high=high, studies=studies
    )
