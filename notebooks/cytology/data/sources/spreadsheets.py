"""CSV files that a person made, in whatever way their spreadsheet writes them.

Commas, semicolons or tabs, or what a first line `sep=;` names; UTF-8 with or without a byte-order
mark, or Excel's UTF-16; names of columns in any letter case. What cannot be read without guessing
is refused in one sentence.
"""

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from cytology.settings import InputError
from cytology.wording import normalized

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SEPARATORS = ",;\t"
DECLARED = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)


def read_spreadsheet(path: Path, parameter: str) -> pd.DataFrame:
    """A CSV file as text: columns by their names in lower case, cells `normalized`.

    Cells that are missing at the end of a row are empty; the index is the number of the row in the
    file.
    `parameter` is what the user knows the file by. Raises `InputError` with the line for anything
    that is no table.
    """
    lines, start = text_of(path, parameter), 2
    first, _, rest = lines.partition("\n")
    declared = DECLARED.fullmatch(first.strip())
    if declared:  # Excel's own line, which says how to read those that follow
        lines, separator, start = rest, declared[1], 3
    else:
        separator = max(SEPARATORS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(lines, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(f"`{parameter}`: {path} is no readable CSV: {error}.") from None
    cells = [[normalized(cell) for cell in row] for row in rows]
    if not cells or not any(cells[0]):
        raise InputError(f"`{parameter}`: {path} has no names of columns in its first line.")
    header = [name.lower() for name in cells[0]]
    numbered = dict(enumerate(cells[1:], start))
    for number, row in numbered.items():
        if any(row[len(header) :]):
            raise InputError(
                f"`{parameter}`: {path} has {len(row)} cells in row {number}, and {len(header)} "
                "names of columns in its first line."
            )
    numbered = {number: row for number, row in numbered.items() if any(row)}
    body = [(row + [""] * len(header))[: len(header)] for row in numbered.values()]
    return pd.DataFrame(body, index=list(numbered), columns=header, dtype=str)


def text_of(path: Path, parameter: str) -> str:
    """The text of a file in UTF-8 or, with its mark, UTF-16; `InputError` for anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"`{parameter}`: {path} cannot be read: {error.strerror}.") from None
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    try:
        text = content[len(mark) :].decode(MARKS.get(mark, "utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"`{parameter}`: {path} is no text in UTF-8 (line {line}): save it as 'CSV UTF-8'."
        ) from None
    if "\0" in text:
        raise InputError(f"`{parameter}`: {path} holds bytes that are no text: save it as CSV.")
    return text
