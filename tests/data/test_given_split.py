"""A split that came with a folder is reported, with what crosses it."""

import pandas as pd
import pytest

from cytology.data.given_split import given_split, part_of, split_in_words


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("train/B/1.png", "train"),
        ("B/Training/1.png", "train"),
        ("data/valid/M/1.png", "val"),
        ("validation/M/1.png", "val"),
        ("M/testing set/1.png", "test"),
        ("01_TEST/M/1.png", "test"),
        ("trainees/B/1.png", ""),
        ("B/test.png", ""),
        ("train and test/M/1.png", ""),
    ],
)
def test_a_part_is_recognized_by_its_folder_name(path, part):
    assert part_of(path) == part


def manifest(*rows):
    columns = ["image_id", "patient", "slide", "family"]
    return pd.DataFrame(rows, columns=columns)


def test_crossings_into_train_are_counted():
    table = manifest(
        ("train/B/1.png", "p1", "s1", "f1"),
        ("train/M/2.png", "", "s2", "f2"),
        ("test/B/3.png", "p1", "", "f3"),
        ("test/B/4.png", "p9", "s2", "f1"),
        ("test/M/5.png", "", "", "f5"),
        ("valid/M/6.png", "", "", "f6"),
        ("other/M/7.png", "p1", "s1", "f1"),
    )
    parts = given_split(table)
    assert parts.to_numpy().tolist() == [
        ["train", 2, 0, 0, 0],
        ["val", 1, 0, 0, 0],
        ["test", 3, 1, 1, 1],
    ]
    assert split_in_words(parts, "patient") == [
        "This folder came with a split (train 2, val 1, test 3 images). "
        "Notebook 03 checks it, and makes another one unless you set `given_split`.",
        "Of the 1 image in its val, none has a known copy, patient or slide in train.",
        "Of the 3 images in its test, 1 has a copy in train, 1 shares a patient with train, "
        "1 shares a slide with train: results on that part would be too good.",
    ]


@pytest.mark.parametrize("parts", [("train",), ("test", "val"), ("a", "b")])
def test_a_split_needs_train_and_another_part(parts):
    table = manifest(*((f"{part}/B/{n}.png", "", "", str(n)) for n, part in enumerate(parts)))
    assert given_split(table).empty and split_in_words(given_split(table), "patient") == []
