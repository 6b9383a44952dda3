"""Figures: saved with their caption, shown with it as alternative text, and closed."""

import IPython
import matplotlib.pyplot as plt
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from cytology.plots.style import save_figure, show_figure
from cytology.run import Run
from cytology.tables import write_json

CAPTION = 'Sizes < 3 "px"'


@pytest.fixture
def notebook(monkeypatch):
    """A shell as notebooks have one."""
    shell = InteractiveShell.instance()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    yield shell
    InteractiveShell.clear_instance()


def figure():
    made, axis = plt.subplots()
    axis.plot([1, 2])
    return made


def test_the_caption_of_a_figure_is_stored_in_the_png(tmp_path):
    save_figure(Run(tmp_path), "03_who", figure(), "Who is where")
    assert Image.open(tmp_path / "figures" / "03_who.png").text["Description"] == "Who is where"


def test_the_caption_of_a_leaking_run_warns_of_the_leak(tmp_path):
    for protocol, said in {"original": "LEAKS", "given, leaks": "LEAKS", "given": "AUC"}.items():
        write_json(tmp_path, "split.json", {"protocol": protocol})
        save_figure(Run(tmp_path), "07_1_auc", figure(), "AUC")
        caption = Image.open(tmp_path / "figures" / "07_1_auc.png").text["Description"]
        assert said in caption and ("LEAKS" in caption) == (said == "LEAKS")


@pytest.mark.parametrize("show", [lambda run, *what: save_figure(Run(run), "01_x", *what), None])
def test_a_notebook_shows_a_figure_once_with_its_caption_as_alternative_text(
    tmp_path, notebook, show
):
    made = figure()
    with capture_output() as captured:
        show(tmp_path, made, CAPTION) if show else show_figure(made, CAPTION)
    (shown,) = captured.outputs
    assert 'alt="Sizes &lt; 3 &quot;px&quot;"' in shown.data["text/html"]
    assert "<figcaption" in shown.data["text/html"]
    assert shown.data["text/plain"] == f"Figure: {CAPTION}"
    assert not plt.fignum_exists(made.number), "the inline backend would draw it once more"


def test_without_a_notebook_nothing_is_shown(tmp_path, capsys):
    save_figure(Run(tmp_path), "01_x", figure(), CAPTION)
    assert capsys.readouterr().out == ""
