"""Where it fails: one table by subgroup, and whether the subgroups of a column differ.

Subgroups are the values of every column that the manifest has of its own (stain, site,
magnification, subtype), and thirds of what each image has: size, sharpness, brightness.
"""

import numpy as np
import pandas as pd

from cytology.data.manifest import MANIFEST_COLUMNS
from cytology.evaluation.judged import compared_on, judged_networks
from cytology.evaluation.readable import NOT_SHOWN, title, too_few
from cytology.evaluation.statistics.clusters import (
    folds_of,
    group_sums,
    pair_weights,
    placements,
)
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS, metrics_with_intervals
from cytology.evaluation.statistics.metrics import THRESHOLD, truth_and_score
from cytology.evaluation.statistics.significance import holm
from cytology.run import Run
from cytology.wording import joined, p_in_figures, plural, with_span

ALL = "all images"
MOST_VALUES = 8  # of a column: with more, hardly any has enough groups
NO_SUBGROUP = {*MANIFEST_COLUMNS, "mask"}  # a mask is a file, not a kind of image
MEASURED = ("size", "sharpness", "brightness")
THIRDS = {2: ("lower", "higher"), 3: ("lowest", "middle", "highest")}
DRAWS = 4999  # of signs, for a P value
ALPHA = 0.05
SHOWN = ("auc", "recall", "specificity")
CLASSES = {"M": "malignant", "B": "benign"}


# ---------------------------------------------------------------- which subgroups


def subgroups_of_images(manifest: pd.DataFrame, appearance: pd.DataFrame) -> pd.DataFrame:
    """The subgroup of each image in each way to part them: `image_id` and a column a way.

    Empty text stands for an unknown one. A column of the manifest is taken with 2 to `MOST_VALUES`
    values, unless each class has a single one: it would be the label by another name. `size` is the
    side of a square of as many pixels. `appearance` may lack a number: runs of earlier versions
    have no `sharpness`.
    """
    found = manifest[["image_id"]].copy()
    for column in manifest.columns.difference(NO_SUBGROUP, sort=False):
        values = manifest[column].fillna("").astype(str)
        known = manifest.assign(value=values)[values != ""].groupby("label")["value"]
        if 2 <= values[values != ""].nunique() <= MOST_VALUES and (known.nunique() > 1).any():
            found[column] = values
    measured = manifest.merge(appearance, on="image_id", how="left", validate="1:1")
    measured["size"] = np.sqrt(measured["width"] * measured["height"]).round(1)
    for column in MEASURED:
        if column in measured and column not in found:
            thirds = in_thirds(measured[column])
            if thirds.nunique() > 1:
                found[column] = thirds.to_numpy()
    return found


def in_thirds(values: pd.Series) -> pd.Series:
    """The third of each number with its range, `lowest (31 to 64)`; equal numbers stay together."""
    third = pd.qcut(values, 3, labels=False, duplicates="drop")
    ranges = values.groupby(third).agg(["min", "max"])
    names = THIRDS.get(len(ranges), [""] * len(ranges))
    words = {
        third: f"{name} ({row['min']:.3g} to {row['max']:.3g})"
        for name, (third, row) in zip(names, ranges.iterrows(), strict=True)
    }
    return pd.Series([words.get(each, "") for each in third], index=values.index)


# --------------------------------------------------------------- how good in each


def subgroup_table(
    rows: pd.DataFrame, subgroups: pd.DataFrame, unit: str, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """A row a subgroup, after one of all images: counts, AUC, sensitivity, specificity.

    `rows` are judged predictions, `subgroups` those of `subgroups_of_images`; they are matched by
    image. Each number has its 95 % interval by group. `too_few` says which of them rest on fewer
    than `FEWEST_GROUPS` groups of a class, which no interval of the series is shown for.
    """
    rows = rows.merge(subgroups, on="image_id", how="left", validate="m:1")
    parts = [("", ALL, rows)]
    for column in subgroups.columns.drop("image_id"):
        known = rows[rows[column].fillna("") != ""]
        parts += [(column, name, part) for name, part in known.groupby(column, sort=False)]
    table = []
    for column, name, part in sorted(parts, key=lambda each: _place(subgroups, *each[:2])):
        row = {"column": column, "subgroup": name}
        row |= metrics_with_intervals(part, threshold, SHOWN)
        whys = {metric: too_few(row, metric, unit) for metric in SHOWN}
        words = dict.fromkeys(why.removeprefix(f"{NOT_SHOWN}: ") for why in whys.values() if why)
        table.append(row | {"too_few": " and ".join(words)})
    return pd.DataFrame(table)


def _place(subgroups: pd.DataFrame, column: str, name: str) -> tuple:
    """Where a subgroup stands in the table: thirds from low to high, names by the alphabet."""
    columns = ["", *subgroups.columns.drop("image_id")]
    order = [word for words in THIRDS.values() for word in words]
    first = name.split(" (")[0]
    return columns.index(column), order.index(first) if first in order else -1, name


# ------------------------------------------------------------------- do they differ


def homogeneity_table(rows: pd.DataFrame, subgroups: pd.DataFrame) -> pd.DataFrame:
    """Whether images of one class are recognized alike in all subgroups: a row a column and class.

    What is compared is the share of the other class's images, of the same fold, that an image is on
    the right side of (its part in the AUC): that exists also where a subgroup has one class only,
    as a subtype of carcinoma. `worst` and `best` are the subgroups with the lowest and highest mean
    share, over their images. Subgroups in fewer than `FEWEST_GROUPS` groups are left out. `p` is
    that of `differ_p`, `p_holm` corrected for all rows of the table.
    """
    rows = rows.merge(subgroups, on="image_id", how="left", validate="m:1")
    truth, score = truth_and_score(rows)
    fold, group = folds_of(rows), rows["group"].to_numpy()
    share = placements(truth, score, fold)
    paired = pair_weights(truth, fold) > 0
    table = []
    for column in subgroups.columns.drop("image_id"):
        names = rows[column].fillna("").to_numpy()
        for label, is_class in (("M", truth), ("B", ~truth)):
            here = is_class & paired & (names != "")
            groups = pd.Series(group[here]).groupby(names[here]).nunique()
            here &= np.isin(names, groups.index[groups >= FEWEST_GROUPS])
            means = pd.Series(share[here]).groupby(names[here]).mean().sort_values(kind="stable")
            if len(means) < 2:
                continue
            row = {"column": column, "label": label, "subgroups": len(means)}
            row |= {"images": int(here.sum()), "groups": len(np.unique(group[here]))}
            row |= {"worst": means.index[0], "worst_share": means.iloc[0]}
            row |= {"best": means.index[-1], "best_share": means.iloc[-1]}
            table.append(row | {"p": differ_p(share[here], names[here], group[here])})
    columns = "column label subgroups images groups worst worst_share best best_share p".split()
    found = pd.DataFrame(table, columns=columns)
    return found.assign(p_holm=holm(found["p"]))


def differ_p(values: np.ndarray, subgroup: np.ndarray, group: np.ndarray) -> float:
    """P value of equal means of a number an image in all subgroups, by group.

    The score of the hypothesis is a sum over groups; if it is true, each group's part could as well
    have the other sign (Hemerik, Goeman & Finos 2020, doi 10.1111/rssb.12369: sign flipping).
    Signs of whole groups are flipped, so images of a group may lie in several subgroups, and groups
    may have any number of images. The statistic is the score's chi-square. All shapes are (n,).
    """
    dummies = pd.get_dummies(pd.Series(subgroup)).to_numpy(float)[:, 1:]
    away = (values - values.mean())[None] * (dummies - dummies.mean(axis=0)).T
    parts = group_sums(away, group).T
    inverse = np.linalg.pinv(parts.T @ parts, hermitian=True)

    def chi_square(signs):
        score = signs @ parts
        return ((score @ inverse) * score).sum(axis=1)

    signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, len(parts)))
    found = chi_square(np.ones((1, len(parts))))[0]
    at_least = (chi_square(signs) >= found * (1 - 1e-9)).sum()
    return float((1 + at_least) / (1 + DRAWS))


# ------------------------------------------------------------------------ of a run


def subgroups_of_run(
    run: Run, thresholds: dict[str, float] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`subgroup_table` and `homogeneity_table` of each network of a run, with its `model`.

    On what the comparison rests on. `thresholds` are those of the networks, else 0.5.
    """
    subgroups = subgroups_of_images(run.manifest, run.table("tables/appearance.csv"))
    tables, tests = [], []
    for name, rows in judged_networks(run, compared_on(run)).items():
        threshold = (thresholds or {}).get(name, THRESHOLD)
        found = (
            subgroup_table(rows, subgroups, run.unit, threshold),
            homogeneity_table(rows, subgroups),
        )
        for table, kept in zip(found, (tables, tests), strict=True):
            table.insert(0, "model", name)
            kept.append(table)
    return run.marked(pd.concat(tables)), run.marked(pd.concat(tests))


def subgroup_sentences(table: pd.DataFrame, tests: pd.DataFrame, unit: str) -> list[str]:
    """What both tables allow to say: what differs, what was asked, and what cannot be judged."""
    if (table["protocol"] == "original").any():
        return ["Protocol original: the split leaks, so no subgroup is called better or worse."]
    sentences = []
    for name, found in tests.groupby("model", sort=False):
        if (found["weights"] == "random").any():
            sentences.append(f"{title(name)}: no pretrained weights, so no subgroup is named.")
            continue
        differ = found[found["p_holm"] < ALPHA]
        sentences += [_difference(table, row, title(name)) for _, row in differ.iterrows()]
        asked = list(dict.fromkeys(found["column"]))
        if differ.empty:
            sentences.append(
                f"{title(name)}: no subgroup is shown to be recognized worse, by {joined(asked)}. "
                "With few groups in each only large differences can be."
            )
    few = table[table["too_few"] != ""].drop_duplicates(["column", "subgroup"])
    few = few[few["column"] != ""]
    if len(few):
        names = [f"{row.column} {row.subgroup} ({row.too_few})" for row in few.itertuples()]
        sentences.append(
            f"Too few {plural(unit)} to judge, fewer than {FEWEST_GROUPS} of a class: "
            f"{'; '.join(names)}."
        )
    return sentences


def _difference(table: pd.DataFrame, row: pd.Series, network: str) -> str:
    """The sentence on a column whose subgroups differ."""
    found = table[(table["model"] == row["model"]) & (table["column"] == row["column"])]
    metric, word = ("recall", "sensitivity") if row["label"] == "M" else ("specificity",) * 2
    other = CLASSES["B" if row["label"] == "M" else "M"]
    side = "above" if row["label"] == "M" else "below"
    clauses = [
        f"{row[which]}: {side} {row[f'{which}_share']:.0%} of the {other} ones, {word} "
        + with_span(found[found["subgroup"] == row[which]].iloc[0], metric)
        for which in ("worst", "best")
    ]
    return (
        f"{network} does not recognize all {CLASSES[row['label']]} images alike by "
        f"{row['column']} (P = {p_in_figures(row['p_holm'])} after Holm). "
        f"Where they are scored: {'; '.join(clauses)}."
    )
