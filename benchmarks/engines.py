"""B8: speed and accuracy of each engine on a batch through a frozen network, and of the series."""

import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.comparison import Result, Row, compare, in_turn
from benchmarks.cross_validated_head import decode_listing, list_images, split_into_folds
from benchmarks.networks import chosen_passes, network
from benchmarks.registry import Options
from cytology.architectures import NETWORK_TITLE
from cytology.data.augmentation import pictures_of
from cytology.machine import cores
from cytology.networks.backend import keras, quietly
from cytology.networks.batches import DecodedImages, frozen_features
from cytology.networks.building import build, feature_extractor, precision_for
from cytology.networks.engines import TENSORFLOW, TITLES, Passes, available_engines
from cytology.networks.linear_head import fitted_head, is_malignant, logits_by_fold
from cytology.networks.passes import KerasPasses, lost_differences, passes_of_copy
from cytology.networks.weights import find_weights
from cytology.settings import InputError

BATCH = 32
PICTURES = 320  # that the series passes in each repeat
EXACT = TITLES[TENSORFLOW]
IN_BFLOAT16, ONNX = "TensorFlow in bfloat16", "ONNX Runtime in float32"
FOR_ONNX = ("onnx", "onnxruntime", "tf2onnx")
SERIES, ALONE = "the series", "its engine alone"
Way = Callable[[np.ndarray], np.ndarray]
ONE_BATCH = (
    f"one batch of {BATCH} uint8 pictures in memory, weights, all cores, past the first calls. The "
    "other is TensorFlow in float32, by predict_on_batch"
)
WHOLE = (
    f"the network, batches of {BATCH}. The series reads decoded pictures from its cache, turns "
    f"them, and writes their features; up to {PICTURES} pictures from an empty cache of features. "
    "Its engine alone passes the same pictures from memory; TensorFlow in float32 passes one batch"
)


def measure(options: Options, folder: Path) -> Result:
    """Pictures per second of each way and of the series, and the accuracy of each way."""
    listing = list_images(options, folder)
    manifest, images, counted = decode_listing(listing, options, folder)
    split = split_into_folds(manifest)
    rows, notes, tables = [], [f"Images: {listing.source}.", counted], []
    for architecture in options.architectures:
        model, about = network(architecture, options.weights, images, pictures_of(manifest, 1))
        ways, lacking = ways_of(model, folder)
        features = {name: features_of(way, images, split) for name, way in ways.items()}
        # Random features rank nothing, and without patients the folds are not honest.
        ranks = find_weights(architecture, options.weights).kind != "random"
        table = exactness(features, split, bool(ranks and options.data and options.patient_pattern))
        passes, engine = chosen_passes(feature_extractor(model), images, folder / "chosen")
        rates = measure_rates(ways, passes, images, split, options.repeats, folder)
        rows += rows_of(NETWORK_TITLE[architecture], rates, target_of_the_series())
        why = f"{architecture}: the series takes {TITLES[engine.name]}; {engine.why}"
        notes += [about, *lacking, why, *sentences(architecture, table)]
        a_second = table["way"].map({name: np.median(found) for name, found in rates.items()})
        tables.append(table.assign(architecture=architecture, images_a_second=a_second))
    return Result(rows, list(dict.fromkeys(notes)), pd.concat(tables, ignore_index=True))


def target_of_the_series() -> float:
    """How many times as fast as TensorFlow: 4 if the processor multiplies bfloat16 in tiles."""
    about = Path("/proc/cpuinfo")  # of Linux
    return 4 if about.is_file() and "amx_bf16" in about.read_text() else 0.95


# ------------------------------------------------------------------------- ways


def ways_of(model: keras.Model, folder: Path) -> tuple[dict[str, Way], list[str]]:
    """From uint8 pictures to features by each available way; sentences about the others."""
    extractor, lacking = feature_extractor(model), []
    ways: dict[str, Way] = {EXACT: KerasPasses(extractor)}
    try:
        ways[IN_BFLOAT16] = in_bfloat16(model)
    except InputError as error:
        lacking.append(f"{IN_BFLOAT16} was not measured: {error}")
    if missing := [name for name in FOR_ONNX if find_spec(name) is None]:
        lacking.append(f"{ONNX} was not measured: {', '.join(missing)} not installed.")
    else:
        ways[ONNX] = onnx_runtime(extractor, folder / f"{model.name}.onnx")
    if not available_engines():
        lacking.append("OpenVINO was not measured: it is not installed.")
    return ways | {
        TITLES[name]: passes_of_copy(extractor, name) for name in available_engines()
    }, lacking


def in_bfloat16(model: keras.Model) -> Way:
    """The network with Keras' policy mixed_bfloat16; `InputError` if TensorFlow lacks it."""
    precision = precision_for("bfloat16")
    copy = build(model.name, model.input_shape[1], precision=precision)
    copy.set_weights(model.get_weights())
    return KerasPasses(feature_extractor(copy))


def onnx_runtime(extractor: keras.Model, path: Path) -> Way:
    """The network as Keras exports it to `path`, in ONNX Runtime on all cores."""
    import onnxruntime

    extractor(
        np.zeros((1, *extractor.input_shape[1:]), np.float32)
    )  # otherwise Keras exports nothing
    with quietly():
        extractor.export(path, format="onnx", verbose=False)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.astype(np.float32)})[0]


def features_of(way: Way, images: DecodedImages, split: pd.DataFrame) -> np.ndarray:
    """Features of the images as taken, shape (images, width)."""
    ids = split["image_id"].to_numpy()
    parts = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    return np.concatenate([way(images.batch(part, [0] * len(part))) for part in parts])


# -------------------------------------------------------------------- exactness


def exactness(features: dict[str, np.ndarray], split: pd.DataFrame, ranks: bool) -> pd.DataFrame:
    """One row per way: what its features lose compared with `EXACT`, and the effect on logits.

    `lost` is the share of the differences between pictures; `largest_of_a_logit` uses a head that
    was trained on all exact features. If features mean something (`ranks`), heads are trained for
    each fold and way: `auc` out of fold, and the share of `other_decisions` at 0.5.
    """
    malignant, exact = is_malignant(split["label"]), features[EXACT]
    head = fitted_head(exact, malignant)
    rows = []
    for way, values in features.items():
        apart = np.abs(head.logits(values) - head.logits(exact)).max()
        lost = lost_differences(values, exact)
        rows.append({"way": way, "lost": lost, "largest_of_a_logit": float(apart)})
    table = pd.DataFrame(rows)
    if not ranks:
        return table
    logits = {way: out_of_fold(values, split) for way, values in features.items()}
    decided = {way: of >= 0 for way, of in logits.items()}
    return table.assign(
        auc=[roc_auc_score(malignant, of) for of in logits.values()],
        other_decisions=[(of != decided[EXACT]).mean() for of in decided.values()],
    )


def out_of_fold(features: np.ndarray, split: pd.DataFrame) -> np.ndarray:
    """Logits of images, each by a head that saw no image of its fold."""
    malignant, folds = is_malignant(split["label"]), split["fold"].astype(int).to_numpy()
    heads = {
        f"fold{fold}": fitted_head(features[folds != fold], malignant[folds != fold])
        for fold in np.unique(folds)
    }
    return logits_by_fold(heads, features, folds)


def sentences(architecture: str, table: pd.DataFrame) -> list[str]:
    """The result of `exactness` in words."""
    found = []
    for row in table.to_dict("records"):
        said = []
        if row["way"] != EXACT:
            said = [
                f"loses {row['lost']:.2g} of the differences between pictures",
                f"a logit differs by {row['largest_of_a_logit']:.2g} at most",
            ]
        if "auc" in row:
            said.append(f"AUC out of fold {row['auc']:.4f}")
        if "auc" in row and row["way"] != EXACT:
            said.append(f"{row['other_decisions']:.2%} of the decisions at 0.5 differ")
        if said:
            found.append(f"{architecture}, {row['way']}: {'; '.join(said)}.")
    return found


# ------------------------------------------------------------------------ speed


def measure_rates(
    ways: dict[str, Way],
    passes: Passes,
    images: DecodedImages,
    split: pd.DataFrame,
    repeats: int,
    folder: Path,
) -> dict[str, list[float]]:
    """Pictures per second of one batch by each way, of the series, and of its engine alone."""
    pictures = pictures_of(split[["image_id"]], 8).iloc[:PICTURES]
    pixels = images.batch(pictures["image_id"], pictures["orientation"])
    batch = pixels[:BATCH]
    turns = {name: lambda way=way: rate_of(way, batch) for name, way in ways.items()}
    turns[ALONE] = lambda: rate_of(passes, pixels)
    turns[SERIES] = lambda: rate_of_series(passes, images, pictures, folder)
    for turn in turns.values():
        turn()
    return in_turn(turns, repeats)


def rate_of(way: Way, pixels: np.ndarray) -> float:
    """Pictures per second, in batches."""
    started = time.perf_counter()
    for start in range(0, len(pixels), BATCH):
        way(pixels[start : start + BATCH])
    return len(pixels) / (time.perf_counter() - started)


def rate_of_series(
    passes: Passes, images: DecodedImages, pictures: pd.DataFrame, folder: Path
) -> float:
    """Pictures per second of `frozen_features`, none of which was computed before."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as cache:
        started = time.perf_counter()
        frozen_features(passes, images, pictures, ["engines"], BATCH, Path(cache))
        return len(pictures) / (time.perf_counter() - started)


def rows_of(title: str, rates: dict[str, list[float]], target: float) -> list[Row]:
    """Each way and the series against TensorFlow, and the series against its engine alone."""
    exact = rates[EXACT]
    rows = [
        compare(f"{title}, {name}", "images/s", rate, exact, ONE_BATCH)
        for name, rate in rates.items()
        if name not in (EXACT, ALONE, SERIES)
    ]
    series = rates[SERIES]
    return rows + [
        compare(f"{title}, {SERIES}", "images/s", series, exact, WHOLE, target),
        compare(f"{title}, {SERIES} against {ALONE}", "images/s", series, rates[ALONE], WHOLE, 0.9),
    ]
