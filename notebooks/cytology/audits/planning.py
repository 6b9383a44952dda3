"""How many patients would settle it? Estimated from the run itself, not from rules of thumb.

This assumes that the next study has patients like those of the run: equally similar images, equally
many per patient, the same share malignant, networks equally good (`study_size`). Heads that learn
from more patients get better, so the numbers are too high rather than too low.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from cytology.audits.study_size import (
    FEWEST,
    MARGIN,
    POWER,
    WIDTH,
    observed_auc,
    observed_difference,
)
from cytology.evaluation.judged import compared_on, judged_networks
from cytology.evaluation.statistics.intervals import named_interval
from cytology.evaluation.statistics.significance import FAMILY_ALPHA
from cytology.run import Run


def plan_widths(tables: dict[str, pd.DataFrame], width: float = WIDTH) -> pd.DataFrame:
    """One row per network: its AUC, the interval's present width, and the groups for `width`."""
    rows = []
    for name, table in tables.items():
        seen = observed_auc(table)
        low, high = seen.interval(seen.groups)
        row = {"architecture": name, "images": len(table), "groups": seen.groups}
        row |= named_interval("auc", seen.auc, low, high) | {"width": high - low}
        row |= {"wanted_width": width, "groups_for_width": seen.groups_for_width(width)}
        rows.append(row)
    return pd.DataFrame(rows)


def plan_differences(
    tables: dict[str, pd.DataFrame], margin: float = MARGIN, power: float = POWER
) -> pd.DataFrame:
    """One row per pair of networks: what this study could detect, and how many groups would decide.

    `smallest` is the smallest true difference detected with the `power`, `groups_to_decide` how
    many groups would detect the observed one, if it is the true one. Both at `alpha`, the first
    step of Holm's correction in notebook 07. `equivalent_within` is the smallest margin around the
    95 % interval, `groups_for_equivalence` how many groups would show equal networks to be within
    `margin`.
    """
    pairs, rows = list(combinations(tables, 2)), []
    for first, second in pairs:
        seen = observed_difference(tables[first], tables[second])
        low, high = seen.interval()
        alpha = FAMILY_ALPHA["networks"] / len(pairs)
        row = {"first": first, "second": second, "groups": seen.groups}
        row |= {"images": len(seen.group), "alpha": alpha, "power": power}
        row |= named_interval("difference", seen.difference, low, high)
        row["smallest"] = seen.smallest(seen.groups, power, alpha)
        row["groups_to_decide"] = seen.groups_for(seen.difference, power, alpha)
        row |= {"margin": margin, "equivalent_within": max(-low, high)}
        rows.append(row | {"groups_for_equivalence": seen.groups_for_equivalence(margin, power)})
    return pd.DataFrame(rows)


def plan_curves(tables: dict[str, pd.DataFrame], points: int = 40) -> pd.DataFrame:
    """What studies of other sizes would show: `what, name, second, groups, value`.

    `what` is the `width` of a network's interval, or the `smallest` difference of a pair, as in
    `plan_differences`. Sizes range from a quarter of this study to the size that decides most, at
    most 100 times this study.
    """
    widths, pairs = plan_widths(tables), plan_differences(tables)
    now, rows = widths["groups"].max(), []
    wanted = [*widths["groups_for_width"], *pairs.get("groups_to_decide", [])]
    most = max([size for size in wanted if np.isfinite(size)] + [4 * now])
    sizes = np.geomspace(max(now / 4, 2 * FEWEST), min(1.5 * most, 100 * now), points)
    for name, table in tables.items():
        seen = observed_auc(table)
        rows += [("width", name, "", size, seen.width(size)) for size in sizes]
    for row in pairs.itertuples():
        seen_pair = observed_difference(tables[row.first], tables[row.second])
        rows += [
            ("smallest", row.first, row.second, size, seen_pair.smallest(size, alpha=row.alpha))
            for size in sizes
        ]
    return pd.DataFrame(rows, columns=["what", "name", "second", "groups", "value"])


def plan_of_run(
    run: Run, width: float = WIDTH, margin: float = MARGIN
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`plan_widths`, `plan_differences` and `plan_curves` of a run, on the images compared."""
    tables = judged_networks(run, compared_on(run))
    pairs = plan_differences(tables, margin)
    return run.marked(plan_widths(tables, width)), run.marked(pairs), plan_curves(tables)
