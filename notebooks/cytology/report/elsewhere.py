"""What a network's calls mean at another place: the numbers behind the sliders of the page.

Sensitivity and specificity, with their intervals, at many thresholds of the calibrated probability
and at those that notebook 08 locked. The rest follows from them and from the share of malignant
images there; `elsewhere.js` computes it as `statistics.prevalence.at_prevalence` does.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytology.evaluation.judged import compared_on
from cytology.evaluation.operating_points import (
    ACT_FROM,
    calibrated_predictions,
    judged_models_with_thresholds,
    predictions_to_choose_on,
)
from cytology.evaluation.predictions import predictions_fingerprint
from cytology.evaluation.readable import capital, groups_in_words, title
from cytology.evaluation.statistics.decisions import RULES
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS, called_intervals, counts
from cytology.evaluation.statistics.metrics import sensitivity_and_specificity
from cytology.inference.locked import locked_decision
from cytology.run import Run

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# Closer together toward 0 and 1, where sure networks have most of their images.
THRESHOLDS = np.r_[0.001, 0.002, 0.005, ACT_FROM, 0.995, 0.998, 0.999]
DIGITS = 6  # of the bounds: an error far below the last digit that is shown
TABLES = ["split.csv", "split.json", "tables/thresholds.csv", "tables/calibration.csv"]
TABLES += ["tables/prevalence.csv"]
# Shares that a page without a script shows; the table has more.
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


def policy_of(script: str) -> str:
    """The page's content security policy: this script may run, and no other."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"; script-src 'sha256-{digest}'"


def shares_shown(run: Run) -> dict[str, set[float]]:
    """The shares of `tables/prevalence.csv` that the page shows: `SHARES`, and what was asked."""
    rows = run.rows("tables/prevalence.csv")
    return {"prevalence": {*SHARES, *rows.loc[rows["asked"], "prevalence"]}} if len(rows) else {}


def calls_of_run(run: Run) -> dict[str, Any]:
    """The numbers of the page, ready for JSON; empty without networks or notebook 08's tables.

    Judged on what the comparison rests on. `networks` are those with `FEWEST_GROUPS` of both
    classes whose predictions are the ones that their thresholds were chosen on.
    """
    needed = [*TABLES, *(f"{name}/metrics.json" for name in run.networks)]
    if not run.networks or not all(run.has(name) for name in needed):
        return {}
    on, locked = compared_on(run), run.table("tables/thresholds.csv")
    locked = locked[locked["judged_on"] == on]
    networks = []
    for name in judged_models_with_thresholds(run, on):
        own = locked[locked["model"] == name]
        if predictions_fingerprint(run, name) in set(own["predictions"]):
            networks.append(_network(run, name, on, own))
    networks = [each for each in networks if each]
    if not networks:
        return {}
    about = run.rows("tables/prevalence.csv").sort_values("asked").iloc[-1]
    wanted = locked["wanted_sensitivity"].iloc[0]
    return {
        "networks": networks,
        "thresholds": THRESHOLDS.tolist(),
        "rules": {
            "sensitivity": f"the threshold for a sensitivity of {wanted:.0%}",
            "youden": "Youden's threshold",
            "half": "the network's own one half",
        },
        "act_from": float(about["act_from"]),
        "share": float(about["prevalence"]),
    }


def _network(run: Run, name: str, on: str, locked: pd.DataFrame) -> dict[str, Any]:
    """One network's shares and bounds at `THRESHOLDS` and at its locked ones; empty if too few."""
    rows = calibrated_predictions(run, name, on)
    about = counts(rows)
    if min(about["groups_malignant"], about["groups_benign"]) < FEWEST_GROUPS:
        return {}
    unit, fitted_on = run.facts("split.json")["unit"], predictions_to_choose_on(run, name)[1]
    random = " (random weights)" if run.weights_behind(name) == "random" else ""
    return {
        "name": name,
        "title": capital(title(name)) + random,
        "judged": f"{on}: {about['images']:,} images of {groups_in_words(about, unit)}",
        "fitted_share": float((fitted_on["label"] == "M").mean()),
        "calls": shares_at(rows, THRESHOLDS),
        "locked": {rule: _locked(run, name, rule, locked) for rule in RULES},
    }


def shares_at(rows: pd.DataFrame, thresholds: np.ndarray) -> list[list[float]]:
    """[sensitivity, its bounds, specificity, its bounds] of rows called from each threshold on."""
    truth, probability = (rows["label"] == "M").to_numpy(), rows["probability"].to_numpy(float)
    found: list[list[float]] = []
    before = None
    for at in thresholds:
        called = probability >= at
        if before is not None and (called == before).all():
            found.append(found[-1])
            continue
        shares = sensitivity_and_specificity(truth, called)
        bounds = np.round(called_intervals(rows, called), DIGITS).tolist()
        found.append([shares[0], *bounds[0], shares[1], *bounds[1]])
        before = called
    return found


def _locked(run: Run, name: str, rule: str, locked: pd.DataFrame) -> dict[str, Any]:
    """A locked threshold: its calibrated probability, and what `thresholds.csv` says of it."""
    row = locked[locked["rule"] == rule].iloc[0]
    found = [
        row[f"{key}{end}"] for key in ("recall", "specificity") for end in ("", "_low", "_high")
    ]
    return {
        "threshold": locked_decision(run, name, rule).threshold,
        "calls": [None if pd.isna(value) else float(value) for value in found],
        "note": row["note"],
    }
