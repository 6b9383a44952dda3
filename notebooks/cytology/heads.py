"""Linear heads on frozen features, without TensorFlow.

A head standardizes each feature and takes a weighted sum. Those that a notebook trained are kept
as plain numbers, so that later ones can ask the very head that never saw a patient about other
pictures of hers. Where hundreds are needed, scikit-learn's logistic regression stands in.

All share one objective: the mean logistic loss, each class weighed alike, plus half of `strength`
times the squared length of the weights of features that are standardized and divided by the
square root of their number. So neither the number of features nor of pictures changes what a
strength means: a network with every feature twice has the very same head.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cytology.tables import require, written_whole

FILE = "heads.npz"
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)  # the grid that every network chooses from
STRENGTH = 1e-4  # where none is chosen
EPSILON = 1e-5  # added to the variance, as in `architectures.head_layers`


@dataclass(frozen=True)
class LinearHead:
    """Mean and variance of the training features, weights of shape (width,), one bias."""

    mean: np.ndarray
    variance: np.ndarray
    weights: np.ndarray
    bias: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits of features of shape (pictures, width), shape (pictures,)."""
        standardized = (features - self.mean) / np.sqrt(self.variance + EPSILON)
        return standardized @ self.weights + self.bias


def write_heads(run: Path, architecture: str, heads: dict[str, LinearHead]) -> None:
    """Write `<architecture>/heads.npz`: the heads by the `model` of their predictions."""
    with written_whole(run / architecture / FILE) as temporary:
        np.savez(
            temporary,
            model=np.array(list(heads)),
            mean=np.stack([head.mean for head in heads.values()]),
            variance=np.stack([head.variance for head in heads.values()]),
            weights=np.stack([head.weights for head in heads.values()]),
            bias=np.array([head.bias for head in heads.values()]),
        )


def read_heads(run: Path, architecture: str) -> dict[str, LinearHead]:
    """The heads of a run by `fold0`, `fold1`, ..., `final`."""
    with np.load(require(run, f"{architecture}/{FILE}"), allow_pickle=False) as stored:
        columns = [stored[name] for name in ("mean", "variance", "weights", "bias")]
        rows = zip(stored["model"], *columns, strict=True)
        return {str(model): LinearHead(*row) for model, *row in rows}


def fitted_head(values: np.ndarray, malignant: np.ndarray, strength: float = STRENGTH) -> Pipeline:
    """Logistic regression on standardized features, both classes weighed alike; converged.

    `values` has shape (pictures, width), `malignant` (pictures,); `decision_function` gives logits.
    """
    # With weights of features that are not yet divided by sqrt(width), the same penalty is
    # `width` times as strong. The solver's steps are small, and threads that wait for each other
    # make them four times slower (benchmarks/audit_threads.py, two cores).
    regression = LogisticRegression(
        C=1 / (strength * values.size), class_weight="balanced", tol=1e-6, max_iter=5000
    )
    with threadpool_limits(1):
        return make_pipeline(StandardScaler(), regression).fit(values, malignant)
