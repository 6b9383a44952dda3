"""Sets up a Colab session: packages, permanent storage, a hint about the GPU.

The first code cell of every notebook calls `set_up`, on Colab only. This module imports nothing
that a fresh session lacks.
"""

import importlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2]
# Colab has TensorFlow built for its GPU, and needs no JupyterLab. The rest serve processors only,
# or one format of one notebook, which reports that it is missing.
NEVER_INSTALLED = tuple(
    "tensorflow keras jupyterlab jupyter-server openvino tf2onnx onnxruntime".split()
)
DRIVE = PROJECT.parent / "drive"  # /content/drive, where Colab shows Google Drive
KEPT_IN = "breast-cytology"  # folder on the Drive
NO_GPU = (
    "No GPU is attached: heads on frozen features take minutes, fine-tuning hours. "
    "Choose one under Runtime > Change runtime type, then run this cell again."
)


def set_up(keep_on_drive: bool = False) -> None:
    """Install missing packages, keep data and outputs on Drive if wanted, and report what was done.

    Raises `RuntimeError` if Colab's TensorFlow is older than this project needs, or if pip fails.
    """
    check_present(PROJECT / "requirements.txt")
    installed = install(missing_requirements(PROJECT / "requirements.txt"))
    print(f"installed: {', '.join(installed) or 'nothing, Colab has everything'}")
    if keep_on_drive:
        print(f"data and outputs: {use_drive()}")
    else:
        print("data and outputs: on this machine, deleted with the session (see keep_on_drive)")
    print(gpu() or f"NOTE: {NO_GPU}")


def requirements(path: Path) -> list[Requirement]:
    """The packages of a requirements file, without comments and options."""
    lines = [line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def _is_met(requirement: Requirement) -> bool:
    """Whether a package is installed in a version that the requirement allows."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def check_present(path: Path) -> None:
    """`RuntimeError` if Colab's own TensorFlow or Keras is missing or too old."""
    for requirement in requirements(path):
        if requirement.name in ("tensorflow", "keras") and not _is_met(requirement):
            raise RuntimeError(
                f"This project needs {requirement}; this session has another version. Choose the "
                "latest runtime version: Runtime > Change runtime type."
            )


def missing_requirements(path: Path) -> list[Requirement]:
    """The requirements that must be installed here."""
    return [
        requirement
        for requirement in requirements(path)
        if requirement.name not in NEVER_INSTALLED and not _is_met(requirement)
    ]


def install(wanted: list[Requirement]) -> list[str]:
    """Install packages without changing others, so that no restart is needed.

    A package that is too old is replaced; if it was already imported, Colab asks for a restart.
    Returns the names. Raises `RuntimeError` if pip fails.
    """
    if not wanted:
        return []
    names = {requirement.name.lower() for requirement in wanted}
    fixed = [
        f"{found.name}=={found.version}"
        for found in importlib.metadata.distributions()
        if found.name and found.name.lower() not in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(sorted(set(fixed))), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(constraints)]
        done = subprocess.run([*command, *map(str, wanted)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install {', '.join(sorted(names))}:\n{done.stderr}")
    importlib.invalidate_caches()
    return sorted(names)


def use_drive() -> Path:
    """Mount Google Drive and put `data` and `outputs` there; returns their folder.

    Raises `RuntimeError` if a notebook of this session already writes elsewhere.
    """
    from google.colab import drive

    drive.mount(str(DRIVE))
    home = DRIVE / "MyDrive" / KEPT_IN
    if "cytology.settings" in sys.modules and os.environ.get("CYTOLOGY_HOME") != str(home):
        raise RuntimeError(
            "This session already writes to its own disk. Choose Runtime > Restart session, then "
            "run this cell first, with keep_on_drive = True."
        )
    for name in ("data", "outputs"):
        (home / name).mkdir(parents=True, exist_ok=True)
    os.environ["CYTOLOGY_HOME"] = str(home)
    return home


def gpu() -> str:
    """The name of the GPU of this session; empty if none is attached."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return f"GPU: {found.stdout.strip()}" if found.returncode == 0 else ""
