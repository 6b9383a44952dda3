"""Finds the weights of a backbone.

`auto` takes ImageNet weights from Keras' cache or downloads them; if neither is possible, the run
continues with random weights, and every table, notebook and report warns of it.
"""

import hashlib
import os
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cytology.architectures import ARCHITECTURES
from cytology.files import file_hash
from cytology.settings import InputError, resolve
from cytology.wording import join_words

DOWNLOADS = "https://storage.googleapis.com/tensorflow/keras-applications/"
OUT_OF_REACH = "out of reach"


@dataclass(frozen=True)
class Weights:
    """`kind` is `imagenet`, `file` or `random`; `path` is the file (None for random weights).

    `explanation` is a sentence for the reader.
    """

    kind: str
    path: Path | None
    explanation: str


def find_weights(architecture: str, weights: str) -> Weights:
    """Resolve the parameter `weights` for one architecture; downloads at most once.

    Raises `InputError` if `imagenet` or a given path is not available.
    """
    if weights == "random":
        use = "use this run to check the software, not to rank networks"
        return Weights("random", None, f"Random weights, as requested: {use}.")
    if weights in ("auto", "imagenet"):
        return _imagenet(architecture, may_be_random=weights == "auto")
    path, file = resolve(weights), given_file(architecture, weights)
    if file:
        return Weights("file", file, f"Weights from {file.name}.")
    if not path.exists():
        raise InputError(f"There is no file or folder {path}: check the parameter `weights`.")
    # One file fits one architecture; the others follow `auto`.
    fallback = _imagenet(architecture, may_be_random=True)
    why = f"{path.name} is not named for {architecture}."
    if path.is_dir():
        why = f"No {architecture}*.weights.h5 in {path}."
    return replace(fallback, explanation=f"{why} {fallback.explanation}")


def given_file(architecture: str, weights: str) -> Path | None:
    """The file for an architecture in `weights`, a file or a folder; None if there is none."""
    path = resolve(weights)
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    return next((file for file in files if file.is_file() and is_for(architecture, file)), None)


def weights_fingerprint(architecture: str, weights: str) -> str:
    """A fingerprint of what `find_weights` would find: a hash, or the reason why there is none.

    Nothing is downloaded. If ImageNet weights were out of reach and no longer are, that counts as a
    change.
    """
    if weights == "random":
        return "random"
    if weights not in ("auto", "imagenet") and (file := given_file(architecture, weights)):
        return file_hash(file)
    address = DOWNLOADS + ARCHITECTURES[architecture].weights
    cached = keras_models() / Path(address).name
    if cached.is_file():
        return file_hash(cached)
    return OUT_OF_REACH if unreachable(address) else "can be downloaded"


def warning_of_random(architectures: Iterable[str], weights: str) -> str:
    """A warning that some networks will have random weights although none were asked for."""
    missing = [
        ARCHITECTURES[name].title
        for name in architectures
        if weights != "imagenet" and weights_fingerprint(name, weights) == OUT_OF_REACH
    ]
    if not missing:
        return ""
    return (
        f"No pretrained weights for {join_words(missing)}: none on this machine, and no network to "
        "download them. This run checks the software with random weights; it cannot rank networks."
    )


def is_for(architecture: str, path: Path) -> bool:
    """Whether a file is named for an architecture; Keras writes `mobilenet_v2_...`."""
    return path.name.lower().replace("_", "").replace("-", "").startswith(architecture)


def _imagenet(architecture: str, may_be_random: bool) -> Weights:
    network = ARCHITECTURES[architecture]
    address, md5 = DOWNLOADS + network.weights, network.md5 or None
    cached = keras_models() / Path(address).name
    trouble = "" if is_official(cached, md5) else download_weights(address, cached, md5)
    if trouble and may_be_random:
        return Weights(
            "random",
            None,
            f"NO PRETRAINED WEIGHTS for {network.title}: none in {cached.parent}, and they cannot "
            f"be downloaded ({trouble}). The run continues with random weights: use it to check "
            "the software, not to rank networks. To change that, connect to the internet once, or "
            "name a file with the parameter `weights`.",
        )
    if trouble:
        raise InputError(
            f"ImageNet weights of {network.title} are not in {cached.parent} and cannot be "
            f"downloaded ({trouble}): connect to the internet, or set `weights` to a file or auto."
        )
    return Weights("imagenet", cached, "ImageNet weights.")


def is_official(path: Path, md5: str | None) -> bool:
    """Whether a file of weights exists and, if its `md5` is known, has that hash."""
    if not path.is_file() or md5 is None:
        return path.is_file()
    # Against damage, as in Keras itself; https guarantees where the file came from.
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False)
    return found.hexdigest() == md5


def download_weights(address: str, path: Path, md5: str | None = None) -> str:
    """Fetch `address` to `path` through Keras, which compares the hash if there is one.

    Returns what went wrong; empty if nothing did.
    """
    trouble = unreachable(address)
    if trouble:
        return trouble + (f", and {path} is damaged" if path.is_file() else "")
    from cytology.networks.backend import keras

    try:
        keras.utils.get_file(
            path.name, address, cache_dir=path.parents[1], cache_subdir="models", file_hash=md5
        )
    except Exception as error:  # Keras raises a bare Exception when the connection breaks
        return str(error)
    return ""


def keras_models() -> Path:
    """The folder in which Keras keeps downloaded weights."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"


def unreachable(address: str, seconds: float = 3.0) -> str:
    """Why `address` cannot be reached; empty if it can. Keras' own download never times out."""
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (DOWNLOADS: https)
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
            return ""
    except OSError as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
