"""The meaning of a run's scores at another place: another share of malignant images, and referral.

From its tables of predictions and the thresholds and calibrations that they choose
(`operating_points`); never from test.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cytology.evaluation.judged import OUT_OF_FOLD, TEST, compared_on
from cytology.evaluation.operating_points import (
    ACT_FROM,
    calibrated_predictions,
    judged_models_with_thresholds,
    models_with_thresholds,
    net_benefits,
    predictions_to_choose_on,
    relative_to_locked_threshold,
    test_predictions,
)
from cytology.evaluation.statistics.prevalence import (
    PREVALENCES,
    at_other_share,
    at_prevalences,
    benefits_at,
)
from cytology.evaluation.statistics.referral import (
    Referral,
    by_patient,
    choose_referral,
    outcome,
    referred_out_of_fold,
)
from cytology.run import Run

CLINIC_ACTS_FROM = 0.1  # the probability at which one found cancer is worth nine false alarms


def predictive_values(run: Run, wanted_sensitivity: float, prevalence: float) -> pd.DataFrame:
    """One row per network and share of malignant images, at the threshold for a wanted sensitivity.

    `at_prevalence` for the shares of an axis, and for the one `asked`: `prevalence`, or if that is
    0 the `malignant_share` of the images judged here. Net benefit is that of a clinic that acts at
    a probability of `CLINIC_ACTS_FROM` or more.
    """
    on, parts = compared_on(run), []
    for name in judged_models_with_thresholds(run, on):
        rows = relative_to_locked_threshold(run, name, on, "sensitivity", wanted_sensitivity)
        here = float((rows["label"] == "M").mean())
        asked = prevalence or here
        shares = np.unique([*PREVALENCES, *([asked] if 0 < asked < 1 else [])])
        table = at_prevalences(rows, CLINIC_ACTS_FROM, shares)
        about = {"model": name, "rule": "sensitivity", "judged_on": on, "malignant_share": here}
        parts.append(table.assign(**about, asked=table["prevalence"] == asked))
    return run.marked(pd.concat(parts, ignore_index=True))


def decision_curves(run: Run, prevalence: float) -> pd.DataFrame:
    """`operating_points.net_benefits` if a share `prevalence` is malignant; 0: the share here.

    The calibrated probabilities are corrected from the share at which they were fitted.
    """
    if not prevalence:
        return net_benefits(run)
    on, tables = compared_on(run), {}
    for name in judged_models_with_thresholds(run, on):
        fitted_share = float((predictions_to_choose_on(run, name)[1]["label"] == "M").mean())
        tables[name] = at_other_share(
            calibrated_predictions(run, name, on), fitted_share, prevalence
        )
    return benefits_at(tables, prevalence, ACT_FROM)


@dataclass(frozen=True)
class Promise:
    """A referral by one network: the limit, its results, and the patients it was chosen on."""

    chosen: Referral
    judged_on: str
    outcome: dict[str, float]
    patients: pd.DataFrame


def promises(run: Run, level: float, prevalence: float) -> dict[str, Promise]:
    """The `Promise` of each network: at most a share `level` of all patients is missed.

    Uses the mean logit of a patient's images. `prevalence` is the share of malignant *patients*;
    0: the promise is for the place where these come from. Out-of-fold figures are cross-fitted.
    """
    share, found = prevalence or np.nan, {}
    for name in models_with_thresholds(run):
        source, rows = predictions_to_choose_on(run, name)
        patients = by_patient(rows)
        chosen = choose_referral(patients, level, share)
        if source == OUT_OF_FOLD:
            judged, on = referred_out_of_fold(patients, level, share), OUT_OF_FOLD
        else:
            judged, on = by_patient(test_predictions(run, name)), TEST
            judged = judged.assign(referred=judged["logit"] >= chosen.limit)
        found[name] = Promise(chosen, on, outcome(judged, share), patients)
    return found


def referral_table(found: dict[str, Promise]) -> pd.DataFrame:
    """The promises as a table, one row per network: `limit`, `level`, `promised`, the outcome.

    `limit` is NaN if nothing is promised: everybody is referred.
    """
    rows = []
    for name, each in found.items():
        row = {"model": name, "judged_on": each.judged_on, "promised": each.chosen.promised}
        rows.append(row | asdict(each.chosen) | each.outcome)
    table = pd.DataFrame(rows)
    # Minus infinity is a formula to a spreadsheet.
    return table.assign(limit=table["limit"].where(table["promised"]))
