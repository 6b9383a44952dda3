"""TensorFlow and Keras, started once and quietly; the machine's devices and how they are used.

Everything that computes imports `keras` and `tf` from here. Start-up costs seconds, so modules
that only handle tables do not.
"""

import contextlib
import logging
import os
import sys
import tempfile

from cytology.machine import all_cores, cores
from cytology.settings import InputError


@contextlib.contextmanager
def quietly():
    """Suppress TensorFlow's output, but show the messages of its C++ code if something fails.

    It logs before its log level is set, and its converters ignore the level; no variable silences
    those lines.
    """
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    stream = os.dup(2)
    with tempfile.TemporaryFile() as collected:
        os.dup2(collected.fileno(), 2)
        try:
            yield
        except BaseException:
            collected.seek(0)
            os.write(stream, collected.read())
            raise
        finally:
            os.dup2(stream, 2)
            os.close(stream)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def start_keras():
    """Keras as the series needs it, whatever `keras.json`, the environment or this kernel set.

    That means: TensorFlow as backend, channels last, float32, no limit on epochs or steps. Raises
    `InputError` if Keras already runs on another backend, or refuses its own `keras.json`.
    """
    loaded = sys.modules.get("keras")
    if loaded and loaded.backend.backend() != "tensorflow":
        raise InputError(
            f"Keras already runs on {loaded.backend.backend()} in this kernel, but the networks "
            "need TensorFlow: restart the kernel and run this notebook from its first cell."
        )
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_NNX_ENABLED": "false"}
    for limit in ("MAX_EPOCHS", "MAX_STEPS_PER_EPOCH"):
        os.environ.pop(f"KERAS_{limit}", None)
    try:
        import keras
    except (AssertionError, ValueError) as error:  # Keras 3.13 asserts without a message
        if str(error) and "` configuration." not in str(error):
            raise
        home = os.environ.get("KERAS_HOME", "~/.keras")
        raise InputError(
            f"Keras refuses its keras.json in {home} ({str(error) or 'one of its values'}): "
            "correct that file or remove it."
        ) from error
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy("float32")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    return keras


# TensorFlow reads this when it is first imported. Errors are still shown.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with quietly():
    keras = start_keras()
    import tensorflow as tf

    GPUS = tf.config.list_physical_devices("GPU")


# Each network traces its own functions once; TensorFlow warns as if that were a mistake.
logging.getLogger("tensorflow").addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)

# Without growth TensorFlow takes the whole GPU, and a second open notebook gets none.
for _gpu in GPUS:
    tf.config.experimental.set_memory_growth(_gpu, True)

# Notebooks that run at the same time share the cores (`run_all.py --jobs` sets this).
if "CYTOLOGY_CORES" in os.environ:
    tf.config.threading.set_intra_op_parallelism_threads(cores())


def be_deterministic(wanted: bool, seed: int) -> None:
    """If `wanted`, make every operation give identical results each time; slower on GPUs.

    Call it before anything is computed. It applies to the whole process.
    """
    if wanted:
        keras.utils.set_random_seed(seed)  # without a seed some operations refuse
        tf.config.experimental.enable_op_determinism()


def device() -> str:
    """The device in words, for tables of times, which mean little without it."""
    if not GPUS:
        share = f"{cores()} of " if cores() < all_cores() else ""
        return f"CPU, {share}{all_cores()} core{'s' if all_cores() > 1 else ''}"
    return ", ".join(details(gpu).get("device_name", "GPU") for gpu in GPUS)


def details(gpu) -> dict:
    """TensorFlow's details of a GPU: `device_name`, `compute_capability`; may be empty."""
    return tf.config.experimental.get_device_details(gpu)


def distribution(strategy: str) -> tf.distribute.Strategy:
    """How steps are spread over devices: `auto` uses all GPUs of this machine, `one` the first.

    Keras 3 does not support MultiWorkerMirroredStrategy (keras#20585): to use several machines,
    spread notebooks instead, with `run_all.py --dask`.
    """
    if strategy == "auto" and len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def enough_memory(batch_size: int):
    """Turn TensorFlow's report of exhausted memory into one sentence about `batch_size`."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(
            f"A batch of {batch_size} does not fit into the device's memory: lower the parameter "
            "`batch_size`; for training, raise `accumulate` by the same factor."
        ) from error


__all__ = ["GPUS", "be_deterministic", "details", "device", "distribution", "enough_memory"]
__all__ += ["keras", "quietly", "tf"]
