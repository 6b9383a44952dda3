"""The reporting checklist: the items of TRIPOD+AI, answered from the files of the run."""

import csv
import shutil

import mistune
import pytest

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.catalogue import entry_of
from cytology.report.checklist import AUTHOR, DONE, ITEMS, PARTLY, answered_items, write_checklist
from cytology.report.page import write_report
from cytology.run import Run

NUMBERS = """1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g
13 14 15 16 17 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c""".split()
EVIL = "<img src=x onerror=alert(1)> | [x](javascript:alert(2)) `code` *bold*"


def items():
    with ITEMS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_of(item):
    return [each.split(": ", 1)[0] for each in item["found"].split("; ") if each]


def states(folder):
    return {each.item: each.state for each in answered_items(Run(folder))}


@pytest.fixture
def complete(run):
    """A run that holds every file that an item names."""
    for item in items():
        for name in files_of(item):
            for network in ARCHITECTURE_NAMES if "NETWORK" in name else [""]:
                path = run / name.replace("NETWORK", network)
                if not path.exists():
                    path.touch()
    return run


def test_the_items_match_tripod_ai():
    assert [item["item"] for item in items()] == NUMBERS and len(NUMBERS) == 52
    claim = {int(number) for item in items() for number in item["claim"].split()}
    assert set(range(1, 45)) - claim == {11, 31}, "the page names these two"
    assert claim <= set(range(1, 45))


def test_each_item_names_a_catalogued_file_or_tells_the_author_what_to_write():
    for item in items():
        names = [name.replace("NETWORK", "mobilenetv2") for name in files_of(item)]
        assert any(map(entry_of, names)) or item["author"].endswith("."), item["item"]
        assert all(each.count(": ") == 1 for each in item["found"].split("; ") if each)


def test_for_an_empty_folder_all_items_are_open_and_name_their_notebook(tmp_path):
    found = {each.item: each for each in answered_items(Run(tmp_path))}
    assert {each.state for each in found.values()} == {AUTHOR}
    assert all(each.author or each.missing for each in found.values())
    assert found["12a"].missing == "split.json (from 03_splitting)"
    assert found["12g"].missing == "mobilenetv2/predictions.csv (from 04_train_mobilenetv2)"
    assert found["18f"].missing == "run.json (from run_all.py)"


def test_a_complete_run_answers_the_expected_items(complete):
    found = {each.item: each for each in answered_items(complete)}
    for item in items():
        named, open_ = bool(item["found"]), bool(item["author"])
        state = (PARTLY if open_ else DONE) if named else AUTHOR
        assert found[item["item"]].state == state
    assert not any(each.missing for each in found.values())
    assert found["23a"].state == DONE and found["17"].state == AUTHOR
    says, files = found["12c"].found[0]
    assert files == [f"{name}/metrics.json" for name in ARCHITECTURE_NAMES]
    assert found["12e"].found[1][0] == "differences, tested by patient"


def test_deleting_a_file_reopens_its_items(complete):
    before = states(complete)
    for item in items():
        for name in files_of(item):
            path = complete / name.replace("NETWORK", "densenet121")
            if path.name in ("predictions.csv", "split.json"):
                continue  # the run is another one without them
            content = path.read_bytes()
            path.unlink()
            found = next(each for each in answered_items(complete) if each.item == item["item"])
            assert path.relative_to(complete.folder).as_posix() in found.missing
            assert found.state != DONE
            assert found.state == (PARTLY if len(files_of(item)) > 1 else AUTHOR)
            path.write_bytes(content)
    assert states(complete) == before


def test_runs_of_two_profiles_with_the_same_files_give_the_same_answers(complete, tmp_path):
    other = shutil.copytree(complete, tmp_path / "other")
    complete.write("run.json", {"profile": "quick", "parameters": {"sample_images": 144}})
    Run(other).write("run.json", {"profile": "smoke", "parameters": {"sample_images": 24}})
    assert states(complete) == states(other)


def test_the_page_and_the_file_agree(complete):
    for path in complete.folder.rglob("*"):  # the page reads these tables
        if path.is_file() and not path.stat().st_size:
            path.unlink()
    found = answered_items(complete)
    lines = write_checklist(complete).read_text("utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and "**" in line]
    rows = [row for row in rows if row[0] != "| |"]
    assert [row[0].strip("| ") for row in rows if row[0].strip("| ") in NUMBERS] == NUMBERS
    page = write_report(complete).read_text("utf-8").split('<section id="checklist">')[1]
    counts = [sum(each.state == state for each in found) for state in (DONE, PARTLY, AUTHOR)]
    for state, count in zip((DONE, PARTLY, AUTHOR), counts, strict=True):
        assert f"{count} {state}" in "\n".join(lines) and f">{count} {state}</span>" in page
        assert page.count(f">{state}</span>") == count
    assert "[`split.json`](split.json)" in "\n".join(lines)
    assert 'download="split.json">split.json</a>' in page


def test_names_cannot_break_the_markup(complete):
    split = dict(complete.facts("split.json"))
    for path in complete.folder.rglob("*"):
        if path.is_file() and not path.stat().st_size:
            path.unlink()
    complete.write("split.json", split | {"unit": EVIL})
    text = write_checklist(complete, EVIL).read_text("utf-8")
    html = str(mistune.create_markdown(escape=False, plugins=["table"])(text))
    assert "onerror" in html and "<img" not in html and 'href="javascript' not in html
    assert "<td><em>Use of the data</em>" in html, "no cell has moved"
    page = write_report(complete).read_text("utf-8")
    assert "onerror" in page and "<img src=x" not in page
