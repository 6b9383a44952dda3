"""Figures show what the tables hold."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation.baseline import shortcut_baseline
from cytology.evaluation.comparison import comparison_all, fold_pairs, pairs_of_models
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics.bootstrap import curve_bands
from cytology.plots import comparison as comparison_plots
from cytology.plots import data as data_plots
from cytology.plots import decisions as decisions_plots
from cytology.plots import explanation as explanation_plots
from cytology.plots import inference as inference_plots
from cytology.plots import splitting as splitting_plots
from cytology.plots import style as style_plots
from cytology.plots import training as training_plots
from cytology.plots.style import overlay_heat
from cytology.run import Run
from cytology.tables import read_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def baseline(run):
    tables = ("manifest.csv", "tables/appearance.csv", "split.csv")
    return shortcut_baseline(*(read_table(run, name) for name in tables))


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_a_saved_figure_is_drawn_once_and_matches_one_drawn_twice():
    """Matplotlib draws everything once to measure "tight", then again; the pixels are the same."""

    def drawn():
        figure, axis = plt.subplots(figsize=(4, 3))
        axis.plot([0, 1], [0, 1e6], label="a line")
        axis.set(title="a title", ylabel="so many")
        figure.text(0, 1, "above the figure, and wider than it is by quite a piece", va="bottom")
        figure.legend(loc="outside lower center")
        return figure

    expected = io.BytesIO()
    drawn().savefig(expected, format="png", dpi=style_plots.DPI, bbox_inches="tight")
    found, draws = drawn(), []
    found.axes[0].lines[0].draw = lambda renderer, draw=found.axes[0].lines[0].draw: (
        draws.append(1),
        draw(renderer),
    )
    data = io.BytesIO(style_plots.png(found, "a caption"))
    expected.seek(0)
    np.testing.assert_array_equal(plt.imread(data), plt.imread(expected))
    assert len(draws) == 1


def test_a_confusion_matrix_has_the_true_class_in_rows():
    rows = pd.DataFrame({"label": list("BBBMM"), "probability": [0.1, 0.2, 0.9, 0.5, 0.1]})
    (axis,) = training_plots.confusion_matrices({"x": rows}).axes
    assert texts(axis) == ["2\n67%", "1\n33%", "1\n50%", "1\n50%"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted (% of each row)", "true")
    (colours,) = (image.get_array() for image in axis.images)
    assert (colours[[0, 1], [0, 1], 2] > colours[[0, 1], [0, 1], 0]).all()  # right: blue
    assert (colours[[0, 1], [1, 0], 0] > colours[[0, 1], [1, 0], 2]).all()  # wrong: red


def test_each_group_has_one_colour_in_an_honest_split(run):
    split = read_table(run, "split.csv")
    (axis,) = splitting_plots.who_is_where(split, "patient").axes
    heights = {
        name: np.array([bar.get_height() for bar in bars])
        for name, bars in zip(style_plots.SPLIT_COLOUR, axis.containers, strict=True)
    }
    assert (sum(height > 0 for height in heights.values()) == 1).all()
    assert "0 of 30 columns have more than one colour" in axis.get_title(loc="left")
    for name, height in heights.items():
        assert height.sum() == (split["split"] == name).sum()
    split.loc[split["group"] == split["group"].max(), "split"] = ["train", "val", *["test"] * 3]
    (other,) = splitting_plots.who_is_where(split, "patient").axes
    assert "1 of 30 columns" in other.get_title(loc="left")


def test_scores_are_drawn_in_the_row_of_their_fold(baseline):
    rows = baseline[baseline["model"] == "oof"]
    (axis,) = splitting_plots.scores_by_fold(rows).axes
    for marks, label in zip(axis.collections, "BM", strict=True):
        part = rows[rows["label"] == label]
        assert marks.get_offsets()[:, 0].tolist() == pytest.approx(part["logit"].tolist())
        assert (marks.get_offsets()[:, 1].round() == part["fold"]).all()


def test_long_names_do_not_stretch_a_figure(run):
    split = read_table(run, "split.csv")
    split["group"] = split["group"] + "W" * 100
    (axis,) = splitting_plots.who_is_where(split, "patient").axes
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels and all("W…" in label and len(label) <= 46 for label in labels)


def test_the_forest_shows_every_model_with_its_interval(run, baseline):
    table = comparison_all(Run(run), baseline)
    table.loc[table["model"] == "inceptionv3", "weights"] = "random"
    shown = table[table["judged_on"] == "out-of-fold"]
    (axis,) = comparison_plots.forest_plot(shown, "patient").axes
    images = shown[shown["level"] == "image"]
    for row in images.itertuples():
        assert f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})" in texts(axis)
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[::-1][:2] == ["MobileNetV2", "InceptionV3\n(random weights)"]
    assert len(names) == len(images) and names[0] == "Size and colour"


def test_the_pairs_show_the_corrected_p_and_every_fold(run, baseline):
    pairs = pairs_of_models(Run(run), baseline)
    pairs = pairs[(pairs["family"] == "networks") & (pairs["level"] == "image")]
    folds = fold_pairs(Run(run))
    left, right = comparison_plots.pair_differences(pairs, folds, "patient").axes
    expected = [f"P = {p:.2g}" if p >= 0.001 else "P < 0.001" for p in pairs["p_holm"]]
    assert texts(left) == expected[::-1]
    dots = [line for line in right.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == len(folds) == 9


def test_thresholds_from_too_few_groups_have_no_error_bars_and_a_note():
    rows = [("mobilenetv2", "half", part, 0.8, 0.7, 40, 4) for part in ("out-of-fold", "test")]
    columns = ["model", "rule", "judged_on", "recall", "specificity", "images", "groups"]
    table = pd.DataFrame(rows, columns=columns).assign(wanted_sensitivity=0.9)
    for name in ("recall", "specificity"):
        table[f"{name}_low"], table[f"{name}_high"] = [0.5, np.nan], [0.9, np.nan]
    left, right = decisions_plots.thresholds(table, "slide").axes
    assert left.get_title(loc="left") == "out-of-fold, cross-fitted\n40 images, 4 slides"
    assert right.get_title(loc="left") == "test\n40 images, 4 slides: too few for bars"


def test_the_images_of_each_class_are_counted_in_the_figure(manifest):
    left = data_plots.class_counts(manifest, "patient").axes[0]
    assert texts(left) == [str((manifest["label"] == label).sum()) for label in "BM"]


def test_a_gallery_shows_no_image_twice_and_no_patient_before_all_others(manifest):
    shown = data_plots.examples_of_each_class(manifest, seed=0)
    assert shown["label"].tolist() == ["B"] * 6 + ["M"] * 6
    assert shown["group"].is_unique and shown["image_id"].is_unique
    few = manifest.drop(manifest.index[manifest["label"] == "M"][2:])
    assert data_plots.examples_of_each_class(few, seed=0)["label"].tolist() == list("BBMM")


def test_only_patients_with_several_images_have_a_box(manifest):
    rng = np.random.default_rng(0)
    colours = rng.uniform(50, 200, (len(manifest), 3))
    table = manifest.join(pd.DataFrame(colours, columns=["brightness", "red", "blue"]))
    right = data_plots.appearance(table, "patient").axes[2]
    large = (table.groupby("group").size() >= 4).sum()
    assert right.get_title(loc="left") == f"Brightness by patient: {large} of 30"
    alone = data_plots.appearance(table.drop_duplicates("group"), "patient").axes[2]
    assert texts(alone) == ["no patient has 4 images"]


def test_a_wrong_prediction_is_marked_and_an_unknown_label_is_not_wrong(tmp_path, smear):
    smear(1).save(tmp_path / "a.png")
    rows = pd.DataFrame({"predicted": list("MBM"), "label": ["B", "B", ""], "probability": 0.7})
    axes = inference_plots.predicted_gallery(tmp_path, rows.assign(image_id="a.png")).axes
    titles = [axis.get_title(loc="left") for axis in axes if axis.get_visible()]
    assert titles == ["M, P(M) = 0.70\ntrue B: wrong", "B, P(M) = 0.70\ntrue B", "M, P(M) = 0.70"]


def test_learning_curves_have_one_row_per_stage():
    history = pd.DataFrame(
        [(m, s, e, 1 / e, 0.5, 1 / e, 0.5) for m, s in MODELS for e in (1, 2, 3)],
        columns=["model", "stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"],
    )
    axes = training_plots.learning_curves(history, "X").axes
    assert [axis.get_title(loc="left") for axis in axes] == [
        "X, head: loss", "X, head: accuracy", "X, fine-tune: loss", "X, fine-tune: accuracy",
    ]  # fmt: skip
    assert len(axes[0].lines) == 4 and len(axes[2].lines) == 2
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "folds, trained on", "folds, left out", "kept model, train part", "kept model, val part",
    ]  # fmt: skip


def test_an_exported_file_that_disagrees_has_a_red_edge():
    rows = [("mobilenetv2", "keras", True), ("mobilenetv2", "tflite_int8", False)]
    rows += [("densenet121", name, True) for name in ("keras", "h5", "tflite_int8")]
    table = pd.DataFrame(rows, columns=["architecture", "format", "agrees"])
    table = table.assign(megabytes=9.0, latency=20.0, largest_difference=[0, 1, 0, 0, 1])
    axes = inference_plots.exports(table.assign(tolerance=[1e-3, np.nan, 1e-3, 1e-3, np.nan])).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [
        "keras", "h5", "tflite int8",
    ]  # fmt: skip
    first, second = axes[2].collections[:2]
    assert [to_hex(colour) for colour in first.get_edgecolors()] == ["#000000", "#b00020"]
    assert [to_hex(colour) for colour in second.get_edgecolors()] == ["#000000"] * 3
    assert first.get_offsets()[:, 0].tolist() == [1e-8, 1] and len(axes[2].lines) == 1
    shown = axes[2].xaxis.get_major_formatter()
    assert [shown(value) for value in (1e-8, 1e-6, 0.01, 0.5, 20)] == [
        "0", "10⁻⁶", "10⁻²", "0.5", "20",
    ]  # fmt: skip


MODELS = [("fold0", "head"), ("final", "head"), ("final", "fine_tune")]


@pytest.fixture
def judged_smears(tmp_path, smear):
    """Three images of two patients with answers, below a folder."""
    for k in range(3):
        smear(k).save(tmp_path / f"{k}.png")
    rows = pd.DataFrame({"image_id": [f"{k}.png" for k in range(3)], "label": ["B", "M", ""]})
    rows = rows.assign(predicted=list("BBM"), probability=[0.1, 0.4, 0.9], group=list("aab"))
    return tmp_path, rows


def test_heatmaps_are_shown_next_to_their_images_with_one_row_per_kind(judged_smears):
    root, rows = judged_smears
    maps = [np.random.default_rng(k).normal(size=(48, 64)) for k in range(3)]
    figure = explanation_plots.heatmaps(
        root, rows.assign(kind=["right", "wrong", "wrong"]), maps, pairs=2
    )
    titles = [axis.get_title(loc="left") for axis in figure.axes[:8]]
    assert titles[:2] == ["right: raw P(M) = 0.10", "why B? true B"]
    assert titles[4:] == [
        "wrong: raw P(M) = 0.40", "why B? true M, wrong", "wrong: raw P(M) = 0.90", "why M? ",
    ]  # fmt: skip


def test_negative_heat_leaves_an_image_grey_and_the_hottest_spot_is_brightest(smear):
    grey = overlay_heat(smear(0), np.full((48, 64), -1.0))
    assert np.ptp(grey, axis=-1).max() < 1e-9
    heat = np.zeros((48, 64))
    heat[10, 20] = 2.0
    shown = overlay_heat(smear(0), heat)
    assert np.unravel_index(np.ptp(shown, axis=-1).argmax(), (48, 64)) == (10, 20)
    assert shown.min() >= 0 and shown.max() <= 1


def test_a_referred_image_has_a_frame_and_the_reason(judged_smears):
    root, rows = judged_smears
    rows = rows.assign(refer=[False, True, False], refer_why=["", "too near the threshold", ""])
    rows = rows.assign(nearest=["1.png", "gone.png", "0.png"], nearest_label="B")
    rows = rows.assign(calibrated_probability=[0.1, 0.2, 0.3])
    axes = inference_plots.explained_predictions(root, rows, [np.ones((48, 64))] * 3, root).axes
    assert [axis.get_xlabel() for axis in axes[:6:3]] == ["", "refer: too near the threshold"]
    assert axes[2].get_title(loc="left") == "nearest known: B" and not axes[5].axison


def test_a_threshold_gives_a_confusion_matrix():
    rows = pd.DataFrame({"label": list("BBBMM")})
    rows["calibrated_probability"] = [0.1, 0.2, 0.9, 0.5, 0.1]
    left, right = inference_plots.confusion_at_threshold(rows, 0.5).axes
    assert texts(left) == ["2\n67%", "1\n33%", "1\n50%", "1\n50%"]
    assert right.lines[0].get_xdata()[0] == 0.5


def test_checks_show_chance_the_interval_and_the_verdict():
    table = pd.DataFrame(
        {
            "architecture": ["mobilenetv2", "densenet121"],
            "check": "deletion",
            "value": [1.0, 2.0],
            "chance": 2.0,
            "difference_low": [-1.5, np.nan],
            "difference_high": [-0.5, np.nan],
            "passed": ["yes", "unclear"],
        }
    )
    axis = explanation_plots.explanation_checks(table).axes[0]
    assert texts(axis) == ["unclear", "passed"]
    bars = [line.get_xdata().tolist() for line in axis.lines if len(line.get_xdata()) == 2]
    assert bars[1] == [0.5, 1.5]


def test_the_map_marks_mistakes_and_every_stain(judged_smears):
    root, rows = judged_smears
    rows = rows.assign(label=list("BMM"), wrong=[False, True, False], stain=["x", "x", "y"])
    left, middle, _ = explanation_plots.feature_map(
        np.eye(3)[:, :2], ("x", "y"), rows, root, "slide"
    ).axes
    assert left.get_legend_handles_labels()[1][-1] == "mistakes (1)"
    assert middle.get_legend_handles_labels()[1] == ["x", "y"]
    assert middle.get_title(loc="left") == "By slide: lines lead to the middle of each"


def test_neighbours_are_shown_next_to_the_misclassified_image(judged_smears):
    root, rows = judged_smears
    found = pd.DataFrame({"image_id": "1.png", "rank": [1, 2], "neighbour": ["0.png", "2.png"]})
    found = found.assign(label=list("BM"), group=list("ab"), distance=[3.2, 4.0])
    axes = explanation_plots.neighbours(
        root, rows.iloc[[1]].assign(title="wrong"), found, "patient"
    ).axes
    titles = [axis.get_title(loc="left") for axis in axes]
    assert titles == ["wrong\na", "B, a\ndistance 3", "M, b\ndistance 4"]


def test_a_network_has_one_colour_in_every_figure(run):
    tables = {name: read_predictions(Run(run), name) for name in ARCHITECTURE_NAMES}
    bands = {name: curve_bands(rows, draws=5) for name, rows in tables.items()}
    figure = comparison_plots.roc_and_precision_recall(tables, bands, "patient")
    share = pd.concat(tables.values())["label"].eq("M").mean()
    assert f"precision where {share:.0%} of the images are malignant" in figure.get_suptitle()
    axes = figure.axes
    colours = [to_hex(axis.lines[0].get_color()).upper() for axis in axes]
    assert colours == [*style_plots.NETWORK_COLOUR.values()] * 2
    assert axes[0].lines[0].get_ydata()[-1] == 1
