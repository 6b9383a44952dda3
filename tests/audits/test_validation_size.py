"""Riley's criteria: numbers from the paper, and numbers computed in another way."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from scipy.stats import norm

from cytology.audits.validation_size import (
    WIDTHS,
    auc_error,
    size_for_auc,
    size_for_calibration_slope,
    size_for_net_benefit,
    size_for_observed_over_expected,
    sizes_of_run,
    validation_sentence,
    validation_sentences,
    validation_size,
)
from cytology.settings import InputError

pytestmark = pytest.mark.numeric


def test_sample_sizes_match_the_paper():
    """Section 3.1 (O/E with 0.5, 0.1), and the valves of section 4: 1.8 % events, C of 0.80."""
    # The paper rounds the standard error of a width of 0.2 to 0.051, of 0.7 to 0.175.
    assert size_for_observed_over_expected(0.5, 0.2) == pytest.approx(385, rel=0.005)
    assert size_for_observed_over_expected(0.1, 0.2) == pytest.approx(3460, rel=0.005)
    assert size_for_observed_over_expected(0.1, 0.7) == pytest.approx(294, rel=0.005)
    assert size_for_observed_over_expected(0.018, 1.0) == pytest.approx(905, abs=1)
    assert size_for_auc(0.80, 0.018, 0.1) == pytest.approx(4252, abs=2)


def test_the_sample_size_for_net_benefit_matches_the_paper():
    """6443 participants at a threshold of 8 %: logits with mean -5.8, variance 5, skewness -0.5.

    And kurtosis 4: Pearson's type IV, whose density solves the differential equation below.
    """
    value = np.linspace(-40, 40, 80001)
    scale = 10 * 4 - 12 * 0.25 - 18
    slope = np.sqrt(5) * -0.5 * (4 + 3) / scale
    bottom = 5 * (4 * 4 - 3 * 0.25) / scale + slope * value + (8 - 0.75 - 6) / scale * value**2
    density = np.exp(np.cumsum(-(value + slope) / bottom) * (value[1] - value[0]))
    share = expit(value - 5.8)
    density /= density.sum()
    prevalence = density @ share
    assert prevalence == pytest.approx(0.018, abs=0.0005)
    called = share >= 0.08
    sensitivity = density @ (share * called) / prevalence
    specificity = density @ ((1 - share) * ~called) / (1 - prevalence)
    size = size_for_net_benefit(sensitivity, specificity, prevalence, 0.08, 0.2)
    assert size == pytest.approx(6443, rel=0.02)


def test_the_error_of_the_slope_matches_logistic_regression():
    rng = np.random.default_rng(0)
    score = rng.normal(-1.75, 1.47, 200_000)
    outcome = rng.random(len(score)) < expit(score)
    error = sm.Logit(outcome, sm.add_constant(score)).fit(disp=0).bse[1] * np.sqrt(len(score))
    wanted = (error / (0.2 / 2 / norm.ppf(0.975))) ** 2
    at = np.linspace(-15, 12, 5001)
    found = size_for_calibration_slope(at, 0.2, norm.pdf(at, -1.75, 1.47))
    assert found == pytest.approx(wanted, rel=0.02)


def test_the_errors_of_auc_and_net_benefit_match_simulated_studies():
    rng = np.random.default_rng(0)
    size, prevalence, threshold, aucs, benefits = 400, 0.3, 0.4, [], []
    for _ in range(2000):
        truth = rng.random(size) < prevalence
        score = rng.normal(size=size) + 1.5 * truth
        ranks = np.argsort(np.argsort(score)) + 1
        cases = truth.sum()
        aucs.append((ranks[truth].sum() - cases * (cases + 1) / 2) / (cases * (size - cases)))
        called = score > 0.75
        false = (called & ~truth).mean() * threshold / (1 - threshold)
        benefits.append(((called & truth).mean() - false) / truth.mean())
    auc, error = norm.cdf(1.5 / np.sqrt(2)), np.std(aucs)
    assert auc_error(auc, prevalence, size) == pytest.approx(error, rel=0.1)
    width = 2 * norm.ppf(0.975) * auc_error(auc, prevalence, size)
    assert size_for_auc(auc, prevalence, width) == pytest.approx(size)
    width = 2 * norm.ppf(0.975) * np.std(benefits)
    share = norm.cdf(0.75)
    found = size_for_net_benefit(share, share, prevalence, threshold, width)
    assert found == pytest.approx(size, rel=0.1)


def rows_of(patients=200, images=5, seed=0):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), images)
    label = np.where(group % 4, "B", "M")
    score = rng.normal(size=len(group)) + np.where(label == "M", 1.0, -1.0)
    # A calibrated logit of normal scores with distance 2 and variance 1, a quarter malignant.
    return pd.DataFrame({"group": group, "label": label, "logit": 2 * score + logit(0.25)})


def test_a_validation_is_planned_at_the_prevalence_of_the_new_site():
    table = validation_size(rows_of(), 0.1, 0.2).set_index("criterion")
    assert list(table.index) == list(WIDTHS)
    values = np.linspace(-8, 8, 4001)
    score = 2 * values + logit(0.1)
    density = 0.1 * norm.pdf(values, 1) + 0.9 * norm.pdf(values, -1)
    wanted = size_for_calibration_slope(score, 0.2, density)
    assert table.loc["calibration slope", "images"] == pytest.approx(wanted, rel=0.1)
    cut = (logit(0.2) - logit(0.1)) / 2
    wanted = size_for_net_benefit(norm.sf(cut, 1), norm.cdf(cut, -1), 0.1, 0.2, 0.2)
    assert table.loc["net benefit", "images"] == pytest.approx(wanted, rel=0.1)


def test_correlated_images_of_a_patient_count_as_one_observation():
    table = validation_size(rows_of(), 0.25, 0.5).set_index("criterion")
    first, auc = table.loc["observed over expected"], table.loc["AUC"]
    assert first["groups"] == first["images"] and first["design_effect"] == 5
    assert auc["likeness"] < 0.2 and auc["groups"] < 0.5 * auc["images"]
    said = validation_sentence(table.reset_index(), "patient")
    assert f"needs {first['groups']:,.0f} patients" in said and "Riley" in said


def test_each_fold_is_calibrated_on_the_other_folds():
    rows = rows_of()
    folded = rows.assign(fold=rows["group"] % 5, model="oof", logit=3 * rows["logit"])
    table = validation_size(folded, 0.25, 0.5).set_index("criterion")["images"]
    assert table["calibration slope"] == pytest.approx(
        validation_size(rows, 0.25, 0.5)["images"][1], rel=0.1
    )


@pytest.mark.parametrize("wrong", [{"prevalence": 0}, {"threshold": 1.5}])
def test_invalid_shares_are_refused(wrong):
    with pytest.raises(InputError, match="between 0 and 1"):
        validation_size(rows_of(), **({"prevalence": 0.1, "threshold": 0.1} | wrong))
    one = rows_of().query("label == 'M'")
    with pytest.raises(InputError, match="both classes"):
        validation_size(one, 0.1, 0.1)


def test_sizes_are_reported_for_each_network_unless_the_split_leaks(run_once):
    table = sizes_of_run(run_once, 0.1)
    assert len(table) == 4 * table["architecture"].nunique() and set(table["prevalence"]) == {0.1}
    here = sizes_of_run(run_once, 0.0)
    rows = run_once.table("mobilenetv2/predictions.csv")
    share = (rows.loc[rows["model"] == "oof", "label"] == "M").mean()
    assert here["prevalence"].iloc[0] == pytest.approx(share)
    said = validation_sentences(table, "patient")
    assert len(said) == table["architecture"].nunique()
    assert said[0].startswith("MobileNetV2: An external validation where 10% of the images")
    for changed in ({"weights": "random"}, {"protocol": "given, leaks"}):
        assert validation_sentences(table.assign(**changed), "patient") == []


@pytest.mark.parametrize(("auc", "size"), [(1.0, 2.0), (np.nan, np.nan)])
def test_perfect_discrimination_needs_no_images_and_unknown_gives_no_number(auc, size):
    np.testing.assert_equal(size_for_auc(auc, 0.1, 0.1), size)
