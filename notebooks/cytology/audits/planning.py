"""How many patients would settle it? From what a run itself shows, not from rules of thumb.

The next study is taken to have patients as those of the run: as alike within, with as many images,
as many of them malignant, judged by networks as good (`study_size`). Heads that learn from more
patients get better, so that the numbers are rather too high than too low.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from cytology.audits.study_size import FEWEST, MARGIN, POWER, WIDTH, auc_seen, difference_seen
from cytology.evaluation.judged import compared_on, judged_networks
from cytology.evaluation.statistics.intervals import named_interval
from cytology.evaluation.statistics.significance import FAMILY_ALPHA
from cytology.run import Run


def plan_widths(tables: dict[str, pd.DataFrame], width: float = WIDTH) -> pd.DataFrame:
    """A row a network: its AUC, the interval's width now, and how many groups give `width`."""
    rows = []
    for name, table in tables.items():
        seen = auc_seen(table)
        low, high = seen.interval(seen.groups)
        row = {"architecture": name, "images": len(table), "groups": seen.groups}
        row |= named_interval("auc", seen.auc, low, high) | {"width": high - low}
        row |= {"wanted_width": width, "groups_for_width": seen.groups_for_width(width)}
        rows.append(row)
    return pd.DataFrame(rows)


def plan_differences(
    tables: dict[str, pd.DataFrame], margin: float = MARGIN, power: float = POWER
) -> pd.DataFrame:
    """A row a pair of networks: what this study could see, and how many groups would decide.

    `smallest` is the smallest true difference found with the `power`, `groups_to_decide` how many
    groups would find the observed one, if it is the true one. Both at `alpha`, the first step of
    Holm's correction in notebook 07. `equivalent_within` is the least margin that holds the 95 %
    interval, `groups_for_equivalence` how many groups would put equal networks within `margin`.
    """
    pairs, rows = list(combinations(tables, 2)), []
    for first, second in pairs:
        seen = difference_seen(tables[first], tables[second])
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

    `what` is `width` of a network's interval, or the `smallest` difference of a pair, as in
    `plan_differences`. Sizes go from a quarter of this study to what decides most, at most 100
    times this study.
    """
    widths, pairs = plan_widths(tables), plan_differences(tables)
    now, rows = widths["groups"].max(), []
    wanted = [*widths["groups_for_width"], *pairs.get("groups_to_decide", [])]
    most = max([size for size in wanted if np.isfinite(size)] + [4 * now])
    sizes = np.geomspace(max(now / 4, 2 * FEWEST), min(1.5 * most, 100 * now), points)
    for name, table in tables.items():
        seen = auc_seen(table)
        rows += [("width", name, "", size, seen.width(size)) for size in sizes]
    for row in pairs.itertuples():
        seen_pair = difference_seen(tables[row.first], tables[row.second])
        rows += [
            ("smallest", row.first, row.second, size, seen_pair.smallest(size, alpha=row.alpha))
            for size in sizes
        ]
    return pd.DataFrame(rows, columns=["what", "name", "second", "groups", "value"])


def plan_of_run(
    run: Run, width: float = WIDTH, margin: float = MARGIN
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`plan_widths`, `plan_differences` and `plan_curves` of a run, on what is compared."""
    tables = judged_networks(run, compared_on(run))
    pairs = plan_differences(tables, margin)
    return run.marked(plan_widths(tables, width)), run.marked(pairs), plan_curves(tables)
