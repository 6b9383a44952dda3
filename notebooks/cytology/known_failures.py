"""What is known to go wrong with a run's networks, from its tables, in sentences."""

from pathlib import Path

from cytology.readable import groups_in_words
from cytology.settings import NETWORK_TITLE, file_hash
from cytology.shifts import SHIFTS
from cytology.summary import baseline_in_words, worth_in_words
from cytology.tables import json_if_there, table_if_there

FEW_GROUPS = 100  # one of them is worth a point


def known_failures(run: Path, names: list[str], unit: str) -> list[str]:
    """What is known to go wrong with these networks, a sentence or two each."""
    return [
        *few(run, unit),
        *no_better_than_size_and_colour(run),
        *missed(run),
        *uncalibrated(run),
        *shaken(run),
        *unexplained(run),
        *badly_exported(run, names),
    ]


def few(run: Path, unit: str) -> list[str]:
    """That few groups make wide intervals."""
    rows = table_if_there(run, "tables/comparison.csv")
    if rows.empty or rows["groups"].min() >= FEW_GROUPS:
        return []
    row = rows.sort_values("groups").iloc[0]
    return [f"Few were judged: {groups_in_words(row, unit)}. {worth_in_words(row, unit)}"]


def no_better_than_size_and_colour(run: Path) -> list[str]:
    """Whether the networks beat the baseline, which knows size and mean colour only."""
    pairs = table_if_there(run, "tables/pairwise.csv", family="baseline", level="image")
    if pairs.empty or (pairs["protocol"] == "original").any():
        return []
    everything = table_if_there(run, "tables/comparison_all.csv")
    return baseline_in_words(pairs[~pairs["weights"].str.contains("random")], everything)


def missed(run: Path) -> list[str]:
    """Thresholds that do not reach on test the sensitivity that they were chosen for."""
    rows = table_if_there(run, "tables/thresholds.csv", rule="sensitivity", judged_on="test")
    return [
        f"{NETWORK_TITLE[row.model]}: the threshold that was to find "
        f"{row.wanted_sensitivity:.0%} of the malignant test images found {row.recall:.0%}."
        for row in rows.itertuples()
        if row.recall < row.wanted_sensitivity
    ]


def uncalibrated(run: Path) -> list[str]:
    """Networks for which no temperature could be fitted."""
    rows = table_if_there(run, "tables/calibration.csv", method="temperature", judged_on="test")
    return [
        f"{NETWORK_TITLE[row.model]}'s probabilities are not calibrated, since {row.note}."
        for row in rows.itertuples()
        if getattr(row, "note", "")  # runs of earlier versions have none
    ]


def shaken(run: Path) -> list[str]:
    """Shifts under which a network loses AUC, at any strength, beyond what its interval allows."""
    rows = table_if_there(run, "tables/robustness.csv")
    if rows.empty:
        return []
    rows = rows[(rows["auc_drop_low"] > 0) & rows["shift"].isin(SHIFTS)]
    return [
        f"{NETWORK_TITLE[name]} separates the classes less well under: "
        + "; ".join(
            f"{shift} from strength {part['strength'].min()} on (AUC falls by up to "
            f"{part['auc_drop'].max():.3f})"
            for shift, part in found.groupby("shift", sort=False)
        )
        + "."
        for name, found in rows.groupby("architecture", sort=False)
    ]


def unexplained(run: Path) -> list[str]:
    """Checks that the heatmaps of a network did not pass."""
    rows = table_if_there(run, "tables/explanation_checks.csv")
    if rows.empty:
        return []
    return [
        f"{NETWORK_TITLE[name]}: its heatmaps fail "
        f"{'; '.join(dict.fromkeys(found['check'].astype(str)))}. Do not explain it by them."
        for name, found in rows[rows["passed"] == "no"].groupby("architecture", sort=False)
    ]


def badly_exported(run: Path, names: list[str]) -> list[str]:
    """Exported files that do not agree with the network, or that are of an earlier one."""
    rows = table_if_there(run, "tables/exports.csv")
    said = [] if rows.empty else [warning for warning in rows["warning"] if warning]
    for name in names:
        model = run / name / "model.keras"
        known = json_if_there(run, f"exports/{name}/export.json").get("model_sha256")
        if known and model.is_file() and known != file_hash(model):
            said.append(
                f"{NETWORK_TITLE[name]} was trained again after it was exported: run notebook 12."
            )
    return said
