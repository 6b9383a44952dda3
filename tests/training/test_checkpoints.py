"""A training interrupted after any epoch ends like one that was not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cytology.networks.backend import keras
from cytology.networks.batches import DecodedImages, Epochs
from cytology.settings import PROJECT_ROOT, MachineError
from cytology.training import checkpoints, fine_tuning
from cytology.training.checkpoints import Checkpoint, folder_of, remove_checkpoint
from cytology.training.fine_tuning import fine_tune
from cytology.training.recipes import Recipe

pytestmark = pytest.mark.numeric

EPOCHS = 5
RECIPE = Recipe(1e-2, EPOCHS, 8, "balanced", None, 0, orientations=1)


class Interrupted(Exception):
    """Stands for whatever ends a process."""


class Broken(Epochs):
    """Ends the training in the second step of the epoch `at`."""

    at = 0

    def on_train_batch_end(self, batch, logs=None):
        if (self.now, batch) == (self.at, 1):
            raise Interrupted


def pictures():
    """48 tiny pictures, malignant ones brighter, and their split."""
    rng = np.random.default_rng(0)
    labels = np.array(["B", "M"] * 24)
    pixels = rng.integers(0, 200, (48, 8, 8, 3)) + 40 * (labels == "M")[:, None, None, None]
    names = [f"{number}.png" for number in range(48)]
    row = pd.Series(range(48), index=names)
    images = DecodedImages(pixels.astype(np.uint8), row, row.astype(str))
    split = pd.DataFrame({"image_id": names, "group": names, "label": labels})
    split["split"] = ["train"] * 28 + ["val"] * 10 + ["test"] * 10
    split["fold"] = pd.array([0] * 38 + [pd.NA] * 10, dtype="Int64")
    return images, split


def small_network(name="mobilenetv2"):
    """A network with dropout and normalization, named for its optimizer."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(image))
    maps = keras.layers.BatchNormalization()(maps)
    flat = keras.layers.Dropout(0.4)(keras.layers.Flatten()(maps))
    return keras.Model(image, keras.layers.Dense(1)(flat), name=name)


def train(folder=None, key="key", recipe=RECIPE, name="mobilenetv2"):
    """Logits and history of a training of the small network."""
    images, split = pictures()
    stage = fine_tune(small_network(name), images, split, recipe, folder, key)
    return SimpleNamespace(logits=stage.predictions["logit"].to_numpy(), history=stage.history)


def interrupt(monkeypatch, epoch, *arguments, **options):
    """Train until the second step of `epoch` (from 0)."""
    with monkeypatch.context() as patch:
        patch.setattr(Broken, "at", epoch)
        patch.setattr(fine_tuning, "Epochs", Broken)
        with pytest.raises(Interrupted):
            train(*arguments, **options)


def assert_same(one, other):
    np.testing.assert_array_equal(one.logits, other.logits)
    pd.testing.assert_frame_equal(one.history, other.history)


RECIPES = {
    "mobilenetv2": RECIPE,
    "inceptionv3": RECIPE,  # RMSprop
    "several batches a step": replace(RECIPE, accumulate=3),
    "early stopping": replace(RECIPE, epochs=12, patience=2, learning_rate=0.3),
}


@pytest.fixture(scope="module")
def uninterrupted():
    """Each recipe, never interrupted and without a checkpoint."""
    return {
        what: train(recipe=recipe, name=checkpoint_name(what)) for what, recipe in RECIPES.items()
    }


def checkpoint_name(what):
    return "inceptionv3" if what == "inceptionv3" else "mobilenetv2"


# ---------------------------------------------------------------------- goes on


@pytest.mark.parametrize("what", RECIPES)
@pytest.mark.parametrize("epoch", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_an_interrupted_training_ends_with_identical_weights(
    monkeypatch, tmp_path, capsys, uninterrupted, what, epoch
):
    options = {"recipe": RECIPES[what], "name": checkpoint_name(what)}
    interrupt(monkeypatch, epoch, tmp_path, **options)
    assert_same(train(tmp_path, **options), uninterrupted[what])
    going_on = f"Continuing after epoch {epoch} of {RECIPES[what].epochs}"
    assert (going_on in capsys.readouterr().out) == (epoch > 0)


def test_a_training_may_be_interrupted_repeatedly(monkeypatch, tmp_path, uninterrupted):
    for epoch in (1, 2, 4):
        interrupt(monkeypatch, epoch, tmp_path)
    assert_same(train(tmp_path), uninterrupted["mobilenetv2"])


def test_checkpoints_change_nothing_and_few_are_kept(tmp_path, uninterrupted):
    assert_same(train(tmp_path), uninterrupted["mobilenetv2"])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "epoch-00004.npz",
        "epoch-00005.npz",
    ]


@pytest.mark.parametrize("what", ["mobilenetv2", "early stopping"])
def test_a_finished_training_is_not_continued(tmp_path, monkeypatch, uninterrupted, what):
    recipe = RECIPES[what]
    assert_same(train(tmp_path, recipe=recipe), uninterrupted[what])
    done = len(uninterrupted[what].history)
    assert (done < recipe.epochs) == (what == "early stopping")
    monkeypatch.setattr(Checkpoint, "on_epoch_end", None)  # no epoch may follow
    assert_same(train(tmp_path, recipe=recipe), uninterrupted[what])


@pytest.mark.slow
def test_a_killed_process_leaves_a_usable_checkpoint(tmp_path, uninterrupted):
    code = (
        "import os, sys; from pathlib import Path; import test_checkpoints as t\n"
        "from cytology.training.checkpoints import Checkpoint\n"
        "kept = Checkpoint.on_epoch_end\n"
        "def end(self, epoch, logs=None):\n"
        "    kept(self, epoch, logs)\n"
        "    if epoch == 2: os._exit(9)\n"
        "Checkpoint.on_epoch_end = end\n"
        "t.train(Path(sys.argv[1]))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(PROJECT_ROOT / "notebooks")])
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 9 and (tmp_path / "epoch-00003.npz").is_file()
    assert_same(train(tmp_path), uninterrupted["mobilenetv2"])


# ------------------------------------------------------------- unusable checkpoints


def flip_bits(path):
    """Flip bits all over the file: single ones may hit unused bytes."""
    content = bytearray(path.read_bytes())
    for place in range(50, len(content), 50):
        content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm", [flip_bits, lambda path: path.write_bytes(path.read_bytes()[:500])]
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_used(
    monkeypatch, tmp_path, capsys, uninterrupted, harm, number
):
    interrupt(monkeypatch, 3, tmp_path)
    for path in sorted(tmp_path.iterdir())[-number:]:
        harm(path)
    assert_same(train(tmp_path), uninterrupted["mobilenetv2"])
    said = capsys.readouterr().out
    assert said.count("is damaged") == number and ("Continuing after epoch 2" in said) == (
        number == 1
    )


def test_a_flipped_bit_in_a_checkpoint_is_reported_or_harmless(tmp_path, capsys):
    path = tmp_path / "epoch-00001.npz"
    about = {"key": "key", "rows": [{}], "stopping": {}, "variables": 1, "best": 0}
    np.savez(path, about=json.dumps(about), variable0=np.arange(3.0))
    uninterrupted = path.read_bytes()
    for place in range(len(uninterrupted)):
        path.write_bytes(
            uninterrupted[:place] + bytes([uninterrupted[place] ^ 16]) + uninterrupted[place + 1 :]
        )
        found = Checkpoint(tmp_path, "key", 5, []).found
        if found:
            np.testing.assert_array_equal(found["variables"], [np.arange(3.0)])
    assert "is damaged" in capsys.readouterr().out


def test_the_checkpoint_of_another_training_is_removed(
    monkeypatch, tmp_path, capsys, uninterrupted
):
    interrupt(monkeypatch, 2, tmp_path, key="another")
    assert_same(train(tmp_path), uninterrupted["mobilenetv2"])
    assert "belongs to another training and is removed" in capsys.readouterr().out


def test_each_training_has_its_own_name(monkeypatch):
    name = fine_tuning.training_key("a", 1)
    assert fine_tuning.training_key("a", 1) == name != fine_tuning.training_key("a", 2)
    monkeypatch.setattr(keras, "version", lambda: "3.0.0")
    assert fine_tuning.training_key("a", 1) != name


def test_a_full_disk_is_reported_in_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "savez", full)
    with pytest.raises(MachineError, match="epoch-00001.npz cannot be written: the disk is full"):
        train(tmp_path)
    assert not list(tmp_path.iterdir())


def test_checkpoints_are_removed_when_the_results_are_written(tmp_path):
    folder = folder_of(tmp_path, "densenet121")
    folder.mkdir(parents=True)
    (folder / "epoch-00001.npz").write_bytes(b"state")
    remove_checkpoint(tmp_path, "densenet121")
    remove_checkpoint(tmp_path, "densenet121")
    assert not folder.exists() and folder.parent.is_dir()
