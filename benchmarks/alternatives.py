"""B9: frozen features and cross-validated heads of one network, by other common methods."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.comparison import Result, Row, compare, in_turn
from benchmarks.cross_validated_head import (
    BATCH,
    Outcome,
    Task,
    by_plain_keras,
    list_images,
    on_cached_features,
    prepare_task,
)
from benchmarks.plain_pytorch import plain_heads, rows_of
from benchmarks.registry import Options
from cytology.data.images.opening import open_rgb
from cytology.networks.backend import keras
from cytology.networks.building import feature_extractor
from cytology.networks.linear_head import is_malignant
from cytology.settings import PROJECT_ROOT

OURS, AS_TAKEN = "the series, 8 orientations", "the series, images as taken"
PLAIN, PREDICT, PYTORCH = "plain Keras", "Keras and scikit-learn", "PyTorch and scikit-learn"
READ_BY_ALL = (".jpg", ".jpeg", ".png", ".bmp")
AS_IN_B2 = "as in B2: images, folds, backbone and its weights; 8 orientations either way"
FROM_FILES = (
    "images as taken, folds of whole groups, the kind of network, image size, batches of 32, from "
    "the files to out-of-fold logits, imports not counted. Ours counts what it does once: trying "
    "the engines, keeping pixels and features, choosing the strength in inner folds. The others "
    "stretch each image to a square instead of padding it, keep nothing, and train scikit-learn's "
    "LogisticRegression as it comes on standardized features"
)


def measure(options: Options, folder: Path) -> Result:
    """Seconds of each way, in turn, and the AUC of those with the same weights."""
    listing = list_images(options, folder)
    task, notes = prepare_task(listing, options, folder)
    root, table = as_folders(task, folder / "folders"), folder / "table.csv"
    truth_and_fold(task.split).to_csv(table, index=False)
    ways = {
        OURS: lambda: on_cached_features(task, folder),
        PLAIN: lambda: by_plain_keras(task),
        AS_TAKEN: lambda: on_cached_features(task, folder, orientations=1),
        PREDICT: lambda: by_predict(task, root),
    }
    if missing := [name for name in ("torch", "torchvision") if find_spec(name) is None]:
        notes.append(f"{PYTORCH} was not measured: {', '.join(missing)} not installed.")
    else:
        notes.append("PyTorch's network has random weights: valid for time, useless for AUC.")
        ways[PYTORCH] = lambda: by_pytorch(task, root, table)
    found = in_turn(ways, options.repeats)
    seconds = {name: [each.seconds for each in of] for name, of in found.items()}
    aucs = {name: float(np.median([each.auc for each in of])) for name, of in found.items()}
    of_weights = {name: auc for name, auc in aucs.items() if name != PYTORCH}
    aucs = ", ".join(f"{name} {auc:.4f}" for name, auc in of_weights.items())
    notes = [f"Images: {listing.source}.", *notes, f"AUC out of fold, pooled: {aucs}."]
    return Result(rows_of_ways(seconds), notes)


def rows_of_ways(seconds: dict[str, list[float]]) -> list[Row]:
    """The series against each other way, with the same number of pictures."""
    pairs = [(OURS, PLAIN, AS_IN_B2), (AS_TAKEN, PREDICT, FROM_FILES)]
    pairs += [(AS_TAKEN, PYTORCH, FROM_FILES)] if PYTORCH in seconds else []
    return [
        compare(f"{ours}, against {other}", "s", seconds[ours], seconds[other], equal)
        for ours, other, equal in pairs
    ]


# ------------------------------------------------------------------- the images


def as_folders(task: Task, root: Path) -> Path:
    """Copies of the images in one folder per class, named by their rows, as libraries need them.

    As PNG if the library cannot read the format; this is not timed.
    """
    for number, image in enumerate(task.split.itertuples()):
        source, folder = task.root / image.image_id, root / image.label
        folder.mkdir(parents=True, exist_ok=True)
        if source.suffix.lower() in READ_BY_ALL:
            shutil.copyfile(source, folder / f"{number:06}{source.suffix.lower()}")
        else:
            open_rgb(source).save(folder / f"{number:06}.png")
    return root


def truth_and_fold(split: pd.DataFrame) -> pd.DataFrame:
    """`malignant` and `fold` of each image."""
    malignant = is_malignant(split["label"])
    return pd.DataFrame({"malignant": malignant, "fold": split["fold"].astype(int)})


# --------------------------------------------------------------------- the ways


def by_predict(task: Task, root: Path) -> Outcome:
    """Keras reads the folder and predicts features; scikit-learn cross-validates."""
    started = time.perf_counter()
    dataset = keras.utils.image_dataset_from_directory(
        root, image_size=(task.image_size,) * 2, batch_size=BATCH, shuffle=False, verbose=False
    )
    features = feature_extractor(task.network()).predict(dataset, verbose=0)
    rows = rows_of(truth_and_fold(task.split), dataset.file_paths)
    malignant = rows["malignant"].to_numpy()
    logits = plain_heads(features, malignant, rows["fold"].to_numpy())
    taken = time.perf_counter() - started
    return Outcome(taken, 0.0, roc_auc_score(malignant, logits))


def by_pytorch(task: Task, root: Path, table: Path) -> Outcome:
    """`plain_pytorch` in a separate process."""
    arguments = [root, table, task.architecture, task.image_size]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plain_pytorch", *map(str, arguments)],
        cwd=PROJECT_ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Outcome(json.loads(done.stdout.splitlines()[-1])["seconds"], 0.0, float("nan"))
