"""Tables that a person made: .xlsx, or any CSV that a spreadsheet writes.

CSV has commas, semicolons, tabs, or the separator of a first line `sep=;`, in UTF-8 or, with a byte
order mark, Excel's UTF-16. Files that could only be read by guessing are refused.
"""

import codecs
import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd

from cytology.settings import InputError
from cytology.wording import normalized

SEPARATORS = ",;\t"
DECLARED = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
MOST_WORKBOOK_BYTES = 200_000_000  # of a workbook's XML: a zip bomb of some kilobytes has more
MOST_COLUMNS = 200


def read_spreadsheet(path: Path, parameter: str) -> pd.DataFrame:
    """A table as text: column names in lower case, cells `normalized`.

    Missing cells are empty; empty rows and empty columns without a name are left out; the index is
    the row number in the file. `parameter` is the parameter that named the file. Raises
    `InputError` for anything that is not a table.
    """
    read = rows_of_workbook if path.suffix.lower() == ".xlsx" else rows_of_csv
    rows = read(path, parameter).fillna("").map(normalized)
    if rows.empty or not (rows.iloc[0] != "").any():
        raise InputError(f"`{parameter}`: {path} has no column names in its first line.")
    used = (rows != "").any()
    table = rows.loc[:, used].iloc[1:]
    table.columns = rows.loc[:, used].iloc[0].str.lower().tolist()
    return table[(table != "").any(axis=1)]


def rows_of_csv(path: Path, parameter: str) -> pd.DataFrame:
    """Every row of a CSV, including the column names."""
    text = text_of(path, parameter)
    first = text.partition("\n")[0]
    declared = DECLARED.fullmatch(first.strip())  # Excel's own line that names the separator
    start = 1 if declared else 0
    separator = declared[1] if declared else max(SEPARATORS, key=first.count)
    # As wide as the longest row: spreadsheets often end rows with empty cells.
    width = min(MOST_COLUMNS, 1 + max(line.count(separator) for line in text.split("\n")))
    reading: dict[str, Any] = {"header": None, "dtype": str, "keep_default_na": False}
    reading |= {"skip_blank_lines": False, "skiprows": start, "index_col": False}
    try:
        rows = pd.read_csv(
            io.StringIO(text), sep=separator, engine="python", names=range(width), **reading
        )
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, ValueError) as error:
        raise InputError(f"`{parameter}`: {path} is not a readable CSV: {error}.") from None
    rows = rows.set_axis(rows.index + start + 1)
    names = int(
        rows.iloc[:1].notna().sum(axis=1).sum()
    )  # cells beyond the end of a row are missing
    beyond = rows.iloc[:, names:].fillna("").map(str.strip).ne("").any(axis=1)
    if beyond.any():
        raise InputError(
            f"`{parameter}`: {path} has a cell in row {beyond.idxmax()} to the right of its "
            f"{names} named columns."
        )
    return rows


def rows_of_workbook(path: Path, parameter: str) -> pd.DataFrame:
    """Every row of a workbook's first sheet; a note says if there are others."""
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(member.file_size for member in packed.infolist()) > MOST_WORKBOOK_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_WORKBOOK_BYTES:,} bytes")
        with warnings.catch_warnings(action="ignore"):  # about styles etc.
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheet, names = book.worksheets[0], book.sheetnames
            sheet.reset_dimensions()  # some programs write them wrongly
            cells = sheet.iter_rows(max_col=MOST_COLUMNS, values_only=True)
            rows = {
                number: list(map(text_of_cell, row))
                for number, row in enumerate(cells, 1)
                if number == 1 or row.count(None) < len(row)
            }
            book.close()
    except Exception as error:  # openpyxl raises a dozen types for damaged workbooks
        why = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"`{parameter}`: {path} is not a readable .xlsx file: {why}.") from None
    if len(names) > 1:
        print(f"NOTE: {path.name} has {len(names)} sheets; only the first, {names[0]!r}, is read.")
    return pd.DataFrame(list(rows.values()), index=list(rows))


def text_of_cell(cell: object) -> str:
    """What a cell of a workbook shows: 7 and not 7.0, a date without the time 00:00:00."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).removesuffix(" 00:00:00")


def text_of(path: Path, parameter: str) -> str:
    """The text of a file in UTF-8, or UTF-16 with a byte order mark; else `InputError`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"`{parameter}`: {path} cannot be read: {error.strerror}.") from None
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"`{parameter}`: {path} is not UTF-8 text (line {line}): save it as 'CSV UTF-8' or "
            "as .xlsx."
        ) from None
    if "\0" in text:
        raise InputError(f"`{parameter}`: {path} contains bytes that are not text: save it as CSV.")
    return text
