"""Warnings appear if there is a reason, and only then."""

import pytest

from cytology.evaluation.caveats import (
    caveats,
    caveats_html,
    data_caveats,
    split_check,
    split_html,
    weights_caveats,
    weights_html,
)
from cytology.run import Run

LEAK = {
    "test_images_with_copy_in_training": 1200,
    "test_images": 1300,
    "groups_in_several_splits": 24,
    "groups": 25,
}


def change(run, name, **values):
    run.write(name, run.facts(name) | values)


def test_an_honest_run_with_pretrained_weights_has_no_caveats(run):
    assert caveats(run) == [] and caveats_html(run) == ""


def test_a_folder_without_results_has_no_caveats(tmp_path):
    assert caveats(Run(tmp_path)) == []


def test_a_leak_comes_first_with_its_counts_and_in_red(run):
    change(run, "split.json", leak=LEAK)
    change(run, "densenet121/metrics.json", weights="random")
    leak, weights = caveats(run)
    assert (leak.kind, weights.kind) == ("leak", "weights")
    assert "THIS SPLIT LEAKS: 1,200 of 1,300 test images" in leak.text
    assert "24 of 25 groups" in leak.text
    assert "for DenseNet121:" in weights.text and "It only checks the software" in weights.text
    assert caveats_html(run).index("#b00020") < caveats_html(run).index("#8a5a00")


@pytest.mark.parametrize(
    "crossing", ["test_images_with_copy_in_training", "groups_in_several_splits"]
)
def test_either_kind_of_crossing_is_a_leak(run, crossing):
    change(run, "split.json", leak=dict.fromkeys(LEAK, 0) | {crossing: 1})
    assert [caveat.kind for caveat in caveats(run)] == ["leak"]


def test_random_networks_are_not_ranked_and_others_are():
    kinds = dict.fromkeys(("MobileNetV2", "DenseNet121"), "random")
    (nothing,) = weights_caveats(kinds)
    assert nothing.text.endswith("not to rank networks; no winner is named.")
    (some,) = weights_caveats(kinds | {"InceptionV3": "file"})
    assert some.text.startswith("No pretrained weights for MobileNetV2, DenseNet121:")
    assert some.text.endswith("They only check the software and are not ranked.")
    assert weights_caveats({"InceptionV3": "file"}) == []


KNOWN = {"images": 58, "of_unknown_unit": 0, "unit": "patient"}


@pytest.mark.parametrize(
    "changed, said, check",
    [
        ({}, "", "no patient is in more than one part, and no image is in another part than its"),
        (
            {"unit": "field of view"},
            "The patients are unknown: fields of view were kept together. If several fields of",
            "its copies. Whether a patient is in several parts is unknown.",
        ),
        (
            {"unit": "group", "of_unknown_unit": 58},
            "The patients are unknown: only copies of the same image were kept together",
            "whether one is in several parts could not be checked.",
        ),
        (
            {"of_unknown_unit": 6},
            "6 of 58 images have no patient; each of them, with its copies, counts as one group",
            "no known patient is in more than one part",
        ),
    ],
)
def test_caveats_about_patients_state_only_what_is_known(changed, said, check):
    dataset = KNOWN | changed
    texts = [caveat.text for caveat in data_caveats(dataset)]
    assert (texts == []) if not said else (len(texts) == 1 and texts[0].startswith(said))
    assert all("too good" in text and "too narrow" in text for text in texts)
    assert check in split_check(dataset, {"unit": dataset["unit"]})


def test_other_class_names_are_explained():
    dysplasia = {"B": "normal cells of the cervix", "M": "dysplasia"}
    (caveat,) = data_caveats(KNOWN | {"classes": dysplasia})
    assert caveat.text == (
        "What these pages call malignant is here dysplasia; what they call benign, normal cells of "
        "the cervix."
    )
    assert data_caveats(KNOWN | {"classes": {"B": "benign", "M": "malignant"}}) == []


def test_random_weights_get_a_banner_and_names_are_escaped():
    assert "font-weight:bold" in weights_html("random", "NO PRETRAINED WEIGHTS")
    assert weights_html("file", "Weights from <x>.h5.") == "<p>Weights from &lt;x&gt;.h5.</p>"


def test_the_result_of_the_check_is_shown_below_a_split_that_does_not_leak(run):
    dataset = {"images": 90, "of_unknown_unit": 0, "unit": "patient"}
    run.write("dataset.json", dataset)
    assert split_html(run).endswith(f"<p>{split_check(dataset, run.facts('split.json'))}</p>")
    change(run, "split.json", leak=LEAK)
    assert split_html(run) == caveats_html(run) != ""
