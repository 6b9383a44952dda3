"""95 % intervals by drawing whole groups (cluster bootstrap), for curves and where no test fits.

Rows have `label` and `group`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from cytology.evaluation.statistics.clusters import variance_inflation
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS, LEVEL
from cytology.evaluation.statistics.metrics import cumulative_counts, truth_and_probability

DRAWS = 500  # of a band
AT_ONCE = 20_000_000  # weights in memory at once: 160 MB, and several copies


def group_weights(rows: pd.DataFrame, draws: int) -> np.ndarray:
    """How often each group was drawn, shape (draws, groups), groups in sorted order.

    Images of one patient are alike, so drawing images would give bands that are too narrow (Field &
    Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x, the cluster bootstrap). For cross-validated
    rows half as many groups are drawn, which doubles the variance. All models of a run get the same
    draws. NaN, like every band from them, if fewer than `FEWEST_GROUPS` groups have a class: four
    groups allow only 35 different draws, which hide how wrong four patients can be.
    """
    groups = rows["group"].nunique()
    if rows.groupby("label")["group"].nunique().min() < FEWEST_GROUPS:
        return np.full((draws, groups), np.nan)
    drawn = round(groups / variance_inflation(rows))
    rng = np.random.default_rng(0)
    return rng.multinomial(drawn, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def percentile_interval(drawn: np.ndarray) -> np.ndarray:
    """The middle 95 % of draws, shape (draws, ...), as (2, ...); draws without a value are out."""
    known = drawn[~np.isnan(drawn).reshape(len(drawn), -1).any(axis=1)]
    if not len(known):
        return np.full((2, *drawn.shape[1:]), np.nan)
    return np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def group_intervals(rows: pd.DataFrame, statistic: Callable, draws: int) -> dict[str, np.ndarray]:
    """The `percentile_interval` of each number of a `statistic`, by drawing whole groups.

    `statistic` takes weights of shape (some draws, rows) and returns a dictionary of arrays of
    shape (some draws, ...): not all draws at once, to save memory.
    """
    weights = group_weights(rows, draws)
    codes = np.unique(rows["group"].to_numpy(), return_inverse=True)[1]
    some = max(1, AT_ONCE // len(rows))
    parts = [statistic(weights[k : k + some][:, codes]) for k in range(0, draws, some)]
    return {
        name: percentile_interval(np.concatenate([part[name] for part in parts]))
        for name in parts[0]
    }


def curve_bands(rows: pd.DataFrame, draws: int = DRAWS, points: int = 101) -> pd.DataFrame:
    """Pointwise 95 % bands of the ROC and precision-recall curves, by drawing whole groups.

    Columns: `at` (0 to 1), `sensitivity_low`, `_high` with `at` as 1 - specificity, and
    `precision_low`, `_high` with `at` as sensitivity.
    """
    truth, probability = truth_and_probability(rows)
    at = np.linspace(0, 1, points)

    def curves(weights):
        found, false = cumulative_counts(truth, probability, weights)
        # A draw without one of the classes has no curve.
        both = (found[:, -1] > 0) & (false[:, -1] > 0)
        sensitivity, precision = np.full((2, len(weights), points), np.nan)
        for k in np.flatnonzero(both):
            f, n = np.append(0, found[k]), np.append(0, false[k])
            sensitivity[k] = np.interp(at, n / n[-1], f / f[-1])
            f, n = f[f + n > 0], n[f + n > 0]  # starting with the first image drawn
            precision[k] = np.interp(at, f / f[-1], f / (f + n))
        return {"sensitivity": sensitivity, "precision": precision}

    table = pd.DataFrame({"at": at})
    for name, bounds in group_intervals(rows, curves, draws).items():
        table[f"{name}_low"], table[f"{name}_high"] = bounds
    return table
