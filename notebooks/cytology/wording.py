"""Numbers and lists as text, and which text is safe in a name, a message or a table."""

import math
import os
import re
import unicodedata

# Why a metric is undefined when `classification_metrics` returns NaN.
UNDEFINED = dict.fromkeys(
    ("auc", "average_precision", "mcc", "balanced_accuracy"), "one class only"
)
UNDEFINED |= {"recall": "no malignant image", "specificity": "no benign image"}
UNDEFINED |= {"precision": "nothing called malignant", "f1": "nothing malignant, nor called so"}
UNDEFINED |= {"negative_predictive_value": "nothing called benign"}
TOO_FEW = "groups too few or too alike"
NO_INTERVAL = f"no interval: {TOO_FEW}"


def is_one_line(text: str) -> bool:
    """Whether text can be used in a file name or a message: no line break, NUL or half a letter."""
    odd = ("Cc", "Cs", "Zl", "Zp")  # control, half of a pair, line and paragraph separators
    return not any(unicodedata.category(character) in odd for character in text)


# What a spreadsheet takes for a formula at the start of a cell. Also after a semicolon, where Excel
# splits a line in many countries, and in full-width letters (Japan). A minus before a number is not
# a formula, unless something follows that could be a call.
FORMULA = re.compile(
    r"(?:^|[;\t\r\n])\s*(?:[=+@\uff0b\uff1d\uff20]|[-\uff0d](?!\d[^(|!]*$))|^[\t\r\n]"
)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet might execute this text as a formula."""
    return FORMULA.search(text) is not None


def printable(text: str) -> str:
    """Text made safe for messages and tables, with escapes such as `\\xfc` and `\\n`.

    This escapes bytes that are not UTF-8, line breaks, and a formula's first letter (`\\u003d`).
    """
    if not is_one_line(text):
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
        text = "".join(c if is_one_line(c) else c.encode("unicode_escape").decode() for c in text)
    return FORMULA.sub(lambda found: f"{found[0][:-1]}\\u{ord(found[0][-1]):04x}", text)


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC), for comparing: a Mac writes `é` as two characters."""
    return unicodedata.normalize("NFC", text)


def normalized(text: str) -> str:
    """A name that a person typed, `composed` and without surrounding blanks."""
    return composed(text).strip()


def plural(unit: str) -> str:
    """`patients`, `slides`, `fields of view`."""
    head, of, rest = unit.partition(" of ")
    return f"{head}s{of}{rest}"


COLOURS = {"data": "#8a5a00", "leak": "#b00020", "weights": "#8a5a00"}


def counted(number: int, one: str, several: str) -> str:
    """`1 image is` or `1,234 images are`."""
    return f"{number:,} {one if number == 1 else several}"


def shortened(name: str) -> str:
    """A name for a figure, cut to 40 letters with an ellipsis."""
    return name if len(name) <= 40 else f"{name[:39]}…"


def shorten_list(words: list[str], most: int = 3) -> str:
    """The first `most` words of a list as text, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def interval_text(row, name: str, before: str = "", shape: str = "z.3f") -> str:
    """The interval of `name` in words, after `before`; if there is none, the reason."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return NO_INTERVAL if math.isnan(low) else f"{before}{low:{shape}} to {high:{shape}}"


def with_interval(row, name: str, before: str = "") -> str:
    """A number of a row with its interval in brackets; if it is undefined, the reason."""
    if math.isnan(row[name]):
        return f"not known ({UNDEFINED.get(name, 'one class only')})"
    return f"{row[name]:z.3f} ({interval_text(row, name, before)})"


def p_in_figures(p: float) -> str:
    """A P value with two digits, never zero."""
    return "not known" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "below 0.001"


def join_words(names) -> str:
    """`A`, `A and B`, `A, B and C`."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Names of units that mean a whole person.
PERSONS = {"patient", "person", "woman", "case", "donor", "subject", "participant"}


def is_person(unit: str) -> bool:
    """Whether the unit that is kept together is a person, judged by its name."""
    return not PERSONS.isdisjoint(unit.lower().split())


def about_patients(images: int, unknown: int, unit: str) -> list[str]:
    """What is unknown about the patients of `images`, in sentences; empty if nothing is.

    `unit` is what was kept together; it is unknown for `unknown` images.
    """
    too_good = "come from one patient, these numbers are too good and these intervals too narrow."
    if unknown == images:
        return [
            "The patients are unknown: only copies of the same image were kept together. "
            f"If several images {too_good}"
        ]
    alone = (
        f"{unknown:,} of {images:,} images have no {unit}; each of them, with its copies, counts "
        "as one group."
    )
    if not is_person(unit):
        said = (
            f"The patients are unknown: {plural(unit)} were kept together. "
            f"If several {plural(unit)} {too_good}"
        )
        return [f"{said} {alone}" if unknown else said]
    return [f"{alone} If several of them {too_good}"] if unknown else []
