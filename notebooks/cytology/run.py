"""A run: its folder, opened and checked."""

import random
from pathlib import Path

import numpy as np

from cytology.files import refuse_links_out
from cytology.parameters import check_parameters, named
from cytology.settings import InputError, resolve, short
from cytology.tables import read_json
from cytology.wording import composed


def open_run(run_dir, seed: int, **parameters) -> Path:
    """Check the parameters, make the run folder, fix the seeds; returns the folder.

    `parameters` are the notebook's own, by name. Keras is seeded where it is first used
    (`architectures.build`), so that notebooks without a network start quickly.
    """
    check_parameters(run_dir=str(run_dir), seed=seed, **parameters)
    run = resolve(run_dir)
    refuse_links_out(run)
    for folder in ("tables", "figures"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    random.seed(seed)
    np.random.seed(seed)
    return run


def image_root(run: Path, data: str) -> Path:
    """Where the run's images lie; `InputError` if `data` is named and is not what 01 read."""
    made_with = read_json(run, "dataset.json")
    if not made_with["root"]:
        raise InputError(
            f"{short(run)} was shared without its images: name new ones with the parameter "
            "`images` of notebook 08."
        )
    wanted = named(data) if data else made_with["data"]
    if composed(made_with["data"]) != composed(wanted):
        raise InputError(
            f"{short(run)} holds {made_with['data']}, but `data` is {wanted}: "
            "run notebook 01 first, or name another `run_dir`."
        )
    root = Path(made_with["root"])
    if not root.is_dir():
        raise InputError(f"The images of this run are gone from {root}: run notebook 01 again.")
    return root
