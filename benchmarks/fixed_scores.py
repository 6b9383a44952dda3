"""Simulated studies of scores that were learned elsewhere, with normal noise or heavy tails."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from cytology.audits.simulation import IN_COMMON, Design, Study

REFERENCE = 1_000_000  # scores for estimating a truth without a closed form


@dataclass(frozen=True)
class FixedDesign(Design):
    """A design whose `noise` is normal or t3: Student's t with three degrees of freedom."""

    noise: str = "normal"

    def draw(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Independent noise of variance 1."""
        if self.noise == "normal":
            return super().draw(rng, *shape)
        return rng.standard_t(3, shape) / np.sqrt(3)

    @property
    def distance(self) -> float:
        """The distance of the classes' means, in standard deviations of a score."""
        if self.noise == "normal":
            return super().distance
        return float(np.quantile(_sorted_differences(self.noise, self.likeness), self.auc))

    def share_below(self, point: float) -> float:
        """The share of noise below a point."""
        if self.noise == "normal":
            return float(norm.cdf(point))
        return float(np.searchsorted(_sorted_noise(self.noise, self.likeness), point) / REFERENCE)


@lru_cache
def _sorted_noise(noise: str, likeness: float) -> np.ndarray:
    """Sorted noise, enough that its quantiles are the true ones."""
    design, rng = FixedDesign(REFERENCE, noise=noise, likeness=likeness), np.random.default_rng(0)
    return np.sort(design.draw_noise(rng, np.arange(REFERENCE)))


@lru_cache
def _sorted_differences(noise: str, likeness: float) -> np.ndarray:
    """Sorted differences of the noise of two images of different patients."""
    ordered = _sorted_noise(noise, likeness)
    return np.sort(ordered - np.random.default_rng(1).permutation(ordered))


def fixed_scores(design: FixedDesign, rng: np.random.Generator, models: int = 1) -> Study:
    """Models that learned elsewhere: their scores are independent between patients.

    A malignant image scores above a benign one of another patient with probability `auc`. With
    normal noise the logits are calibrated for the design's share of malignant patients.
    """
    images = design.draw_patients(rng)
    group, distance = images["group"].to_numpy(), design.distance
    shared = design.draw_noise(rng, group)
    own = design.draw_noise(rng, group, models)
    # One model alone gets its noise unmixed: sums of t3 have lighter tails than the reference.
    noise = own if models == 1 else np.sqrt(IN_COMMON) * shared + np.sqrt(1 - IN_COMMON) * own
    centred = distance * (np.where(images["label"] == "M", distance, -distance) / 2 + noise)
    prior = logit(design.malignant)
    tables = [images.assign(logit=row + prior, probability=expit(row + prior)) for row in centred]
    point = -prior / distance  # where the logit is zero
    truths = 1 - design.share_below(point - distance / 2), design.share_below(point + distance / 2)
    return Study(tables, *(np.full(models, truth) for truth in (design.auc, *truths)))
