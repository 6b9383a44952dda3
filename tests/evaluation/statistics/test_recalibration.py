"""Calibration in the large and slope, against statsmodels and in studies where they are known."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import norm

from cytology.evaluation.statistics.recalibration import in_the_large, logistic_fit, recalibration

pytestmark = pytest.mark.numeric
LARGE, SLOPE = "calibration_in_the_large", "calibration_slope"


def calibrated_study(rng, patients=30, share=0.5, likeness=0.5, auc=0.8, unequal=False):
    """Logits that are right: two normal classes of patients, labels drawn, 6 or 1 to 60 images."""
    malignant = rng.random(patients) < share
    sizes = np.full(patients, 6)
    if unequal:
        sizes = np.exp(rng.uniform(0, np.log(60), patients)).round().astype(int)
    group = np.repeat(np.arange(patients), sizes)
    apart = norm.ppf(auc) * np.sqrt(2)
    noise = np.sqrt(likeness) * rng.normal(size=patients)[group]
    noise += np.sqrt(1 - likeness) * rng.normal(size=len(group))
    score = apart * malignant[group] + noise
    logit = apart * score - apart**2 / 2 + np.log(share / (1 - share))
    label = np.where(malignant[group], "M", "B")
    return pd.DataFrame({"label": label, "group": group, "logit": logit})


def by_statsmodels(rows):
    truth, binomial = (rows["label"] == "M").astype(float), sm.families.Binomial()
    large = sm.GLM(truth, np.ones(len(rows)), offset=rows["logit"], family=binomial).fit()
    line = sm.GLM(truth, sm.add_constant(rows["logit"]), family=binomial).fit()
    return large.params.iloc[0], line.params.iloc[1]


@pytest.mark.parametrize("times", [0.05, 1.0, 30.0])
def test_estimates_match_statsmodels(times):
    rows = calibrated_study(np.random.default_rng(0), unequal=True)
    rows["logit"] = times * rows["logit"] + 0.3
    found = recalibration(rows)
    assert [found[LARGE], found[SLOPE]] == pytest.approx(by_statsmodels(rows), rel=1e-4)


def test_weights_are_equivalent_to_copies():
    rng = np.random.default_rng(1)
    score, truth = rng.normal(size=40), rng.integers(0, 2, 40).astype(float)
    weights = rng.integers(0, 3, (5, 40)).astype(float)
    for one, line, large in zip(
        weights, logistic_fit(score, truth, weights), in_the_large(score, truth, weights),
        strict=True,
    ):  # fmt: skip
        copied = np.repeat(np.arange(40), one.astype(int))
        assert line == pytest.approx(logistic_fit(score[copied], truth[copied])[0], abs=1e-6)
        assert large == pytest.approx(
            in_the_large(score[copied], truth[copied], np.ones((1, len(copied))))[0], abs=1e-6
        )


def test_the_interval_is_a_jackknife():
    rows = calibrated_study(np.random.default_rng(2))
    found = recalibration(rows)
    for place, name in enumerate((LARGE, SLOPE)):
        left_out = [by_statsmodels(rows[rows["group"] != g])[place] for g in range(30)]
        away = np.array(left_out) - found[name]
        error = np.sqrt(29 / 30 * (away**2).sum())
        half = (found[f"{name}_high"] - found[f"{name}_low"]) / 2
        assert 1.95 * error < half < 4 * error
        twice = recalibration(rows, inflation=2.0)
        wider = (twice[f"{name}_high"] - twice[f"{name}_low"]) / 2
        assert wider == pytest.approx(np.sqrt(2) * half)


def test_overconfident_and_low_probabilities_are_reported():
    rows = calibrated_study(np.random.default_rng(3), patients=200)
    sure = recalibration(rows.assign(logit=3 * rows["logit"]))
    assert sure[f"{SLOPE}_high"] < 0.6
    low = recalibration(rows.assign(logit=rows["logit"] - 2))
    assert low[f"{LARGE}_low"] > 1
    assert low[SLOPE] == pytest.approx(recalibration(rows)[SLOPE])


def test_undefined_estimates_are_missing():
    rows = calibrated_study(np.random.default_rng(4))
    parted = recalibration(rows.assign(logit=np.where(rows["label"] == "M", 2.0, -1.0)))
    assert np.isnan(parted[SLOPE]) and np.isnan(parted[f"{SLOPE}_low"])
    assert parted[LARGE] < 0 and np.isfinite(parted[f"{LARGE}_low"])
    alike = recalibration(rows.assign(logit=0.0))
    assert np.isnan(alike[SLOPE]) and np.isfinite(alike[LARGE])
    one = recalibration(rows.assign(label="M"))
    assert np.isnan([one[LARGE], one[SLOPE]]).all()
    few = recalibration(rows[rows["group"].isin(rows["group"].unique()[:6])])
    assert np.isnan(few[f"{LARGE}_low"]) and np.isfinite(few[LARGE])


def test_a_slope_that_depends_on_one_patient_has_no_interval():
    rows = calibrated_study(np.random.default_rng(5))
    rows["logit"] = np.where(rows["label"] == "M", 1.0, -1.0) * (1 + rows["logit"] ** 2)
    odd = rows["group"] == 3
    found = recalibration(rows.assign(logit=rows["logit"].mask(odd, -rows["logit"])))
    assert np.isfinite(found[SLOPE]) and np.isnan(found[f"{SLOPE}_low"])


def test_extreme_logits_do_not_overflow():
    rows = calibrated_study(np.random.default_rng(6))
    with np.errstate(over="raise"):
        found = recalibration(rows.assign(logit=900 * rows["logit"]))
    assert found[SLOPE] == pytest.approx(recalibration(rows)[SLOPE] / 900, rel=1e-3)
    assert np.isfinite(found[LARGE])


def test_many_groups_are_left_out_in_blocks_with_the_same_result():
    rows = calibrated_study(np.random.default_rng(7), patients=300)
    found = recalibration(rows)
    halved = recalibration(rows.assign(group=rows["group"] // 3))
    for name in (LARGE, SLOPE):
        width = found[f"{name}_high"] - found[f"{name}_low"]
        assert width == pytest.approx(halved[f"{name}_high"] - halved[f"{name}_low"], rel=0.3)
    shuffled = recalibration(rows.sample(frac=1, random_state=0))
    assert shuffled == pytest.approx(found)


@pytest.mark.slow
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "1 to 60 images"])
@pytest.mark.parametrize("auc", [0.8, 0.92])
def test_intervals_cover_the_truth(auc, unequal):
    """60 patients, where a plain jackknife held the slope in 88 % with 1 to 60 images."""
    rng, held = np.random.default_rng(8), []
    for _ in range(200):
        found = recalibration(calibrated_study(rng, 60, auc=auc, unequal=unequal))
        held.append([
            found[f"{name}_low"] <= truth <= found[f"{name}_high"]
            for name, truth in ((LARGE, 0), (SLOPE, 1))
        ])  # fmt: skip
    assert (np.mean(held, axis=0) >= 0.92).all()
