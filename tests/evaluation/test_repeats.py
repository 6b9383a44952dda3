"""The grid: groups are kept apart, test is the fold held out, the spread is read by image."""

import shutil

import pandas as pd
import pytest

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.data.splitting import read_split, split_facts
from cytology.evaluation import seed_spread
from cytology.evaluation.repeats import (
    GridPoint,
    check_split,
    grid_points,
    is_done,
    make_run,
    points_in,
    split_of,
)
from cytology.settings import InputError

FOLDS = 3


def folds_of(run):
    return [GridPoint(0, fold) for fold in range(FOLDS)]


@pytest.fixture
def run(run):
    """The run folder of conftest, with the files of notebooks 01 and 02."""
    run.write("dataset.json", {"data": "sample", "root": str(run)})
    run.write("augmentation.json", {"image_size": 75, "fit": "pad", "orientations": 4})
    return run


def train(run, point):
    """The files of notebooks 04 to 06 in a point, with the logits of the run."""
    of_point = point.in_run(run)
    split = read_split(of_point)
    for name in ARCHITECTURE_NAMES:
        rows = run.table(f"{name}/predictions.csv")
        if point.fold is not None:
            later = split.loc[split["split"] != "train", "image_id"]
            rows = rows[(rows["model"] == "oof") & rows["image_id"].isin(later)]
            part = split.set_index("image_id")["split"]
            rows = rows.assign(model="final", split=rows["image_id"].map(part))
        of_point.write(f"{name}/predictions.csv", rows)
        about = run.facts(f"{name}/metrics.json") | {"seed": point.seed}
        about |= {"split": of_point.facts("split.json")["fingerprint"]}
        of_point.write(f"{name}/metrics.json", about)
        of_point.write(f"{name}/timing.json", {})


# ------------------------------------------------------------------------ making


def test_the_run_itself_is_the_first_seed_unless_folds_are_held_out():
    assert [point.name for point in grid_points(3, 3, None)] == ["seed4", "seed5"]
    assert [point.name for point in grid_points(0, 1, None)] == []
    assert [point.name for point in grid_points(0, 2, 2)] == [
        *("seed0-fold0", "seed0-fold1", "seed1-fold0", "seed1-fold1")
    ]


def test_another_seed_uses_the_split_of_the_run(run):
    make_run(run, GridPoint(7))
    found = read_split(GridPoint(7).in_run(run))
    pd.testing.assert_frame_equal(found, read_split(run))


def test_the_held_out_fold_is_the_test_part_and_the_test_images_of_the_run_are_unused(run):
    whole, judged = read_split(run), []
    for point in folds_of(run):
        make_run(run, point)
        split = read_split(point.in_run(run))  # checks that no group and no copy crosses
        test = split[split["split"] == "test"]
        expected = whole[whole["fold"] == point.fold]
        assert sorted(test["image_id"]) == sorted(expected["image_id"])
        assert test["fold"].isna().all()
        assert set(split["image_id"]) == set(whole.loc[whole["split"] != "test", "image_id"])
        parts = split.groupby("group")["split"].nunique()
        assert parts.max() == 1 and set(split["split"]) == {"train", "val", "test"}
        assert set(split.loc[split["split"] == "val", "label"]) == {"B", "M"}
        dataset = point.in_run(run).facts("dataset.json")
        assert dataset["images"] == len(split) == dataset["benign"] + dataset["malignant"]
        assert point.in_run(run).facts("augmentation.json")["orientations"] == 4
        judged += list(test["image_id"])
    held = whole[whole["split"] != "test"]
    assert sorted(judged) == sorted(held["image_id"])  # each exactly once


def test_all_seeds_of_a_fold_share_one_split(run):
    make_run(run, GridPoint(0, 1))
    make_run(run, GridPoint(5, 1))
    one, other = (GridPoint(s, 1).in_run(run).facts("split.json")["fingerprint"] for s in (0, 5))
    assert one == other


def test_a_missing_fold_is_refused(run):
    with pytest.raises(InputError, match="no fold 17: run notebook 03 again"):
        split_of(read_split(run), GridPoint(0, 17), 0)


def test_training_uses_only_the_split_of_its_folder(run):
    point = GridPoint(0, 1)
    make_run(run, point)
    assert not is_done(run, point, "mobilenetv2")
    train(run, point)
    assert is_done(run, point, "mobilenetv2")
    shutil.copy(run / "split.json", point.folder(run.folder))  # another fingerprint
    assert not is_done(run, point, "mobilenetv2")


# ----------------------------------------------------------------------- reading


def test_without_a_grid_there_is_no_spread_of_seeds(run):
    table = seed_spread.metrics_by_seed(run)
    assert table.empty and seed_spread.seed_sentences(table, "patient") == []


def test_seeds_of_one_split_are_listed_with_the_run(run):
    for seed in (1, 2):
        make_run(run, GridPoint(seed))
        train(run, GridPoint(seed))
    assert points_in(run) == [GridPoint(1), GridPoint(2)]
    table = seed_spread.metrics_by_seed(run)
    assert table.groupby("architecture")["seed"].apply(list).to_dict() == {
        name: [0, 1, 2] for name in ARCHITECTURE_NAMES
    }
    assert (table.groupby("architecture")["auc"].nunique() == 1).all()  # the same predictions
    words = " ".join(seed_spread.seed_sentences(table, "patient"))
    assert "over 3 seeds (standard deviation 0.000); for seed 0 the interval by patient" in words
    assert "All 3 seeds put the networks into the same order" in words


def test_folds_are_evaluated_together_and_only_if_complete(run):
    for point in folds_of(run):
        make_run(run, point)
        if point.fold:
            train(run, point)
    assert seed_spread.metrics_by_seed(run).empty
    train(run, GridPoint(0, 0))
    table = seed_spread.metrics_by_seed(run).set_index("architecture")
    whole = read_split(run)
    held = whole[whole["split"] != "test"]
    assert (table["images"] == len(held)).all()
    assert (table["groups"] == held["group"].nunique()).all()
    assert set(table["judged_on"]) == {"out-of-fold, trained separately for each of 3 folds"}
    words = seed_spread.seed_sentences(table.reset_index(), "patient")
    assert (
        words[0].startswith("MobileNetV2 (out-of-fold, trained separately") and "1 seed" in words[0]
    )


def test_an_order_that_changes_with_the_seed_is_reported():
    rows = [("a", 0, 0.8), ("b", 0, 0.7), ("a", 1, 0.6), ("b", 1, 0.9)]
    table = pd.DataFrame(rows, columns=["architecture", "seed", "auc"])
    (sentence,) = seed_spread.about_order(table, "test")
    assert sentence.startswith("The order of the networks changes with the seed (test)")


def test_a_grid_point_with_another_split_is_refused(run):
    make_run(run, GridPoint(1))
    split = run.table("split.csv")
    split["fold"] = split["fold"].map({"0": 1, "1": 0, "2": 2, 0: 1, 1: 0, 2: 2}).astype("Int64")
    run.write("split.csv", split)
    with pytest.raises(InputError, match="split.csv is not the one that split.json describes"):
        check_split(run, GridPoint(1))
    about = split_facts(split, run.table("manifest.csv"), "grouped", "patient", seed=0)
    run.write("split.json", about)
    with pytest.raises(InputError, match="seed1 was trained on another split"):
        check_split(run, GridPoint(1))
