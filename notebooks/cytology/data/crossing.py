"""What crosses a split from outside: files, copies, patients and slides, counted and named."""

from dataclasses import dataclass

import pandas as pd

from cytology.data.repair import repair_split
from cytology.data.splitting import SPLITS, unit_names
from cytology.wording import counted, join_words, plural

FILES, COPIES, SLIDES = "identical files", "turned or re-encoded copies", "slides"
ONE = {FILES: "identical file", COPIES: "turned or re-encoded copy", SLIDES: "slide"}
COLUMNS = ["kind", "name", *SPLITS, "image_id", "other"]


@dataclass(frozen=True)
class SplitCheck:
    """A split from outside and what was found about it.

    `images` are rows of the manifest with the given `split` and, if anything crosses, the one in
    `repaired`. `crossings` is `tables/given_split.csv`: one row per thing that crosses, with its
    images in each part; `image_id` is in the first of its parts, `other` in the last. `touched` has
    one row per kind and one for `any`: how many cross, and how many images of val and test share
    something with train.
    """

    images: pd.DataFrame
    crossings: pd.DataFrame
    touched: pd.DataFrame
    unit: str

    @property
    def repaired(self) -> pd.DataFrame:
        """`tables/given_split_repaired.csv`: `image_id, split_given, split`."""
        renamed = self.images.rename(columns={"split": "split_given", "repaired": "split"})
        return renamed[["image_id", "split_given", "split"]]

    @property
    def moved(self) -> pd.DataFrame:
        """The images that the repaired split moves to another part."""
        return self.images[self.images["split"] != self.images["repaired"]]


def check_given_split(images: pd.DataFrame, unit: str) -> SplitCheck:
    """What crosses the given split of `images`, rows of the manifest with a column `split`.

    `unit` is the name of the manifest's patients. Images in no part are left out.
    """
    images = images[images["split"] != ""].sort_values("image_id", ignore_index=True)
    kinds = kinds_of(images, unit)
    tables = [crossings_of(images, kind, values) for kind, values in kinds.items()]
    found = pd.concat([pd.DataFrame(columns=COLUMNS), *tables], ignore_index=True)
    images["repaired"] = repair_split(images)
    return SplitCheck(images, found, touched_by_train(images, kinds, found), unit)


def kinds_of(images: pd.DataFrame, unit: str) -> dict[str, pd.Series]:
    """For each kind known for any image, the value of each image; empty if unknown."""
    columns = {FILES: "sha256", COPIES: "family", plural(unit): "patient", SLIDES: "slide"}
    kinds = {kind: unit_names(images, column) for kind, column in columns.items()}
    return {kind: values for kind, values in kinds.items() if (values != "").any()}


def crossings_of(images: pd.DataFrame, kind: str, values: pd.Series) -> pd.DataFrame:
    """One row for each value of a kind whose images are in more than one part."""
    there = images[values != ""].assign(value=values[values != ""])
    counts = there.groupby(["value", "split"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(SPLITS), fill_value=0)
    counts = counts[(counts > 0).sum(axis=1) > 1]
    if kind == COPIES and len(counts):
        # Identical files are reported as such, not as copies.
        files = there[there["value"].isin(counts.index)].groupby(["value", "split"])["sha256"]
        counts = counts[files.agg(frozenset).groupby("value").nunique().loc[counts.index] > 1]
    rows = []
    for value, parts in counts.iterrows():
        of_value = there[there["value"] == value]
        in_parts = [of_value[of_value["split"] == part] for part in SPLITS if parts[part]]
        first = in_parts[0].iloc[0]
        others = in_parts[-1]
        if kind == COPIES:  # if possible, show two that are not the same file
            others = others.iloc[(others["sha256"] == first["sha256"]).argsort(kind="stable")]
        name = first["image_id"] if kind in (FILES, COPIES) else value
        rows.append((kind, name, *parts, first["image_id"], others["image_id"].iloc[0]))
    return pd.DataFrame(rows, columns=COLUMNS)


def touched_by_train(
    images: pd.DataFrame, kinds: dict[str, pd.Series], crossings: pd.DataFrame
) -> pd.DataFrame:
    """One row per kind, and one for `any`: `crossings`, and images of val and test in them.

    Only crossings with train count for these. A copy that is an identical file counts only as an
    identical file.
    """
    train, shares = images["split"] == "train", {}
    for kind, values in kinds.items():
        shares[kind] = (values != "") & values.isin(values[train])
    shares[COPIES] &= ~shares[FILES]
    shares["any"] = pd.DataFrame(shares).any(axis=1)
    rows = {
        kind: {"crossings": (crossings["kind"] == kind).sum() if kind != "any" else len(crossings)}
        | {part: int((touched & (images["split"] == part)).sum()) for part in ("val", "test")}
        for kind, touched in shares.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def examples(check: SplitCheck, most: int = 4) -> pd.DataFrame:
    """At most `most` crossings per kind to look at: `kind, image_id, part, other, other_part`.

    Those between train and test come first, then those with the most images.
    """
    part = check.images.set_index("image_id")["split"]
    found = check.crossings.assign(
        part=check.crossings["image_id"].map(part), other_part=check.crossings["other"].map(part)
    )
    images = found[list(SPLITS)].sum(axis=1)
    found = found.assign(near=found["other_part"] != "test", images=-images)
    found = found.sort_values(["near", "images"], kind="stable").groupby("kind").head(most)
    order = {kind: place for place, kind in enumerate(check.touched.index)}
    found = found.sort_values("kind", key=lambda kind: kind.map(order), kind="stable")
    return found[["kind", "image_id", "part", "other", "other_part"]].reset_index(drop=True)


# ----------------------------------------------------------------------- in words


def in_words(check: SplitCheck, source: str) -> list[str]:
    """The findings in sentences without names: for the notebook, the page and the report."""
    sizes = check.images["split"].value_counts().reindex(list(SPLITS), fill_value=0)
    held = ", ".join(f"{part} {sizes[part]:,}" for part in SPLITS if sizes[part])
    said = [f"The images came with a split, in {source}: {held} images."]
    known = join_words([*check.touched.index.drop("any")])
    if check.crossings.empty:
        return [*said, f"Nothing crosses it; {known} were checked."]
    kinds = check.crossings["kind"].value_counts(sort=False)
    crossing = join_words(
        counted(number, ONE.get(kind, check.unit), kind) for kind, number in kinds.items()
    )
    said.append(f"In more than one part: {crossing}.")
    for part in ("test", "val"):
        if sizes[part]:
            touched = check.touched.loc["any", part]
            share = counted(touched, "shares", "share")
            said.append(
                f"Of the {counted(sizes[part], 'image', 'images')} in {part}, {share} something "
                f"with train ({touched / sizes[part]:.0%})"
                + (": results on it are too good." if touched else ".")
            )
    return [*said, repair_in_words(check)]


def repair_in_words(check: SplitCheck) -> str:
    """The smallest move of whole groups, and the size of each part after it, in a sentence."""
    moved, after = check.moved, check.images["repaired"].value_counts()
    groups = counted(moved["group"].nunique(), "group", "groups")
    left = ", ".join(f"{part} {after[part]:,}" for part in SPLITS if part in after)
    return (
        f"To repair it, at least {counted(len(moved), 'image', 'images')} of {groups} must move to "
        f"another part, which leaves {left}."
    )
