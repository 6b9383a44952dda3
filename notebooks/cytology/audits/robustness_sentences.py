"""The results of the shifts in words, for notebook 11."""

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.audits.shifts import NONE, SHIFTS
from cytology.evaluation.readable import number_with_interval
from cytology.evaluation.statistics.intervals import LEVEL
from cytology.run import LEAKING
from cytology.wording import NO_INTERVAL, counted, plural, with_interval

FEW_IMAGES = 48  # with fewer, hardly any shift is detected, whatever its effect


def random_weights_sentence(table: pd.DataFrame) -> list[str]:
    """A warning about networks without pretrained weights; empty if there are none."""
    names = table.loc[table["weights"] == "random", "architecture"].drop_duplicates()
    if names.empty:
        return []
    return [
        f"No pretrained weights for {', '.join(names.map(NETWORK_TITLE))}: these rows only check "
        "the software and rank nothing. Nothing is called harmful or harmless from them."
    ]


def robustness_sentences(table: pd.DataFrame, reference: int, unit: str) -> list[str]:
    """The table of shifts in words at strength `reference`, one sentence per network.

    A change is called a rise or a fall if its interval excludes 0 and its P after Holm is below
    0.05; otherwise "not shown to matter here", however large.
    """
    leaking = table.loc[table["protocol"].isin(LEAKING), "protocol"]
    if len(leaking):
        return [
            f"Protocol {leaking.iloc[0]}: the split leaks, so these numbers show how well shifted "
            f"{'copies' if leaking.iloc[0] == 'original' else 'images of known groups'} are "
            "recognized. Nothing is called harmful or harmless from them."
        ]
    sentences = random_weights_sentence(table)
    pretrained = table[table["weights"] != "random"]
    for name, rows in pretrained.groupby("architecture", sort=False):
        untouched = rows[rows["shift"] == NONE].iloc[0]
        clauses = _shift_clauses(rows[(rows["strength"] == reference) & (rows["shift"] != NONE)])
        sentences.append(
            f"{NETWORK_TITLE[name]}, {untouched['judged_on']}, {untouched['images']} images of "
            f"{counted(untouched['groups'], unit, plural(unit))}: AUC "
            f"{with_interval(untouched, 'auc', '95 %: ')} untouched. At strength "
            f"{reference} {'; '.join(clauses)}."
        )
    at = pretrained[pretrained["strength"] == reference]
    if at["auc_change_low"].notna().any():
        few = at["images"].min()
        sentences.append(
            "Rises and falls are named after Holm's correction for the shifts of one network; the "
            "intervals are not corrected."
            + (f" {few} images are few: most real falls go unseen." if few < FEW_IMAGES else "")
        )
    return sentences


def changes_side_by_side(at: pd.DataFrame) -> pd.DataFrame:
    """`auc_change` with its interval: one row per shift, one column per network.

    `at` holds the rows of the table of shifts at one strength.
    """
    words = [number_with_interval(row, "auc_change", at["auc_change"]) for _, row in at.iterrows()]
    table = at.assign(said=words)
    table = table.pivot(index=["shift", "amount"], columns="architecture", values="said")
    names = list(at["architecture"].unique())
    return table.loc[list(SHIFTS), names].rename(columns=NETWORK_TITLE)


def _shows_change(at: pd.DataFrame, name: str, sign: int) -> pd.Series:
    """Rows with a change above (`sign` 1) or below 0 (-1), after Holm, that does not print as 0."""
    end = at[f"{name}_low"] if sign > 0 else -at[f"{name}_high"]
    return (end.round(3) > 0) & (at[f"{name}_p_holm"] < 1 - LEVEL)


def change_size(row: pd.Series, name: str) -> str:
    """The size of a change without its sign, with its interval."""
    sign = -1 if row[name] < 0 else 1
    low, high = sorted(sign * row[[f"{name}_low", f"{name}_high"]].to_numpy(float))
    return with_interval({"by": sign * row[name], "by_low": low, "by_high": high}, "by")


def _shift_clauses(at: pd.DataFrame) -> list[str]:
    """Clauses on AUC and log loss from the rows of one network at one strength."""
    known = at["auc_change_low"].notna()
    if not known.any():
        return [f"no statement about any shift ({NO_INTERVAL})"]
    falls, rises = at[_shows_change(at, "auc_change", -1)], at[_shows_change(at, "auc_change", 1)]
    clauses = []
    for verb, rows in (("falls", falls), ("rises", rises)):
        named = [
            f"{row['shift']} ({row['amount']}) by {change_size(row, 'auc_change')}"
            for _, row in rows.sort_values("auc_change", ascending=verb == "falls").iterrows()
        ]
        clauses += [f"AUC {verb} under {', '.join(named)}"] if named else []
    open_ = at[known].drop(index=[*falls.index, *rises.index])
    if len(open_):
        worst = np.clip(-open_["auc_change_low"].min(), 0, 1)
        clauses.append(
            f"not shown to matter here: {', '.join(open_['shift'])} (their intervals would also "
            f"allow falls of up to {worst:.3f})"
        )
    if not known.all():
        clauses.append(f"no statement about {', '.join(at['shift'][~known])} ({NO_INTERVAL})")
    for verb, sign in (("rises", 1), ("falls", -1)):
        rows = _shows_change(at, "loss_rise", sign)
        if rows.any():
            clauses.append(f"log loss {verb} under {', '.join(at.loc[rows, 'shift'])}")
    return clauses
