"""Splits groups into train, val and test, makes folds, and checks that nothing crosses."""

import hashlib

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split
from sklearn.utils import check_random_state

from cytology.data.augmentation import pictures_of
from cytology.run import GIVEN, GIVEN_LEAKS, LEAKING, Run
from cytology.settings import InputError

SPLITS = ("train", "val", "test")
# Columns of an image in `split.csv`; the hash lets others check that they have the same image.
ABOUT_IMAGE = ["image_id", "sha256", "group", "label"]


def split_by_group(
    manifest: pd.DataFrame, folds: int, val_share: float, test_share: float, seed: int
) -> pd.DataFrame:
    """Split whole groups into train, val and test, and train and val into folds, by label.

    Returns `image_id, sha256, group, label, split, fold`; `fold` is 0 to folds-1, and empty
    in test. Raises `InputError` if there are too few groups.
    """
    check_enough_groups(manifest, folds)
    images = manifest[ABOUT_IMAGE].assign(split="train")
    test = best_part(images, test_share, seed)
    rest = images[~test]
    val = best_part(rest, val_share / (1 - test_share), seed)
    images.loc[rest.index[val], "split"] = "val"
    images.loc[test, "split"] = "test"
    images = with_folds(images, folds, seed)
    check_labels_everywhere(images)
    return images


def with_folds(images: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """The split with a column `fold`: whole groups of train and val, stratified by label."""
    images = images.assign(fold=pd.array([pd.NA] * len(images), dtype="Int64"))
    rest = images[images["split"] != "test"]
    most = min(rest["label"].value_counts().max(), rest["group"].nunique())
    if folds > most:
        raise InputError(f"Parameter `folds` is {folds}; these images allow at most {most}.")
    for fold, held_out in enumerate(group_folds(folds, seed, rest["label"], rest["group"])):
        images.loc[rest.index[held_out], "fold"] = fold
    return images


def group_folds(folds: int, seed: int, labels, groups) -> list[np.ndarray]:
    """The positions that each fold holds out: whole groups, stratified, in shuffled order.

    scikit-learn's StratifiedGroupKFold with randomly renamed groups. Its own shuffling mixes up the
    groups' counts in versions before 1.8, so the strata are lost; from 1.8 on it gives the same
    folds as this.
    """
    number = np.unique(groups, return_inverse=True)[1]
    order = np.arange(number.max() + 1)
    check_random_state(seed).shuffle(order)
    renamed = np.argsort(order)[number]
    found = StratifiedGroupKFold(folds).split(np.zeros(len(number)), labels, renamed)
    return [held_out for _, held_out in found]


def best_part(images: pd.DataFrame, share: float, seed: int):
    """Mask of whole groups with about `share` of the images and the same mix of labels.

    Of the parts that a stratified group k-fold offers, the one nearest to the wanted numbers of
    benign and malignant images, preferably with both labels inside and outside. With few, unequal
    groups these parts differ a lot.
    """
    most = min(images["group"].nunique(), images["label"].value_counts().max())
    parts = min(max(2, round(1 / share)), most)
    there = images["label"].value_counts()
    wanted = share * there

    def miss(part):
        counts = images["label"].iloc[part].value_counts().reindex(wanted.index, fill_value=0)
        one_sided = ((counts == 0) | (counts == there)).any()
        return one_sided, ((counts - wanted) / wanted).abs().sum()

    held_out = group_folds(parts, seed, images["label"], images["group"])
    return np.isin(np.arange(len(images)), min(held_out, key=miss))


def split_pictures_at_random(
    manifest: pd.DataFrame, orientations: int, folds: int, val_share: float, test_share: float, seed
) -> pd.DataFrame:
    """THE ORIGINAL'S WAY, WHICH LEAKS: augment first, then split the files at random.

    Returns `image_id, orientation, sha256, group, label, split, fold`: one row per picture, so
    copies of one image are on both sides. For measuring the leak, not for use.
    """
    pictures = pictures_of(manifest[ABOUT_IMAGE], orientations)
    pictures = pictures[["image_id", "orientation", *ABOUT_IMAGE[1:]]]
    label, share = pictures["label"], val_share / (1 - test_share)
    rest, test = train_test_split(
        pictures.index, test_size=test_share, stratify=label, random_state=seed
    )
    train, val = train_test_split(rest, test_size=share, stratify=label[rest], random_state=seed)
    for name, index in zip(SPLITS, (train, val, test), strict=True):
        pictures.loc[index, "split"] = name
    pictures["fold"] = pd.array([pd.NA] * len(pictures), dtype="Int64")
    kfold = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(kfold.split(rest, label[rest])):
        pictures.loc[rest[held_out], "fold"] = fold
    return pictures


def check_enough_groups(manifest: pd.DataFrame, folds: int) -> None:
    """Raise `InputError` unless each class has enough groups for train, val, test and all folds."""
    groups = manifest["group"].nunique()
    if groups < folds + 2:
        raise InputError(
            f"The split needs at least {folds + 2} groups ({folds} folds and a test part), but "
            f"there are {groups}. Lower `folds`, or gather images of more patients."
        )
    for label, count in manifest.groupby("label")["group"].nunique().items():
        if count < 4:
            raise InputError(
                f"Class {label} has {count} groups; it needs at least 4, one each for train, val, "
                "test and early stopping. Gather images of more patients, or check "
                "`patient_pattern`."
            )


def check_labels_everywhere(split: pd.DataFrame) -> None:
    """Raise `InputError` if a part has images of one class only."""
    for name in SPLITS:
        if split.loc[split["split"] == name, "label"].nunique() < 2:
            raise InputError(
                f"The {name} part has only one class: the groups are too few or too unequal. "
                "Try another `seed` or a larger share, or gather images of more patients."
            )


# What must not be on both sides, and its name in messages.
NEVER_APART = {
    "group": "groups",
    "patient": "patients",
    "slide": "slides",
    "sha256": "identical files",
    "family": "families of copies",
}


def leak_report(split: pd.DataFrame, manifest: pd.DataFrame) -> dict[str, int]:
    """What crosses: copies of test images in training, and what is in more than one part.

    Everything is taken from the manifest, not from the split's own columns: an edited split must
    not vouch for itself.
    """
    family = manifest.set_index("image_id")["family"]
    train = split["image_id"][split["split"] == "train"].map(family)
    test = split["image_id"][split["split"] == "test"].drop_duplicates().map(family)
    group = split["image_id"].map(manifest.set_index("image_id")["group"])
    trained_on, tested = group[split["split"] == "train"], group.loc[test.index]
    report = {
        "test_images_with_copy_in_training": int(test.isin(train).sum()),
        "test_images_with_group_in_training": int(tested.isin(trained_on).sum()),
        "test_images": len(test),
        "groups": int(manifest["group"].nunique()),
    }
    for column, name in NEVER_APART.items():
        crossing = len(crossings(split, manifest, column, ["split"]))
        report[f"{name.replace(' ', '_')}_in_several_splits"] = crossing
    return report


def crossings(split: pd.DataFrame, manifest: pd.DataFrame, column: str, among: list[str]) -> list:
    """Values of a manifest column whose images lie in more than one part or fold, sorted."""
    known = manifest.set_index("image_id")
    unit = split["image_id"].map(unit_names(known, column))
    there = unit != ""
    # Train and val share the folds, test has none: nothing may cross parts or folds.
    spread = split.loc[there, among].groupby(unit[there]).nunique()
    return sorted(spread.index[(spread > 1).any(axis=1)])


def unit_names(images: pd.DataFrame, column: str) -> pd.Series:
    """A column of the manifest, slides with their patient: two patients may both have a slide 1."""
    unit = images[column]
    return unit.where(unit == "", images["patient"] + " " + unit) if column == "slide" else unit


def assert_no_leak(split: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Raise `InputError` if groups, patients, slides or copies cross parts or folds."""
    for column, name in NEVER_APART.items():
        crossing = crossings(split, manifest, column, ["split", "fold"])
        if crossing:
            raise InputError(
                f"In split.csv {len(crossing)} {name} cross, the first is {crossing[0]!r}: "
                "run notebook 03 again."
            )


def read_split(run: Run) -> pd.DataFrame:
    """Read `split.csv` for training, and check it again.

    Raises `InputError` if its images or labels differ from the manifest, if it was edited, or if
    anything in `NEVER_APART` crosses although `split.json` does not say that this was wanted.
    """
    split, manifest = run.table("split.csv"), run.manifest
    check_cells(run, split)
    keys = ["image_id", "label", "sha256"]
    ours, known = (set(map(tuple, table[keys].to_numpy())) for table in (split, manifest))
    if ours != known:
        raise InputError(
            "split.csv and manifest.csv differ in their images or labels: run notebook 03 again."
        )
    about = run.facts("split.json")
    if about["protocol"] not in LEAKING:
        assert_no_leak(split, manifest)
    elif about["leak"] != leak_report(split, manifest):
        # Every banner is written from these numbers, so they must belong to this split.
        raise InputError(
            "split.json does not report what leaks in split.csv: run notebook 03 again."
        )
    if about["fingerprint"] != fingerprint(split):
        raise InputError(
            "split.csv is not the one that split.json describes: restore it, or run notebook 03 "
            "again."
        )
    return split


def check_cells(run: Run, split: pd.DataFrame) -> None:
    """Turn the folds into whole numbers; `InputError` for impossible cells."""
    if "sha256" not in split:
        raise InputError(
            "split.csv comes from an earlier version, which did not write the images' hashes: run "
            "notebook 03 again."
        )
    keys = [column for column in ("image_id", "orientation") if column in split]
    folds, doubled = split["fold"].dropna(), split[split.duplicated(keys)]
    for wrong, what in (
        (len(doubled), f"it names {split['image_id'][doubled.index].min()} twice"),
        (not set(split["label"]) <= {"B", "M"}, "label is B or M"),
        (not set(split["split"]) <= {*SPLITS}, f"split is one of {', '.join(SPLITS)}"),
        ((folds % 1 != 0).any() or (folds < 0).any(), "fold is a whole number or empty"),
    ):
        if wrong:
            raise run.damage_error("split.csv", what)
    split["fold"] = split["fold"].astype("Int64")


def training_pictures(split_rows: pd.DataFrame, orientations: int) -> pd.DataFrame:
    """The pictures that a network trains on, from rows of the split.

    Images x orientations; under the original's protocol each row is already a picture.
    """
    return split_rows if "orientation" in split_rows else pictures_of(split_rows, orientations)


def check_batch_size(batch_size: int, split: pd.DataFrame, orientations: int) -> None:
    """`InputError` if there are fewer pictures to train on than a batch has."""
    train = len(training_pictures(split[split["split"] == "train"], orientations))
    if batch_size > train:
        raise InputError(
            f"Parameter `batch_size` is {batch_size}, more than the {train} training pictures: "
            "lower it."
        )


def judged_pictures(split_rows: pd.DataFrame) -> pd.DataFrame:
    """The pictures on which a network is evaluated: originals only, each once.

    Augmented copies are not independent and would only shrink the intervals. The original's
    protocol evaluates all pictures that fell into the part.
    """
    return split_rows if "orientation" in split_rows else pictures_of(split_rows, 1)


def counts_by_split(split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images (or pictures), groups and labels of each part."""
    found = {}
    for name in SPLITS:
        part = split[split["split"] == name]
        found[name] = {"images": len(part), "groups": int(part["group"].nunique())}
        found[name] |= {label: int((part["label"] == label).sum()) for label in ("B", "M")}
    return found


def inner_group_split(rows: pd.DataFrame, seed: int):
    """Mask of about a fifth of the groups, for early stopping; it has both labels.

    Under the original's protocol pictures are drawn without regard to groups, as it did.
    """
    if "orientation" in rows:
        kfold = StratifiedKFold(5, shuffle=True, random_state=seed)
        stop = next(kfold.split(rows, rows["label"]))[1]
        return np.isin(np.arange(len(rows)), stop)
    return best_part(rows, 0.2, seed)


def split_facts(
    split: pd.DataFrame, manifest: pd.DataFrame, protocol: str, unit: str, seed: int
) -> dict:
    """The content of `split.json`: how the split was made, its counts, what crosses.

    For a given split that is used unchanged, `protocol` also says whether it leaks.
    """
    leak = leak_report(split, manifest)
    if protocol in (GIVEN, GIVEN_LEAKS):
        protocol = GIVEN_LEAKS if leak["groups_in_several_splits"] else GIVEN
    return {
        "protocol": protocol,
        "unit": unit,
        "seed": seed,
        "leak": leak,
        "counts": counts_by_split(split),
        "fingerprint": fingerprint(split),
    }


def fingerprint(split: pd.DataFrame) -> str:
    """A hash of the split; predictions carry it, so they are never read with another split.

    It identifies images by their bytes and groups by their images, so it is the same for anybody
    with these images, whatever the files, folders and patients are called.
    """
    keys = ["sha256", *(["orientation"] if "orientation" in split else []), "group", "label"]
    whole = split.assign(
        fold=split["fold"].astype("Int64"),
        group=split.groupby("group")["sha256"].transform("min"),
    )
    whole = whole[[*keys, "split", "fold"]].sort_values([*keys, "split", "fold"])
    return hashlib.sha256(whole.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
