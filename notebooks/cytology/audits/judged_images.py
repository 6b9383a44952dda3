"""Which images audits and explanations judge, their features, and how a network sees them."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.cluster import KMeans

from cytology.audits.shifts import FramedSmear, lab_pixels
from cytology.data.augmentation import pictures_of, place_in_square
from cytology.data.images.opening import open_rgb
from cytology.data.splitting import read_split
from cytology.networks.features import Features, features_in_cache, key_of_run
from cytology.notebook import progress
from cytology.run import Run
from cytology.settings import InputError


def networks_to_judge(run: Run, wanted: str = "all") -> list[str]:
    """The network `wanted` of a run, or all; `InputError` if it was not trained."""
    names = [name for name in run.networks if wanted in ("all", name)]
    if not names:
        which = "" if wanted == "all" else f" {wanted}"
        raise InputError(f"{run} holds no trained network{which}: run notebook 04, 05 or 06 first.")
    return names


def choose_judged_images(run: Run, on: str, most: int, seed: int) -> pd.DataFrame:
    """At most `most` images to judge: `image_id, group, label, fold, sha256`.

    With `stain` and `mask` where the manifest has them. Both classes in turn as long as they last,
    and within a class one image of each group before the second of any. A smaller `most` gives the
    first of them. Raises `InputError` where fewer than two groups can be judged.
    """
    split, manifest = read_split(run), run.manifest
    rows = split[(split["split"] == "test") == (on == "test")].drop_duplicates("image_id")
    known = manifest[["image_id", "sha256", *manifest.columns.intersection(["stain", "mask"])]]
    images = rows[["image_id", "group", "label", "fold"]].merge(known, on="image_id")
    images = images.drop_duplicates("sha256").sort_values("image_id")
    images = images.sample(frac=1, random_state=seed)
    of_group = images.groupby(["label", "group"]).cumcount()
    images = images.iloc[np.argsort(of_group, kind="stable")]
    in_turn = images.groupby("label").cumcount()
    images = images.iloc[np.lexsort([images["label"], in_turn])].head(most)
    if images["group"].nunique() < 2 or images["label"].nunique() < 2:
        raise InputError(
            "Shifts need images of two groups and of both classes, and the images that can be "
            "judged have fewer: gather images of more patients."
        )
    return images.reset_index(drop=True)


def open_smears(root: Path, images: pd.DataFrame, size: int, fit: str) -> list[FramedSmear]:
    """The chosen images as they lie in a square of `size`, with their stain groups."""
    smears = []
    for row in progress(list(images.itertuples()), "opening"):
        image = open_rgb(root / row.image_id)
        # As `fit_to_square` does it, so that untouched pictures are pixel by pixel its own.
        inside = place_in_square(*image.size, size, fit)[2:]
        small = image.resize(inside, Image.Resampling.BILINEAR, reducing_gap=3.0)
        smears.append(FramedSmear(small, row.sha256))
    return with_stains(smears, images)


def with_stains(smears: list[FramedSmear], images: pd.DataFrame) -> list[FramedSmear]:
    """The smears with the colours of their own and of the other stain group.

    The groups are the values of the column `stain`; where it has no two, or misses one, two
    clusters (k-means) of the mean Lab of each `group`: "darker" and "lighter". The colours of a
    group are the means over its images. Of more than two groups, the other is the one whose mean
    is furthest away.
    """
    labs = [lab_pixels(smear.image).reshape(-1, 3) for smear in smears]
    colours = np.array([[lab.mean(axis=0), lab.std(axis=0)] for lab in labs])
    stain = images.get("stain", pd.Series("", index=images.index))
    if stain.nunique() < 2 or (stain == "").any():
        means = pd.DataFrame(colours[:, 0]).groupby(images["group"].to_numpy()).mean()
        found = KMeans(2, n_init=10, random_state=0).fit(means)
        darker = np.argmin(found.cluster_centers_[:, 0])
        names = np.where(found.labels_ == darker, "darker", "lighter")
        stain = images["group"].map(pd.Series(names, index=means.index))
    stain = stain.to_numpy()
    of_stain = {name: colours[stain == name].mean(axis=0) for name in np.unique(stain)}

    def distance(one, other):
        return np.linalg.norm(of_stain[one][0] - of_stain[other][0])

    other = {name: max(of_stain, key=functools.partial(distance, name)) for name in of_stain}
    return [
        replace(smear, stain=str(name), own=of_stain[name], other=of_stain[other[name]])
        for smear, name in zip(smears, stain, strict=True)
    ]


def draw_images(
    manifest: pd.DataFrame, most: int, seed: int, parameter: str = "audit_images"
) -> pd.DataFrame:
    """At most `most` images of the manifest: whole groups, drawn at random; all if they fit.

    `parameter` is the notebook's name of `most`, for the sentence of an `InputError`.
    """
    if len(manifest) <= most:
        return manifest
    sizes = manifest.groupby("group").size().sample(frac=1, random_state=seed)
    chosen = sizes.index[sizes.cumsum() <= most]
    drawn = manifest[manifest["group"].isin(chosen)]
    if drawn["label"].nunique() < 2 or len(chosen) < 2:
        raise InputError(
            f"Parameter `{parameter}` is {most}: too few for groups of both classes. Raise it."
        )
    return drawn


def features_of_run(
    run: Run, architecture: str, images: pd.DataFrame, orientations: int
) -> Features:
    """Frozen features of all orientations of `images`, with the weights that the run began with.

    From the cache, without TensorFlow, where its training notebook left them; else computed here.
    Raises `InputError` if the notebook's `weights` are not those of the run.
    """
    root = run.images  # also where none is opened: `data` must be what notebook 01 read
    found = features_in_cache(run, architecture, images, orientations)
    if found is not None:
        return found
    # Late, since only a run without cached features needs TensorFlow, which takes seconds.
    from cytology.networks.batches import frozen_features
    from cytology.training.backbone import backbone_of_run

    extractor, decoded = backbone_of_run(run, architecture, root, run.parameters["weights"])
    pictures = pictures_of(images[["image_id"]], orientations)
    key = key_of_run(run, architecture)
    return frozen_features(extractor, decoded, pictures, key, run.parameters["batch_size"])
