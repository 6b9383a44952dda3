"""Writing and running a network as an ONNX file; both need packages that may be missing."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cytology.machine import cores
from cytology.networks.backend import keras, quietly

NEEDED = ("tf2onnx", "onnxruntime")  # tf2onnx brings onnx
INPUT = "image"
OPSET = 15  # tf2onnx' default; OpenCV, and therefore QuPath, reads it too


def missing_packages() -> str:
    """The packages for ONNX files that are not installed, for pip; empty if none is missing."""
    return " ".join(name for name in NEEDED if find_spec(name) is None)


@cache
def report_left_out(packages: str) -> None:
    """Print, once for the same packages, that `all` leaves out ONNX."""
    print(f"The format onnx is left out; it needs: pip install {packages}")


def write(model: keras.Model, path: Path) -> None:
    """Write an ONNX file: from `image`, (images, 3, size, size) float32, to logits, (images, 1).

    Channels come first, as in most programs that read ONNX.
    """
    size = model.input_shape[1]
    planes = keras.Input((3, size, size), name=INPUT)
    turned = keras.Model(planes, model(keras.layers.Permute((2, 3, 1))(planes)))
    # Keras cannot export a network that was never called.
    turned(np.zeros((1, 3, size, size), np.float32))
    with quietly(), warnings.catch_warnings():
        # Keras asks NumPy for `np.object`, which may come back with another meaning.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        turned.export(path, format="onnx", verbose=False, opset_version=OPSET)


def runner(path: Path) -> Callable:
    """A function from squares, (images, size, size, 3), to their logits, by an ONNX file."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = cores()
    # The bytes, not the path: Windows cannot replace a file that is open.
    session = onnxruntime.InferenceSession(
        path.read_bytes(), settings, providers=["CPUExecutionProvider"]
    )

    def predict(squares):
        planes = squares.transpose(0, 3, 1, 2).astype(np.float32)
        return session.run(None, {INPUT: planes})[0].ravel()

    return predict
