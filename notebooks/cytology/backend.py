"""TensorFlow and Keras, started once and quietly; the device that they found.

Everything that computes imports `keras` and `tf` from here. Start-up costs seconds, so modules
that only handle tables do not.
"""

import contextlib
import os
import sys
import tempfile

from cytology.settings import cores


@contextlib.contextmanager
def _quiet_start():
    """Hold back what C++ code writes to the error stream, and show it if the start fails.

    TensorFlow logs before its log level is set; no variable silences those lines.
    """
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


with _quiet_start():
    import keras
    import tensorflow as tf

    GPUS = tf.config.list_physical_devices("GPU")

# Without growth TensorFlow takes the whole GPU, and a second open notebook finds none left.
for _gpu in GPUS:
    tf.config.experimental.set_memory_growth(_gpu, True)


def device() -> str:
    """The device in words, for tables of times: they mean little without it."""
    if not GPUS:
        return f"CPU, {cores()} cores"
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in GPUS
    ]
    return ", ".join(names)


__all__ = ["GPUS", "device", "keras", "tf"]
