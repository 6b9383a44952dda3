"""Do the intervals of AUC cover the truth, and do the tests cry wolf? Studies whose truth is known.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --studies 100 --seed 1 --figure coverage.png

Each study has 30 patients with 10 images that are alike (`cytology.simulation`). First the share
of studies whose 95 % interval holds the true AUC, for each kind of interval. Then triples of
equally good models, which differ by luck alone: the share of triples with any difference that is
called significant after Holm, and, as the warning, the share of pairs that tests of single images
call so. Each share has its Wilson interval; that of pairs counts triples, since the three pairs of
one triple are alike. Takes about three minutes.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from cytology import streams
from cytology.settings import progress
from cytology.significance import delong_p, in_words, matched, mcnemar_p, pairwise
from cytology.simulation import coverage, simulated_study

AUCS = [0.80, 0.92, 0.98]
ALPHA = 0.05
PAIRS = list(combinations("abc", 2))


def rejections(auc: float, rng: np.random.Generator) -> dict[str, list[bool]]:
    """What is called significant in one triple of equally good models."""
    tables = dict(zip("abc", simulated_study(auc, rng, models=3), strict=True))
    found = pairwise(tables, PAIRS)
    matches = [matched(tables[first], tables[second]) for first, second in PAIRS]
    words = [in_words(row, row.first, row.second) for row in found.itertuples()]
    return {
        "triples: any pair by group swaps, Holm": [(found["p_holm"] < ALPHA).any()],
        "triples: any pair called better in words": ["better than" in " ".join(words)],
        "pairs: group swaps": list(found["p"] < ALPHA),
        "pairs: clustered DeLong interval without 0": list(
            (found["difference_low"] > 0) | (found["difference_high"] < 0)
        ),
        "pairs: McNemar of images": [mcnemar_p(both) < ALPHA for both in matches],
        "pairs: DeLong of images": [delong_p(both) < ALPHA for both in matches],
    }


def false_alarms(auc: float, studies: int, seed: int) -> pd.DataFrame:
    """A row a kind of alarm: the `share` of triples or pairs, `low`, `high`, and their number."""
    rng, called = np.random.default_rng(seed), {}
    for _ in progress(range(studies), "triples", unit="triple"):
        for name, each in rejections(auc, rng).items():
            called.setdefault(name, []).extend(each)
    rows = []
    for name, each in called.items():
        share = np.mean(each)
        low, high = proportion_confint(share * studies, studies, method="wilson")
        rows.append((name, auc, share, low, high, len(each)))
    return pd.DataFrame(rows, columns=["alarm", "auc", "share", "low", "high", "of"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500, help="studies of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--auc", type=float, default=0.92, help="true AUC of the triples")
    parser.add_argument("--figure", type=Path, help="file for the figure of the coverage")
    arguments = parser.parse_args()
    covered = coverage(AUCS, arguments.studies, arguments.seed)
    print(covered.to_string(index=False, float_format="{:.3f}".format))
    if arguments.figure:
        from cytology import plots

        plots.coverage(covered).savefig(arguments.figure, dpi=120, bbox_inches="tight")
    alarms = false_alarms(arguments.auc, arguments.studies, arguments.seed)
    print(f"\n{alarms.to_string(index=False, float_format='{:.3f}'.format)}")


if __name__ == "__main__":
    streams.prepare()
    main()
