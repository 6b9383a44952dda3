"""The controls: what they write and show, and that a headless run has none."""

from datetime import UTC, datetime

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from cytology.plots import widgets
from cytology.plots.widgets import keep_files, threshold_slider, upload_button, uploaded_files


@pytest.fixture
def shown(monkeypatch):
    """A person is watching; collects what is displayed."""
    found = []
    monkeypatch.delenv("CYTOLOGY_HEADLESS", raising=False)
    monkeypatch.setattr(widgets, "display", found.append)
    return found


def test_headless_runs_have_no_controls(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CYTOLOGY_HEADLESS", "1")
    monkeypatch.setattr(widgets, "display", None)
    threshold_slider(None, 0.5)
    upload_button(tmp_path / "uploads", None)
    assert "there is a button here" in capsys.readouterr().out
    assert not (tmp_path / "uploads").exists()


def test_the_slider_starts_at_the_threshold_and_redraws_the_figure(shown):
    drawn, open_before = [], plt.get_fignums()

    def draw(threshold):
        drawn.append(threshold)
        return plt.subplots()[0]

    threshold_slider(draw, 0.37)
    slider = shown[-1].children[0]
    slider.value = 0.6
    assert drawn == [0.37, 0.6]
    assert plt.get_fignums() == open_before


def test_uploaded_files_are_saved_and_classified(shown, tmp_path, capsys):
    folder, asked = tmp_path / "größe 1", []
    upload_button(folder, lambda kept: asked.append(sorted(p.name for p in kept.iterdir())))
    button = shown[0].children[0]
    assert isinstance(button, ipywidgets.FileUpload) and ".png" in button.accept
    about = {"type": "image/png", "size": 3, "last_modified": datetime.now(UTC)}
    button.value = ({"name": "ä 1.png", "content": memoryview(b"abc"), **about},)
    button.value = ({"name": "b.png", "content": memoryview(b"xyz"), **about},)
    assert asked == [["ä 1.png"], ["b.png"]]
    assert (folder / "upload-1" / "ä 1.png").read_bytes() == b"abc"
    assert (folder / "upload-2" / "b.png").read_bytes() == b"xyz"


def test_both_formats_of_an_upload_value_are_read():
    new = ({"name": "a.png", "content": memoryview(b"1")},)
    old = {"a.png": {"metadata": {"name": "a.png"}, "content": b"1"}}  # ipywidgets 7, on Colab
    assert list(uploaded_files(new)) == list(uploaded_files(old)) == [("a.png", b"1")]


def test_an_uploaded_file_name_cannot_escape_the_folder(tmp_path):
    kept = keep_files(tmp_path / "uploads", [("../../evil.png", b"1"), ("C:\\x\\y.png", b"2")])
    assert sorted(path.name for path in kept.iterdir()) == ["evil.png", "y.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["uploads"]
