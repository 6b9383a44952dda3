"""The top of a report, for readers in a hurry: which network to take, and five sentences.

They come from the run's tables and say no more than these allow.
"""

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.audits.planning_sentences import groups_needed
from cytology.audits.subgroups import ALPHA
from cytology.evaluation.place_sentences import in_percent
from cytology.evaluation.readable import too_few
from cytology.evaluation.summary import why_no_statement
from cytology.report.first_lines import networks_of, sensitivity_rows, unit_of
from cytology.run import Run
from cytology.wording import counted, join_words, plural

IN_100 = 100
SHARE = 0.1  # of malignant images, where none was asked for
FASTER = 1.2  # below, two speeds are called equal


def recommendation(run: Run) -> tuple[str, str]:
    """(the network to take, if any; why, in a sentence or two); both empty without a comparison.

    Of the networks that no other is shown to be better than, it is the fastest if their speeds were
    measured alike, else the smallest. It must be shown to be better than size and colour, and than
    chance.
    """
    table, pairs = run.rows("tables/comparison.csv"), run.rows("tables/pairwise.csv")
    if table.empty or pairs.empty:
        return "", ""
    if why_no_statement(table, unit_of(run)):
        return "", "Take none of them from this run."
    by_image = pairs[pairs["level"] == "image"]
    table = networks_of(table).sort_values("auc", ascending=False, kind="stable")
    best, names = table["architecture"].iloc[0], list(table["architecture"])
    baseline = by_image[by_image["family"] == "baseline"]
    beaten = set(baseline.loc[baseline["separated"] & (baseline["difference"] > 0), "second"])
    above = set(table.loc[table["auc_low"] > 0.5, "architecture"])
    fit = [name for name in names if name in above and (name in beaten or baseline.empty)]
    if not fit:
        return "", _why_none(names, above)
    networks = by_image[by_image["family"] == "networks"]
    equal = [name for name in fit if name not in _worse(networks)]
    if not equal:
        return "", (
            "Take none of them: those that are better than size and mean colour alone are worse "
            f"than {NETWORK_TITLE[best]}."
        )
    if len(equal) > 1:
        return _cheapest(run, equal, networks)
    only = equal[0]
    if len(names) == 1:
        return only, f"{NETWORK_TITLE[only]} is the only network of this run: take it."
    why = "It separates the classes best."
    if len(fit) == 1:
        why = "No other is shown to be better than both chance and size and mean colour alone."
    elif only != best:
        why = "No other that is better than size and mean colour alone is as good."
    return only, f"Take {NETWORK_TITLE[only]}. {why}"


def _why_none(names: list[str], above: set[str]) -> str:
    """Why none of the networks is recommended; those in `above` are better than chance."""
    if not above:
        return "Take none of them: none is shown to be better than chance."
    better = [NETWORK_TITLE[name] for name in names if name in above]
    return (
        f"Take none of them yet: {join_words(better)} {'is' if len(better) == 1 else 'are'} shown "
        "to be better than chance, but not than size and mean colour alone."
    )


def _worse(pairs: pd.DataFrame) -> set[str]:
    """The networks that another one is shown to be better than."""
    pairs = pairs[pairs["separated"]]
    return set(pairs["first"].where(pairs["difference"] > 0, pairs["second"]))


def _cheapest(run: Run, equal: list[str], pairs: pd.DataFrame) -> tuple[str, str]:
    """The fastest or smallest of networks that the data do not separate, and the reason."""
    among = pairs[pairs["first"].isin(equal) & pairs["second"].isin(equal)]
    ends = among[["difference_low", "difference_high"]].abs().to_numpy()
    hidden = ""
    if len(among) and not np.isnan(ends).any():
        hidden = f" (differences of AUC of up to {ends.max():.2f} could hide)"
    cost = run.rows("tables/cost.csv")
    cost = cost[cost["architecture"].isin(equal)] if len(cost) else cost
    taken, why = equal[0], "its AUC is the highest"
    if len(cost) == len(equal):
        taken, why = _least(cost.set_index("architecture"))
    others = join_words(NETWORK_TITLE[name] for name in equal if name != taken)
    return taken, (
        f"Take {NETWORK_TITLE[taken]}: equal to {others} as far as can be seen{hidden}, and {why}."
    )


def _least(cost: pd.DataFrame) -> tuple[str, str]:
    """The network of least cost, and its cost compared with the others."""
    speed, size = cost["images_per_second"].sort_values(ascending=False), cost["megabytes"]
    alike = len(cost[["engine", "precision", "device"]].drop_duplicates()) == 1
    is_fast = alike and speed.iloc[0] > FASTER * speed.iloc[1]
    taken = speed.index[0] if is_fast else size.idxmin()
    words = ("faster", "smaller") if len(cost) == 2 else ("the fastest", "the smallest")
    fast = f"{words[0]} ({_beside(speed, taken)} images per second)"
    small = f"{words[1]} ({_beside(size, taken)} MB)"
    if taken != size.idxmin():
        return taken, f"{fast}, with {_beside(size, taken)} MB"
    return taken, f"{fast} and {small}" if is_fast else small


def _beside(numbers: pd.Series, taken: str) -> str:
    """The number of a network against those of the others: `69 against 19 and 25`."""
    others = join_words(f"{value:.0f}" for value in numbers.drop(taken).sort_values())
    return f"{numbers[taken]:.0f} against {others}"


# -------------------------------------------------------------------------- in short


def short_summary(run: Run, taken: str) -> list[str]:
    """About five sentences for a reader in a hurry; none if the run allows no statement.

    About the network `taken`; if that is empty, about the one with the highest AUC.
    """
    table = run.rows("tables/comparison.csv")
    if table.empty or why_no_statement(table, unit_of(run)):
        return []
    table = networks_of(table).sort_values("auc", ascending=False, kind="stable")
    name = taken or table["architecture"].iloc[0]
    return [
        *_mistakes(run, name),
        *_elsewhere(run, name),
        *_doubts(run),
        *_patients(run, name),
        f"All this is about new {plural(unit_of(run))} of the places that these images come from, "
        "and of no other place.",
    ]


def _mistakes(run: Run, name: str) -> list[str]:
    """How many of 100 images a network misses and wrongly calls malignant."""
    rows = sensitivity_rows(run)
    rows = rows[rows["model"] == name] if len(rows) else rows
    if rows.empty or too_few(rows.iloc[0], "auc"):
        return []
    row = rows.iloc[0]
    missed = _of_100(row, "recall", "malignant images", turned=True, before="95 % ")
    alarms = _of_100(row, "specificity", "benign ones", turned=True)
    return [
        f"{NETWORK_TITLE[name]}, at the threshold for a sensitivity of "
        f"{row['wanted_sensitivity']:.0%}, misses {missed} and calls {alarms} malignant."
    ]


def _elsewhere(run: Run, name: str) -> list[str]:
    """How many of 100 malignant and benign calls are right, at a share that is said."""
    rows = run.rows("tables/prevalence.csv", model=name)
    if rows.empty:
        return []
    asked = rows[rows["asked"] & (rows["prevalence"] != rows["malignant_share"])]
    asked = asked if len(asked) else rows[rows["prevalence"] == SHARE]
    if asked.empty or asked[["precision", "negative_predictive_value"]].isna().any(axis=None):
        return []
    row = asked.iloc[0]
    right = _of_100(row, "precision", "malignant calls")
    benign = _of_100(row, "negative_predictive_value", "benign ones")
    return [
        f"Where {in_percent(row['prevalence'])} of the images are malignant, {right} are right, "
        f"and {benign}."
    ]


def _of_100(row, name: str, what: str, turned: bool = False, before: str = "") -> str:
    """A share as `6 of 100 images (1 to 27)`, on request what is missing to 1."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if turned:
        value, low, high = 1 - value, 1 - high, 1 - low
    bounds = "" if np.isnan(low) else f" ({before}{IN_100 * low:.0f} to {IN_100 * high:.0f})"
    return f"{IN_100 * value:.0f} of 100 {what}{bounds}"


def _doubts(run: Run) -> list[str]:
    """What the results depend on, and labels that look wrong."""
    said = []
    tests = run.rows("tables/subgroup_tests.csv")
    if len(tests) and len(tests := networks_of(tests)):
        found = list(dict.fromkeys(tests.loc[tests["p_holm"] < ALPHA, "column"]))
        of_all = join_words(dict.fromkeys(tests["column"]))
        said.append(
            f"The results depend on {join_words(found)}."
            if found
            else f"The results are not shown to depend on {of_all}."
        )
    doubtful = run.rows("tables/doubtful_labels.csv")
    if len(doubtful):
        said.append(f"The labels of {counted(len(doubtful), 'image', 'images')} look doubtful.")
    return said


def _patients(run: Run, name: str) -> list[str]:
    """How many patients would give a narrow interval."""
    rows = run.rows("tables/planning_widths.csv", architecture=name)
    if rows.empty or not rows["groups_for_width"].iloc[0] > rows["groups"].iloc[0]:
        return []
    row = rows.iloc[0]
    takes = groups_needed(row["groups_for_width"], plural(unit_of(run)), row["groups"])
    return [
        f"To narrow the interval of its AUC from {row['width']:.2f} to {row['wanted_width']:g} "
        f"takes {takes}."
    ]
