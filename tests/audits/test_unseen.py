"""Images of neither class: which are scored, by which head, and how they are reported."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cytology.audits import unseen
from cytology.evaluation.judged import OUT_OF_FOLD, TEST
from cytology.evaluation.operating_points import calibrated_predictions, predictions_to_choose_on
from cytology.networks.linear_head import LinearHead
from cytology.plots import subgroups

pytestmark = pytest.mark.numeric

CATEGORIES = ("C3", "C4")


@pytest.fixture
def run_with_unseen(run, tmp_path, smear, monkeypatch):
    """The run with 18 images of neither class: of patients of each part, other and unknown ones."""
    monkeypatch.setattr(unseen, "CACHE", tmp_path / "cache")
    root, split = tmp_path / "images", run.table("split.csv")
    known = [
        split.loc[split["split"] == part, "group"].iloc[0] for part in ("train", "val", "test")
    ]
    rows = []
    for category in CATEGORIES:
        (root / category).mkdir(parents=True)
        for patient in (*known, "new", ""):
            for number in range(1 if patient else 5):
                name = f"{category}/p{patient}_{number}.png"
                smear(len(rows)).save(root / name)
                rows.append((name, category, patient))
    (root / "C4" / "broken.png").write_bytes(b"no image")
    rows.append(("C4/broken.png", "C4", "new"))
    run.write("unseen.csv", pd.DataFrame(rows, columns=["image_id", "category", "patient"]))
    run.write("dataset.json", {"unit": "patient", "root": str(root), "data": "made"})
    return run


def scored(run, on=OUT_OF_FOLD, low=-0.5, high=0.5, monkeypatch=None, names=("mobilenetv2",)):
    """Scores where each image of C3 has the logit `low`, and of C4 `high`."""
    images, _ = unseen.images_to_score(run, on, 0)
    logits = np.where(images["category"] == "C3", low, high)
    monkeypatch.setattr(unseen, "logits_of", lambda *_: logits)
    return unseen.scores_of_run(run, list(names), images, on, "half", 0.95)


# ------------------------------------------------------------------- which images


def test_a_run_without_unseen_images_says_so_and_opens_no_file(run, monkeypatch):
    run.write("unseen.csv", pd.DataFrame(columns=["image_id", "category"]))
    monkeypatch.setattr(unseen, "inspect_files", None)
    images, note = unseen.images_to_score(run, OUT_OF_FOLD, 0)
    assert images.empty and note.startswith("This data set has no images of neither class")


def test_nothing_is_scored_if_the_split_leaks(run_with_unseen):
    run_with_unseen.write(
        "split.json", run_with_unseen.facts("split.json") | {"protocol": "original"}
    )
    images, note = unseen.images_to_score(run_with_unseen, TEST, 0)
    assert images.empty and note.startswith("The split leaks")


def test_an_image_gets_the_fold_of_its_patient(run_with_unseen):
    images, note = unseen.images_to_score(run_with_unseen, OUT_OF_FOLD, 0)
    assert note == "18 images of neither class are scored. Left out: 1 that cannot be read."
    split = run_with_unseen.table("split.csv").drop_duplicates("group").set_index("group")
    for row in images[images["split"].isin(["train", "val"])].itertuples():
        assert row.fold == split.loc[row.group, "fold"]
    others = images[~images["split"].isin(["train", "val"])]
    assert (
        set(others["fold"]) <= {0, 1, 2}
        and (others.groupby("group")["fold"].nunique()[1:] == 1).all()
    )
    again, _ = unseen.images_to_score(run_with_unseen, OUT_OF_FOLD, 1)
    pd.testing.assert_frame_equal(images, again)


def test_a_single_network_does_not_score_patients_it_was_trained_on(run_with_unseen):
    images, note = unseen.images_to_score(run_with_unseen, TEST, 0)
    assert set(images["split"]) == {"", "test"} and len(images) == 14
    assert note.endswith("Left out: 1 that cannot be read and 4 of patients in training.")


def test_a_sample_is_drawn_from_many_images(run_with_unseen, monkeypatch):
    monkeypatch.setattr(unseen, "MOST_IMAGES", 5)
    images, note = unseen.images_to_score(run_with_unseen, OUT_OF_FOLD, 0)
    assert len(images) <= 5 and "14 not drawn" in note


def test_a_file_that_is_in_the_manifest_has_its_group(manifest):
    images = pd.DataFrame({"sha256": [manifest["sha256"].iloc[3], "f" * 64], "patient": ["x", ""]})
    assert unseen.groups_of(images, manifest).tolist() == [manifest["group"].iloc[3], ""]


# -------------------------------------------------------------------- the scores


def test_each_image_is_scored_by_the_head_of_its_fold(run_with_unseen, monkeypatch):
    images, _ = unseen.images_to_score(run_with_unseen, OUT_OF_FOLD, 0)
    heads = {
        f"fold{k}": LinearHead(np.zeros(2), np.ones(2), np.zeros(2), float(k)) for k in range(3)
    }
    features = type("Features", (), {"of": lambda self, pictures: np.zeros((len(pictures), 2))})()
    monkeypatch.setattr(unseen, "read_heads", lambda *_: heads)
    monkeypatch.setattr(unseen, "features_of_run", lambda *_: features)
    found = unseen.logits_of(run_with_unseen, "mobilenetv2", images, OUT_OF_FOLD)
    assert found.tolist() == images["fold"].tolist()


def test_known_images_are_scored_as_in_notebook_08(run_with_unseen, monkeypatch):
    scores = scored(run_with_unseen, monkeypatch=monkeypatch)
    known = scores[scores["label"] != ""].set_index("image_id")
    expected = calibrated_predictions(run_with_unseen, "mobilenetv2", OUT_OF_FOLD).set_index(
        "image_id"
    )
    assert set(known.index) == set(expected.index)
    np.testing.assert_allclose(known["probability"], expected.loc[known.index, "probability"])
    raw = (
        predictions_to_choose_on(run_with_unseen, "mobilenetv2")[1]
        .set_index("image_id")
        .loc[known.index, "logit"]
    )
    assert ((known["called"] == "M") == (raw >= 0)).all()
    at = known["probability"] >= known["threshold"] - 1e-12
    assert (at == (known["called"] == "M")).all()


@pytest.mark.parametrize("on", [OUT_OF_FOLD, TEST])
def test_categories_are_listed_between_the_classes_with_intervals_by_patient(
    run_with_unseen, on, monkeypatch
):
    names = ["inceptionv3", "densenet121"]
    table = unseen.by_category(scored(run_with_unseen, on, -0.2, 0.4, monkeypatch, names))
    assert table["model"].drop_duplicates().tolist() == names
    of_one = table[table["model"] == "densenet121"].set_index("category")
    assert of_one.index.tolist() == ["benign", "C3", "C4", "malignant"]
    assert of_one["median"].is_monotonic_increasing
    assert of_one.loc[["C3", "C4"], "called_malignant"].tolist() == [0, 1]
    assert of_one.loc["C3", "of_unknown_group"] == 5
    assert of_one.loc["C3", "groups"] == (9 if on == OUT_OF_FOLD else 7)
    inside = of_one["called_malignant"].between(
        of_one["called_malignant_low"], of_one["called_malignant_high"]
    )
    assert inside.all() and (table["rule"] == "half").all() and (table["judged_on"] == on).all()


def test_many_images_of_one_patient_do_not_narrow_the_interval(run_with_unseen, monkeypatch):
    scores = scored(run_with_unseen, monkeypatch=monkeypatch)
    rows = scores[scores["category"] == "C4"]
    many = pd.concat([rows.assign(image_id=rows["image_id"] + f" {k}") for k in range(20)])
    many["called"] = np.where(np.arange(len(many)) % 2, "M", "B")
    alone = many.assign(group=many["image_id"])
    widths = []
    for each in (
        many.assign(group="p" + pd.Series(np.arange(len(many)) // 30 % 6, many.index).astype(str)),
        alone,
    ):
        row = unseen.by_category(each).iloc[0]
        widths.append(row["called_malignant_high"] - row["called_malignant_low"])
    assert widths[0] > 2 * widths[1]


def test_the_classes_are_named_by_the_categories_of_the_source(run_with_unseen, monkeypatch):
    manifest = run_with_unseen.table("manifest.csv")
    category = manifest["label"].map({"B": "C2", "M": "C5"})
    run_with_unseen.write("manifest.csv", manifest.assign(category=category))
    table = unseen.by_category(scored(run_with_unseen, monkeypatch=monkeypatch))
    assert table["category"].tolist() == ["C2", "C3", "C4", "C5"]


# --------------------------------------------------------------------- in words


def test_categories_are_described_in_sentences(run_with_unseen, monkeypatch):
    table = unseen.by_category(scored(run_with_unseen, monkeypatch=monkeypatch))
    calls, unknown, nobody = unseen.category_sentences(table, "patient")
    assert calls.startswith("MobileNetV2 calls malignant ") and calls.endswith(" malignant images.")
    assert " of C3, 100% (" in calls
    assert unknown.startswith("Nobody knows whose 10 images of neither class are")
    assert "No such answer is right or wrong" in nobody
    few = table.assign(groups=3, of_unknown_group=0)
    assert "Too few patients for an interval: C3 (3) and C4 (3)." in unseen.category_sentences(
        few, "patient"
    )
    assert "(" not in unseen.category_sentences(few, "patient")[0]
    random = unseen.category_sentences(table.assign(weights="random"), "patient")
    assert random[0].endswith("its scores mean nothing.")


def test_the_figure_shows_every_image_and_the_share_called_malignant(run_with_unseen, monkeypatch):
    scores = scored(run_with_unseen, monkeypatch=monkeypatch, names=["mobilenetv2", "densenet121"])
    table = unseen.by_category(scores)
    figure = subgroups.strip_plot(scores, table, "patient")
    assert len(figure.axes) == 2
    for axis, name in zip(figure.axes, ["mobilenetv2", "densenet121"], strict=True):
        drawn = sum(len(marks.get_offsets()) for marks in axis.collections)
        assert drawn == (scores["model"] == name).sum()
        assert axis.texts[1].get_text().startswith("0%")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[1] == "C3\n9 images, 9 patients"
    plt.close(figure)
