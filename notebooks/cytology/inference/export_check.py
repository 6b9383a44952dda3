"""Exported files are run and held against the network that they came from."""

import time
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.data.images.kinds import kind_of
from cytology.data.images.opening import opened, read_image
from cytology.data.images.tiffs import ORIENTATION
from cytology.inference.export import FILES, VERSION
from cytology.inference.predictor import Decision
from cytology.inference.serving import square_of_bytes
from cytology.machine import cores
from cytology.networks.backend import keras, quietly, tf
from cytology.notebook import progress
from cytology.settings import InputError
from cytology.tables import read_table, write_table

FLOAT_TOLERANCE = 1e-3  # of the largest logit, or of 1 where all are smaller
MOST_CHANGED = 1  # decisions, where numbers are rounded on purpose
BYTES = "saved_model_bytes"
RUNS = 15  # timed, one image each


def check_exports(
    folder: Path,
    model: keras.Model,
    about: dict,
    decision: Decision,
    squares: np.ndarray,
    contents: list[bytes],
) -> pd.DataFrame:
    """A row an exported file: how far its logits are from the network's, and what it costs.

    `squares` (uint8) and `contents` (bytes that TensorFlow reads) are the same images;
    `latency` is the median of one image in ms on this machine; `changed_decisions` are counted at
    the locked threshold. Files that compute in float32 from the same pixels must keep the
    tolerance; int8, files of a network that computes in half precision, and image bytes of which
    TensorFlow makes other pixels than Pillow (`pixel_difference`, levels of 255) may change one
    decision.
    """
    expected = model.predict_on_batch(squares).ravel()
    tolerated = FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    single = about.get("precision", "float32") == "float32"
    rows = []
    for name, path in progress(list(present(folder).items()), "comparing", unit="file"):
        inputs = contents if name == BYTES else squares
        answer = runner(name, path)
        found = np.concatenate([answer(inputs[k : k + 1]) for k in range(len(inputs))])
        difference = float(np.abs(found - expected).max())
        changed = int((called(found, decision) != called(expected, decision)).sum())
        apart = pixel_difference(contents, squares, about["fit"]) if name == BYTES else 0.0
        exact = single and name != "tflite_int8" and apart == 0
        tolerance = tolerated if exact else np.nan
        agrees = changed <= MOST_CHANGED if np.isnan(tolerance) else difference <= tolerance
        rows.append(
            {
                "architecture": about["architecture"],
                "format": name,
                "file": path.relative_to(folder.parent.parent).as_posix(),
                "megabytes": megabytes(path),
                "latency": latency(answer, inputs[:1]),
                "images": len(inputs),
                "pixel_difference": apart,
                "largest_difference": difference,
                "tolerance": tolerance,
                "changed_decisions": changed,
                "agrees": bool(agrees),
            }
        )
    table = pd.DataFrame(rows).assign(weights=about["weights"], protocol=about["protocol"])
    return table.assign(warning=[warning_of(row) for row in table.itertuples()])


def present(folder: Path) -> dict[str, Path]:
    """The formats that lie in an export folder; a SavedModel counts twice, for its signatures."""
    found = {name: folder / file for name, file in FILES.items() if (folder / file).exists()}
    return found | ({BYTES: found["saved_model"]} if "saved_model" in found else {})


def runner(name: str, path: Path) -> Callable:
    """A function from a batch, squares or bytes, to logits of shape (batch,), by one file."""
    if name in ("keras", "h5"):
        model = keras.saving.load_model(path, compile=False)
        return lambda squares: model.predict_on_batch(squares).ravel()
    if name.startswith("tflite"):
        return lite_runner(path)
    signatures = tf.saved_model.load(str(path / VERSION)).signatures
    if name == BYTES:
        ask, given, kind = signatures["from_bytes"], "image_bytes", tf.string
    else:
        ask, given, kind = signatures["serving_default"], "image", tf.float32
    return lambda batch: ask(**{given: tf.constant(batch, kind)})["logit"].numpy().ravel()


def lite_runner(path: Path) -> Callable:
    """A function from one square, (1, size, size, 3), to its logit, by a TFLite file."""
    interpreter = interpreter_of(path)
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = made["quantization"]

    def answer(squares):
        # Pixels need no scaling, also for int8: its input has scale 1 (see `export.full_range`).
        interpreter.set_tensor(given["index"], squares.astype(given["dtype"]))
        interpreter.invoke()
        found = interpreter.get_tensor(made["index"]).astype(np.float32).ravel()
        return (found - zero) * scale if scale else found

    return answer


def interpreter_of(path: Path):
    """What runs a TFLite file: from `ai-edge-litert` where that is installed, else TensorFlow's."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        Interpreter = getattr(tf.lite, "Interpreter", None)
    if Interpreter is None:
        raise InputError(
            f"TensorFlow {tf.__version__} runs no TFLite files: install ai-edge-litert, or leave "
            "the tflite formats out of `export_formats`."
        )
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it only says where it will live in later versions
        # The bytes, not the path: Windows cannot replace a file that is mapped into memory.
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=cores())
        interpreter.allocate_tensors()
    return interpreter


def called(logits: np.ndarray, decision: Decision) -> np.ndarray:
    """Which are called malignant at the locked threshold."""
    return logits >= decision.threshold_logit


def megabytes(path: Path) -> float:
    """Size of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def latency(answer: Callable, one) -> float:
    """Median time of one answer in milliseconds; the first calls, which build graphs, left out."""
    seconds = []
    for _ in range(RUNS + 2):
        started = time.perf_counter()
        answer(one)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:]) * 1000)


def warning_of(row) -> str:
    """A sentence about a file that does not keep its promise; empty for one that does."""
    if row.agrees:
        return ""
    name = f"{NETWORK_TITLE[row.architecture]}, {row.format}"
    if np.isnan(row.tolerance):
        return (
            f"{name}: {row.changed_decisions} of {row.images} test images are decided otherwise "
            f"than by the network (at most {MOST_CHANGED} is allowed): do not use this file."
        )
    return (
        f"{name}: a logit differs by {row.largest_difference:.2g} from the network's, more than "
        f"{row.tolerance:.2g}: do not use this file."
    )


def bytes_of(root: Path, image_ids: list[str]) -> list[bytes]:
    """The images' files as bytes; of kinds that TensorFlow cannot read, the same pixels as PNG."""
    return [readable_bytes(root / name) for name in image_ids]


def readable_bytes(path: Path) -> bytes:
    """A file's bytes if TensorFlow reads it as Pillow does; else its pixels as PNG."""
    content = path.read_bytes()
    image, converted = read_image(content)
    if not converted and kind_of(content) != "TIFF":
        with opened(content) as stored:
            as_it_is = stored.mode in ("RGB", "L") and stored.getexif().get(ORIENTATION, 1) == 1
            if as_it_is and (stored.format, stored.mode) != ("BMP", "L"):
                return content
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def pixel_difference(contents: list[bytes], squares: np.ndarray, fit: str) -> float:
    """How far a pixel of TensorFlow's squares is from Pillow's at most, in levels of 255."""
    size = squares.shape[1]
    return max(
        float(np.abs(square_of_bytes(tf.constant(each), size, fit).numpy() - square).max())
        for each, square in zip(contents, squares, strict=True)
    )


def write_exports(run: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Write `tables/exports.csv`; rows of networks that were not exported this time stay."""
    if (run / "tables/exports.csv").is_file():
        earlier = read_table(run, "tables/exports.csv")
        others = earlier[~earlier["architecture"].isin(table["architecture"])]
        # In the columns of today: an earlier version may have had others.
        table = pd.concat([table, others], ignore_index=True)[list(table)]
    order = {name: place for place, name in enumerate(NETWORK_TITLE)}
    table = table.sort_values("architecture", key=lambda names: names.map(order), kind="stable")
    write_table(run, "tables/exports.csv", table)
    return table.reset_index(drop=True)
