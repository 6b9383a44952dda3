"""A first look at the leakage audit, for the one network that has just been trained."""

import pandas as pd

from cytology.audits.judged_images import draw_images
from cytology.audits.leakage import SHUFFLED, audit, audit_summary
from cytology.networks.features import Features
from cytology.settings import InputError

MOST_IMAGES = 300
REPETITIONS = 3


def first_look(
    architecture: str, features: Features, manifest: pd.DataFrame, folds: int, seed: int
) -> pd.DataFrame | None:
    """`leakage.audit_summary` of one network on few images, with few repetitions.

    Shuffled labels have no intervals: so few shuffles say little about their mean. None if the
    images have too few groups: a demonstration must not end a training.
    """
    try:
        images = draw_images(manifest, MOST_IMAGES, seed)
        found = audit(features, images, folds, REPETITIONS)
    except InputError:
        return None
    summary = audit_summary(found).assign(architecture=architecture)
    summary.loc[summary["labels"].isin(SHUFFLED), ["auc_low", "auc_high"]] = float("nan")
    return summary
