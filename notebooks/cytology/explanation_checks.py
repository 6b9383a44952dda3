"""Whether heatmaps deserve belief: each check is a number an image, beside what chance gives it.

The pointing game (Zhang et al. 2018, doi 10.1007/s11263-017-1059-x), heat on nuclei, deletion and
insertion (Petsiuk et al. 2018, arXiv 1806.07421), shuffled weights (Adebayo et al. 2018, arXiv
1810.03292), turned copies, a second method. Of images of one patient little is learned twice: the
mean difference to chance has an interval from drawing whole groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.stats import spearmanr

from cytology.augmentation import border_colour, orient, place_in_square
from cytology.images import open_rgb
from cytology.intervals import group_weights, over_draws, percentile_interval, with_width
from cytology.settings import NETWORK_TITLE, progress

MARGIN = 15 / 224  # of the input's side: how near a nucleus the hottest point must lie


@dataclass(frozen=True)
class Check:
    """`better` is +1 where more is better than chance, -1 where less; `asks` is the question."""

    asks: str
    chance: str
    better: int


CHECKS = {
    "pointing game": Check("Does the hottest point lie on a nucleus?", "a random point", 1),
    "pointing game, habit": Check("Does it, because of this image?", "the heat of other images", 1),
    "heat on nuclei": Check("How much of the heat lies on nuclei?", "heat spread evenly", 1),
    "heat on nuclei, habit": Check(
        "Does it, because of this image?", "the heat of other images", 1
    ),
    "deletion": Check("Does the logit fall if the hottest goes first?", "random order", -1),
    "insertion": Check("Does the logit rise if the hottest comes first?", "random order", 1),
    "shuffled head": Check("Does the heat change if the head's weights are shuffled?", "0.5", -1),
    "shuffled network": Check("Does it change if all weights are shuffled?", "0.5", -1),
    "turned copies": Check("Is the heat of a turned copy the same?", "the heat of other images", 1),
    "integrated gradients": Check(
        "Does another method find the same places?", "the heat of other images", 1
    ),
}


def values_of(check: str, rows: pd.DataFrame, value, chance) -> pd.DataFrame:
    """A row an image: `check, image_id, group, label, value, chance`."""
    keys = rows[["image_id", "group", "label"]].reset_index(drop=True)
    return keys.assign(check=check, value=value, chance=chance)


# ------------------------------------------------------------------- on nuclei


def nuclei_in_square(path: Path, size: int, fit: str) -> tuple[np.ndarray, np.ndarray]:
    """The mask of an image's nuclei as the network meets it, and where the image lies: bool.

    Both have shape (size, size); on the padding there is neither.
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
    nucleus up to `MARGIN` beside it; chance is the share of the image that would count. Heat
    below zero and on the padding is no heat. NaN where an image has no nucleus or no heat.
    """
    count, size = len(heat), heat.shape[1]
    reach = round(MARGIN * size)
    disc = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    near = np.stack([binary_dilation(mask, disc) for mask in nuclei]) & image
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
        ("pointing game, habit", np.diag(hit), of_others(hit)),
        ("heat on nuclei", np.diag(share), flat.sum(axis=1) / area * known),
        ("heat on nuclei, habit", np.diag(share), of_others(share)),
    ]
    return pd.concat([values_of(check, rows, *pair) for check, *pair in parts])


def of_others(table: np.ndarray) -> np.ndarray:
    """The mean of each row of a square table without its diagonal; NaN are left out."""
    others = np.where(np.eye(len(table), dtype=bool), np.nan, table)
    found = np.isfinite(others).sum(axis=1)
    return np.nansum(others, axis=1) / np.where(found, found, np.nan)


# --------------------------------------------------------- deletion and insertion


def covered(picture: np.ndarray, cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The picture with some cells of a grid of `shape` in the colour of its border.

    `cells` are numbers of cells, row by row.
    """
    size = picture.shape[0]
    hidden = np.zeros(shape, bool)
    hidden.ravel()[cells] = True
    rows, columns = (np.arange(size) * side // size for side in shape)
    changed = picture.copy()
    changed[hidden[rows][:, columns]] = border_colour(picture)
    return changed


def deletion_and_insertion(
    logits: Callable, pixels: np.ndarray, heat: np.ndarray, sign: np.ndarray, steps: int, seed: int
) -> pd.DataFrame:
    """Logits while cells of the map's grid are covered, or uncovered, one after the other.

    `logits(pixels, rows)` judges pictures, `rows` says of which images they are; `sign` is +1
    where M is explained. Rows: `image` (number), `curve`, `order` (`heat` or `random`), `share`
    of cells covered or uncovered, `logit` toward the explained class.
    """
    rng, shape, table = np.random.default_rng(seed), heat.shape[1:], []
    count = shape[0] * shape[1]
    shares = np.linspace(0, 1, steps + 1)
    each = list(zip(pixels, heat, strict=True))
    for image, (picture, heat_of) in enumerate(progress(each, "covering")):
        orders = {"heat": np.argsort(-heat_of.ravel(), kind="stable")}
        orders["random"] = rng.permutation(count)
        changed, about = [], []
        for order, cells in orders.items():
            for share in shares:
                done = round(share * count)
                for curve, hidden in (("deletion", cells[:done]), ("insertion", cells[done:])):
                    changed.append(covered(picture, hidden, shape))
                    about.append((image, curve, order, share))
        found = sign[image] * logits(np.stack(changed), np.full(len(changed), image))
        table += [(*row, float(z)) for row, z in zip(about, found, strict=True)]
    return pd.DataFrame(table, columns=["image", "curve", "order", "share", "logit"])


def from_curves(rows: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The mean logit along each curve, by heat (`value`) and in random order (`chance`)."""
    area = curves.groupby(["curve", "image", "order"])["logit"].mean().unstack("order")
    parts = [
        values_of(curve, rows.iloc[: len(part)], part["heat"].array, part["random"].array)
        for curve, part in area.groupby("curve")
    ]
    return pd.concat(parts)


# -------------------------------------------------------------------- likeness


def likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each map with its other, (n, rows, columns) twice: shape (n,).

    NaN where a map is the same everywhere: a map of one cell says nothing about places.
    """
    found = np.full(len(one), np.nan)
    for k, pair in enumerate(zip(one, other, strict=True)):
        if all(np.ptp(each) > 0 for each in pair):
            found[k] = spearmanr(*(each.ravel() for each in pair)).statistic
    return found


def likeness_to_others(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean likeness of each map of `one` to those of `other` at other places: shape (n,)."""
    count = len(one)
    table = [likeness(np.repeat(each[None], count, axis=0), other) for each in one]
    return of_others(np.array(table))


def turned_back(heat: np.ndarray, orientation: int) -> np.ndarray:
    """Maps of pictures in an orientation, (n, rows, columns), turned to lie as taken.

    The rows of a map follow the picture, so it is turned as the picture was, the other way.
    """
    back = np.rot90(heat, -(orientation % 4), axes=(-2, -1))
    return np.flip(back, axis=-1) if orientation >= 4 else back


def of_turned_copies(heat: Callable, pixels: np.ndarray, as_taken: np.ndarray) -> np.ndarray:
    """The mean likeness of the maps of the 7 turned copies to the map as taken, shape (n,).

    `heat(pixels)` explains pictures of the same images.
    """
    turned = [
        likeness(as_taken, turned_back(heat(orient(pixels, orientation)), orientation))
        for orientation in range(1, 8)
    ]
    return np.mean(turned, axis=0)


def by_cell(attributions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Attributions of pixels, (n, size, size), summed over a grid of `shape`: (n, *shape)."""
    rows = np.array_split(attributions, shape[0], axis=1)
    cells = [[part.sum(axis=(1, 2)) for part in np.array_split(row, shape[1], 2)] for row in rows]
    return np.moveaxis(np.array(cells), 2, 0)


# --------------------------------------------------------------------- summary


def summarize(values: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A row a check: means of `value` and `chance`, their `difference` with its 95 % interval.

    `passed` is `yes` where the interval lies wholly on the right side of 0, `no` where it does
    not, and `unclear` where there is none: too few groups, or images all alike. Images for which
    a check has no value are left out; `images` and `groups` count the others.
    """
    table = []
    for check in filter(set(values["check"]).__contains__, CHECKS):
        rows = values[values["check"] == check].dropna(subset=["value", "chance"])
        about = CHECKS[check]
        difference = (rows["value"] - rows["chance"]).to_numpy(float)

        def mean(weights, difference=difference):
            return {"difference": weights @ difference / weights.sum(axis=1)}

        low, high = np.nan, np.nan
        if len(rows) and rows["label"].nunique() == 2:
            drawn = over_draws(rows, group_weights(rows, seed=seed), mean)
            low, high = with_width(percentile_interval(drawn["difference"]))
        right = (low > 0) if about.better > 0 else (high < 0)
        passed = "unclear" if np.isnan(low) else "yes" if right else "no"
        row = {"check": check, "asks": about.asks, "value": rows["value"].mean()}
        row |= {"chance": rows["chance"].mean(), "chance_of": about.chance}
        row |= {"difference": difference.mean() if len(rows) else np.nan}
        row |= {"difference_low": low, "difference_high": high, "passed": passed}
        table.append(row | {"images": len(rows), "groups": rows["group"].nunique()})
    return pd.DataFrame(table)


def in_words(table: pd.DataFrame) -> list[str]:
    """A sentence a network: which checks its heatmaps passed, and which they did not."""
    sentences = []
    for name, rows in table.groupby("architecture", sort=False):
        failed, unknown = (
            rows.loc[rows["passed"] == word, "check"].tolist() for word in ("no", "unclear")
        )
        passed = (rows["passed"] == "yes").sum()
        words = f"{NETWORK_TITLE[name]}: {passed} of {len(rows)} checks passed."
        if failed:
            words += f" NOT PASSED: {'; '.join(failed)}. There its heatmaps are no evidence."
        if unknown:
            words += " Not to be told from these images, since they or their groups are too few "
            words += f"or too alike: {'; '.join(unknown)}."
        sentences.append(words)
    return sentences
