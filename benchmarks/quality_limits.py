"""How far good images are from the limits of `quality.poor_picture`, and whether poor ones fail.

    python benchmarks/quality_limits.py FOLDER [FOLDER ...]

Prints, for the images of each folder, the smallest contrast and sharpness and the largest
over-exposed share, how many are called poor, and how many are called poor after blurring (by a
hundredth and by a fiftieth of the longer side), bleaching or brightening.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from cytology.data.images.opening import open_rgb
from cytology.data.quality import measure, poor_picture
from cytology.data.sources.listing import images_below
from cytology.runner import streams


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


def measures(path: Path) -> list[dict]:
    """The measures of an image and of its poor versions."""
    image = open_rgb(path)
    return [{"version": name} | measure(make(image)) for name, make in MADE_POOR.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    for folder in parser.parse_args().folders:
        paths = [folder / name for name in images_below(folder)[0]]
        found = Parallel(n_jobs=-1)(delayed(measures)(path) for path in paths)
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


if __name__ == "__main__":
    streams.prepare()
    main()
