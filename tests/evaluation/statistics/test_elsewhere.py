"""Labelled patients of another place: calibration there, and what recalibration gains."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from scipy.stats import norm

from cytology.evaluation.statistics.calibration import calibrate, fit_calibrator, log_losses
from cytology.evaluation.statistics.elsewhere import (
    WAYS,
    calibration_there,
    recalibrated_by,
    recalibration_gain,
)
from cytology.evaluation.statistics.recalibration import recalibration


def place(seed, patients=40, share=0.5, spread=1.0, added=0.0, images=4):
    """Calibrated logits, then scaled and shifted."""
    rng = np.random.default_rng(seed)
    malignant, group = rng.random(patients) < share, np.repeat(np.arange(patients), images)
    apart = norm.ppf(0.8) * np.sqrt(2)
    noise = np.sqrt(0.5) * (rng.normal(size=patients)[group] + rng.normal(size=len(group)))
    right = apart * (apart * malignant[group] + noise) - apart**2 / 2 + logit(share)
    label = np.where(malignant[group], "M", "B")
    return pd.DataFrame({"label": label, "group": group, "logit": spread * right + added})


def test_calibration_at_the_other_site_matches_recalibration():
    rows = place(0)
    found, expected = calibration_there(rows), recalibration(rows)
    assert {name: found[name] for name in expected} == expected
    assert found["loss"] == pytest.approx(log_losses(rows).mean())
    assert (found["images"], found["groups"]) == (160, 40)


def test_each_loss_is_computed_with_its_patient_held_out():
    rows = place(1, patients=16).sample(frac=1, random_state=0)
    table = recalibration_gain(rows).set_index("way")
    losses = pd.Series(0.0, rows.index)
    for group in rows["group"].unique():
        here = rows["group"] == group
        fitted = fit_calibrator(rows[~here], "platt")
        losses[here] = log_losses(calibrate(rows[here], fitted))
    assert table.loc["slope and intercept", "loss"] == pytest.approx(losses.mean())
    change = losses.mean() - log_losses(rows).mean()
    assert table.loc["slope and intercept", "loss_change"] == pytest.approx(change)
    assert table.loc["as it is", "loss_change"] == 0


def test_the_labels_of_a_patient_do_not_affect_the_predictions_for_that_patient():
    """A fit to all patients would gain on noise; with patients held out it loses."""
    changes = []
    for seed in range(20):
        rows = place(seed, patients=14, images=1)
        rows["logit"] = np.random.default_rng(seed).normal(size=14)
        if min(rows.groupby("label")["group"].nunique()) >= 5:
            fitted = fit_calibrator(rows, "platt")
            inside = log_losses(calibrate(rows, fitted)).mean()
            changes.append(recalibration_gain(rows).set_index("way")["loss"].iloc[2] - inside)
    assert len(changes) > 10 and np.mean(changes) > 0.02


def test_an_intercept_corrects_another_prevalence():
    rows = place(2, patients=400, share=0.2)
    off = rows.assign(logit=rows["logit"] + logit(0.6) - logit(0.2))
    fitted = recalibrated_by(off, "intercept")
    assert fitted.slope == 1 and fitted.intercept == pytest.approx(logit(0.2) - logit(0.6), abs=0.4)
    table = recalibration_gain(off).set_index("way")
    assert table.loc["intercept", "loss_change_high"] < 0
    assert calibration_there(calibrate(off, fitted))["calibration_in_the_large"] < 0.05


def test_only_a_slope_corrects_spread_logits():
    rows = place(3, patients=200, spread=3.0)
    table = recalibration_gain(rows).set_index("way")
    assert table.loc["slope and intercept", "slope"] == pytest.approx(1 / 3, abs=0.1)
    assert table.loc["slope and intercept", "loss_change_high"] < 0
    assert table.loc["intercept", "loss_change"] > table.loc["slope and intercept", "loss_change"]


def test_correct_probabilities_show_no_gain():
    """The intervals of 12 studies leave out 0 in at most a few."""
    gains = pd.concat([recalibration_gain(place(seed, patients=30)) for seed in range(12)])
    gains = gains[gains["way"] != "as it is"]
    assert (gains["loss_change_high"] < 0).sum() <= 2


def test_nothing_is_reported_for_too_few_patients():
    table = recalibration_gain(place(4, patients=8)).set_index("way")
    assert list(table.index) == list(WAYS)
    assert np.isnan(table.loc["intercept", ["loss", "loss_change", "loss_change_low"]]).all()
    assert np.isfinite(table.loc["as it is", "loss"])
