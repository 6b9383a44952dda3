"""The sliders of the page show the tables' numbers, and their script can do nothing else."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.metrics import confusion_matrix

from cytology.evaluation import operating_points, places
from cytology.evaluation.statistics.decisions import relative_to_threshold
from cytology.evaluation.statistics.prevalence import at_prevalence
from cytology.report import page_parts
from cytology.report.elsewhere import SCRIPT, THRESHOLDS, calls_of_run
from cytology.report.page import write_report
from cytology.run import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
SHOWN = "recall specificity precision negative_predictive_value false_alarms net_benefit".split()


@pytest.fixture(scope="module")
def judged(tmp_path_factory, run_once):
    """A run after notebook 08, asked for a share of 0.1."""
    run = Run(shutil.copytree(run_once, tmp_path_factory.mktemp("elsewhere") / "run"))
    dataset = {"images": 90, "groups": 30, "unit": "patient", "of_unknown_unit": 0}
    run.write("dataset.json", dataset)
    run.write("tables/thresholds.csv", operating_points.locked_thresholds(run, 0.9))
    run.write("tables/calibration.csv", operating_points.locked_calibrations(run))
    run.write("tables/prevalence.csv", places.predictive_values(run, 0.9, 0.1))
    return run


@pytest.fixture(scope="module")
def calls(judged):
    return calls_of_run(judged)


def changed(run, tmp_path):
    return Run(shutil.copytree(run, tmp_path / "other"))


# -------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("at", [0, 2, 27, 52, 80, len(THRESHOLDS) - 1])
def test_shares_match_a_confusion_matrix(judged, calls, at):
    for network in calls["networks"]:
        rows = operating_points.calibrated_predictions(judged, network["name"], "out-of-fold")
        called = np.where(rows["probability"] >= calls["thresholds"][at], "M", "B")
        (tn, fp), (fn, tp) = confusion_matrix(rows["label"], called, labels=["B", "M"])
        recall, *bounds, specificity, low, high = network["calls"][at]
        assert recall == pytest.approx(tp / (tp + fn))
        assert specificity == pytest.approx(tn / (tn + fp))
        assert bounds[0] <= recall <= bounds[1] and low <= specificity <= high


def test_bayes_gives_the_predictive_values_of_the_table(judged, calls):
    table = judged.table("tables/prevalence.csv")
    for network in calls["networks"]:
        found = network["locked"]["sensitivity"]["calls"]
        s, p = found[0], found[3]
        for row in table[table["model"] == network["name"]].itertuples():
            m = row.prevalence
            right = m * s / (m * s + (1 - m) * (1 - p))
            benign = (1 - m) * p / ((1 - m) * p + m * (1 - s))
            assert right == pytest.approx(row.precision)
            assert benign == pytest.approx(row.negative_predictive_value)
            assert (row.recall_low, row.specificity_high) == pytest.approx((found[1], found[5]))


def test_the_data_in_the_page_name_the_images_they_are_based_on(judged, calls):
    assert [each["name"] for each in calls["networks"]] == judged.networks
    assert calls["share"] == 0.1 and calls["act_from"] == 0.1
    said = calls["networks"][0]["judged"]
    assert re.fullmatch(r"out-of-fold: \d+ images of \d+ patients: \d+ malignant, \d+ benign", said)
    assert "90%" in calls["rules"]["sensitivity"]
    assert len(json.dumps(calls)) + len(SCRIPT) < 40_000


def test_there_are_no_sliders_without_notebook_08_or_after_new_training(judged, tmp_path):
    run = changed(judged, tmp_path)
    rows = run.table("mobilenetv2/predictions.csv")
    run.write("mobilenetv2/predictions.csv", rows.assign(logit=rows["logit"] + 0.5))
    assert "mobilenetv2" not in [each["name"] for each in calls_of_run(run)["networks"]]
    (run / "mobilenetv2/metrics.json").rename(run / "kept.json")
    assert calls_of_run(run) == {}  # training was stopped half-way
    (run / "kept.json").rename(run / "mobilenetv2/metrics.json")
    (run / "tables/prevalence.csv").unlink()
    assert calls_of_run(run) == {}
    source = write_report(run).read_text("utf-8")
    assert 'id="elsewhere"' not in source and "<script" not in source
    assert "script-src" not in source


def test_there_are_no_sliders_for_too_few_patients(judged, tmp_path):
    run = changed(judged, tmp_path)
    for name in run.networks:
        rows = run.table(f"{name}/predictions.csv")
        group = rows["group"].where(rows["label"] == "B", "m" + (rows["fold"] % 3).astype(str))
        run.write(f"{name}/predictions.csv", rows.assign(group=group))
    assert calls_of_run(run) == {}


# ----------------------------------------------------------------------- the page


def test_only_the_pages_own_script_may_run_and_without_it_there_is_a_table(judged):
    source = write_report(judged).read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', source)
    allowed = dict(part.split(maxsplit=1) for part in policy.split("; "))
    (script,) = re.findall(r"(?s)<script>(.*?)</script>", source)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert allowed["script-src"] == f"&#39;sha256-{digest}&#39;" and len(allowed) == 7
    assert page_parts.POLICY.count("script") == 0  # other pages have none
    part = source.split('<section id="elsewhere">')[1].split("</section>")[0]
    assert '<fieldset class="tool" hidden>' in part and "<details open>" in part
    for name in ("network", "rule", "threshold", "share"):
        assert f'<label for="elsewhere-{name}">' in part and f'id="elsewhere-{name}"' in part
    assert 'aria-live="polite"' in part and "0.100" in part.split("<details open>")[1]


def test_the_name_of_an_outside_model_cannot_end_the_script(judged, tmp_path, monkeypatch):
    evil = "</script><script>alert(1)</script>"
    monkeypatch.setattr("cytology.report.elsewhere.title", lambda name: evil)
    source = write_report(changed(judged, tmp_path)).read_text("utf-8")
    assert "alert(1)</script>" not in source and source.count("</script>") == 2


# --------------------------------------------------------------- in a real browser

DRIVER = """
const asked = ASKED, found = [];
for (const each of asked) {
  for (const [name, value] of Object.entries(each)) {
    const control = document.getElementById(`elsewhere-${name}`);
    control.value = value;
    control.dispatchEvent(new Event("input"));
  }
  const cells = [...document.querySelectorAll("#elsewhere [data-of]")];
  found.push(cells.map((row) => [row.children[1].textContent, row.children[2].textContent]));
}
const shown = document.createElement("pre");
shown.id = "found";
shown.textContent = JSON.stringify(found);
document.body.append(shown);
"""


class ById(HTMLParser):
    """The text of each element that has an `id` or `data-of`, and its attributes."""

    def __init__(self, source):
        super().__init__()
        self.text, self.attributes, self.open = {}, {}, []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        if tag in ("meta", "input", "img", "br"):
            return
        attributes = dict(attributes)
        name = attributes.get("id") or attributes.get("data-of")
        self.open.append(name)
        if name:
            self.text[name], self.attributes[name] = "", attributes

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        for name in filter(None, self.open):
            self.text[name] += data


def dom_of(address, folder):
    """The page as a browser has it when its script has run."""
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    words += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", address]
    done = subprocess.run(words, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8")


def driven(run, folder, asked):
    """What the page shows for each of `asked`: a pair of texts for each of `SHOWN`."""
    source = write_report(run).read_text("utf-8")
    source = re.sub(r"<meta http-equiv[^>]*>", "", source)  # it would block the driver
    driver = DRIVER.replace("ASKED", json.dumps(asked))
    (folder / "driven.html").write_text(
        source.replace("</body>", f"<script>{driver}</script></body>"), "utf-8"
    )
    return json.loads(ById(dom_of((folder / "driven.html").as_uri(), folder)).text["found"])


def as_shown(row, name):
    """A number of a table and its interval with the digits of the page."""
    shape = "z.1f" if name == "false_alarms" else "z.3f"
    value, low, high = (f"{row[f'{name}{end}']:{shape}}" for end in ("", "_low", "_high"))
    both = f"{low} to {high}".replace("inf", "no limit")
    return [value.replace("-", "\N{MINUS SIGN}"), both.replace("-", "\N{MINUS SIGN}")]


@pytest.mark.slow
@in_a_browser
def test_the_sliders_show_the_numbers_of_the_tables(judged, calls, tmp_path):
    index = {each["name"]: number for number, each in enumerate(calls["networks"])}
    values = judged.table("tables/prevalence.csv")
    values = values[values["prevalence"].isin(np.arange(1, 100) / 100)]
    asked = [
        {"network": index[row.model], "rule": row.rule, "share": round(100 * row.prevalence)}
        for row in values.itertuples()
    ]
    thresholds = judged.table("tables/thresholds.csv").query("judged_on == 'out-of-fold'")
    asked += [
        {"network": index[row.model], "rule": row.rule, "share": 50}
        for row in thresholds.itertuples()
    ]
    found = driven(judged, tmp_path, asked)
    assert len(found) == len(values) + len(thresholds) > 40
    for shown, (_, row) in zip(found, values.iterrows(), strict=False):
        assert shown == [as_shown(row, name) for name in SHOWN]
    for shown, (_, row) in zip(found[len(values) :], thresholds.iterrows(), strict=True):
        assert shown[:2] == [as_shown(row, name) for name in SHOWN[:2]]


@pytest.mark.slow
@in_a_browser
def test_the_sliders_show_the_values_at_any_other_threshold_and_share(judged, tmp_path):
    rows = operating_points.calibrated_predictions(judged, "mobilenetv2", "out-of-fold")
    asked = [
        {"network": 0, "threshold": at, "share": share}
        for at in (1, 20, 52, 70, 95)
        for share in (3, 28, 77)
    ]
    for each, shown in zip(asked, driven(judged, tmp_path, asked), strict=True):
        at = logit(THRESHOLDS[each["threshold"]])
        row = at_prevalence(relative_to_threshold(rows, at), each["share"] / 100, 0.1)
        for name, texts in zip(SHOWN, shown, strict=True):
            if pd.notna(row["precision"]) and pd.notna(row["negative_predictive_value"]):
                assert texts == as_shown(row, name)


@pytest.mark.slow
@in_a_browser
def test_a_link_opens_its_values_under_the_content_policy_of_the_page(judged, tmp_path):
    address = write_report(judged).as_uri()
    values = judged.table("tables/prevalence.csv").query("model == 'densenet121'")
    row = values[values["prevalence"] == 0.2].iloc[0]
    page = ById(
        dom_of(f"{address}#elsewhere?network=densenet121&rule=sensitivity&share=0.2", tmp_path)
    )
    assert as_shown(row, "precision")[0] in page.text["precision"]
    assert page.text["elsewhere-there"] == "20 %"
    assert page.text["elsewhere-caption"].startswith("DenseNet121, malignant from the threshold")
    assert page.attributes["elsewhere-link"]["href"].endswith("share=0.2&rule=sensitivity")
    assert page.text["elsewhere-said"].startswith("Of 1,000 images there, 200 are malignant")
