"""Do intervals contain the truth, and do tests raise false alarms? Studies with a known truth.

    python -m benchmarks coverage
    python -m benchmarks coverage --studies 100 --seed 1

Six questions, over designs that are harder than a run is likely to be
(`cytology.audits.simulation` and `benchmarks.fixed_scores`):

fixed       192 designs with scores learned elsewhere: how often does each interval contain the
            truth?
pairs       two equal networks on the normal designs of these: how often does the interval of the
            difference of their AUCs contain 0?
heads       a dozen designs with cross-validated heads, whose judges learned from each other's
            patients; the truth is the mean over such heads
triples     three equal networks, cross-validated: is any called better? And is a real difference
            detected? Also the test of earlier versions, which exchanges the predictions of whole
            patients and ignores cross-validation
noise       meaningless labels, 11 patients with 1 to 30 images: is the mean AUC 0.5?
nested      the variance of a cross-validated AUC by the model, and by nested cross-validation: a
            share is the mean estimate divided by the variance over studies

Prints the smallest and the mean share for each interval and test, writes results/coverage.csv (one
row per design and interval or test) and results/coverage.png. About twenty minutes on two cores,
ten with `--studies 200`.
"""

import argparse
import itertools
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from joblib import Parallel, delayed
from scipy.stats import rankdata

from benchmarks.fixed_scores import FixedDesign, fixed_scores
from cytology.audits.simulation import FOLDS, Design, Study, cross_validated_study
from cytology.data.splitting import group_folds
from cytology.evaluation.statistics.clusters import binormal_variance, clip_share
from cytology.evaluation.statistics.intervals import auc_interval, threshold_intervals
from cytology.evaluation.statistics.metrics import METRICS, OF_TWO_SHARES, auc_within_folds
from cytology.evaluation.statistics.significance import (
    auc_difference,
    compare_pairs,
    match_predictions,
    with_gate,
)
from cytology.machine import cores
from cytology.networks.linear_head import fitted_head
from cytology.notebook import progress

RESULTS = Path(__file__).parent / "results"
EQUAL, UNEQUAL = (6, 6), (1, 60)
FIXED = [
    FixedDesign(patients, images, malignant, likeness, auc, noise)
    for patients, images, malignant, likeness, noise, auc in itertools.product(
        (8, 15, 30, 60), (EQUAL, UNEQUAL), (0.5, 0.75), (0.5, 0.9), ("normal", "t3"),
        (0.80, 0.92, 0.98),
    )
]  # fmt: skip
HEADS = [
    Design(patients, images, malignant, 0.4, auc)
    for patients, images, malignant, auc in (
        (15, EQUAL, 0.5, 0.98), (15, UNEQUAL, 0.5, 0.98), (15, EQUAL, 0.75, 0.9999),
        (20, EQUAL, 0.5, 0.92), (20, EQUAL, 0.5, 0.9999), (20, (1, 30), 0.5, 0.98),
        (30, EQUAL, 0.5, 0.98), (30, UNEQUAL, 0.5, 0.98), (30, UNEQUAL, 0.75, 0.9999),
        (60, EQUAL, 0.5, 0.92), (60, EQUAL, 0.5, 0.9999), (60, UNEQUAL, 0.75, 0.98),
    )
]  # fmt: skip
TRIPLES = [
    Design(20, EQUAL, 0.5, 0.4, 0.95),
    Design(60, EQUAL, 0.5, 0.4, 0.95),
    Design(30, UNEQUAL, 0.5, 0.4, 0.95),
]
NOISE = Design(11, (1, 30), 0.5, 0.4, 0.5)
# AUCs of the best direction whose heads reach about 0.05 and 0.10 more than those of 0.95.
BETTER = {"0.05": 0.985, "0.10": 0.999}
NESTED = [replace(design, auc=0.99) for design in TRIPLES[:2]]
REPEATS = 10  # of a nested cross-validation
PAIRS = list(itertools.combinations("abc", 2))
SWAPS = 300
NAMES = {"fixed": "fixed scores", "heads": "cross-validated heads"}


# --------------------------------------------------------------------- intervals


def intervals_and_truth(study: Study) -> list[dict]:
    """One row per interval of a study of one model: its bounds, and the parts of the truth."""
    (rows,) = study.tables
    malignant = (rows["label"] == "M").to_numpy()
    called = rows["probability"].to_numpy() >= 0.5
    shares = called[malignant].mean(), 1 - called[~malignant].mean()
    found = {"recall": shares[0], "specificity": shares[1]}
    found |= {
        name: float(metric(*shares, malignant.mean())) for name, metric in OF_TWO_SHARES.items()
    }
    truth = {"auc": study.aucs[0], "recall": study.sensitivities[0]}
    truth |= {"specificity": study.specificities[0], "malignant": malignant.mean()}
    intervals = {"auc": auc_interval(rows)} | threshold_intervals(rows, 0.5, found)
    return [
        {"what": name, "low": low, "high": high} | truth for name, (low, high) in intervals.items()
    ]


def study_intervals(make, design: Design, studies: int, seed: int) -> pd.DataFrame:
    """One row per interval: how often it contains the truth, is above or below it, and its width.

    Studies without an interval (nothing is called malignant, or one class has one group) are not
    counted; `without` is their share. The truth is the studies' mean; for fixed scores it is the
    same for each study, for metrics of a threshold it depends on the share of malignant images.
    """
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        [row for _ in range(studies) for row in intervals_and_truth(make(design, rng))]
    )
    for name in ("auc", "recall", "specificity"):
        table[name] = table[name].mean()
        table.loc[table["what"] == name, "truth"] = table[name]
    for name, metric in OF_TWO_SHARES.items():
        rows = table[table["what"] == name]
        truth = metric(rows["recall"], rows["specificity"], rows["malignant"])
        table.loc[rows.index, "truth"] = truth
    table["without"] = table["low"].isna().astype(float)
    known = table["low"].notna()
    table["share"] = ((table["low"] <= table["truth"]) & (table["truth"] <= table["high"])) * 1.0
    table["above"] = (table["low"] > table["truth"]) * 1.0
    table["width"] = table["high"] - table["low"]
    table.loc[~known, ["share", "above"]] = np.nan
    columns = ["truth", "share", "above", "width", "without"]
    return table.groupby("what", sort=False)[columns].mean().reset_index()


# ------------------------------------------------------------------------- tests


def study_pairs(design: Design, studies: int, seed: int) -> pd.DataFrame:
    """How often the interval of the difference in AUC of two equal networks contains 0."""
    rng, bounds = np.random.default_rng(seed), []
    for _ in range(studies):
        found = auc_difference(match_predictions(*fixed_scores(design, rng, models=2).tables))
        bounds.append((found["difference_low"], found["difference_high"]))
    low, high = np.transpose(bounds)
    known = ~np.isnan(low)
    found = {"what": "difference", "truth": 0.0, "share": ((low <= 0) & (high >= 0))[known].mean()}
    found |= {"above": (low > 0)[known].mean(), "width": (high - low)[known].mean()}
    return pd.DataFrame([found | {"without": 1 - known.mean()}])


def study_triples(design: Design, better: str, studies: int, seed: int) -> pd.DataFrame:
    """One row per test: the share of triples in which it calls any network better than another.

    With `better` one of the three is better by about this much, and only true sentences count.
    """
    rng, aucs = np.random.default_rng(seed), [design.auc] * 3
    aucs[2] = BETTER.get(better, design.auc)
    rows = []
    for _ in range(studies):
        study = cross_validated_study(design, rng, tuple(aucs))
        tables = dict(zip("abc", study.tables, strict=True))
        pairs = with_gate(
            compare_pairs(tables, PAIRS).assign(family="networks", level="image", weights="")
        )
        asked = pairs if not better else pairs[pairs["second"] == "c"]
        right = (asked["difference"] > 0) | (not better)
        swapped = [group_swap_p(match_predictions(tables[a], tables[b])) * 3 for a, b in PAIRS]
        swapped = np.array(swapped)[asked.index]
        rows.append(
            {
                "by this series": (asked["separated"] & right).any(),
                "by exchanging patients": ((swapped < 0.05) & right).any(),
                "truth": study.aucs[2] - study.aucs[:2].mean(),
            }
        )
    found = pd.DataFrame(rows).mean()
    names = [name for name in found.index if name != "truth"]
    about = {"truth": found["truth"], "share": found[names].to_numpy()}
    what = [f"better by {better}, {name}" if better else f"equal, {name}" for name in names]
    return pd.DataFrame({"what": what} | about)


def group_swap_p(pairs: pd.DataFrame, seed: int = 0) -> float:
    """The test of earlier versions: predictions of whole patients exchanged (Bandos et al. 2005).

    It compares pooled AUCs, and assumes that scores are independent between patients.
    """
    truth, group = (pairs["label"] == "M").to_numpy(), pairs["group"].to_numpy()
    first, second = (rankdata(pairs[name]) for name in ("first", "second"))
    codes, rng = pd.factorize(group)[0], np.random.default_rng(seed)

    def difference(exchanged):
        one, other = np.where(exchanged, second, first), np.where(exchanged, first, second)
        return sum(sign * rankdata(ranks)[truth].sum() for sign, ranks in ((-1, one), (1, other)))

    observed = abs(difference(np.zeros(len(truth), bool)))
    swaps = rng.integers(0, 2, (SWAPS, codes.max() + 1)).astype(bool)
    extreme = sum(abs(difference(swap[codes])) >= observed - 1e-9 for swap in swaps)
    return (1 + extreme) / (1 + SWAPS)


def study_noise(design: Design, studies: int, seed: int) -> pd.DataFrame:
    """The mean AUC of studies without a signal, within folds and of all folds together."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(studies):
        (table,) = cross_validated_study(design, rng).tables
        pooled = auc_within_folds(table.drop(columns="fold"))
        rows.append({"mean AUC within folds": auc_within_folds(table), "mean pooled AUC": pooled})
    found = pd.DataFrame(rows).mean()
    return pd.DataFrame({"what": found.index, "truth": 0.5, "share": found.to_numpy()})


def study_nested(design: Design, studies: int, seed: int) -> pd.DataFrame:
    """The estimated variance, relative to the variance of the AUC over studies.

    The series uses twice the model's. Nested cross-validation (Bates, Hastie & Tibshirani 2024, doi
    10.1080/01621459.2023.2197686): the AUC within the remaining folds minus that of the fold left
    out, squared, minus the variance of the latter; `spread` is its standard deviation over studies
    divided by its mean.
    """
    rng = np.random.default_rng(seed)
    found = pd.DataFrame([one_nested(design, rng) for _ in range(studies)])
    truth, estimates = found["auc"].var(), found[["independent", "nested"]]
    table = pd.DataFrame({"share": estimates.mean() / truth, "truth": truth})
    table["spread"] = estimates.std() / estimates.mean()
    return table.rename_axis("what").reset_index()


def one_nested(design: Design, rng: np.random.Generator) -> dict[str, float]:
    """The AUC of one study and both estimates of its variance."""
    study = cross_validated_study(design, rng)
    rows, values = study.tables[0], study.values
    truth, group = (rows["label"] == "M").to_numpy(), rows["group"].to_numpy()
    terms, number = [], np.arange(FOLDS)
    for _ in range(REPEATS):
        fold = np.empty(len(rows), int)
        parts = group_folds(FOLDS, int(rng.integers(2**31)), rows["label"], rows["group"])
        for k, held_out in enumerate(parts):
            fold[held_out] = k
        without = {
            unseen: fitted_head(values[~np.isin(fold, unseen)], truth[~np.isin(fold, unseen)])
            for unseen in [*itertools.combinations(number, 1), *itertools.combinations(number, 2)]
        }
        logits = {unseen: head.logits(values) for unseen, head in without.items()}
        for k in number:
            here, inner = fold == k, np.zeros(len(rows))
            for j in number[number != k]:
                inner[fold == j] = logits[tuple(sorted((j, k)))][fold == j]
            outer, others = logits[(k,)], rows[~here].assign(logit=inner[~here], fold=fold[~here])
            left_out = rows[here].assign(logit=outer[here]).drop(columns="fold")
            auc = auc_within_folds(left_out)
            if np.isfinite(auc):
                noise = binormal_variance(
                    truth[here], outer[here], group[here], np.zeros(here.sum(), int)
                )(clip_share(auc, group[here])).sum()
                terms.append((auc_within_folds(others) - auc) ** 2 - noise)
    auc = auc_within_folds(rows)
    modelled = binormal_variance(truth, rows["logit"].to_numpy(), group, rows["fold"].to_numpy())
    independent = modelled(clip_share(auc, group)).sum()
    return {"auc": auc, "independent": independent, "nested": np.mean(terms) * (1 - 1 / FOLDS)}


# ------------------------------------------------------------------------ command


def work(studies: int) -> list[tuple]:
    """Question, design, function and its arguments, the longest first."""
    few = max(studies * 2 // 5, 1)
    parts = [
        ("triples", design, study_triples, (better, studies if not better else few))
        for design in TRIPLES
        for better in ("", *BETTER)
    ]
    parts += [("heads", design, heads, (studies,)) for design in HEADS]
    parts += [("nested", design, study_nested, (max(studies, 2),)) for design in NESTED]
    parts += [("noise", NOISE, study_noise, (2 * studies,))]
    parts += [("pairs", each, study_pairs, (studies,)) for each in FIXED if each.noise == "normal"]
    return parts + [("fixed", design, fixed, (studies,)) for design in FIXED]


def heads(design: Design, studies: int, seed: int) -> pd.DataFrame:
    """`study_intervals` of cross-validated heads."""
    return study_intervals(cross_validated_study, design, studies, seed)


def fixed(design: Design, studies: int, seed: int) -> pd.DataFrame:
    """`study_intervals` of scores that were learned elsewhere."""
    return study_intervals(fixed_scores, design, studies, seed)


def measure_design(
    question: str, design: Design, function, arguments: tuple, seed: int
) -> pd.DataFrame:
    """One design's table, with the columns of the design."""
    about = {"noise": "normal"} | asdict(design) | {"images": "{} to {}".format(*design.images)}
    return function(design, *arguments, seed).assign(question=question, **about)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """The smallest and the mean share over designs, by question and interval or test."""
    table = table.reindex(
        columns=[*table.columns.union(["above", "without", "spread"], sort=False)]
    )
    grouped = table.groupby(["question", "what"], sort=False)
    found = grouped["share"].agg(["min", "mean", "max"])
    found["wholly above the truth, most"] = grouped["above"].max()
    found["no interval, most"] = grouped["without"].max()
    found["spread, most"] = grouped["spread"].max()
    return found.assign(designs=grouped.size()).reset_index()


def figure_of(table: pd.DataFrame) -> plt.Figure:
    """How often each interval contains the truth, one mark per design."""
    shown = table[table["question"].isin(["fixed", "heads"])]
    shown = shown.assign(
        what=shown["what"].map(METRICS), share=100 * shown["share"],
        question=shown["question"].map(NAMES),
    )  # fmt: skip
    figure, axis = plt.subplots(figsize=(9, 4.5))
    sns.stripplot(
        shown, x="share", y="what", hue="question", dodge=True, size=4, alpha=0.6,
        palette=dict(zip(NAMES.values(), ["#0072B2", "#D55E00"], strict=True)), ax=axis,
    )  # fmt: skip
    axis.axvline(95, color="grey", linestyle=":")
    axis.set(
        xlabel="studies whose 95 % interval contains the truth (%); one mark per design", ylabel=""
    )
    axis.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print, and keep table and figure; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--studies", type=int, default=500, help="studies of each design")
    parser.add_argument("--seed", type=int, default=0)
    questions = list(dict.fromkeys(part[0] for part in work(1)))
    parser.add_argument("--only", nargs="+", choices=questions)
    given = parser.parse_args(arguments)
    # A design always has the same seed, whatever else is run.
    parts = [
        (*part, given.seed + k)
        for k, part in enumerate(work(given.studies))
        if part[0] in (given.only or questions)
    ]
    jobs = (delayed(measure_design)(*part) for part in parts)
    found = Parallel(cores(), return_as="generator")(jobs)
    table = pd.concat(progress(found, "coverage", len(parts), "design"), ignore_index=True)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "coverage.csv", index=False)
    print(summarize(table).to_string(index=False, float_format="{:.3f}".format))
    if set(table["question"]) & {"fixed", "heads"}:
        figure_of(table).savefig(RESULTS / "coverage.png", dpi=120, bbox_inches="tight")
    print(f"Kept in {RESULTS / 'coverage.csv'} and .png")
    return 0
