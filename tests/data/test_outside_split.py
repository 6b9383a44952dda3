"""A split from outside is read completely or refused, and used repaired or unchanged."""

import pandas as pd
import pytest
from refusals import refused

from cytology.data.manifest import independent_groups
from cytology.data.outside_split import read_given_split, split_from
from cytology.data.splitting import (
    assert_no_leak,
    fingerprint,
    leak_report,
    read_split,
    split_by_group,
    split_facts,
)
from cytology.evaluation.caveats import caveats, split_html
from cytology.run import GIVEN, GIVEN_LEAKS


def written(tmp_path, table):
    table.to_csv(tmp_path / "given.csv", index=False)
    return str(tmp_path / "given.csv")


@pytest.fixture
def split(manifest):
    return split_by_group(manifest, 4, 0.2, 0.2, seed=3)


@pytest.fixture
def table(split):
    """The parts of an honest split, as others write them."""
    words = {"train": "Training", "val": "valid", "test": "TEST set"}
    named = split["image_id"].str.split("/").str[-1]
    return pd.DataFrame({"image": named, "split": split["split"].map(words)})


def crossing(table, number=3):
    """The table with some images of groups with several images moved into test."""
    table = table.copy()
    group = table["image"].str.split("_").str[0]
    train = (table["split"] == "Training") & group.duplicated(keep=False)
    first = table[train & ~group.duplicated()].index[:number]
    table.loc[first, "split"] = "test"
    return table


# ---------------------------------------------------------------------- a table


def test_other_names_of_parts_and_files_are_understood(tmp_path, manifest, split, table):
    given = read_given_split(manifest, written(tmp_path, table.sample(frac=1, random_state=0)))
    assert given.images["split"].tolist() == split["split"].tolist()
    assert given.images["fold"].isna().all() and given.fingerprint == ""


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda t: t.rename(columns={"split": "part"}),
            "needs the columns image (or image_id) and",
        ),
        (lambda t: t.assign(split="training and test"), "row 2: the split is 'training and test'"),
        (lambda t: t.assign(split=""), "row 2: the split is ''; it must be train, val or test."),
        (lambda t: t.assign(orientation=0), "splits augmented pictures (protocol `original`)"),
        (lambda t: pd.concat([t, t.head(1)]), "names 'p000_0.png' twice"),
        (lambda t: t.assign(fold="one"), "the fold of 'p000_0.png' is 'one'; in train and val it"),
        (lambda t: t.iloc[2:], "2 images of this run are not in it ('B/p000_0.png', 'M/p001_0"),
        (
            lambda t: pd.concat([t, t.tail(5).assign(image=list("abcde"))]),
            "5 images in it are not in this run ('a', 'b', 'c' and 2 more). Use the same images",
        ),
        (lambda t: t.assign(sha256="x"), "images have changed ('B/p000_0.png', 'B/p002_0.png'"),
    ],
)
def test_a_table_of_other_images_is_refused_in_one_sentence(
    tmp_path, manifest, table, change, part
):
    manifest = manifest.sort_values("image_id", ignore_index=True)
    table = table.sort_values("image", ignore_index=True)
    said = refused(read_given_split, manifest, written(tmp_path, change(table)))
    assert part in said and len(said.splitlines()) == 1


def test_a_missing_split_file_or_folder_is_reported(tmp_path, manifest):
    assert "There is no file" in refused(read_given_split, manifest, str(tmp_path / "none.csv"))
    assert "not in folders named train and test" in refused(read_given_split, manifest, "folders")
    assert read_given_split(manifest, "") is None


def test_folders_are_read_as_a_split(manifest, split):
    named = manifest.assign(image_id=split["split"] + "/" + manifest["image_id"])
    for word in ("", "folders"):
        given = read_given_split(named, word)
        assert given.images["split"].tolist() == split["split"].tolist()
    named.loc[0, "image_id"] = "elsewhere/B/p000_0.png"
    said = refused(split_from, read_given_split(named, "folders"), "grouped", 4, 0.2, 0)
    assert said.startswith("1 image is not in train, val or test, the first is 'elsewhere/B/p")


# ------------------------------------------------------------------------ used


def test_crossings_are_repaired_under_the_default_protocol(tmp_path, manifest, table):
    given = read_given_split(manifest, written(tmp_path, crossing(table)))
    split, said = split_from(given, "grouped", 4, 0.2, seed=0)
    assert_no_leak(split, manifest)
    moved = (split["split"] != given.images["split"]).sum()
    assert moved >= 3 and said[0] == f"It is used after repair: {moved} images moved."
    assert said[1] == "Its folds are missing: 4 folds of whole groups were made."


def test_an_unrepaired_split_leaks_and_this_is_reported_everywhere(tmp_path, run, manifest, table):
    given = read_given_split(manifest, written(tmp_path, crossing(table)))
    split, said = split_from(given, "given", 4, 0.2, seed=0)
    assert split["split"].tolist() == given.images["split"].tolist()
    assert (split.dropna(subset=["fold"]).groupby("group")["fold"].nunique() == 1).all()
    assert "3 groups are in several of its parts: every page of this run warns of it." in said[0]
    run.write("split.csv", split)
    run.write("split.json", split_facts(split, manifest, "given", "patient", 0))
    assert run.protocol == GIVEN_LEAKS and run.leaks and run.is_given and not run.is_original
    assert len(read_split(run)) == len(split)
    (caveat,) = [each for each in caveats(run) if each.kind == "leak"]
    tests = (split["split"] == "test").sum()
    assert f"AND IS USED UNCHANGED: 3 of {tests} test images belong to a group that" in caveat.text
    assert caveat.text in split_html(run)
    assert run.marked(pd.DataFrame({"auc": [1.0]}))["protocol"].tolist() == [GIVEN_LEAKS]


def test_a_clean_split_used_unchanged_is_checked_like_a_generated_one(
    tmp_path, run, manifest, table
):
    given = read_given_split(manifest, written(tmp_path, table))
    split, said = split_from(given, "given", 4, 0.2, seed=0)
    assert said[0] == "It is used unchanged, and results on its test are the ones to compare."
    run.write("split.csv", split)
    about = split_facts(split, manifest, "given", "patient", 0)
    run.write("split.json", about)
    assert run.protocol == GIVEN and not run.leaks and run.is_given and caveats(run) == []
    read_split(run)
    run.write("split.csv", split.assign(split=split["split"].replace({"val": "test"})))
    crossed = crossing(pd.DataFrame({"image": split["image_id"], "split": split["split"]}))
    assert refused(read_split, run)
    assert leak_report(split, manifest) == about["leak"] and len(crossed)


def test_a_split_without_val_gets_whole_groups_of_train(tmp_path, manifest, table):
    table["split"] = table["split"].replace({"valid": "train"})
    given = read_given_split(manifest, written(tmp_path, table))
    split, said = split_from(given, "grouped", 4, 0.2, seed=0)
    val = split[split["split"] == "val"]
    assert said[1] == f"It has no val: {len(val)} images of train became val."
    assert 0.1 < len(val) / len(split) < 0.3 and val["label"].nunique() == 2
    assert_no_leak(split, manifest)
    same = given.images["split"] == "test"
    assert (same == (split["split"] == "test")).all()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda t: t.replace({"TEST set": "train"}), "The given split has no test"),
        (
            lambda t: t.replace({"Training": "test", "valid": "test"}),
            "The given split has no train",
        ),
        (
            lambda t: t.assign(
                split=[
                    "train" if name[1:4] in ("001", "003", "005") else "test" for name in t["image"]
                ]
            ),
            "has only one class",
        ),
    ],
)
def test_a_split_that_does_not_allow_training_is_refused(tmp_path, manifest, table, change, part):
    given = read_given_split(manifest, written(tmp_path, change(table)))
    assert part in refused(split_from, given, "grouped", 2, 0.2, 0)


# ----------------------------------------------------------------------- cited


def test_another_team_gets_the_same_folds_and_fingerprint(tmp_path, manifest, split):
    """Elsewhere: images in another order, patients of other names, another seed."""
    there = manifest.sample(frac=1, random_state=0, ignore_index=True)
    there = there.assign(patient="x" + there["patient"], group="x" + there["group"])
    given = read_given_split(there, written(tmp_path, split))
    again, said = split_from(given, "grouped", 9, 0.4, seed=8)
    keys = ["image_id", "split", "fold"]
    pd.testing.assert_frame_equal(
        again[keys].sort_values("image_id", ignore_index=True),
        split[keys].sort_values("image_id", ignore_index=True),
    )
    assert fingerprint(again) == fingerprint(split) == given.fingerprint
    assert said[-1].startswith("It equals the split of that table, folds included")


def test_the_fingerprint_depends_on_image_content_and_not_on_names(manifest, split):
    renamed = split.assign(image_id="other/" + split["image_id"], group="g" + split["group"])
    assert fingerprint(renamed) == fingerprint(split)
    first = split.index[0]
    for column, value in (("sha256", "f" * 64), ("label", "M"), ("split", "none"), ("fold", 3)):
        other = split.copy()
        other.loc[first, column] = value
        assert fingerprint(other) != fingerprint(split), column
    joined = split["group"].where(split["group"] != split["group"].iloc[-1], split["group"][0])
    assert fingerprint(split.assign(group=joined)) != fingerprint(split)


def test_a_split_is_repaired_if_more_is_known_about_the_groups(tmp_path, manifest, split):
    """Elsewhere a copy joins a patient of train and one of test: repaired, another fingerprint."""
    train, test = (split.index[split["split"] == part][0] for part in ("train", "test"))
    there = manifest.copy()
    there.loc[test, "family"] = there["family"][train]
    there["group"] = independent_groups(there)
    again, said = split_from(
        read_given_split(there, written(tmp_path, split)), "grouped", 4, 0.2, 0
    )
    assert_no_leak(again, there)
    assert said[0].startswith("It is used after repair") and said[-1].startswith(
        "It is no longer the"
    )


def test_other_classes_of_the_same_images_are_refused(tmp_path, manifest, split):
    path = written(tmp_path, split.replace({"label": {"B": "M", "M": "B"}}))
    assert "another class than the folders, the first is 'B/p000_0.png'" in refused(
        read_given_split, manifest, path
    )


def test_the_error_for_a_split_of_an_earlier_version_names_notebook_03(run):
    run.write("split.csv", run.table("split.csv").drop(columns="sha256").astype({"fold": "Int64"}))
    assert "from an earlier version" in refused(read_split, run)
    assert "run notebook 03 again" in refused(read_split, run)
