"""How much the same training varies from run to run, without and with `deterministic`.

    python -m benchmarks.determinism
    python -m benchmarks.determinism --architecture inceptionv3 --repeats 3

Each training is a separate process: every layer, drawn smears, random weights, one seed. It prints
the largest difference of a logit between any two, and the ratio of the times of the epochs; the
first epoch, in which graphs are built, does not count.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.data.sources.sample import draw_sample
from cytology.machine import cores
from cytology.runner import streams
from cytology.settings import PROJECT_ROOT

IMAGES, PATIENTS, SIZE, BATCH, RATE = 96, 16, 96, 16, 1e-3


def main(argv: list[str] | None = None) -> int:
    """Train repeatedly and print the differences; returns 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", choices=ARCHITECTURE_NAMES, default="mobilenetv2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--train", nargs=2, metavar=("FOLDER", "DETERMINISTIC"), help="one training"
    )
    options = parser.parse_args(argv)
    if options.train:
        folder, wanted = options.train
        print(json.dumps(train(Path(folder), options, wanted == "True")))
        return 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        draw_sample(Path(folder) / "images", IMAGES, PATIENTS)
        found = {False: [], True: []}
        for _ in range(options.repeats):  # in turn, so that other work slows both
            for wanted, runs in found.items():
                runs.append(in_a_process(folder, options, wanted))
    print(
        f"{options.architecture}: {options.repeats} trainings of {options.epochs} epochs, each way"
    )
    for wanted, runs in found.items():
        logits = np.array([run["logits"] for run in runs])
        spread, largest = np.ptp(logits, axis=0).max(), np.abs(logits).max()
        print(
            f"deterministic: {wanted!s:5}   largest difference of a logit {spread:.3g}; the "
            f"largest logit is {largest:.3g}"
        )
    pairs = zip(found[True], found[False], strict=True)
    ratio = np.median([one["seconds"] / other["seconds"] for one, other in pairs])
    print(f"ratio of the time with it to the time without: {ratio:.2f} ({cores()} cores)")
    return 0


def in_a_process(folder: str, options: argparse.Namespace, wanted: bool) -> dict:
    """Train once, in a separate process."""
    words = ["--train", folder, str(wanted), "--architecture", options.architecture]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.determinism", *words, "--epochs", str(options.epochs)],
        cwd=PROJECT_ROOT,
        env=os.environ | {"CYTOLOGY_CACHE": str(Path(folder) / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def train(folder: Path, options: argparse.Namespace, wanted: bool) -> dict:
    """Logits of val and test after a training, and the seconds of its epochs except the first."""
    from cytology.data.copies import find_copies
    from cytology.data.inspection import inspect_images
    from cytology.data.manifest import build_manifest
    from cytology.data.sources.listing import folder as listing
    from cytology.data.splitting import split_by_group
    from cytology.networks import batches
    from cytology.networks.backend import be_deterministic
    from cytology.networks.weights import find_weights
    from cytology.training.backbone import with_weights
    from cytology.training.fine_tuning import fine_tune
    from cytology.training.recipes import Recipe

    be_deterministic(wanted, seed=0)
    root = folder / "images"
    readable, _ = inspect_images(listing(root, patient_pattern=r"(patient\d+)_"))
    manifest = build_manifest(readable, find_copies(readable))
    split = split_by_group(manifest, 3, 0.2, 0.2, seed=0)
    images = batches.decode(root, manifest, SIZE, "pad")
    random = find_weights(options.architecture, "random")
    model, _ = with_weights(options.architecture, random, images, split, seed=0)
    begun = []
    epochs = batches.Epochs.on_epoch_begin

    def note(self, epoch, logs=None):
        begun.append(time.perf_counter())
        epochs(self, epoch, logs)

    batches.Epochs.on_epoch_begin = note
    recipe = Recipe(RATE, options.epochs, BATCH, "balanced", None, 0, orientations=1)
    rows = fine_tune(model, images, split, recipe).predictions
    return {"logits": rows["logit"].tolist(), "seconds": begun[-1] - begun[1]}


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main())
