"""What a network computes in: float32, or half as many bits where that is faster."""

import json
import platform
import re
import time
from pathlib import Path

import numpy as np

from cytology.files import digest, is_sound, keep_checksum, written_whole
from cytology.networks.backend import GPUS, details, keras, tf
from cytology.networks.building import build
from cytology.settings import CACHE, InputError

TENSOR_CORES = (7, 0)  # compute capability from which GPUs have them
WORTH_IT = 1.15  # how many times faster bfloat16 must be on a processor


def precision_for(asked: str, architecture: str, image_size: int, cache: Path = CACHE) -> str:
    """What the parameter `precision` means on this machine: float32, float16 or bfloat16.

    `auto` is float16 where all GPUs have tensor cores. Without a GPU it is bfloat16 where the
    processor computes in it and it was measured to be faster for this network; the measurement is
    kept in the cache, so that the next run decides the same. Otherwise it is float32. Raises
    `InputError` if TensorFlow does not compute in what is asked for.
    """
    if asked != "auto":
        if not convolves(asked):
            raise InputError(
                f"Parameter `precision` is {asked}, in which TensorFlow does not compute on this "
                "machine: set it to float32 or auto."
            )
        return asked
    if GPUS:
        capabilities = [details(gpu).get("compute_capability", (0, 0)) for gpu in GPUS]
        return "float16" if min(capabilities) >= TENSOR_CORES else "float32"
    if not (has_bfloat16() and convolves("bfloat16")):
        return "float32"
    name = digest(architecture, image_size, processor(), keras.version())
    path = cache / "precision" / f"{architecture}-{name}.json"
    if not is_sound(path):
        found = {"processor": processor(), "times_faster": bfloat16_gain(architecture, image_size)}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(found), encoding="utf-8")
        keep_checksum(path)
    gain = json.loads(path.read_text(encoding="utf-8"))["times_faster"]
    return "bfloat16" if gain >= WORTH_IT else "float32"


def bfloat16_gain(architecture: str, image_size: int) -> float:
    """How many times faster forward passes are in bfloat16 than in float32: median of five."""
    batch = np.zeros((16, image_size, image_size, 3), np.uint8)
    models = {
        name: build(architecture, image_size, precision=name) for name in ("float32", "bfloat16")
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for repetition in range(6):
        for name, model in models.items():
            started = time.perf_counter()
            model.predict_on_batch(batch)
            if repetition:  # the first one builds the graph
                seconds[name].append(time.perf_counter() - started)
    return float(np.median(seconds["float32"]) / np.median(seconds["bfloat16"]))


def convolves(precision: str) -> bool:
    """Whether TensorFlow makes a convolution in `precision`.

    It fails where oneDNN is held to older instructions (ONEDNN_MAX_CPU_ISA) than TensorFlow finds
    in the processor.
    """
    try:
        tf.nn.conv2d(tf.ones((1, 4, 4, 1), precision), tf.ones((2, 2, 1, 1), precision), 1, "SAME")
    except tf.errors.AbortedError:
        return False
    return True


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16, as far as Linux says; else False."""
    return re.search(r"\b(avx512_bf16|amx_bf16)\b", _about_processor()) is not None


def processor() -> str:
    """The processor's name where Linux gives it, else its kind."""
    found = re.search(r"model name\s*:\s*(.+)", _about_processor())
    return found[1] if found else platform.machine()


def _about_processor() -> str:
    about = Path("/proc/cpuinfo")
    return about.read_text() if about.is_file() else ""
