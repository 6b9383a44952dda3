"""Text: numbers and lists as words, and what can stand in a name, a message, a table."""

import math
import os
import re
import unicodedata

# Why a metric does not exist where `classification_metrics` gives NaN.
UNDEFINED = dict.fromkeys(
    ("auc", "average_precision", "mcc", "balanced_accuracy"), "one class only"
)
UNDEFINED |= {"recall": "no malignant image", "specificity": "no benign image"}
UNDEFINED |= {"precision": "nothing called malignant", "f1": "nothing malignant, nor called so"}
UNDEFINED |= {"negative_predictive_value": "nothing called benign"}
TOO_FEW = "groups too few or too alike"
NO_INTERVAL = f"no interval: {TOO_FEW}"


def is_one_line(text: str) -> bool:
    """Whether text can name a file or stand in a message: no line break, NUL or half a letter."""
    odd = ("Cc", "Cs", "Zl", "Zp")  # control, half of a pair, line and paragraph separators
    return not any(unicodedata.category(character) in odd for character in text)


# What a spreadsheet takes for a formula where a cell begins with it, also after a semicolon, at
# which the Excel of many countries parts a line, and in the wide letters of Japan's. A minus before
# a number is none, unless more follows that could call something.
FORMULA = re.compile(
    r"(?:^|[;\t\r\n])\s*(?:[=+@\uff0b\uff1d\uff20]|[-\uff0d](?!\d[^(|!]*$))|^[\t\r\n]"
)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet that opens a table with this text might compute or call something."""
    return FORMULA.search(text) is not None


def printable(text: str) -> str:
    """Text that can stand in a message and in any table: what cannot is written `\\xfc`, `\\n`.

    That are bytes that are no UTF-8, line breaks, and the first letter of a formula (`\\u003d`).
    """
    if not is_one_line(text):
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
        text = "".join(c if is_one_line(c) else c.encode("unicode_escape").decode() for c in text)
    return FORMULA.sub(lambda found: f"{found[0][:-1]}\\u{ord(found[0][-1]):04x}", text)


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC), to compare: a Mac writes `é` as two characters."""
    return unicodedata.normalize("NFC", text)


def normalized(text: str) -> str:
    """A name that a person gave, `composed` and without blanks around it."""
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
    """A name for a figure: its begin and an ellipsis, where it is longer than 40 letters."""
    return name if len(name) <= 40 else f"{name[:39]}…"


def some(words: list[str], most: int = 3) -> str:
    """The first words of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def span(row, name: str, before: str = "", shape: str = "z.3f") -> str:
    """The interval of `name` in words, after the words `before`; where there is none, why."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return NO_INTERVAL if math.isnan(low) else f"{before}{low:{shape}} to {high:{shape}}"


def with_span(row, name: str, before: str = "") -> str:
    """A number of a row and in brackets its interval; where it does not exist, why."""
    if math.isnan(row[name]):
        return f"not known ({UNDEFINED.get(name, 'one class only')})"
    return f"{row[name]:z.3f} ({span(row, name, before)})"


def p_in_figures(p: float) -> str:
    """A P value with two figures, never zero."""
    return "not known" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "below 0.001"


def joined(names) -> str:
    """`A`, `A and B`, `A, B and C`."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Words for a unit that say that it is a whole person.
PERSONS = {"patient", "person", "woman", "case", "donor", "subject", "participant"}


def is_person(unit: str) -> bool:
    """Whether what is kept together is a whole person, as far as its name tells."""
    return not PERSONS.isdisjoint(unit.lower().split())


def about_patients(images: int, unknown: int, unit: str) -> list[str]:
    """What is not known of the patients of `images`, in a sentence or two; none if all are known.

    `unit` is what was kept together; of `unknown` images nobody knows it.
    """
    too_good = "are of one patient, these numbers are too good and these intervals too narrow."
    if unknown == images:
        return [
            "Whose the images are is not known: nothing but the copies of an image was kept "
            f"together. If several {too_good}"
        ]
    alone = (
        f"{unknown:,} of {images:,} images have no {unit}, and each, with its copies, counts as a "
        "group of its own."
    )
    if not is_person(unit):
        said = f"Patients are not known: {plural(unit)} were kept together. If several {too_good}"
        return [f"{said} {alone}" if unknown else said]
    return [f"{alone} If several {too_good}"] if unknown else []
