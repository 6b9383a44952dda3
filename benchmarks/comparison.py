"""Compares two ways in one run: measured in turn, as ratios, with what was held equal."""

import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from cytology.machine import cores, git_state, versions
from cytology.notebook import progress
from cytology.tables import write_json

# Units for which less is better; for all others more is.
LESS_IS_BETTER = ("s",)


@dataclass(frozen=True)
class Row:
    """One comparison: medians of the runs in `unit`, and the median of the ratios of the runs.

    `runs` are (ours, other, ratio), each pair measured one after the other. `target` is in words,
    empty if there is none; `limit` is the same as a ratio, `met` says whether it was reached.
    """

    what: str
    unit: str
    ours: float
    other: float
    ratio: float
    runs: list[tuple[float, float, float]]
    held_equal: str
    target: str = ""
    limit: float | None = None
    met: bool | None = None


@dataclass(frozen=True)
class Result:
    """The rows of a benchmark, and sentences to be shown with them.

    `series` is a table for the benchmark's own figure; most have none.
    """

    rows: list[Row]
    notes: list[str]
    series: pd.DataFrame | None = None


# -------------------------------------------------------------------- measuring


def in_turn(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list]:
    """Call every way once, then every way again, `repeats` times: the results of each.

    In turn, so another job on the machine slows all of them.
    """
    measured = {name: [] for name in ways}
    for _ in progress(range(repeats), "measuring", unit="repeat"):
        for name, way in ways.items():
            measured[name].append(way())
    return measured


def compare(
    what: str,
    unit: str,
    ours: list[float],
    other: list[float],
    held_equal: str,
    at_least: float | None = None,
) -> Row:
    """How many times better ours is: the median over the runs of their ratios.

    `unit` is a rate such as `images/s`, or `s`, for which less is better. `at_least` is the
    target.
    """
    ratios = np.divide(other, ours) if unit in LESS_IS_BETTER else np.divide(ours, other)
    row = _row(what, unit, ours, other, ratios, held_equal)
    if at_least is None:
        return row
    return replace(row, target=f"at least {at_least:g}", limit=at_least, met=row.ratio >= at_least)


def growth(
    what: str,
    unit: str,
    large: list[float],
    small: list[float],
    held_equal: str,
    at_most: float | None = None,
) -> Row:
    """How many times more the large case (`ours`) takes than the small one (`other`)."""
    row = _row(what, unit, large, small, np.divide(large, small), held_equal)
    if at_most is None:
        return row
    return replace(row, target=f"at most {at_most:g}", limit=at_most, met=row.ratio <= at_most)


def _row(what, unit, ours, other, ratios, held_equal) -> Row:
    runs = [tuple(map(float, each)) for each in zip(ours, other, ratios, strict=True)]
    medians = (float(np.median(each)) for each in (ours, other, ratios))
    return Row(what, unit, *medians, runs, held_equal)


# --------------------------------------------------------------------- reporting


def table_of(rows: list[Row]) -> str:
    """The rows as text, one per line, then what was held equal."""
    shown = pd.DataFrame(
        {
            "what": [row.what for row in rows],
            "ours": [f"{row.ours:,.4g}" for row in rows],
            "other": [f"{row.other:,.4g}" for row in rows],
            "unit": [row.unit for row in rows],
            "ratio": [f"{row.ratio:.3g}" for row in rows],
            "target": [row.target for row in rows],
            "": [{True: "met", False: "MISSED", None: ""}[row.met] for row in rows],
        }
    )
    equal = dict.fromkeys(row.held_equal for row in rows)
    return "\n".join([shown.to_string(index=False), *(f"Held equal: {each}" for each in equal)])


def machine() -> dict:
    """The machine and the versions that the numbers come from."""
    from cytology.networks.backend import device  # late: it starts TensorFlow

    about = Path("/proc/cpuinfo")  # of Linux
    named = re.search(r"model name\s*:\s*(.+)", about.read_text() if about.is_file() else "")
    return {
        "processor": named[1] if named else platform.machine(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": device(),
        "versions": versions(),
        "git": git_state(),
    }


def write(results: Path, name: str, result: Result, of_machine: dict, figure) -> None:
    """Write `name.json` and `name.png` to the folder `results`."""
    content = {"rows": [asdict(row) for row in result.rows], "notes": result.notes}
    if result.series is not None:
        content["series"] = result.series.to_dict("records")
    write_json(results, f"{name}.json", content | {"machine": of_machine})
    figure.savefig(results / f"{name}.png", dpi=120, bbox_inches="tight")
