"""The notebooks in JupyterLab: a real server, a real browser, run all, as a reader does it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
import yaml
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from cytology.settings import PROJECT_ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
SMOKE = yaml.safe_load((PROJECT_ROOT / "notebooks/profiles/smoke.yaml").read_text("utf-8"))
TOKEN = "test"
SECONDS = 240  # the longest that a notebook may take here
SETTINGS = {
    # All cells are in the page, also those that nobody has scrolled to.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
EXECUTED = "[...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell')]"
EXECUTED += ".map(cell => cell.querySelector('.jp-InputPrompt').textContent)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project whose notebooks have the parameters of profile `smoke`."""
    root = tmp_path_factory.mktemp("lab") / "Zell bilder ü"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")
    shutil.copytree(PROJECT_ROOT / "notebooks", root / "notebooks", ignore=ignore)
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / name, root / name)
    for path in (root / "notebooks").glob("*.ipynb"):
        page = load_notebook_node(str(path))
        named = re.findall(r"(?m)^(\w+) = ", page.cells[3].source)
        values = {name: SMOKE[name] for name in named if name in SMOKE}
        nbformat.write(parameterize_notebook(page, values), path)
    return root


@pytest.fixture(scope="module")
def server(project, tmp_path_factory):
    """The address of a JupyterLab server that shows the copy's notebooks."""
    home = tmp_path_factory.mktemp("home")
    for name, content in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "IPYTHONDIR": str(home / "ipython")}
    own |= {"PYTHONPATH": str(project / "notebooks")}
    words = ["--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    words += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={project / 'notebooks'}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CYTOLOGY_")} | own
    environment.pop("MPLBACKEND", None)  # the notebooks' own backend draws in the page
    log = (home / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *words],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(address), 60, lambda: (home / "log").read_text())
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture(scope="module")
def page(server):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        # Snap and containers: no sandbox of Chromium's own, no GPU.
        browser = started.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def wait_for(what, seconds, tell):
    """Wait until `what()` is true; fails with what `tell()` says after so many seconds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, tell()
        time.sleep(0.5)


def request(address, method="GET"):
    """The answer of the server, as JSON where it has any."""
    asked = urllib.request.Request(
        address, method=method, headers={"Authorization": f"token {TOKEN}"}
    )
    with urllib.request.urlopen(asked, timeout=20) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def answers(address):
    try:
        return bool(request(f"{address}/api/status"))
    except OSError:  # not yet
        return False


def open_notebook(page, server, name):
    """Open one notebook, alone, with a new kernel that is ready."""
    for session in request(f"{server}/api/sessions"):
        request(f"{server}/api/sessions/{session['id']}", "DELETE")
    page.goto(f"{server}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    # Before there is a kernel, the page calls the missing one idle.
    wait_for(lambda: request(f"{server}/api/sessions"), 60, lambda: "no kernel was started")
    page.wait_for_selector(".jp-NotebookPanel [data-status=idle]", state="attached")


def run_all(page, project, name):
    """Run > Run All Cells, wait, save; returns the saved notebook."""
    path = project / "notebooks" / f"{name}.ipynb"
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    wait_for(lambda: len(page.evaluate(EXECUTED)) == len(cells), 60, lambda: "cells are missing")
    before, seen = page.evaluate(EXECUTED), []
    while page.evaluate(EXECUTED) == before:  # the menu opens before its commands are ready
        page.click(".lm-MenuBar-itemLabel:text-is('Run')")
        page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
        page.wait_for_timeout(2000)

    def done():
        seen.append(page.evaluate(EXECUTED))
        if all(re.fullmatch(r"\[\d+\]:", each) for each in seen[-1]):
            return not set(seen[-1]) & set(before)
        # After an error nothing more is executed: the same for some seconds, and nothing waits.
        return "[*]:" not in seen[-1] and seen[-10:] == [seen[-1]] * 10

    wait_for(done, SECONDS, lambda: f"{name}: {seen[-1]}")
    saved = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    wait_for(lambda: is_saved(path, saved), 30, lambda: f"{name} was not saved")
    return nbformat.read(path, as_version=4)


def is_saved(path, before):
    """Whether a notebook was rewritten completely: the server empties the file first."""
    if path.stat().st_mtime_ns == before:
        return False
    try:
        return bool(json.loads(path.read_text("utf-8")))
    except ValueError:
        return False


def check(notebook):
    """Every cell ran without an error or warnings, and every picture says what it shows."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o["evalue"] for o in outputs if o.output_type == "error"] == []
    assert all(cell.execution_count for cell in cells)
    warned = "".join(o.text for o in outputs if o.get("name") == "stderr")
    assert warned == "", "readers must not see warnings"
    assert not [o for o in outputs if "image/png" in o.get("data", {})], (
        "it has no alternative text"
    )
    shown = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs)
    assert all(re.search(r'alt="[^"]{10,}"', each) for each in re.findall("<img[^>]*>", shown))
    return shown.count("<img")


NAMES = sorted(path.stem for path in (PROJECT_ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_all_notebooks_run_in_order_in_jupyterlab(page, server, project, name):
    open_notebook(page, server, name)
    assert check(run_all(page, project, name)), "every notebook has a figure"
    if name == "03_splitting":
        assert check(run_all(page, project, name)), "once more, in the same kernel"
        contents(page, project / "notebooks" / f"{name}.ipynb")
    if name == "09_inference":
        slide(page)
        upload(page, project)


def contents(page, path):
    """JupyterLab's table of contents has the headings of the notebook."""
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    page.click("[data-id=table-of-contents]")
    page.wait_for_selector(".jp-tocItem-content")
    shown = page.locator(".jp-tocItem-content").all_inner_texts()
    assert shown == re.findall(r"(?m)^#+ (.+)$", prose)


def slide(page):
    """The slider of notebook 09 redraws its figure."""
    page.locator(".widget-slider").scroll_into_view_if_needed()
    figure = page.locator(".widget-vbox figure img")
    before = figure.get_attribute("alt")
    page.locator(".widget-slider .noUi-handle").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    wait_for(lambda: figure.get_attribute("alt") != before, 30, lambda: f"it still shows {before}")


def upload(page, project):
    """The button of notebook 09 answers two images and says what is wrong with a third file."""
    folder = project / "neue Bilder"
    folder.mkdir()
    for name in ("one.png", "zwei ü.png"):
        Image.radial_gradient("L").convert("RGB").resize((128, 96)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    button = page.locator(".widget-upload, .jupyter-widget-upload").first
    button.scroll_into_view_if_needed()
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(sorted(folder.iterdir()))
    answered = page.locator(".widget-vbox, .jupyter-widgets", has_text="3 files in").last
    answered.wait_for()
    wait_for(
        lambda: "zwei ü.png" in answered.inner_text() and "broken.png" in answered.inner_text(),
        60,
        answered.inner_text,
    )
    assert "Error" not in answered.inner_text()
