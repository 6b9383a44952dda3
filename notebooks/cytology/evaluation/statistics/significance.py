"""Is one model better than another? Tests for images that are alike within groups.

Tables of the two models are matched by image, never by row order.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t
from sklearn.metrics import confusion_matrix
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from cytology.evaluation.statistics.clusters import (
    clustered_covariance,
    effective_groups,
    pair_weights,
    placements,
    variance_inflation,
)
from cytology.evaluation.statistics.intervals import (
    NO_BOUNDS,
    counts,
    gain_error,
    mean_interval,
    named_interval,
    t_interval,
    t_quantile,
)
from cytology.evaluation.statistics.metrics import THRESHOLD, auc_within_folds
from cytology.settings import InputError
from cytology.wording import interval_text, p_in_figures

FEW_DISCORDANT = 25  # with fewer, McNemar's test is exact
FIRST_SECOND = ("first", "second")
# A page may call equal models different in 5 of 100 runs, whatever it compares: 4 for the networks
# and their averages, 1 for the baseline. Models from outside take half of the networks' share.
FAMILY_ALPHA = {"networks": 0.04, "more than one": 0.04, "baseline": 0.01}
UNRANKED = "random|unknown"  # weights or training; no such model is called better
WITH_OUTSIDE = {"networks": 0.02, "more than one": 0.02, "outside": 0.02, "baseline": 0.01}


def match_predictions(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The cases of both tables in sorted order, with `label, group` and perhaps `fold`.

    `first` and `second` are the two scores, `called_first` and `called_second` say whether they
    are called malignant. `InputError` unless both tables have the same cases, each once, with the
    same label and group.
    """
    keys = [key for key in ("image_id", "orientation") if key in first] or ["group", "label"]
    left, right = (rows.set_index(keys).sort_index() for rows in (first, second))
    if left.index.has_duplicates or not left.index.equals(right.index):
        raise InputError("The two tables of predictions do not have the same images, each once.")
    known = [name for name in ("label", "group") if name not in keys]
    if not left[known].equals(right[known]):
        raise InputError("The two tables of predictions differ in the label or group of an image.")
    score = "logit" if "logit" in left and "logit" in right else "probability"
    table = left.reset_index()[["label", "group", *left.columns.intersection(["fold"])]]
    for name, rows in zip(FIRST_SECOND, (left, right), strict=True):
        table[name] = rows[score].to_numpy()
        table[f"called_{name}"] = rows["probability"].to_numpy() >= THRESHOLD
    return table


def auc_difference(pairs: pd.DataFrame) -> dict[str, float]:
    """AUC of the second minus the first: `difference`, `_low`, `_high` and the P value `p`.

    P and interval come from one standard error (`intervals.gain_error`), so they cannot disagree. P
    is 1 if both scores put the images into the same order, NaN if a class is in fewer than two
    groups.
    """
    gain, error, freedom = gain_error(pairs, pairs["first"].to_numpy(), pairs["second"].to_numpy())
    low, high = t_interval(gain, error**2, freedom)
    p = 2 * t.sf(abs(gain) / error, freedom) if error > 0 else 1.0 if error == 0 else np.nan
    return named_interval("difference", gain, low, high) | {"p": float(p)}


def delong_p(pairs: pd.DataFrame) -> float:
    """P value of equal AUCs by DeLong et al. 1988 (doi 10.2307/2531595), for independent rows."""
    truth = (pairs["label"] == "M").to_numpy()
    first, second = (placements(truth, pairs[name].to_numpy()) for name in FIRST_SECOND)
    contrast, alone = (second - first)[None], np.arange(len(pairs))
    covariance, _ = clustered_covariance(truth, contrast, alone, pair_weights(truth))
    gain, variance = contrast[0, truth].mean(), covariance[0, 0]
    if variance > 0:
        return float(2 * norm.sf(abs(gain) / np.sqrt(variance)))
    return 1.0 if gain == variance == 0 else np.nan


def mcnemar_p(pairs: pd.DataFrame) -> float:
    """P value of equal accuracy by McNemar's test, for independent rows.

    Exact if few differ, otherwise with the continuity correction.
    """
    truth = pairs["label"] == "M"
    first, second = (pairs[f"called_{name}"] == truth for name in FIRST_SECOND)
    table = confusion_matrix(first, second, labels=[True, False])
    discordant = table[0, 1] + table[1, 0]
    return float(statsmodels_mcnemar(table, exact=discordant < FEW_DISCORDANT).pvalue)


def p_of_interval(found: float, low: float, high: float, freedom: float) -> float:
    """Two-sided P of Student's t for a true value of 0, from an estimate and its 95 % interval.

    `freedom` is the degrees of freedom of the interval. NaN if it has no width.
    """
    if not high > low:
        return np.nan
    standard_error = (high - low) / 2 / t_quantile(freedom)
    return float(2 * t.sf(abs(found) / standard_error, freedom))


def mean_by_group(values: np.ndarray, rows: pd.DataFrame) -> tuple[float, float, float, float]:
    """The mean of one number per row, its interval by group and fold, and P for a mean of 0."""
    if not len(values):
        return (np.nan,) * 4
    low, high = mean_interval(values, rows["group"].to_numpy(), variance_inflation(rows))
    mean, freedom = np.mean(values), effective_groups(rows["group"].value_counts()) - 1
    return mean, low, high, p_of_interval(mean, low, high, freedom)


def holm(p_values) -> np.ndarray:
    """P values corrected for multiple testing (Holm 1979); NaN stays NaN."""
    corrected = np.array(p_values, float)
    order = np.argsort(corrected)[: np.count_nonzero(~np.isnan(corrected))]  # NaN sort last
    # By hand, since statsmodels collects garbage at each call: a fifth of notebook 11's time.
    stepped = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected


# ----------------------------------------------------------------------- pairs


def compare_pairs(tables: dict[str, pd.DataFrame], pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """One row per pair of models: both AUCs, their difference with interval, and P values.

    `p_holm` is `p` corrected for the number of pairs. `p_mcnemar` and `p_delong` are given if rows
    are independent: one per group, not cross-validated. The difference is second minus first.
    """
    rows = []
    for first, second in pairs:
        both = match_predictions(tables[first], tables[second])
        independent = both["group"].is_unique and variance_inflation(both) == 1
        row: dict[str, Any] = {"first": first, "second": second} | counts(both)
        row |= {f"auc_{k}": auc_within_folds(both.assign(logit=both[k])) for k in FIRST_SECOND}
        row |= auc_difference(both)
        row["p_mcnemar"] = mcnemar_p(both) if independent else np.nan
        row["p_delong"] = delong_p(both) if independent else np.nan
        rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def with_gate(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs of a page with `separated`: whether a row may be called a difference.

    `table` has `family` (of `FAMILY_ALPHA`), `level`, `weights` and the columns of
    `compare_pairs`. A difference needs a corrected P below the family's share of the error, an
    interval without 0, no random weights, no model with unknown training, and an open gate: pairs
    of networks by image come first, and only if any of them is separated are the other families and
    levels of the networks tested. The baseline by image is its own gate, and so are models from
    outside, and averages of the predictions of a single network.
    """
    shows = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    share = WITH_OUTSIDE if (table["family"] == "outside").any() else FAMILY_ALPHA
    separated = shows & (table["p_holm"] < table["family"].map(share))
    separated &= ~table["weights"].str.contains(UNRANKED)
    first = "networks" if (table["family"] == "networks").any() else "more than one"
    gates = {first: ("networks", "more than one"), "outside": ("outside",)}
    for gate, families in (gates | {"baseline": ("baseline",)}).items():
        here = table["family"].isin(families)
        asked_first = (table["level"] == "image") & (table["family"] == gate)
        if not separated[asked_first].any():
            separated[here & ~asked_first] = False
    return table.assign(separated=separated)


def difference_sentence(row, first: str, second: str) -> str:
    """A row of `with_gate` in words; `first` and `second` are the models' names."""
    better, worse = (second, first) if row.difference > 0 else (first, second)
    size, sign = abs(row.difference), 1 if row.difference > 0 else -1
    low, high = sorted([sign * row.difference_low, sign * row.difference_high])
    bounds = {"size_low": low, "size_high": high}
    if np.isnan(size):
        return f"Nothing can be said about {first} and {second}: one class only."
    if size < 0.0005:
        known = (
            "" if np.isnan(row.difference_low) else f" ({interval_text(bounds, 'size', '95 % ')})"
        )
        return (
            f"The data do not separate {first} from {second}: their AUCs are equal to three "
            f"decimals{known}."
        )
    interval = interval_text(bounds, "size", "95 %, for this pair alone, ")
    words = f"{interval}; P = {p_in_figures(row.p_holm)} after Holm"
    if row.separated:
        return (
            f"{better} separates the classes better than {worse}: AUC higher by {size:.3f} "
            f"({words})."
        )
    return (
        f"The data do not separate {first} from {second}: the AUC of {better} is higher by "
        f"{size:.3f} ({words})."
    )


# ----------------------------------------------------------------------- folds


def fold_aucs(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """AUC of each model in each fold and seed: `model, seed, fold, auc`; NaN for one class only.

    `tables` maps models to their out-of-fold predictions.
    """
    rows = []
    for name, table in tables.items():
        for (seed, fold), part in table.groupby(["seed", "fold"]):
            rows.append((name, seed, fold, len(part), auc_within_folds(part)))
    return pd.DataFrame(rows, columns=["model", "seed", "fold", "images", "auc"])


def corrected_interval(differences, test_over_train: float) -> tuple[float, float, float]:
    """Mean of paired differences over folds and seeds with its corrected interval.

    The training parts of two folds overlap, so their differences are not independent: Nadeau &
    Bengio 2003 (doi 10.1023/A:1024068626366) add the ratio of test to training size to 1/n.
    Descriptive: it describes re-splits of this data set, not new patients.
    """
    differences = np.asarray(differences, float)
    differences = differences[~np.isnan(differences)]
    count, mean = len(differences), differences.mean() if len(differences) else np.nan
    if count < 2:
        return mean, *NO_BOUNDS
    error = np.sqrt((1 / count + test_over_train) * differences.var(ddof=1))
    half = t_quantile(count - 1) * error
    return mean, mean - half, mean + half


def fold_differences(aucs: pd.DataFrame, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """One row per pair, seed and fold, with the pair's mean difference and corrected interval.

    With early stopping, which holds back a fifth of each training part, the interval is a little
    too narrow.
    """
    wide = aucs.pivot_table("auc", ["seed", "fold"], "model", dropna=False)
    folds = aucs["fold"].nunique()
    parts = []
    for first, second in pairs:
        each = (wide[second] - wide[first]).rename("difference").reset_index()
        mean, low, high = corrected_interval(each["difference"], 1 / (folds - 1))
        parts.append(each.assign(first=first, second=second, mean=mean, low=low, high=high))
    return pd.concat(parts, ignore_index=True)
