"""Controls for a person in JupyterLab or Colab. If nobody is watching, there is a still picture."""

from collections.abc import Callable, Iterator
from pathlib import Path

from IPython.display import display

from cytology.data.sources.listing import IMAGE_SUFFIXES
from cytology.notebook import is_interactive
from cytology.plots.style import show_figure


def threshold_slider(draw: Callable, threshold: float) -> None:
    """A slider that draws the figure `draw(threshold)` again; it begins at `threshold`."""
    if not is_interactive():
        return
    import ipywidgets

    slider = ipywidgets.FloatSlider(
        threshold, min=0.01, max=0.99, step=0.01, description="threshold", continuous_update=False
    )
    below = ipywidgets.Output()

    def redraw(_=None):
        with below:
            below.clear_output(wait=True)
            show_figure(draw(slider.value), f"The same at a threshold of {slider.value:.2f}")

    slider.observe(redraw, "value")
    redraw()
    display(ipywidgets.VBox([slider, below]))


def upload_button(folder: Path, predict: Callable) -> None:
    """A button for image files: each upload gets a folder in `folder`, then `predict(its folder)`.

    Then `predict(its folder)` is called. What it displays and prints appears below the button, also
    its errors.
    """
    if not is_interactive():
        print("In JupyterLab or Colab there is a button here to upload images of your own.")
        return
    import ipywidgets

    button = ipywidgets.FileUpload(
        accept=",".join(sorted(IMAGE_SUFFIXES)), multiple=True, description="Upload images"
    )
    below = ipywidgets.Output()

    def predict_files(change):
        with below:
            below.clear_output()
            kept = keep_files(folder, uploaded_files(change["new"]))
            print(f"{len(list(kept.iterdir()))} files in {kept}")
            predict(kept)

    button.observe(predict_files, "value")
    display(ipywidgets.VBox([button, below]))


def uploaded_files(value) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a `FileUpload`'s value, as ipywidgets 7 (Colab) and 8 give it."""
    if isinstance(value, dict):
        yield from ((name, bytes(each["content"])) for name, each in value.items())
    else:
        yield from ((each["name"], bytes(each["content"])) for each in value)


def keep_files(folder: Path, files) -> Path:
    """Write (name, content) pairs to a new folder `upload-1`, `upload-2`, ... below `folder`.

    Of a name only its last part counts: a browser's file must not be written elsewhere.
    """
    number = 1
    while (folder / f"upload-{number}").exists():
        number += 1
    kept = folder / f"upload-{number}"
    kept.mkdir(parents=True)
    for name, content in files:
        (kept / Path(name.replace("\\", "/")).name).write_bytes(content)
    return kept
