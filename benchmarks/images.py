"""Pictures for the benchmarks: drawn in a temporary folder, or from your own folder."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from benchmarks.registry import Options
from cytology.data.augmentation import orient
from cytology.data.load import load
from cytology.data.sources.sample import draw_smear, patient_cards
from cytology.files import file_hash
from cytology.machine import cores

SMEARS = 16  # drawn one by one; each picture of a benchmark is one of them, moved and noisy


def large_jpegs(options: Options, folder: Path, images: int) -> tuple[Path, pd.DataFrame, str]:
    """Files in `folder`, in B and M: (root, manifest, a sentence that describes them).

    Copies of files of `options.data`, else drawn JPEGs of 1,000 x 750 pixels; at most `images`.
    """
    images = options.images or images
    if not options.data:
        draw_jpegs(folder, images, width=1000, height=750)
        about = f"Images: {images:,} drawn JPEGs of 1,000 x 750 pixels, no medical data."
        return folder, manifest_of(folder), about
    manifest = manifest_of(options.data).iloc[:images]
    for number, (image_id, label) in enumerate(manifest[["image_id", "label"]].to_numpy()):
        copy = folder / label / f"{number:05}{Path(image_id).suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.data / image_id, copy)
    return folder, manifest_of(folder), f"Images: {len(manifest):,} of {options.data}."


def manifest_of(root: Path) -> pd.DataFrame:
    """`image_id`, `label`, `sha256` of the images below `root`, in random order.

    So the first of them have both classes.
    """
    images = load(str(root)).images[["image_id", "label"]]
    hashes = [file_hash(root / image_id) for image_id in images["image_id"]]
    return images.assign(sha256=hashes).sample(frac=1, random_state=0).reset_index(drop=True)


def draw_jpegs(folder: Path, images: int, width: int, height: int) -> None:
    """Draw smears of `width` x `height` pixels into `folder/B` and `folder/M`."""
    rng = np.random.default_rng(0)
    cards = patient_cards(SMEARS, rng)
    # Half the size: the time to draw depends on the number of pixels, and noise is added later.
    smears = Parallel(n_jobs=cores())(
        delayed(draw_smear)(card, np.random.default_rng(number), height // 2, width // 2)
        for number, card in enumerate(cards)
    )
    for label in "BM":
        (folder / label).mkdir(parents=True)
    for number in range(images):
        smear = number % SMEARS
        picture = Image.fromarray(smears[smear][0]).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = vary_picture(np.asarray(picture), rng)
        path = folder / cards[smear]["label"] / f"{number:05}.jpg"
        Image.fromarray(pixels).save(path, quality=90)


def vary_picture(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture half turned or flipped, moved around its edges, with sensor noise."""
    turned = orient(pixels, rng.choice([0, 2, 4, 6]))
    moved = np.roll(turned, rng.integers(0, pixels.shape[:2]), axis=(0, 1))
    noise = rng.normal(0, 4, pixels.shape)
    return np.clip(moved + noise, 0, 255).astype(np.uint8)


def small_jpegs(folder: Path, images: int, size: int = 96) -> pd.DataFrame:
    """Write `images` JPEGs of coloured noise, `size` pixels a side; returns their manifest."""
    rng = np.random.default_rng(0)
    for label in "BM":
        (folder / label).mkdir(parents=True)
    rows = []
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        stream = io.BytesIO()
        coarse.resize((size, size), Image.Resampling.BILINEAR).save(stream, "JPEG", quality=85)
        name, content = f"{'BM'[number % 2]}/{number:05}.jpg", stream.getvalue()
        (folder / name).write_bytes(content)
        rows.append((name, name[0], hashlib.sha256(content).hexdigest()))
    return pd.DataFrame(rows, columns=["image_id", "label", "sha256"])
