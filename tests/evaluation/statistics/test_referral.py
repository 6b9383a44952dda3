"""Referral: the limit by trying every cut, and in simulated studies whether the promise is kept."""

import numpy as np
import pandas as pd
import pytest

from cytology.evaluation.statistics.referral import (
    by_patient,
    choose_referral,
    outcome,
    patients_needed,
    referral_curve,
    referred_out_of_fold,
)
from cytology.settings import InputError


def study(rng, patients=30, images=(2, 8), likeness=0.8, apart=2.0):
    group = np.repeat(np.arange(patients), rng.integers(images[0], images[1] + 1, patients))
    malignant = rng.random(patients) < 0.5
    noise = np.sqrt(likeness) * rng.normal(size=patients)[group]
    noise += np.sqrt(1 - likeness) * rng.normal(size=len(group))
    label = np.where(malignant[group], "M", "B")
    rows = pd.DataFrame({"label": label, "group": group, "logit": apart * malignant[group] + noise})
    return rows.assign(image_id=np.arange(len(rows)), fold=group % 5)


def missed(patients, limit):
    return ((patients["label"] == "M") & (patients["logit"] < limit)).sum()


def test_a_patient_is_malignant_with_one_malignant_image():
    rows = pd.DataFrame({"group": list("aab"), "label": list("BMB"), "logit": [1.0, 3.0, -1.0]})
    found = by_patient(rows).set_index("group")
    assert found["label"].tolist() == ["M", "B"] and found["logit"].tolist() == [2, -1]
    assert by_patient(rows, "highest")["logit"].tolist() == [3, -1]
    assert found["images"].tolist() == [2, 1]


@pytest.mark.parametrize("level", [0.04, 0.1, 0.3])
@pytest.mark.parametrize("ties", [False, True])
def test_the_limit_is_the_highest_cut_that_keeps_the_level(level, ties):
    patients = by_patient(study(np.random.default_rng(1), 40))
    if ties:
        patients["logit"] = patients["logit"].round()
    chosen, n = choose_referral(patients, level), len(patients)
    values = np.sort(patients["logit"].unique())
    kept = [cut for cut in values if (missed(patients, cut) + 1) / (n + 1) <= level + 1e-9]
    assert chosen.promised and chosen.limit == max(kept)


def test_too_few_patients_give_no_guarantee_and_the_required_number():
    patients = by_patient(study(np.random.default_rng(2), 30))
    chosen = choose_referral(patients, 0.02)
    assert not chosen.promised and chosen.limit == -np.inf
    assert (chosen.patients, chosen.needed) == (30, 49)
    assert choose_referral(pd.concat([patients] * 2), 0.02).promised
    assert [patients_needed(level) for level in (0.05, 0.01, 0.1)] == [19, 99, 9]


def test_at_another_prevalence_only_malignant_patients_count():
    """Where 20 % are malignant, 5 % of all are a quarter of the malignant ones: three suffice."""
    patients = by_patient(study(np.random.default_rng(3), 60))
    malignant = patients[patients["label"] == "M"]
    chosen, n = choose_referral(patients, 0.05, prevalence=0.2), len(malignant)
    kept = [k for k in range(n) if (k + 1) / (n + 1) <= 0.25]
    assert chosen.limit == np.sort(malignant["logit"])[max(kept)]
    assert (chosen.patients, chosen.needed) == (n, 3)
    # Where fewer are malignant than may be missed, nobody need be referred.
    assert choose_referral(patients, 0.05, prevalence=0.04).limit == np.inf


@pytest.mark.parametrize("level", [0.0, 1.0, 5])
def test_the_level_must_be_between_0_and_1(level):
    with pytest.raises(InputError, match="must be between 0 and 1"):
        choose_referral(by_patient(study(np.random.default_rng(4))), level)


def test_the_guarantee_holds_by_patient_and_fails_by_image():
    """12 patients with 30 images that are much alike: they are worth 12, not 360."""
    rng, level, kept, cheated = np.random.default_rng(5), 0.08, [], []
    for _ in range(150):
        rows, new = (study(rng, n, (30, 30), 0.95) for n in (12, 100))
        limit = choose_referral(by_patient(rows), level).limit
        patients = by_patient(new)
        kept.append(missed(patients, limit) / len(patients))
        alone = by_patient(rows.assign(group=rows["image_id"]))
        cheat = choose_referral(alone, level).limit
        cheated.append(missed(new, cheat) / len(new))
    errors = [np.std(each) / np.sqrt(len(each)) for each in (kept, cheated)]
    assert np.mean(kept) <= level + 2 * errors[0]
    assert np.mean(cheated) > level + 2 * errors[1]


def test_each_fold_uses_the_limit_of_the_other_folds():
    patients = by_patient(study(np.random.default_rng(6), 60))
    found = referred_out_of_fold(patients, 0.1)
    for fold in range(5):
        limit = choose_referral(patients[patients["fold"] != fold], 0.1).limit
        here = patients["fold"] == fold
        assert (found["referred"] == (patients["logit"] >= limit))[here].all()


def test_the_outcome_matches_a_hand_calculation():
    """Of 10 malignant patients 8 are referred, of 30 benign ones 12."""
    labels = ["M"] * 10 + ["B"] * 30
    referred = [True] * 8 + [False] * 2 + [True] * 12 + [False] * 18
    patients = pd.DataFrame({"label": labels, "referred": referred, "group": range(40)})
    patients["logit"] = np.where(patients["referred"], 1.0, -1.0)
    found = outcome(patients)
    assert (found["found"], found["spared"], found["referred"]) == pytest.approx((0.8, 0.6, 0.5))
    assert found["missed"] == pytest.approx(2 / 40)
    assert found["malignant_unreferred"] == pytest.approx(2 / 20)
    for name in ("found", "spared", "missed", "malignant_unreferred"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    rarer = outcome(patients, 0.1)
    assert rarer["missed"] == pytest.approx(0.1 * 0.2)
    assert rarer["malignant_unreferred"] == pytest.approx(0.02 / (0.02 + 0.9 * 0.6))


@pytest.mark.parametrize("prevalence", [np.nan, 0.2])
def test_the_curve_passes_through_the_chosen_limit(prevalence):
    patients = by_patient(study(np.random.default_rng(7), 50))
    curve = referral_curve(patients, prevalence)
    chosen = choose_referral(patients, 0.1, prevalence)
    assert chosen.limit == curve.loc[curve["bound"] <= 0.1 + 1e-9, "limit"].max() or (
        # Between two malignant patients the bound does not change.
        curve.loc[curve["limit"] >= chosen.limit, "bound"].iloc[0] <= 0.1
    )
    assert curve["bound"].is_monotonic_increasing and curve["referred"].is_monotonic_decreasing
    assert curve["referred"].iloc[0] == 1 and curve["missed"].iloc[0] == 0
    assert curve["referred"].iloc[-1] == pytest.approx(0)
