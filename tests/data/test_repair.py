"""The repaired split: nothing crosses, and no smaller move of groups would be enough."""

import itertools

import numpy as np
import pandas as pd
import pytest

from cytology.data.repair import repair_split


def images(*rows):
    """Rows of (group, label, split, number of images)."""
    repeated = [row[:3] for row in rows for _ in range(row[3])]
    return pd.DataFrame(repeated, columns=["group", "label", "split"])


def some_images(seed):
    rng = np.random.default_rng(seed)
    number, parts = rng.integers(4, 15), ["train", "test", "val"][: rng.integers(2, 4)]
    return pd.DataFrame(
        {
            "group": rng.integers(0, rng.integers(2, 7), number).astype(str),
            "label": rng.choice(list("BM"), number),
            "split": rng.choice(parts, number),
        }
    )


def lost_and_moved(table, split):
    """Pairs of part and class that are gone, and images in another part than before."""
    before, after = (
        set(zip(each, table["label"], strict=True)) for each in (table["split"], split)
    )
    return len(before - after), int((split != table["split"]).sum())


@pytest.mark.parametrize("seed", range(40))
def test_no_smaller_move_of_whole_groups_repairs_the_split(seed):
    table = some_images(seed)
    found = repair_split(table)
    assert (found.groupby(table["group"]).nunique() == 1).all()
    groups, parts = sorted(set(table["group"])), sorted(set(table["split"]))
    every = (
        table["group"].map(dict(zip(groups, chosen, strict=True)))
        for chosen in itertools.product(parts, repeat=len(groups))
    )
    assert lost_and_moved(table, found) == min(lost_and_moved(table, each) for each in every)


def test_images_that_do_not_cross_stay_in_place():
    table = images(("a", "B", "train", 3), ("b", "M", "train", 2), ("c", "B", "test", 1),
                   ("d", "M", "test", 9))  # fmt: skip
    assert (repair_split(table) == table["split"]).all()


def test_equal_moves_prefer_test_and_then_val():
    whole = [(g, label, part, 5) for g, (label, part) in
             enumerate(itertools.product("BM", ("train", "val", "test")))]  # fmt: skip
    table = images(*whole, ("x", "B", "train", 2), ("x", "B", "test", 2), ("y", "B", "train", 1),
                   ("y", "B", "val", 1), ("z", "M", "train", 3), ("z", "M", "test", 2))  # fmt: skip
    home = repair_split(table).groupby(table["group"]).first()
    assert (home["x"], home["y"], home["z"]) == ("test", "val", "train")


def test_the_repair_never_empties_a_class_in_test():
    cut = [("a", "B", "train", 4), ("a", "B", "test", 1), ("b", "B", "train", 6)]
    table = images(*cut, ("b", "B", "test", 1), ("c", "M", "train", 5), ("d", "M", "test", 5))
    home = repair_split(table).groupby(table["group"]).first()
    assert home.to_dict() == {"a": "test", "b": "train", "c": "train", "d": "test"}


def test_with_too_few_groups_as_much_as_possible_is_kept():
    table = images(("a", "B", "train", 4), ("a", "B", "test", 1), ("b", "M", "train", 6))
    assert set(repair_split(table)[:5]) == {"train"}


def test_tens_of_thousands_of_groups_are_repaired_quickly():
    number = 20_000
    table = pd.DataFrame({"group": np.arange(number).astype(str), "split": "train"})
    table["label"] = np.where(np.arange(number) % 2, "B", "M")
    twins = table.iloc[:20].assign(split="test")
    table = pd.concat([table, table.iloc[:20], twins], ignore_index=True)
    found = repair_split(table)
    assert lost_and_moved(table, found) == (0, 18 + 2 * 2)
