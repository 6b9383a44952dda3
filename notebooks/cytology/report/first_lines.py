"""Four questions at the top of a report, each with a marked answer.

The answers come from the run's tables and say no more than these allow.
"""

from dataclasses import dataclass

import pandas as pd

from cytology.architectures import ARCHITECTURE_NAMES, NETWORK_TITLE
from cytology.audits.leakage import FEWEST_SHUFFLES, HONEST
from cytology.evaluation.caveats import split_check
from cytology.evaluation.readable import capital
from cytology.evaluation.summary import baseline_in_words, why_no_statement
from cytology.run import LEAKING, Run
from cytology.wording import interval_text, is_person, join_words, with_interval


@dataclass(frozen=True)
class Line:
    """A question, its answer in a word or two, and what that rests on.

    `mark` is `good`, `bad` or `open`.
    """

    asks: str
    mark: str
    word: str
    says: str


def networks_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of results that belong to the series' networks, without random ones."""
    if table.empty:
        return table
    name = "architecture" if "architecture" in table else "model"
    return table[table[name].isin(ARCHITECTURE_NAMES) & (table["weights"] != "random")]


def unit_of(run: Run) -> str:
    """The unit that was kept together, in a word."""
    return run.facts_if_there("split.json").get("unit", "group")


# --------------------------------------------------------------------- four questions


def lines(run: Run) -> list[Line]:
    """Kept apart, better than size and colour, what a wrong split adds, the promised sensitivity.

    A question is left out if its notebook has not been run.
    """
    return [
        line
        for make in (kept_apart, beyond_size_and_colour, wrong_split, promise_kept)
        if (line := make(run))
    ]


def kept_apart(run: Run) -> Line | None:
    """Whether patients lie on one side of the split only, and whether that can be known."""
    split, dataset = run.facts_if_there("split.json"), run.facts_if_there("dataset.json")
    if not split:
        return None
    asks, leak, unit = "Patients kept apart?", split["leak"], split.get("unit", "group")
    if leak["test_images_with_copy_in_training"] or leak["groups_in_several_splits"]:
        return Line(asks, "bad", "no", "This split leaks, as is said above.")
    unknown = dataset.get("of_unknown_unit", 0)
    says = split_check(dataset, split)
    if not is_person(unit) or (unknown and unknown == dataset.get("images")):
        return Line(asks, "open", "not known", says)
    word = "as far as known" if unknown else "yes"
    return Line(asks, "open" if unknown else "good", word, says)


def beyond_size_and_colour(run: Run) -> Line | None:
    """Whether the networks are better than the baseline, which knows only size and mean colour."""
    pairs = run.rows("tables/pairwise.csv", family="baseline", level="image")
    everything = run.rows("tables/comparison_all.csv")
    if pairs.empty or everything.empty or pairs["protocol"].isin(LEAKING).any():
        return None
    pairs = pairs[~pairs["weights"].str.contains("random")]
    said = baseline_in_words(pairs, everything)
    pairs = pairs[pairs["second"].isin(ARCHITECTURE_NAMES)]
    if not said:
        return None
    better = pairs["separated"] & (pairs["difference"] > 0)
    mark = "good" if better.all() else "open" if better.any() else "bad"
    word = {"good": "yes", "open": "not all", "bad": "not shown"}[mark]
    return Line("Better than size and colour?", mark, word, " ".join(said))


def wrong_split(run: Run) -> Line | None:
    """How many points of AUC the wrong split would add, and what shuffled labels reach here."""
    rows = run.rows("tables/leakage_summary.csv")
    if rows.empty:
        return None
    rows = networks_of(rows)
    at = rows.set_index(["protocol", "labels"]).sort_index()
    kinds = [("images_random", "true"), (HONEST, "shuffled by group")]
    if rows.empty or not all(kind in at.index for kind in kinds):
        return None
    added, shuffled = (at.loc[[kind]] for kind in kinds)
    added = added.dropna(subset="inflation")
    if added.empty:
        return None
    shown = added[added["inflation_low"] > 0]
    most = shown["inflation"].max()
    word = f"{most:.1f} points" if len(shown) else "not shown"
    each = join_words(
        f"{NETWORK_TITLE[row['architecture']]} {row['inflation']:+z.1f} "
        f"({interval_text(row, 'inflation', '', '+z.1f')})"
        for _, row in added.iterrows()
    )
    says = f"Points of AUC (95 %), by splitting pictures at random: {each}."
    audit = run.rows("tables/leakage_audit.csv")
    known = shuffled.dropna(subset=["auc", "auc_low"])
    if len(known) and len(audit) and audit["seed"].nunique() >= FEWEST_SHUFFLES:
        leaks = known[known["auc_low"] > 0.5]
        reached = join_words(f"{auc:.2f}" for auc in known["auc"])
        says += f" Shuffled labels give AUC {reached} with the split used here"
        says += ": SOMETHING LEAKS." if len(leaks) else ", as chance does."
        if len(leaks):
            return Line("What would a wrong split add?", "bad", "a leak here", says)
    return Line("What would a wrong split add?", "open", word, says)


def promise_kept(run: Run) -> Line | None:
    """Whether the threshold for the wanted sensitivity reached it on other images."""
    rows = networks_of(sensitivity_rows(run))
    if rows.empty or why_no_statement(rows, unit_of(run)):
        return None
    wanted = rows["wanted_sensitivity"].iloc[0]
    each = join_words(
        f"{NETWORK_TITLE[row['model']]} got {with_interval(row, 'recall')}"
        for _, row in rows.iterrows()
    )
    says = f"Wanted {wanted:.2f}; {each}."
    notes = [note for note in dict.fromkeys(rows["note"].fillna("")) if "promised" in note]
    mark, word = "open", "as far as seen" if (rows["recall"] >= wanted).all() else "cannot tell"
    if (rows["recall_high"] < wanted).any():
        mark, word = "bad", "no"
    elif (rows["recall_low"] >= wanted).all():
        mark, word = "good", "yes"
    elif notes:
        word, said = "not promised", notes[0].split(";")[0]
        says += f" {capital(said)}."
    return Line("Promised sensitivity kept?", mark, word, says)


def sensitivity_rows(run: Run) -> pd.DataFrame:
    """Results of the thresholds for the wanted sensitivity, on the part that was compared."""
    rows = run.rows("tables/thresholds.csv", rule="sensitivity")
    compared = run.rows("tables/comparison.csv")
    if rows.empty or compared.empty:
        return pd.DataFrame()
    return rows[rows["judged_on"] == compared["judged_on"].iloc[0]]
