"""Where it fails: one table by subgroup, and whether the subgroups of a column differ.

Subgroups are the values of every extra column of the manifest (stain, site, magnification,
subtype), and thirds of the numbers that each image has: size, sharpness, brightness.
"""

from typing import Any

import numpy as np
import pandas as pd

from cytology.data.manifest import MANIFEST_COLUMNS
from cytology.evaluation.judged import compared_on, judged_networks
from cytology.evaluation.readable import NOT_SHOWN, title, too_few
from cytology.evaluation.statistics.clusters import (
    folds_of,
    pair_weights,
    placements,
)
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS, metrics_with_intervals
from cytology.evaluation.statistics.metrics import THRESHOLD, truth_and_score
from cytology.evaluation.statistics.significance import holm
from cytology.run import LEAKING, Run
from cytology.wording import join_words, p_in_figures, plural

ALL = "all images"
MOST_VALUES = 8  # of a column: with more, hardly any has enough groups
NO_SUBGROUP = {*MANIFEST_COLUMNS, "mask"}  # a mask is a file, not a kind of image
MEASURED = ("size", "sharpness", "brightness")
THIRDS = {2: ("lower", "higher"), 3: ("lowest", "middle", "highest")}
DRAWS = 1999  # of signs, for a P value
AT_ONCE = 5_000_000  # numbers in memory at once
TINY = 1e-9  # a share of the variance that is added, where subgroups do not vary at all
# What the mean share of each class counts in the two questions about a column.
SIDES = {"order": {"M": 1.0, "B": 1.0}, "threshold": {"M": 1.0, "B": -1.0}}
ALPHA = 0.05
SHOWN = {"auc": "AUC", "recall": "sensitivity", "specificity": "specificity"}


# ---------------------------------------------------------------- which subgroups


def subgroups_of_images(manifest: pd.DataFrame, appearance: pd.DataFrame) -> pd.DataFrame:
    """The subgroup of each image by each criterion: `image_id`, and one column per criterion.

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
    """One row per subgroup, after one for all images: counts, AUC, sensitivity, specificity.

    `rows` are judged predictions, `subgroups` those of `subgroups_of_images`; they are matched by
    image. Each number has its 95 % interval by group. `too_few` names those that
    rest on fewer than `FEWEST_GROUPS` groups of a class; their intervals are never shown.
    """
    rows = rows.merge(subgroups, on="image_id", how="left", validate="m:1")
    parts = [("", ALL, rows)]
    for column in subgroups.columns.drop("image_id"):
        known = rows[rows[column].fillna("") != ""]
        parts += [(column, name, part) for name, part in known.groupby(column, sort=False)]
    table = []
    for column, name, part in sorted(parts, key=lambda each: _place(subgroups, *each[:2])):
        row: dict[str, Any] = {"column": column, "subgroup": name}
        row |= metrics_with_intervals(part, threshold, tuple(SHOWN))
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
    """Whether a network is equally good in all subgroups of a column, by column and question.

    What is compared is the share of the other class's images, of the same fold, that an image is on
    the right side of: its part in the AUC. It exists also where a subgroup has one class only, as a
    subtype of carcinoma. `asks` is `order`: are these shares equal, on average over both classes?
    Or `threshold`: do they rise in one class where they fall in the other, so that scores are
    shifted and one threshold does not fit all? `worst` and `best` (of `threshold`: where malignant
    images come off worst and best, compared with benign ones) are the subgroups with least and most
    of it. Subgroups of fewer than `FEWEST_GROUPS` groups of a class are left out of that class. `p`
    is that of `differ_p`; `p_holm` is corrected for all rows of the table.
    """
    rows = rows.merge(subgroups, on="image_id", how="left", validate="m:1")
    truth, score = truth_and_score(rows)
    fold, group = folds_of(rows), rows["group"].to_numpy()
    images = pd.DataFrame({"label": rows["label"], "group": group})
    images["share"] = placements(truth, score, fold)
    images = images[pair_weights(truth, fold) > 0]
    table = []
    for column in subgroups.columns.drop("image_id"):
        part = images.assign(subgroup=rows[column].fillna(""))
        part = part[part["subgroup"] != ""]
        groups = part.groupby(["label", "subgroup"])["group"].transform("nunique")
        part = part[groups >= FEWEST_GROUPS]
        effects = subgroup_effects(part)
        for asks, effect in effects.items():
            row = {"column": column, "asks": asks, "subgroups": len(effect)}
            row |= {"images": len(part), "groups": part["group"].nunique()}
            order = effect.sort_values(kind="stable").index
            row |= {"worst": order[0], "best": order[-1]}
            table.append(row | {"p": differ_p(part, effect.index, SIDES[asks])})
    columns = ["column", "asks", "subgroups", "images", "groups", "worst", "best", "p"]
    found = pd.DataFrame(table, columns=columns)
    return found.assign(p_holm=holm(found["p"]))


def subgroup_effects(images: pd.DataFrame) -> dict[str, pd.Series]:
    """By question, how far the mean share of each subgroup lies above the mean of its classes.

    `images` has `label, subgroup, share`. Of both classes the mean (`order`), or half of malignant
    less benign (`threshold`, for subgroups with both). Only questions with two subgroups.
    """
    away = images["share"] - images.groupby("label")["share"].transform("mean")
    of_class = away.groupby([images["subgroup"], images["label"]]).mean().unstack()
    found = {"order": of_class.mean(axis=1)}
    if {"B", "M"} <= set(of_class):
        found["threshold"] = ((of_class["M"] - of_class["B"]) / 2).dropna()
    return {asks: effect for asks, effect in found.items() if len(effect) > 1}


def differ_p(images: pd.DataFrame, names: pd.Index, sides: dict[str, float]) -> float:
    """P value of equal effects of the subgroups `names`, by group.

    `images` has `label, subgroup, group, share`; `sides` is what each class's mean counts. A Wald
    test with a variance by group, whose distribution under the hypothesis comes from flipping the
    sign of all deviations of a group at once (wild cluster bootstrap, restricted: Cameron, Gelbach
    & Miller 2008, doi 10.1162/rest.90.3.414). So a group may have any number of images, and lie in
    several subgroups.
    """
    away = images["share"] - images.groupby("label")["share"].transform("mean")
    cell = pd.MultiIndex.from_frame(images[["subgroup", "label"]])
    cell_of, cells = pd.factorize(cell, sort=True)
    group_of, groups = pd.factorize(images["group"])
    sums, counts = np.zeros((2, len(groups), len(cells)))
    np.add.at(sums, (group_of, cell_of), away)
    np.add.at(counts, (group_of, cell_of), 1.0)
    total = counts.sum(axis=0)
    subgroup, label = cells.get_level_values(0), cells.get_level_values(1)
    effect = np.array([(subgroup == name) * label.map(sides) for name in names], float)
    effect /= np.array([(subgroup == name).sum() for name in names])[:, None]
    contrast = effect[1:] - effect[0]

    def wald(signs):
        flipped = signs[:, :, None] * sums
        means = flipped.sum(axis=1) / total
        left = ((flipped - counts * means[:, None]) / total) @ contrast.T
        variance = np.einsum("dgk,dgl->dkl", left, left)
        tiny = TINY * np.trace(variance, axis1=1, axis2=2)[:, None, None] + np.finfo(float).tiny
        found = (means @ contrast.T)[..., None]
        solved = np.linalg.solve(variance + tiny * np.eye(len(contrast)), found)
        return (found * solved).sum(axis=(1, 2))

    signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, len(groups)))
    found = wald(np.ones((1, len(groups))))[0]
    some = max(1, AT_ONCE // sums.size)
    drawn = np.concatenate([wald(signs[k : k + some]) for k in range(0, DRAWS, some)])
    return float((1 + (drawn >= found * (1 - 1e-9)).sum()) / (1 + DRAWS))


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
        tables.append(subgroup_table(rows, subgroups, run.unit, threshold).assign(model=name))
        tests.append(homogeneity_table(rows, subgroups).assign(model=name))
    return run.marked(pd.concat(tables)), run.marked(pd.concat(tests))


def subgroup_sentences(table: pd.DataFrame, tests: pd.DataFrame, unit: str) -> list[str]:
    """Both tables in words: what differs, what was tested, and what cannot be judged."""
    if table["protocol"].isin(LEAKING).any():
        return ["The split leaks, so no subgroup is called better or worse."]
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
                f"{title(name)}: no subgroup is shown to fare worse, by {join_words(asked)}. "
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
    found = found.set_index("subgroup")
    said = " does not separate all images equally well"
    if row["asks"] == "threshold":
        said = "'s scores are shifted, so that one threshold does not fit all"
    clauses = []
    for name in (row["worst"], row["best"]):
        one = found.loc[name]
        numbers = [
            f"{word} {one[metric]:.3f}"
            for metric, word in SHOWN.items()
            if not (pd.isna(one[metric]) or too_few(one, metric))
        ]
        clauses.append(f"{name}: {', '.join(numbers)}")
    return (
        f"{network}{said}, by {row['column']} (P = {p_in_figures(row['p_holm'])} after Holm): "
        f"{'; '.join(clauses)}."
    )
