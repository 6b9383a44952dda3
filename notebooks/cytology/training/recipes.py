"""How heads and networks are trained, and the results of a stage of training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cytology.architectures import ARCHITECTURES
from cytology.data.augmentation import augmentation_of
from cytology.networks.linear_head import LinearHead
from cytology.run import Run


@dataclass(frozen=True)
class HeadRecipe:
    """How heads are trained, the same for every architecture; their `strengths` depend on the data.

    `strengths` are by the `model` of the predictions: `fold0`, `fold1`, ..., `final`.
    """

    epochs: int  # the maximum
    class_weight: str
    patience: int | None  # None: no early stopping
    seed: int  # of the groups held back for early stopping
    orientations: int = 8
    strengths: dict[str, float] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, run: Run, strengths: dict[str, float]) -> "HeadRecipe":
        """The recipe from the parameters of a training notebook."""
        asked = run.parameters
        return cls(
            asked["head_epochs"],
            asked["class_weight"],
            asked["patience"] or None,
            asked["seed"],
            augmentation_of(run).orientations,
            strengths,
        )


@dataclass(frozen=True)
class Recipe:
    """How a network is fine-tuned; the same for every architecture unless its notebook differs."""

    learning_rate: float
    epochs: int
    batch_size: int
    class_weight: str
    patience: int | None  # None: no early stopping
    seed: int
    orientations: int = 8
    accumulate: int = 1  # batches whose gradients make one step
    steps_per_execution: int = 1  # steps between two updates of the progress bar

    @classmethod
    def of(cls, run: Run, architecture: str) -> "Recipe":
        """The recipe from a training notebook's parameters; the default rate is the original's."""
        asked = run.parameters
        same = ("epochs", "batch_size", "class_weight", "seed", "accumulate", "steps_per_execution")
        return cls(
            learning_rate=asked["learning_rate"] or ARCHITECTURES[architecture].learning_rate,
            patience=asked["patience"] or None,
            orientations=augmentation_of(run).orientations,
            **{name: asked[name] for name in same},
        )


@dataclass(frozen=True)
class Stage:
    """The results of a stage of training: rows of `predictions.csv` and of `history.csv`.

    Stages that train heads also have these, with their strengths. `rounded` means that fine-tuning
    started from activations rounded to float16.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    heads: dict[str, LinearHead] = field(default_factory=dict)
    strengths: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    rounded: bool = False


def history_table(
    history: dict[str, Any] | Sequence[dict[str, float]], model: str, stage: str
) -> pd.DataFrame:
    """Rows of `history.csv`: model, stage, epoch (from 1), loss and accuracy, train and val.

    `history` is Keras' dictionary of lists, or the logs of each epoch. `val_loss` and
    `val_accuracy` are empty if there was no validation.
    """
    table = pd.DataFrame(history)
    table = table.assign(model=model, stage=stage, epoch=np.arange(1, len(table) + 1))
    columns = "model stage epoch loss accuracy val_loss val_accuracy"
    return table.reindex(columns=columns.split())
