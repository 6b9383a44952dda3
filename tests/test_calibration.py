"""Calibration against a fine grid, and never judged on what it was fitted on."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cytology.calibration import (
    COLDEST,
    HOTTEST,
    METHODS,
    NO_MISTAKE,
    NO_SIGNAL,
    Calibrator,
    apply,
    cross_fitted,
    fit,
    is_surely_wrong,
    reliability,
)
from cytology.metrics import classification_metrics
from cytology.settings import InputError

pytestmark = pytest.mark.numeric


def rows_too_sure(seed, count=300, times=3.0, groups=30):
    """Logits `times` what would be right, in `groups` groups and four folds of whole groups."""
    rng = np.random.default_rng(seed)
    right = rng.normal(scale=1.5, size=count)
    label = np.where(rng.random(count) < expit(right), "M", "B")
    group = np.arange(count) % groups
    rows = pd.DataFrame({"label": label, "group": group, "fold": group % 4, "logit": times * right})
    return rows.assign(probability=expit(rows["logit"]))


# --------------------------------------------------------------------- temperature


@pytest.mark.parametrize("times", [0.3, 1.0, 4.0])
def test_the_temperature_makes_the_log_loss_least_on_a_fine_grid(times):
    rows = rows_too_sure(0, times=times)
    truth, logit = (rows["label"] == "M").to_numpy(), rows["logit"].to_numpy()
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 4001))
    of_truth = expit(np.where(truth, logit, -logit) / grid[:, None])
    losses = -np.log(of_truth).mean(axis=1)
    best = grid[np.argmin(losses)]
    assert fit(rows, "temperature").temperature == pytest.approx(best, rel=0.002)


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_logits_times_a_factor_need_a_temperature_times_the_factor(factor):
    rows = rows_too_sure(1)
    temperature = fit(rows, "temperature").temperature
    stretched = fit(rows.assign(logit=factor * rows["logit"]), "temperature").temperature
    assert stretched == pytest.approx(factor * temperature, rel=1e-4)


def test_a_temperature_divides_the_logit():
    assert Calibrator(2.0).probability([2.0, -4.0]) == pytest.approx(expit([1.0, -2.0]))
    rows = rows_too_sure(2)
    before, after = (apply(rows, fit(rows, method)) for method in ("none", "temperature"))
    assert classification_metrics(after)["loss"] < 0.9 * classification_metrics(before)["loss"]


def test_too_sure_by_three_has_a_temperature_of_about_three():
    assert fit(rows_too_sure(2, count=20_000), "temperature").temperature == pytest.approx(3, 0.05)


def test_a_temperature_changes_no_order_and_no_decision():
    rows = rows_too_sure(3)
    found = apply(rows, fit(rows, "temperature"))
    assert (found["probability"].rank() == rows["probability"].rank()).all()
    assert ((found["probability"] >= 0.5) == (rows["probability"] >= 0.5)).all()
    assert not np.allclose(found["probability"], rows["probability"])


@pytest.mark.parametrize(
    ("logit", "why"),
    [
        ([-2.0, -1.0, 1.0, 2.0], NO_MISTAKE),
        ([-9e-9, -1e-9, 1e-9, 9e-9], NO_MISTAKE),
        ([2.0, 1.0, -1.0, -2.0], NO_SIGNAL),
        ([0.3, 0.3, 0.3, 0.3], NO_SIGNAL),
        ([0.0, 0.0, 0.0, 0.0], NO_SIGNAL),
        ([-400.0, 800.0, 400.0, 400.0], NO_SIGNAL),
    ],
)
def test_where_the_log_loss_has_no_minimum_no_temperature_is_fitted(logit, why):
    rows = pd.DataFrame({"label": list("BBMM"), "logit": logit})
    found = fit(rows, "temperature")
    assert (found.temperature, found.unfitted) == (1.0, why)
    assert apply(rows, found)["probability"].tolist() == pytest.approx(expit(logit))


@pytest.mark.parametrize("factor", [1.01 * COLDEST, 0.99 * HOTTEST])
def test_a_temperature_just_inside_the_search_is_fitted(factor):
    rows = rows_too_sure(1)
    best = fit(rows, "temperature").temperature
    found = fit(rows.assign(logit=rows["logit"] * factor / best), "temperature")
    assert found.temperature == pytest.approx(factor, rel=1e-3) and not found.unfitted


def test_a_sure_probability_that_is_wrong_has_no_log_loss():
    rows = pd.DataFrame({"label": list("BM"), "probability": [0.0, 1.0]})
    assert not is_surely_wrong(rows)
    assert is_surely_wrong(rows.assign(label="M")) and is_surely_wrong(rows.assign(label="B"))
    assert not is_surely_wrong(rows.assign(label="M", probability=[1e-9, 1.0]))


def test_nothing_done_is_the_probability_itself():
    rows = rows_too_sure(4)
    assert apply(rows, fit(rows, "none"))["probability"].tolist() == pytest.approx(
        rows["probability"].tolist()
    )


def test_large_logits_do_not_overflow():
    rows = pd.DataFrame({"label": list("BMBM"), "logit": [-900.0, 900.0, 800.0, -700.0]})
    with np.errstate(over="raise", invalid="raise"):
        assert fit(rows, "temperature").unfitted == NO_SIGNAL


# ------------------------------------------------------------------------ isotonic


def pooled_slowly(logit, truth):
    """Pool adjacent violators: join neighbours until the shares rise."""
    order = np.argsort(logit)
    blocks = [[float(truth[i]), 1] for i in order]
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


def test_isotonic_probabilities_are_the_pooled_shares():
    rows = rows_too_sure(5, count=60)
    found = apply(rows, fit(rows, "isotonic"))["probability"]
    expected = pooled_slowly(rows["logit"].to_numpy(), (rows["label"] == "M").to_numpy())
    assert found.to_numpy() == pytest.approx(expected)


def test_isotonic_probabilities_rise_with_the_logit_also_beyond_what_was_seen():
    calibrator = fit(rows_too_sure(6, count=80), "isotonic")
    found = calibrator.probability(np.linspace(-50, 50, 1001))
    assert (np.diff(found) >= 0).all() and found.min() >= 0 and found.max() <= 1
    assert np.unique(found).size > 3


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
@pytest.mark.parametrize("label", ["M", "B"])
def test_one_class_cannot_be_calibrated_on(method, label):
    with pytest.raises(InputError, match="needs images of both classes"):
        fit(rows_too_sure(0).assign(label=label), method)


def test_probabilities_keep_the_shape_of_their_logits():
    for calibrator in (Calibrator(2.0), fit(rows_too_sure(7), "isotonic")):
        assert calibrator.probability([0.0, 1.0, -1.0]).shape == (3,)


# ------------------------------------------------------------------------ by fold


@pytest.mark.parametrize("method", METHODS)
def test_each_fold_is_calibrated_by_the_others(method):
    rows = rows_too_sure(8).sample(frac=1, random_state=0)
    found = cross_fitted(rows, method)
    assert (found.index == rows.index).all()
    for fold in range(4):
        here = rows[rows["fold"] == fold]
        expected = fit(rows[rows["fold"] != fold], method).probability(here["logit"])
        assert found.loc[here.index, "probability"].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_the_labels_of_a_fold_do_not_reach_its_own_probabilities(method):
    rows = rows_too_sure(9)
    other = rows["label"].map({"B": "M", "M": "B"})
    flipped = rows.assign(label=rows["label"].mask(rows["fold"] == 2, other))
    before = cross_fitted(rows, method).groupby("fold")["probability"].apply(list)
    after = cross_fitted(flipped, method).groupby("fold")["probability"].apply(list)
    assert after[2] == before[2]
    for fold in (0, 1, 3):
        assert after[fold] != before[fold]


def test_a_fold_whose_others_hold_one_class_cannot_be_calibrated():
    rows = rows_too_sure(10)
    rows["label"] = np.where(rows["fold"] == 1, "M", "B")
    with pytest.raises(InputError, match="both classes"):
        cross_fitted(rows, "temperature")


# --------------------------------------------------------------------- reliability


def test_reliability_counts_by_hand():
    rows = pd.DataFrame({"label": list("BMMBMM"), "group": range(6)})
    rows["probability"] = [0.12, 0.18, 0.55, 0.52, 0.97, 1.0]
    found = reliability(rows, draws=20)
    assert found["said"].tolist() == pytest.approx([0.15, 0.535, 0.985])
    assert found["true"].tolist() == [0.5, 0.5, 1.0]
    assert found["images"].tolist() == [2, 2, 2]
    assert found["true_low"].isna().all()  # two benign groups are too few to draw


def test_the_bounds_of_a_bin_come_from_whole_groups():
    """Copies of images add nothing; as many patients more do."""
    rows = rows_too_sure(11, count=120, groups=40, times=1)

    def widths(rows):
        found = reliability(rows, draws=300)
        return (found["true_high"] - found["true_low"]).sum()

    copied = pd.concat([rows] * 4)
    naive = copied.assign(group=range(len(copied)))
    assert widths(copied) == pytest.approx(widths(rows))
    assert widths(naive) < 0.75 * widths(rows)


def test_a_bin_of_one_patient_proves_nothing():
    rows = rows_too_sure(12, count=100, groups=50)
    rows.loc[rows["probability"] >= 0.9, "probability"] = 0.85
    rows.loc[rows["group"] == 7, ["probability", "label"]] = [0.95, "M"]
    (last,) = reliability(rows, draws=200).query("said > 0.9").itertuples()
    assert last.true == 1 and not last.true_low == 1
