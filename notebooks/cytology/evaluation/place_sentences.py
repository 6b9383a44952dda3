"""Sentences on other places and on referral, saying only what the tables support."""

import numpy as np
import pandas as pd

from cytology.evaluation.statistics.intervals import FEWEST_GROUPS
from cytology.evaluation.statistics.referral import Referral
from cytology.wording import (
    NO_INTERVAL,
    counted,
    interval_text,
    p_in_figures,
    plural,
    with_interval,
)


def in_percent(share: float) -> str:
    """`10 %`, `0.5 %`."""
    return f"{100 * share:.3g} %"


def percent_span(row, name: str) -> str:
    """The interval of a share in percent; if there is none, why."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return NO_INTERVAL if np.isnan(low) else f"{100 * low:.0f} to {100 * high:.0f} %"


def prevalence_sentence(row, unit: str) -> str:
    """The threshold's results at another share, from a row of `prevalence.at_prevalence`."""
    share = in_percent(row["prevalence"])
    if np.isnan(row["precision"]):
        return f"If {share} of the images are malignant, nothing is called malignant."
    worth = "not shown to be better than"
    if row["net_benefit_low"] > 0:
        worth = "better than"
    elif row["net_benefit_high"] < 0:
        worth = "worse than"
    return (
        f"If {share} of the images are malignant: precision {with_interval(row, 'precision')}, "
        f"negative predictive value {with_interval(row, 'negative_predictive_value')}, "
        f"{_alarms(row)}. For a clinic that acts at a probability of "
        f"{in_percent(row['act_from'])} or more, the net benefit is "
        f"{with_interval(row, 'net_benefit')}: {worth} calling nothing malignant. 95 % by {unit}; "
        "this assumes that malignant images look the same there as here, and benign ones, too."
    )


def _alarms(row) -> str:
    """False alarms for each malignant image found, with their interval."""
    if np.isinf(row["false_alarms"]):
        return "false alarms only"
    bounds = interval_text(row, "false_alarms", shape=".1f").replace("inf", "no limit")
    return f"{row['false_alarms']:.1f} false alarms ({bounds}) for each malignant image found"


def share_sentences(row, unit: str) -> list[str]:
    """What is known about the share of malignant images at a new place, and whether to trust it.

    `row` is one of `label_shift.estimated_share`.
    """
    counts = f"{row['images']} images of {counted(row['groups'], unit, plural(unit))}"
    if row["note"]:
        return [f"For {counts} no share of malignant images is estimated: {row['note']}."]
    if row["moved"]:
        return [
            f"The logits of these {counts} are not a mixture of those of malignant and benign "
            f"images here, whatever the shares (P = {p_in_figures(row['p_moved'])}, by {unit}). "
            "Something else differs, such as stain, camera or kind of case: no share of malignant "
            "images is estimated, and neither threshold nor calibration can be trusted there."
        ]
    said = [
        f"From {counts}, without labels, an estimated {in_percent(round(row['prevalence'], 2))} "
        f"are malignant at this place (95 % by {unit}: {percent_span(row, 'prevalence')}; "
        f"{in_percent(round(row['fitted_share'], 2))} where the calibration was fitted)."
    ]
    takes = "This assumes that malignant images look the same there as here, and benign ones, too."
    if np.isnan(row["p_moved"]):
        why = f"fewer than {FEWEST_GROUPS} {plural(unit)} of a class, or new ones"
        return [*said, takes, f"Whether anything else differs cannot be tested: {why}."]
    return [
        *said,
        f"{takes} A test finds no sign against it (P = {p_in_figures(row['p_moved'])}), but that "
        "is no proof: the test misses a change that moves logits as another share would.",
    ]


def there_sentence(row, unit: str) -> str:
    """Calibration at a new place, from `elsewhere.calibration_there`."""
    return (
        f"At the new place ({row['images']} labelled images of "
        f"{counted(row['groups'], unit, plural(unit))}): calibration in the large "
        f"{_verdict(row, 'calibration_in_the_large', 0, 'too low', 'too high')}; slope "
        f"{_verdict(row, 'calibration_slope', 1, 'not sure enough', 'too sure')}. 95 % by {unit}."
    )


def _verdict(row, name: str, right: float, above: str, below: str) -> str:
    """A number with its interval, and its meaning if the interval excludes the `right` value."""
    if np.isnan(row[name]):
        return "not known (no mistakes to estimate it from, or one class only)"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    said = f"not shown to differ from {right:g}"
    if np.isnan(low):
        said = "nothing shown"
    elif low > right:
        said = f"the probabilities are {above}"
    elif high < right:
        said = f"the probabilities are {below}"
    return f"{row[name]:z.2f} ({interval_text(row, name, shape='z.2f')}): {said}"


def gain_sentence(table: pd.DataFrame, unit: str) -> str:
    """What recalibration at a new place would gain, from `elsewhere.recalibration_gain`."""
    ways = table[table["way"] != "as it is"]
    there = counted(int(table["groups"].iloc[0]), unit, plural(unit))
    if ways["loss"].isna().all():
        return (
            f"Recalibration by these {there} is not tried: it needs {FEWEST_GROUPS} "
            f"{plural(unit)} of each class."
        )
    said = []
    for row in ways.to_dict("records"):
        low, high = row["loss_change_low"], row["loss_change_high"]
        verb = "lowers" if high < 0 else "raises" if low > 0 else "is not shown to change"
        said.append(f"{row['way']} {verb} the log loss: {with_interval(row, 'loss_change')}")
    return (
        f"Recalibration by these {there}, judged on {plural(unit)} left out: {'; '.join(said)}. "
        "Negative is better."
    )


def referral_sentences(chosen: Referral, judged, unit: str) -> list[str]:
    """The promise of a referral, or what it would need, and its result.

    `judged` is `referral.outcome` on patients that were not used to choose the limit.
    """
    several, level = plural(unit), in_percent(chosen.level)
    anywhere = np.isnan(chosen.prevalence)
    kind = several if anywhere else f"malignant {several}"
    if not chosen.promised:
        return [
            f"This run cannot promise that at most {level} of all {several} are missed: that needs "
            f"{chosen.needed} {kind}, but there are {chosen.patients}. So all are referred."
        ]
    place = (
        "of this kind"
        if anywhere
        else f"of a place where {in_percent(chosen.prevalence)} of the {several} are malignant"
    )
    if np.isinf(chosen.limit):
        return [
            f"If none of the {several} {place} were referred, at most {level} of them would be "
            "missed, since so few are malignant. The promise needs no network."
        ]
    unreferred = (
        "everybody is referred"
        if np.isnan(judged["malignant_unreferred"])
        else f"of those not referred, {with_interval(judged, 'malignant_unreferred')} are malignant"
    )
    return [
        f"Promised: if {several} {place} with a score of {chosen.limit:.2f} or more are referred, "
        f"at most {level} of all are malignant and not referred, on average over studies like this "
        f"one (from {chosen.patients} {kind}; at least {chosen.needed} are needed).",
        f"Judged on {several} not used to choose the limit: {in_percent(judged['referred'])} are "
        f"referred; {with_interval(judged, 'missed')} of all are missed; {unreferred}, which is "
        f"not what is promised; {with_interval(judged, 'spared')} of the benign ones are spared.",
    ]
