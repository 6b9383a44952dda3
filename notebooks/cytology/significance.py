"""Is one model better than another? Tests that know that images of one group are alike.

Tables of the two models are matched by image, never by row order.
"""

import itertools

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata, t
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from cytology.intervals import LEVEL, NOTHING, clustered_covariance, over_draws, placements, span
from cytology.metrics import THRESHOLD, auc_from_ranks, auc_of_draws
from cytology.settings import InputError

SWAPS = 2000
ALPHA = 0.05
FEW_DISCORDANT = 25  # below, McNemar's test is exact
FIRST_SECOND = ("first", "second")


def matched(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The images of both tables: `group, label, first, second` (probabilities), in sorted order.

    `InputError` unless both tables hold the same images, each once, with the same label and group.
    """
    keys = [key for key in ("image_id", "orientation") if key in first] or ["group"]
    left, right = (rows.set_index(keys)["probability"] for rows in (first, second))
    if left.index.has_duplicates or not left.index.sort_values().equals(right.index.sort_values()):
        raise InputError("The two tables of predictions do not hold the same images, each once.")
    known = [name for name in ("label", "group") if name not in keys]
    if (
        not first.set_index(keys)[known]
        .sort_index()
        .equals(second.set_index(keys)[known].sort_index())
    ):
        raise InputError("The two tables of predictions differ in the label or group of an image.")
    table = first.set_index(keys)[["label"]].assign(first=left, second=right)
    table["group"] = table.index if keys == ["group"] else first.set_index(keys)["group"]
    return table.sort_index().reset_index(drop=True)


def auc_difference(pairs: pd.DataFrame) -> dict[str, float]:
    """AUC of the second less the first: `difference`, `_low`, `_high`, by clustered DeLong.

    The interval has a t quantile (`intervals.clustered_covariance`). NaN where it does not exist.
    """
    truth = (pairs["label"] == "M").to_numpy()
    components = np.stack([placements(truth, pairs[name].to_numpy()) for name in FIRST_SECOND])
    contrast = (components[1] - components[0])[None]
    covariance, freedom = clustered_covariance(truth, contrast, pairs["group"].to_numpy())
    difference, error = contrast[0, truth].mean(), np.sqrt(max(covariance[0, 0], 0.0))
    low, high = NOTHING
    if error > 0:
        half = t.ppf((1 + LEVEL) / 2, freedom) * error
        low, high = difference - half, difference + half
    return {"difference": difference, "difference_low": low, "difference_high": high}


def group_swap_p(pairs: pd.DataFrame, swaps: int = SWAPS, seed: int = 0) -> float:
    """P value of equal AUCs: both models' predictions exchanged a whole group at a time.

    If the models are alike, it does not matter which one a patient's predictions came from
    (Bandos et al. 2005, doi 10.1002/sim.2149, for whole groups instead of single images). Strictly
    it tests that, which is more than equal AUCs: models of equal AUC whose predictions are much
    more alike within a patient in one than in the other are told apart too often (9 % instead of
    5 % for correlations of 0.9 and 0.1). Predictions are ranked within each model first, so that
    the scales do not matter. Two-sided. All exchanges are tried where they are no more than
    `swaps`, else as many at random, and the data as they are count as one more: P is never below
    2 / 2**groups. NaN with one class only.
    """
    truth = (pairs["label"] == "M").to_numpy()
    if not 0 < truth.sum() < len(truth):
        return np.nan
    ranks = np.concatenate([rankdata(pairs[name]) for name in FIRST_SECOND])
    both = np.concatenate([truth, truth])
    observed = auc_from_ranks(truth, ranks[: len(truth)]) - auc_from_ranks(
        truth, ranks[len(truth) :]
    )
    groups = pairs["group"].nunique()
    exact = 2**groups <= swaps
    if exact:
        swapped = np.array(list(itertools.product([0.0, 1.0], repeat=groups)))
    else:
        swapped = np.random.default_rng(seed).integers(0, 2, (swaps, groups)).astype(float)

    def differences(chosen):
        # One list of both models' predictions, in which a group's are drawn from one of the two.
        first = auc_of_draws(both, ranks, np.concatenate([1 - chosen, chosen], axis=1))
        second = auc_of_draws(both, ranks, np.concatenate([chosen, 1 - chosen], axis=1))
        return {"difference": first - second}

    drawn = over_draws(pairs, swapped, differences)["difference"]
    # Rounding must not make an equal difference look smaller.
    extreme = np.abs(drawn) >= abs(observed) - 1e-12
    return float(extreme.mean() if exact else (1 + extreme.sum()) / (1 + swaps))


def delong_p(pairs: pd.DataFrame) -> float:
    """P value of equal AUCs by DeLong et al. 1988 (doi 10.2307/2531595), for independent rows."""
    truth = (pairs["label"] == "M").to_numpy()
    components = np.stack([placements(truth, pairs[name].to_numpy()) for name in FIRST_SECOND])
    contrast = (components[1] - components[0])[None]
    covariance, _ = clustered_covariance(truth, contrast, np.arange(len(pairs)))
    error = np.sqrt(max(covariance[0, 0], 0.0))
    if not error > 0:
        return 1.0 if covariance[0, 0] == 0 and contrast[0, truth].mean() == 0 else np.nan
    return float(2 * norm.sf(abs(contrast[0, truth].mean()) / error))


def mcnemar_p(pairs: pd.DataFrame, threshold: float = THRESHOLD) -> float:
    """P value of equal accuracy by McNemar's test, for independent rows.

    Exact where few differ, else with the continuity correction.
    """
    truth = pairs["label"] == "M"
    first, second = ((pairs[name] >= threshold) == truth for name in FIRST_SECOND)
    table = [
        [(first & second).sum(), (first & ~second).sum()],
        [(~first & second).sum(), (~first & ~second).sum()],
    ]
    discordant = table[0][1] + table[1][0]
    return float(statsmodels_mcnemar(table, exact=discordant < FEW_DISCORDANT).pvalue)


def p_of_interval(found: float, low: float, high: float, freedom: float) -> float:
    """Two-sided P of Student's t for a truth of 0, from an estimate and its 95 % interval.

    `freedom` are the degrees of freedom of the interval. NaN where it has no width.
    """
    if not high > low:
        return np.nan
    standard_error = (high - low) / 2 / t.ppf((1 + LEVEL) / 2, freedom)
    return float(2 * t.sf(abs(found) / standard_error, freedom))


def holm(p_values) -> np.ndarray:
    """P values corrected for their number (Holm 1979), by statsmodels; NaN stays NaN."""
    p_values = np.asarray(p_values, float)
    known = ~np.isnan(p_values)
    corrected = np.full(len(p_values), np.nan)
    if known.any():
        corrected[known] = multipletests(p_values[known], method="holm")[1]
    return corrected


# ----------------------------------------------------------------------- pairs


def pairwise(tables: dict[str, pd.DataFrame], pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """A row a pair of models: both AUCs, their difference with interval, and P values.

    `p` is the group-swap permutation's, `p_holm` the same corrected for the number of pairs.
    `p_mcnemar` and `p_delong` assume independent rows: they are given where each group has one
    row, else empty. The difference is the second model's AUC less the first's.
    """
    rows = []
    for first, second in pairs:
        both = matched(tables[first], tables[second])
        truth = (both["label"] == "M").to_numpy()
        independent = both["group"].is_unique
        row = {"first": first, "second": second, "images": len(both)}
        row["groups"] = both["group"].nunique()
        row |= {
            f"auc_{name}": auc_from_ranks(truth, both[name].to_numpy()) for name in FIRST_SECOND
        }
        row |= auc_difference(both) | {"p": group_swap_p(both)}
        row["p_mcnemar"] = mcnemar_p(both) if independent else np.nan
        row["p_delong"] = delong_p(both) if independent else np.nan
        rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def is_separated(row) -> bool:
    """Whether corrected test and interval agree that the models of a row of `pairwise` differ."""
    return bool(row.p_holm < ALPHA and (row.difference_low > 0 or row.difference_high < 0))


def in_words(row, first: str, second: str) -> str:
    """What a row of `pairwise` allows to say about models called `first` and `second`.

    The models are separated only if the corrected permutation says so and the interval of the
    difference agrees.
    """
    better, worse = (second, first) if row.difference > 0 else (first, second)
    size, bounds = abs(row.difference), sorted([row.difference_low, row.difference_high])
    if row.difference <= 0:
        bounds = [-bounds[1], -bounds[0]]
    bounds = dict(zip(("size_low", "size_high"), bounds, strict=True))
    interval = span(bounds, "size", "95 %, for this pair alone, ")
    if np.isnan(size):
        return f"Nothing can be said of {first} and {second}: one class only."
    if size < 0.0005:
        return (
            f"The data do not separate {first} from {second}: their AUCs are equal to three "
            f"decimals ({interval})."
        )
    if is_separated(row):
        return (
            f"{better} separates the classes better than {worse}: AUC higher by {size:.3f} "
            f"({interval}; P = {in_figures(row.p_holm)} after Holm)."
        )
    return (
        f"The data do not separate {first} from {second}: the AUC of {better} is higher by "
        f"{size:.3f} ({interval}; P = {in_figures(row.p_holm)} after Holm)."
    )


def in_figures(p: float) -> str:
    """A P value with two figures, never zero."""
    return "not known" if np.isnan(p) else f"{p:.2g}" if p >= 0.001 else "below 0.001"


# ----------------------------------------------------------------------- folds


def fold_aucs(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """AUC of each model in each fold and seed: `model, seed, fold, auc`; NaN with one class only.

    `tables` maps models to their out-of-fold predictions.
    """
    rows = []
    for name, table in tables.items():
        for (seed, fold), part in table.groupby(["seed", "fold"]):
            truth = (part["label"] == "M").to_numpy()
            both = 0 < truth.sum() < len(truth)
            auc = auc_from_ranks(truth, part["logit"].to_numpy()) if both else np.nan
            rows.append((name, seed, fold, len(part), auc))
    return pd.DataFrame(rows, columns=["model", "seed", "fold", "images", "auc"])


def corrected_interval(differences, test_over_train: float) -> tuple[float, float, float]:
    """Mean of paired differences over folds and seeds with its corrected interval.

    The training parts of two folds overlap, so their differences are not independent: Nadeau &
    Bengio 2003 (doi 10.1023/A:1024068626366) add the ratio of test to training size to 1/n.
    Descriptive: it speaks of this data set dealt anew, not of new patients.
    """
    differences = np.asarray(differences, float)
    differences = differences[~np.isnan(differences)]
    count = len(differences)
    if count < 2:
        return (differences.mean() if count else np.nan), *NOTHING
    error = np.sqrt((1 / count + test_over_train) * differences.var(ddof=1))
    half = t.ppf((1 + LEVEL) / 2, count - 1) * error
    mean = differences.mean()
    return mean, mean - half, mean + half


def fold_differences(aucs: pd.DataFrame, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """A row a pair, seed and fold, with the pair's mean difference and corrected interval.

    Early stopping holds back a fifth of each training part; then the interval is a little short.
    """
    wide = aucs.pivot_table("auc", ["seed", "fold"], "model", dropna=False)
    folds = aucs["fold"].nunique()
    parts = []
    for first, second in pairs:
        each = (wide[second] - wide[first]).rename("difference").reset_index()
        mean, low, high = corrected_interval(each["difference"], 1 / (folds - 1))
        parts.append(each.assign(first=first, second=second, mean=mean, low=low, high=high))
    return pd.concat(parts, ignore_index=True)
