"""TRIPOD+AI item by item: what a run answers, and what its author has to write.

The items and their numbers are those of Collins et al., BMJ 2024;385:e078378 (CC BY), in our own
words, with the number of the same item in CLAIM 2024 (Tejani et al., Radiol Artif Intell
2024;6:e240300), if there is one. They stand in `checklist.csv`: in `found` the files of a run that
answer an item, each with what it says, as `a.csv: this; b.csv: that`; in `author` what they leave
open.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.catalogue import entry_of, written_by
from cytology.report.discreet import folder_name
from cytology.report.model_card import as_code, text
from cytology.run import Run
from cytology.wording import join_words, plural

NAME = "checklist.md"
DONE, PARTLY, AUTHOR = "done by the run", "partly", "for the author"
ITEMS = Path(__file__).with_name("checklist.csv")


@dataclass(frozen=True)
class AnsweredItem:
    """An item, and how far a run answers it.

    `found` holds what is said, and the files of the run that say it; `missing` names those that
    are not there.
    """

    item: str
    section: str
    claim: str
    topic: str
    asks: str
    state: str
    found: tuple[tuple[str, list[str]], ...]
    missing: str
    author: str


def checklist(run: Run) -> dict[str, Any]:
    """The answered items by section, in `sections`, and how many have each state, in `counts`."""
    found = answered_items(run)
    states = Counter(each.state for each in found)
    return {
        "sections": [(name, [*group]) for name, group in groupby(found, lambda each: each.section)],
        "counts": {state: states[state] for state in (DONE, PARTLY, AUTHOR)},
    }


def answered_items(run: Run) -> list[AnsweredItem]:
    """Every item of TRIPOD+AI, answered by the files that lie in the run."""
    items = pd.read_csv(ITEMS, dtype=str, keep_default_na=False).to_dict("records")
    unit = run.facts_if_there("split.json").get("unit", "group")
    return [answer_item(run, item, unit) for item in items]


def answer_item(run: Run, item: dict[str, str], unit: str) -> AnsweredItem:
    """One item: done if all of its files are there and leave nothing open, partly if some are."""
    item = {
        key: words.replace("{units}", plural(unit)).replace("{unit}", unit)
        for key, words in item.items()
    }
    pairs = [each.split(": ", 1) for each in item["found"].split("; ") if each]
    wanted = [(says, matching_files(run, name)) for name, says in pairs]
    found = tuple((says, names) for says, names in wanted if all(map(run.has, names)))
    missing = [name for _, names in wanted for name in names if not run.has(name)]
    state = AUTHOR
    if found:
        state = PARTLY if missing or item["author"] else DONE
    told = {key: item[key] for key in ("item", "section", "topic", "asks", "author")}
    claim = ", ".join(item["claim"].split())
    lacking = join_words(map(with_writer, missing)) if missing else ""
    return AnsweredItem(**told, claim=claim, state=state, found=found, missing=lacking)


def matching_files(run: Run, name: str) -> list[str]:
    """The files that a name of `checklist.csv` stands for: with `NETWORK/` one a network."""
    if not name.startswith("NETWORK/"):
        return [name]
    networks = run.networks or ARCHITECTURE_NAMES[:1]
    return [name.replace("NETWORK", network) for network in networks]


def with_writer(name: str) -> str:
    """A file that is missing, with what writes it."""
    entry = entry_of(name)
    return f"{name} (from {written_by(name) or entry.writer})" if entry else name


def write_checklist(run: Run, name: str = "") -> Path:
    """Write `checklist.md` of a run; returns its path. `name` is what it calls the folder."""
    from jinja2 import Environment, FileSystemLoader

    # Markdown, no HTML: its filter `text` escapes what both would read into words.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"text": text, "code": as_code}
    page = environment.get_template(f"{NAME}.jinja")
    run.write(NAME, page.render(run=name or folder_name(run), **checklist(run)))
    return run / NAME
