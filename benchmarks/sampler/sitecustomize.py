"""Python imports this file at its start if the folder is on PYTHONPATH, as in `profiling`.

A thread samples the main thread a hundred times a second, and adds the time since its last sample
to that kind of work. While the main thread waits for threads of joblib, a working one is sampled.
Each process writes its sums to its own file.
"""

import atexit
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

SECONDS = 0.01  # between two samples
IMPORT, TENSORFLOW, WAITING, OTHER = "libraries", "TensorFlow", "waiting", "other"
WORKERS = "workers"  # processes of joblib, which have their own files, work meanwhile
# (kind, parts of a file's path and the function's name). The first that matches, from the innermost
# frame outwards, decides.
KINDS = (
    ("heads", ("/networks/linear_head.py",)),
    ("decoding", ("/data/images/", "/data/augmentation.py", "/networks/batches.py/decode")),
    ("graphs", ("/keras/src/saving/", "/openvino/tools/", "/openvino/frontend/")),
    ("graphs", ("/tracing_compilation.py", "/func_graph.py", "/networks/engines.py/compiled")),
    ("graphs", ("/networks/building.py", "/keras/src/layers/", "/keras/src/applications/")),
    ("passes", ("/eager/execute.py", "/openvino/", "/networks/batches.py")),
    ("training", ("/training/fine_tuning.py",)),
    ("figures", ("/matplotlib/", "/seaborn/", "/cytology/plots/")),
    ("HTML", ("/nbconvert/", "/cytology/report/")),
    ("export", ("/inference/export",)),
    ("statistics", ("/cytology/evaluation/", "/cytology/audits/", "/cytology/training/")),
    ("statistics", ("/cytology/explanation/",)),
    ("files", ("/cytology/files.py", "/cytology/tables.py", "/cytology/run.py", "/h5py/")),
    ("files", ("/networks/array_store.py", "/networks/weights.py", "/cytology/runner/changes.py")),
    ("data", ("/cytology/data/",)),
    ("messages", ("/nbclient/", "/papermill/", "/zmq/", "/tornado/", "/ipykernel/", "/psutil/")),
)
WAITS = ("/selectors.py/select", "/threading.py/wait", "/subprocess.py/", "/joblib/parallel.py")


def kind_of(stack: list[str]) -> str:
    """The kind of work of a stack, innermost first, each frame as `file/function`."""
    if any("<frozen importlib._bootstrap>" in frame for frame in stack):
        heavy = ("/tensorflow/", "/keras/", "/openvino/")
        return TENSORFLOW if any(part in f for f in stack for part in heavy) else IMPORT
    if any(part in stack[0] for part in WAITS):
        return WORKERS if any("/joblib/" in frame for frame in stack) else WAITING
    for frame in stack:
        for kind, parts in KINDS:
            if any(part in frame for part in parts):
                return kind
    return OTHER


def stack_of(frame) -> list[str]:
    """A stack in the form for `kind_of`."""
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(f"{code.co_filename.replace(os.sep, '/')}/{code.co_name}")
        frame = frame.f_back
    return found


def seen(frames: dict, main: int) -> tuple[str, list[str]]:
    """The current kind of work of the process, and the stack that shows it."""
    stack = stack_of(frames[main])
    kind = kind_of(stack)
    if kind == WORKERS:
        for thread in frames.keys() - {main, threading.get_ident()}:
            other = stack_of(frames[thread])
            if "/joblib/" in "".join(other) and kind_of(other) not in (WORKERS, WAITING, OTHER):
                return kind_of(other), other
    return kind, stack


def watch(path: Path, ended: threading.Event) -> None:
    """Sample until the process ends; write every second, since processes may be killed."""
    main, sums, unknown = threading.main_thread().ident, Counter(), Counter()
    before = written = time.perf_counter()
    while not ended.wait(SECONDS):
        frames, now = sys._current_frames(), time.perf_counter()
        if main not in frames:
            break
        kind, stack = seen(frames, main)
        sums[kind] += now - before
        if kind in (OTHER, "messages"):
            unknown[" < ".join(frame.rpartition("/site-packages/")[2] for frame in stack[:3])] += 1
        before = now
        if now - written > 1:
            write(path, sums, unknown)
            written = now
    write(path, sums, unknown)


def write(path: Path, sums: Counter, unknown: Counter) -> None:
    """Write the seconds by kind, and where unclassified work was seen most often."""
    about = {"command": sys.orig_argv, "process": os.getpid(), "parent": os.getppid()}
    about |= {"seconds": sums, "unknown": dict(unknown.most_common(8))}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(about))
    unfinished.replace(path)  # complete, however the process ends


if "CYTOLOGY_SECONDS" in os.environ:
    place = Path(os.environ["CYTOLOGY_SECONDS"]) / f"{time.time_ns()}-{os.getpid()}.json"
    over = threading.Event()
    looks = threading.Thread(target=watch, args=(place, over), daemon=True)
    looks.start()
    atexit.register(lambda: (over.set(), looks.join(1)))
