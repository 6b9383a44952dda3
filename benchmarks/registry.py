"""The list of benchmarks, and their options."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.settings import InputError


@dataclass(frozen=True)
class Options:
    """The options of the command line; None leaves the choice to the benchmark.

    `repeats` is how often each way is measured, `images` the maximum number of images, `data` a
    folder of images in two classes, `weights` like the notebooks' parameter.
    """

    repeats: int
    images: int | None = None
    image_size: int = 224
    architectures: tuple[str, ...] = ARCHITECTURE_NAMES
    data: Path | None = None
    patient_pattern: str = ""
    weights: str = "random"


@dataclass(frozen=True)
class Benchmark:
    """One question: `module` has `measure(options, folder)` and perhaps its own `figure`."""

    name: str
    module: str
    title: str
    asks: str
    repeats: int = 5

    def load(self):
        """Import the module; most of them start TensorFlow."""
        return importlib.import_module(f"benchmarks.{self.module}")


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "B1",
            "input_pipeline",
            "Input",
            "Does the input pipeline keep up, alone and in front of a training step?",
        ),
        Benchmark(
            "B2",
            "cross_validated_head",
            "Head",
            "How long do cross-validated heads take, and is their AUC as good?",
            repeats=1,
        ),
        Benchmark(
            "B3",
            "cached_activations",
            "Fine-tuning from a cut",
            "What do cached activations gain if only the last block is trained?",
        ),
        Benchmark(
            "B4",
            "scale",
            "Scale",
            "Do memory and time per picture stay the same from 4,000 to 35,000 images?",
        ),
        Benchmark(
            "B8",
            "engines",
            "Frozen passes",
            "How fast is each way through a frozen network, and is it accurate enough?",
        ),
        Benchmark(
            "B9",
            "alternatives",
            "What a user would pick instead",
            "How long do features and cross-validated heads take by other common ways?",
            repeats=1,
        ),
    )
}


def choose_benchmarks(names: list[str]) -> list[Benchmark]:
    """The benchmarks with these names, all if there are none; `InputError` for an unknown name."""
    for name in names:
        if name.upper() not in BENCHMARKS:
            raise InputError(
                f"There is no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}."
            )
    return [BENCHMARKS[name.upper()] for name in names] or list(BENCHMARKS.values())
