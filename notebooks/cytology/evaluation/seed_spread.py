"""How much a result varies when the same training is repeated with another seed."""

import itertools

import pandas as pd

from cytology.architectures import ARCHITECTURE_NAMES, NETWORK_TITLE
from cytology.evaluation.judged import OUT_OF_FOLD, TEST, compared_on, judged_networks, judged_rows
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.readable import too_few
from cytology.evaluation.repeats import GridPoint, check_split, is_done, points_in
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.run import Run
from cytology.wording import counted, interval_text, with_interval

SEED_METRICS = ("auc", "accuracy", "recall", "specificity", "loss")
SEED_COLUMNS = ["architecture", "weights", "recipe", "seed", "judged_on", "images", "groups"]


def metrics_by_seed(run: Run) -> pd.DataFrame:
    """One row per architecture and seed: `SEED_COLUMNS`, metrics with intervals by group.

    Trainings on the run's own split are judged like the run. If each fold was held out, each is
    judged by the networks that never saw it, all folds of a seed together. Empty without a grid.
    Raises `InputError` if the run was split again since.
    """
    points = points_in(run)
    for point in points:
        check_split(run, point)
    rows = _other_seeds(run, points) + _held_out_folds(run, points)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*SEED_COLUMNS, *SEED_METRICS])


def _other_seeds(run: Run, points: list[GridPoint]) -> list[dict]:
    """The run itself and its other seeds, on one split; empty if there are no others."""
    others = [point for point in points if point.fold is None]
    if not others:
        return []
    on, found = compared_on(run), []
    for name in judged_networks(run, on):
        trained = [run, *(point.in_run(run) for point in others if is_done(run, point, name))]
        for each in trained:
            found.append(_row_of(each, name, judged_rows(read_predictions(each, name), on), on))
    return found


def _held_out_folds(run: Run, points: list[GridPoint]) -> list[dict]:
    """The folds of each seed together, if all of them were trained."""
    held = [point for point in points if point.fold is not None]
    folds, seeds = len({point.fold for point in held}), sorted({point.seed for point in held})
    on, found = f"{OUT_OF_FOLD}, trained separately for each of {folds} folds", []
    for name, seed in itertools.product(ARCHITECTURE_NAMES, seeds):
        done = [point for point in held if point.seed == seed and is_done(run, point, name)]
        if len(done) == folds:
            tables = [read_predictions(point.in_run(run), name) for point in done]
            parts = [
                judged_rows(table, TEST).assign(fold=point.fold)
                for point, table in zip(done, tables, strict=True)
            ]
            rows = pd.concat(parts, ignore_index=True).assign(model="oof")
            found.append(_row_of(done[0].in_run(run), name, rows, on))
    return found


def _row_of(run: Run, architecture: str, rows: pd.DataFrame, on: str) -> dict:
    """A row of `metrics_by_seed`: one training, or the folds of one seed."""
    about = run.about(architecture)
    row = {"architecture": architecture, "weights": about["weights"], "recipe": about["recipe"]}
    row |= {"seed": about["seed"], "judged_on": on}
    return row | metrics_with_intervals(rows, names=SEED_METRICS)


def seed_sentences(table: pd.DataFrame, unit: str) -> list[str]:
    """How much each network's AUC varied, and whether the order changed, in words."""
    sentences = []
    for on, rows in table.groupby("judged_on", sort=False):
        for name, of_network in rows.groupby("architecture", sort=False):
            auc, first = of_network["auc"], of_network.iloc[0]
            what = f"{NETWORK_TITLE[name]} ({on})"
            if few := too_few(first, "auc", unit):
                sentences.append(f"{what}: AUC {few}.")
            elif auc.count() > 1:
                sentences.append(
                    f"{what}: AUC {auc.min():.3f} to {auc.max():.3f} over {len(auc)} seeds "
                    f"(standard deviation {auc.std():.3f}); for seed {first['seed']} "
                    f"{interval_text(first, 'auc', f'the interval by {unit} is ')}."
                )
            else:
                seeds = counted(len(auc), "seed", "seeds")
                sentences.append(f"{what}: AUC {with_interval(first, 'auc')} with {seeds}.")
        if not too_few(rows.iloc[0], "auc"):
            sentences += about_order(rows, on)
    if (table["weights"] == "random").any():
        sentences.append(
            "Random weights change with the seed, too: for networks with random weights, this is "
            "the spread of different networks, not of repeated training."
        )
    return sentences


def about_order(rows: pd.DataFrame, on: str) -> list[str]:
    """Whether all seeds put the networks into the same order; empty for a single seed.

    AUCs that print alike are equal.
    """
    by_seed = rows.pivot(index="seed", columns="architecture", values="auc").dropna().round(3)
    if len(by_seed) < 2 or by_seed.shape[1] < 2:
        return []
    ranks = by_seed.rank(axis=1, method="min")
    if len(ranks.drop_duplicates()) > 1:
        return [
            f"The order of the networks changes with the seed ({on}): a difference that another "
            "seed reverses is not a finding."
        ]
    order = "the same order" if ranks.iloc[0].is_unique else "the same order, with ties"
    every = "Both" if len(by_seed) == 2 else f"All {len(by_seed)}"
    return [f"{every} seeds put the networks into {order} ({on})."]


def reversed_pairs(seeds: pd.DataFrame, table: pd.DataFrame) -> dict[frozenset, int]:
    """Pairs of networks whose order of AUC another seed reverses, each with the first such seed.

    `table` is the comparison of the run, which sets the order, `seeds` the table of
    `metrics_by_seed`. AUCs that print alike have no order.
    """
    if seeds.empty:
        return {}
    seeds = seeds[seeds["judged_on"] == table["judged_on"].iloc[0]]
    by_seed = seeds.pivot(index="seed", columns="architecture", values="auc").round(3)
    own, found = table.set_index("architecture")["auc"].round(3), {}
    for first, second in itertools.combinations(own.index.intersection(by_seed.columns), 2):
        turned = (own[first] - own[second]) * (by_seed[first] - by_seed[second]) < 0
        if turned.any():
            found[frozenset((first, second))] = turned.idxmax()
    return found
