"""What must be said aloud is said, and nothing is said when there is nothing."""

import pytest

from cytology.caveats import caveats, caveats_html, weights_html
from cytology.tables import read_json, write_json

LEAK = {
    "test_images_with_copy_in_training": 1200,
    "test_images": 1300,
    "groups_in_several_splits": 24,
    "groups": 25,
}


def change(run, name, **values):
    write_json(run, name, read_json(run, name) | values)


def test_an_honest_run_with_pretrained_weights_has_none(run):
    assert caveats(run) == [] and caveats_html(run) == ""


def test_a_folder_without_results_has_none(tmp_path):
    assert caveats(tmp_path) == []


def test_a_leak_comes_first_with_its_counts_and_in_red(run):
    change(run, "split.json", leak=LEAK)
    change(run, "densenet121/metrics.json", weights="random")
    leak, weights = caveats(run)
    assert (leak.kind, weights.kind) == ("leak", "weights")
    assert "THIS SPLIT LEAKS: 1,200 of 1,300 test images" in leak.text
    assert "24 of 25 groups" in leak.text
    assert "for DenseNet121:" in weights.text and "ranks nothing" in weights.text
    assert caveats_html(run).index("#b00020") < caveats_html(run).index("#8a5a00")


@pytest.mark.parametrize(
    "crossing", ["test_images_with_copy_in_training", "groups_in_several_splits"]
)
def test_either_kind_of_crossing_is_a_leak(run, crossing):
    change(run, "split.json", leak=dict.fromkeys(LEAK, 0) | {crossing: 1})
    assert [caveat.kind for caveat in caveats(run)] == ["leak"]


def test_random_weights_get_a_banner_and_names_are_escaped():
    assert "font-weight:bold" in weights_html("random", "NO PRETRAINED WEIGHTS")
    assert weights_html("file", "Weights from <x>.h5.") == "<p>Weights from &lt;x&gt;.h5.</p>"
