"""The comparison in words, saying only what the tables support."""

import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.evaluation.judged import OUT_OF_FOLD
from cytology.evaluation.readable import capital, groups_in_words, title, too_few
from cytology.evaluation.seed_spread import reversed_pairs
from cytology.evaluation.statistics.intervals import FEWEST_GROUPS
from cytology.evaluation.statistics.significance import difference_sentence
from cytology.run import BASELINE, GIVEN_LEAKS, LEAKING
from cytology.wording import join_words, plural, with_interval

LEAKS = {
    "original": "Protocol original: the split leaks, so these numbers show how well copies are "
    "recognized. No winner is named.",
    GIVEN_LEAKS: "The given split leaks and is used unchanged, so these numbers show how well "
    "groups from training are recognized. No winner is named.",
}
RANDOM = (
    "No pretrained weights: use this run to check the software, not to rank networks. No winner is "
    "named."
)
BASELINE_SAYS = "Size and mean colour alone reach"
ABOUT_FOLDS = (
    "These intervals describe heads trained on as many {units} of this kind as here, not one saved "
    "network; their variances are doubled, since {units} of one fold train the heads that judge "
    "the others."
)


def summary(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    unit: str,
    seeds: pd.DataFrame,
    everything: pd.DataFrame,
) -> list[str]:
    """The conclusions of a run's comparison, from its tables; one or two sentences per entry.

    `seeds` (`metrics_by_seed`) says whether another seed reverses the order of the networks,
    `everything` (`comparison_all`) whether the baseline is better than chance.
    """
    nothing = why_no_statement(table, unit)
    if nothing in LEAKS.values():
        return [nothing]
    random = table.loc[table["weights"] == "random", "architecture"]
    pairs = pairs[~pairs["weights"].str.contains("random")]
    by_image = pairs[pairs["level"] == "image"]
    elsewhere = outside_in_words(by_image[by_image["family"] == "outside"], everything)
    if nothing == RANDOM:
        return [RANDOM, *elsewhere]
    said = _random_in_words(random)
    if nothing:
        return [*said, nothing]
    table = table[table["weights"] != "random"]
    on, turned = table["judged_on"].iloc[0], reversed_pairs(seeds, table)
    each = _each_in_words(table, unit)
    lead = best_network_sentence(table, by_image[by_image["family"] == "networks"], unit, turned)
    return [
        *(lead or [each]),  # the report starts with it
        *said,
        *([each] if lead else []),
        *([ABOUT_FOLDS.format(units=plural(unit))] if on == OUT_OF_FOLD else []),
        *pairs_in_words(pairs, unit, turned),
        *elsewhere,
        *baseline_in_words(by_image[by_image["family"] == "baseline"], everything),
        worth_in_words(table.iloc[0], unit),
    ]


def why_no_statement(table: pd.DataFrame, unit: str) -> str:
    """Why a table of results allows no statement about the networks; empty if it allows one."""
    leaking = table.loc[table["protocol"].isin(LEAKING), "protocol"]
    if len(leaking):
        return LEAKS[leaking.iloc[0]]
    table = table[table["weights"] != "random"]
    if table.empty:
        return RANDOM
    if not too_few(table.iloc[0], "auc"):
        return ""
    return (
        f"No statement about the networks: they were judged {table['judged_on'].iloc[0]} on "
        f"{groups_in_words(table.iloc[0], unit)}, and fewer than {FEWEST_GROUPS} of a class are "
        "too few for any number."
    )


def _random_in_words(random: pd.Series) -> list[str]:
    """A warning that the networks `random` have random weights; empty if there are none."""
    if random.empty:
        return []
    one = len(random) == 1
    shows = "it only checks the software and is" if one else "they only check the software and are"
    return [
        f"No pretrained weights for {join_words(random.map(NETWORK_TITLE))}: {shows} not ranked. "
        "The following is about the others."
    ]


def pairs_in_words(pairs: pd.DataFrame, unit: str, turned: dict) -> list[str]:
    """The pairs of networks, and of averages; if the gate is closed, one sentence on the rest."""

    def by(row):
        seed = turned.get(frozenset((row.first, row.second)))
        luck = f" With seed {seed} their order is reversed, so this is not a finding."
        found = difference_sentence(row, title(row.first), title(row.second))
        said = f"By {row.level}: {capital(found)}"
        return said + (luck if row.separated and seed is not None else "")

    networks = pairs[pairs["family"] == "networks"]
    by_image = networks[networks["level"] == "image"]
    more = pairs[(pairs["family"] == "more than one") & (pairs["level"] == "image")]
    said = [by(row) for row in by_image.itertuples()]
    if by_image["separated"].any():
        by_unit = networks[networks["level"] != "image"]
        return said + [by(row) for row in by_unit.itertuples()] + more_in_words(more)
    not_asked = [f"networks by {unit}"] if len(networks) > len(by_image) else []
    not_asked += ["averages of predictions"] if len(more) else []
    if len(by_image) and not_asked:
        said.append(
            f"Not tested: {join_words(not_asked)}, since no two networks are separated by image."
        )
    return said


def outside_in_words(pairs: pd.DataFrame, everything: pd.DataFrame) -> list[str]:
    """How models from outside compare; if a model's training is unknown, only its AUC."""
    unknown = pairs["weights"].str.contains("unknown")
    said = [
        capital(difference_sentence(row, title(row.first), title(row.second)))
        for row in pairs[~unknown].itertuples()
    ]
    by_image = everything[everything["level"] == "image"]
    for _, row in by_image[by_image["weights"].str.contains("unknown")].iterrows():
        said.append(
            f"{title(row['model'])}: AUC {with_interval(row, 'auc', '95 % ')}, judged "
            f"{row['judged_on']}. Its training images are unknown, so no comparison is made."
        )
    return said


def best_network_sentence(
    table: pd.DataFrame, pairs: pd.DataFrame, unit: str, turned: dict
) -> list[str]:
    """The answer to "which is best?" in a sentence; empty if there is nothing to choose from.

    `table` has the networks, `pairs` their image-level rows of `compare_pairs`. `turned` maps a
    pair of networks to a seed that reverses their order (`reversed_pairs`): then neither is better.
    """
    if len(table) < 2:
        return []
    best = table.sort_values("auc", ascending=False, kind="stable").iloc[0]
    first = best["architecture"]
    equal = table.loc[table["auc"].round(3) == round(best["auc"], 3), "architecture"]
    if len(equal) > 1:
        return [
            f"No network is shown to be the best: {join_words(equal.map(NETWORK_TITLE))} have the "
            f"same AUC, {best['auc']:.3f} ({groups_in_words(best, unit)})."
        ]
    against = {
        row.second if row.first == first else row.first: row.separated
        for row in pairs.itertuples()
        if first in (row.first, row.second)
    }
    seeds = {other: turned.get(frozenset((first, other))) for other in against}
    name, auc = NETWORK_TITLE[first], with_interval(best, "auc", "95 % interval ")
    auc = f"{auc[:-1]}; {groups_in_words(best, unit)})"
    shown = [other for other, separated in against.items() if separated and seeds[other] is None]
    beaten = [NETWORK_TITLE[other] for other in shown]
    open_ = [NETWORK_TITLE[other] for other in against if other not in shown]
    luck = "".join(
        f" With seed {seed}, {NETWORK_TITLE[other]} has the higher AUC of the two."
        for other, seed in seeds.items()
        if seed is not None
    )
    if not open_:
        return [f"{name} separates the classes best: AUC {auc}, better than {join_words(beaten)}."]
    if not beaten:
        return [
            f"No network is shown to be the best: {name} has the highest AUC, {auc}, but is not "
            f"shown to be better than {join_words(open_)}.{luck}"
        ]
    return [
        f"{name} has the highest AUC, {auc}. It is better than {join_words(beaten)}, but not shown "
        f"to be better than {join_words(open_)}.{luck}"
    ]


def _each_in_words(table: pd.DataFrame, unit: str) -> str:
    """Each network's AUC with its interval, the highest first."""
    ordered = table.sort_values("auc", ascending=False, kind="stable")
    first = ordered.iloc[0]
    names, rows = ordered["architecture"].map(NETWORK_TITLE), ordered.to_dict("records")
    each = [f"{name} {with_interval(row, 'auc')}" for name, row in zip(names, rows, strict=True)]
    return (
        f"AUC {first['judged_on']} with 95 % intervals by {unit} ({first['images']} images of "
        f"{groups_in_words(first, unit)}): {'; '.join(each)}."
    )


def baseline_in_words(pairs: pd.DataFrame, everything: pd.DataFrame) -> list[str]:
    """Which networks are better than size and colour alone, by the same test.

    Only a baseline that is better than chance can explain what a network may have learned.
    """
    pairs = pairs.dropna(subset="auc_first")  # of one class only
    if pairs.empty or too_few(pairs.iloc[0], "auc"):
        return []
    better = pairs["separated"] & (pairs["difference"] > 0)
    names = pairs["second"].map(title)
    keys = everything[["model", "level", "judged_on"]]
    own = (keys == [BASELINE, "image", pairs["judged_on"].iloc[0]]).all(axis=1)
    row = everything[own].iloc[0]
    above = row["auc_low"] > 0.5
    said = [f"{BASELINE_SAYS} AUC {with_interval(row, 'auc', '95 % ')}."]
    if not above:
        said.append("That is not shown to be better than chance, so beating it says little.")
    if better.any():
        said.append(f"Better than that: {join_words(names[better])}.")
    if not better.all():
        said.append(f"Not shown to be better than that: {join_words(names[~better])}.")
        if above:
            said.append("Such a network may have learned the size, the stain or the camera.")
    return [" ".join(said)]


def more_in_words(pairs: pd.DataFrame) -> list[str]:
    """Whether averaging several predictions per image helped, in a sentence."""
    if pairs.empty:
        return []
    better = pairs[pairs["separated"] & (pairs["difference"] > 0)]
    worse = pairs[pairs["separated"] & (pairs["difference"] < 0)]
    said = [
        f"{title(row.second)} is {word} than {title(row.first)} (AUC {row.auc_second:.3f} against "
        f"{row.auc_first:.3f})"
        for part, word in ((better, "better"), (worse, "worse"))
        for row in part.itertuples()
    ]
    if not said:
        return [
            "Averaging the predictions of an image made no difference that these data can show "
            "(after Holm)."
        ]
    return [f"Averaging: {'; '.join(said)} (after Holm)."]


def worth_in_words(row: pd.Series, unit: str) -> str:
    """How many points one patient is worth, so that nobody reads too much into a difference."""
    return (
        f"One {unit} of the {row['groups']} is worth {100 / row['groups']:.1f} points of accuracy "
        f"on average ({row['images'] / row['groups']:.1f} images): a smaller difference can depend "
        f"on a single {unit}."
    )
