"""Fixtures: small folders of coloured noise, tables without images, and a run folder."""

import os
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.data.augmentation import pictures_of
from cytology.data.copies import find_copies
from cytology.data.inspection import inspect_images
from cytology.data.load import load
from cytology.data.manifest import build_manifest
from cytology.data.sources.sample import draw_sample
from cytology.data.splitting import judged_pictures, split_by_group, split_facts
from cytology.evaluation.predictions import prediction_rows
from cytology.evaluation.statistics import bootstrap
from cytology.run import Run

os.environ.setdefault("MPLBACKEND", "Agg")


def draw(seed, width=64, height=48, redder=0):
    """A smooth picture of coloured noise; another seed gives another one."""
    coarse = np.random.default_rng(seed).integers(40, 200, (9, 12, 3))
    coarse[..., 0] += redder
    picture = Image.fromarray(coarse.astype(np.uint8))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def draw_folder(root, patients=12, images=2):
    """Write `root/B|M/p<patient>_<image>.png`: even patients are B, odd ones M and redder."""
    for patient in range(patients):
        place = root / "BM"[patient % 2]
        place.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            picture = draw(100 * patient + number, redder=50 * (patient % 2))
            picture.save(place / f"p{patient:03}_{number}.png")
    return root


@pytest.fixture(scope="session")
def smear():
    return draw


@pytest.fixture(scope="session")
def smear_folder():
    return draw_folder


@pytest.fixture(scope="session")
def smears(tmp_path_factory):
    """Drawn smears of 8 patients, none a copy of another, 256 x 192 pixels."""
    folder = tmp_path_factory.mktemp("smears")
    table = draw_sample(folder, images=24, patients=8)
    images = table.loc[table["copy_of"] == "", "image"]
    return [Image.open(folder / image).convert("RGB") for image in images]


def some_manifest():
    rows = [
        (f"{'BM'[g % 2]}/p{g:03}_{i}.png", "BM"[g % 2], f"{g:03}", "", f"{g:03}")
        for g in range(30)
        for i in range(1 + g % 5)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "label", "patient", "slide", "group"])
    hashes = [f"{i:064x}" for i in range(len(table))]
    return table.assign(width=64, height=48, sha256=hashes, family=table["image_id"])


@pytest.fixture
def manifest():
    """A manifest of 30 groups with 1 to 5 images each, without files."""
    return some_manifest()


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name == "mobilenetv2" else pytest.mark.slow)
        for name in ARCHITECTURE_NAMES
    ]
)
def each_network(request):
    """The name of each network; all but the quickest are for the slow tests."""
    return request.param


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache for the module: tests neither use nor fill `outputs/cache`."""
    from cytology.networks import engines, passes  # late: they start TensorFlow
    from cytology.training import backbone, fine_tuning

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for module in (backbone, engines, passes):
            patch.setattr(module, "CACHE", folder)
        kept = partial(fine_tuning.activations, cache=folder)
        patch.setattr(fine_tuning, "activations", kept)
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, smear_folder, cache):
    """24 images of 12 patients: root, manifest, split and images decoded at 75 pixels."""
    from cytology.networks.batches import decode  # late: it starts TensorFlow

    root = smear_folder(tmp_path_factory.mktemp("data"))
    readable, _ = inspect_images(load(str(root), patient_pattern=r"(p\d+)_"), cache)
    manifest = build_manifest(readable, find_copies(readable))
    split = split_by_group(manifest, 3, 0.2, 0.2, seed=0)
    images = decode(root, manifest, 75, "pad", cache)
    return SimpleNamespace(root=root, manifest=manifest, split=split, images=images)


@pytest.fixture(scope="session")
def run_once(tmp_path_factory):
    """The run that `run` copies: read it, change nothing."""
    rng, manifest = np.random.default_rng(0), some_manifest()
    run = Run(tmp_path_factory.mktemp("once") / "run")
    colours = pd.DataFrame(rng.uniform(0, 255, (len(manifest), 4)).round(3))
    colours.columns = ["brightness", "red", "green", "blue"]
    split = split_by_group(manifest, 3, 0.2, 0.2, seed=0)
    about = split_facts(split, manifest, "grouped", "patient", seed=0)
    run.write("manifest.csv", manifest)
    run.write("tables/appearance.csv", manifest[["image_id"]].join(colours))
    run.write("split.csv", split)
    run.write("split.json", about)
    for name in ARCHITECTURE_NAMES:
        pictures = judged_pictures(split)
        truth = np.where(pictures["label"] == "M", 1.0, -1.0)
        logits = pd.Series(truth + rng.normal(size=len(truth)), index=pictures.index)
        held = pictures[pictures["split"] != "test"]
        later = pictures[pictures["split"] != "train"]
        rows = [
            prediction_rows(part, logits[part.index], model, 0)
            for part, model in ((held, "oof"), (later, "final"))
        ]
        run.write(f"{name}/predictions.csv", pd.concat(rows))
        metrics = {"weights": "imagenet", "fine_tuned": False, "recipe": "head"}
        metrics |= {"split": about["fingerprint"], "seed": 0, "weights_hash": "0" * 64}
        metrics |= {"architecture": name, "image_size": 224, "fit": "pad", "precision": "float32"}
        metrics |= {"engine": "tensorflow", "protocol": "grouped", "class_weight": "balanced"}
        metrics |= {"head_epochs": 200, "patience": 0}
        run.write(f"{name}/metrics.json", metrics)
    return run


@pytest.fixture
def run(tmp_path, run_once):
    """A run with a split and predictions of three architectures that know something."""
    return Run(shutil.copytree(run_once, tmp_path / "run"))


@pytest.fixture
def full_run(run):
    """The run with more predictions: of fold models on test, and of four orientations."""
    rng, split = np.random.default_rng(1), run.table("split.csv")
    for name in ARCHITECTURE_NAMES:
        taken = run.table(f"{name}/predictions.csv")
        test = pictures_of(split[split["split"] == "test"], 1)
        truth = np.where(test["label"] == "M", 1.0, -1.0)
        folds = [
            prediction_rows(test, truth + rng.normal(size=len(test)), f"fold{fold}", 0)
            for fold in range(3)
        ]
        table = pd.concat([taken, *folds], ignore_index=True)
        turned = [table]
        for orientation in (1, 2, 3):
            logit = table["logit"] + rng.normal(scale=0.5, size=len(table))
            rows = table.assign(orientation=orientation)
            turned.append(prediction_rows(rows, logit, table["model"], 0))
        run.write(f"{name}/predictions.csv", pd.concat(turned))
    return run


@pytest.fixture(scope="module")
def few_draws():
    """Fifty draws for every band, for tests that do not check the bands."""
    drawn = bootstrap.group_weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "group_weights", lambda rows, draws: drawn(rows, min(draws, 50)))
        yield
