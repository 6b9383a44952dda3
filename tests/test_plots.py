"""Figures show what the tables hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from cytology import plots
from cytology.evaluation import comparison
from cytology.settings import ARCHITECTURE_NAMES
from cytology.tables import read_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_a_confusion_matrix_has_the_true_class_in_rows():
    rows = pd.DataFrame({"label": list("BBBMM"), "probability": [0.1, 0.2, 0.9, 0.5, 0.1]})
    (axis,) = plots.confusions({"x": rows}).axes
    assert texts(axis) == ["2\n67%", "1\n33%", "1\n50%", "1\n50%"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")


def test_in_an_honest_split_every_column_has_one_colour(run):
    split = read_table(run, "split.csv")
    (axis,) = plots.who_is_where(split, "patient").axes
    heights = {
        name: np.array([bar.get_height() for bar in bars])
        for name, bars in zip(plots.SPLIT_COLOUR, axis.containers, strict=True)
    }
    assert (sum(height > 0 for height in heights.values()) == 1).all()
    for name, height in heights.items():
        assert height.sum() == (split["split"] == name).sum()


def test_the_forest_shows_each_auc_and_the_baseline(run):
    table = comparison(run)
    (axis,) = plots.forest(table, 0.61, "patient").axes
    shown = " ".join(texts(axis))
    assert all(f"{auc:.3f}" in shown for auc in table["auc"]) and "0.610" in shown
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[-1] == "MobileNetV2\n(imagenet weights)"


def test_the_images_of_each_class_are_counted(manifest):
    left = plots.class_counts(manifest, "patient").axes[0]
    assert texts(left) == [str((manifest["label"] == label).sum()) for label in "BM"]


def test_a_wrong_prediction_says_so_and_an_unknown_label_is_not_wrong(tmp_path, smear):
    smear(1).save(tmp_path / "a.png")
    rows = pd.DataFrame({"predicted": list("MBM"), "label": ["B", "B", ""], "probability": 0.7})
    axes = plots.predicted_gallery(tmp_path, rows.assign(image_id="a.png")).axes
    titles = [axis.get_title(loc="left") for axis in axes if axis.get_visible()]
    assert titles == ["M, P(M) = 0.70\ntrue B: wrong", "B, P(M) = 0.70\ntrue B", "M, P(M) = 0.70"]


def test_learning_curves_have_a_row_a_stage():
    history = pd.DataFrame(
        [(m, s, e, 1 / e, 0.5, 1 / e, 0.5) for m, s in MODELS for e in (1, 2, 3)],
        columns=["model", "stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"],
    )
    axes = plots.learning_curves(history, "X").axes
    assert [axis.get_title(loc="left") for axis in axes] == [
        "X, head: loss", "X, head: accuracy", "X, fine-tune: loss", "X, fine-tune: accuracy",
    ]  # fmt: skip
    assert len(axes[0].lines) == 4 and len(axes[2].lines) == 2


MODELS = [("fold0", "head"), ("final", "head"), ("final", "fine_tune")]


def test_a_network_has_one_colour_in_every_figure(run):
    tables = {name: read_table(run, f"{name}/predictions.csv") for name in ARCHITECTURE_NAMES}
    (axis,) = plots.roc_curves(tables).axes
    colours = [to_hex(line.get_color()).upper() for line in axis.lines[:3]]
    assert colours == list(plots.NETWORK_COLOUR.values())
