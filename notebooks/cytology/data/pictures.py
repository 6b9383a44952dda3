"""Writes augmented pictures as files, as the original project did."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cytology.data.augmentation import orient
from cytology.data.images.opening import open_rgb
from cytology.data.splitting import SPLITS
from cytology.files import fitting_name
from cytology.notebook import progress


def picture_name(image_id: str) -> str:
    """A unique file name for pictures made from an image.

    Folders and suffix become part of it: `a/1.png`, `b/1.png` and `a/1.jpg` are three.
    """
    name = image_id.replace("/", "__")
    if name.replace("__", "/") == image_id:
        return name
    # `a__b/1.png` and `a/b__1.png` would collide.
    return f"{name}~{hashlib.sha256(image_id.encode()).hexdigest()[:16]}"


def write_pictures(pictures: pd.DataFrame, root: Path, folder: Path) -> int:
    """Write pictures as PNG files `folder/<label>/<image>_o<orientation>.png`; returns how many.

    `pictures` has `image_id`, `label` and `orientation`. Existing files of the same name are
    replaced; others are left alone.
    """
    written = 0
    images = pictures.groupby(["image_id", "label"], sort=False)
    for (image_id, label), rows in progress(images, "writing pictures"):
        pixels = np.asarray(open_rgb(root / image_id))
        target = folder / label
        target.mkdir(parents=True, exist_ok=True)
        name = picture_name(image_id)
        for orientation in rows["orientation"]:
            turned = np.ascontiguousarray(orient(pixels, orientation))
            Image.fromarray(turned).save(target / fitting_name(name, f"_o{orientation}.png"))
            written += 1
    return written


def write_split(pictures: pd.DataFrame, root: Path, folder: Path) -> dict[str, int]:
    """Write pictures as files `folder/train|val|test/B|M`; returns the number in each part."""
    return {
        name: write_pictures(pictures[pictures["split"] == name], root, folder / name)
        for name in SPLITS
    }
