"""The page about a supplied split: complete, self-contained, and without users' markup."""

import html
import re

import pandas as pd
import pytest

from cytology.data.crossing import check_given_split, in_words
from cytology.data.manifest import independent_groups
from cytology.report import given_split
from cytology.report.given_split import NAME, ROWS, TABLES, write_page
from cytology.report.page import write_report
from cytology.report.page_parts import link_to
from cytology.run import Run
from cytology.tables import read_table

HOSTILE = "<b>Ann & 'Lee'"


@pytest.fixture
def made(tmp_path, smear):
    """A run of a data folder in which a file, a copy and patients cross into test."""
    root, rows = tmp_path / "data", []
    for number in range(12):
        part = "train" if number < 8 else "test"
        name = f"{part}/{'BM'[number % 2]}/{number}.png"
        patient = HOSTILE if number in (1, 8) else f"p{number}"
        family = "train/B/0.png" if number in (0, 9) else name
        rows.append(
            (
                name,
                "BM"[number % 2],
                part,
                patient,
                family,
                f"{number % 10 if number < 11 else number:064}",
            )
        )
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        smear(number).save(root / name)
    columns = ["image_id", "label", "split", "patient", "family", "sha256"]
    manifest = pd.DataFrame(rows, columns=columns).assign(slide="", width=64, height=48)
    manifest["group"] = independent_groups(manifest)
    run = Run(tmp_path / "run")
    facts = {"data": str(root), "root": str(root), "source": "folder", "unit": "patient"}
    run.write("dataset.json", facts | {"images": 12, "fingerprint": "abc", "of_unknown_unit": 0})
    return run, manifest


def page_of(run, images):
    verdict = check_given_split(images, "patient")
    write_page(run, verdict, in_words(verdict, "a table"))
    return verdict, (run / NAME).read_text("utf-8")


def test_the_page_shows_counts_names_and_pictures(made):
    run, manifest = made
    verdict, page = page_of(run, manifest)
    words = " ".join(html.unescape(re.sub(r"<[^>]+>|\s+", " ", page)).split())
    assert "3 of 4 test images (75%) share something with the images to train on." in words
    assert HOSTILE in words and HOSTILE not in page
    assert page.count("data:image/jpeg;base64,") == 2 * len(verdict.crossings)
    for table in TABLES:
        assert f'download="{table.removeprefix("tables/")}"' in page
    for name in ("test/B/8.png", "train/M/1.png"):
        assert name in words
    assert "images of 1 groups: from test to train" in words or "from train to test" in words


def test_the_page_loads_nothing_external_and_runs_no_script(made):
    page = page_of(*made)[1]
    assert "default-src 'none'" in html.unescape(page)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_a_clean_split_is_reported_as_clean_without_pictures(made):
    run, manifest = made
    clean = manifest.assign(patient=manifest["image_id"], family=manifest["image_id"])
    clean["sha256"] = clean["image_id"]
    page = page_of(run, clean.assign(group=clean["image_id"]))[1]
    assert "Nothing that we know of crosses this split." in page
    assert "data:image" not in page and "A repaired split" not in page


def test_the_tables_list_every_crossing_and_a_usable_split(made):
    run, manifest = made
    verdict, _ = page_of(run, manifest)
    assert len(read_table(run, TABLES[0])) == len(verdict.crossings)
    repaired = read_table(run, TABLES[1])
    assert repaired.columns.tolist() == ["image_id", "split_given", "split"]
    group = repaired["image_id"].map(manifest.set_index("image_id")["group"])
    assert (repaired.groupby(group)["split"].nunique() == 1).all()
    assert (repaired["split"] != repaired["split_given"]).sum() == len(verdict.moved) > 0


def test_many_crossings_are_counted_and_not_all_listed(made, monkeypatch):
    run, manifest = made
    monkeypatch.setattr(given_split, "data_address", lambda path: "")
    number = ROWS + 7
    more = pd.concat([manifest.iloc[[0, 9]]] * number, ignore_index=True)
    patient = [f"q{k // 2}" for k in range(2 * number)]
    image_id = [f"{number}.png" for number in range(len(more))]
    crossing = check_given_split(more.assign(image_id=image_id, patient=patient), "patient")
    assert (crossing.crossings["kind"] == "patients").sum() == number
    write_page(run, crossing, in_words(crossing, "a table"))
    assert "and 7 more, in the table below." in (run / NAME).read_text("utf-8")


def test_the_report_describes_the_check_without_names(made):
    run, manifest = made
    verdict, _ = page_of(run, manifest)
    said = in_words(verdict, "a table")
    leak = {"test_images": 1, "groups": 2, "test_images_with_copy_in_training": 0}
    about = {
        "protocol": "grouped",
        "unit": "patient",
        "fingerprint": "f00d",
        "given": {"said": said},
    }
    run.write("split.json", about | {"leak": leak | {"groups_in_several_splits": 0}})
    report = write_report(run).read_text("utf-8")
    for sentence in said:
        assert sentence in html.unescape(report)
    assert "f00d" in report and "Ann" not in html.unescape(report)
    assert not any(link_to(run, name).inside for name in (NAME, *TABLES))
