"""The model card says what the run says, names what is missing, and lets no text break out."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.catalogue import entry_of
from cytology.evaluation import comparison, operating_points
from cytology.files import file_hash
from cytology.report.model_card import card_html, markdown, write_model_card
from cytology.report.page import write_report
from cytology.run import Run
from cytology.tables import read_json, read_table, write_json, write_table

EVIL = "<img src=x onerror=alert(1)> | [x](javascript:alert(2)) `code` *bold*"


def card_of(run):
    return write_model_card(Run(run)).read_text("utf-8")


def change(run, name, **values):
    write_json(run, name, read_json(run, name) | values)


def section(card, heading):
    """The part of a card below a heading, up to the next one of its level."""
    return card.split(f"\n## {heading}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def judged_once(run_once, few_draws, tmp_path_factory):
    """The folder that `judged` copies."""
    run = shutil.copytree(run_once, tmp_path_factory.mktemp("judged") / "run")
    for name in ARCHITECTURE_NAMES:
        (run / name / "model.keras").write_bytes(name.encode())
        change(run, f"{name}/metrics.json", explanation="ImageNet weights.")
        write_json(run, f"{name}/timing.json", {"parameters": 1234567})
    baseline = read_table(run, "mobilenetv2/predictions.csv").assign(logit=0.1)
    write_table(run, "tables/comparison.csv", comparison.comparison(Run(run)))
    write_table(run, "tables/comparison_all.csv", comparison.comparison_all(Run(run), baseline))
    write_table(run, "tables/pairwise.csv", comparison.pairs_of_models(Run(run), baseline))
    write_table(run, "tables/thresholds.csv", operating_points.locked_thresholds(Run(run), 0.95))
    write_table(run, "tables/calibration.csv", operating_points.locked_calibrations(Run(run)))
    about = {"data": "sample", "source": "drawings", "images": 88, "benign": 45, "malignant": 43}
    write_json(run, "dataset.json", about | {"groups": 30, "rejected": 3, "unit": "patient"})
    return run


@pytest.fixture
def judged(tmp_path, judged_once):
    """The run with what notebook 07 writes, its networks' files and its data set."""
    return shutil.copytree(judged_once, tmp_path / "run")


def test_the_card_of_an_empty_run_names_the_notebooks_that_fill_it(tmp_path):
    card = card_of(tmp_path)
    assert "Not a medical device" in card.splitlines()[2]
    lines = section(card, "What is missing").strip().splitlines()
    for file, writer in (
        ("dataset.json", "01_data_exploration"),
        ("tables/comparison.csv", "07_comparison"),
        ("run.json", "run_all.py"),
    ):
        assert f"- `{file}` ({entry_of(file).says}): written by `{writer}`." in lines
    assert not any("predictions.csv" in line for line in lines), "there is no network"
    assert any(line.endswith("written by `12_explanation`.") for line in lines)
    assert any(line.endswith("written by `13_export`.") for line in lines)


def test_the_numbers_match_the_tables(judged):
    card = card_of(judged)
    table = read_table(judged, "tables/comparison_all.csv").set_index(
        ["model", "level", "judged_on"]
    )
    for name, heading in zip(
        ARCHITECTURE_NAMES, ("MobileNetV2", "InceptionV3", "DenseNet121"), strict=True
    ):
        own = section(card, heading)
        for level in ("image", "patient"):
            row = table.loc[(name, level, "out-of-fold")]
            shown = f"{row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
            line = next(
                line
                for line in own.splitlines()
                if f"| {level} | out-of-fold | {row.images} " in line
            )
            assert shown in line
        assert file_hash(judged / name / "model.keras") in own
        assert "ImageNet weights." in own and "1,234,567 parameters" in own
        assert "| sensitivity | out-of-fold |" in own and "| platt | out-of-fold |" in own
    split = read_json(judged, "split.json")["counts"]["test"]
    row = f"| test | {split['images']} | {split['groups']} | {split['B']} | {split['M']} |"
    data = section(card, "Training and evaluation data")
    assert row in data and "88, 45 benign and 43 malignant" in data and "3 left out" in data
    assert "Size and colour" in section(card, "For comparison").replace("Baseline (s", "S")
    assert "count patients, not images" in section(card, "Metrics")


def test_rows_of_too_few_groups_are_left_out_and_the_card_says_so():
    rows = pd.DataFrame(
        {"judged_on": ["out-of-fold", "test"], "auc": [0.9, 0.8], "auc_low": [0.7, 0.5]}
    ).assign(auc_high=0.95, groups_malignant=[9, 3], groups_benign=9)
    columns = {"judged_on": "judged", "auc": "AUC"}
    both = markdown(rows, columns)
    assert "out-of-fold" in both and "| test" not in both
    assert "Left out: rows of fewer than 5 malignant or benign groups" in both
    alone = markdown(rows[rows["judged_on"] == "test"], columns)
    assert "| test | not shown |" in alone and "Left out" not in alone


def test_caveats_are_at_the_top(judged):
    change(judged, "inceptionv3/metrics.json", weights="random")
    split = read_json(judged, "split.json")
    split["leak"] |= {"test_images_with_copy_in_training": 7, "groups_in_several_splits": 2}
    write_json(judged, "split.json", split)
    card = card_of(judged)
    top = card.split("## Model details")[0]
    assert "> **Caution.** THIS SPLIT LEAKS: 7 of" in top
    assert "> **Caution.** No pretrained weights for" in top and "is not ranked" in top
    assert "**The split leaks:**" in section(card, "Training and evaluation data")


def test_origins_in_the_manifest_are_counted(judged):
    manifest = read_table(judged, "manifest.csv")
    stains = np.where(np.arange(len(manifest)) < 30, "Giemsa", "Papanicolaou")
    write_table(judged, "manifest.csv", manifest.assign(stain=stains, site=""))
    factors = section(card_of(judged), "Factors")
    assert f"- Stain: Papanicolaou ({len(manifest) - 30}), Giemsa (30)." in factors
    assert "Site" not in factors


def test_known_failures_come_from_the_tables(judged):
    thresholds = read_table(judged, "tables/thresholds.csv")
    on = (thresholds["rule"] == "sensitivity") & (thresholds["judged_on"] == "test")
    for name, share in (("recall", 0.5), ("recall_low", 0.2), ("recall_high", 0.8)):
        thresholds[name] = np.where(on, share, thresholds[name])
    write_table(judged, "tables/thresholds.csv", thresholds)
    shifts = pd.DataFrame(
        {
            "architecture": "mobilenetv2",
            "shift": ["none", "blur", "blur", "noise"],
            "strength": [0, 2, 3, 3],
            "amount": "x",
            "auc": 0.8,
            "auc_change": [0, -0.1, -0.2, -0.3],
            "auc_change_low": [0, -0.2, -0.3, -0.4],
            "auc_change_high": [0, -0.01, -0.05, 0.1],
            "auc_change_p": [np.nan, 0.01, 0.01, 0.2],
        }
    )
    write_table(judged, "tables/robustness.csv", shifts)
    checks = pd.DataFrame(
        [
            ("densenet121", "randomization", "no"),
            ("densenet121", "pointing game", "yes"),
            ("mobilenetv2", "randomization", "unclear"),
        ],
        columns=["architecture", "check", "passed"],
    )
    write_table(judged, "tables/explanation_checks.csv", checks)
    rows = pd.DataFrame(
        {
            "architecture": ["inceptionv3", "inceptionv3"],
            "format": ["keras", "tflite_int8"],
            "agrees": [True, False],
            "warning": ["", "InceptionV3, tflite_int8: 3 of 32 test images get another decision."],
        }
    )
    write_table(judged, "tables/exports.csv", rows)
    write_json(judged, "exports/inceptionv3/export.json", {"model_sha256": "of yesterday"})
    card = card_of(judged)
    known = section(card, "Known failures and limits")
    groups = read_table(judged, "tables/comparison.csv")["groups"].min()
    assert f"- Few were judged: {groups} patients: 12 malignant, 12 benign. One patient of" in known
    assert (
        "MobileNetV2: the threshold that was to find 95% of the malignant images found 50%" in known
    )
    assert "a sensitivity of 95% cannot be promised: it needs 19 malignant patients" in known
    assert "under: blur at strengths 2 and 3 (AUC falls by up to 0.200)." in known
    assert "noise" not in known
    assert "- DenseNet121: its heatmaps are worse than chance in randomization." in known
    assert "3 of 32 test images get another decision." in known
    assert "- InceptionV3 was trained again after it was exported: run notebook 13." in known
    assert "| tflite\\_int8 | **no** |" in section(card, "InceptionV3") or "| **no** |" in section(
        card, "InceptionV3"
    )
    assert "## What is missing" in card and "`run.json`" in section(card, "What is missing")


def test_text_of_users_is_escaped(judged):
    change(judged, "dataset.json", source=EVIL, data=EVIL, notes=[EVIL])
    change(judged, "densenet121/metrics.json", explanation=EVIL)
    card = card_of(judged)
    html = card_html(Run(judged))
    assert "\\<img src=x" in card
    for broken in ("<img", 'href="javascript', "<em>bold", "<strong>bold"):
        assert broken not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 4
    assert "<h1" not in html and "<h2" not in html and "<h3" in html


def test_a_cell_cannot_break_the_table():
    rows = pd.DataFrame({"a": ["x | y\nz", "_u_ v_w"], "b": [0.5, np.nan], "c": [1200, 3]})
    rows["d"] = [True, False]
    lines = markdown(rows, {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}).splitlines()
    assert lines == [
        "| A | B | C | D |",
        "| --- | ---: | ---: | --- |",
        "| x \\| y z | 0.500 | 1,200 | yes |",
        "| \\_u\\_ v_w | – | 3 | **no** |",
        "",
        "No b: could not be computed.",
    ]
    assert markdown(rows[:0], {"a": "A"}) == "" == markdown(rows, {"e": "E"})


def test_the_card_is_part_of_the_report(judged):
    assert card_html(Run(judged)) == ""
    assert 'id="card"' not in write_report(Run(judged)).read_text("utf-8")
    write_model_card(Run(judged))
    page = write_report(Run(judged)).read_text("utf-8")
    inside = page.split('<section id="card">')[1].split("</section>")[0]
    assert inside.count("<details>") == 1 and "<h3>Model card: MobileNetV2" in inside
    assert inside.count("<table") == inside.count("</table>") > 9
    assert "&lt;table" not in inside and '<a href="#card">Model card</a>' in page
