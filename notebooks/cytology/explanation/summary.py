"""The results of the heatmap checks: a table, and sentences."""

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.statistics.intervals import LEVEL, named_interval
from cytology.evaluation.statistics.significance import holm, mean_by_group
from cytology.explanation.checks import HABIT, HEATMAP_CHECKS, NETWORK, NOISE


def piece_of(check: str) -> str:
    """The name of the evidence that a check belongs to."""
    return check.removesuffix(HABIT)


def summary_of_networks(values: pd.DataFrame) -> pd.DataFrame:
    """`check_summary` of each `architecture`."""
    of_network = values.groupby("architecture", sort=False)
    return pd.concat([check_summary(part).assign(architecture=name) for name, part in of_network])


def check_summary(values: pd.DataFrame) -> pd.DataFrame:
    """One row per check: means of `value` and `chance`, their `difference` with 95 % interval.

    `values` may have a column `map`: rows of `NOISE` are judged the same way and give `noise`, the
    mean of their values, and `noise_passed`. Images without a value for a check are left out;
    `images` and `groups` count the others.

    `p` comes from a t test of the difference by group; two checks that are one piece of evidence
    both get the larger one. `p_holm` is corrected for the network's pieces of evidence. `passed` is
    `yes` if the whole interval is on the better side and, for evidence, `p_holm` is below 0.05;
    `no` if it is on the worse side; `not shown` in between; `unclear` without an interval: too few
    groups, or all images alike.
    """
    if "map" not in values:
        return _summary_of_maps(values)
    table, noise = (_summary_of_maps(values[values["map"] == name]) for name in (NETWORK, NOISE))
    noise = noise.set_index("check")[["value", "passed"]].reindex(table["check"])
    return table.assign(noise=noise["value"].array, noise_passed=noise["passed"].array)


def _summary_of_maps(values: pd.DataFrame) -> pd.DataFrame:
    """`check_summary` of the maps of one kind."""
    table = [
        _against_chance(check, values[values["check"] == check].dropna(subset=["value", "chance"]))
        for check in filter(set(values["check"]).__contains__, HEATMAP_CHECKS)
    ]
    table = pd.DataFrame(table)
    evidence, piece = table["kind"] == "evidence", table["check"].map(piece_of)
    worst = table[evidence].dropna(subset="p").groupby(piece)["p"].max()
    known = evidence & table["p"].notna()
    corrected = pd.Series(holm(worst), worst.index)
    table["p"] = table["p"].where(~known, piece.map(worst))
    table["p_holm"] = piece.map(corrected).where(known)
    low, high = table["difference_low"], table["difference_high"]
    better = table["check"].map(lambda check: HEATMAP_CHECKS[check].better)
    right = np.where(better > 0, low > 0, high < 0)
    wrong = np.where(better > 0, high < 0, low > 0)
    shown = (table["kind"] == "necessary") | (table["p_holm"] < 1 - LEVEL)
    table["passed"] = np.select(
        [low.isna(), right & shown, wrong], ["unclear", "yes", "no"], "not shown"
    )
    return table


def _against_chance(check: str, rows: pd.DataFrame) -> dict:
    """Means, difference, interval, P and counts from the `rows` of one check."""
    about, difference = HEATMAP_CHECKS[check], (rows["value"] - rows["chance"]).to_numpy(float)
    *interval, p = mean_by_group(difference, rows)
    row = {"check": check, "kind": about.kind, "asks": about.asks, "value": rows["value"].mean()}
    row |= {"chance": rows["chance"].mean(), "chance_of": about.chance}
    row |= named_interval("difference", *interval) | {"p": p}
    return row | {"images": len(rows), "groups": rows["group"].nunique()}


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """The mean of `covering_curves` over images: `architecture, curve, order, share, logit`."""
    keys = ["architecture", "curve", "order", "share"]
    return curves.groupby(keys, sort=False)["logit"].mean().reset_index()


def evidence_pieces(rows: pd.DataFrame, column: str = "passed") -> pd.Series:
    """The result of each piece of evidence, by its name: the worst of its checks."""
    order = ["no", "unclear", "not shown", "yes"]
    evidence = rows[rows["kind"] == "evidence"]
    worst = evidence[column].map(order.index).groupby(evidence["check"].map(piece_of), sort=False)
    return worst.min().map(order.__getitem__)


def explanation_sentences(table: pd.DataFrame) -> list[str]:
    """Sentences per network: what its heatmaps have shown and not shown, and what noise does."""
    sentences = []
    for name, rows in table.groupby("architecture", sort=False):
        found = evidence_pieces(rows)
        named = {word: "; ".join(found.index[found == word]) for word in set(found)}
        words = f"{NETWORK_TITLE[name]}: {(found == 'yes').sum()} of {len(found)} pieces of "
        words += "evidence that its heatmaps follow the image"
        if "noise_passed" in rows:
            by_noise = (evidence_pieces(rows, "noise_passed") == "yes").sum()
            words += f", where a map of noise has {by_noise}"
        words += f": {named['yes']}." if "yes" in named else "."
        if "not shown" in named:
            words += f" Not shown: {named['not shown']}."
        if "no" in named:
            words += f" WORSE THAN CHANCE: {named['no']}."
        unknown = [*found.index[found == "unclear"]]
        necessary = rows[rows["kind"] == "necessary"]
        unknown += necessary.loc[necessary["passed"] == "unclear", "check"].tolist()
        if unknown:
            words += " These images, or their groups, are too few or too alike to say: "
            words += f"{'; '.join(unknown)}."
        sentences.append(words + _necessary_in_words(necessary))
    return sentences


def _necessary_in_words(rows: pd.DataFrame) -> str:
    """Whether heatmaps passed the checks that any noise passes; empty if there were none."""
    if rows.empty:
        return ""
    lacking = rows.loc[~rows["passed"].isin(["yes", "unclear"]), "check"].tolist()
    if lacking:
        return (
            f" NOT PASSED, although any noise passes it: {'; '.join(lacking)}. These heatmaps are "
            "not shown to depend on what the network learned."
        )
    passed = (rows["passed"] == "yes").sum()
    return f" Of {len(rows)} checks that any noise passes they pass {passed}." if passed else ""
