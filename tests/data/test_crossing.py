"""What crosses a split from outside is found, by kind, and reported without names."""

import pandas as pd
import pytest

from cytology.data.crossing import COPIES, FILES, SLIDES, check_given_split, examples, in_words


def manifest(*rows):
    """Rows of (image_id, split, sha256, family, patient, slide); groups as given by hand."""
    columns = ["image_id", "split", "sha256", "family", "patient", "slide"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(label=["B", "M"] * (len(table) // 2) + ["B"] * (len(table) % 2), group="g")


MIXED = manifest(
    ("train/1", "train", "a", "f1", "p1", "s1"),
    ("train/2", "train", "b", "f2", "", "s1"),
    ("test/1", "test", "a", "f1", "p9", ""),  # the same file
    ("test/2", "test", "c", "f2", "p8", "s1"),  # a turned copy; slide 1 of another patient
    ("test/3", "test", "d", "f3", "p1", "s1"),  # patient and slide
    ("test/4", "test", "e", "f4", "p7", ""),
    ("val/1", "val", "f", "f2", "p7", ""),  # a copy; a patient of test
    ("none/1", "", "a", "f1", "p1", "s1"),
)


def test_each_kind_of_crossing_is_counted_and_named():
    verdict = check_given_split(MIXED, "patient")
    crossings = verdict.crossings
    assert crossings[["kind", "name", "train", "val", "test"]].to_numpy().tolist() == [
        [FILES, "train/1", 1, 0, 1],
        [COPIES, "train/2", 1, 1, 1],
        ["patients", "p1", 1, 0, 1],
        ["patients", "p7", 0, 1, 1],
        [SLIDES, "p1 s1", 1, 0, 1],
    ]
    assert crossings["image_id"].tolist() == ["train/1", "train/2", "train/1", "val/1", "train/1"]
    assert crossings["other"].tolist() == ["test/1", "test/2", "test/3", "test/4", "test/3"]
    assert verdict.touched.to_dict("index") == {
        FILES: {"crossings": 1, "val": 0, "test": 1},
        COPIES: {"crossings": 1, "val": 1, "test": 1},
        "patients": {"crossings": 2, "val": 0, "test": 1},
        SLIDES: {"crossings": 1, "val": 0, "test": 1},
        "any": {"crossings": 5, "val": 1, "test": 3},
    }


def test_crossings_are_reported_in_numbers_without_names():
    said = in_words(check_given_split(MIXED, "patient"), "a table")
    assert said[:4] == [
        "The images came with a split, in a table: train 2, val 1, test 4 images.",
        "In more than one part: 1 identical file, 1 turned or re-encoded copy, 2 "
        "patients and 1 slide.",
        "Of the 4 images in test, 3 share something with train (75%): results on it are too good.",
        "Of the 1 image in val, 1 shares something with train (100%): results on it are too good.",
    ]
    assert said[4].startswith("To repair it, at least ")


def test_identical_files_do_not_count_as_turned_copies():
    same = [("train/1", "train", "a", "f", "", ""), ("test/1", "test", "a", "f", "", "")]
    assert list(check_given_split(manifest(*same), "patient").crossings["kind"]) == [FILES]
    more = manifest(*same, ("test/2", "test", "b", "f", "", ""))
    found = check_given_split(more, "patient")
    assert list(found.crossings["kind"]) == [FILES, COPIES]
    assert found.crossings["other"].tolist() == ["test/1", "test/2"]
    assert found.touched["test"].to_dict() == {FILES: 1, COPIES: 1, "any": 2}


def test_a_clean_split_has_no_crossings():
    clean = manifest(*((f"{part}/{n}", part, f"{part}{n}", f"{part}{n}", "", "")
                       for part in ("train", "test") for n in "12"))  # fmt: skip
    clean["group"] = clean["image_id"]
    verdict = check_given_split(clean, "patient")
    assert verdict.crossings.empty and verdict.moved.empty and examples(verdict).empty
    assert (verdict.touched == 0).all(axis=None)
    assert in_words(verdict, "the names of its folders")[1] == (
        f"Nothing crosses it; {FILES} and {COPIES} were checked."
    )


@pytest.mark.parametrize("most", [1, 3])
def test_a_few_crossings_of_each_kind_are_shown_with_test_first(most):
    rows = [(f"train/{n}", "train", f"a{n}", f"f{n}", "", "") for n in range(6)]
    rows += [(f"val/{n}", "val", f"b{n}", f"f{n}", "", "") for n in range(2)]
    rows += [(f"test/{n}", "test", f"c{n}", f"f{n}", "", "") for n in range(2, 6)]
    shown = examples(check_given_split(manifest(*rows), "patient"), most)
    assert len(shown) == most and set(shown["other_part"]) == {"test"}
    assert set(shown["part"]) == {"train"}
