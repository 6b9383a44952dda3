"""The solutions of the exercises run, and find what their notebooks say that they find."""

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from cytology.data import augmentation
from cytology.data.augmentation import pictures_of
from cytology.networks.features import Features
from cytology.networks.linear_head import fitted_head
from cytology.settings import PROJECT_ROOT

SOLUTION = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)```", re.DOTALL)


def solution(number):
    """The code of the only solution of a notebook."""
    (path,) = (PROJECT_ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (found,) = SOLUTION.findall("\n".join(c.source for c in cells if c.cell_type == "markdown"))
    assert any("# Your turn." in cell.source for cell in cells if cell.cell_type == "code")
    return found


def solved(number, **given):
    """The variables after a solution, which starts with the given variables of the notebook."""
    exec(solution(number), given)
    return given


@pytest.fixture(scope="module")
def toy():
    """Arrays as in the training notebooks: 100 images, 40 features of which two know the class."""
    rng = np.random.default_rng(0)
    malignant = np.arange(100) % 2 == 1
    values = rng.normal(size=(100, 40)) + 1.5 * malignant[:, None] * (np.arange(40) < 2)
    fold_of = np.arange(100) // 2 % 5
    score = np.empty(100)
    for fold in range(5):
        head = fitted_head(values[fold_of != fold], malignant[fold_of != fold])
        score[fold_of == fold] = head.logits(values[fold_of == fold])
    return {"np": np, "X": values, "malignant": malignant, "fold_of": fold_of, "score": score}


def test_01_unequal_patients_count_as_fewer(capsys):
    counts = {"B": [10] * 10, "M": [91] + [1] * 9}
    rows = [
        (label, f"{label}{k}")
        for label in "BM"
        for k, n in enumerate(counts[label])
        for _ in range(n)
    ]
    solved("01", manifest=pd.DataFrame(rows, columns=["label", "group"]))
    assert capsys.readouterr().out == "B: 10 groups, worth 10.0\nM: 10 groups, worth 1.2\n"


def test_02_a_quarter_turn_swaps_height_and_width():
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3))
    turned = solved("02", np=np, augmentation=augmentation, pixels=pixels)["quarter_turn"](pixels)
    assert turned.shape == (6, 4, 3)


def test_03_the_auc_is_a_share_of_pairs(capsys):
    scores = pd.DataFrame({"label": list("MBBMB"), "fold": [0, 0, 0, 0, 1]})
    solved("03", scores=scores.assign(logit=[2.0, 1.0, 3.0, 4.0, 9.0]))
    assert capsys.readouterr().out == "fold 0: AUC 0.750\n"


def test_04_scikit_learn_trains_our_head(toy):
    assert np.corrcoef(solved("04", **toy)["mine"], toy["score"])[0, 1] > 0.999


def test_05_neighbours_predict_less_well_than_a_head(toy):
    called = solved("05", **toy)["called"]
    accuracy = ((toy["score"] >= 0) == toy["malignant"]).mean()
    assert 0.5 < (called == toy["malignant"]).mean() < accuracy


def test_06_features_selected_before_the_folds_find_a_signal_in_noise(toy):
    noise = np.random.default_rng(1).normal(size=(100, 1000))
    found = solved("06", **toy | {"X": noise})
    assert found["before"] > 0.75 > 0.65 > found["within"]


def test_07_holms_correction_matches_a_hand_calculation(capsys):
    found = [0.03, 0.01, 0.5]
    corrected = multipletests(found, method="holm")[1]
    solved("07", by_image=pd.DataFrame({"p": found, "p_holm": corrected}), pd=pd)
    rows = re.findall(r"^\d +(\S+) +(\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 3 and all(mine == theirs for mine, theirs in rows)


def test_08_few_alarms_are_right_at_a_low_prevalence(capsys):
    row = {"judged_on": "test", "recall": 0.9, "specificity": 0.9}
    solved("08", thresholds=pd.DataFrame([row]), on="test")
    assert re.findall(r": (\S+) of", capsys.readouterr().out) == ["0.08", "0.50", "0.90"]


def test_09_counts_the_answers_that_another_threshold_changes(capsys):
    usable = pd.DataFrame({"calibrated_probability": [0.2, 0.5, 0.9], "predicted": ["M", "M", "M"]})
    solved("09", usable=usable)
    assert capsys.readouterr().out == "1 of 3\n"


def test_10_patients_are_recognized_only_if_they_cross(capsys):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    images = pd.DataFrame({"group": groups, "label": np.where(groups % 2, "M", "B")})
    images["image_id"] = [f"{k}.png" for k in images.index]
    values = rng.normal(size=(30, 60))[groups] + 0.3 * rng.normal(size=(120, 60))
    index = pd.MultiIndex.from_frame(pictures_of(images, 1)[["image_id", "orientation"]])
    solved("10", names=["x"], features={"x": Features(values, index)}, images=images)
    crossing, apart = map(float, re.findall(r"AUC (\S+)", capsys.readouterr().out))
    assert crossing > 0.95 and apart < 0.7


def test_11_patients_give_the_wider_interval(capsys):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 4)
    images = pd.DataFrame({"image_id": [f"{k}.png" for k in range(48)], "group": group})
    images = images.assign(architecture="x", strength=0, shift="none", logit=rng.normal(size=48))
    flips = group % 3 == 0  # whole patients
    shifted = images.assign(strength=3, shift="stain")
    shifted["logit"] *= np.where(flips, -1, 1)
    pictures = pd.concat([images, shifted.sample(frac=1, random_state=0)])
    solved("11", pictures=pictures, names=["x"], reference_strength=3, pd=pd)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["0.33 of 12 units", "0.33 of 48 units"]
    wide, narrow = (np.ptp([float(x) for x in line.split(": ")[1].split(" to ")]) for line in lines)
    assert wide > 1.4 * narrow


def test_12_the_logit_falls_where_its_cell_is_covered():
    picture = np.zeros((70, 70, 3), np.uint8)
    picture[20:30, 40:50] = 200

    def logits(pictures):
        return pictures[:, 20:30, 40:50].mean(axis=(1, 2, 3))

    fall = solved("12", picture=picture, logits=logits)["fall"]
    assert np.argwhere(fall).tolist() == [[2, 4]] and fall[2, 4] == 200


def test_13_a_scale_per_channel_loses_less(capsys):
    weights = np.random.default_rng(0).normal(size=(1, 1, 50, 4)) * [0.01, 0.1, 1, 0]

    class Model:
        def get_weights(self):
            return [np.ones(3), weights]

    solved("13", models={"x": Model()}, names=["x"])
    one, several = map(float, re.findall(r"error (\S+)", capsys.readouterr().out))
    assert several < one / 2


def test_14_the_square_root_rule_and_the_plan_are_compared(capsys):
    row = {"groups": 30, "width": 0.2, "wanted_width": 0.05, "groups_for_width": 300.0}
    solved("14", widths=pd.DataFrame([row]))
    assert capsys.readouterr().out == "by the rule 480, by the plan 300\n"
