"""OpenVINO, for running a frozen network where it is faster than TensorFlow.

The network is a file of its graph, which `passes.kept_graph` makes from a Keras model. Nothing here
starts TensorFlow: a notebook that finds such a file in the cache does not need it.
"""

import functools
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cytology.files import digest, is_sound
from cytology.machine import cores
from cytology.settings import CACHE

TENSORFLOW, OPENVINO, BFLOAT16 = "tensorflow", "openvino", "openvino_bfloat16"
# The number formats in which OpenVINO computes; weights and features are float32 in both.
HINTS = {OPENVINO: "f32", BFLOAT16: "bf16"}
ENGINES = (TENSORFLOW, *HINTS)
TITLES = {
    TENSORFLOW: "TensorFlow",
    OPENVINO: "OpenVINO in float32",
    BFLOAT16: "OpenVINO in bfloat16",
}


class Passes(Protocol):
    """A frozen network as a function.

    It takes uint8 pictures, shape (batch, size, size, 3), and returns float32 values, shape
    (batch, *shape).
    """

    @property
    def engine(self) -> str:
        """The one of `ENGINES` that computes them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result for one picture."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray: ...


@functools.cache
def core() -> Any:
    """OpenVINO's `Core`; None if the package is not installed."""
    # OpenVINO has a package that reports every import to its maker, with a number for this user.
    # It also works without that package.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ModuleNotFoundError:
        return None
    return openvino.Core()


def available_engines() -> tuple[str, ...]:
    """OpenVINO's engines on this machine; empty if it is not installed."""
    if core() is None:
        return ()
    computes_in = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # The property ignores this limit, and below AVX-512 bfloat16 kills the process.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    limited = limit not in ("", "ALL", "DEFAULT") and not limit.startswith(("AVX512", "AVX10"))
    return (OPENVINO,) if limited or "BF16" not in computes_in else tuple(HINTS)


def processor() -> list[str]:
    """What the speed of an engine depends on: processor, its disabled features, version."""
    if core() is None:
        return [platform.processor()]
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    of_machine = [str(core().get_property("CPU", name)) for name in names]
    version = importlib.metadata.version("openvino")
    return [*of_machine, os.environ.get("ONEDNN_MAX_CPU_ISA", ""), version]


class OpenVinoPasses:
    """A network in OpenVINO, read from the `graph` that `passes.kept_graph` wrote."""

    def __init__(self, graph: Path, engine: str):
        self.engine = engine
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[engine],
            "PERFORMANCE_HINT": "LATENCY",  # all cores for one batch
            "INFERENCE_NUM_THREADS": cores(),
            # Otherwise notebooks that run at the same time would all be tied to the first core.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core().compile_model(core().read_model(graph), "CPU", settings)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result for one picture."""
        return tuple(self._compiled.output(0).get_partial_shape().get_max_shape())[1:]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self._compiled(np.ascontiguousarray(pixels))[0]


def graph_path(architecture: str, weights_hash: str, size: int) -> Path:
    """The cache's path for the graph of a network with the weights that a training starts from."""
    return CACHE / "graphs" / f"{architecture}-{digest(weights_hash, size)}.pb"


def kept_passes(about: dict[str, Any], engine: str) -> Passes | None:
    """The frozen network of a run without TensorFlow; None if that is not possible.

    `about` is its `metrics.json`; its graph must be in the cache.
    """
    graph = graph_path(about["architecture"], about["weights_hash"], about["image_size"])
    return OpenVinoPasses(graph, engine) if engine in HINTS and is_sound(graph) else None


def engine_here(about: dict[str, Any]) -> str:
    """The engine that a run used, or TensorFlow if this machine does not have that one.

    A line then reports it: the last digits of the features differ, in bfloat16 more than these.
    """
    engine = about["engine"]
    if engine == TENSORFLOW or engine in available_engines():
        return engine
    print(
        f"NOTE: this run used {TITLES[engine]} for {about['architecture']}, which this machine "
        "does not offer. TensorFlow is used instead; its logits differ a little."
    )
    return TENSORFLOW
