"""The setup cell: what it installs, where it writes, and the series in a stand-in for Colab."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from cytology import colab
from cytology.settings import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT))

from tools.set_repository_address import published_at

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("0[1-7]_*.ipynb"))
SMOKE = {"run_dir": "outputs/smoke"}
SMOKE |= yaml.safe_load((PROJECT_ROOT / "notebooks/profiles/smoke.yaml").read_text("utf-8"))
COLABS_PYTHON = "3.13"  # since August 2026
HAS = PROJECT_ROOT / "tests" / "colab.txt"
STAND_IN = {
    "__init__.py": "",
    "drive.py": "from pathlib import Path\n\n\n"
    "def mount(folder):\n    (Path(folder) / 'MyDrive').mkdir(parents=True, exist_ok=True)\n",
}


@pytest.fixture
def wanted(tmp_path):
    def write(*lines):
        path = tmp_path / "requirements.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_only_missing_packages_are_installed(wanted):
    path = wanted(
        "# a list",
        "tensorflow>=99        # never",
        "jupyterlab>=99",
        "openvino>=99         # serves processors only",
        "tf2onnx>=99          # serves one format of one notebook",
        "numpy>=1",
        "pandas>=99            # too old here",
        "no-such-package>=1",
        "-e .",
    )
    assert [each.name for each in colab.missing_requirements(path)] == ["pandas", "no-such-package"]


def test_another_tensorflow_version_is_reported_and_not_installed(wanted):
    with pytest.raises(RuntimeError, match="needs tensorflow>=99.*latest runtime"):
        colab.check_present(wanted("tensorflow>=99"))
    colab.check_present(wanted("tensorflow>=2", "keras>=3"))


def test_nothing_is_installed_if_colab_has_everything():
    has = {each.name: str(each.specifier).removeprefix("==") for each in colab.requirements(HAS)}
    wanted = colab.requirements(PROJECT_ROOT / "requirements.txt")
    assert {each.name for each in wanted} - has.keys() >= {"papermill", "jupyterlab"}
    assert not [str(w) for w in wanted if w.name in has and has[w.name] not in w.specifier]


def test_pip_may_not_change_installed_packages(monkeypatch):
    seen = {}

    def pip(command, **options):
        seen["constraints"] = Path(command[command.index("-c") + 1]).read_text("utf-8").splitlines()
        seen["asked"] = command[command.index("-c") + 2 :]
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert colab.install([Requirement("papermill>=2.6")]) == ["papermill"]
    assert seen["asked"] == ["papermill>=2.6"]
    assert f"tensorflow=={importlib.metadata.version('tensorflow')}" in seen["constraints"]
    assert not [line for line in seen["constraints"] if line.startswith("papermill==")]


def test_a_pip_failure_is_reported_in_its_own_words(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "no such version")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="could not install papermill:\nno such version"):
        colab.install([Requirement("papermill")])


def test_drive_is_refused_if_a_notebook_already_writes_elsewhere(monkeypatch, tmp_path):
    module = type(sys)("google.colab")
    module.drive = type("Drive", (), {"mount": staticmethod(lambda folder: None)})
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(colab, "DRIVE", tmp_path)
    with pytest.raises(RuntimeError, match="already writes to its own disk"):
        colab.use_drive()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- a session


class Session:
    """A machine as Colab provides it: `content` is new, the Drive is kept."""

    def __init__(self, folder: Path, python: Path, environment: dict):
        self.content, self.python = folder / "content", python
        # The environment of this test must not leak into the machine.
        own = ("PYTHONPATH", "CYTOLOGY_HEADLESS", "CYTOLOGY_CACHE", "CYTOLOGY_HOME")
        self.environment = {k: v for k, v in os.environ.items() if k not in own} | environment
        self.content.mkdir(exist_ok=True)

    def run(self, notebook: Path) -> nbformat.NotebookNode:
        """Execute a notebook as it is opened from GitHub: a copy in `content`, nothing else."""
        page = load_notebook_node(str(notebook))
        named = re.findall(r"(?m)^(\w+) = ", page.cells[3].source)
        page = parameterize_notebook(page, {key: SMOKE[key] for key in named if key in SMOKE})
        setup = page.cells[1]
        setup.source = setup.source.replace("/content/", f"{self.content.as_posix()}/")
        setup.source = setup.source.replace("keep_on_drive = False", "keep_on_drive = True")
        path = self.content / notebook.name
        nbformat.write(page, path)
        done = subprocess.run(
            [self.python, "-m", "nbconvert", "--execute", "--to", "notebook", "--inplace", path],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.content,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return nbformat.read(path, as_version=4)

    def end(self) -> None:
        """Everything is gone but the Drive."""
        for path in self.content.iterdir():
            if path.name != "drive":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def repository(tmp_path):
    """A repository of the files as they are here, where `git` finds the published address."""
    root = tmp_path / "published"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, names.stdout.splitlines()):
        if (PROJECT_ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / name, root / name)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{root.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{published_at()}",
    }


def found_python() -> str | None:
    """A Python of Colab's version that this machine has; pyenv's need not be switched on."""
    installed = Path.home().glob(f".pyenv/versions/{COLABS_PYTHON}*/bin/python")
    on_path = shutil.which(f"python{COLABS_PYTHON}")  # pyenv's, which may only say that it is off
    for python in filter(None, [sys.executable, on_path, *map(str, sorted(installed))]):
        said = subprocess.run([python, "--version"], capture_output=True, text=True)
        if said.stdout.startswith(f"Python {COLABS_PYTHON}."):
            return python
    return None


@pytest.fixture
def python(tmp_path):
    """An environment with Colab's versions, and `google.colab` imported when a kernel starts."""
    if (colabs := found_python()) is None:
        pytest.skip(f"Colab has Python {COLABS_PYTHON}, and this machine has none")
    subprocess.run([colabs, "-m", "venv", tmp_path / "machine"], check=True)
    python = tmp_path / "machine" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", HAS], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    for name, text in STAND_IN.items():
        file = Path(found.stdout.strip()) / "google" / "colab" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00_colab.py").write_text("import google.colab\n", encoding="utf-8")
    return python


def versions(python: Path) -> dict:
    """Every package of an environment, with its version."""
    listed = [python, "-m", "pip", "list", "--format", "json"]
    found = subprocess.run(listed, capture_output=True, text=True, check=True)
    return {each["name"]: each["version"] for each in json.loads(found.stdout)}


@pytest.mark.slow
def test_the_series_runs_on_a_stand_in_for_colab_and_in_a_second_session(
    tmp_path, repository, python
):
    before = versions(python)
    session = Session(tmp_path, python, repository | {"IPYTHONDIR": str(tmp_path / "ipython")})
    for notebook in NOTEBOOKS:
        page = session.run(notebook)
    said = "".join(output.get("text", "") for output in page.cells[1].outputs)
    assert "installed: nothing" in said, "an earlier notebook of the session installed it"
    assert shutil.which("nvidia-smi") or "NOTE: No GPU is attached" in said
    outputs = session.content / "drive" / "MyDrive" / "breast-cytology" / "outputs"
    assert (outputs / "smoke" / "tables" / "comparison.csv").is_file()
    assert not (session.content / "breast-cytology-notebooks" / "outputs" / "smoke").exists()
    after = versions(python)
    assert {name: after[name] for name in before} == before, "what Colab has must stay as it is"
    assert "papermill" in after.keys() - before.keys()

    session.end()
    session.run(NOTEBOOKS[3])
    timing = json.loads((outputs / "smoke" / "mobilenetv2" / "timing.json").read_text("utf-8"))
    assert timing["features_computed"] == 0, "the second session finds what the first computed"
