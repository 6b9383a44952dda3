"""Warnings that must accompany every result of a run: leaks, unknown patients, missing weights.

One list, computed from the run's own files, for the terminal, the notebooks, the tables and the
report, so none of them can forget it.
"""

from dataclasses import dataclass
from html import escape

from cytology.architectures import NETWORK_TITLE
from cytology.data.augmentation import looks_augmented
from cytology.run import GIVEN_LEAKS, Run, outside_title
from cytology.wording import COLOURS, about_patients, is_person


@dataclass(frozen=True)
class Caveat:
    """`kind` is `leak` (the numbers are wrong), `data` (they mean less) or `weights` (nothing)."""

    kind: str
    text: str


def caveats(run: Run) -> list[Caveat]:
    """The caveats of a run, the most serious first; from its JSON files."""
    found: list[Caveat] = []
    if run.has("split.json"):
        found += _leak_caveats(run.facts("split.json"))
    if run.has("dataset.json"):
        found += data_caveats(run.facts("dataset.json"))
    weights = {
        title: run.about(name)["weights"]
        for name, title in NETWORK_TITLE.items()
        if run.has(f"{name}/metrics.json")
    }
    return found + weights_caveats(weights)


def about_outside(run: Run) -> list[Caveat]:
    """What is unknown about models from outside, to be shown with their numbers."""
    return [
        Caveat("data", f"{outside_title(name)}: {run.about(name)['explanation']}")
        for name in run.outside
    ]


def weights_caveats(weights: dict[str, str]) -> list[Caveat]:
    """The caveat for networks with random weights, by title; the others are still ranked."""
    random = [title for title, kind in weights.items() if kind == "random"]
    if not random:
        return []
    what = (
        "Use this run to check the software, not to rank networks; no winner is named."
        if len(random) == len(weights)
        else "They only check the software and are not ranked."
        if len(random) > 1
        else "It only checks the software and is not ranked."
    )
    text = f"No pretrained weights for {', '.join(random)}: random weights were used. {what}"
    return [Caveat("weights", text)]


def _leak_caveats(split: dict) -> list[Caveat]:
    """The caveat for a split with copies or groups on both sides, if it has any."""
    leak = split["leak"]
    if not leak["test_images_with_copy_in_training"] and not leak["groups_in_several_splits"]:
        return []
    copies, tested = leak["test_images_with_copy_in_training"], leak["test_images"]
    if split.get("protocol") == GIVEN_LEAKS:
        known = leak.get("test_images_with_group_in_training", copies)
        told = (
            f"THE GIVEN SPLIT LEAKS AND IS USED UNCHANGED: {known:,} of {tested:,} test images "
            f"belong to a group that is also in training, and {copies:,} of them have a copy "
            f"there; {leak['groups_in_several_splits']:,} of {leak['groups']:,} groups are in more "
            "than one part. The numbers below show how well known groups are recognized, not new "
            "patients."
        )
    else:
        told = (
            f"THIS SPLIT LEAKS: {copies:,} of {tested:,} test images have a copy in training, and "
            f"{leak['groups_in_several_splits']:,} of {leak['groups']:,} groups are in more than "
            "one part. The numbers below show how well copies are recognized, not new patients."
        )
    return [Caveat("leak", told)]


def data_caveats(dataset: dict) -> list[Caveat]:
    """The caveats of a data set: already augmented, patients unknown, classes of another name."""
    found, images = [], dataset["images"]
    families = dataset.get("families", images)  # earlier versions did not count them
    if looks_augmented(images, families):
        found.append(
            f"The images look augmented: {images:,} files seem to come from {families:,} "
            "originals. Copies are kept together; all counts of images include copies."
        )
    unknown, unit = dataset.get("of_unknown_unit", 0), dataset.get("unit", "patient")
    found += about_patients(images, unknown, unit)
    called = dataset.get("classes", {})
    if "malignant" not in called.get("M", "malignant"):
        found.append(
            f"What these pages call malignant is here {called['M']}; what they call benign, "
            f"{called['B']}."
        )
    return [Caveat("data", text) for text in found]


def split_check(dataset: dict, split: dict) -> str:
    """What the check of a split without a leak showed, and what it could not show."""
    unit = split.get("unit", "group")
    copies = "and no image is in another part than its copies"
    if dataset.get("of_unknown_unit") == dataset.get("images", 0):
        return (
            "Checked: no image is in another part than its copies. The patients are unknown, so "
            "whether one is in several parts could not be checked."
        )
    if is_person(unit) and dataset.get("of_unknown_unit"):
        return f"Checked: no known {unit} is in more than one part, {copies}."
    more = "" if is_person(unit) else " Whether a patient is in several parts is unknown."
    return f"Checked: no {unit} is in more than one part, {copies}.{more}"


def caveats_html(run: Run, outside: bool = False) -> str:
    """The caveats as HTML for notebooks, with `outside` also those of models from outside.

    Empty if there are none.
    """
    found = caveats(run) + (about_outside(run) if outside else [])
    return "".join(_banner(caveat.kind, caveat.text) for caveat in found)


def split_html(run: Run) -> str:
    """The caveats as HTML, and for a split without a leak the result of its check."""
    about = run.facts("split.json")
    if _leak_caveats(about):
        return caveats_html(run)
    return f"{caveats_html(run)}<p>{escape(split_check(run.facts('dataset.json'), about))}</p>"


def weights_html(kind: str, explanation: str) -> str:
    """The weights that a notebook trains with, as HTML; a banner if they are random."""
    return _banner("weights", explanation) if kind == "random" else f"<p>{escape(explanation)}</p>"


def _banner(kind: str, text: str) -> str:
    colour = COLOURS[kind]
    return (
        f'<p style="border-left:6px solid {colour};padding:.5em 1em;color:{colour};'
        f'font-weight:bold">{escape(text)}</p>'
    )
