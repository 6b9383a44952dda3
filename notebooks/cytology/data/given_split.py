"""The split of a folder whose images are in subfolders `train`, `val` and `test`.

Notebook 01 reports its size and what crosses it; notebook 03 checks it, or uses it.
"""

import pandas as pd

from cytology.data.sources.masks import words_of
from cytology.wording import counted

PART_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
GIVEN_PARTS = ("train", "val", "test")


def part_of(image_id: str) -> str:
    """`train`, `val` or `test`: the first folder on the path with such a name, or empty text."""
    for folder in image_id.split("/")[:-1]:
        found = {PART_OF_WORD[word] for word in words_of(folder) if word in PART_OF_WORD}
        if len(found) == 1:
            return found.pop()
    return ""


def given_split(manifest: pd.DataFrame) -> pd.DataFrame:
    """The parts that the folder came with, one row each; empty without `train` and another part.

    Columns: `part`, `images`, and how many images of val or test share something with `train`:
    `copies` (family), `patients`, `slides`. What is unknown counts as not shared.
    """
    part = manifest["image_id"].map(part_of)
    there = [name for name in GIVEN_PARTS if (part == name).any()]
    if "train" not in there or len(there) < 2:
        return pd.DataFrame(columns=["part", "images", "copies", "patients", "slides"])
    rows = []
    train = manifest[part == "train"]
    for name in there:
        images = manifest[part == name]
        row = {"part": name, "images": len(images)}
        for what, column in (("copies", "family"), ("patients", "patient"), ("slides", "slide")):
            known = images[column][images[column] != ""]
            row[what] = 0 if name == "train" else int(known.isin(train[column]).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def split_in_words(parts: pd.DataFrame, unit: str) -> list[str]:
    """What `given_split` found, in sentences; empty if there is no such split."""
    if parts.empty:
        return []
    held = ", ".join(f"{row.part} {row.images:,}" for row in parts.itertuples())
    said = [
        f"This folder came with a split ({held} images). Notebook 03 checks it, and makes another "
        "one unless you set `given_split`."
    ]
    for row in parts[parts["part"] != "train"].itertuples():
        of_part = f"Of the {counted(row.images, 'image', 'images')} in its {row.part}"
        shared = [(row.copies, "has a copy in train", "have a copy in train")]
        for number, what in ((row.patients, unit), (row.slides, "slide")):
            shared.append((number, f"shares a {what} with train", f"share a {what} with train"))
        crossing = [counted(*each) for each in shared if each[0]]
        said.append(
            f"{of_part}, {', '.join(crossing)}: results on that part would be too good."
            if crossing
            else f"{of_part}, none has a known copy, {unit} or slide in train."
        )
    return said
