"""Thresholds, calibration and abstention of a run: chosen and locked before test is looked at.

From the tables of predictions alone.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.evaluation.judged import (
    OUT_OF_FOLD,
    TEST,
    compared_on,
    fine_tuned,
    judged_networks,
    judged_outside,
    judged_rows,
)
from cytology.evaluation.predictions import mean_logits, predictions_fingerprint, read_predictions
from cytology.evaluation.readable import title
from cytology.evaluation.statistics import calibration, decisions
from cytology.evaluation.statistics.clusters import variance_inflation
from cytology.evaluation.statistics.intervals import counts, metrics_with_intervals, named_interval
from cytology.evaluation.statistics.metrics import (
    AT_A_THRESHOLD,
    OF_PROBABILITIES,
    classification_metrics,
)
from cytology.evaluation.statistics.recalibration import recalibration
from cytology.evaluation.statistics.significance import mean_by_group
from cytology.run import ENSEMBLE, Run

ACT_FROM = np.round(np.arange(0.01, 1.0, 0.01), 2)  # thresholds of a decision curve


def models_with_thresholds(run: Run) -> list[str]:
    """The networks, and models from outside with predictions to choose a threshold on."""
    return [*run.networks, *judged_outside(run, OUT_OF_FOLD)]


def judged_models_with_thresholds(run: Run, on: str) -> list[str]:
    """The models of `models_with_thresholds` that are judged on this part."""
    judged = judged_networks(run, on) | judged_outside(run, on)
    return [name for name in models_with_thresholds(run) if name in judged]


def predictions_to_choose_on(run: Run, architecture: str) -> tuple[str, pd.DataFrame]:
    """The predictions for choosing thresholds and calibration: (name, rows). Never test.

    They must come from the procedure that makes the test predictions: out-of-fold, or val if
    fine-tuning was not cross-validated (early stopping used val, too).
    """
    table = read_predictions(run, architecture)
    if not fine_tuned(run, architecture) and (table["model"] == "oof").any():
        return OUT_OF_FOLD, with_class_shift(run, architecture, judged_rows(table, OUT_OF_FOLD))
    rows = table[(table["model"] == "final") & (table["split"] == "val")]
    return "val", with_class_shift(run, architecture, rows.reset_index(drop=True))


def test_predictions(run: Run, architecture: str) -> pd.DataFrame:
    """The predictions of the saved network on test, with their `class_shift`."""
    rows = judged_rows(read_predictions(run, architecture), TEST)
    return with_class_shift(run, architecture, rows)


def with_class_shift(run: Run, architecture: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `class_shift`: the log odds M/B of the images that their head was trained on.

    Balanced class weights remove it from the logits; without weights it is 0. With early stopping
    on an inner part of the training images the odds are about the same.
    """
    # Earlier versions did not record the weights; every profile has always had balanced ones.
    if run.about(architecture).get("class_weight") == "none":
        return rows.assign(class_shift=0.0)
    split = run.table("split.csv")
    held = split[split["split"] != "test"]

    def log_odds(images):
        return np.log((images["label"] == "M").sum() / (images["label"] == "B").sum())

    found = rows["fold"].map(
        {fold: log_odds(held[held["fold"] != fold]) for fold in rows["fold"].unique()}
    )
    final = log_odds(split[split["split"] == "train"])
    return rows.assign(class_shift=found.where(rows["model"] == "oof", final).astype(float))


def locked_thresholds(run: Run, wanted_sensitivity: float) -> pd.DataFrame:
    """One row per network, rule and part judged: the threshold and its results.

    Chosen on `predictions_to_choose_on`, locked, applied once to test. Out-of-fold figures are
    cross-fitted. `threshold_logit` applies to the network's own logit, `threshold` to its raw
    probability; `malignant_share` is that of the images judged, on which the predictive values
    depend. `note` warns if no sensitivity can be promised, or if the threshold gives the same
    answer for all images that it was chosen on.
    """
    unit, rows = run.facts("split.json")["unit"], []
    for name in models_with_thresholds(run):
        source, chosen_on = predictions_to_choose_on(run, name)
        test = test_predictions(run, name)
        for rule in decisions.RULES:
            threshold = decisions.choose_threshold(chosen_on, rule, wanted_sensitivity)
            notes = [decisions.one_sided(chosen_on, threshold)]
            if rule == "sensitivity":
                notes.append(decisions.why_not_promised(chosen_on, wanted_sensitivity, unit))
            about: dict[str, Any] = {"model": name, "rule": rule, "chosen_on": source}
            about |= {"threshold": float(expit(threshold)), "threshold_logit": threshold}
            about["wanted_sensitivity"] = wanted_sensitivity
            about["note"] = "; ".join(filter(None, notes))
            about["predictions"] = predictions_fingerprint(run, name)
            parts = {TEST: decisions.relative_to_threshold(test, threshold)} if len(test) else {}
            if source == OUT_OF_FOLD:
                crossed = decisions.cross_fitted_calls(chosen_on, rule, wanted_sensitivity)
                parts = {OUT_OF_FOLD: crossed} | parts
            for on, part in parts.items():
                found = metrics_with_intervals(part, names=AT_A_THRESHOLD)
                found["malignant_share"] = float((part["label"] == "M").mean())
                rows.append(about | {"judged_on": on} | found)
    return run.marked(pd.DataFrame(rows))


def locked_calibrations(run: Run) -> pd.DataFrame:
    """One row per network, method and part judged: calibration in the large, slope, and errors.

    Fitted on `predictions_to_choose_on`; out-of-fold figures are cross-fitted. `slope` and
    `intercept` apply to the saved network's logit and include undoing the shift.
    `calibration_in_the_large` and `calibration_slope` of `recalibration` judge the result, as do
    log loss, Brier score and calibration errors; `loss_change` is the change by calibration,
    negative is better. `note` says why no slope could be fitted; the slope is then 1.
    """
    rows = []
    for name in models_with_thresholds(run):
        source, fitted_on = predictions_to_choose_on(run, name)
        test = test_predictions(run, name)
        raw = {OUT_OF_FOLD: fitted_on} if source == OUT_OF_FOLD else {}
        if len(test):
            raw |= {TEST: test}
        shift = next(reversed(raw.values()))["class_shift"].iloc[0]
        for method in calibration.CALIBRATION_METHODS:
            calibrator = calibration.fit_calibrator(fitted_on, method)
            at_zero = calibrator.logit(np.zeros(1), shift)[0]
            about: dict[str, Any] = {"model": name, "method": method, "fitted_on": source}
            about["slope"] = calibrator.slope
            about["intercept"] = at_zero if calibrator.steps is None else np.nan
            about["note"] = calibrator.unfitted
            for on, part in raw.items():
                if on == OUT_OF_FOLD:
                    made = calibration.cross_fitted(part, method)
                else:
                    made = calibration.calibrate(part, calibrator)
                rows.append(about | {"judged_on": on} | _of_probabilities(made, part))
    return run.marked(pd.DataFrame(rows))


def _of_probabilities(rows: pd.DataFrame, before: pd.DataFrame) -> dict[str, float]:
    """How good calibrated probabilities are, and the change from those `before`."""
    found, losses = recalibration(rows, variance_inflation(rows)), calibration.log_losses(rows)
    found |= classification_metrics(rows, names=OF_PROBABILITIES)
    change = losses - calibration.log_losses(before)
    mean, low, high, _ = mean_by_group(change, rows)
    found["loss"] = losses.mean()
    found |= named_interval("loss_change", mean if change.any() else np.nan, low, high)
    found["malignant_share"] = (rows["label"] == "M").mean()
    return found | counts(rows)


def without_slope(calibrations: pd.DataFrame) -> str:
    """A clause for a caption that names networks for which no slope fits; empty if none."""
    rows = calibrations[(calibrations["method"] == "platt") & (calibrations["note"] != "")]
    names = ", ".join(rows["model"].drop_duplicates().map(title))
    return f"; no slope fits for {names}" if names else ""


def calibrated_predictions(
    run: Run, architecture: str, on: str, method: str = "platt"
) -> pd.DataFrame:
    """The judged rows of a network with calibrated `logit` and `probability`.

    Never fitted on test; out-of-fold rows are cross-fitted.
    """
    source, fitted_on = predictions_to_choose_on(run, architecture)
    if on == OUT_OF_FOLD:
        return calibration.cross_fitted(fitted_on, method)
    calibrator = calibration.fit_calibrator(fitted_on, method)
    return calibration.calibrate(test_predictions(run, architecture), calibrator)


def relative_to_locked_threshold(
    run: Run, architecture: str, on: str, rule: str, wanted_sensitivity: float
) -> pd.DataFrame:
    """Judged rows with logits relative to the threshold of `rule`, as in `locked_thresholds`."""
    _, chosen_on = predictions_to_choose_on(run, architecture)
    if on == OUT_OF_FOLD:
        return decisions.cross_fitted_calls(chosen_on, rule, wanted_sensitivity)
    at = decisions.choose_threshold(chosen_on, rule, wanted_sensitivity)
    return decisions.relative_to_threshold(test_predictions(run, architecture), at)


def above_threshold(
    run: Run, architecture: str, on: str, rule: str, wanted_sensitivity: float
) -> pd.DataFrame:
    """The judged rows with calibrated logits, relative to the threshold of `rule`.

    Out-of-fold rows are cross-fitted.
    """

    def made(here, chosen_on):
        slope = calibration.fit_calibrator(chosen_on, "platt").slope
        at = decisions.choose_threshold(chosen_on, rule, wanted_sensitivity)
        return decisions.relative_to_threshold(here.assign(logit=slope * here["logit"]), slope * at)

    _, chosen_on = predictions_to_choose_on(run, architecture)
    if on == OUT_OF_FOLD:
        return calibration.by_fold(chosen_on, made)
    return made(test_predictions(run, architecture), chosen_on)


def abstentions(run: Run, wanted_sensitivity: float) -> pd.DataFrame:
    """`decisions.abstention_curve` of networks and ensemble, by threshold rule and certainty.

    Images are referred by the margin (`above_threshold`, as in notebook 09), by the disagreement
    of the networks (standard deviation of their margins; for the ensemble, which is their mean) or
    by the disagreement of the orientations of an image (for a single network).
    """
    on = compared_on(run)
    parts = [
        curve.assign(rule=rule)
        for rule in decisions.RULES
        for curve in _referred_by(run, on, rule, wanted_sensitivity)
    ]
    return run.marked(pd.concat(parts, ignore_index=True)).assign(judged_on=on)


def _referred_by(run: Run, on: str, rule: str, wanted_sensitivity: float):
    """The curves of `abstentions` at the thresholds of one rule."""

    def referred(rows, certainty, model: str, by: str) -> pd.DataFrame:
        curve = decisions.abstention_curve(rows, np.asarray(certainty))
        return pd.DataFrame({"model": model, "certainty": by} | dict(curve))

    margins = []
    for name in judged_models_with_thresholds(run, on):
        rows = above_threshold(run, name, on, rule, wanted_sensitivity)
        if name in run.networks:
            margins.append(rows)
        yield referred(rows, rows["logit"].abs(), name, "margin")
        turned = judged_rows(read_predictions(run, name, turned=True), on)
        if len(turned) > len(rows):
            doubt = rows["image_id"].map(turned.groupby("image_id")["logit"].std())
            yield referred(rows, -doubt, name, "orientations disagree")
    if len(margins) > 1:
        everything = pd.concat(margins)
        rows, keys = mean_logits(everything), ["image_id", "orientation"]
        spread = everything.groupby(keys)["logit"].std()
        doubt = spread.loc[pd.MultiIndex.from_frame(rows[keys])]
        yield referred(rows, rows["logit"].abs(), ENSEMBLE, "margin")
        yield referred(rows, -doubt, ENSEMBLE, "networks disagree")


def least_margin(run: Run, architecture: str, rule: str, share: float) -> float:
    """The margin below which the least certain `share` of images are; such new images are referred.

    The margin is the distance from the threshold of `rule` in calibrated logits, on the images
    that threshold and calibration were chosen on, never on test.
    """
    _, rows = predictions_to_choose_on(run, architecture)
    table = run.table("tables/thresholds.csv")
    of_rule = (table["model"] == architecture) & (table["rule"] == rule)
    at = table.loc[of_rule, "threshold_logit"].iloc[0]
    slope = calibration.fit_calibrator(rows, "platt").slope
    return float(np.quantile((rows["logit"] - at).abs() * slope, share))


def net_benefits(run: Run) -> pd.DataFrame:
    """Net benefit by `threshold` of each network (calibrated), and of calling `all` malignant.

    A network's columns have `_low` and `_high`. All assume `malignant_share` for the clinic.
    """
    on, at = compared_on(run), ACT_FROM
    found = {"threshold": at}
    for name in judged_models_with_thresholds(run, on):
        rows = calibrated_predictions(run, name, on)
        found["all"] = decisions.net_benefit(rows.assign(probability=1.0), at)
        found["malignant_share"] = (rows["label"] == "M").mean()
        found[name] = decisions.net_benefit(rows, at)
        found[f"{name}_low"], found[f"{name}_high"] = decisions.benefit_bands(rows, at)
    return pd.DataFrame(found)


def reliabilities(run: Run, method: str) -> dict[str, pd.DataFrame]:
    """`calibration.reliability` of each network as it is judged, calibrated by `method`."""
    on = compared_on(run)
    return {
        name: calibration.reliability(calibrated_predictions(run, name, on, method))
        for name in judged_models_with_thresholds(run, on)
    }
