"""Names, numbers and tables as people read them, in notebooks, figures, report and model card."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS
from cytology.evaluation.statistics.metrics import METRICS, OF_PROBABILITIES
from cytology.run import BASELINE, ENSEMBLE, OUTSIDE, outside_title
from cytology.wording import TOO_FEW, UNDEFINED, counted, plural

HEADINGS = {name: name.upper() for name in ("f1", "auc", "p", "mcc", "ece", "ace")}
HEADINGS |= {f"auc_{name}": f"AUC {name}" for name in "first second lowest highest mixed".split()}
HEADINGS |= {"auc_pooled": "AUC, folds pooled", "auc_groups_alike": "AUC, groups alike"}
HEADINGS |= {"auc_change": "change of AUC (negative: worse)", "test_auc": "AUC on test"}
HEADINGS |= {"p_holm": "P (Holm)", "p_mcnemar": "P (McNemar)", "p_delong": "P (DeLong)"}
HEADINGS |= {"groups_malignant": "malignant groups", "groups_benign": "benign groups"}
HEADINGS |= {"brier": "Brier score", "inflation": "inflation (points)"}
HEADINGS |= {"latency": "ms per image", "megabytes": "MB"}
# The kinds of split in the leakage audit.
PROTOCOL_TITLE = {
    "images_random": "augment, then split at random",
    "copies_together": "copies of an image together",
    "patients_together": "whole groups together",
}
# Of numbers that are not shares.
FORMATS = dict.fromkeys(("inflation", "megabytes", "latency", "images_per_second"), ",.1f")
FORMATS |= dict.fromkeys(("feature_seconds", "training_seconds"), ",.1f")
FORMATS["largest_difference"] = ".1e"
DASH = "–"
NOT_SHOWN = "not shown"
# Columns that begin like this are metrics, too.
MORE_METRICS = ("auc_", "loss_", "calibration_", "difference")
# Why a number of a table may be missing, by its column.
WHY = UNDEFINED | dict.fromkeys(("p", "p_holm"), "one class only")
WHY |= dict.fromkeys(("auc_first", "auc_second", "auc_change", "auc_mixed"), "one class only")
WHY |= dict.fromkeys(("value", "chance", "difference"), "one class only, or the same everywhere")
WHY |= dict.fromkeys(("p_mcnemar", "p_delong"), "only where each group has one row")
WHY |= dict.fromkeys(OF_PROBABILITIES, "undefined for a share of votes")
WHY |= dict.fromkeys(("slope", "intercept"), "undefined for steps")
WHY |= {"loss_change": "nothing was changed", "malignant_unreferred": "all are referred"}
WHY |= {"calibration_slope": "no mistakes, or no differences, to estimate it from"}
WHY |= {"calibration_in_the_large": "one class only", "inflation": "only for true labels"}


def title(model: str) -> str:
    """A model's name for readers, such as `DenseNet121, 8 orientations` or `the ensemble`."""
    first, *rest = model.split(", ")
    if first.startswith(OUTSIDE):
        return ", ".join([outside_title(first), *rest])
    name = "the ensemble" if first == ENSEMBLE else NETWORK_TITLE.get(first, first)
    return ", ".join([name.replace(BASELINE, "size and colour"), *rest])


def groups_in_words(row, unit: str) -> str:
    """`20 patients: 12 malignant, 8 benign`, from the columns `groups` of a row."""
    malignant, benign = (row.get(f"groups_{name}", np.nan) for name in ("malignant", "benign"))
    said = counted(int(row["groups"]), unit, plural(unit))
    if pd.isna(malignant):  # earlier versions did not count them
        return said
    if malignant + benign > row["groups"]:
        return f"{said}: {malignant:.0f} with malignant images, {benign:.0f} with benign ones"
    return f"{said}: {malignant:.0f} malignant, {benign:.0f} benign"


def too_few(row, name: str, unit: str = "group") -> str:
    """Why a metric of a row is not shown: it is based on fewer than five groups; else empty.

    Sensitivity is based on malignant groups, specificity on benign ones, all others on both.
    """
    of_test = "test_" if name.startswith("test_") else ""
    metric = name.removeprefix("test_")
    if not is_metric(metric):
        return ""
    only = {"recall": ("malignant",), "specificity": ("benign",)}
    for label in only.get(metric, ("malignant", "benign")):
        groups = row.get(f"{of_test}groups_{label}", FEWEST_GROUPS)
        if groups < FEWEST_GROUPS:
            of_class = counted(int(groups), f"{label} {unit}", f"{label} {plural(unit)}")
            return f"{NOT_SHOWN}: {of_class}"
    return ""


def is_metric(name: str) -> bool:
    """Whether a column holds a metric, and not a name, a count or a setting."""
    return name in METRICS or name.startswith(MORE_METRICS)


def rests_on_too_few(row, names) -> bool:
    """Whether none of the metrics among the columns `names` is shown; False without metrics."""
    metrics = [name for name in names if is_metric(name)]
    return bool(metrics) and all(too_few(row, name) for name in metrics)


def capital(sentence: str) -> str:
    """A sentence or name with its first letter in upper case, the rest unchanged."""
    return sentence[:1].upper() + sentence[1:]


def heading(column: str) -> str:
    """A column's name for readers."""
    return HEADINGS.get(column, column.replace("_", " "))


def is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers; true and false count as words."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def are_counts(column: pd.Series) -> bool:
    """Whether a column holds whole numbers, and not only shares of 0 and 1."""
    if pd.api.types.is_integer_dtype(column):
        return True
    known = column.dropna()
    return len(known) > 0 and bool((known % 1 == 0).all()) and known.max() > 1


def number(value: float, column: pd.Series) -> str:
    """A number as text: counts with thousands separators, shares with 3 decimals, P from 0.001."""
    if pd.isna(value):
        return DASH
    if np.isinf(value):
        return "∞" if value > 0 else "\N{MINUS SIGN}∞"
    name = str(column.name)
    if (name == "p" or name.startswith("p_")) and value < 0.001:
        return "< 0.001"
    if are_counts(column) and name not in FORMATS and value % 1 == 0:
        return f"{value:,.0f}"
    largest = column[np.isfinite(column)].abs().max()  # NaN if nothing is finite
    shape = FORMATS.get(name, ",.1f" if largest >= 100 else ".3f")
    mantissa, e, exponent = f"{value:{shape}}".partition("e")
    if not set(mantissa) & set("123456789"):  # no minus before a zero
        mantissa = mantissa.lstrip("-")
    return mantissa.replace("-", "\N{MINUS SIGN}") + e + exponent


def interval(row: pd.Series, name: str, column: pd.Series) -> str:
    """The bounds `name_low` and `name_high` of a number: `0.745 to 0.870`; empty if none."""
    low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
    if pd.isna(low) or pd.isna(high) or too_few(row, name):
        return ""
    return f"{number(low, column)} to {number(high, column)}"


def number_or_not_shown(row: pd.Series, name: str, column: pd.Series) -> str:
    """A number of a column, or `NOT_SHOWN`."""
    if pd.notna(row[name]) and too_few(row, name):
        return NOT_SHOWN
    return number(row[name], column)


def number_with_interval(row: pd.Series, name: str, column: pd.Series, apart: str = " ") -> str:
    """A number of a column with its interval, if it has one: `0.812 (0.745 to 0.870)`."""
    bounds = interval(row, name, column)
    return number_or_not_shown(row, name, column) + (f"{apart}({bounds})" if bounds else "")


def is_empty(column: pd.Series) -> bool:
    """Whether a column is completely empty, in a table with rows."""
    return len(column) > 0 and bool((column.isna() | (column == "")).all())


def gaps(table: pd.DataFrame, columns) -> str:
    """Which numbers and intervals are missing in some columns, and why; empty if none."""
    numbers = [name for name in columns if is_number(table[name])]
    lacking: dict[str, list[str]] = {}
    for name in numbers:
        if table[name].isna().any():
            lacking.setdefault(WHY.get(name, "could not be computed"), []).append(heading(name))
    said = [f"No {', no '.join(names)}: {why}." for why, names in lacking.items()]
    rows = [row for _, row in table.iterrows()]
    if any(pd.notna(row[name]) and too_few(row, name) for name in numbers for row in rows):
        said.append(
            f"Not shown: metrics of fewer than {FEWEST_GROUPS} malignant or benign groups; the "
            "file has them."
        )
    alone = [
        min(row.get("groups_malignant", 0), row.get("groups_benign", 0))
        for name in numbers
        for row in rows
        if pd.notna(row[name]) and pd.isna(row.get(f"{name}_low", 0)) and not too_few(row, name)
    ]
    if alone:
        enough = all(groups >= FEWEST_GROUPS for groups in alone)
        why = "its groups are all alike" if enough else TOO_FEW
        said.append(f"Numbers without an interval: {why}.")
    return " ".join(said)


def value_in_words(value, column: str) -> str:
    """A value that is not a number, in words; empty if it is missing."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if pd.isna(value):
        return ""
    if column in ("architecture", "model", "first", "second") and value:
        return capital(title(str(value)))
    return PROTOCOL_TITLE.get(value, str(value)) if column == "protocol" else str(value)


def readable(table: pd.DataFrame, columns: str) -> Styler:
    """Some columns of a table, styled for a reader: numbers with their intervals below.

    `columns` are names separated by spaces; columns that are missing or hold no words are left
    out. Networks have their titles. A note below explains what could not be computed.
    """
    cells, aligned = {}, {}
    table = table.infer_objects()
    names = [name for name in columns.split() if name in table]
    names = [name for name in names if is_number(table[name]) or not is_empty(table[name])]
    for name in names:
        column, side = table[name], "left"
        if is_number(column):
            side = "right"
            cells[heading(name)] = [
                number_with_interval(row, name, column, "\n") for _, row in table.iterrows()
            ]
        else:
            cells[heading(name)] = [value_in_words(value, name) for value in column]
        props = f"text-align: {side}; white-space: pre"
        aligned[heading(name)] = [{"selector": "td, th", "props": props}]
    style = pd.DataFrame(cells).style.format(escape="html").format_index(escape="html", axis=1)
    style = style.hide(axis="index").set_table_styles(aligned)
    below = [{"selector": "caption", "props": "caption-side: bottom; text-align: left"}]
    note = gaps(table, names)
    return style.set_caption(note).set_table_styles(below, overwrite=False) if note else style
