"""Whole groups into parts and folds, and the checks that nothing crosses."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.model_selection import StratifiedGroupKFold

from cytology.data.augmentation import pictures_of
from cytology.data.manifest import independent_groups
from cytology.data.pictures import write_split
from cytology.data.splitting import (
    assert_no_leak,
    counts_by_split,
    fingerprint,
    group_folds,
    inner_group_split,
    judged_pictures,
    leak_report,
    read_split,
    split_by_group,
    split_facts,
    split_pictures_at_random,
    training_pictures,
)
from cytology.settings import InputError


def table_of(*sizes_and_labels):
    """A manifest with a group for each (number of images, label)."""
    rows = [
        (f"g{g}/{i}.png", f"g{g}", label)
        for g, (size, label) in enumerate(sizes_and_labels)
        for i in range(size)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "group", "label"])
    return table.assign(sha256=table["image_id"])


@pytest.fixture
def split(manifest):
    return split_by_group(manifest, 5, 0.15, 0.15, seed=0)


@pytest.fixture
def leaking(manifest):
    return split_pictures_at_random(manifest, 8, 5, 0.15, 0.15, seed=0)


# -------------------------------------------------------------- the honest split


@pytest.mark.parametrize("seed", range(5))
def test_each_group_is_in_one_part_and_one_fold(manifest, seed):
    split = split_by_group(manifest, 5, 0.15, 0.15, seed)
    assert set(split["image_id"]) == set(manifest["image_id"]) and len(split) == len(manifest)
    assert (split.groupby("group")["split"].nunique() == 1).all()
    held = split[split["split"] != "test"]
    assert (held.groupby("group")["fold"].nunique() == 1).all()
    assert sorted(held["fold"].unique()) == [0, 1, 2, 3, 4]
    assert split.loc[split["split"] == "test", "fold"].isna().all()
    assert_no_leak(split, manifest)
    leak = leak_report(split, manifest)
    assert (leak.pop("groups"), leak.pop("test_images")) == (30, (split["split"] == "test").sum())
    assert set(leak) == {
        "test_images_with_copy_in_training",
        "test_images_with_group_in_training",
        "groups_in_several_splits",
        "patients_in_several_splits",
        "slides_in_several_splits",
        "identical_files_in_several_splits",
        "families_of_copies_in_several_splits",
    }
    assert set(leak.values()) == {0}


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.15), (0.2, 0.1), (0.1, 0.3)])
def test_parts_have_the_requested_shares_and_similar_class_proportions(manifest, val, test):
    split = split_by_group(manifest, 5, val, test, seed=1)
    shares = split["split"].value_counts(normalize=True)
    assert shares["val"] == pytest.approx(val, abs=0.07)
    assert shares["test"] == pytest.approx(test, abs=0.07)
    malignant = (split["label"] == "M").mean()
    for part in ("train", "val", "test"):
        rows = split[split["split"] == part]
        assert (rows["label"] == "M").mean() == pytest.approx(malignant, abs=0.2)


def test_the_split_depends_only_on_the_seed(manifest, split):
    pd.testing.assert_frame_equal(split_by_group(manifest, 5, 0.15, 0.15, seed=0), split)
    other = split_by_group(manifest, 5, 0.15, 0.15, seed=1)
    assert fingerprint(other) != fingerprint(split)
    assert fingerprint(split.sample(frac=1, random_state=0)) == fingerprint(split)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_small_and_unequal_data_are_split_or_refused():
    """Any group sizes give an honest split that allows training, or an error message."""
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
        assert (split.groupby("group")[["split", "fold"]].nunique() <= 1).all(axis=None)
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
            "The split needs at least 7 groups (5 folds",
        ),
        (table_of(*[(3, "B")] * 9, *[(3, "M")] * 3), 5, "Class M has 3 groups;"),
        (
            table_of(*[(1, "B"), (1, "M")] * 4),
            6,
            "Parameter `folds` is 6; these images allow at most 3",
        ),
    ],
    ids=["groups", "groups of a class", "folds"],
)
def test_fewer_groups_than_the_split_needs_are_refused(manifest, folds, part):
    with pytest.raises(InputError) as error:
        split_by_group(manifest, folds, 0.15, 0.15, seed=0)
    assert part in str(error.value)


# ---------------------------------------------------------- the original protocol


def test_the_original_protocol_leaks_and_the_report_counts_it(manifest, leaking):
    assert len(leaking) == 8 * len(manifest)
    assert not leaking.duplicated(["image_id", "orientation"]).any()
    leak = leak_report(leaking, manifest)
    images = {part: set(rows["image_id"]) for part, rows in leaking.groupby("split")}
    crossing = len(images["test"] & images["train"])
    assert leak["test_images_with_copy_in_training"] == crossing > 0.9 * leak["test_images"]
    assert leak["groups_in_several_splits"] > 25
    shares = leaking["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.15, abs=0.01)
    assert shares["val"] == pytest.approx(0.15, abs=0.01)


def test_under_the_original_protocol_a_row_is_a_picture(split, leaking):
    assert training_pictures(leaking, 8) is leaking and judged_pictures(leaking) is leaking
    assert len(training_pictures(split, 4)) == 4 * len(split)
    judged = judged_pictures(split)
    assert len(judged) == len(split) and (judged["orientation"] == 0).all()


def test_the_images_and_groups_of_each_part_are_counted(split):
    counts = counts_by_split(split)
    for part, rows in split.groupby("split"):
        assert counts[part]["images"] == len(rows) == counts[part]["B"] + counts[part]["M"]
        assert counts[part]["groups"] == rows["group"].nunique()


# ---------------------------------------------------------------- early stopping


def test_early_stopping_uses_whole_groups_of_both_classes(split):
    rows = split[split["split"] == "train"]
    stop = inner_group_split(rows, seed=0)
    assert not set(rows["group"][stop]) & set(rows["group"][~stop])
    assert rows["label"][stop].nunique() == rows["label"][~stop].nunique() == 2
    assert 0.1 < stop.mean() < 0.35


def test_under_the_original_protocol_early_stopping_draws_pictures(leaking):
    rows = leaking[leaking["split"] == "train"]
    stop = inner_group_split(rows, seed=0)
    assert set(rows["group"][stop]) & set(rows["group"][~stop])
    assert stop.mean() == pytest.approx(0.2, abs=0.01)


# ----------------------------------------------------------------- the leak guard


def four_images(column, value):
    """A manifest and a split of four images; those in train and test share `value`."""
    manifest = pd.DataFrame({"image_id": list("abcd"), "label": list("BMBM")})
    manifest = manifest.assign(patient="", slide="")
    for name in ("group", "sha256", "family"):
        manifest[name] = manifest["image_id"]
    manifest.loc[[0, 3], column] = value
    split = manifest[["image_id", "group", "label"]].assign(split=["train", "train", "val", "test"])
    return manifest, split.assign(fold=pd.array([0, 0, 1, None], "Int64"))


CROSSING = [
    ("group", "groups"),
    ("patient", "patients"),
    ("slide", "slides"),
    ("sha256", "identical files"),
    ("family", "families of copies"),
]


@pytest.mark.parametrize(("column", "name"), CROSSING)
def test_every_kind_of_crossing_is_counted_and_refused_by_name(column, name):
    manifest, split = four_images(column, "x")
    leak = leak_report(split, manifest)
    counted = {what: number for what, number in leak.items() if what.endswith("several_splits")}
    expected = dict.fromkeys(counted, 0) | {f"{name.replace(' ', '_')}_in_several_splits": 1}
    assert counted == expected
    assert leak["test_images_with_copy_in_training"] == (column == "family")
    assert leak["test_images_with_group_in_training"] == (column == "group")
    with pytest.raises(InputError, match=f"In split.csv 1 {name} cross, the first is '.?x': run"):
        assert_no_leak(split, manifest)


@pytest.mark.parametrize(("column", "name"), CROSSING)
def test_folds_are_checked_like_parts(column, name):
    manifest, split = four_images(column, "x")
    split["split"] = ["train", "train", "val", "train"]
    split["fold"] = pd.array([0, 0, 1, 1], "Int64")
    assert leak_report(split, manifest)[f"{name.replace(' ', '_')}_in_several_splits"] == 0
    with pytest.raises(InputError, match=f"In split.csv 1 {name} cross"):
        assert_no_leak(split, manifest)
    assert_no_leak(split.assign(fold=pd.array([0, 0, 1, 0], "Int64")), manifest)


def test_equal_slide_names_of_two_patients_and_unknown_patients_are_not_a_leak():
    manifest, split = four_images("slide", "1")
    manifest["patient"] = ["p", "", "", "q"]
    assert_no_leak(split, manifest)
    manifest["patient"] = ["p", "", "", "p"]
    with pytest.raises(InputError, match="1 patients cross, the first is 'p'"):
        assert_no_leak(split, manifest)
    manifest, split = four_images("patient", "")
    assert_no_leak(split, manifest)
    assert leak_report(split, manifest)["patients_in_several_splits"] == 0


def test_groups_are_checked_against_the_manifest_and_not_the_split():
    manifest, split = four_images("group", "x")
    split["group"] = split["image_id"]
    with pytest.raises(InputError, match="1 groups cross, the first is 'x'"):
        assert_no_leak(split, manifest)


def test_test_images_with_a_copy_in_training_are_counted_but_not_in_val():
    manifest, split = four_images("family", "x")
    split["split"] = ["val", "train", "val", "test"]
    leak = leak_report(split, manifest)
    assert leak["test_images_with_copy_in_training"] == 0
    assert leak["families_of_copies_in_several_splits"] == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_split_of_images_with_copies_and_slides_never_leaks(seed):
    rng = np.random.default_rng(seed)
    images = 160
    known = rng.random(images) < 0.7
    patient = np.where(known, rng.integers(0, 40, images).astype(str), "")
    slide = np.where(rng.random(images) < 0.5, "s" + patient.astype(object), "")
    names = pd.Series([f"{n:03}" for n in range(images)])
    original = np.where(rng.random(images) < 0.1, rng.integers(0, images, images), range(images))
    manifest = pd.DataFrame(
        {"image_id": names, "label": rng.choice(["B", "M"], images), "patient": patient}
    ).assign(slide=slide, family=names[original].to_numpy())
    manifest["sha256"] = manifest["family"]
    manifest["group"] = independent_groups(manifest)
    assert 20 < manifest["group"].nunique() < 80
    split = split_by_group(manifest, 4, 0.15, 0.15, seed)
    assert_no_leak(split, manifest)
    leak = leak_report(split, manifest)
    assert not any(number for what, number in leak.items() if what.endswith("several_splits"))
    assert leak["test_images_with_copy_in_training"] == 0


# -------------------------------------------------------------- reading it again


def test_the_written_split_is_read_unchanged(run):
    split = read_split(run)
    assert split["fold"].dtype == "Int64"
    assert_no_leak(split, run.table("manifest.csv"))


def tamper(run, column, value, also_group):
    """Change one image of a train group, and its group too if it should hide that."""
    split = run.table("split.csv")
    train = split[(split["split"] == "train") & split["group"].duplicated(keep=False)]
    row = train.index[0]
    split.loc[row, column] = value(split.loc[row, column])
    if also_group:
        split.loc[row, "group"] = "hidden"
    run.write("split.csv", split.astype({"fold": "Int64"}))
    return train["group"].iloc[0]


@pytest.mark.parametrize("also_group", [False, True], ids=["plain", "hidden"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("split", lambda _: "test"),
        ("split", lambda _: "val"),
        ("fold", lambda fold: (fold + 1) % 3),
    ],
    ids=["into test", "into val", "another fold"],
)
def test_a_split_in_which_a_group_crosses_is_refused(run, column, value, also_group):
    group = tamper(run, column, value, also_group)
    with pytest.raises(InputError, match=f"1 groups cross, the first is '{group}'"):
        read_split(run)


def test_a_deliberate_leak_is_read_if_it_is_reported_correctly(run):
    tamper(run, "split", lambda _: "test", False)
    split, manifest = run.table("split.csv"), run.table("manifest.csv")
    about = split_facts(split, manifest, "original", "patient", seed=0)
    run.write("split.json", about)
    assert len(read_split(run)) == len(split)
    leak = about["leak"] | {"groups_in_several_splits": 0}
    run.write("split.json", about | {"leak": leak})
    with pytest.raises(InputError, match="split.json does not report what leaks in split.csv"):
        read_split(run)


def test_the_split_of_the_original_protocol_is_read_unchanged(run, manifest):
    leaking = split_pictures_at_random(manifest, 4, 3, 0.2, 0.2, seed=0)
    run.write("split.csv", leaking)
    about = split_facts(leaking, manifest, "original", "patient", seed=0)
    assert about["leak"]["groups_in_several_splits"] > 20
    assert about["fingerprint"] == fingerprint(leaking) and about["seed"] == 0
    run.write("split.json", about)
    pd.testing.assert_frame_equal(read_split(run), leaking)
    run.write("split.json", about | {"protocol": "grouped"})
    with pytest.raises(InputError, match="run notebook 03 again"):
        read_split(run)


def test_a_split_of_other_images_is_refused(run):
    run.write("manifest.csv", run.table("manifest.csv").iloc[1:])
    with pytest.raises(InputError, match="differ in their images or labels: run notebook 03"):
        read_split(run)


@pytest.mark.parametrize("column", ["label", "sha256"])
def test_a_split_with_another_label_or_file_content_is_refused(run, column):
    manifest = run.table("manifest.csv")
    manifest[column] = manifest[column].replace({"B": "M", "M": "B", "0" * 64: "f" * 64})
    run.write("manifest.csv", manifest)
    with pytest.raises(InputError, match="differ in their images or labels"):
        read_split(run)


def test_the_split_is_also_written_as_text_files(tmp_path, smear_folder):
    root = smear_folder(tmp_path / "data", patients=12, images=1)
    rows = [(p.relative_to(root).as_posix(), p.stem, p.parent.name) for p in root.rglob("*.png")]
    images = pd.DataFrame(rows, columns=["image_id", "group", "label"])
    images["sha256"] = images["image_id"]
    split = split_by_group(images, 3, 0.2, 0.2, seed=0)
    train = split[split["split"] == "train"]
    pictures = pd.concat([pictures_of(train, 4), judged_pictures(split.drop(train.index))])
    written = write_split(pictures, root, tmp_path / "split_data")
    for part, count in split["split"].value_counts().items():
        files = list((tmp_path / "split_data" / part).rglob("*.png"))
        assert len(files) == written[part] == count * (4 if part == "train" else 1)


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="scikit-learn's own shuffling loses the strata before 1.8",
)
@pytest.mark.parametrize("seed", range(5))
def test_folds_match_scikit_learn(manifest, seed):
    labels, groups = manifest["label"], manifest["group"]
    theirs = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for ours, (_, held_out) in zip(
        group_folds(5, seed, labels, groups), theirs.split(manifest, labels, groups), strict=True
    ):
        np.testing.assert_array_equal(ours, held_out)


def test_folds_hold_whole_groups_of_both_labels(manifest):
    for seed in range(20):
        folds = group_folds(3, seed, manifest["label"], manifest["group"])
        assert sorted(np.concatenate(folds)) == list(range(len(manifest)))
        held = [manifest.iloc[fold] for fold in folds]
        assert sum(part["group"].nunique() for part in held) == manifest["group"].nunique()
        assert all(0.3 < (part["label"] == "M").mean() < 0.7 for part in held)
