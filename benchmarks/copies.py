"""How many copies of an image are found, by rings or by frozen features.

    python benchmarks/copies.py FOLDER
    python benchmarks/copies.py FOLDER --weights W

Makes copies of every image below FOLDER in memory, one of each kind in `KINDS`, searches for them
among all originals and copies, and prints the share that was joined with its original, and how many
pairs of different originals were joined. With `--weights`, a file or a folder of files as for the
notebooks, the nearest neighbours by frozen MobileNetV2 features are searched in the same pictures,
and confirmed by the same registration.
"""

import argparse
import hashlib
import io
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, ImageDraw, ImageEnhance

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from cytology.data import copies
from cytology.data.augmentation import fit_to_square, orient
from cytology.data.images.opening import UnreadableImage, open_rgb
from cytology.data.sources.listing import find_files
from cytology.networks.weights import given_file
from cytology.runner import streams


def encoded(image: Image.Image) -> Image.Image:
    """The image after JPEG of quality 90."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return open_rgb(stream.getvalue())


def tilted(image: Image.Image, angle: float, corners: str) -> Image.Image:
    """Rotated about its centre on a canvas of the same size; corners `black` or `mirrored`."""
    if corners == "black":
        return image.rotate(angle, Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    border = min(image.size) - 1
    wide = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="reflect")
    turned = Image.fromarray(wide).rotate(angle, Image.Resampling.BILINEAR)
    return turned.crop((border, border, border + image.width, border + image.height))


def zoomed(image: Image.Image, factor: float, shift: float = 0.0) -> Image.Image:
    """The middle of the image enlarged; `shift` moves the middle by a share of the width."""
    width, height = image.width / factor, image.height / factor
    left = (image.width - width) / 2 + shift * image.width
    frame = (left, (image.height - height) / 2, left + width, (image.height + height) / 2)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=frame)


def shifted(image: Image.Image, share: float) -> Image.Image:
    """Moved to the right by a share of the width; the gap is mirrored."""
    pixels, by = np.asarray(image), round(share * image.width)
    return Image.fromarray(np.pad(pixels, ((0, 0), (by, 0), (0, 0)), "reflect")[:, : image.width])


def with_scale_bar(image: Image.Image) -> Image.Image:
    """A black bar in the lower right, as microscope software draws it."""
    image, (width, height) = image.copy(), image.size
    corners = (0.6 * width, 0.8 * height, 0.85 * width, 0.85 * height)
    ImageDraw.Draw(image).rectangle(corners, fill="black")
    return image


WHITE = "45 degrees, white canvas"
KINDS = {
    "8 orientations, mean": None,
    **{
        f"{angle} degrees, {corners} corners": lambda image, a=angle, c=corners: tilted(image, a, c)
        for angle in (10, 20, 45)
        for corners in ("black", "mirrored")
    },
    "stretched to a square": lambda image: image.resize((224, 224)),
    "stretched, then 20 degrees": lambda image: tilted(image.resize((224, 224)), 20, "black"),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter by a fifth": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "zoomed by 2 %": lambda image: zoomed(image, 1.02),
    "zoomed by 10 %": lambda image: zoomed(image, 1.10),
    "shifted by 2 %": lambda image: shifted(image, 0.02),
    "shifted by 10 %": lambda image: shifted(image, 0.10),
    "20 degrees, larger canvas": lambda image: image.rotate(20, expand=True),
    "45 degrees, larger canvas": lambda image: image.rotate(45, expand=True),
    WHITE: lambda image: image.rotate(45, expand=True, fillcolor="white"),
    "scale bar": with_scale_bar,
}


def pictures_of(path: Path) -> list[tuple[str, bytes, np.ndarray]]:
    """(kind, discs, 224 x 224 pixels) of the image and of each of its copies."""
    try:
        image = open_rgb(path)
    except UnreadableImage:
        return []
    made = [("original", image)]
    for number in range(1, 8):
        turned = np.ascontiguousarray(orient(np.asarray(image), number))
        made.append(("8 orientations, mean", encoded(Image.fromarray(turned))))
    made += [(kind, encoded(make(image))) for kind, make in KINDS.items() if make]
    return [(kind, copies.discs(each), fit_to_square(each, 224, "pad")) for kind, each in made]


def report(title: str, pictures: pd.DataFrame, found: pd.DataFrame, seconds: float) -> None:
    """Print recall by kind, and the joined pairs of different originals."""
    family = copies.family_of(pictures["image_id"], found)
    of_original = family[pictures["kind"] == "original"].set_axis(
        pictures["original"][pictures["kind"] == "original"]
    )
    joined = family == pictures["original"].map(of_original)
    print(f"\n{title}: {seconds:.1f} s for {len(pictures):,} pictures")
    for kind in KINDS:
        print(f"  {kind:32} {joined[pictures['kind'] == kind].mean():7.2%}")
    for title, rows in (
        ("joined pairs of different originals", pictures),
        ("  without those on a white canvas", pictures[pictures["kind"] != WHITE]),
    ):
        wrong, pairs = joined_pairs(rows.assign(family=family))
        print(f"  {title:36} {wrong:,} of {pairs:,}")


def joined_pairs(pictures: pd.DataFrame) -> tuple[int, int]:
    """Pairs within the families: those of different originals, and all."""

    def pairs_in(sizes: pd.Series) -> int:
        return int((sizes * (sizes - 1) // 2).sum())

    of_one = pictures.groupby(["family", "original"]).size()
    joined = pairs_in(of_one.groupby("family").sum())
    return joined - pairs_in(of_one), joined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", help="MobileNetV2 without its top: a file, or its folder")
    parser.add_argument("--most", type=int, default=1000, help="maximum number of images")
    arguments = parser.parse_args()
    weights = given_file("mobilenetv2", arguments.weights) if arguments.weights else None
    if arguments.weights and not weights:
        parser.error(f"--weights: no file for MobileNetV2 in {arguments.weights}")
    paths = find_files(arguments.folder)[0][: arguments.most]
    made = Parallel(n_jobs=-1)(delayed(pictures_of)(path) for path in paths)
    rows = [
        (f"{number:05}-{k:02}", number, kind, discs, hashlib.sha256(pixels).hexdigest())
        for number, copies_of_one in enumerate(made)
        for k, (kind, discs, pixels) in enumerate(copies_of_one)
    ]
    pictures = pd.DataFrame(rows, columns=["image_id", "original", "kind", "discs", "sha256"])
    started = time.perf_counter()
    report("rings", pictures, copies.find_copies(pictures), time.perf_counter() - started)
    if weights:
        from cytology.networks.building import build, feature_extractor

        pixels = np.stack([each[2] for copies_of_one in made for each in copies_of_one])
        started = time.perf_counter()
        extractor = feature_extractor(build("mobilenetv2", 224, weights))
        features = extractor.predict(pixels, batch_size=64, verbose=0)
        features /= np.linalg.norm(features, axis=1, keepdims=True)

        # The same search and registration, with another measure of similarity.
        class ByFeatures(copies.Discs):
            def __init__(self, of_images):
                super().__init__(of_images)
                self.shape = features[self.owner]

        copies.Discs = ByFeatures
        found = copies.find_copies(pictures)
        report("frozen features", pictures, found, time.perf_counter() - started)


if __name__ == "__main__":
    streams.prepare()
    main()
