"""Can heatmaps be trusted? Each check compares one number per image with its value by chance.

The pointing game (Zhang et al. 2018, doi 10.1007/s11263-017-1059-x), heat on nuclei, deletion and
insertion (Petsiuk et al. 2018, arXiv 1806.07421), shuffled weights (Adebayo et al. 2018, arXiv
1810.03292), turned copies, a second method. Images of one patient are not independent, so the mean
difference from chance has an interval and a P value by group. A map of noise goes through the same
checks: a check that noise passes is necessary, but no evidence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.stats import spearmanr

from cytology.data.augmentation import border_colour, orient, place_in_square
from cytology.data.images.opening import open_rgb
from cytology.notebook import progress

NETWORK, NOISE = "network", "noise"  # the source of maps: the network, or noise in its place
ORDERS = 10  # random orders of covering: five, and their reverses
MARGIN = 15 / 224  # of the input's side: how near to a nucleus the hottest point must be


@dataclass(frozen=True)
class Check:
    """`better` is +1 if larger than chance is better, -1 if smaller; `asks` is the question.

    `evidence` is False for a check that any noise passes: heat that fails it is worthless, and heat
    that passes it has shown nothing yet.
    """

    asks: str
    chance: str
    better: int
    evidence: bool = True

    @property
    def kind(self) -> str:
        return "evidence" if self.evidence else "necessary"


# Two checks that differ by HABIT share their value and are one piece of evidence: both must pass.
HABIT = ", habit"
OTHERS = "the heat of other images"
HEATMAP_CHECKS = {
    "pointing game": Check("Is the hottest point on a nucleus?", "a random point", 1),
    "pointing game, habit": Check("Is that due to this image?", OTHERS, 1),
    "heat on nuclei": Check("How much of the heat is on nuclei?", "heat spread evenly", 1),
    "heat on nuclei, habit": Check("Is that due to this image?", OTHERS, 1),
    "deletion": Check("Does the logit fall if the hottest goes first?", "random orders", -1),
    "insertion": Check("Does the logit rise if the hottest comes first?", "random orders", 1),
    "turned copies": Check("Is the heat of a turned copy the same?", OTHERS, 1),
    "integrated gradients": Check("Does another method find the same places?", OTHERS, 1),
    "shuffled head": Check(
        "Does the heat change if the head's weights are shuffled?", "0.5", -1, evidence=False
    ),
    "shuffled network": Check(
        "Does it change if all weights are shuffled?", "0.5", -1, evidence=False
    ),
}


def values_of(check: str, rows: pd.DataFrame, value, chance) -> pd.DataFrame:
    """One row per image: `check, image_id, group, label, value, chance`, and `fold` of `rows`."""
    keys = rows[["image_id", "group", "label", *rows.columns.intersection(["fold"])]]
    keys = keys.reset_index(drop=True)
    return keys.assign(check=check, value=value, chance=chance)


def noise_maps(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth random heat of `shape` (n, rows, columns), unrelated to any picture."""
    return gaussian_filter(rng.normal(size=shape), sigma=(0, 1, 1))


# ------------------------------------------------------------------- on nuclei


def nuclei_in_square(path: Path, size: int, fit: str) -> tuple[np.ndarray, np.ndarray]:
    """The masks of an image's nuclei and of the image itself in the network's square: bool.

    Both have shape (size, size); both are False on the padding.
    """
    mask = open_rgb(path).convert("L")
    left, top, width, height = place_in_square(*mask.size, size, fit)
    small = np.asarray(mask.resize((width, height), Image.Resampling.BOX)) > 127
    nuclei, image = np.zeros((size, size), bool), np.zeros((size, size), bool)
    here = np.s_[top : top + height, left : left + width]
    nuclei[here], image[here] = small, True
    return nuclei, image


def on_nuclei(
    rows: pd.DataFrame, heat: np.ndarray, nuclei: np.ndarray, image: np.ndarray
) -> pd.DataFrame:
    """Pointing game and share of heat on nuclei, against chance and against other images' heat.

    `heat`, `nuclei` and `image` have shape (n, size, size). The hottest point counts as on a
    nucleus if it is within `MARGIN` of one; chance is the share of the image where it would count.
    Heat below zero and on the padding is ignored. NaN if an image has no nucleus or no heat.
    """
    count, size = len(heat), heat.shape[1]
    reach = round(MARGIN * size)
    near = np.stack([distance_transform_edt(~mask) <= reach for mask in nuclei]) & image
    hottest = np.where(image, heat, -np.inf).reshape(count, -1).argmax(axis=1)
    positive = (np.clip(heat, 0, None) * image).reshape(count, -1)
    with np.errstate(invalid="ignore"):
        positive /= positive.sum(axis=1, keepdims=True)
    flat, points = nuclei.reshape(count, -1), near.reshape(count, -1)
    area = image.reshape(count, -1).sum(axis=1)
    known = np.where(flat.any(axis=1), 1.0, np.nan)
    hit = points[:, hottest] * known[:, None]  # [nuclei of, hottest point of]
    share = flat.astype(float) @ positive.T * known[:, None]
    parts = [
        ("pointing game", np.diag(hit), points.sum(axis=1) / area * known),
        ("pointing game, habit", np.diag(hit), mean_of_others(hit)),
        ("heat on nuclei", np.diag(share), flat.sum(axis=1) / area * known),
        ("heat on nuclei, habit", np.diag(share), mean_of_others(share)),
    ]
    return pd.concat([values_of(check, rows, *pair) for check, *pair in parts])


def mean_of_others(table: np.ndarray) -> np.ndarray:
    """The mean of each row of a square table without its diagonal, ignoring NaN."""
    others = np.where(np.eye(len(table), dtype=bool), np.nan, table)
    found = np.isfinite(others).sum(axis=1)
    return np.nansum(others, axis=1) / np.where(found, found, np.nan)


# --------------------------------------------------------- deletion and insertion


def cover_cells(picture: np.ndarray, cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The picture with some cells of a grid of `shape` painted in the colour of its border.

    `cells` are indices of cells, row by row.
    """
    size = picture.shape[0]
    hidden = np.zeros(shape, bool)
    hidden.ravel()[cells] = True
    rows, columns = (np.arange(size) * side // size for side in shape)
    changed = picture.copy()
    changed[hidden[rows][:, columns]] = border_colour(picture)
    return changed


def covering_curves(
    logits: Callable,
    pixels: np.ndarray,
    maps: dict[str, np.ndarray],
    sign: np.ndarray,
    steps: int,
    seed: int,
) -> pd.DataFrame:
    """Logits while cells of the maps' grid are covered, or uncovered, one after the other.

    `maps` holds heat of shape (n, rows, columns) by name. `logits(pixels, rows)` judges pictures;
    `rows` says which images they show; `sign` is +1 if M is explained. Columns: `image` (index),
    `curve`, `order` (a name of `maps`, or `random`, the mean of `ORDERS` random ones), `share` of
    cells covered or uncovered, `logit` towards the explained class.
    """
    rng, shape, tables = np.random.default_rng(seed), next(iter(maps.values())).shape[1:], []
    for image, picture in enumerate(progress(pixels, "covering")):
        orders = [(name, np.argsort(-heat[image].ravel())) for name, heat in maps.items()]
        drawn = [rng.permutation(shape[0] * shape[1]) for _ in range(ORDERS // 2)]
        orders += [("random", cells) for each in drawn for cells in (each, each[::-1])]
        table, hidden = covering_plan(orders, steps)
        # An order uncovers last what its reverse covers first: such pictures are judged once.
        hidden, which = np.unique(hidden, axis=0, return_inverse=True)
        changed = [cover_cells(picture, np.flatnonzero(cells), shape) for cells in hidden]
        found = logits(np.stack(changed), np.full(len(changed), image))
        table["logit"] = sign[image] * np.asarray(found, float)[which.ravel()]
        tables.append(table.assign(image=image))
    keys = ["image", "curve", "order", "share"]
    return pd.concat(tables).groupby(keys, sort=False)["logit"].mean().reset_index()


def covering_plan(
    orders: list[tuple[str, np.ndarray]], steps: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Which cells are covered at each step: `curve, order, share`, and a mask (rows, cells)."""
    table, masks = [], []
    for order, cells in orders:
        for share in np.linspace(0, 1, steps + 1):
            done = round(share * len(cells))
            for curve, hidden in (("deletion", cells[:done]), ("insertion", cells[done:])):
                table.append((curve, order, share))
                masks.append(np.isin(np.arange(len(cells)), hidden))
    return pd.DataFrame(table, columns=["curve", "order", "share"]), np.stack(masks)


def mean_logits_of_curves(rows: pd.DataFrame, curves: pd.DataFrame, order: str) -> pd.DataFrame:
    """The mean logit along each curve, for an `order` (`value`) and for random ones (`chance`)."""
    area = curves.groupby(["curve", "image", "order"])["logit"].mean().unstack("order")
    parts = [
        values_of(curve, rows.iloc[: len(part)], part[order].array, part["random"].array)
        for curve, part in area.groupby("curve")
    ]
    return pd.concat(parts)


# -------------------------------------------------------------------- likeness


def map_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each map of `one` with that of `other`, shape (n,).

    Both have shape (n, rows, columns). NaN for a map without differences, such as a single cell.
    """
    found = np.full(len(one), np.nan)
    for k, pair in enumerate(zip(one, other, strict=True)):
        if all(np.ptp(each) > 0 for each in pair):
            found[k] = spearmanr(*(each.ravel() for each in pair)).statistic
    return found


def correlation_with_others(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean correlation of each map of `one` with all others of `other`: shape (n,)."""
    count = len(one)
    table = [map_correlation(np.repeat(each[None], count, axis=0), other) for each in one]
    return mean_of_others(np.array(table))


def turn_back(heat: np.ndarray, orientation: int) -> np.ndarray:
    """Maps of pictures in an orientation, (n, rows, columns), turned back to the image as taken.

    A map follows the picture, so it is turned by the inverse of the picture's orientation.
    """
    back = np.rot90(heat, -(orientation % 4), axes=(-2, -1))
    return np.flip(back, axis=-1) if orientation >= 4 else back


def correlation_of_turned_copies(
    heat: Callable, pixels: np.ndarray, as_taken: np.ndarray
) -> np.ndarray:
    """The mean correlation of the maps of the 7 turned copies with the map as taken, shape (n,).

    `heat(pixels)` explains pictures of the same images.
    """
    turned = [
        map_correlation(as_taken, turn_back(heat(orient(pixels, orientation)), orientation))
        for orientation in range(1, 8)
    ]
    return np.mean(turned, axis=0)


def by_cell(attributions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Attributions of pixels, (n, size, size), summed over a grid of `shape`: (n, *shape)."""
    rows = np.array_split(attributions, shape[0], axis=1)
    cells = [[part.sum(axis=(1, 2)) for part in np.array_split(row, shape[1], 2)] for row in rows]
    return np.moveaxis(np.array(cells), 2, 0)
