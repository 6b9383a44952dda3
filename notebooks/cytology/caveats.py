"""What a run must say aloud wherever its numbers show: leaks, missing weights.

One list, computed from the run's own files, for the terminal, the notebooks, the tables and the
report, so that no place can forget it.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from cytology.copies import looks_augmented
from cytology.settings import NETWORK_TITLE
from cytology.tables import read_json


@dataclass(frozen=True)
class Caveat:
    """`kind` is `leak` (the numbers are wrong), `data` (they say less) or `weights` (nothing)."""

    kind: str
    text: str


def caveats(run: Path) -> list[Caveat]:
    """The caveats of a run, the gravest first; from its JSON files."""
    found = []
    if (run / "split.json").is_file():
        found += leak_caveats(read_json(run, "split.json"))
    if (run / "dataset.json").is_file():
        found += data_caveats(read_json(run, "dataset.json"))
    random = [
        title
        for name, title in NETWORK_TITLE.items()
        if (run / name / "metrics.json").is_file()
        and read_json(run, f"{name}/metrics.json")["weights"] == "random"
    ]
    if random:
        found.append(
            Caveat(
                "weights",
                f"No pretrained weights for {', '.join(random)}: random weights were used. "
                "This run shows the machinery and ranks nothing; no winner is named.",
            )
        )
    return found


def leak_caveats(split: dict) -> list[Caveat]:
    """The caveat of a split in which copies of one image lie on both sides, if it is one."""
    leak = split["leak"]
    if not leak["test_images_with_copy_in_training"] and not leak["groups_in_several_splits"]:
        return []
    return [
        Caveat(
            "leak",
            f"THIS SPLIT LEAKS: {leak['test_images_with_copy_in_training']:,} of "
            f"{leak['test_images']:,} test images have a copy of themselves in training, and "
            f"{leak['groups_in_several_splits']:,} of {leak['groups']:,} groups lie in more than "
            "one part. The numbers below say how well copies are recognized, not how well "
            "new patients are.",
        )
    ]


def data_caveats(dataset: dict) -> list[Caveat]:
    """The caveats of a data set that was augmented before, or whose patients nobody knows."""
    found, images, unit = [], dataset["images"], dataset.get("unit", "patient")
    families = dataset.get("families", images)  # runs of earlier versions did not count them
    if looks_augmented(images, families):
        found.append(
            f"The images look augmented: {images:,} files seem to be {families:,} "
            "originals. Copies are kept together; every count of images counts copies."
        )
    if dataset.get("of_unknown_unit") == images:
        found.append(
            f"No image has a {unit}: if several come from one {unit}, they lie on both sides of "
            "the split, the numbers are too good, and the intervals too narrow."
        )
    return [Caveat("data", text) for text in found]


COLOURS = {"data": "#8a5a00", "leak": "#b00020", "weights": "#8a5a00"}


def caveats_html(run: Path) -> str:
    """The caveats as an HTML block for notebooks; empty when there is nothing to say."""
    return "".join(_banner(caveat.kind, caveat.text) for caveat in caveats(run))


def weights_html(kind: str, explanation: str) -> str:
    """What weights a notebook trains with; a banner if they are random."""
    return _banner("weights", explanation) if kind == "random" else f"<p>{escape(explanation)}</p>"


def _banner(kind: str, text: str) -> str:
    colour = COLOURS[kind]
    return (
        f'<p style="border-left:6px solid {colour};padding:.5em 1em;color:{colour};'
        f'font-weight:bold">{escape(text)}</p>'
    )
