"""The smallest move of whole groups after which nothing crosses a split."""

import numpy as np
import pandas as pd

# Of two parts that leave as few images to move, a group goes to the first of these: what is judged
# shall not become less than it must.
FIRST = ("test", "val", "train")


def mended(images: pd.DataFrame) -> pd.Series:
    """The part of each image after the smallest move, in images, of whole groups.

    `images` has `group, label, split`; groups are what must not cross. Each group goes to the part
    that has most of its images, and of equal ones to test rather than val rather than train. If a
    part would lose a class by that, the smallest move that keeps it there is made instead, as far
    as the groups suffice.
    """
    parts = [part for part in FIRST if (images["split"] == part).any()]
    counts = images.groupby(["group", "split"]).size().unstack(fill_value=0)[parts]
    moved = counts.sum(axis=1).to_numpy()[:, None] - counts.to_numpy()
    # Images first; the order of the parts decides where these are as many.
    cost = moved * (len(parts) * len(counts) + 1) + np.arange(len(parts))
    home = pd.Series(np.array(parts)[cost.argmin(axis=1)], index=counts.index)
    wanted = set(zip(images["split"], images["label"], strict=True))
    if wanted - set(zip(images["group"].map(home), images["label"], strict=True)):
        labels = images.groupby("group")["label"].agg(set).loc[counts.index]
        home = pd.Series(keeping_classes(cost, parts, labels, wanted), index=counts.index)
    return images["group"].map(home)


def keeping_classes(cost: np.ndarray, parts: list[str], labels, wanted: set) -> list[str]:
    """The cheapest part of each group so that each pair (part, label) of `wanted` is there.

    `cost` has shape (groups, parts), `labels` are the set of each group. Exact, by dynamic
    programming: group by group, of all choices that give the same pairs only the cheapest is kept.
    Where the groups are too few, as many pairs as can be.
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
