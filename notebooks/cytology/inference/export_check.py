"""Runs exported files and compares them with the network that they came from."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.inference import onnx_files
from cytology.inference.export import FILES, VERSION
from cytology.inference.locked import Decision
from cytology.machine import cores
from cytology.networks.backend import keras, quietly, tf
from cytology.notebook import progress
from cytology.run import Run
from cytology.settings import InputError

FLOAT_TOLERANCE = 1e-3  # of the largest logit, or of 1 if all are smaller
MOST_CHANGED = 1  # decisions, if numbers are rounded on purpose
RUNS = 15  # timed, one image each


def check_exports(
    run: Run, model: keras.Model, decision: Decision, squares: np.ndarray
) -> pd.DataFrame:
    """One row per exported file: the difference of its logits from the network's, and its cost.

    `squares` are test images, uint8; `latency` is the median time for one image in ms on this
    machine; `changed_decisions` are counted at the locked threshold. Files that compute in float32
    must be within the tolerance; int8, and files of a network in half precision, may change one
    decision.
    """
    folder = run / "exports" / model.name
    expected = model.predict_on_batch(squares).ravel()
    tolerated = FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    single = run.about(model.name)["precision"] == "float32"
    files = [(name, folder / file) for name, file in FILES.items() if (folder / file).exists()]
    rows = []
    for name, path in progress(files, "comparing", unit="file"):
        predict = runner(name, path)
        found = np.concatenate([predict(squares[k : k + 1]) for k in range(len(squares))])
        difference = float(np.abs(found - expected).max())
        called, was = (logits >= decision.threshold_logit for logits in (found, expected))
        changed = int((called != was).sum())
        tolerance = tolerated if single and name != "tflite_int8" else np.nan
        agrees = changed <= MOST_CHANGED if np.isnan(tolerance) else difference <= tolerance
        rows.append(
            {
                "architecture": model.name,
                "format": name,
                "file": path.relative_to(run.folder).as_posix(),
                "megabytes": megabytes(path),
                "latency": latency(predict, squares[:1]),
                "images": len(squares),
                "largest_difference": difference,
                "tolerance": tolerance,
                "changed_decisions": changed,
                "agrees": bool(agrees),
            }
        )
    table = run.marked(pd.DataFrame(rows))
    return table.assign(warning=[warning_of(row) for row in table.itertuples()])


def runner(name: str, path: Path) -> Callable:
    """A function from a batch of squares to logits of shape (batch,), by one file."""
    if name in ("keras", "h5"):
        model = keras.saving.load_model(path, compile=False)
        return lambda squares: model.predict_on_batch(squares).ravel()
    if name.startswith("tflite"):
        return lite_runner(path)
    if name == "onnx":
        return onnx_files.runner(path)
    ask = tf.saved_model.load(str(path / VERSION)).signatures["serving_default"]
    return lambda squares: ask(image=tf.constant(squares, tf.float32))["logit"].numpy().ravel()


def lite_runner(path: Path) -> Callable:
    """A function from one square, (1, size, size, 3), to its logit, by a TFLite file."""
    interpreter = interpreter_of(path)
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = made["quantization"]

    def predict(squares):
        # Pixels need no scaling, not even for int8, whose scale is 1 (`export.full_range`).
        interpreter.set_tensor(given["index"], squares.astype(given["dtype"]))
        interpreter.invoke()
        found = interpreter.get_tensor(made["index"]).astype(np.float32).ravel()
        return (found - zero) * scale if scale else found

    return predict


def interpreter_of(path: Path):
    """The interpreter of a TFLite file: `ai-edge-litert` if installed, else TensorFlow's."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        Interpreter = getattr(tf.lite, "Interpreter", None)
    if Interpreter is None:
        raise InputError(
            f"TensorFlow {tf.__version__} cannot run TFLite files: install ai-edge-litert, or "
            "leave the tflite formats out of `export_formats`."
        )
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it only announces a move in later versions
        # The bytes, not the path: Windows cannot replace a file that is mapped into memory.
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=cores())
        interpreter.allocate_tensors()
    return interpreter


def megabytes(path: Path) -> float:
    """Size of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def latency(predict: Callable, one) -> float:
    """Median milliseconds of one prediction, without the first calls, which build graphs."""
    seconds = []
    for _ in range(RUNS + 2):
        started = time.perf_counter()
        predict(one)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:]) * 1000)


def warning_of(row) -> str:
    """A warning about a file that exceeds its tolerance; empty for a good one."""
    if row.agrees:
        return ""
    name = f"{NETWORK_TITLE[row.architecture]}, {row.format}"
    if np.isnan(row.tolerance):
        return (
            f"{name}: {row.changed_decisions} of {row.images} test images get another decision "
            f"than from the network (at most {MOST_CHANGED} is allowed): do not use this file."
        )
    return (
        f"{name}: a logit differs by {row.largest_difference:.2g} from the network's, more than "
        f"{row.tolerance:.2g}: do not use this file."
    )


def write_exports(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Write `tables/exports.csv`; rows of networks that were not exported this time are kept."""
    if run.has("tables/exports.csv"):
        earlier = run.table("tables/exports.csv")
        others = earlier[~earlier["architecture"].isin(table["architecture"])]
        table = pd.concat([table, others], ignore_index=True)
    order = {name: place for place, name in enumerate(NETWORK_TITLE)}
    table = table.sort_values("architecture", key=lambda names: names.map(order), kind="stable")
    run.write("tables/exports.csv", table)
    return table.reset_index(drop=True)
