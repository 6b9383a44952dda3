"""How many patients would settle it, in words."""

import numpy as np
import pandas as pd

from cytology.audits.study_size import MOST
from cytology.evaluation.readable import title
from cytology.run import LEAKING
from cytology.wording import interval_text, plural

ROUGH = 2  # digits of a planned number: more would pretend precision
ENOUGH = "this study"


def groups_needed(groups: float, units: str, now: int) -> str:
    """A planned number of groups in words: `about 1,230 patients (4 times this study)`."""
    if np.isinf(groups):
        return f"more than {MOST:,} {units}"
    if groups <= now:
        return f"{ENOUGH} is enough ({groups:,.0f} {units} would do)"
    digits = max(int(np.floor(np.log10(groups))) + 1 - ROUGH, 0)
    rough = np.ceil(groups / 10**digits) * 10**digits
    return f"about {rough:,.0f} {units} ({groups / now:.1f} times this study)"


def planning_sentences(widths: pd.DataFrame, pairs: pd.DataFrame, unit: str) -> list[str]:
    """The tables of `planning.plan_of_run` in words, one sentence per network and pair."""
    units = plural(unit)
    if widths["protocol"].isin(LEAKING).any():
        return ["The split leaks, so nothing can be planned from this run."]
    if (widths["weights"] == "random").any():
        return ["No pretrained weights: the next study would not use these networks."]
    sentences = []
    for _, row in widths.iterrows():
        if np.isnan(row["width"]):
            sentences.append(f"{title(row['architecture'])}: too few {units} to plan from.")
            continue
        sentences.append(
            f"{title(row['architecture'])}: with {row['groups']} {units} the interval of the AUC "
            f"is {row['width']:.3f} wide. For {row['wanted_width']:g}: "
            f"{groups_needed(row['groups_for_width'], units, row['groups'])}."
        )
    for _, row in pairs.iterrows():
        sentences += pair_sentences(row, units)
    if len(sentences):
        sentences.append(
            f"All this is for {units} like these, with as many images each, and for networks as "
            "good as these; an observed difference is itself uncertain, and often too large if it "
            "was picked for its size."
        )
    return sentences


def pair_sentences(row: pd.Series, units: str) -> list[str]:
    """A row of `planning.plan_differences` in words: what was detectable, what would decide."""
    names, size = f"{title(row['first'])} and {title(row['second'])}", abs(row["difference"])
    if np.isnan(row["smallest"]):
        return [f"{names}: too few {units} to plan from."]
    seen = (
        f"{names}: this study detects a difference in AUC of {row['smallest']:.3f} with a power of "
        f"{row['power']:.0%}; it observed {size:.3f}. "
    )
    if size >= row["smallest"]:
        seen += f"That is large enough for its {row['groups']} {units}."
    else:
        decide = groups_needed(row["groups_to_decide"], units, row["groups"])
        seen += f"To decide on that, if it is the true one: {decide}."
    within, margin = row["equivalent_within"], row["margin"]
    interval = interval_text(row, "difference", "95 % ", "+z.3f")
    if within <= margin:
        return [seen, f"{names} are equivalent within {margin:g} of AUC ({interval})."]
    needed = groups_needed(row["groups_for_equivalence"], units, row["groups"])
    return [
        seen,
        f"{names} are not shown to be equivalent within {margin:g} of AUC ({interval}). If they "
        f"are equal, that needs {needed}.",
    ]
