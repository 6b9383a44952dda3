"""The report of a run: partial or complete, safe to open, and self-contained."""

import base64
import json
import re
import shlex
import time
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from cytology.evaluation.summary import LEAKS
from cytology.report import page_parts
from cytology.report.notebook_pages import to_html
from cytology.report.page import by_section, duration, write_report
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import write_json, write_table

EVIL = "<img src=x onerror=alert(1)>"
QUOTED = '"><script>alert(2)</script>'
LEAK = {
    "test_images_with_copy_in_training": 312,
    "test_images": 384,
    "groups_in_several_splits": 23,
    "groups": 24,
}


class Page(HTMLParser):
    """Tags with their attributes, and the text without style."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def save_png(path, caption=None, size=(60, 40), noise=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 200, np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 255, pixels.shape).astype(np.uint8)
    about = PngImagePlugin.PngInfo()
    if caption:
        about.add_itxt("Description", caption)
    Image.fromarray(pixels).save(path, pnginfo=about)


def make_run(folder, leak=LEAK):
    """A run folder as a whole series leaves it, with markup wherever users' text may appear."""
    dataset = {"data": EVIL, "root": f"/data/{EVIL}", "source": EVIL, "fingerprint": "0123abcd"}
    counts = {"images": 1320, "benign": 700, "malignant": 620, "groups": 24, "rejected": 2}
    write_json(folder, "dataset.json", dataset | counts | {"unit": "patient"})
    parts = {"train": 900, "val": 36, "test": 384}
    counts = {
        name: {"images": n, "groups": 8, "B": n // 2, "M": n // 2} for name, n in parts.items()
    }
    about = {"protocol": "original", "unit": QUOTED, "counts": counts, "leak": leak}
    write_json(folder, "split.json", about)
    table = pd.DataFrame(
        {
            "architecture": ["mobilenetv2", EVIL],
            "weights": ["random", QUOTED],
            "protocol": ["original", "original"],
            "images": [1234, 1234],
            "accuracy": [0.8125, 0.75],
            "accuracy_low": [0.7014, np.nan],
            "accuracy_high": [0.9049, np.nan],
        }
    )
    write_table(folder, "tables/comparison.csv", table)
    (folder / "tables" / "summary.md").write_text(f"No winner. {EVIL}\n\nSecond.\n", "utf-8")
    save_png(folder / "figures" / "07_roc.png", 'ROC curves of "three" networks & größer')
    save_png(folder / "figures" / "01_classes.png", EVIL)
    save_png(folder / "figures" / "03_no_caption.png")
    (folder / "figures" / "05_broken.png").write_bytes(b"no picture")
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01_a b#.html").write_text("x")
    parameters = {"seed": 7, "classes": EVIL, "learning_rate": None, "fine_tune": True}
    entry = {"status": "ok", "seconds": 185.2, "peak_memory_mib": 2345, "parameters": {"seed": 7}}
    broken = {"status": "failed", "error": EVIL, "parameters": {"seed": 6}}
    record = {
        "profile": EVIL,
        "command": f"python run_all.py -p classes '{EVIL}'",
        "started": "2024-05-06T07:08:09+02:00",
        "ended": None,
        "parameters": parameters,
        "notebooks": {"01_a b#": entry, "02_b": broken},
        "device": EVIL,
        "versions": {"python": "3.12.1"},
        "git": {"commit": "abcdef0", "changed": True},
    }
    write_json(folder, "run.json", record)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(write_report(Run(make_run(tmp_path_factory.mktemp("report")))))


# -------------------------------------------------------------------- partial


def test_an_empty_folder_has_a_report_that_says_what_is_missing(tmp_path):
    page = Page(write_report(Run(tmp_path)))
    for name, notebook in (
        ("tables/comparison.csv", "07_comparison"),
        ("dataset.json", "01_data_exploration"),
        ("split.json", "03_splitting"),
    ):
        assert f"Not there yet: {name}. Notebook {notebook} writes it." in page.text
    assert "Not there: run.json" in page.text
    assert "python run_all.py --run-dir" in page.text
    assert not page.all("img")


def test_a_run_with_only_its_record_has_a_report(tmp_path):
    running = {"01_a": {"status": "running", "started": "2024-05-06T07:08:09", "parameters": {}}}
    record = {"profile": "quick", "command": "python run_all.py", "parameters": {"seed": 0}}
    record |= {"notebooks": running, "versions": {}, "git": {}, "started": None, "device": None}
    write_json(tmp_path, "run.json", record)
    page = Page(write_report(Run(tmp_path)))
    assert "This run is not complete. 01_a: running" in page.text
    assert "Not there yet: tables/comparison.csv" in page.text
    assert "Not there: run.json" not in page.text


def test_a_split_without_a_leak_has_no_banner(tmp_path):
    none = LEAK | {"test_images_with_copy_in_training": 0, "groups_in_several_splits": 0}
    page = Page(write_report(Run(make_run(tmp_path, none))))
    assert "THIS SPLIT LEAKS" not in page.text
    assert f"Checked: no {QUOTED} is in more than one part, and no image" in page.text


# ------------------------------------------------------------------- complete


def test_the_page_shows_the_expected_numbers(page):
    for text in (
        *("1,320 images of 24 patients", "700 benign (B), 620 malignant (M)", "0123abcd"),
        *("MobileNetV2", "random", QUOTED, "images 1,234", "0.812", "0.701 to 0.905", "0.750"),
        *("3 min 05 s", "2,345 MiB", "2024-05-06 07:08", "abcdef0", "not committed"),
    ):
        assert text in page.text, text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_results_of_other_parameters_are_reported(page):
    assert "made with another value: 02: 6" in page.text


def test_the_leak_is_shown_before_the_numbers(page):
    banner = "THIS SPLIT LEAKS: 312 of 384 test images"
    assert banner in page.text and "23 of 24 groups" in page.text
    assert page.text.index(banner) < page.text.index("0.701 to 0.905")
    assert {"class": "caveat leak", "role": "alert"} in page.all("p")


def test_captions_are_shown_and_used_as_alternative_text(page):
    caption = 'ROC curves of "three" networks & größer'
    alternatives = [image["alt"] for image in page.all("img")]
    assert caption in alternatives and caption in page.text
    assert "03 no caption" in alternatives
    assert len(alternatives) == 3  # the broken file is left out


def test_links_point_to_executed_notebooks(page):
    targets = {link["href"] for link in page.all("a") if link["href"][0] not in "#d"}
    assert targets == {"notebooks/01_a%20b%23.html", "run.json"}


def test_links_within_the_page_have_targets(page):
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    inside = {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")}
    assert inside and inside <= names


def test_every_table_is_named_with_a_link_that_works_in_a_copied_page(page):
    links = {each["href"] for each in page.all("a") if each.get("download") == "comparison.csv"}
    (link,) = links  # as often as it is named
    kind, data = link.split(",", 1)
    assert kind == "data:text/plain;base64"
    assert base64.b64decode(data).decode("utf-8").startswith("architecture,weights,protocol,images")


def test_records_with_paths_are_not_embedded_in_the_page(page):
    links = [each for each in page.all("a") if each["href"] in ("run.json", "dataset.json")]
    assert links and not any("download" in each for each in links)
    held = [each["href"].split(",", 1)[1] for each in page.all("a") if "download" in each]
    assert not any(b"/data/" in base64.b64decode(each) for each in held)


def test_a_long_table_is_linked_instead_of_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(page_parts, "MOST_TABLE_BYTES", 10)
    page = Page(write_report(Run(make_run(tmp_path))))
    links = {link["href"] for link in page.all("a") if "download" not in link}
    assert "tables/comparison.csv" in links


def test_the_page_opens_with_the_answer_and_one_figure(tmp_path):
    run = make_run(tmp_path)
    save_png(run / "figures" / "07_1_auc.png", "AUC of each")
    page = Page(write_report(Run(run)))
    first = page.source.index('<p class="answer">No winner.')
    assert first < page.source.index('id="07_1_auc"') < page.source.index("<main>")
    assert page.source.count("No winner. ") == 1


def test_a_caveat_is_not_repeated_in_the_answer(tmp_path):
    run = make_run(tmp_path)
    (run / "tables" / "summary.md").write_text(LEAKS["original"] + "\n", "utf-8")
    assert "answer" not in [
        attributes.get("class") for _, attributes in Page(write_report(Run(run))).tags
    ]


def test_figures_are_in_the_section_of_their_subject(tmp_path):
    names = ("08_1_thresholds", "07_6_doubtful", "07_2_pairs", "12_4_neighbours", "01_gallery")
    names += ("14_1_learning",)
    for name in names:
        save_png(tmp_path / "figures" / f"{name}.png", name)
    sections = by_section(page_parts.embedded_figures(Run(tmp_path)))
    found = {figure.name: name for name, figures in sections.items() for figure in figures}
    assert found == {
        "08_1_thresholds": "decisions",
        "07_6_doubtful": "mistakes",
        "07_2_pairs": "comparison",
        "12_4_neighbours": "mistakes",
        "01_gallery": "data",
        "14_1_learning": "next_study",
    }


SAID = {"decisions": "decisions", "subgroups": "robustness", "doubtful_labels": "mistakes"}
SAID |= {"planning": "next"}


def test_sentences_of_a_notebook_are_in_its_section(tmp_path):
    run = make_run(tmp_path)
    for name in SAID:
        (run / "tables" / f"{name}.md").write_text(f"Said of {name}.\n", "utf-8")
    rows = pd.DataFrame({"model": ["mobilenetv2", "densenet121"], "recall": [0.5, 0.25]})
    rows = rows.assign(rule="youden", prevalence=0.1, asked=False)
    for name in ("thresholds", "prevalence", "referral", "subgroups"):
        write_table(run, f"tables/{name}.csv", rows)
    (run / "tables" / "robustness.md").write_text("Robust.\n", "utf-8")
    source = Page(write_report(Run(run))).source
    sections = dict(re.findall(r'(?s)<section id="(\w+)">(.*?)</section>', source))
    for name, section in SAID.items():
        assert f"<p>Said of {name}.</p>" in sections[section]
    assert "Where it fails" in sections["robustness"] and "Referral" in sections["decisions"]
    (run / "tables" / "decisions.md").write_text(LEAKS["original"] + "\n", "utf-8")
    assert LEAKS["original"] not in Page(write_report(Run(run))).source


# ----------------------------------------------------------------------- safe


def test_text_of_users_is_never_markup(page):
    assert EVIL not in page.source and "<script" not in page.source
    assert EVIL in page.text
    assert not any(name.startswith("on") for _, each in page.tags for name in each)


def test_the_page_loads_nothing_external(page):
    assert page.all("img")
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    for tag in ("script", "link", "iframe", "object", "embed", "base"):
        assert not page.all(tag), tag
    assert "http:" not in page.source and "https:" not in page.source
    assert not re.search(r"@import|url\(|srcset", page.source)


def test_large_figures_are_scaled_down(tmp_path, monkeypatch):
    monkeypatch.setattr(page_parts, "MOST_FIGURE_BYTES", 300_000)
    for number in range(3):
        save_png(tmp_path / "figures" / f"0{number}_big.png", "big", (1600, 800), noise=True)
    path = write_report(Run(tmp_path))
    images = Page(path).all("img")
    assert [(image["width"], image["height"], image["alt"]) for image in images] == [
        ("450", "225", "big")
    ] * 3


def test_the_report_can_be_written_again(tmp_path):
    write_report(Run(tmp_path))
    write_json(tmp_path, "dataset.json", {"images": 5})
    path = write_report(Run(tmp_path))
    assert "5 images" in Page(path).text
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_the_page_forbids_external_content(page):
    (policy,) = [each for each in page.all("meta") if "http-equiv" in each]
    assert policy["http-equiv"] == "Content-Security-Policy"
    allowed = dict(part.split(maxsplit=1) for part in policy["content"].split("; "))
    assert allowed["default-src"] == "'none'" and allowed["img-src"] == "data:"
    assert page.source.index("Content-Security-Policy") < page.source.index("<style>")


def test_the_page_of_a_notebook_forbids_external_content(tmp_path):
    evil = "![b](https://evil.example/b.png)\n\n<img src='//evil.example/c.png' alt='c'>"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(evil)])
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    page = Page(to_html(tmp_path / "01_a.ipynb"))
    (policy,) = [each for each in page.all("meta") if "http-equiv" in each]
    assert policy == {"http-equiv": "Content-Security-Policy", "content": page_parts.POLICY}
    assert page.source.index("Content-Security-Policy") < page.source.index("<style")
    assert not page.all("script") and "evil.example" not in page.source


def test_solutions_are_collapsed_in_the_page_of_a_notebook(tmp_path):
    cell = "<details><summary>Solution</summary>\n\n```python\nx = 1\n\ny = 2\n```\n\n</details>"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(cell)])
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    page = to_html(tmp_path / "01_a.ipynb").read_text("utf-8")
    inside = page[page.index("<details>") : page.index("</details>")]
    assert ">x<" in inside and ">y<" in inside


@pytest.mark.parametrize("address", ["https://evil.example/b.png?u=1", "//evil.example/b"])
def test_a_model_card_shows_no_picture(tmp_path, address):
    text = f"Before ![a <b> picture]({address}) after.\n\n![also]\n\n[also]: {address}"
    (tmp_path / "model_card.md").write_text(text, "utf-8")
    page = Page(write_report(Run(tmp_path)))
    assert not page.all("img") and "evil.example/b" not in page.source
    assert "Before a <b> picture after." in page.text and "also" in page.text


@pytest.mark.parametrize("text", ["![](", "[", "*a_", "`", "> ", "[a]("])
@pytest.mark.parametrize("count", [8000, 60_000])
def test_a_hostile_card_is_rendered_quickly(tmp_path, text, count):
    """With 8,000 times `![](`, mistune alone took 14 s: four times as long for twice the text."""
    (tmp_path / "model_card.md").write_text(text * count, "utf-8")
    started = time.perf_counter()
    page = Page(write_report(Run(tmp_path)))
    assert time.perf_counter() - started < 5
    assert "What the networks are" in page.text


# -------------------------------------------------------------------- no names


def test_no_list_of_patients_or_files_is_embedded_in_the_page(tmp_path):
    run = make_run(tmp_path)
    rows = pd.DataFrame({"image_id": ["B/Ann Lee 1.png"], "patient": ["Ann Lee"]})
    for name in ("manifest.csv", "split.csv", "rejected.csv", "tables/quality.csv"):
        write_table(run, name, rows)
    write_table(run, "verification.csv", pd.DataFrame({"file": ["split.csv"], "row": ["Ann Lee"]}))
    verified = {"verified": "2024-05-06", "files": 3, "different": 1}
    write_json(run, "verification.json", verified)
    page = Page(write_report(Run(run)))
    links = {link["href"] for link in page.all("a")}
    assert {"manifest.csv", "split.csv", "rejected.csv", "verification.csv"} <= links
    inside = "".join(
        base64.b64decode(link["href"].split(",")[1]).decode("utf-8")
        for link in page.all("a")
        if link["href"].startswith("data:")
    )
    assert "architecture,weights" in inside and "Ann" not in inside and "Ann" not in page.source


def test_paths_are_shortened_and_names_in_notes_left_out(tmp_path):
    run = make_run(tmp_path / "Dr Who's study")
    dataset = json.loads((run / "dataset.json").read_text("utf-8"))
    data, table = "/srv/Saint Elsewhere/smears", "/home/drwho/people.csv"
    note = "people.csv names 2 images that are not among those used, e.g. 'B/Ann Lee 1.png'."
    write_json(run, "dataset.json", dataset | {"data": data, "root": data, "notes": [note]})
    record = json.loads((run / "run.json").read_text("utf-8"))
    record["parameters"] |= {"data": data, "patients_csv": table, "run_dir": str(run)}
    record["command"] = shlex.join(
        ["python", "run_all.py", "--data", data, "--run-dir", str(run), "-p", "patients_csv", table]
    )
    record["notebooks"]["02_b"]["error"] = "no image B/Ann Lee 2.png"
    write_json(run, "run.json", record)
    page = Page(write_report(Run(run)))
    for text in ("Saint Elsewhere", "drwho", "Ann", "people.csv", "smears", str(tmp_path)):
        assert text not in page.source, text
    assert "--data '<data>' --run-dir 'Dr Who" in page.text
    assert "-p patients_csv '<patients_csv>'" in page.text
    assert "<patients_csv> names 2 images that are not among those used, e.g. …." in page.text


def test_a_command_to_copy_is_quoted(tmp_path):
    run = tmp_path / "x;touch PWN $(id)"
    run.mkdir()
    page = Page(write_report(Run(run)))
    assert page.text.count("'x;touch PWN $(id)'") == 2
    for before in ("--verify", "--run-dir"):
        assert f"{before} x;" not in page.text


# ----------------------------------------------------- JSON of the wrong types


@pytest.mark.parametrize(
    "name, changed, told",
    [
        ("dataset.json", {"images": "<b>9</b>"}, "images is '<b>9</b>'"),
        ("dataset.json", {"images": True}, "images is True"),
        ("dataset.json", {"notes": "one"}, "notes is not a list"),
        ("dataset.json", {"notes": [1]}, "notes[0] is 1"),
        ("run.json", {"started": 5}, "started is 5"),
        ("run.json", {"notebooks": {"a": 5}}, "notebooks.a is not an object with named values"),
        ("run.json", {"notebooks": {"a": {"seconds": "9"}}}, "notebooks.a.seconds is '9'"),
        ("run.json", {"versions": [1]}, "versions is not an object with named values"),
        ("run.json", {"git": "x"}, "git is not an object with named values"),
        ("split.json", {"counts": {"train": 3}}, "counts.train is not an object with named values"),
        ("split.json", {"counts": {"train": {"B": "3"}}}, "counts.train.B is '3'"),
        ("split.json", {"leak": {"test_images": 3}}, "leak has no "),
        ("verification.json", {"verified": 5, "files": 1, "different": 0}, "verified is 5"),
        ("verification.json", {"verified": "x"}, "it has no files"),
    ],
)
def test_json_of_wrong_types_is_reported_in_one_sentence(tmp_path, name, changed, told):
    run = make_run(tmp_path)
    before = json.loads((run / name).read_text("utf-8")) if (run / name).is_file() else {}
    write_json(run, name, before | changed)
    with pytest.raises(InputError, match=re.escape(name)) as refused:
        write_report(Run(run))
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["dataset.json", "split.json", "run.json"])
@pytest.mark.parametrize("content", [[], 5, {"other": 1}])
def test_json_without_the_expected_keys_does_not_crash_the_report(tmp_path, name, content):
    run = make_run(tmp_path)
    (run / name).write_text(json.dumps(content), "utf-8")
    if name == "run.json" and content == {"other": 1}:
        assert write_report(Run(run)).is_file()
        return
    with pytest.raises(InputError, match=re.escape(name)):
        write_report(Run(run))


@pytest.mark.parametrize(
    "seconds, words",
    [
        (None, "–"),
        (0, "0.0 s"),
        (8.44, "8.4 s"),
        (59.97, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 0 min"),
        (3599.7, "1 h 0 min"),
    ],
)
def test_durations_are_formatted(seconds, words):
    assert duration(seconds) == words


def test_writing_the_report_does_not_change_the_record(tmp_path):
    run = make_run(tmp_path)
    before = json.loads((run / "run.json").read_text("utf-8"))
    write_report(Run(run))
    assert json.loads((run / "run.json").read_text("utf-8")) == before


def test_figures_are_sorted_by_number():
    names = ["07_10_more", "07_1_auc", "densenet121_curves", "07_2_pairs"]
    assert sorted(names, key=page_parts.by_number) == [
        "07_1_auc",
        "07_2_pairs",
        "07_10_more",
        "densenet121_curves",
    ]
