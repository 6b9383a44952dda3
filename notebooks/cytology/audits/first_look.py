"""A first look at what a careless split adds, for the network that was just trained."""

import pandas as pd

from cytology.audits.judged_images import draw_images
from cytology.audits.leakage import HONEST, assign_folds, out_of_fold_logits, shuffle_labels
from cytology.data.augmentation import pictures_of
from cytology.evaluation.statistics.metrics import auc_within_folds
from cytology.networks.features import Features
from cytology.networks.linear_head import is_malignant

MOST_IMAGES = 300
REPETITIONS = 3  # each with other folds and other shuffled labels
SPLITS = {"images_random": "turned copies split at random", HONEST: "whole patients together"}


def first_look(
    features: Features,
    manifest: pd.DataFrame,
    folds: int,
    seed: int,
) -> pd.DataFrame:
    """The mean AUC of two ways to split (rows), with true and shuffled labels (columns).

    A part of what `leakage.audit` asks, in a few seconds. Raises `InputError` if the images
    have too few groups for the folds.
    """
    images = draw_images(manifest, MOST_IMAGES, seed)
    orientations = 1 + int(features.index.get_level_values("orientation").max())
    pictures = pictures_of(images[["image_id", "label", "group", "family"]], orientations)
    values, found = features.of(pictures), []
    for repetition in range(REPETITIONS):
        shuffled = shuffle_labels(pictures, repetition)
        labelled = {"true labels": pictures, "shuffled labels": shuffled}
        for protocol, split in SPLITS.items():
            fold = assign_folds(pictures, protocol, folds, repetition)
            for labels, shown in labelled.items():
                logits = out_of_fold_logits(values, is_malignant(shown["label"]), fold)
                auc = auc_within_folds(shown.assign(fold=fold, logit=logits))
                found.append((split, labels, auc))
    table = pd.DataFrame(found, columns=["split", "labels", "AUC"])
    return table.pivot_table("AUC", "split", "labels", sort=False)
