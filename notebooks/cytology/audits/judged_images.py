"""The networks and images of a run that audits and explanations use."""

import numpy as np
import pandas as pd

from cytology.data.splitting import read_split
from cytology.run import Run
from cytology.settings import InputError


def networks_to_judge(run: Run, wanted: str = "all") -> list[str]:
    """The network `wanted` of a run, or all; `InputError` if it was not trained."""
    names = [name for name in run.networks if wanted in ("all", name)]
    if not names:
        which = "" if wanted == "all" else f" {wanted}"
        raise InputError(f"{run} has no trained network{which}: run notebook 04, 05 or 06 first.")
    return names


def models_to_audit(run: Run) -> list[str]:
    """The networks of a run, and the models from outside that came with features."""
    elsewhere = [name for name in run.outside if "orientations" in run.about(name)]
    return [*networks_to_judge(run), *elsewhere]


def choose_judged_images(run: Run, on: str, most: int, seed: int) -> pd.DataFrame:
    """At most `most` images to judge: `image_id, group, label, fold, sha256`.

    With `stain` and `mask` if the manifest has them. The classes alternate as long as possible, and
    within a class each group has one image before any has a second. A smaller `most` gives the
    first of these images. Raises `InputError` if fewer than two groups can be judged.
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
            "Shifts need images of two groups and of both classes, but the images that can be "
            "judged have fewer: gather images of more patients."
        )
    return images.reset_index(drop=True)


def draw_images(
    manifest: pd.DataFrame, most: int, seed: int, parameter: str = "audit_images"
) -> pd.DataFrame:
    """At most `most` images of the manifest: whole groups, drawn at random; all if they fit.

    `parameter` is the name of `most` in the notebook, for the message of an `InputError`.
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
