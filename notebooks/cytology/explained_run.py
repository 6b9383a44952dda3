"""The explanations of a run: every check of one network, the images worth showing, neighbours."""

from pathlib import Path

import numpy as np
import pandas as pd

from cytology.evaluation import OUT_OF_FOLD
from cytology.explanation import Explained, over_image, over_square, sign_of
from cytology.explanation_checks import (
    by_cell,
    deletion_and_insertion,
    from_curves,
    likeness,
    likeness_to_others,
    nuclei_in_square,
    of_turned_copies,
    on_nuclei,
    values_of,
)
from cytology.heads import read_heads
from cytology.inference import load_trained
from cytology.metrics import THRESHOLD
from cytology.neighbours import Reference, nearest
from cytology.pipeline import DecodedImages
from cytology.quality import open_rgb

SHUFFLES = 3
STEPS = 7  # of covering: the cells of a map, a seventh of them at a time
PATH_STEPS = 16  # of integrated gradients
CALIBRATION_BATCH = 8


def explained_network(
    run: Path, name: str, on: str, layer: str = "", method: str = "gradcam"
) -> Explained:
    """The network `name` of a run, with the heads of its folds where it is judged out-of-fold."""
    heads = read_heads(run, name) if on == OUT_OF_FOLD else None
    return Explained(load_trained(run, name)[0], heads, layer, method)


def folds_of(explained: Explained, images: pd.DataFrame) -> np.ndarray | None:
    """Whose heads judge `images`; None where the network has one head for all."""
    return None if "" in explained.heads else images["fold"].astype(int).to_numpy()


def called(logits: np.ndarray) -> np.ndarray:
    """The class at probability 0.5."""
    return np.where(logits >= 0, "M", "B")


# ---------------------------------------------------------------------- checks


def check_network(
    explained: Explained,
    images: pd.DataFrame,
    decoded: DecodedImages,
    few: int,
    root: Path,
    fit: str,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """All checks of one network: (a row an image and check, curves, miss of completeness).

    `images` has `image_id, group, label, fold`, and `mask` where nuclei are known. The class that
    the network calls is explained. The checks that need many passes take the first `few` images.
    """
    pixels = decoded.batch(images["image_id"], np.zeros(len(images), int))
    folds = folds_of(explained, images)
    toward = called(explained.logits(pixels, folds))
    heat = explained.heat(pixels, toward, folds)
    values = [shuffled(explained, images, pixels, toward, heat, seed)]
    if (images.get("mask", pd.Series("")) != "").all():
        masks = [nuclei_in_square(root / path, decoded.size, fit) for path in images["mask"]]
        squares = np.stack([over_square(each, decoded.size) for each in heat])
        values.append(on_nuclei(images, squares, *map(np.stack, zip(*masks, strict=True))))
    first = images.head(few)
    pixels, toward, heat = pixels[:few], toward[:few], heat[:few]
    folds = folds_of(explained, first)

    def judge(pictures, of):
        return explained.logits(pictures, None if folds is None else folds[of])

    curves = deletion_and_insertion(judge, pixels, heat, sign_of(toward), STEPS, seed)
    values.append(from_curves(first, curves))
    turned = of_turned_copies(
        lambda pictures: explained.heat(pictures, toward, folds), pixels, heat
    )
    values.append(values_of("turned copies", first, turned, likeness_to_others(heat, heat)))
    found, missed = explained.integrated_gradients(pixels, toward, folds, PATH_STEPS)
    cells = by_cell(np.abs(found), heat.shape[1:])  # where it looked, for or against the class
    second = likeness(cells, heat), likeness_to_others(cells, heat)
    values.append(values_of("integrated gradients", first, *second))
    return pd.concat(values, ignore_index=True), curves, float(np.median(missed))


def shuffled(explained, images, pixels, toward, heat, seed: int) -> pd.DataFrame:
    """How alike the heat of networks with shuffled weights is; it should be below one half."""
    folds = folds_of(explained, images)
    batches = [pixels[k : k + CALIBRATION_BATCH] for k in range(0, len(pixels), CALIBRATION_BATCH)]
    heads = [
        likeness(heat, explained.with_shuffled_heads(seed + k).heat(pixels, toward, folds))
        for k in range(SHUFFLES)
    ]
    network = explained.with_shuffled_weights(batches, seed).heat(pixels, toward, folds)
    return pd.concat(
        [
            values_of("shuffled head", images, np.mean(heads, axis=0), 0.5),
            values_of("shuffled network", images, likeness(heat, network), 0.5),
        ]
    )


# --------------------------------------------------------------------- to show


def telling_images(rows: pd.DataFrame, each: int = 3) -> pd.DataFrame:
    """The surest right and wrong answers and the least sure: `kind` is right, wrong or unsure.

    `rows` are judged predictions. Within a kind one image a group, both classes in turn.
    """
    rows = rows.assign(predicted=np.where(rows["probability"] >= THRESHOLD, "M", "B"))
    right, sure = rows["predicted"] == rows["label"], rows["logit"].abs()
    kinds = {
        "right": rows[right].assign(order=-sure),
        "wrong": rows[~right].assign(order=-sure),
        "unsure": rows.assign(order=sure),
    }
    found = []
    for kind, part in kinds.items():
        part = part.sort_values("order", kind="stable").drop_duplicates("group")
        in_turn = part.groupby("predicted").cumcount()
        part = part.iloc[np.argsort(in_turn, kind="stable")]
        found.append(part.head(each).assign(kind=kind))
    table = pd.concat(found, ignore_index=True)
    return table.drop_duplicates("image_id", ignore_index=True).drop(columns="order")


def heat_over_images(
    explained: Explained, rows: pd.DataFrame, decoded: DecodedImages, root: Path, fit: str
) -> list[np.ndarray]:
    """Heat toward the `predicted` class over each original image, shapes (height, width)."""
    pixels = decoded.batch(rows["image_id"], np.zeros(len(rows), int))
    maps = explained.heat(pixels, rows["predicted"], folds_of(explained, rows))
    sizes = [open_rgb(root / image_id).size for image_id in rows["image_id"]]
    return [
        over_image(each, *size, decoded.size, fit) for each, size in zip(maps, sizes, strict=True)
    ]


def neighbours_of(
    rows: pd.DataFrame, values: np.ndarray, known: Reference, count: int
) -> pd.DataFrame:
    """The nearest known images of other groups: `image_id, rank, neighbour, label, group, distance`.

    `values` are the features of `rows` (`image_id`, `group`), shape (n, width).
    """
    distances, order = nearest(known, values, count, rows["group"])
    table = []
    for image_id, near, positions in zip(rows["image_id"], distances, order, strict=True):
        for rank, (distance, place) in enumerate(zip(near, positions, strict=True), start=1):
            other = known.table.iloc[place]
            if np.isfinite(distance):
                row = {"image_id": image_id, "rank": rank, "neighbour": other["image_id"]}
                row |= {"label": other["label"], "group": other["group"]}
                table.append(row | {"distance": float(distance)})
    columns = ["image_id", "rank", "neighbour", "label", "group", "distance"]
    return pd.DataFrame(table, columns=columns)
