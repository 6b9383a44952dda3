"""The HTML page of a run: one file that needs no network and no other file.

Its only script moves two sliders; if scripts are off, a table replaces them.

The page is made from the files in the run folder. It names the notebook that writes each missing
file, so a run that stopped half-way has a report, too.
"""

import shlex
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cytology.architectures import NETWORK_TITLE
from cytology.catalogue import VERIFICATION, WRITTEN_BY
from cytology.evaluation.caveats import about_outside, caveats
from cytology.evaluation.place_sentences import in_percent
from cytology.evaluation.places import CLINIC_ACTS_FROM
from cytology.evaluation.summary import BASELINE_SAYS, LEAKS, RANDOM
from cytology.inference.place import sentences_of_run
from cytology.parameters import meaning
from cytology.report.advice import recommendation, short_summary
from cytology.report.checklist import checklist
from cytology.report.discreet import facts, folder_name
from cytology.report.elsewhere import SCRIPT, calls_of_run, policy_of, shares_shown
from cytology.report.first_lines import lines
from cytology.report.model_card import card_html
from cytology.report.page_parts import POLICY, Figure, by_number, embedded_figures, link_to
from cytology.report.page_tables import result_table
from cytology.run import Run
from cytology.wording import counted, join_words, plural

# Columns of the longer tables that fit a page; the files have them all.
MAIN_SHOWN = (
    "architecture weights auc accuracy recall specificity precision malignant_share f1 mcc loss "
    "ece images groups groups_malignant groups_benign judged_on test_auc test_groups recipe "
    "protocol"
)
PAIRS_SHOWN = (
    "level first second images groups auc_first auc_second difference p p_holm separated "
    "p_mcnemar p_delong weights protocol"
)
THRESHOLDS_SHOWN = (
    "model rule chosen_on threshold judged_on groups recall specificity precision "
    "negative_predictive_value malignant_share note weights protocol"
)
CALIBRATION_SHOWN = (
    "model method fitted_on judged_on calibration_in_the_large calibration_slope loss loss_change "
    "brier ece ace slope intercept note weights protocol"
)
PREVALENCE_SHOWN = (
    "model prevalence recall specificity precision negative_predictive_value false_alarms "
    "net_benefit judged_on weights protocol"
)
REFERRAL_SHOWN = (
    "model judged_on promised patients needed level limit referred missed malignant_unreferred "
    "spared weights protocol"
)
ALL_SHOWN = (
    "model level judged_on images groups groups_malignant groups_benign auc auc_pooled "
    "auc_groups_alike accuracy recall specificity loss weights protocol"
)
SUBGROUPS_SHOWN = (
    "model column subgroup images groups auc recall specificity too_few judged_on weights protocol"
)
EXPLANATION_SHOWN = (
    "architecture check value chance chance_of difference passed images groups judged_on weights "
    "protocol"
)
SHOWN_PAIRS = {"family": ("networks", "outside")}
# Where a figure stands in the report, by its notebook; some by their own names.
SECTION_OF = {
    **dict.fromkeys(("01", "02", "03"), "more_data"),
    **dict.fromkeys(("01_gallery", "03_given_split", "03_who_is_where"), "data"),
    **dict.fromkeys(("09", "13"), "use"),
    "07": "comparison",
    "07_1_auc": "answer",
    "08": "decisions",
    **dict.fromkeys(("07_6_doubtful", "12_4_neighbours"), "mistakes"),
    "10": "audit",
    "11": "robustness",
    "12": "explanation",
    "14": "next_study",
}
SECTIONS = (*sorted(set(SECTION_OF.values())), "training")


def write_report(run: Run, name: str = "") -> Path:
    """Write `report.html` of a run from the files that exist; returns its path.

    `name` is what the page calls the folder, if that is not its own name. The page names no
    patient and no file of images, and no path of this machine.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "when": when}
    page = environment.get_template("page.html.jinja").render(
        page_contents(run, name or folder_name(run))
    )
    run.write("report.html", page)
    return run / "report.html"


def page_contents(run: Run, name: str) -> dict[str, Any]:
    """Everything that the page shows, read from the run."""
    record, dataset = facts(run)
    said = without_caveats(paragraphs(run, "tables/summary.md"))
    taken, advice = recommendation(run)
    split, warnings, calls = run.facts_if_there("split.json"), caveats(run), calls_of_run(run)
    unit, kept = split.get("unit", "group"), dataset.get("unit", "group")
    if "notes" in dataset:
        texts = [caveat.text for caveat in warnings]
        dataset["notes"] = [note for note in dataset["notes"] if note not in texts]
    return {
        "run": name,
        "quoted": shlex.quote(name),
        "policy": POLICY + (policy_of(SCRIPT) if calls else ""),
        "networks": title_of(run.networks),
        "record": record,
        "caveats": warnings,
        "outside": [caveat.text for caveat in about_outside(run)],
        "answer": said[0] if said else "",
        "in_short": short_summary(run, taken),
        "lines": lines(run),
        "advice": advice,
        # What the first lines say is not said again.
        "summary": [each for each in said[1:] if not each.startswith(BASELINE_SAYS)],
        "figures": by_section(embedded_figures(run)),
        "link_to": partial(link_to, run),
        "dataset": dataset,
        "kept_together": counted(dataset.get("groups", 0), kept, plural(kept)),
        "split": split,
        "unit": unit,
        "comparison": result_table(run, "tables/comparison.csv", MAIN_SHOWN),
        "pairs": result_table(run, "tables/pairwise.csv", PAIRS_SHOWN, SHOWN_PAIRS),
        "comparison_all": result_table(run, "tables/comparison_all.csv", ALL_SHOWN),
        "decision_words": without_caveats(paragraphs(run, "tables/decisions.md")),
        "thresholds": result_table(run, "tables/thresholds.csv", THRESHOLDS_SHOWN),
        "calibration": result_table(run, "tables/calibration.csv", CALIBRATION_SHOWN),
        "prevalence": result_table(
            run, "tables/prevalence.csv", PREVALENCE_SHOWN, shares_shown(run)
        ),
        "acts_from": in_percent(CLINIC_ACTS_FROM),
        "calls": calls,
        "script": SCRIPT,
        "referral": result_table(run, "tables/referral.csv", REFERRAL_SHOWN),
        "use_words": sentences_of_run(run),
        "doubtful_words": paragraphs(run, "tables/doubtful_labels.md"),
        "audit": result_table(run, "tables/leakage_summary.csv"),
        "audit_words": paragraphs(run, "tables/leakage.md"),
        "robustness_words": paragraphs(run, "tables/robustness.md"),
        "subgroup_words": paragraphs(run, "tables/subgroups.md"),
        "next_words": paragraphs(run, "tables/planning.md"),
        "subgroups": result_table(run, "tables/subgroups.csv", SUBGROUPS_SHOWN),
        "explanation": result_table(run, "tables/explanation_checks.csv", EXPLANATION_SHOWN),
        "explanation_words": paragraphs(run, "tables/explanation.md"),
        "notebooks": notebooks(run, record),
        "verification": run.facts_if_there(VERIFICATION),
        "parameters": parameters(record),
        "model_card": card_html(run),
        "checklist": checklist(run),
        "written_by": WRITTEN_BY,
    }


def title_of(names: list[str]) -> str:
    """The networks `names` as written in the page's title; empty if there are none."""
    if not names:
        return ""
    return join_words(NETWORK_TITLE[name] for name in names) + (
        " compared" if len(names) > 1 else ""
    )


def by_section(figures: list[Figure]) -> dict[str, list[Figure]]:
    """The figures of each section of the page, in the order of the series."""
    found: dict[str, list[Figure]] = {section: [] for section in SECTIONS}
    for figure in sorted(figures, key=lambda each: (each.number, by_number(each.name))):
        section = SECTION_OF.get(figure.name) or SECTION_OF.get(figure.number, "training")
        found[section].append(figure)
    return found


def paragraphs(run: Run, name: str) -> list[str]:
    """The lines of a text that a notebook wrote, one per paragraph; empty if it is missing."""
    path = run / name
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip()]


def without_caveats(said: list[str]) -> list[str]:
    """The paragraphs; none if they only repeat a caveat, on a leak or on random weights."""
    return [] if said in [[text] for text in (*LEAKS.values(), RANDOM)] else said


# ------------------------------------------------------- notebooks, parameters


def notebooks(run: Run, record: dict) -> list[dict[str, Any]]:
    """One row per notebook, executed by `run_all.py` or found: link, status, seconds, memory."""
    entries = record.get("notebooks", {})
    folder = run / "notebooks"
    found = {path.stem for kind in ("*.html", "*.ipynb") for path in folder.glob(kind)}
    return [
        entries.get(name, {}) | {"name": name, "link": link(folder, name)}
        for name in sorted(found | entries.keys())
    ]


def link(folder: Path, name: str) -> str:
    """A relative address of the executed notebook: its page, else the notebook, else nothing."""
    for kind in ("html", "ipynb"):
        if (folder / f"{name}.{kind}").is_file():
            return quote(f"{folder.name}/{name}.{kind}")
    return ""


def parameters(record: dict) -> list[dict[str, Any]]:
    """One row per parameter: its value, its meaning, and the notebooks made with another value."""
    values = record.get("parameters", {})
    rows = []
    for name, value in values.items():
        others = [
            f"{notebook[:2]}: {entry['parameters'][name]}"
            for notebook, entry in record.get("notebooks", {}).items()
            if name in entry.get("parameters", {})
            and entry["parameters"][name] != value
            and name != "run_dir"
        ]
        shown = str(value).lower() if isinstance(value, bool | None) else value
        rows.append({"name": name, "value": shown, "meaning": meaning(name), "others": others})
    return rows


def duration(seconds: float | None) -> str:
    """Seconds in words: `8.4 s`, `3 min 05 s`, `1 h 12 min`."""
    if seconds is None:
        return "–"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def when(time: str | None) -> str:
    """A time of `run.json` as date and minutes."""
    return time[:16].replace("T", " ") if time else "–"
