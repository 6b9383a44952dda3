"""Run the benchmarks: each prints a table and writes benchmarks/results/NAME.json and .png.

    python -m benchmarks                     # all of them; about two hours on two cores
    python -m benchmarks B1 B4               # some of them
    python -m benchmarks --list              # the question of each
    python -m benchmarks coverage            # do the intervals contain the truth?
    python -m benchmarks promises            # are the promises about new patients kept?
    python -m benchmarks places              # are the statements about another place true?
    python -m benchmarks profile             # where do the seconds of the series go?
    python -m benchmarks B2 --data FOLDER --weights WEIGHTS --patient-pattern "(p\\d+)_"

Every ratio comes from two ways that were measured in turn, in one run. Without --data and
--weights, pictures are drawn and weights are random, and the result notes it.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import coverage, places, profiling, promises
from benchmarks.comparison import machine, table_of, write
from benchmarks.figures import ratios
from benchmarks.registry import BENCHMARKS, Benchmark, Options, choose_benchmarks
from cytology.architectures import ARCHITECTURE_NAMES
from cytology.runner import streams
from cytology.settings import InputError, resolve, short

RESULTS = Path(__file__).parent / "results"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--list", action="store_true", help="print the question of each, run nothing"
    )
    parser.add_argument("--repeats", type=int, help="how often each way is measured")
    parser.add_argument("--images", type=int, help="maximum number of images")
    parser.add_argument("--image-size", type=int, default=224, help="side in pixels (not B4)")
    parser.add_argument(
        "--architecture", nargs="+", choices=ARCHITECTURE_NAMES, default=ARCHITECTURE_NAMES
    )
    parser.add_argument("--data", type=Path, help="a folder of images in two classes (not B4)")
    parser.add_argument("--patient-pattern", default="", help="like the notebooks' parameter")
    parser.add_argument("--weights", default="random", help="like the notebooks' parameter")
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Raise `InputError` for invalid numbers and missing folders."""
    for name in ("repeats", "images", "image_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    if arguments.data and not arguments.data.is_dir():
        raise InputError(f"There is no folder {arguments.data}: check --data.")


def options_for(benchmark: Benchmark, arguments: argparse.Namespace) -> Options:
    """The options of this benchmark; paths are relative to the working folder."""
    return Options(
        repeats=arguments.repeats or benchmark.repeats,
        images=arguments.images,
        image_size=arguments.image_size,
        architectures=tuple(arguments.architecture),
        data=arguments.data and arguments.data.resolve(),
        patient_pattern=arguments.patient_pattern,
        weights=path_or_word(arguments.weights),
    )


def path_or_word(weights: str) -> str:
    """`weights` as an absolute path, unless it is a word like `random`."""
    words = ("auto", "imagenet", "random")
    return weights if weights in words else str(resolve(weights, Path.cwd()))


def run(benchmark: Benchmark, options: Options) -> None:
    """Run one benchmark, print its table, save its numbers and its figure."""
    print(f"\n{benchmark.name} {benchmark.title}: {benchmark.asks}", flush=True)
    module = benchmark.load()
    # Windows cannot remove files that are still mapped into memory.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        result = module.measure(options, Path(folder))
    print("\n".join([*result.notes, "", table_of(result.rows)]))
    figure = getattr(module, "figure", ratios)(result)
    write(RESULTS, benchmark.name, result, machine(), figure)
    print(f"Kept in {short(RESULTS / benchmark.name)}.json and .png", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for invalid input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # These print no ratios and have their own options.
    studies = {"coverage": coverage, "places": places, "promises": promises, "profile": profiling}
    if arguments and arguments[0] in studies:
        return studies[arguments[0]].main(arguments[1:])
    given = parse(arguments)
    try:
        benchmarks = choose_benchmarks(given.names)
        if given.list:
            for benchmark in benchmarks:
                print(f"{benchmark.name}  {benchmark.title}: {benchmark.asks}")
            return 0
        check(given)
        for benchmark in benchmarks:
            run(benchmark, options_for(benchmark, given))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main())
