"""The smallest move of whole groups after which nothing crosses a split."""

import numpy as np
import pandas as pd

# If two parts need equally few moves, a group goes to the first of these, so that the parts for
# evaluation shrink as little as possible.
FIRST = ("test", "val", "train")


def repair_split(images: pd.DataFrame) -> pd.Series:
    """The part of each image after moving whole groups, and as few images as possible.

    `images` has `group, label, split`; groups must not cross. Each group goes to the part with
    most of its images; in a tie, test comes before val, and val before train. If a part would lose
    a class that way, the smallest move that keeps the class is made instead, as far as the groups
    allow.
    """
    parts = [part for part in FIRST if (images["split"] == part).any()]
    counts = images.groupby(["group", "split"]).size().unstack(fill_value=0)[parts]
    moved = counts.sum(axis=1).to_numpy()[:, None] - counts.to_numpy()
    # The number of images counts first; the order of the parts decides ties.
    cost = moved * (len(parts) * len(counts) + 1) + np.arange(len(parts))
    home = pd.Series(np.array(parts)[cost.argmin(axis=1)], index=counts.index)
    wanted = set(zip(images["split"], images["label"], strict=True))
    if wanted - set(zip(images["group"].map(home), images["label"], strict=True)):
        labels = images.groupby("group")["label"].agg(set).loc[counts.index]
        home = pd.Series(keeping_classes(cost, parts, labels, wanted), index=counts.index)
    return images["group"].map(home)


def keeping_classes(cost: np.ndarray, parts: list[str], labels, wanted: set) -> list[str]:
    """The cheapest part of each group such that each pair (part, label) of `wanted` exists.

    `cost` has shape (groups, parts), `labels` holds a set per group. Exact, by dynamic
    programming: group by group, only the cheapest of all choices with the same pairs is kept.
    If there are too few groups, as many pairs as possible.
    """
    best: dict[frozenset, tuple[int, tuple]] = {frozenset(): (0, ())}
    for row, of_group in zip(cost.tolist(), labels, strict=True):
        longer: dict[frozenset, tuple[int, tuple]] = {}
        for there, (spent, path) in best.items():
            for part, price in zip(parts, row, strict=True):
                found = there | (wanted & {(part, label) for label in of_group})
                if found not in longer or spent + price < longer[found][0]:
                    longer[found] = spent + price, (part, path)
        best = longer
    _, path = best[min(best, key=lambda found: (-len(found), best[found][0]))]
    chosen = []
    while path:
        part, path = path
        chosen.append(part)
    return chosen[::-1]
