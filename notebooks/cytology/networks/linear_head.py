"""Linear heads on frozen features: logistic regression, without TensorFlow.

A head standardizes each feature and takes a weighted sum. Trained heads are kept as plain numbers,
so later notebooks can apply the head that never saw a patient to other pictures of this patient.

All heads share one objective: the mean logistic loss, by default with equal weight for both
classes, plus `strength` / 2 times the squared length of the weights of features that are
standardized and divided by the square root of their number. So a strength means the same for any
number of features and pictures: a network with every feature doubled gets the same logits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import ThreadpoolController

from cytology.files import written_whole
from cytology.run import Run
from cytology.tables import require

FILE = "heads.npz"
_PARTS = ("mean", "variance", "weights", "bias")
STRENGTHS = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # the grid for every network
STRENGTH = 1e-3  # if none is chosen
EPOCHS = 500  # a limit; most heads converge within 50
CONVERGED = 1e-7  # training ends after an epoch that lowers the objective by a smaller share
EPSILON = 1e-5  # added to the variance, as in `building.head_layers`
THREADS = 1  # a step is short, and threads wait for each other
COLUMNS_AT_ONCE = 256  # for the variance: all columns at once would copy the features


@dataclass(frozen=True)
class LinearHead:
    """Mean and variance of the training features, weights of shape (width,), one bias."""

    mean: np.ndarray
    variance: np.ndarray
    weights: np.ndarray
    bias: float

    @property
    def line(self) -> tuple[np.ndarray, float]:
        """Slopes of shape (width,) and offset: the head without standardizing."""
        slopes = self.weights / self.deviation
        return slopes, self.bias - self.mean @ slopes

    @cached_property
    def deviation(self) -> np.ndarray:
        """The divisor of standardizing, shape (width,)."""
        return np.sqrt(self.variance + EPSILON)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits of features of shape (pictures, width), shape (pictures,)."""
        # Standardizing the features themselves would copy them.
        slopes, offset = self.line
        return features @ slopes.astype(features.dtype) + offset


def logits_by_fold(
    heads: dict[str, LinearHead], features: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Logits of features of shape (pictures, width), each by the head that never saw its fold."""
    logits = np.empty(len(features))
    for fold in np.unique(folds):
        logits[folds == fold] = heads[f"fold{fold}"].logits(features[folds == fold])
    return logits


def write_heads(run: Run, architecture: str, heads: dict[str, LinearHead]) -> None:
    """Write `<architecture>/heads.npz`: the heads by the `model` of their predictions."""
    with written_whole(run / architecture / FILE) as temporary:
        rows: dict[str, Any] = {part: [getattr(h, part) for h in heads.values()] for part in _PARTS}
        np.savez(temporary, model=list(heads), **rows)


def read_heads(run: Run, architecture: str) -> dict[str, LinearHead]:
    """The heads of a run by `fold0`, `fold1`, ..., `final`."""
    with np.load(require(run.folder, f"{architecture}/{FILE}"), allow_pickle=False) as stored:
        rows = zip(stored["model"], *(stored[part] for part in _PARTS), strict=True)
        return {str(model): LinearHead(*row) for model, *row in rows}


# ---------------------------------------------------------------------- training


def is_malignant(labels: pd.Series) -> np.ndarray:
    """Whether each label is M, shape (n,)."""
    return (labels == "M").to_numpy()


def class_weights(malignant: np.ndarray, class_weight: str) -> np.ndarray:
    """Weights of benign and malignant: `balanced` gives both the same sum, `none` gives ones.

    ValueError if one of the classes is missing.
    """
    if class_weight == "none":
        return np.ones(2)
    counts = np.bincount(malignant, minlength=2)
    if not counts.all():
        raise ValueError("There is only one class, so no difference can be learned.")
    return len(malignant) / (2 * counts)


def scores(logits: np.ndarray, malignant: np.ndarray, of_class: np.ndarray) -> tuple[float, float]:
    """Log loss with these weights of the classes, and accuracy at probability 0.5."""
    losses = np.logaddexp(0, np.where(malignant, -logits, logits))
    loss = np.average(losses, weights=of_class[malignant.astype(int)])
    return float(loss), float(((logits >= 0) == malignant).mean())


def untrained_head(values: np.ndarray) -> LinearHead:
    """A head that has seen the features but no labels: its logits are 0."""
    mean = values.mean(axis=0, dtype=np.float64)
    squares = np.empty(len(mean))
    for start in range(0, len(mean), COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        distance = values[:, block] - mean[block]
        squares[block] = np.einsum("ij,ij->j", distance, distance)
    return LinearHead(mean, squares / len(values), np.zeros(len(mean)), 0.0)


def fitted_head(
    values: np.ndarray,
    malignant: np.ndarray,
    strength: float = STRENGTH,
    class_weight: str = "balanced",
    epochs: int = EPOCHS,
    after_epoch: Callable[[LinearHead], None] | None = None,
    untrained: LinearHead | None = None,
) -> LinearHead:
    """The head that minimizes loss plus penalty: no learning rate, no order of pictures, no luck.

    `values` has shape (pictures, width), `malignant` (pictures,). L-BFGS (Liu & Nocedal 1989,
    doi 10.1007/BF01589116) sees all pictures in each epoch. `after_epoch` gets the present head,
    and may end the training with `StopIteration`. `untrained` is `untrained_head(values)`, if
    already known.
    """
    untrained = untrained or untrained_head(values)
    share = class_weights(malignant, class_weight)[malignant.astype(int)] / len(values)

    def report(parameters: np.ndarray) -> None:
        if after_epoch:
            after_epoch(head_with(parameters, untrained))

    with libraries().limit(limits=THREADS):
        found = minimize(
            loss_and_slope,
            np.zeros(values.shape[1] + 1),  # start from zero
            args=(untrained, values, malignant, share, strength),
            jac=True,
            method="L-BFGS-B",
            callback=report,
            # Only the loss decides when to stop, so the number of features plays no part.
            options={"maxiter": epochs, "ftol": CONVERGED, "gtol": 0.0},
        )
    return round_head(head_with(found.x, untrained), values.dtype)


def loss_and_slope(
    parameters: np.ndarray,
    untrained: LinearHead,
    values: np.ndarray,
    malignant: np.ndarray,
    share: np.ndarray,
    strength: float,
) -> tuple[float, np.ndarray]:
    """Loss plus penalty of a head, and their gradient with respect to its parameters.

    `share` is the weight of each picture; `parameters` are the head's weights and bias.
    """
    logits, long = head_with(parameters, untrained).logits(values), parameters[:-1]
    wrong = share * (expit(logits) - malignant)
    # The gradient for standardized features, without a standardized copy of them.
    slope = wrong.astype(values.dtype) @ values - wrong.sum() * untrained.mean
    slope = slope / (untrained.deviation * np.sqrt(len(long))) + strength * long
    loss = share @ np.logaddexp(0, np.where(malignant, -logits, logits))
    return loss + strength / 2 * (long @ long), np.append(slope, wrong.sum())


def head_with(parameters: np.ndarray, untrained: LinearHead) -> LinearHead:
    """The head with these weights and bias; features are divided by the root of their number."""
    root = np.sqrt(len(untrained.mean))
    return replace(untrained, weights=parameters[:-1] / root, bias=parameters[-1])


@cache
def libraries() -> ThreadpoolController:
    """The libraries with threads; finding them takes longer than training a small head."""
    return ThreadpoolController()


def round_head(head: LinearHead, dtype: np.dtype) -> LinearHead:
    """The head in the type of its features, as the network will store it."""
    mean, variance = head.mean.astype(dtype), head.variance.astype(dtype)
    return LinearHead(mean, variance, head.weights.astype(dtype), float(dtype.type(head.bias)))
