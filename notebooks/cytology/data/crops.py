"""Crops of one cell: is the cell in the middle, or is half of the picture empty?

Darkness is optical density, counted from the image's own background: how much of its light is
missing, whatever the stain.
"""

import numpy as np
import pandas as pd
from scipy import ndimage

SIDE = 64  # pixels a side of the picture that is measured
MIDDLE = slice(SIDE // 4, SIDE - SIDE // 4)
BACKGROUND = 95  # percentile of light that counts as background
FAINT = 0.15  # of the density of the dark pixels: with less a pixel is empty

# A set of crops: in nearly every image the middle is clearly darker than the rest. Measured, share
# of such images: 0.96 of 837 Herlev crops; of fields of view 0.47 (UCSB), 0.21 (drawn sample).
DARKER, MOST, FEWEST_IMAGES = 1.25, 0.8, 20
# In such a set a crop is badly cut beyond one of these limits; one of the Herlev crops is, and 93 %
# of them when they are moved by half a side (`benchmarks/quality_limits.py`).
PALE_MIDDLE, EMPTY_HALF = 0.8, 0.05


def measure(pixels: np.ndarray) -> dict[str, float]:
    """`middle` and `emptiest_half` of an RGB picture of shape (SIDE, SIDE, 3).

    `middle` is the mean density of the middle (half of width and height) over that of the rest.
    `emptiest_half` is the smallest share of pixels that are not empty in the left, right, upper or
    lower half. Both are 1 if all pixels are alike.
    """
    light = pixels.astype(np.float32) + 1
    missing = np.log10(np.percentile(light, BACKGROUND, axis=(0, 1)) / light).clip(0)
    density = ndimage.uniform_filter(missing.sum(axis=2), 3, mode="nearest")
    level = density[density >= otsu(density)].mean()
    if level == 0:
        return {"middle": 1.0, "emptiest_half": 1.0}
    is_middle = np.zeros(density.shape, bool)
    is_middle[MIDDLE, MIDDLE] = True
    full, half = density > FAINT * level, SIDE // 2
    halves = full[:half], full[half:], full[:, :half], full[:, half:]
    rest = max(density[~is_middle].mean(), 0.01 * level)
    return {
        "middle": round(float(density[is_middle].mean() / rest), 3),
        "emptiest_half": round(float(min(each.mean() for each in halves)), 4),
    }


def otsu(values: np.ndarray) -> float:
    """The smallest value above Otsu's threshold (1979, doi 10.1109/TSMC.1979.4310076).

    The threshold splits the values so that the variance between the two parts is largest.
    """
    ordered = np.sort(values, axis=None).astype(float)
    low, sums = np.arange(1, len(ordered)), np.cumsum(ordered)
    between = (len(ordered) * sums[:-1] - low * sums[-1]) ** 2 / (low * (len(ordered) - low))
    return float(ordered[between.argmax() + 1])


def are_crops(images: pd.DataFrame) -> bool:
    """Whether the images are crops of one cell each, judged by their column `middle`."""
    return len(images) >= FEWEST_IMAGES and bool((images["middle"] > DARKER).mean() >= MOST)


def badly_cut(images: pd.DataFrame) -> pd.DataFrame:
    """The rows of `images` that are badly cut, worst first, with a `detail`; only for such crops.

    Fields of view may have a bright middle. `images` has `middle` and `emptiest_half`.
    """
    pale, empty = images["middle"] < PALE_MIDDLE, images["emptiest_half"] < EMPTY_HALF
    found = images[(pale | empty) & are_crops(images)].sort_values("middle", kind="stable")
    words = "middle {:.2f} times as dark as the rest, emptiest half {:.0%} full"
    rows = zip(found["middle"], found["emptiest_half"], strict=True)
    return found.assign(detail=[words.format(*row) for row in rows])


def in_words(images: pd.DataFrame) -> str:
    """Whether the images seem to be crops, why, and how many are badly cut, in sentences."""
    if len(images) < FEWEST_IMAGES:
        return f"With fewer than {FEWEST_IMAGES} images, crops and fields of view look alike."
    darker = f"{(images['middle'] > DARKER).mean():.0%} of the images have a clearly darker middle"
    if not are_crops(images):
        return f"{darker}, fewer than {MOST:.0%}: they are not taken for crops of one cell."
    return (
        f"{darker}: they are taken for crops of one cell. "
        f"{len(badly_cut(images)):,} of {len(images):,} are badly cut."
    )
