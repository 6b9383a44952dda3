"""How far good images are from the limits of `quality.poor_picture`, and whether poor ones fail.

    python benchmarks/quality_limits.py FOLDER [FOLDER ...]

Prints, for the images of each folder, the smallest contrast and sharpness and the largest
over-exposed share, how many are called poor, and how many are called poor after blurring (by a
hundredth and by a fiftieth of the longer side), bleaching or brightening. Then whether they are
taken for crops of one cell, and how many are called badly cut, as they are and after the cell was
moved to the edge.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from cytology.data import crops
from cytology.data.images.opening import open_rgb
from cytology.data.quality import measure, poor_picture
from cytology.data.sources.listing import images_below
from cytology.runner import streams

NOISE = 4  # grey levels, deviation


def brightened(image: Image.Image, factor: float) -> Image.Image:
    """Every channel times `factor`, clipped at 255."""
    return image.point(lambda level: min(255, round(level * factor)))


MADE_POOR = {
    "as it is": lambda image: image,
    "blurred by 1/100": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)),
    "blurred by 1/50": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 50)),
    "bleached to a twentieth": lambda image: image.point(lambda level: 220 + level // 20),
    "twice as bright": lambda image: brightened(image, 2),
}


def move_right(pixels: np.ndarray) -> np.ndarray:
    """A picture moved to the right by half a side; what is left is background with some noise."""
    half = pixels[:, : crops.SIDE // 2]
    background = np.percentile(pixels, crops.BACKGROUND, axis=(0, 1))
    noisy = background + np.random.default_rng(0).normal(0, NOISE, half.shape)
    return np.hstack([noisy.clip(0, 255).astype(np.uint8), half])


def measures(path: Path) -> tuple[list[dict], dict, dict]:
    """The measures of an image and of its poor versions; those of it as a crop, also when moved."""
    image = open_rgb(path)
    small = np.asarray(image.resize((crops.SIDE, crops.SIDE), Image.Resampling.BOX))
    versions = [{"version": name} | measure(make(image)) for name, make in MADE_POOR.items()]
    return versions, crops.measure(small), crops.measure(move_right(small))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    for folder in parser.parse_args().folders:
        paths = [folder / name for name in images_below(folder)[0]]
        found, as_cut, when_moved = zip(
            *Parallel(n_jobs=-1)(delayed(measures)(path) for path in paths), strict=True
        )
        table = pd.DataFrame([row for rows in found for row in rows])
        names = ["contrast", "sharpness", "overexposed"]
        table["poor"] = [poor_picture(*values) for values in table[names].to_numpy()]
        good = table[table["version"] == "as it is"]
        print(f"\n{folder.name}: {len(good):,} images")
        print(
            f"  smallest contrast {good['contrast'].min():.1f}, smallest sharpness "
            f"{good['sharpness'].min():.3f}, largest over-exposed share "
            f"{good['overexposed'].max():.2f}"
        )
        for version, rows in table.groupby("version", sort=False):
            kinds = rows["poor"].value_counts()
            print(f"  {version:24}", ", ".join(f"{kinds[k]} {k}" for k in kinds.index if k) or "-")
        print(" ", crops.in_words(pd.DataFrame(as_cut)))
        for version, rows in (("as they are", as_cut), ("moved by half", when_moved)):
            beyond = [
                row["middle"] < crops.PALE_MIDDLE or row["emptiest_half"] < crops.EMPTY_HALF
                for row in rows
            ]
            print(f"  {version:24} {sum(beyond)} beyond the limits of a crop")


if __name__ == "__main__":
    streams.prepare()
    main()
