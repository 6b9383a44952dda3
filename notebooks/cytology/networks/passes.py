"""A Keras network as a function from pictures to features, and the choice of its engine.

OpenVINO is faster than TensorFlow on many processors, but not on all, and bfloat16 is accurate
enough for some networks and too coarse for others. So both are measured on the machine in use.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytology.files import digest, is_sound, written_with_checksum
from cytology.networks.backend import GPUS, keras, tf
from cytology.networks.batches import DecodedImages
from cytology.networks.engines import (
    HINTS,
    TENSORFLOW,
    TITLES,
    OpenVinoPasses,
    Passes,
    available_engines,
    graph_path,
    processor,
)
from cytology.settings import CACHE, InputError

TRIED = 16  # pictures for comparing engines; the second half is timed
LOST = 0.01  # the largest share of the differences between pictures that an engine may lose
FASTER = 1.1  # with a smaller factor, TensorFlow is kept


@dataclass(frozen=True)
class KerasPasses:
    """A Keras model, unchanged."""

    model: keras.Model
    engine: str = TENSORFLOW

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result for one picture."""
        return tuple(self.model.output.shape[1:])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self.model.predict_on_batch(pixels)


@dataclass(frozen=True)
class Engine:
    """The software that computes the features of a network, and a sentence that says `why`."""

    name: str
    why: str

    def passes(self, extractor: keras.Model, weights_hash: str) -> Passes:
        """The extractor as a function; its graph is kept in the cache under the hash."""
        if self.name == TENSORFLOW:
            return KerasPasses(extractor)
        return OpenVinoPasses(kept_graph(extractor, weights_hash), self.name)


def passes_of_copy(extractor: keras.Model, engine: str) -> Passes:
    """A network with changed weights as a function; nothing is cached."""
    if engine == TENSORFLOW:
        return KerasPasses(extractor)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.pb")
        path.write_bytes(graph_of(with_constants(extractor)))
        return OpenVinoPasses(path, engine)


# ---------------------------------------------------------------------- graphs


def with_constants(extractor: keras.Model) -> tf.types.experimental.ConcreteFunction:
    """The network as one TensorFlow function in float32, with its weights as constants.

    It takes uint8 pictures. TensorFlow's own freezing of a traced function takes twice as long.
    """
    size = extractor.input_shape[1]
    variables = (extractor.trainable_variables, extractor.non_trainable_variables)
    weights = [[np.asarray(each) for each in part] for part in variables]

    def features(pixels):
        constants = ([tf.constant(each) for each in part] for part in weights)
        found, _ = extractor.stateless_call(*constants, tf.cast(pixels, tf.float32), training=False)
        return found

    pixels = tf.TensorSpec((None, size, size, 3), tf.uint8)
    return tf.function(features, autograph=False).get_concrete_function(pixels)


def graph_of(traced: tf.types.experimental.ConcreteFunction) -> bytes:
    """The function traced by `with_constants`, as a file that OpenVINO reads."""
    return traced.graph.as_graph_def().SerializeToString()


def kept_graph(extractor: keras.Model, weights_hash: str, traced=None) -> Path:
    """The file of a network's graph in the cache; made if missing."""
    path = graph_path(extractor.name, weights_hash, extractor.input_shape[1])
    if not is_sound(path):
        with written_with_checksum(path) as temporary:
            temporary.write_bytes(graph_of(traced or with_constants(extractor)))
    return path


# ---------------------------------------------------------------------- choice


def choose_engine(
    asked: str,
    extractor: keras.Model,
    weights_hash: str,
    images: DecodedImages,
    precision: str = "float32",
) -> Engine:
    """The engine for a network here; `auto` is the fastest that is accurate enough.

    On a GPU that is TensorFlow. Otherwise the engines are tried on some of the `images`, and the
    result is cached. Raises `InputError` for an engine that this machine lacks, and for OpenVINO if
    `precision` is not float32.
    """
    if asked != "auto":
        if asked in HINTS and asked not in available_engines():
            lacking = "OpenVINO is not installed here (pip install openvino)"
            if available_engines():
                lacking = f"this machine does not support {TITLES[asked]}"
            raise InputError(f"Parameter `engine` is {asked}, but {lacking}: set it to auto.")
        if asked in HINTS and precision != "float32":
            raise InputError(
                f"Parameter `engine` is {asked}, which needs a network in float32, but "
                f"`precision` is {precision}: set that to float32, or `engine` to tensorflow."
            )
        return Engine(asked, "as requested.")
    if GPUS:
        return Engine(TENSORFLOW, "this machine has a GPU.")
    if precision != "float32":
        return Engine(TENSORFLOW, f"`precision` is {precision}.")
    if not available_engines():
        return Engine(
            TENSORFLOW, "OpenVINO, which may be faster, is not installed (pip install openvino)."
        )
    # Chosen by their hashes, so a new image in the folder rarely changes the choice.
    sha256 = images.sha256.drop_duplicates().sort_values().iloc[:TRIED]
    name = digest(weights_hash, images.size, list(sha256), tf.__version__, *processor())
    path = CACHE / "engines" / f"{extractor.name}-{name}.json"
    if not is_sound(path):
        found = try_engines(extractor, weights_hash, images.batch(sha256.index, [0] * len(sha256)))
        with written_with_checksum(path) as temporary:
            temporary.write_text(json.dumps(found), encoding="utf-8")
    return fastest(json.loads(path.read_text(encoding="utf-8")))


def try_engines(
    extractor: keras.Model, weights_hash: str, pixels: np.ndarray
) -> dict[str, dict[str, float]]:
    """Each engine's pictures `a_second`, and the share of their differences that is `lost`."""
    traced = with_constants(extractor)
    graph = kept_graph(extractor, weights_hash, traced)
    ways: dict[str, Callable[[np.ndarray], np.ndarray]]
    ways = {TENSORFLOW: lambda pixels: traced(tf.constant(pixels)).numpy()}
    ways |= {name: OpenVinoPasses(graph, name) for name in available_engines()}
    first, second = np.array_split(pixels, 2)
    made, seconds = {}, {}
    for name, way in ways.items():
        before, started = way(first), time.perf_counter()
        made[name] = np.concatenate([before, way(second)])
        seconds[name] = time.perf_counter() - started
    return {
        name: {
            "a_second": len(second) / seconds[name],
            "lost": lost_differences(values, made[TENSORFLOW]),
        }
        for name, values in made.items()
    }


def lost_differences(features: np.ndarray, exact: np.ndarray) -> float:
    """The share of the differences between pictures that features (n, width) have lost.

    The squared error, as a share of the squared distances of the `exact` features from their mean:
    what all pictures have in common carries no information, however large.
    """
    spread = np.square(exact - exact.mean(axis=0), dtype=float).sum()
    lost = np.square(features - exact, dtype=float).sum() / max(spread, 1e-30)
    return float(lost) if np.isfinite(lost) else 1.0


def fastest(tried: dict[str, dict[str, float]]) -> Engine:
    """The fastest engine of `try_engines` that loses at most `LOST`, and the reason."""
    rates = {name: of["a_second"] for name, of in tried.items() if of["lost"] <= LOST}
    best = max(rates, key=lambda name: rates[name])
    if rates[best] < FASTER * rates[TENSORFLOW]:
        best = TENSORFLOW
    others = ", ".join(f"{TITLES[name]} {rate:.0f}" for name, rate in rates.items() if name != best)
    why = f"{rates[best]:.0f} pictures per second in a trial" + (f" ({others})." if others else ".")
    if tried[best]["lost"] > 1e-6:
        why += f" It loses {tried[best]['lost']:.2%} of the differences between pictures."
    why += "".join(
        f" {TITLES[name]} ({of['a_second']:.0f}) would lose {of['lost']:.1%} of the differences "
        f"between pictures; {LOST:.0%} is accepted."
        for name, of in tried.items()
        if name not in rates
    )
    return Engine(best, why)
