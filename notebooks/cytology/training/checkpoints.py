"""An interrupted training continues after its last whole epoch, as if nothing had happened.

After each epoch one file keeps the full state: the network's weights, the state of the optimizer
and of dropout's random numbers, the history, and the memory of early stopping, which Keras' own
BackupAndRestore forgets (keras#14862). The order of the data need not be kept: it depends on seed
and epoch alone. Heads on frozen features take seconds and are trained again.
"""

import json
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cytology.files import written_whole
from cytology.networks.backend import keras
from cytology.run import Run

FOLDER = "checkpoint"
KEPT = 2  # one more, in case the last is damaged
# What reading a damaged npz file may raise: zipfile and NumPy have many errors for it.
DAMAGE: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, OSError, EOFError)
DAMAGE += (ValueError, KeyError, NotImplementedError, RuntimeError)
STOPPING = ("wait", "best", "best_epoch", "stopped_epoch")  # of Keras' EarlyStopping


class Checkpoint(keras.callbacks.Callback):
    """Keeps the state of a training in `folder` after each epoch, and continues from it.

    Pass it to `fit` after `stopping`, with `initial_epoch=checkpoint.epoch`. `key` is a hash of all
    that the training depends on: the state of another training is reported and removed. `rows` are
    the logs of all epochs, including those before the interruption.
    """

    def __init__(self, folder: Path, key: str, epochs: int, stopping: list):
        super().__init__()
        self.folder, self.key, self.epochs = folder, key, epochs
        self.stopping = stopping[0] if stopping else None
        self.rows: list[dict] = []
        self.found = self._newest()
        self.epoch = 0
        if self.found:
            about = self.found["about"]
            self.rows = about["rows"]
            # Stopped early means finished: no epoch is left to do.
            self.epoch = epochs if about["stopping"].get("stopped_epoch") else len(self.rows)
            print(f"Continuing after epoch {len(self.rows)} of {epochs}, saved in {folder}.")

    def on_train_begin(self, logs=None):
        if not self.found:
            return
        for variable, value in zip(self._variables(), self.found["variables"], strict=True):
            variable.assign(value)
        if self.stopping:
            for name, value in self.found["about"]["stopping"].items():
                setattr(self.stopping, name, value)
            self.stopping.best_weights = self.found["best"] or None
            # A lower loss is better. Older versions of Keras find this out after the first epoch,
            # and then forget the best value.
            self.stopping.monitor_op = keras.ops.less
        self.found = None

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({name: float(value) for name, value in (logs or {}).items()})
        about = {"key": self.key, "rows": self.rows, "stopping": {}}
        best = []
        if self.stopping:
            about["stopping"] = {name: getattr(self.stopping, name) for name in STOPPING}
            best = self.stopping.best_weights or []
        arrays = {f"variable{n}": np.asarray(v) for n, v in enumerate(self._variables())}
        about |= {"variables": len(arrays), "best": len(best)}
        arrays |= {f"best{number}": value for number, value in enumerate(best)}
        with written_whole(self.folder / f"epoch-{epoch + 1:05}.npz") as temporary:
            np.savez(temporary, about=json.dumps(about, default=float), **arrays)
        for old in self._files()[:-KEPT]:
            old.unlink()

    def _variables(self) -> list:
        """All variables that change in training; the optimizer makes its own in the first step."""
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        return self.model.variables + self.model.optimizer.variables

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.npz"))

    def _newest(self) -> dict | None:
        """The newest state of this training that can be read; others are reported and removed."""
        for path in reversed(self._files()):
            try:
                state = read_state(path)
            except DAMAGE as error:
                print(f"{path} is damaged ({error}) and is not used.")
            else:
                if state["about"]["key"] == self.key and len(state["about"]["rows"]) <= self.epochs:
                    return state
                print(f"{path} belongs to another training and is removed.")
            path.unlink()
        return None


def read_state(path: Path) -> dict:
    """A state as `Checkpoint` wrote it: `about`, `variables` and `best`.

    Each array in the file has a checksum, which is compared when it is read: `BadZipFile` if it
    differs.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays["about"]))
    return {
        "about": about,
        "variables": [arrays[f"variable{number}"] for number in range(about["variables"])],
        "best": [arrays[f"best{number}"] for number in range(about["best"])],
    }


def folder_of(run: Run, architecture: str) -> Path:
    """The folder for the states of a network's training."""
    return run / architecture / FOLDER


def remove_checkpoint(run: Run, architecture: str) -> None:
    """Remove the states of a finished training."""
    folder = folder_of(run, architecture)
    if folder.exists():
        shutil.rmtree(folder)
