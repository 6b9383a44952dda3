"""What is chosen before test is looked at, locked, and what it then gives.

Thresholds, calibration and abstention of a run, from its tables of predictions alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cytology import calibration, decisions
from cytology.evaluation import (
    ENSEMBLE,
    OUT_OF_FOLD,
    TEST,
    fine_tuned,
    judged,
    judged_on,
    marked,
    networks,
)
from cytology.intervals import metrics_with_intervals
from cytology.metrics import OF_PROBABILITIES, PROPORTIONS
from cytology.predictions import fingerprint, mean_logits, read_predictions, trained
from cytology.settings import NETWORK_TITLE
from cytology.tables import read_table

AT_A_THRESHOLD = (*PROPORTIONS, "balanced_accuracy")


def learned_from(run: Path, architecture: str) -> tuple[str, pd.DataFrame]:
    """What thresholds and calibration are chosen on: (its name, rows). Never test.

    They must come from the procedure that makes the test predictions: the out-of-fold ones, or,
    where fine-tuning was not cross-validated, those of val, at which early stopping looked too.
    """
    table = read_predictions(run, architecture)
    if not fine_tuned(run, architecture) and (table["model"] == "oof").any():
        return OUT_OF_FOLD, judged(table, OUT_OF_FOLD)
    rows = table[(table["model"] == "final") & (table["split"] == "val")]
    return "val", rows.reset_index(drop=True)


def thresholds(run: Path, wanted_sensitivity: float) -> pd.DataFrame:
    """A row a network, rule and part judged: the threshold, and what it gives.

    Chosen on what `learned_from` says, locked, applied once to test. Out-of-fold figures are
    cross-fitted. `threshold` is the network's own probability, `threshold_logit` its logit. `note`
    says where it calls all images that it was chosen on alike.
    """
    rows = []
    for name in trained(run):
        source, chosen_on = learned_from(run, name)
        test = judged(read_predictions(run, name), TEST)
        for rule in decisions.RULES:
            threshold = decisions.choose_threshold(chosen_on, rule, wanted_sensitivity)
            about = {"model": name, "rule": rule, "chosen_on": source, "threshold": threshold}
            about["wanted_sensitivity"] = wanted_sensitivity
            about["note"] = decisions.one_sided(chosen_on, threshold)
            about["predictions"] = fingerprint(run, name)
            about["threshold_logit"] = float(logit_of(pd.Series([threshold]))[0])
            if source == OUT_OF_FOLD:
                called = decisions.cross_fitted_calls(chosen_on, rule, wanted_sensitivity)
                found = metrics_with_intervals(called, 0.5, names=AT_A_THRESHOLD)
                rows.append(about | {"judged_on": OUT_OF_FOLD} | found)
            found = metrics_with_intervals(test, threshold, names=AT_A_THRESHOLD)
            rows.append(about | {"judged_on": TEST} | found)
    return marked(run, pd.DataFrame(rows))


def calibrations(run: Path) -> pd.DataFrame:
    """A row a network, method and part judged: log loss, Brier score and calibration errors.

    Fitted on what `learned_from` says; out-of-fold figures are cross-fitted. `note` says why there
    is no temperature, which is then 1, or no log loss.
    """
    rows = []
    for name in trained(run):
        source, fitted_on = learned_from(run, name)
        test = judged(read_predictions(run, name), TEST)
        for method in calibration.METHODS:
            calibrator = calibration.fit(fitted_on, method)
            parts = {TEST: calibration.apply(test, calibrator)}
            if source == OUT_OF_FOLD:
                parts = {OUT_OF_FOLD: calibration.cross_fitted(fitted_on, method)} | parts
            for on, part in parts.items():
                about = {"model": name, "method": method, "fitted_on": source}
                about |= {"temperature": calibrator.temperature, "judged_on": on}
                about["note"] = calibrator.unfitted
                found = metrics_with_intervals(part, names=OF_PROBABILITIES)
                if method == "isotonic" and calibration.is_surely_wrong(part):
                    found |= dict.fromkeys(("loss", "loss_low", "loss_high"), np.nan)
                    about["note"] = "no log loss: a probability of 0 or 1 is wrong"
                rows.append(about | found)
    return marked(run, pd.DataFrame(rows))


def not_cooled(calibrations: pd.DataFrame) -> str:
    """A clause for a caption: for which networks no temperature fits; empty if for none."""
    rows = calibrations[(calibrations["method"] == "temperature") & (calibrations["note"] != "")]
    names = ", ".join(rows["model"].drop_duplicates().map(NETWORK_TITLE))
    return f"; no temperature fits those of {names}" if names else ""


def calibrated(run: Path, architecture: str, on: str, method: str = "temperature") -> pd.DataFrame:
    """The judged rows of a network with calibrated probabilities; never fitted on test.

    Out-of-fold rows are cross-fitted.
    """
    source, fitted_on = learned_from(run, architecture)
    if on == OUT_OF_FOLD and source == OUT_OF_FOLD:
        return calibration.cross_fitted(fitted_on, method)
    rows = judged(read_predictions(run, architecture), on)
    return calibration.apply(rows, calibration.fit(fitted_on, method))


def abstentions(run: Path) -> pd.DataFrame:
    """`decisions.abstention_curve` of each network and of the ensemble, by kind of certainty.

    Images are referred by the calibrated margin, by how far the networks disagree (standard
    deviation of their calibrated logits; for the ensemble) or by how far the orientations of one
    image do (for a network).
    """
    on, parts, calibrated_rows = judged_on(run), [], []
    for name in networks(run, on):
        rows = calibrated(run, name, on)
        rows["logit"] = logit_of(rows["probability"])
        calibrated_rows.append(rows)
        parts.append(_referred(rows, rows["logit"].abs(), name, "margin"))
        turned = judged(read_predictions(run, name, turned=True), on)
        if len(turned) > len(rows):
            spread = turned.groupby("image_id")["logit"].std()
            doubt = rows["image_id"].map(spread)
            parts.append(_referred(rows, -doubt, name, "orientations disagree"))
    if len(calibrated_rows) > 1:
        everything = pd.concat(calibrated_rows)
        rows, keys = mean_logits(everything), ["image_id", "orientation"]
        spread = everything.groupby(keys)["logit"].std()
        doubt = spread.loc[pd.MultiIndex.from_frame(rows[keys])]
        parts.append(_referred(rows, rows["logit"].abs(), ENSEMBLE, "margin"))
        parts.append(_referred(rows, -doubt, ENSEMBLE, "networks disagree"))
    return marked(run, pd.concat(parts, ignore_index=True)).assign(judged_on=on)


def least_margin(run: Path, architecture: str, rule: str, share: float) -> float:
    """The margin below which the least sure `share` of images lie; new ones there are referred.

    The margin is the distance from the threshold of `rule` in calibrated logits, of the images
    that threshold and temperature were chosen on: never of test.
    """
    _, rows = learned_from(run, architecture)
    table = read_table(run, "tables/thresholds.csv")
    of_rule = (table["model"] == architecture) & (table["rule"] == rule)
    at = table.loc[of_rule, "threshold_logit"].iloc[0]
    temperature = calibration.fit(rows, "temperature").temperature
    return float(np.quantile((rows["logit"] - at).abs() / temperature, share))


def net_benefits(run: Path) -> pd.DataFrame:
    """Net benefit by `threshold` of each network (calibrated), and of calling `all` malignant."""
    on, at = judged_on(run), np.round(np.arange(0.01, 1.0, 0.01), 2)
    found = {"threshold": at}
    for name in networks(run, on):
        rows = calibrated(run, name, on)
        found["all"] = decisions.net_benefit(rows.assign(probability=1.0), at)
        found[name] = decisions.net_benefit(rows, at)
    return pd.DataFrame(found)


def reliabilities(run: Path, method: str) -> dict[str, pd.DataFrame]:
    """`calibration.reliability` of each network as it is judged, calibrated by `method`."""
    on = judged_on(run)
    return {
        name: calibration.reliability(calibrated(run, name, on, method))
        for name in networks(run, on)
    }


def logit_of(probability: pd.Series) -> pd.Series:
    """The logit of probabilities, finite also for 0 and 1."""
    inside = probability.clip(1e-12, 1 - 1e-12)
    return np.log(inside) - np.log1p(-inside)


def _referred(rows, certainty, model: str, by: str) -> pd.DataFrame:
    curve = decisions.abstention_curve(rows, np.asarray(certainty))
    curve.insert(0, "certainty", by)
    curve.insert(0, "model", model)
    return curve
