"""The explanations of a run: the checks of a network, images worth showing, neighbours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.data.augmentation import fit_to_square
from cytology.data.images.opening import open_rgb
from cytology.evaluation.judged import OUT_OF_FOLD, judged_networks
from cytology.evaluation.predictions import surest_of_groups
from cytology.evaluation.statistics.metrics import THRESHOLD
from cytology.explanation import checks
from cytology.explanation.heatmaps import ExplainedNetwork, over_image, over_square, sign_of
from cytology.inference.similarity import nearest, reference
from cytology.networks.batches import decode
from cytology.networks.building import CALIBRATION_BATCH
from cytology.networks.linear_head import read_heads
from cytology.networks.model_files import features_of_model, load_trained, passes_of_model
from cytology.run import Run

SHUFFLES = 3
COVERING_STEPS = 7  # a seventh of the cells of a map at a time
PATH_STEPS = 16  # of integrated gradients


def explained_network(run: Run, name: str, on: str, layer: str = "") -> ExplainedNetwork:
    """The network `name` of a run, with the heads of its folds if it is judged out-of-fold."""
    heads = read_heads(run, name) if on == OUT_OF_FOLD else None
    model, _ = load_trained(run, name)
    return ExplainedNetwork(model, heads, layer, passes_of_model(run, model))


def _head_folds(explained: ExplainedNetwork, images: pd.DataFrame) -> np.ndarray | None:
    """The folds of the heads that judge `images`; None if the network has a single head."""
    return None if "" in explained.heads else images["fold"].astype(int).to_numpy()


# ---------------------------------------------------------------------- checks


def check_network(
    run: Run, explained: ExplainedNetwork, images: pd.DataFrame, few: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """All checks of a network: (one row per image, check and map; curves; completeness errors).

    The column `map` is the network's, or noise in its place. `images` has `image_id, group, label,
    fold`, and `mask` if nuclei are known. The predicted class is explained. Checks that need many
    passes use the first `few` images.
    """
    name, root = explained.model.name, run.images
    size, fit = run.about(name)["image_size"], run.about(name)["fit"]
    decoded = decode(root, run.manifest, size, fit)
    pixels = decoded.batch(images["image_id"], np.zeros(len(images), int))
    folds, rng = _head_folds(explained, images), np.random.default_rng(seed)
    toward = np.where(explained.logits(pixels, folds) >= 0, "M", "B")
    heat = explained.heat(pixels, toward, folds)
    maps = {checks.NETWORK: heat, checks.NOISE: checks.noise_maps(heat.shape, rng)}
    values = [*shuffled_weights_check(explained, images, pixels, toward, maps, seed)]
    if (images.get("mask", pd.Series("")) != "").all():
        masks = [checks.nuclei_in_square(root / path, size, fit) for path in images["mask"]]
        nuclei, inside = (np.stack(each) for each in zip(*masks, strict=True))
        for of, each in maps.items():
            squares = np.stack([over_square(one, size) for one in each])
            values.append(checks.on_nuclei(images, squares, nuclei, inside).assign(map=of))
    first, pixels, toward = images.head(few), pixels[:few], toward[:few]
    maps = {of: each[:few] for of, each in maps.items()}
    folds = _head_folds(explained, first)

    def judge(pictures, which):
        return explained.logits(pictures, None if folds is None else folds[which])

    curves = checks.covering_curves(judge, pixels, maps, sign_of(toward), COVERING_STEPS, seed)
    found, missed = explained.integrated_gradients(pixels, toward, folds, PATH_STEPS)
    # Where the network looked, for or against the class.
    cells = checks.by_cell(np.abs(found), heat.shape[1:])
    of_copies = {
        checks.NETWORK: lambda pictures: explained.heat(pictures, toward, folds),
        checks.NOISE: lambda pictures: checks.noise_maps(maps[checks.NOISE].shape, rng),
    }
    for of, each in maps.items():
        turned = checks.correlation_of_turned_copies(of_copies[of], pixels, each)
        second = checks.map_correlation(cells, each), checks.correlation_with_others(cells, each)
        parts = [
            checks.mean_logits_of_curves(first, curves, of),
            checks.values_of(
                "turned copies", first, turned, checks.correlation_with_others(each, each)
            ),
            checks.values_of("integrated gradients", first, *second),
        ]
        values += [part.assign(map=of) for part in parts]
    table = pd.concat(values, ignore_index=True).assign(architecture=name)
    return table, curves.assign(architecture=name), float(np.median(missed))


def shuffled_weights_check(
    explained, images, pixels, toward, maps: dict, seed: int
) -> list[pd.DataFrame]:
    """Correlation of maps with heat from shuffled weights; it should be below one half."""
    folds = _head_folds(explained, images)
    batches = [pixels[k : k + CALIBRATION_BATCH] for k in range(0, len(pixels), CALIBRATION_BATCH)]
    heads = [
        explained.with_shuffled_heads(seed + k).heat(pixels, toward, folds) for k in range(SHUFFLES)
    ]
    network = explained.with_shuffled_weights(batches, seed).heat(pixels, toward, folds)
    found = []
    for name, each in maps.items():
        alike = np.mean([checks.map_correlation(each, other) for other in heads], axis=0)
        found.append(checks.values_of("shuffled head", images, alike, 0.5).assign(map=name))
        alike = checks.map_correlation(each, network)
        found.append(checks.values_of("shuffled network", images, alike, 0.5).assign(map=name))
    return found


# --------------------------------------------------------------------- to show


def heat_over_files(
    explained: ExplainedNetwork, rows: pd.DataFrame, root: Path, fit: str
) -> list[np.ndarray]:
    """Heat toward the `predicted` class over image files, shapes (height, width)."""
    size, opened = explained.model.input_shape[1], [open_rgb(root / x) for x in rows["image_id"]]
    pixels = np.stack([fit_to_square(image, size, fit) for image in opened])
    maps = explained.heat(pixels, rows["predicted"], _head_folds(explained, rows))
    return [over_image(h, *image.size, size, fit) for h, image in zip(maps, opened, strict=True)]


def picture_and_logits(
    explained: ExplainedNetwork, row: pd.DataFrame, root: Path, fit: str
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """An image as its network sees it, (size, size, 3), and a function for its logits.

    The function takes pictures, (n, size, size, 3), and returns their logits, (n,), by the head
    that judges the image of the one `row`.
    """
    image = open_rgb(root / row["image_id"].iloc[0])
    folds = _head_folds(explained, row)

    def logits(pictures: np.ndarray) -> np.ndarray:
        return explained.logits(pictures, None if folds is None else folds.repeat(len(pictures)))

    return fit_to_square(image, explained.model.input_shape[1], fit), logits


@dataclass(frozen=True)
class PredictionsWithFeatures:
    """The judged predictions of a network, and the pooled features of their images, (n, width).

    `rows` has `image_id, label, group, logit`, `predicted` and whether that is `wrong`.
    """

    rows: pd.DataFrame
    features: np.ndarray

    def telling_examples(self, each: int = 3) -> pd.DataFrame:
        """The most certain right and wrong answers, and the least certain ones.

        `kind` is right, wrong or unsure; within a kind one image per group, the classes in turn.
        """
        sure = self.rows["logit"].abs()
        kinds = {
            "right": self.rows[~self.rows["wrong"]].assign(order=-sure),
            "wrong": self.rows[self.rows["wrong"]].assign(order=-sure),
            "unsure": self.rows.assign(order=sure),
        }
        found = []
        for kind, part in kinds.items():
            part = part.sort_values("order", kind="stable").drop_duplicates("group")
            in_turn = part.groupby("predicted").cumcount()
            part = part.iloc[np.argsort(in_turn, kind="stable")]
            found.append(part.head(each).assign(kind=kind))
        table = pd.concat(found, ignore_index=True)
        return table.drop_duplicates("image_id", ignore_index=True).drop(columns="order")

    def mistakes_and_neighbours(self, count: int, each: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The most certain mistakes, one per group, and their nearest images of other groups.

        The first has a `title`, the second `image_id, rank, neighbour, label, group, distance`.
        """
        known, rows = reference(self.rows, self.features), self.rows.reset_index(drop=True)
        wrong = surest_of_groups(rows[rows["wrong"]], count)
        titles = [f"true {row.label}, called {row.predicted}" for row in wrong.itertuples()]
        table = []
        if len(wrong):
            distances, order = nearest(known, self.features[wrong.index], each, wrong["group"])
            for image_id, near, positions in zip(wrong["image_id"], distances, order, strict=True):
                others = known.table.iloc[positions].rename(columns={"image_id": "neighbour"})
                ranks = range(1, len(near) + 1)
                others = others.assign(image_id=image_id, distance=near, rank=ranks)
                table.append(others[np.isfinite(near)])
        columns = ["image_id", "rank", "neighbour", "label", "group", "distance"]
        found = pd.concat(table)[columns] if table else pd.DataFrame(columns=columns)
        return wrong.assign(title=titles), found


def predictions_with_features(
    run: Run, explained: ExplainedNetwork, on: str
) -> PredictionsWithFeatures:
    """The answers of a network of the run, one per image, with `stain` if the manifest has it."""
    name, manifest = explained.model.name, run.manifest
    known = manifest[["image_id", "sha256", *manifest.columns.intersection(["stain"])]]
    rows = judged_networks(run, on)[name].drop_duplicates("image_id").merge(known, on="image_id")
    predicted = np.where(rows["probability"] >= THRESHOLD, "M", "B")
    rows = rows.assign(predicted=predicted, wrong=predicted != rows["label"])
    return PredictionsWithFeatures(
        rows, features_of_model(run, explained.model, explained.passes, rows)
    )
