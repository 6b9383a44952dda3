"""What no sentence of ours may hold: numbers that could not be computed, and bad grammar."""

import re

WRONG = re.compile(
    r"\b(nan|NaN|NaT|inf|Infinity)\b|<NA>|\bNone\b(?! in this run folder)|[∞{}]"
    r"|[-\N{MINUS SIGN}]0(\.0+)?(?![\d.])"  # a minus before a zero
)
BARE = re.compile(r"no interval(?!: \w)")  # without a reason
SINGULAR = re.compile(r"(?<![\d.,])1 (patients|slides|images|groups|networks|seeds)\b")
EACH = (WRONG, BARE, SINGULAR)
