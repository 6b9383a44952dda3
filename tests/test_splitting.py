"""Whole groups into parts and folds, and the checks that nothing crosses."""

import numpy as np
import pandas as pd
import pytest

from cytology.augmentation import pictures_of
from cytology.settings import InputError
from cytology.splitting import (
    counts_by_split,
    fingerprint,
    inner_group_split,
    judged_pictures,
    leak_report,
    read_split,
    split_by_group,
    split_pictures_at_random,
    training_pictures,
    write_split,
)
from cytology.tables import read_table, write_json, write_table


def table_of(*sizes_and_labels):
    """A manifest with a group for each (number of images, label)."""
    rows = [
        (f"g{g}/{i}.png", f"g{g}", label)
        for g, (size, label) in enumerate(sizes_and_labels)
        for i in range(size)
    ]
    return pd.DataFrame(rows, columns=["image_id", "group", "label"])


@pytest.fixture
def split(manifest):
    return split_by_group(manifest, 5, 0.15, 0.15, seed=0)


@pytest.fixture
def leaking(manifest):
    return split_pictures_at_random(manifest, 8, 5, 0.15, 0.15, seed=0)


# -------------------------------------------------------------- the honest split


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_in_one_part_and_in_one_fold(manifest, seed):
    split = split_by_group(manifest, 5, 0.15, 0.15, seed)
    assert set(split["image_id"]) == set(manifest["image_id"]) and len(split) == len(manifest)
    assert (split.groupby("group")["split"].nunique() == 1).all()
    held = split[split["split"] != "test"]
    assert (held.groupby("group")["fold"].nunique() == 1).all()
    assert sorted(held["fold"].unique()) == [0, 1, 2, 3, 4]
    assert split.loc[split["split"] == "test", "fold"].isna().all()
    leak = leak_report(split)
    assert leak["test_images_with_copy_in_training"] == leak["groups_in_several_splits"] == 0
    assert leak["groups"] == 30 and leak["test_images"] == (split["split"] == "test").sum()


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.15), (0.2, 0.1), (0.1, 0.3)])
def test_the_shares_are_those_asked_for_and_labels_mix_alike(manifest, val, test):
    split = split_by_group(manifest, 5, val, test, seed=1)
    shares = split["split"].value_counts(normalize=True)
    assert shares["val"] == pytest.approx(val, abs=0.07)
    assert shares["test"] == pytest.approx(test, abs=0.07)
    malignant = (split["label"] == "M").mean()
    for part in ("train", "val", "test"):
        rows = split[split["split"] == part]
        assert (rows["label"] == "M").mean() == pytest.approx(malignant, abs=0.2)


def test_the_seed_decides_and_nothing_else(manifest, split):
    pd.testing.assert_frame_equal(split_by_group(manifest, 5, 0.15, 0.15, seed=0), split)
    other = split_by_group(manifest, 5, 0.15, 0.15, seed=1)
    assert fingerprint(other) != fingerprint(split)
    assert fingerprint(split.sample(frac=1, random_state=0)) == fingerprint(split)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_small_and_unequal_data_are_split_or_refused_in_words():
    """Whatever the sizes: an honest split that can be trained on, or a sentence."""
    done = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 6, rng.integers(6, 25))
        labels = np.where(rng.random(len(sizes)) < 0.4, "M", "B")
        manifest = table_of(*zip(sizes, labels, strict=True))
        share = rng.choice([0.05, 0.15, 0.3])
        try:
            split = split_by_group(manifest, int(rng.integers(2, 7)), 0.15, share, seed)
        except InputError:
            continue
        done += 1
        assert leak_report(split)["groups_in_several_splits"] == 0
        held = split[split["split"] != "test"]
        for fold in held["fold"].unique():
            others = held[held["fold"] != fold]
            stop = inner_group_split(others, seed)
            assert not set(others["group"][stop]) & set(others["group"][~stop])
            assert others["label"][~stop].nunique() == 2
    assert done > 20


@pytest.mark.parametrize(
    ("manifest", "folds", "part"),
    [
        (
            table_of(*[(3, "B"), (3, "M")] * 3),
            5,
            "6 groups are fewer than the split needs (5 folds",
        ),
        (table_of(*[(3, "B")] * 9, *[(3, "M")] * 3), 5, "Class M has 3 groups;"),
        (table_of(*[(1, "B"), (1, "M")] * 4), 6, "Parameter `folds` is 6; these images allow 3"),
    ],
    ids=["groups", "groups of a class", "folds"],
)
def test_fewer_groups_than_the_split_needs(manifest, folds, part):
    with pytest.raises(InputError) as error:
        split_by_group(manifest, folds, 0.15, 0.15, seed=0)
    assert part in str(error.value)


# ------------------------------------------------------------- the original's way


def test_the_originals_protocol_leaks_and_the_report_counts_it(manifest, leaking):
    assert len(leaking) == 8 * len(manifest)
    assert not leaking.duplicated(["image_id", "orientation"]).any()
    leak = leak_report(leaking)
    images = {part: set(rows["image_id"]) for part, rows in leaking.groupby("split")}
    crossing = len(images["test"] & images["train"])
    assert leak["test_images_with_copy_in_training"] == crossing > 0.9 * leak["test_images"]
    assert leak["groups_in_several_splits"] > 25
    shares = leaking["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.15, abs=0.01)
    assert shares["val"] == pytest.approx(0.15, abs=0.01)


def test_under_the_originals_protocol_a_row_is_a_picture(split, leaking):
    assert training_pictures(leaking, 8) is leaking and judged_pictures(leaking) is leaking
    assert len(training_pictures(split, 4)) == 4 * len(split)
    judged = judged_pictures(split)
    assert len(judged) == len(split) and (judged["orientation"] == 0).all()


def test_counts_of_each_part(split):
    counts = counts_by_split(split)
    for part, rows in split.groupby("split"):
        assert counts[part]["images"] == len(rows) == counts[part]["B"] + counts[part]["M"]
        assert counts[part]["groups"] == rows["group"].nunique()


# ---------------------------------------------------------------- early stopping


def test_early_stopping_looks_at_whole_groups_of_both_classes(split):
    rows = split[split["split"] == "train"]
    stop = inner_group_split(rows, seed=0)
    assert not set(rows["group"][stop]) & set(rows["group"][~stop])
    assert rows["label"][stop].nunique() == rows["label"][~stop].nunique() == 2
    assert 0.1 < stop.mean() < 0.35


def test_under_the_originals_protocol_early_stopping_draws_pictures(leaking):
    rows = leaking[leaking["split"] == "train"]
    stop = inner_group_split(rows, seed=0)
    assert set(rows["group"][stop]) & set(rows["group"][~stop])
    assert stop.mean() == pytest.approx(0.2, abs=0.01)


# -------------------------------------------------------------- reading it again


def test_the_written_split_comes_back(run):
    split = read_split(run)
    assert split["fold"].dtype == "Int64"
    assert leak_report(split)["groups_in_several_splits"] == 0


def tamper(run, column, value, also_group):
    """Change one image of a train group, and its group too if it should hide that."""
    split = read_table(run, "split.csv")
    train = split[(split["split"] == "train") & split["group"].duplicated(keep=False)]
    row = train.index[0]
    split.loc[row, column] = value(split.loc[row, column])
    if also_group:
        split.loc[row, "group"] = "hidden"
    write_table(run, "split.csv", split.astype({"fold": "Int64"}))
    return train["group"].iloc[0]


@pytest.mark.parametrize("also_group", [False, True], ids=["plain", "hidden"])
@pytest.mark.parametrize(
    ("column", "value"),
    [("split", lambda _: "test"), ("split", lambda _: "val"), ("fold", lambda fold: 2 - fold / 2)],
    ids=["into test", "into val", "another fold"],
)
def test_a_split_in_which_a_group_crosses_is_refused(run, column, value, also_group):
    group = tamper(run, column, value, also_group)
    with pytest.raises(InputError, match=f"lets 1 groups cross, the first '{group}'"):
        read_split(run)


def test_a_leak_that_was_asked_for_is_read(run):
    tamper(run, "split", lambda _: "test", False)
    write_json(run, "split.json", {"protocol": "original"})
    assert len(read_split(run))


def test_a_split_of_other_images_is_refused(run):
    write_table(run, "manifest.csv", read_table(run, "manifest.csv").iloc[1:])
    with pytest.raises(InputError, match="differ in their images or labels: run notebook 03"):
        read_split(run)


def test_a_split_with_another_label_is_refused(run):
    manifest = read_table(run, "manifest.csv")
    manifest["label"] = manifest["label"].replace({"B": "M", "M": "B"})
    write_table(run, "manifest.csv", manifest)
    with pytest.raises(InputError, match="differ in their images or labels"):
        read_split(run)


def test_the_split_is_written_as_files_too(tmp_path, smear_folder):
    root = smear_folder(tmp_path / "data", patients=12, images=1)
    rows = [(p.relative_to(root).as_posix(), p.stem, p.parent.name) for p in root.rglob("*.png")]
    images = pd.DataFrame(rows, columns=["image_id", "group", "label"])
    split = split_by_group(images, 3, 0.2, 0.2, seed=0)
    train = split[split["split"] == "train"]
    pictures = pd.concat([pictures_of(train, 4), judged_pictures(split.drop(train.index))])
    written = write_split(pictures, root, tmp_path / "split_data")
    for part, count in split["split"].value_counts().items():
        files = list((tmp_path / "split_data" / part).rglob("*.png"))
        assert len(files) == written[part] == count * (4 if part == "train" else 1)
