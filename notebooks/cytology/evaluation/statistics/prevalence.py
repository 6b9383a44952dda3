"""What a score means where another, known share of images is malignant.

Sensitivity and specificity do not change, provided that malignant images look the same there as
here, and benign ones, too. All that depends on the share of malignant images, `prevalence`, is
recomputed, with intervals by patient from those of the two. Rows have `label`, `group`, `logit`
and, if folds matter, `fold`.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cytology.evaluation.statistics.intervals import (
    NO_BOUNDS,
    called_intervals,
    counts,
    named_interval,
    of_two_shares,
)
from cytology.evaluation.statistics.metrics import (
    OF_TWO_SHARES,
    sensitivity_and_specificity,
    truth_and_probability,
    truth_and_score,
)
from cytology.settings import InputError

PREDICTIVE = ("precision", "negative_predictive_value")
# For an axis from a screening clinic to a referral centre.
PREVALENCES = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def check_prevalence(prevalence: float) -> float:
    """The share unchanged; `InputError` unless it is between 0 and 1."""
    if not 0 < prevalence < 1:
        raise InputError(
            f"Parameter `prevalence` is {prevalence:g}: give the share of malignant images there, "
            "above 0 and below 1."
        )
    return float(prevalence)


def at_prevalence(rows: pd.DataFrame, prevalence: float, act_from: float) -> dict[str, float]:
    """Results of a threshold where a share `prevalence` of the images is malignant.

    The logits of `rows` are relative to the threshold (`decisions.relative_to_threshold`). `recall`
    and `specificity` (as here), `precision`, `negative_predictive_value`, `false_alarms` (benign
    images called malignant for each malignant one that is), and `net_benefit` (Vickers & Elkin
    2006, doi 10.1177/0272989X06295361) for a clinic that acts at a probability a = `act_from` or
    more: it accepts (1 - a) / a false alarms for each malignant image found. All with `_low`,
    `_high`, and their `counts`.
    """
    m, odds = check_prevalence(prevalence), act_from / (1 - act_from)
    truth, score = truth_and_score(rows)
    s, p = np.array(sensitivity_and_specificity(truth, score >= 0))
    bounds = called_intervals(rows, score >= 0)
    found = {"prevalence": m, "act_from": act_from}
    for name, value, (low, high) in zip(("recall", "specificity"), (s, p), bounds, strict=True):
        found |= named_interval(name, value, low, high)
    metrics = {name: OF_TWO_SHARES[name] for name in PREDICTIVE}
    metrics["net_benefit"] = lambda s, p, m: benefit(s, p, m, odds)
    for name, metric in metrics.items():
        known = np.isfinite([s, p, *np.ravel(bounds)]).all()
        ends = of_two_shares(metric, m, [s, p], bounds) if known else NO_BOUNDS
        found |= named_interval(name, float(metric(s, p, m)), *ends)
    with np.errstate(divide="ignore"):
        value, high, low = (
            float(1 / np.float64(found[f"precision{end}"]) - 1) for end in ("", "_low", "_high")
        )
    return found | named_interval("false_alarms", value, low, high) | counts(rows)


def at_prevalences(
    rows: pd.DataFrame, act_from: float, prevalences: np.ndarray = PREVALENCES
) -> pd.DataFrame:
    """`at_prevalence` for several shares of malignant images, one row each."""
    return pd.DataFrame([at_prevalence(rows, share, act_from) for share in prevalences])


def benefit(sensitivity, specificity, malignant, odds):
    """Net benefit per image; `odds` are those of the probability at which one acts."""
    return malignant * sensitivity - (1 - malignant) * (1 - specificity) * odds


def at_other_share(rows: pd.DataFrame, fitted_share: float, prevalence: float) -> pd.DataFrame:
    """Rows with `logit` and `probability` corrected for another share of malignant images.

    Their calibration was fitted at `fitted_share`; the difference in log odds is added to all
    logits (Saerens, Latinne & Decaestecker 2002, doi 10.1162/089976602753284446).
    """
    moved = rows["logit"] + logit(check_prevalence(prevalence)) - logit(fitted_share)
    return rows.assign(logit=moved, probability=expit(moved))


def benefits_at(
    tables: dict[str, pd.DataFrame], prevalence: float, act_from: np.ndarray
) -> pd.DataFrame:
    """The decision curves of several networks where a share `prevalence` is malignant.

    `tables` maps a network to its rows, whose `probability` is that of the place
    (`at_other_share`). Columns as `operating_points.net_benefits`: `threshold` (`act_from`), `all`,
    `malignant_share`, and for each network its net benefit, `_low` and `_high`.
    """
    m, odds = check_prevalence(prevalence), act_from / (1 - act_from)
    found = {"threshold": act_from, "all": benefit(1.0, 0.0, m, odds), "malignant_share": m}
    for name, rows in tables.items():
        truth, probability = truth_and_probability(rows)
        parts = []
        for at, of_at in zip(act_from, odds, strict=True):
            called = probability >= at
            shares = sensitivity_and_specificity(truth, called)
            bounds = called_intervals(rows, called)

            def metric(s, p, m, odds=of_at):
                return benefit(s, p, m, odds)

            value = benefit(shares[0], shares[1], m, of_at)
            parts.append((value, *of_two_shares(metric, m, shares, bounds)))
        found[name], found[f"{name}_low"], found[f"{name}_high"] = np.transpose(parts)
    return pd.DataFrame(found)
