"""The leakage audit: the scores of the same features and head under three kinds of split.

The head is `linear_head.fitted_head`, so two numbers differ only in who was on the other side of
the split. From shuffled labels nothing can be learned: a split that scores on them lets the head
recognize images (Ojala & Garriga 2010, JMLR 11:1833). Labels shuffled image by image reveal copies
that cross. Labels shuffled group by group, as whole blocks (Winkler et al. 2015, doi
10.1016/j.neuroimage.2015.05.092), also reveal patients that cross. Every AUC is within folds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold

from cytology.data.augmentation import pictures_of
from cytology.data.splitting import group_folds
from cytology.evaluation.readable import title
from cytology.evaluation.statistics.intervals import NO_BOUNDS, t_quantile
from cytology.evaluation.statistics.mean_auc import MeanAuc
from cytology.evaluation.statistics.metrics import auc_within_folds
from cytology.machine import cores
from cytology.networks.engines import engine_here
from cytology.networks.features import Features, features_in_cache, key_of_run
from cytology.networks.linear_head import (
    STRENGTH,
    STRENGTHS,
    LinearHead,
    fitted_head,
    is_malignant,
    untrained_head,
)
from cytology.notebook import progress
from cytology.run import OUTSIDE, Run
from cytology.settings import InputError
from cytology.wording import interval_text, plural, with_interval

# The column whose values are kept on one side of the split.
PROTOCOLS = {"images_random": None, "copies_together": "family", "patients_together": "group"}
# The unit of shuffling: the labels of images, or the labels of whole groups.
SHUFFLED = {"shuffled": "family", "shuffled by group": "group"}
LABELS = ("true", *SHUFFLED)
HONEST = "patients_together"
FEWEST_SHUFFLES = 10  # for a verdict; fewer usually miss a leak of a few points
# What depends on the strength of the head, and is therefore scored for the whole grid.
OF_STRENGTH = (("images_random", "shuffled"), (HONEST, "true"))


@dataclass(frozen=True)
class Audit:
    """The result for one network.

    `scores` has `protocol, labels, seed, auc, accuracy`. `logits[protocol, seed]` are the
    out-of-fold logits of `pictures` (`image_id, orientation, label, group, family`) for the true
    labels, shape (pictures,), and `folds[protocol, seed]` their folds. `strengths` has `protocol,
    labels, strength, auc`: the AUC of weaker and stronger heads with the first seed.
    """

    scores: pd.DataFrame
    pictures: pd.DataFrame
    logits: dict[tuple[str, int], np.ndarray]
    folds: dict[tuple[str, int], np.ndarray]
    strengths: pd.DataFrame


def audit(features: Features, images: pd.DataFrame, folds: int, seeds: int) -> Audit:
    """Score the three protocols on true and on both kinds of shuffled labels, once per seed.

    `images` are rows of the manifest. Every protocol judges the same pictures: all orientations in
    the features, of all images, each by a head that was trained on the other folds.

    Shuffled labels use the folds of the true labels. Folds stratified by shuffled labels would
    depend on these labels, and for groups of different size the mean over shuffles would differ
    from 0.5 without any leak. With the true folds, two groups of a fold could just as well have
    each other's labels, so their average is 0.5.
    """
    columns = ["image_id", "label", "group", "family"]
    orientations = 1 + int(features.index.get_level_values("orientation").max())
    pictures = pictures_of(images[columns], orientations).reset_index(drop=True)
    values = features.of(pictures)
    work = [(p, labels, s, STRENGTH) for s in range(seeds) for labels in LABELS for p in PROTOCOLS]
    grid = [(*which, 0, strength) for which in OF_STRENGTH for strength in STRENGTHS]

    def score(protocol, seed):
        """All heads of a split: they share its folds and standardization."""
        fold = assign_folds(pictures, protocol, folds, seed)
        untrained = {number: untrained_head(values[fold != number]) for number in np.unique(fold)}
        of_head, logits = {}, {}
        for head in dict.fromkeys(work + grid):
            _, labels, _, strength = head
            if (head[0], head[2]) != (protocol, seed):
                continue
            by = SHUFFLED.get(labels)
            shown = shuffle_labels(pictures, seed, by) if by else pictures
            malignant = is_malignant(shown["label"])
            found = out_of_fold_logits(values, malignant, fold, strength, untrained)
            auc = auc_within_folds(shown.assign(fold=fold, logit=found))
            of_head[head] = {"auc": auc, "accuracy": float(((found >= 0) == malignant).mean())}
            logits[labels, strength] = found
        return of_head, fold, logits["true", STRENGTH]

    splits = [(protocol, seed) for seed in range(seeds) for protocol in PROTOCOLS]
    # Processes: a solver's steps are so short that threads would wait for Python's global lock.
    results = Parallel(cores(), return_as="generator")(delayed(score)(*split) for split in splits)
    results = list(progress(results, "audit", len(splits), "split"))
    every = {head: found for of_head, _, _ in results for head, found in of_head.items()}
    names = ("protocol", "labels", "seed", "strength")
    scores, strengths = (
        pd.DataFrame([dict(zip(names, head, strict=True)) | every[head] for head in heads])
        for heads in (work, grid)
    )
    return Audit(
        scores.drop(columns="strength"),
        pictures,
        {split: logits for split, (_, _, logits) in zip(splits, results, strict=True)},
        {split: fold for split, (_, fold, _) in zip(splits, results, strict=True)},
        strengths[["protocol", "labels", "strength", "auc"]],
    )


def shuffle_labels(pictures: pd.DataFrame, seed: int, by: str = "family") -> pd.DataFrame:
    """Pictures with their labels shuffled; all copies of an image keep one label.

    By `family`, image by image. By `group`, groups exchange their shares of malignant images: if
    each group has one label, groups exchange labels; if a group has both, as many of its images as
    fit the new share, drawn at random, are malignant. A permutation of blocks would exchange labels
    only among groups of similar size. If size is related to the label, that changes nothing, and
    the truth is learned.
    """
    rng = np.random.default_rng(seed)
    images = pictures.groupby("family", sort=True)[["label", "group"]].first()
    if by == "family":
        drawn = rng.permutation(images["label"].to_numpy())
    else:
        share = (images["label"] == "M").groupby(images["group"]).mean()
        share[:] = rng.permutation(share.to_numpy())
        drawn = (
            images["group"]
            .groupby(images["group"])
            .transform(lambda members: random_labels(share[members.name], len(members), rng))
        )
    return pictures.assign(label=pictures["family"].map(pd.Series(drawn, index=images.index)))


def random_labels(share: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` labels in random order, of which on average `share` are M."""
    malignant = int(share * count + rng.random())
    return np.where(rng.permutation(count) < malignant, "M", "B")


def assign_folds(
    pictures: pd.DataFrame,
    protocol: str,
    folds: int,
    seed: int,
) -> np.ndarray:
    """The fold of each picture, shape (pictures,), stratified by label.

    Raises `InputError` if there are fewer units than folds.
    """
    together, labels = PROTOCOLS[protocol], pictures["label"]
    if together is None:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = [held_out for _, held_out in splitter.split(pictures, labels)]
    else:
        if pictures[together].nunique() < folds:
            raise InputError(
                f"The audit needs at least {folds} groups: one per fold (see `folds`)."
            )
        parts = group_folds(folds, seed, labels, pictures[together])
    fold = np.empty(len(pictures), int)
    for number, held_out in enumerate(parts):
        fold[held_out] = number
    return fold


def out_of_fold_logits(
    values: np.ndarray,
    malignant: np.ndarray,
    fold: np.ndarray,
    strength: float = STRENGTH,
    untrained: dict[int, LinearHead] | None = None,
) -> np.ndarray:
    """Logits of each picture by a head trained on the other folds, shape (pictures,).

    `strength` is that of `fitted_head`, and so is `untrained`, by fold. If the other folds
    have only one class, as shuffled labels may, nothing can be learned: the logits are 0.
    """
    logits = np.zeros(len(values))
    for number in np.unique(fold):
        held_out = fold == number
        train = ~held_out
        if len(np.unique(malignant[train])) == 2:
            scale = untrained[number] if untrained else None
            head = fitted_head(values[train], malignant[train], strength, untrained=scale)
            logits[held_out] = head.logits(values[held_out])
    return logits


def features_of_run(
    run: Run, architecture: str, images: pd.DataFrame, orientations: int
) -> Features:
    """Frozen features of all orientations of `images`, with the run's initial weights.

    From the cache, without TensorFlow, if the training notebook left them there; else computed now.
    Those of a model from outside have the orientations of its file, and exist only in the cache.
    Raises `InputError` if the notebook's `weights` are not those of the run.
    """
    _ = run.images  # even if none is opened: checks that `data` is what notebook 01 read
    orientations = run.about(architecture).get("orientations", orientations)
    found = features_in_cache(run, architecture, images, orientations)
    if found is not None:
        return found
    if architecture.startswith(OUTSIDE):
        raise InputError(
            f"The features of {title(architecture)} are no longer in the cache: run notebook 07 "
            "again."
        )
    # Imported late: only a run without cached features needs TensorFlow, which takes seconds.
    from cytology.networks.batches import decode, frozen_features
    from cytology.training.backbone import frozen_network

    about = run.about(architecture)
    engine = engine_here(about)
    passes, _ = frozen_network(run, architecture, run.parameters["weights"], engine)
    # Not the run's decoded images: these may be of neither class, which the manifest lacks.
    decoded = decode(run.images, images, about["image_size"], about["fit"])
    pictures = pictures_of(images[["image_id"]], orientations)
    key = key_of_run(run, architecture, engine)
    return frozen_features(passes, decoded, pictures, key, run.parameters["batch_size"])


# -------------------------------------------------------------------- summary


def audit_summary(found: Audit) -> pd.DataFrame:
    """One row per protocol and kind of labels: mean AUC and accuracy over seeds, with intervals.

    `auc_low`, `auc_high`: for true labels 95 % by group (`MeanAuc`); for shuffled ones the t
    interval of the mean over the shuffles (`mean_of_shuffles`), which counts shuffles, not groups,
    since their labels are random. `inflation` is the mean AUC of true labels minus that of groups
    kept together, in points of 0.01, on the same groups. `auc_lowest` and `auc_highest` are those
    of weaker and stronger heads, for the rows in `OF_STRENGTH`.
    """
    kinds = ["protocol", "labels"]
    rows = found.scores.groupby(kinds)[["auc", "accuracy"]].mean()
    for key, scores in found.scores.groupby(kinds):
        if key[1] in SHUFFLED:
            rows.loc[key, ["auc_low", "auc_high"]] = mean_of_shuffles(scores["auc"])
    means = {protocol: mean_auc_of(found, protocol) for protocol in PROTOCOLS}
    for protocol, own in means.items():
        row = protocol, "true"
        rows.loc[row, ["auc_low", "auc_high"]] = own.interval()
        gain = own.gain_over(means[HONEST])
        rows.loc[row, ["inflation", "inflation_low", "inflation_high"]] = 100 * np.array(gain)
    of_strength = found.strengths.groupby(kinds)["auc"]
    rows["auc_lowest"], rows["auc_highest"] = of_strength.min(), of_strength.max()
    order = pd.MultiIndex.from_product([PROTOCOLS, LABELS], names=kinds)
    return rows.reindex(order).reset_index()


def scores_of(audits: dict[str, Audit]) -> pd.DataFrame:
    """The scores of every network: `architecture, protocol, labels, seed, auc, accuracy`."""
    parts = [found.scores.assign(architecture=name) for name, found in audits.items()]
    columns = ["architecture", "protocol", "labels", "seed", "auc", "accuracy"]
    return pd.concat(parts)[columns]


def audit_of_run(run: Run, audits: dict[str, Audit]) -> pd.DataFrame:
    """`audit_summary` of every network, with its `architecture` and initial `weights` in front."""
    parts = []
    for name, found in audits.items():
        part = audit_summary(found)
        part.insert(0, "architecture", name)
        part.insert(1, "weights", run.weights_behind(name))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def mean_auc_of(found: Audit, protocol: str) -> MeanAuc:
    """A protocol's mean AUC over seeds for true labels, each within its own folds."""
    keys = [key for key in found.logits if key[0] == protocol]
    each = ([part[key] for key in keys] for part in (found.logits, found.folds))
    return MeanAuc(found.pictures, *each)


def mean_of_shuffles(auc: pd.Series) -> tuple[float, float]:
    """95 % t interval of the mean AUC over shuffles; more shuffles make it narrower.

    If all shuffles have the same AUC, as when whole patients are recognized every time, it has no
    width. (NaN, NaN) for fewer than two.
    """
    auc = auc.dropna()
    if len(auc) < 2:
        return NO_BOUNDS
    half = t_quantile(len(auc) - 1) * auc.std() / np.sqrt(len(auc))
    return float(auc.mean() - half), float(auc.mean() + half)


def shuffle_verdict(summary: pd.DataFrame, shuffles: int, protocol: str = HONEST) -> str:
    """Whether meaningless labels, shuffled group by group, score above chance, in words.

    `summary` holds the rows of one network. A protocol fails if the whole interval of the mean over
    the shuffles is above 0.5. A protocol that passes may still have a leak up to the upper end of
    the interval.
    """
    if shuffles < FEWEST_SHUFFLES:
        return f"{shuffles} shuffles are too few; set audit_seeds to {FEWEST_SHUFFLES} or more"
    row = summary.set_index(["protocol", "labels"]).loc[(protocol, "shuffled by group")]
    if np.isnan(row["auc_low"]):
        return "no verdict: no fold has both classes"
    said = (
        f"mean AUC of {shuffles} shuffles {row['auc']:.3f} ({interval_text(row, 'auc', '95 % ')}): "
    )
    if row["auc_low"] > 0.5:
        return said + "NOT PASSED: something leaks"
    points = 100 * max(row["auc_high"] - 0.5, 0)
    return said + f"passed; a leak of up to {points:.1f} points could hide in this interval"


def _groups_sentence(at: pd.DataFrame, unit: str) -> str:
    """The AUC of labels shuffled from group to group if only copies are kept together."""
    row = at.loc[("copies_together", "shuffled by group")]
    shown = "are recognized" if row["auc_low"] > 0.5 else "are not shown to be recognized"
    return (
        f"With labels shuffled between {plural(unit)} and only copies kept together, it is "
        f"{with_interval(row, 'auc', '95 % ')}: {plural(unit)} {shown} across such folds."
    )


def leakage_sentences(summary: pd.DataFrame, unit: str, seeds: int) -> list[str]:
    """The result in sentences, one per network; plain text."""
    sentences = []
    for name, rows in summary.groupby("architecture", sort=False):
        at = rows.set_index(["protocol", "labels"])
        leaky, honest = at.loc[("images_random", "true")], at.loc[(HONEST, "true")]
        image = at.loc[("images_random", "shuffled")]
        whose = title(name)
        if not name.startswith(OUTSIDE):
            whose += f" ({leaky['weights']} weights)"
        groups = plural(unit)
        if np.isnan(leaky["auc"]) or np.isnan(honest["auc"]):
            sentences.append(f"{title(name)}: no fold has both classes, so no AUC exists.")
            continue
        bounds = interval_text(leaky, "inflation", "95 % ", "+z.1f")
        points = f"{leaky['inflation']:+z.1f} points ({bounds})"
        adds = "adds" if leaky["inflation_low"] > 0 else "is not shown to add anything:"
        sentences.append(
            f"{whose}, mean of {seeds} repetitions, "
            "AUC within folds: "
            f"splitting augmented pictures at random gives {leaky['auc']:.3f}, keeping "
            f"{groups} together {honest['auc']:.3f}. The split alone {adds} {points}. "
            "With labels shuffled between images, where nothing can be learned, the random split "
            f"gives {image['auc']:.3f} ({image['auc_lowest']:.3f} to {image['auc_highest']:.3f} "
            "with other penalties, in the first repetition). "
            f"{_groups_sentence(at, unit)} The check of this split: {shuffle_verdict(rows, seeds)}."
        )
    return sentences
