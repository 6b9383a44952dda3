"""Chooses the strength of a head's penalty from one grid, on patients that the head never saw.

The strength for fold k is judged on the other folds, each predicted by heads that saw neither it
nor fold k: nothing about fold k influences the training of the head that predicts it. A head
without two folds serves both. The strength of the final head is judged on all folds; test decides
nothing.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from cytology.data.splitting import judged_pictures
from cytology.evaluation.readable import title
from cytology.evaluation.statistics.metrics import auc_within_folds
from cytology.networks.features import Features
from cytology.networks.linear_head import (
    STRENGTH,
    STRENGTHS,
    class_weights,
    fitted_head,
    is_malignant,
    scores,
)
from cytology.notebook import progress

MOST_STRENGTH_IMAGES = 2000  # for choosing a strength
STRENGTH_COLUMNS = "strength chosen image_id orientation group label fold logit".split()
CHOSEN = "chosen in inner folds"


@dataclass(frozen=True)
class Chosen:
    """Strengths by the `model` of the predictions, and the content of `strengths.csv`.

    `rows` are out-of-fold logits of images as taken, with `STRENGTH_COLUMNS`, one row per image and
    strength; `chosen` says whether the head of this image's fold is trained with this strength.
    """

    of: dict[str, float]
    rows: pd.DataFrame


def choose_strengths(
    features: Features, split: pd.DataFrame, class_weight: str = "balanced", seed: int = 0
) -> Chosen:
    """The strength with the lowest log loss for each fold's head and for the final one.

    With more than `MOST_STRENGTH_IMAGES` images, a random part of each fold is used.
    """
    rows = judged_pictures(split[split["split"] != "test"])
    if len(rows) > MOST_STRENGTH_IMAGES:
        share = MOST_STRENGTH_IMAGES / len(rows)
        rows = rows.groupby("fold").sample(frac=share, random_state=seed)
    values, malignant = features.of(rows), is_malignant(rows["label"])
    fold = rows["fold"].to_numpy()
    found = {
        strength: logits_without(values, malignant, fold, strength, class_weight)
        for strength in progress(STRENGTHS, "strengths", unit="strength")
    }

    def best(outside: tuple = ()) -> float:
        losses = {
            strength: loss_without(outside, logits, malignant, fold, class_weight)
            for strength, logits in found.items()
        }
        # If too few groups leave nothing to judge by, the first of equals must not win.
        unknown = np.isnan([*losses.values()]).any()
        return STRENGTH if unknown else min(losses, key=lambda each: losses[each])

    of = {f"fold{k}": best((k,)) for k in sorted(set(fold))} | {"final": best()}
    own = np.array([of[f"fold{k}"] for k in fold])
    parts = [
        rows.assign(strength=strength, chosen=own == strength, logit=out_of_fold(logits, fold))
        for strength, logits in found.items()
    ]
    return Chosen(of, pd.concat(parts, ignore_index=True)[STRENGTH_COLUMNS])


def logits_without(
    values: np.ndarray, malignant: np.ndarray, fold: np.ndarray, strength: float, class_weight: str
) -> dict[frozenset, np.ndarray]:
    """Logits of all images by heads that saw all folds but one or two, keyed by these folds.

    Pairs of folds without which only one class remains are left out.
    """
    folds, found = sorted(set(fold)), {}
    for unseen in [*combinations(folds, 1), *combinations(folds, 2)]:
        train = ~np.isin(fold, unseen)
        if len(unseen) == 1 or len(set(malignant[train])) == 2:
            head = fitted_head(values[train], malignant[train], strength, class_weight)
            found[frozenset(unseen)] = head.logits(values)
    return found


def out_of_fold(
    logits: dict[frozenset, np.ndarray], fold: np.ndarray, outside: tuple = ()
) -> np.ndarray:
    """The logit of each image by the head that saw neither its fold nor those `outside`.

    NaN if there is no such head, and for images of the folds `outside`.
    """
    found = np.full(len(fold), np.nan)
    for k in set(fold).difference(outside):
        unseen = frozenset([k, *outside])
        if unseen in logits:
            found[fold == k] = logits[unseen][fold == k]
    return found


def loss_without(
    outside: tuple,
    logits: dict[frozenset, np.ndarray],
    malignant: np.ndarray,
    fold: np.ndarray,
    class_weight: str,
) -> float:
    """Out-of-fold log loss of the folds that are not `outside`, weighted as in training.

    All their images count together. NaN if no image can be judged.
    """
    logit = out_of_fold(logits, fold, outside)
    known = ~np.isnan(logit)
    of_class = class_weights(malignant[~np.isin(fold, outside)], class_weight)
    return scores(logit[known], malignant[known], of_class)[0] if known.any() else np.nan


# ------------------------------------------------- does the order depend on the strength?


def by_strength(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per network and strength, one for the chosen: `architecture, strength, auc, loss`.

    `tables` are the rows of `strengths.csv` by architecture. `strength` is text, `CHOSEN` the last
    of each network; AUC within folds, log loss with equal weight for both classes.
    """
    found = []
    for architecture, rows in tables.items():
        named = [(f"{strength:g}", part) for strength, part in rows.groupby("strength")]
        for strength, part in [*named, (CHOSEN, rows[rows["chosen"]])]:
            malignant = is_malignant(part["label"])
            of_class = class_weights(malignant, "balanced")
            loss, _ = scores(part["logit"].to_numpy(), malignant, of_class)
            found.append((architecture, strength, auc_within_folds(part), loss))
    return pd.DataFrame(found, columns=["architecture", "strength", "auc", "loss"])


def order_sentence(table: pd.DataFrame) -> str:
    """Whether the order of the networks by AUC, to three decimals, is the same at each strength."""
    if table["architecture"].nunique() < 2:
        return ""
    orders = {name: _order_of(part) for name, part in table.groupby("strength", sort=False)}
    tuned, plain = orders.pop(CHOSEN), orders[f"{STRENGTH:g}"]
    others = [name for name, found in orders.items() if found != tuned]
    words = f"With strengths chosen in inner folds, the order by AUC is {tuned}; "
    if not others:
        return words + "it is the same with every fixed strength of the grid."
    same = "the same" if plain == tuned else f"different, {plain}"
    return (
        f"{words}with one fixed strength for all, {STRENGTH:g}, it is {same}. It depends on the "
        f"recipe: it is different at {', '.join(others)}."
    )


def _order_of(part: pd.DataFrame) -> str:
    """Networks from the highest AUC down; an equals sign if three decimals are the same."""
    rounded = part.assign(auc=part["auc"].round(3))
    ranked = rounded.sort_values(["auc", "architecture"], ascending=[False, True])
    titles = [title(name) for name in ranked["architecture"]]
    signs = np.where(np.diff(ranked["auc"]) == 0, " = ", " > ")
    return titles[0] + "".join(f"{s}{t}" for s, t in zip(signs, titles[1:], strict=True))
