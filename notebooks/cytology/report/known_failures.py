"""What is known to go wrong with a run's networks, from its tables, in sentences."""

import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.readable import groups_in_words
from cytology.evaluation.statistics.intervals import LEVEL
from cytology.evaluation.statistics.significance import holm
from cytology.evaluation.summary import baseline_in_words, worth_in_words
from cytology.files import file_hash
from cytology.run import LEAKING, Run
from cytology.wording import interval_text, join_words

FEW_GROUPS = 100  # one of them is worth a point


def known_failures(run: Run, names: list[str], unit: str) -> list[str]:
    """What is known to go wrong with these networks, one or two sentences per failure."""
    return [
        *few_groups(run, unit),
        *no_better_than_size_and_colour(run),
        *missed_sensitivity(run),
        *missing_slopes(run),
        *harmful_shifts(run),
        *failed_heatmap_checks(run),
        *failed_exports(run, names),
    ]


def few_groups(run: Run, unit: str) -> list[str]:
    """A warning that few groups were judged."""
    rows = run.rows("tables/comparison.csv")
    if rows.empty or rows["groups"].min() >= FEW_GROUPS:
        return []
    row = rows.sort_values("groups").iloc[0]
    return [f"Few were judged: {groups_in_words(row, unit)}. {worth_in_words(row, unit)}"]


def no_better_than_size_and_colour(run: Run) -> list[str]:
    """Whether the networks beat the baseline, which knows size and mean colour only."""
    pairs = run.rows("tables/pairwise.csv", family="baseline", level="image")
    if pairs.empty or pairs["protocol"].isin(LEAKING).any():
        return []
    everything = run.rows("tables/comparison_all.csv")
    return baseline_in_words(pairs[~pairs["weights"].str.contains("random")], everything)


def rows_of_networks(run: Run, name: str, **keys: str) -> pd.DataFrame:
    """Rows of a table of results on test, without those of models from outside."""
    rows = run.rows(f"tables/{name}.csv", judged_on="test", **keys)
    return rows[rows["model"].isin(run.networks)] if len(rows) else rows


def missed_sensitivity(run: Run) -> list[str]:
    """Thresholds that promise no sensitivity, or that are shown on test to miss it."""
    said = []
    for row in rows_of_networks(run, "thresholds", rule="sensitivity").itertuples():
        if "cannot be promised" in row.note:
            said.append(f"{NETWORK_TITLE[row.model]}: {row.note}.")
        if row.recall_high < row.wanted_sensitivity:
            said.append(
                f"{NETWORK_TITLE[row.model]}: the threshold that was to find "
                f"{row.wanted_sensitivity:.0%} of the malignant images found {row.recall:.0%} on "
                f"test ({interval_text(row._asdict(), 'recall')})."
            )
    return said


def missing_slopes(run: Run) -> list[str]:
    """Networks for which no slope could be fitted."""
    rows = rows_of_networks(run, "calibration", method="platt")
    return [
        f"{NETWORK_TITLE[row.model]}'s probabilities are not calibrated: {row.note}."
        for row in rows.itertuples()
        if row.note
    ]


def harmful_shifts(run: Run) -> list[str]:
    """Shifts under which a network loses AUC, and at which strengths that is shown.

    At any strength, so Holm's correction is over all shifts and strengths of the network.
    """
    rows = run.rows("tables/robustness.csv")
    if rows.empty:
        return []
    rows = rows[rows["strength"] > 0]
    corrected = rows.groupby("architecture")["auc_change_p"].transform(holm)
    rows = rows[(corrected < 1 - LEVEL) & (rows["auc_change_high"].round(3) < 0)]
    return [
        f"{NETWORK_TITLE[name]} separates the classes less well under: "
        + "; ".join(
            f"{shift} at {strengths_in_words(part['strength'])} (AUC falls by up to "
            f"{-part['auc_change'].min():.3f})"
            for shift, part in found.groupby("shift", sort=False)
        )
        + "."
        for name, found in rows.groupby("architecture", sort=False)
    ]


def strengths_in_words(strengths) -> str:
    """`strength 2`, `strengths 2 and 3`, `strengths 2, 3 and 5`."""
    numbers = join_words(map(str, sorted(strengths)))
    return f"strength {numbers}" if len(strengths) == 1 else f"strengths {numbers}"


def failed_heatmap_checks(run: Run) -> list[str]:
    """Checks in which the heatmaps of a network are not shown to be better than chance."""
    rows = run.rows("tables/explanation_checks.csv")
    if rows.empty:
        return []
    said = []
    for name, found in rows.groupby("architecture", sort=False):
        checks = {
            word: "; ".join(dict.fromkeys(found.loc[found["passed"] == word, "check"].astype(str)))
            for word in ("no", "not shown")
        }
        clauses = [f"are worse than chance in {checks['no']}"] if checks["no"] else []
        if checks["not shown"]:
            clauses.append(f"are not shown to be better than chance in {checks['not shown']}")
        if clauses:
            said.append(f"{NETWORK_TITLE[name]}: its heatmaps {' and '.join(clauses)}.")
    return said


def failed_exports(run: Run, names: list[str]) -> list[str]:
    """Exported files that do not agree with the network, or that are of an earlier one."""
    rows = run.rows("tables/exports.csv")
    said = [] if rows.empty else [warning for warning in rows["warning"] if warning]
    for name in names:
        model = run / name / "model.keras"
        known = run.facts_if_there(f"exports/{name}/export.json").get("model_sha256")
        if known and model.is_file() and known != file_hash(model):
            said.append(
                f"{NETWORK_TITLE[name]} was trained again after it was exported: run notebook 13."
            )
    return said
