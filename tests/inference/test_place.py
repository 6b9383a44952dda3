"""New images of a place: their malignant share, and what recalibration would gain."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from cytology.evaluation import operating_points
from cytology.inference import place
from cytology.inference.locked import Decision

DECISION = Decision("half", "out-of-fold", 0.0, 2.0, 0.5)


def answers(share, groups=40, images=3, moved=0.0, seed=0):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), images)
    malignant = group < share * groups
    score = np.where(malignant, 1.0, -1.0) + rng.normal(size=len(group)) + moved
    table = pd.DataFrame({"image_id": [f"{k}.png" for k in range(len(group))], "logit": score})
    label = np.where(malignant, "M", "B")
    return table.assign(label=label, group=[f"p{k}" for k in group], reason="")


def test_the_share_of_new_images_is_within_its_interval_and_broken_files_do_not_count(run_once):
    found, new, known = place.share_of_new_images(run_once, "mobilenetv2", answers(0.25))
    assert found["prevalence_low"] <= 0.25 <= found["prevalence_high"] and not found["moved"]
    assert len(known) == len(operating_points.predictions_to_choose_on(run_once, "mobilenetv2")[1])
    table = answers(0.25)
    table.loc[:5, "reason"] = "not an image"
    assert place.share_of_new_images(run_once, "mobilenetv2", table)[0]["images"] == len(new) - 6


def test_shifted_logits_give_no_share(run_once):
    found, *_ = place.share_of_new_images(run_once, "mobilenetv2", answers(0.25, moved=-6.0))
    assert found["moved"]
    (said,) = place.place_sentences(found, "patient", "imagenet")
    assert "not a mixture" in said
    assert "No pretrained weights" in place.place_sentences(found, "patient", "random")[0]


def test_both_tables_undo_the_shift_by_class_weights(run_once):
    _, new, known = place.share_of_new_images(run_once, "mobilenetv2", answers(0.25))
    split = run_once.table("split.csv")
    train = split[split["split"] == "train"]
    shift = logit((train["label"] == "M").mean())
    np.testing.assert_allclose(new["logit"], answers(0.25)["logit"] + shift)
    rows = operating_points.predictions_to_choose_on(run_once, "mobilenetv2")[1]
    np.testing.assert_allclose(known["logit"], rows["logit"] + rows["class_shift"])


def test_images_of_unknown_patients_count_individually_at_a_new_site():
    table = answers(0.5).assign(group="")
    assert place.with_groups(table)["group"].nunique() == len(table)


def test_labelled_images_are_calibrated_and_evaluated():
    table = answers(0.5)
    table.loc[0, "label"] = ""
    rows = place.labelled(table, DECISION)
    assert len(rows) == len(table) - 1
    np.testing.assert_allclose(rows["logit"], 0.5 + 2 * table["logit"][1:])
    gain, said = place.recalibration_there(rows, "patient")
    assert gain["way"].tolist()[0] == "as it is" and len(said) == 2
    assert said[0].startswith("At the new place (119 labelled images of 40 patients)")
    assert gain["groups"].iloc[0] == pytest.approx(40)
