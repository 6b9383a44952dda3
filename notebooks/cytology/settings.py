"""Parameters, paths, seeds and versions: what a run is made of.

Importing this module is cheap: `run_all.py --help` and its checks use it without TensorFlow.
"""

import contextlib
import hashlib
import importlib.metadata
import inspect
import os
import platform
import random
import re
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from cytology.networks import NETWORKS

PROJECT_ROOT = Path(__file__).resolve().parents[2]
# `data` and `outputs` may lie elsewhere than the code: on Google Drive, on a scratch disk.
HOME = Path(os.environ.get("CYTOLOGY_HOME", PROJECT_ROOT))
# A fast disk may hold the cache, or a verification may begin with an empty one.
CACHE = Path(os.environ.get("CYTOLOGY_CACHE", HOME / "outputs" / "cache"))
# Which network a training notebook trains is what makes it that notebook: it stands in its
# parameters cell, but a run cannot set it, or all three would train the same one.
FIXED_PARAMETERS = ("architecture",)
NETWORK_TITLE = {name: network.title for name, network in NETWORKS.items()}
ARCHITECTURE_NAMES = tuple(NETWORKS)
# What `data` may be beside a folder: the drawn sample, and published sets (see `sources`).
DATA_WORDS = ("sample", "breakhis", "fnac", "fnac2019")
MOST_FOLDERS = 100  # in one another: Python 3.11 makes and reads some hundred more, then gives up


class InputError(ValueError):
    """Something that the user gave cannot be used. The message says what, where and what to do."""

    def _render_traceback_(self):
        # IPython's hook: the reader of a notebook needs the sentence, not our stack.
        return [f"{type(self).__name__}: {self}"]


class MachineError(InputError):
    """What the machine has does not suffice: disk, memory or permission. The message says what."""


# ---------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Rule:
    """What a notebook parameter may be: `kind` is a Python type, the rest narrows it."""

    meaning: str
    kind: type
    low: float | None = None
    high: float | None = None
    choices: tuple = ()
    may_be_none: bool = False

    def allowed(self) -> str:
        """The allowed values in words."""
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        if self.choices:
            text = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            text = words[self.kind]
        low, high = (
            f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
            for limit in (self.low or 0, self.high or 0)
        )
        if self.low is not None and self.high is not None:
            text += f" from {low} to {high}"
        elif self.low is not None:
            text += f" of at least {low}"
        return text + (" or nothing (None)" if self.may_be_none else "")

    def accepts(self, value) -> bool:
        """Whether `value` keeps the rule. A whole number passes for a float, a bool does not."""
        if value is None:
            return self.may_be_none
        if isinstance(value, bool) != (self.kind is bool):
            return False
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            return False
        if isinstance(value, str) and not is_one_line(value):
            return False
        if self.choices:
            return value in self.choices
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def is_one_line(text: str) -> bool:
    """Whether text can name a file or stand in a message: no line break, NUL or half a letter."""
    odd = ("Cc", "Cs", "Zl", "Zp")  # control, half of a pair, line and paragraph separators
    return not any(unicodedata.category(character) in odd for character in text)


# What a spreadsheet takes for a formula where a cell begins with it, also after a semicolon, at
# which the Excel of many countries parts a line, and in the wide letters of Japan's. A minus before
# a number is none, unless more follows that could call something.
FORMULA = re.compile(
    r"(?:^|[;\t\r\n])\s*(?:[=+@\uff0b\uff1d\uff20]|[-\uff0d](?!\d[^(|!]*$))|^[\t\r\n]"
)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet that opens a table with this text might compute or call something."""
    return FORMULA.search(text) is not None


def printable(text: str) -> str:
    """Text that can stand in a message and in any table: what cannot is written `\\xfc`, `\\n`.

    That are bytes that are no UTF-8, line breaks, and the first letter of a formula (`\\u003d`).
    """
    if not is_one_line(text):
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
        text = "".join(c if is_one_line(c) else c.encode("unicode_escape").decode() for c in text)
    return FORMULA.sub(lambda found: f"{found[0][:-1]}\\u{ord(found[0][-1]):04x}", text)


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC).

    A Mac writes `é` as two characters, others as one: text from two sources is compared like this.
    """
    return unicodedata.normalize("NFC", text)


def normalized(text: str) -> str:
    """A name that a person gave, `composed` and without blanks around it."""
    return composed(text).strip()


PARAMETERS = {
    "run_dir": Rule("folder that holds everything of this run", str),
    "data": Rule("sample, breakhis, fnac, fnac2019, a folder; empty after 01: what 01 read", str),
    "seed": Rule("one seed for Python, NumPy, Keras and the order of the data", int, 0, 2**32 - 1),
    "classes": Rule("folder names of the classes, like 'normal=B, cancer=M'", str),
    "patient_pattern": Rule("regular expression; its first group is the patient", str),
    "patients_csv": Rule("CSV file with image,patient[,slide]", str),
    "follow_links": Rule("also read what links in the data folder lead to outside of it", bool),
    "archive": Rule("archive or folder of a published set that you have already", str),
    "address": Rule("where to download a published set; empty: its official place", str),
    "magnification": Rule("of BreaKHis", str, choices=("all", "40X", "100X", "200X", "400X")),
    "sample_images": Rule("images of the drawn sample", int, 40, 5000),
    "sample_patients": Rule("patients of the drawn sample", int, 8, 500),
    "image_size": Rule("side of the square network input in pixels", int, 75, 1024),
    "fit": Rule("pad to a square, or stretch as the original did", str, choices=("pad", "stretch")),
    "orientations": Rule("orientations of each training image", int, choices=(1, 4, 8)),
    "write_files": Rule("also write the pictures as files", bool),
    "protocol": Rule(
        "keep groups together, or augment first and split files as the original did",
        str,
        choices=("grouped", "original"),
    ),
    "folds": Rule("folds of the cross-validation", int, 2, 20),
    "val_share": Rule("share of the groups in val", float, 0.05, 0.4),
    "test_share": Rule("share of the groups in test", float, 0.05, 0.4),
    "weights": Rule("auto, imagenet, random, a weights file or a folder of them", str),
    "batch_size": Rule("images a step", int, 1, 1024),
    "accumulate": Rule("batches whose gradients make one step", int, 1, 1024),
    "steps_per_execution": Rule("steps that the device takes on its own", int, 1, 1000),
    "precision": Rule(
        "what the network computes in", str, choices=("auto", "float32", "float16", "bfloat16")
    ),
    "strategy": Rule("all GPUs of this machine, or one", str, choices=("auto", "one")),
    "train_head": Rule("train the head on frozen features, cross-validated", bool),
    "head_epochs": Rule("the most epochs of the head", int, 1, 10000),
    "fine_tune": Rule("train more than the head", bool),
    "fine_tune_from": Rule("first block to train, or `last`; empty: every layer", str),
    "epochs": Rule("epochs of fine-tuning", int, 1, 10000),
    "learning_rate": Rule(
        "rate of fine-tuning, None: the original's", float, 1e-9, 1.0, may_be_none=True
    ),
    "early_stopping": Rule("stop when the loss of held-back groups no longer falls", bool),
    "patience": Rule("epochs without a lower loss before stopping", int, 1, 1000),
    "deterministic": Rule("the same bits each time, also on a GPU, where that takes time", bool),
    "class_weight": Rule("weight of the classes in the loss", str, choices=("balanced", "none")),
    "wanted_sensitivity": Rule("sensitivity that a threshold is to reach", float, 0.5, 1.0),
    "group_rule": Rule(
        "what the predictions of a group's images become",
        str,
        choices=("mean_logit", "mean_probability", "highest", "vote"),
    ),
    "curve_images": Rule("most images in the learning curve; whole groups are drawn", int, 40),
    "simulated_studies": Rule("studies that check the intervals, a true AUC", int, 2, 10000),
    "images_classes": Rule("folder names of the new images' classes, as `classes`", str),
    "images_patient_pattern": Rule("whose new images are, as `patient_pattern`", str),
    "images_patients_csv": Rule("whose new images are, as `patients_csv`", str),
    "threshold_rule": Rule(
        "which locked threshold decides", str, choices=("half", "youden", "sensitivity")
    ),
    "audit_seeds": Rule("repetitions of the leakage audit", int, 2, 200),
    "audit_images": Rule("most images in the leakage audit; whole groups are drawn", int, 40),
    "predict_with": Rule("whose model predicts new images", str, choices=ARCHITECTURE_NAMES),
    "images": Rule(
        "folder, archive or list of new images, or unseen; empty: images of the test split", str
    ),
    "refer_share": Rule("share of the least sure images that is to be referred", float, 0.0, 0.9),
    "show_images": Rule("how many pictures to show", int, 1, 200),
    "shift_images": Rule("most images to shift; spread over the groups", int, 8),
    "explain_with": Rule(
        "whose answers notebook 11 explains", str, choices=("all", *ARCHITECTURE_NAMES)
    ),
    "explain_layer": Rule("layer whose maps are weighed; empty: the last map", str),
    "explained_images": Rule("most images to explain; spread over the groups", int, 8),
    "perturbed_images": Rule("of the explained, how many are covered and turned", int, 2),
    "map_method": Rule("of the map of features", str, choices=("pca", "tsne")),
    "reference_strength": Rule("strength of a shift that the tables compare at", int, 1, 5),
    # 12
    "export_with": Rule("whose model is exported", str, choices=("all", *ARCHITECTURE_NAMES)),
    "export_formats": Rule("all, or names of formats with commas between", str),
    "check_images": Rule("test images that each exported file must agree on", int, 2, 2000),
    "calibration_images": Rule("training images that set the ranges of int8", int, 8, 2000),
}


def check_parameter(name: str, value) -> None:
    """Raise `InputError` if `value` is not allowed for the parameter `name`."""
    rule = PARAMETERS[name]
    if not rule.accepts(value):
        raise InputError(f"Parameter `{name}` is {value!r}; it must be {rule.allowed()}.")


def check_parameters(**values) -> None:
    """Check several parameters at once, then what they must be together."""
    for name, value in values.items():
        check_parameter(name, value)
    if values.get("val_share", 0) + values.get("test_share", 0) > 0.6:
        raise InputError("`val_share` and `test_share` together must leave 0.4 for training.")
    if values.get("train_head") is False and values.get("fine_tune") is False:
        raise InputError("`train_head` and `fine_tune` are both false: nothing would be trained.")
    if values.get("fine_tune_from") and values.get("fine_tune") is False:
        raise InputError("`fine_tune_from` names a block, but `fine_tune` is false: make it true.")
    if values.get("data") and values["data"] not in DATA_WORDS and "run_dir" in values:
        run, data = resolve(values["run_dir"]), resolve(values["data"])
        if run == data or data in run.parents:
            raise InputError(
                f"Parameter `run_dir` is {run}, inside the data folder {data}: what is written "
                "there would be taken for images. Choose another folder."
            )


# --------------------------------------------------------------------- paths


def resolve(path, base: Path = HOME) -> Path:
    """`path` as an absolute path; a relative one starts at `base`, `~` is the home folder."""
    return as_on_disk((base / Path(path).expanduser()).resolve())


def as_on_disk(path: Path) -> Path:
    """An absolute path in the Unicode form of the disk, if there is one by that name in another."""
    if os.path.exists(path):  # False, and no error, for a name that is too long
        return path
    place = Path(path.anchor)
    for part in path.relative_to(place).parts:
        if not os.path.exists(place / part) and place.is_dir():
            same = (each for each in place.iterdir() if composed(each.name) == composed(part))
            place = next(same, place / part)
        else:
            place = place / part
    return place


def short(path) -> str:
    """`path` relative to the project where it lies inside, for messages."""
    path = Path(path)
    return (
        path.relative_to(PROJECT_ROOT).as_posix()
        if path.is_relative_to(PROJECT_ROOT)
        else str(path)
    )


def plural(unit: str) -> str:
    """`patients`, `slides`, `fields of view`."""
    head, of, rest = unit.partition(" of ")
    return f"{head}s{of}{rest}"


def open_run(run_dir, seed: int, **parameters) -> Path:
    """Check the parameters, make the run folder, fix the seeds; returns the folder.

    `parameters` are the notebook's own, by name. Keras is seeded where it is first used
    (`architectures.build`), so that notebooks without a network start quickly.
    """
    check_parameters(run_dir=str(run_dir), seed=seed, **parameters)
    run = resolve(run_dir)
    refuse_links_out(run)
    for folder in ("tables", "figures"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    random.seed(seed)
    np.random.seed(seed)
    return run


def refuse_links_out(run: Path) -> None:
    """`InputError` if a link below the folder `run` leads out of it.

    A run folder that somebody sent may hold such links, and what a run writes would go there.
    """
    root = Path(os.path.realpath(run))
    folders = [root]
    while folders:
        # A folder may not be there yet, or no more: others may be at work beside it.
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                target = Path(os.path.realpath(entry)) if entry.is_symlink() else root
                if not target.is_relative_to(root):
                    raise InputError(
                        f"The run folder {short(run)} holds a link that leads out of it, "
                        f"{Path(entry).relative_to(root)} to {target}: remove the link, or choose "
                        "another folder (run_dir)."
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------- reading


def show(thing) -> None:
    """Print the real source of a function or class, coloured in a notebook."""
    source = inspect.getsource(thing)
    try:
        from IPython import get_ipython
        from IPython.display import Markdown, display
    except ModuleNotFoundError:
        print(source)
        return
    if get_ipython() is None:
        print(source)
    else:
        display(Markdown(f"```python\n{source}```"))


def somebody_looks_on() -> bool:
    """Whether a person may be watching; `run_all.py` says in the environment that nobody is.

    A progress bar that redraws itself is for a person, not for a page that is kept.
    """
    return "CYTOLOGY_HEADLESS" not in os.environ


def progress(work, what: str, total: int | None = None, unit: str = "image"):
    """Go through `work` and show how far it is; the bar disappears when it is done."""
    return tqdm(
        work,
        desc=what,
        total=total,
        unit=unit,
        leave=False,
        mininterval=0.5,
        file=sys.stdout,
        disable=not somebody_looks_on(),
    )


# ------------------------------------------------------------------ versions


def versions() -> dict[str, str]:
    """Versions of Python and of the packages in `requirements.txt`; absent ones say so."""
    names = re.findall(
        r"^([A-Za-z][\w-]*)", (PROJECT_ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE
    )
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in [*names, "keras", "numpy"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state() -> dict:
    """Commit of the project and whether its tracked files were changed; empty without git."""

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError) as error:
        return {"commit": "unknown", "why": str(error)}


def cores() -> int:
    """Processor cores that this process may use: all, or its share of them.

    Notebooks that run beside each other have `CYTOLOGY_CORES` in their environment.
    """
    if "CYTOLOGY_CORES" in os.environ:
        return int(os.environ["CYTOLOGY_CORES"])
    return all_cores()


def all_cores() -> int:
    """Processor cores that the system gives to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(function, items: list, what: str, unit: str = "image", chunk: int = 512):
    """Yield `function(item)` for each item, in order, from all workers; shows how far it is."""
    with workers(), progress(None, what, len(items), unit) as bar:
        # Chunk by chunk, since not every backend hands out results one by one.
        for start in range(0, len(items), chunk):
            yield from Parallel()(delayed(function)(item) for item in items[start : start + chunk])
            bar.update(min(chunk, len(items) - start))


@contextlib.contextmanager
def workers():
    """Let joblib use all cores; or, where `DASK_SCHEDULER_ADDRESS` is set, that Dask cluster.

    The variable is Dask's own. Its workers must have this project installed and see the images
    under the same paths.
    """
    if "DASK_SCHEDULER_ADDRESS" not in os.environ:
        with parallel_config(n_jobs=cores(), prefer="threads"):
            yield
        return
    from dask.distributed import Client

    # By name: Dask reads its own variable only once, when it is imported.
    with Client(os.environ["DASK_SCHEDULER_ADDRESS"]), parallel_config(backend="dask", n_jobs=-1):
        yield
