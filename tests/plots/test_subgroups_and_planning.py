"""The figures of subgroups and of planning show what their tables hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cytology.audits.planning import plan_of_run
from cytology.audits.subgroups import subgroups_of_run
from cytology.plots import planning, style, subgroups


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def forest_table(run):
    manifest = run.table("manifest.csv")
    stain = np.where(manifest["group"].astype(int) < 6, "rare", "usual")
    run.write("manifest.csv", manifest.assign(stain=stain))
    run.write("dataset.json", {"unit": "patient"})
    table, _ = subgroups_of_run(run)
    return table[table["model"] == "mobilenetv2"]


def test_a_forest_plot_marks_each_estimate_and_notes_groups_that_are_too_few(forest_table):
    figure = subgroups.forest_plot(forest_table, "patient")
    few = forest_table["too_few"] != ""
    assert few.sum() == 1
    for axis, metric in zip(figure.axes, subgroups.PANELS, strict=True):
        marks = [line for line in axis.lines if line.get_marker() not in ("None", None, "")]
        shown = forest_table.loc[~few, metric]
        assert [mark.get_xdata()[0] for mark in marks] == pytest.approx(shown.tolist())
        assert [text.get_text() for text in axis.texts] == ["too few"]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0].startswith("all images (") and labels[1].startswith("stain: rare (")
    style.png(figure, "a caption")


def test_the_size_plot_marks_this_study_and_the_sizes_that_decide(run):
    widths, pairs, curves = plan_of_run(run)
    left, right = planning.study_sizes(curves, widths, pairs, "patients").axes
    assert {line.get_label() for line in left.lines[:3]} == {
        "MobileNetV2", "InceptionV3", "DenseNet121"
    }  # fmt: skip
    for axis in (left, right):
        assert axis.lines[-1].get_xdata()[0] == widths["groups"].max()
        assert axis.get_xlabel() == "patients"
    reached = pairs["groups_to_decide"] <= curves["groups"].max()
    circles = [line for line in right.lines if line.get_marker() == "o"]
    found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in circles]
    expected = pairs[reached][["groups_to_decide", "difference"]].abs().to_numpy()
    assert np.array(found).reshape(-1, 2) == pytest.approx(expected)


def test_a_single_network_has_one_panel(run):
    widths, pairs, curves = plan_of_run(run)
    one = curves[(curves["name"] == "mobilenetv2") & (curves["second"] == "")]
    figure = planning.study_sizes(one, widths, pd.DataFrame(), "patients")
    assert len(figure.axes) == 1
