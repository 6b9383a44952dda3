"""The model card of a run: who may use its networks for what, and how far they can be trusted.

The questions are those of Mitchell et al. 2019 (doi 10.1145/3287560.3287596). All answers come
from the run's own files; what is not there is said, with the notebook that writes it.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from cytology.architectures import NETWORK_TITLE, TRAINING_NOTEBOOKS
from cytology.catalogue import READS, entry_of, written_by
from cytology.evaluation.caveats import about_outside, caveats, split_check
from cytology.evaluation.readable import (
    DASH,
    capital,
    gaps,
    is_empty,
    is_number,
    number_with_interval,
    rests_on_too_few,
    title,
)
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS
from cytology.files import file_hash
from cytology.machine import versions
from cytology.networks.engines import TITLES
from cytology.report.discreet import facts, folder_name, without_paths
from cytology.report.known_failures import known_failures
from cytology.run import Run
from cytology.wording import plural

NAME = "model_card.md"
MOST_TEXT = 100_000  # characters that are read as Markdown; a card has some 20,000
MOST_PARAGRAPH = 8_000
# What a card draws on; of `NETWORK/` files only those of networks that the run holds.
# Models from outside, whose names have a star, need not be there.
SOURCES = (*(name for name in READS["13_export"] if "*" not in name),)
SOURCES += ("tables/robustness.csv", "tables/explanation_checks.csv", "tables/exports.csv")
SOURCES += ("run.json",)
DOMAINS = ("site", "stain", "magnification", "subtype", "category")
RESULTS = {"model": "what", "level": "by", "judged_on": "judged", "images": "images"}
RESULTS |= {"groups": "groups", "groups_malignant": "malignant", "groups_benign": "benign"}
RESULTS |= {"auc": "AUC", "accuracy": "accuracy", "recall": "sensitivity"}
RESULTS |= {"specificity": "specificity", "loss": "log loss", "ece": "ECE"}
THRESHOLDS = {"rule": "rule", "chosen_on": "chosen on", "threshold": "raw probability"}
THRESHOLDS |= {"threshold_logit": "logit", "judged_on": "judged", "recall": "sensitivity"}
THRESHOLDS |= {"specificity": "specificity", "note": "note"}
CALIBRATIONS = {"method": "method", "fitted_on": "fitted on", "slope": "slope"}
CALIBRATIONS |= {"intercept": "intercept", "judged_on": "judged"}
CALIBRATIONS |= {"calibration_in_the_large": "calibration in the large"}
CALIBRATIONS |= {"calibration_slope": "calibration slope", "loss": "log loss"}
CALIBRATIONS |= {"brier": "Brier score", "ece": "ECE"}
CALIBRATIONS |= {"note": "note"}
SHIFTED = {"shift": "shift", "amount": "amount", "auc": "AUC"}
SHIFTED |= {"auc_change": "change of AUC (minus: worse)"}
CHECKS = {"check": "check", "value": "heat", "chance": "compared with", "chance_of": "which is"}
CHECKS |= {"difference": "difference", "passed": "passed", "images": "images"}
EXPORTED = {"format": "format", "file": "file", "megabytes": "MB", "latency": "ms per image"}
EXPORTED |= {"largest_difference": "largest difference of the logit"}
EXPORTED |= {"changed_decisions": "changed decisions", "images": "of images", "agrees": "agrees"}


def write_model_card(run: Run, shared: Run | None = None, name: str = "") -> Path:
    """Write `model_card.md` of a run, or of its copy `shared`; see `card_of`. Returns its path."""
    (shared or run).write(NAME, card_of(run, shared, name))
    return (shared or run) / NAME


def card_of(run: Run, shared: Run | None = None, name: str = "") -> str:
    """The model card of a run as Markdown, from the files that exist.

    With `shared`, a copy of the run that names nobody, the card only has the facts that are still
    in the copy's `run.json` and `dataset.json`. `name` is what the card calls the folder.
    """
    from jinja2 import Environment, FileSystemLoader

    # Markdown, no HTML: its filter `text` escapes what both would read into words.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"text": text, "code": as_code, "title": NETWORK_TITLE.get}
    card = environment.get_template(f"{NAME}.jinja").render(
        card_contents(run, shared or run, name or folder_name(run))
    )
    return re.sub(r"\n{3,}", "\n\n", card).strip() + "\n"


def card_html(run: Run) -> str:
    """The run's card as HTML for a page with its own headings; empty without a card."""
    import mistune

    class Below(mistune.HTMLRenderer):
        # No picture: an address would tell a stranger who opens the page, when and where.
        def image(self, text, url, title=None):
            return text  # which is HTML already

        def heading(self, text, level, **attributes):
            return super().heading(text, min(level + 2, 6), **attributes)

    path = run / NAME
    if not path.is_file():
        return ""
    card = path.read_text(encoding="utf-8")
    # Twice the text takes mistune four times as long, if it is made so: no card of ours is.
    if len(card) > MOST_TEXT or max(map(len, card.split("\n\n"))) > MOST_PARAGRAPH:
        return f"<pre>{mistune.escape(card[:MOST_TEXT])}</pre>"
    page = mistune.create_markdown(renderer=Below(escape=True), plugins=["table"])
    # Wide tables scroll on their own.
    html = str(page(card))
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table class="results">')
    return html.replace("</table>", "</table></div>")


def card_contents(run: Run, shown: Run, name: str) -> dict[str, Any]:
    """Everything that the card says, read from the run; of its facts what `shown` has."""
    (record, dataset), names = facts(shown), run.networks
    split = run.facts_if_there("split.json")
    unit = split.get("unit", "group")
    said = [caveat.text for caveat in caveats(run) + about_outside(run)]
    if "notes" in dataset:
        dataset["notes"] = [note for note in dataset["notes"] if note not in said]
    return {
        "run": name,
        "names": names,
        "record": record,
        "versions": record.get("versions") or versions(),
        "caveats": said,
        "dataset": dataset,
        "split": split,
        "checked": split_check(dataset, split),
        "unit": unit,
        "units": plural(unit),
        "domains": domains(run),
        "networks": [network(run, name, record, unit) for name in names],
        "engines": TITLES,
        "others": others(run, names, unit),
        "failures": known_failures(run, names, unit),
        "missing": missing(run, names),
    }


def domains(run: Run) -> dict[str, str]:
    """How many images each stain, site and so on has, if the manifest knows them."""
    manifest = run.rows("manifest.csv")
    counts = {
        name: manifest.loc[manifest[name] != "", name].value_counts()
        for name in DOMAINS
        if name in manifest
    }
    return {
        name: ", ".join(f"{value} ({count:,})" for value, count in found.items())
        for name, found in counts.items()
        if len(found)
    }


def network(run: Run, name: str, record: dict, unit: str) -> dict:
    """What the card says of one network."""
    notebook = record.get("notebooks", {}).get(TRAINING_NOTEBOOKS[name], {})
    parameters = notebook.get("parameters", {})
    if parameters:
        parameters = run.facts_if_there("augmentation.json") | parameters
    shifted = run.rows("tables/robustness.csv", architecture=name)
    if len(shifted):
        strength = record.get("parameters", {}).get("reference_strength", 3)
        shifted = shifted[shifted["strength"].isin([0, strength])]
    checks = run.rows("tables/explanation_checks.csv", architecture=name)
    fitted = run.rows("tables/calibration.csv", model=name)
    # Isotonic steps are not what the files are used with.
    fitted = fitted[fitted["method"] != "isotonic"] if len(fitted) else fitted
    return {
        "title": NETWORK_TITLE[name],
        "name": name,
        "about": without_paths(run.facts_if_there(f"{name}/metrics.json"), {}),
        "timing": run.facts_if_there(f"{name}/timing.json"),
        "parameters": parameters,
        "results": markdown(result_rows(run, name), RESULTS | {"groups": plural(unit)}),
        "thresholds": markdown(run.rows("tables/thresholds.csv", model=name), THRESHOLDS),
        "calibrations": markdown(fitted, CALIBRATIONS),
        "shifted": markdown(shifted, SHIFTED),
        "checks": markdown(checks, CHECKS),
        "exports": markdown(run.rows("tables/exports.csv", architecture=name), EXPORTED),
        "files": files(run, name),
    }


def result_rows(run: Run, name: str) -> pd.DataFrame:
    """The network's rows of `comparison_all.csv`; without that table those of `comparison.csv`."""
    rows = run.rows("tables/comparison_all.csv", model=name)
    if rows.empty:
        rows = run.rows("tables/comparison.csv", architecture=name)
        rows = rows.assign(model=name, level="image") if len(rows) else rows
    return with_titles(rows)


def others(run: Run, names: list[str], unit: str) -> str:
    """The rows of `comparison_all.csv` that are not a single network: ensemble, baseline."""
    rows = run.rows("tables/comparison_all.csv", level="image")
    rows = rows[~rows["model"].isin(names)] if len(rows) else rows
    return markdown(with_titles(rows), RESULTS | {"groups": plural(unit)})


def with_titles(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the names of models as a reader knows them."""
    if rows.empty:
        return rows
    return rows.assign(model=[capital(title(name)) for name in rows["model"]])


def files(run: Run, name: str) -> list[dict]:
    """The network's own files: name, MB and hash."""
    return [
        {
            "file": f"{name}/{path.name}",
            "megabytes": path.stat().st_size / 1e6,
            "sha256": file_hash(path),
        }
        for path in sorted((run / name).glob("model.*"))
    ]


def missing(run: Run, names: list[str]) -> list[dict[str, str]]:
    """The missing files: name, what the card would say with it, what writes it."""
    others = {*TRAINING_NOTEBOOKS} - {*names}
    return [
        {"file": file, "adds": entry.says, "writer": written_by(file) or entry.writer}
        for file in SOURCES
        if file.split("/")[0] not in others
        and not run.has(file)
        and (entry := entry_of(file)) is not None
    ]


# ---------------------------------------------------------------------- Markdown


def markdown(rows: pd.DataFrame, columns: dict[str, str]) -> str:
    """Columns of a table (name: heading) in Markdown, numbers with their intervals; or nothing.

    Rows whose metrics all rest on too few groups are left out, and a note says so, unless there
    are no others.
    """
    names = [name for name in columns if name in rows and not is_empty(rows[name])]
    if rows.empty or not names:
        return ""
    shown = [not rests_on_too_few(row, names) for _, row in rows.iterrows()]
    few = any(shown) and not all(shown)
    rows = rows[shown] if few else rows
    cells = [[text(columns[name]) for name in names]]
    cells.append(["---:" if is_number(rows[name]) else "---" for name in names])
    cells += [[card_cell(row, name, rows[name]) for name in names] for _, row in rows.iterrows()]
    lines = [f"| {' | '.join(line)} |" for line in cells]
    few_groups = f"fewer than {FEWEST_GROUPS} malignant or benign groups"
    notes = [f"Left out: rows of {few_groups}; the file has them."] if few else []
    notes += [note] if (note := gaps(rows, names)) else []
    return "\n".join(lines + (["", " ".join(notes)] if notes else []))


def card_cell(row: pd.Series, name: str, column: pd.Series) -> str:
    """A value as the card shows it: `0.812 (0.745 to 0.870)`, `yes`, a name."""
    value = row[name]
    if isinstance(value, str):
        return text(value)
    if pd.api.types.is_bool(value):
        return "yes" if value else "**no**"
    if pd.isna(value):
        return DASH
    return text(number_with_interval(row, name, column))


def text(value) -> str:
    """Text from a user or a table; what Markdown or HTML would interpret is escaped."""
    escaped = re.sub(r"([\\`*<>\[\]|~&])", r"\\\1", " ".join(str(value).split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def as_code(value) -> str:
    """A path or a name as it is, set as code."""
    plain = " ".join(str(value).split()).replace("`", "'")
    return f"`{plain}`" if plain else ""
