"""Figures on another place and on referral show what their tables hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cytology.evaluation.statistics.elsewhere import recalibration_gain
from cytology.evaluation.statistics.label_shift import estimated_share
from cytology.evaluation.statistics.prevalence import PREVALENCES, at_prevalences
from cytology.evaluation.statistics.referral import choose_referral, referral_curve
from cytology.plots import places
from cytology.plots.style import png


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def rows_of(patients=40, seed=0, moved=0.0, images=2):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), images)
    score = 3 * (group % 2 - 0.5) + rng.normal(size=len(group)) + moved
    label = np.where(group % 2, "M", "B")
    return pd.DataFrame({"label": label, "group": group, "logit": score})


def test_predictive_values_in_the_figure_match_the_table():
    table = at_prevalences(rows_of(), 0.2)
    figure = places.predictive_values(table, "patient", here=0.5, there=0.1)
    values, alarms = figure.axes
    precision = values.lines[0]
    assert precision.get_xdata().tolist() == list(PREVALENCES)
    assert precision.get_ydata().tolist() == pytest.approx(list(table["precision"]))
    assert alarms.get_yscale() == "log" and len(png(figure, "a caption")) > 1000


def test_a_figure_is_drawn_when_all_calls_are_alike():
    for logit in (-1.0, 1.0):
        table = at_prevalences(rows_of().assign(logit=logit), 0.2)
        assert len(png(places.predictive_values(table, "patient", 0.5, 0.1), "a caption")) > 1000


@pytest.mark.parametrize(("moved", "words"), [(0.0, "may explain"), (8.0, "NO mixture")])
def test_new_logits_are_drawn_over_the_estimated_mixture(moved, words):
    known, new = rows_of(), rows_of(seed=1, moved=moved)
    found = estimated_share(new, known)
    figure = places.new_logits(new, known, found)
    (axis,) = figure.axes
    assert words in axis.get_title(loc="left") and len(png(figure, "a caption")) > 1000
    seen = axis.patches[-1].get_data().values
    assert seen.sum() == pytest.approx(1)
    assert axis.patches[1].get_data().values.sum() == pytest.approx(1)


def test_gains_are_drawn_with_intervals():
    table = recalibration_gain(rows_of(moved=2.0))
    figure = places.recalibration_gains(table, "patient")
    (axis,) = figure.axes
    assert axis.lines[0].get_xdata().tolist() == table["loss_change"].tolist()[1:]
    assert "95 % by patient" in axis.get_xlabel() and len(png(figure, "a caption")) > 1000


@pytest.mark.parametrize(
    ("level", "prevalence", "words"),
    [
        (0.1, np.nan, "are referred"),
        (0.001, np.nan, "takes 999, here are 40"),
        (0.1, 0.05, "nobody"),
    ],
)
def test_the_chosen_limit_is_marked_on_the_curve(level, prevalence, words):
    patients = rows_of(images=1)
    chosen = choose_referral(patients, level, prevalence)
    figure = places.referral(referral_curve(patients, prevalence), chosen, "patient")
    (axis,) = figure.axes
    assert words in axis.get_title(loc="left") and len(png(figure, "a caption")) > 1000
    marks = [line for line in axis.lines if line.get_marker() == "D"]
    assert len(marks) == (words == "are referred")
