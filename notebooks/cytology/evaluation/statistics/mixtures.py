"""The distance of the means of new images from any mixture of the two classes, by patient."""

from dataclasses import dataclass

import numpy as np

from cytology.evaluation.statistics.clusters import effective_groups, group_sums

SHARES = (
    np.sin(np.linspace(0, np.pi / 2, 301)) ** 2
)  # the shares that are tried: denser near 0 and 1


@dataclass(frozen=True)
class ClassMeans:
    """Means of some numbers over one class's images, and how alike they are within a patient.

    The numbers may depend on the share that is tried. `mean` has shape (shares, numbers). `square`
    and `alike` are mean products of two numbers of one image, and of two images of a patient;
    `error` is the covariance of `mean`: all (shares, numbers, numbers). `freedom` is its degrees of
    freedom.
    """

    mean: np.ndarray
    square: np.ndarray
    alike: np.ndarray
    error: np.ndarray
    freedom: float


def class_means(values: np.ndarray, group: np.ndarray, inflation: float = 1.0) -> ClassMeans:
    """The `ClassMeans` of values of shape (shares, numbers, images) in at least two groups.

    The covariance is the sum over groups of squared deviations, each divided by 1 - the group's
    share of the images (as in `clusters.unbiased_squares`), times `inflation`.
    """
    count = values.shape[-1]
    sizes = group_sums(np.ones(count), group)
    mean, sums = values.mean(axis=-1), group_sums(values, group)
    square = values @ values.swapaxes(1, 2) / count
    pairs = (sizes * (sizes - 1)).sum()
    # If no patient has two images, assume the greatest likeness, the cautious value.
    alike = (sums @ sums.swapaxes(1, 2) - count * square) / pairs if pairs else square
    away = (sums - mean[..., None] * sizes) / count / np.sqrt(1 - sizes / count)
    error = inflation * away @ away.swapaxes(1, 2)
    return ClassMeans(mean, square, alike, error, effective_groups(sizes) - 1)


@dataclass(frozen=True)
class Gap:
    """Means of new images minus those of a mixture with each of `SHARES`.

    `means` has shape (shares, numbers); `errors`, their covariance if the share is the true one,
    (shares, numbers, numbers); `freedom`, its degrees of freedom, (shares,).
    """

    means: np.ndarray
    errors: np.ndarray
    freedom: np.ndarray


def gap_to_mixtures(
    new: np.ndarray, new_group: np.ndarray, malignant: ClassMeans, benign: ClassMeans
) -> Gap:
    """The `Gap` of values of new images, shape (shares, numbers, images), to those of two classes.

    The variance of the new mean is that of as many patients with as many images, drawn from both
    classes according to the share, so it does not vanish if the new images are all alike. The
    degrees of freedom are those of a sum of variances (Satterthwaite 1946, doi 10.2307/3002019).
    """
    share = SHARES[:, None, None]

    def mixed(name: str) -> np.ndarray:
        return share * getattr(malignant, name) + (1 - share) * getattr(benign, name)

    mean = SHARES[:, None] * malignant.mean + (1 - SHARES[:, None]) * benign.mean
    product = mean[:, :, None] * mean[:, None, :]
    sizes = group_sums(np.ones(len(new_group)), new_group)
    crowd = (sizes**2).sum() / sizes.sum() - 1
    together = _without_negative(mixed("alike") - product)
    of_new = (mixed("square") - product + crowd * together) / sizes.sum()
    parts = of_new, share**2 * malignant.error, (1 - share) ** 2 * benign.error
    traces = np.array([np.trace(part, axis1=1, axis2=2) for part in parts])
    degrees = [effective_groups(sizes) - 1, malignant.freedom, benign.freedom]
    freedom = traces.sum(axis=0) ** 2 / (traces**2 / np.array(degrees)[:, None]).sum(axis=0)
    return Gap(new.mean(axis=-1) - mean, sum(parts), freedom)


def _without_negative(covariances: np.ndarray) -> np.ndarray:
    """Estimated covariances, shape (..., n, n), without negative eigenvalues."""
    values, vectors = np.linalg.eigh(covariances)
    return (vectors * np.clip(values, 0, None)[..., None, :]) @ vectors.swapaxes(-1, -2)
