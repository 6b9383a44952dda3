"""Calibration against statsmodels and by hand, never judged on the images it was fitted on."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit

from cytology.evaluation.statistics.calibration import (
    CALIBRATION_METHODS,
    NO_SIGNAL,
    Calibrator,
    calibrate,
    cross_fitted,
    fit_calibrator,
    log_losses,
    reliability,
    smoothed_targets,
)
from cytology.evaluation.statistics.metrics import classification_metrics
from cytology.settings import InputError

pytestmark = pytest.mark.numeric


def overconfident_rows(seed, count=300, times=3.0, groups=30):
    """Logits `times` what would be right, in `groups` groups and four folds of whole groups."""
    rng = np.random.default_rng(seed)
    right = rng.normal(scale=1.5, size=count)
    label = np.where(rng.random(count) < expit(right), "M", "B")
    group = np.arange(count) % groups
    rows = pd.DataFrame({"label": label, "group": group, "fold": group % 4, "logit": times * right})
    return rows.assign(probability=expit(rows["logit"]))


# ------------------------------------------------------------------ slope and intercept


def perfectly_ranked_rows(patients=24, images=6):
    """Half of the patients malignant, and every malignant image above every benign one."""
    group = np.repeat(np.arange(patients), images)
    rows = pd.DataFrame({"group": group, "label": np.where(group % 2, "M", "B")})
    size = np.random.default_rng(0).uniform(0.2, 3, len(rows))
    return rows.assign(logit=np.where(group % 2, size, -size))


def by_statsmodels(rows):
    """Intercept and slope of the smoothed targets on the logits."""
    malignant, benign = ((rows["label"] == each) for each in "MB")
    more, less = rows[malignant]["group"].nunique(), rows[benign]["group"].nunique()
    targets = np.where(malignant, (more + 1) / (more + 2), 1 / (less + 2))
    design = sm.add_constant(rows["logit"] + rows.get("class_shift", 0))
    return sm.GLM(targets, design, family=sm.families.Binomial()).fit(tol=1e-12).params.to_numpy()


@pytest.mark.parametrize("times", [0.01, 0.3, 4.0, 100.0])
@pytest.mark.parametrize("shift", [0.0, 1.1])
def test_slope_and_intercept_match_statsmodels(times, shift):
    rows = overconfident_rows(0, times=times).assign(class_shift=shift)
    found = fit_calibrator(rows, "platt")
    assert [found.intercept, found.slope] == pytest.approx(by_statsmodels(rows), rel=1e-5)


def test_targets_are_smoothed_by_groups_and_not_by_images():
    rows = pd.DataFrame({"label": list("MMMMBB"), "group": [0, 0, 0, 1, 2, 2]})
    assert smoothed_targets(rows).tolist() == pytest.approx([3 / 4] * 4 + [1 / 3] * 2)


def test_perfect_discrimination_gives_a_finite_slope():
    rows = perfectly_ranked_rows()
    found = fit_calibrator(rows, "platt")
    assert 0 < found.slope <= 5
    mistake = pd.DataFrame({"label": ["M"], "group": [0], "logit": [-0.5]})
    assert log_losses(calibrate(mistake, found))[0] < 3


def test_calibration_removes_the_shift_by_balanced_weights():
    """Perfect logits of a study with 3:1, less the log odds that balanced weights take out."""
    rng = np.random.default_rng(0)
    count = 4000
    right = rng.normal(np.log(3), 1.5, count)
    label = np.where(rng.random(count) < expit(right), "M", "B")
    rows = pd.DataFrame({"label": label, "group": np.arange(count) // 20, "logit": right})
    share = (label == "M").mean()
    for constant in (-np.log(3), 2.0, -5.0):
        moved = rows.assign(logit=right + constant, class_shift=np.log(3))
        moved["fold"] = moved["group"] % 4
        for found in (
            calibrate(moved, fit_calibrator(moved, "platt")),
            cross_fitted(moved, "platt"),
        ):
            assert found["probability"].mean() == pytest.approx(share, abs=0.02)


def test_folds_with_different_class_shares_are_aligned_before_fitting():
    rows = overconfident_rows(1, times=1)
    shift = rows["fold"].map({0: -1.0, 1: 0.0, 2: 2.0, 3: 0.5})
    moved = rows.assign(logit=rows["logit"] - shift, class_shift=shift)
    assert fit_calibrator(moved, "platt").slope == pytest.approx(
        fit_calibrator(rows, "platt").slope
    )
    for method in ("platt", "isotonic"):
        expected = calibrate(rows, fit_calibrator(rows, method))["probability"]
        assert calibrate(moved, fit_calibrator(moved, method))[
            "probability"
        ].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize(
    "logit", [[2.0, 1.0, -1.0, -2.0], [0.3] * 4, [0.0] * 4, [-1.0, 1.0, -1.0, 1.0]]
)
def test_scores_without_signal_are_not_calibrated(logit):
    rows = pd.DataFrame({"label": list("BBMM"), "group": range(4), "logit": logit})
    found = fit_calibrator(rows.assign(class_shift=3.0), "platt")
    assert found == Calibrator(unfitted=NO_SIGNAL)
    assert calibrate(rows.assign(class_shift=3.0), found)["logit"].tolist() == logit


def test_the_log_loss_of_a_row_matches_its_probability_and_is_finite():
    rows = overconfident_rows(4)
    loss = classification_metrics(rows)["loss"]
    assert log_losses(rows).mean() == pytest.approx(loss)
    sure = pd.DataFrame({"label": ["M"], "logit": [-900.0]})
    assert log_losses(sure)[0] == 900


def test_without_calibration_the_probability_is_unchanged():
    rows = overconfident_rows(4).assign(class_shift=2.0)
    assert calibrate(rows, fit_calibrator(rows, "none"))["probability"].tolist() == pytest.approx(
        rows["probability"].tolist()
    )


def test_large_logits_do_not_overflow():
    rows = pd.DataFrame({"label": list("BMBMM"), "group": range(5)})
    rows["logit"] = [-900.0, 900.0, 800.0, 950.0, 700.0]
    with np.errstate(over="raise", invalid="raise"):
        found = fit_calibrator(rows, "platt")
    assert 0 < found.slope < 0.1


# ------------------------------------------------------------------------ isotonic


def pooled_slowly(logit, targets):
    """Pool adjacent violators: join neighbours until the means rise."""
    order = np.argsort(logit)
    blocks = [[float(targets[i]), 1] for i in order]
    k = 0
    while k < len(blocks) - 1:
        if blocks[k][0] / blocks[k][1] > blocks[k + 1][0] / blocks[k + 1][1]:
            blocks[k] = [blocks[k][0] + blocks[k + 1][0], blocks[k][1] + blocks[k + 1][1]]
            del blocks[k + 1]
            k = max(k - 1, 0)
        else:
            k += 1
    fitted = np.empty(len(order))
    fitted[order] = np.concatenate([[hits / size] * size for hits, size in blocks])
    return fitted


def test_isotonic_probabilities_match_pooled_means_of_smoothed_targets():
    rows = overconfident_rows(5, count=60)
    found = calibrate(rows, fit_calibrator(rows, "isotonic"))["probability"]
    expected = pooled_slowly(rows["logit"].to_numpy(), smoothed_targets(rows))
    assert found.to_numpy() == pytest.approx(expected)


def test_no_isotonic_step_is_0_or_1():
    for rows in (perfectly_ranked_rows(), overconfident_rows(5, count=60)):
        found = calibrate(rows, fit_calibrator(rows, "isotonic"))
        assert found["probability"].between(0.01, 0.99).all()
        assert np.isfinite(found["logit"]).all()


def test_isotonic_probabilities_rise_with_the_logit_even_beyond_the_fitted_range():
    calibrator = fit_calibrator(overconfident_rows(6, count=80), "isotonic")
    found = calibrator.logit(np.linspace(-50, 50, 1001))
    assert (np.diff(found) >= 0).all()
    assert np.unique(found).size > 3


@pytest.mark.parametrize("method", ["platt", "isotonic"])
@pytest.mark.parametrize("label", ["M", "B"])
def test_calibration_needs_both_classes(method, label):
    with pytest.raises(InputError, match="needs images of both classes"):
        fit_calibrator(overconfident_rows(0).assign(label=label), method)


def test_calibrated_logits_keep_the_shape_of_the_logits():
    for calibrator in (Calibrator(2.0), fit_calibrator(overconfident_rows(7), "isotonic")):
        assert calibrator.logit([0.0, 1.0, -1.0]).shape == (3,)


# ------------------------------------------------------------------------ by fold


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_each_fold_is_calibrated_on_the_others(method):
    rows = overconfident_rows(8).sample(frac=1, random_state=0)
    found = cross_fitted(rows, method)
    assert (found.index == rows.index).all()
    for fold in range(4):
        here = rows[rows["fold"] == fold]
        expected = fit_calibrator(rows[rows["fold"] != fold], method).logit(here["logit"])
        assert found.loc[here.index, "logit"].to_numpy() == pytest.approx(expected)
        assert found.loc[here.index, "probability"].to_numpy() == pytest.approx(expit(expected))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_the_labels_of_a_fold_do_not_affect_its_own_probabilities(method):
    rows = overconfident_rows(9)
    other = rows["label"].map({"B": "M", "M": "B"})
    flipped = rows.assign(label=rows["label"].mask(rows["fold"] == 2, other))
    before = cross_fitted(rows, method).groupby("fold")["probability"].apply(list)
    after = cross_fitted(flipped, method).groupby("fold")["probability"].apply(list)
    assert after[2] == before[2]
    for fold in (0, 1, 3):
        assert after[fold] != before[fold]


def test_a_fold_cannot_be_calibrated_if_the_others_have_one_class():
    rows = overconfident_rows(10)
    rows["label"] = np.where(rows["fold"] == 1, "M", "B")
    with pytest.raises(InputError, match="both classes"):
        cross_fitted(rows, "platt")


# --------------------------------------------------------------------- reliability


def test_reliability_counts_match_a_hand_calculation():
    rows = pd.DataFrame({"label": list("BMMBMM"), "group": range(6)})
    rows["probability"] = [0.12, 0.18, 0.55, 0.52, 0.97, 1.0]
    found = reliability(rows)
    assert found["said"].tolist() == pytest.approx([0.15, 0.535, 0.985])
    assert found["true"].tolist() == [0.5, 0.5, 1.0]
    assert found["images"].tolist() == [2, 2, 2]
    assert (found["true_high"] - found["true_low"] > 0.7).all()  # two patients say little


def test_the_bounds_of_a_bin_count_groups():
    """Copies of images add nothing; the same number of new patients does."""
    rows = overconfident_rows(11, count=120, groups=40, times=1).drop(columns="fold")

    def widths(rows):
        found = reliability(rows)
        return (found["true_high"] - found["true_low"]).sum()

    copied = pd.concat([rows] * 4)
    naive = copied.assign(group=range(len(copied)))
    assert widths(copied) == pytest.approx(widths(rows), rel=0.1)
    assert widths(naive) < 0.75 * widths(rows)


def test_the_bounds_of_cross_validated_rows_are_wider():
    rows = overconfident_rows(11, count=120, groups=40, times=1)
    narrow = reliability(rows.drop(columns="fold"))
    wide = reliability(rows)
    assert (wide["true_low"] <= narrow["true_low"]).all()
    assert (
        wide["true_high"] - narrow["true_high"] + narrow["true_low"] - wide["true_low"] > 0
    ).all()


def test_a_bin_of_one_patient_proves_nothing():
    rows = overconfident_rows(12, count=100, groups=50)
    rows.loc[rows["probability"] >= 0.9, "probability"] = 0.85
    rows.loc[rows["group"] == 7, ["probability", "label"]] = [0.95, "M"]
    (last,) = reliability(rows).query("said > 0.9").itertuples()
    assert last.true == 1 and not last.true_low == 1
