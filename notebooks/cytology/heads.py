"""Linear heads on frozen features, without TensorFlow.

A head standardizes each feature and takes a weighted sum. Those that a notebook trained are kept
as plain numbers, so that later ones can ask the very head that never saw a patient about other
pictures of hers. Where hundreds are needed, scikit-learn's logistic regression stands in.
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
STRENGTH = 0.01  # C of the logistic regression
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


def fitted_head(values: np.ndarray, malignant: np.ndarray) -> Pipeline:
    """Logistic regression on standardized features: no epochs, no dropout and no luck.

    `values` has shape (pictures, width), `malignant` (pictures,); `decision_function` gives logits.
    """
    # The solver's steps are small, and threads that wait for each other make them four times slower
    # (benchmarks/audit_threads.py, two cores).
    with threadpool_limits(1):
        head = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=5000))
        return head.fit(values, malignant)
