"""The share of malignant images from logits alone: against EM, quapy, and where it is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from cytology.evaluation.statistics.label_shift import em_share, estimated_share
from cytology.settings import InputError

pytestmark = pytest.mark.numeric


def study(rng, patients=40, share=0.5, images=5, apart=2.0, moved=0.0):
    """Two normal classes of patients; half of the variance is the patient's."""
    malignant, group = rng.random(patients) < share, np.repeat(np.arange(patients), images)
    noise = rng.normal(size=patients)[group] + rng.normal(size=len(group))
    score = apart * (malignant[group] - 0.5) + np.sqrt(0.5) * noise + moved
    label = np.where(malignant[group], "M", "B")
    return pd.DataFrame({"label": label, "group": group, "logit": apart * score})


def known_and_new(seed, share, **more):
    rng = np.random.default_rng(seed)
    known = study(rng, 60)
    known["fold"] = 0
    return known, study(rng, share=share, **more).drop(columns="label")


def posteriors(known_share, share, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=500) + 2 * (rng.random(500) < share)
    return expit(2 * score - 2 + logit(known_share))


DESIGNS = [(0.5, 0.1), (0.3, 0.7), (0.4, 0.02)]


@pytest.mark.parametrize(("known", "share"), DESIGNS)
def test_the_share_is_the_fixed_point_of_em(known, share):
    probability, now = posteriors(known, share), known
    for _ in range(5000):
        odds = now / known * probability
        now = (odds / (odds + (1 - now) / (1 - known) * (1 - probability))).mean()
    assert em_share(logit(probability) - logit(known)) == pytest.approx(now, abs=1e-6)


@pytest.mark.parametrize(("known", "share"), DESIGNS)
def test_the_share_matches_quapy(known, share):
    quapy = pytest.importorskip("quapy.method.aggregative", reason="quapy is not installed")
    malignant = posteriors(known, share)
    both = np.stack([1 - malignant, malignant], axis=1)
    (_, expected), _ = quapy.EMQ.EM(np.array([1 - known, known]), both, epsilon=1e-9)
    assert em_share(logit(malignant) - logit(known)) == pytest.approx(expected, abs=1e-5)


def test_the_share_is_0_for_clearly_benign_images_and_1_for_clearly_malignant_ones():
    assert em_share(np.array([-800.0, -3, -2])) == 0 and em_share(np.array([800.0, 2, 3])) == 1
    assert em_share(np.array([-800.0, -700, 700, 800])) == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_interval_covers_the_share_and_no_shift_is_reported(share):
    """Of 100 studies an exact 95 % interval misses more than 11 in 0.4 % of all tries."""
    found = pd.DataFrame([estimated_share(*known_and_new(k, share)[::-1]) for k in range(100)])
    held = (found["prevalence_low"] <= share) & (share <= found["prevalence_high"])
    assert held.sum() >= 89 and found["moved"].sum() <= 11
    assert found["prevalence"].mean() == pytest.approx(share, abs=0.035)
    width = found["prevalence_high"] - found["prevalence_low"]
    assert width.max() < 0.75


@pytest.mark.parametrize(("moved", "least"), [(-2.0, 27), (2.0, 16)])
def test_shifted_logits_are_not_a_mixture(moved, least):
    """A shift toward the rarer class resembles another share and is detected less often."""
    found = [estimated_share(*known_and_new(k, 0.3, moved=moved)[::-1]) for k in range(30)]
    assert sum(each["moved"] for each in found) >= least


def test_the_interval_counts_patients_and_not_images():
    """Copying each image ten times adds nothing; images counted as patients seem to add."""
    known, new = known_and_new(0, 0.3)

    def width(rows):
        found = estimated_share(rows, known)
        return found["prevalence_high"] - found["prevalence_low"]

    copies = pd.concat([new] * 10)
    assert width(copies) == pytest.approx(width(new), rel=0.1)
    assert width(new.assign(group=range(len(new)))) < 0.9 * width(new)


def test_row_order_and_calibrated_logits_change_nothing():
    known, new = known_and_new(1, 0.3)
    expected = estimated_share(new, known)
    found = estimated_share(
        new.sample(frac=1, random_state=0), known.sample(frac=1, random_state=1)
    )
    assert found == pytest.approx(expected)
    tables = [rows.assign(logit=0.4 * rows["logit"] + 7) for rows in (new, known)]
    assert estimated_share(*tables)["prevalence"] == pytest.approx(expected["prevalence"], abs=1e-4)


def test_the_shift_by_class_weights_is_undone():
    known, new = known_and_new(2, 0.3)
    expected = estimated_share(new, known)
    known["class_shift"] = np.where(known["group"] % 2, 0.5, -0.5)
    known["logit"] -= known["class_shift"]
    new = new.assign(class_shift=-1.5, logit=new["logit"] + 1.5)
    assert estimated_share(new, known) == pytest.approx(expected)


def test_heads_of_several_folds_make_the_interval_wider():
    known, new = known_and_new(3, 0.3)
    fixed, crossed = (
        estimated_share(new, known.assign(fold=fold)) for fold in (0, known["group"] % 5)
    )
    assert crossed["prevalence"] == fixed["prevalence"]
    assert crossed["prevalence_low"] < fixed["prevalence_low"]


def test_too_few_patients_give_an_estimate_without_an_interval():
    known, new = known_and_new(4, 0.5)
    found = estimated_share(new[new["group"] < 4], known)
    assert 0 <= found["prevalence"] <= 1 and not found["moved"] and found["note"] == ""
    assert np.isnan([found["prevalence_low"], found["prevalence_high"], found["p_moved"]]).all()


def test_without_a_signal_nothing_is_estimated():
    known, new = known_and_new(5, 0.5)
    found = estimated_share(new, known.assign(logit=-known["logit"]))
    assert "no slope fits" in found["note"] and np.isnan(found["prevalence"])
    with pytest.raises(InputError, match="both classes"):
        estimated_share(new, known[known["label"] == "M"])


def test_all_benign_images_are_compatible_with_a_positive_prevalence():
    """Nearly perfect logits, none malignant among 20 patients: still up to a tenth or more."""
    rng = np.random.default_rng(6)
    known, new = study(rng, 60, apart=6.0), study(rng, 20, share=0.0, apart=6.0)
    found = estimated_share(new, known)
    assert found["prevalence"] < 0.02 and 0.1 < found["prevalence_high"] < 0.35
