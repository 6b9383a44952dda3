"""One thread or all of them for the audit's logistic regressions: the ratio of their times.

python benchmarks/audit_threads.py
"""

import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from cytology.audits import leakage
from cytology.networks import linear_head


def seconds(threads: int | None) -> float:
    """Time of five folds on 2,560 pictures of 1,280 features, with labels that mean nothing."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2560, 1280)).astype(np.float32)
    malignant, fold = rng.random(len(values)) < 0.5, np.arange(len(values)) % 5
    with patch.object(linear_head, "THREADS", threads):
        started = time.perf_counter()
        leakage.out_of_fold_logits(values, malignant, fold)
        return time.perf_counter() - started


if __name__ == "__main__":
    seconds(1)  # warm up
    # In turn, so that another job on the machine slows both.
    ratios = [seconds(None) / seconds(1) for _ in range(5)]
    print(f"all threads take {np.median(ratios):.1f} times as long as one")
