"""Exact augmentation: the 8 orientations of a square, and how an image is made square.

A quarter turn or a flip only moves pixels. Any other angle interpolates and leaves corners to be
filled, and a network can learn those corners.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from cytology.parameters import check_parameters
from cytology.run import Run

# The order matters: `orientations` takes the first 1, 4 or 8.
ORIENTATIONS: tuple[str, ...] = ("as taken", "quarter turn", "half turn", "three-quarter turn")
ORIENTATIONS += ("flipped left-right", "flipped, quarter turn")
ORIENTATIONS += ("flipped top-bottom", "flipped, three-quarter turn")


class Augmentation(NamedTuple):
    """The pictures of a run, as notebook 02 described them."""

    image_size: int
    fit: str
    orientations: int


def augmentation_of(run: Run) -> Augmentation:
    """Size, fit and orientations from `augmentation.json`; `InputError` for impossible values."""
    noted = run.facts("augmentation.json")
    found = Augmentation(*(noted[name] for name in Augmentation._fields))
    check_parameters(found._asdict())
    return found


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn images, shape (..., height, width, channels), into an orientation from 0 to 7.

    A view of the same pixels: nothing is interpolated, nothing is copied.
    """
    if orientation >= 4:
        image = np.flip(image, axis=-2)
    return np.rot90(image, orientation % 4, axes=(-3, -2))


def place_in_square(width: int, height: int, size: int, fit: str) -> tuple[int, int, int, int]:
    """The position of an image of `width` x `height` in its square: left, top, width, height."""
    if fit == "stretch":
        return 0, 0, size, size
    scale = size / max(width, height)
    inside_width, inside_height = (max(1, round(side * scale)) for side in (width, height))
    return (size - inside_width) // 2, (size - inside_height) // 2, inside_width, inside_height


def fit_to_square(image: Image.Image, size: int, fit: str) -> np.ndarray:
    """Resize to (size, size, 3) uint8: `pad` keeps the aspect ratio, `stretch` does not.

    The padding has the median colour of the image's border: a black bar would stand out, and
    mirrored padding would repeat cells.
    """
    left, top, width, height = place_in_square(*image.size, size, fit)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
    square = np.empty((size, size, 3), np.uint8)
    square[:] = border_colour(small)
    square[top : top + height, left : left + width] = small
    return square


def border_colour(pixels: np.ndarray) -> tuple[int, ...]:
    """Median colour of the border of an image of shape (height, width, 3)."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(border, axis=0))


def pictures_of(images: pd.DataFrame, orientations: int) -> pd.DataFrame:
    """Images x orientations: each row of `images` once for every orientation.

    This table is the augmented set; no image files are written.
    """
    turns = pd.DataFrame({"orientation": range(orientations)})
    return images.drop(columns="orientation", errors="ignore").merge(turns, how="cross")


def looks_augmented(images: int, families: int) -> bool:
    """Whether so many images are copies that the set must have been augmented."""
    return images - families > images / 3
