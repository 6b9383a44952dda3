"""The leakage audit: what the very same features and head score under three ways to split.

The head is scikit-learn's logistic regression on standardized frozen features, so that nothing
differs between two numbers but who sat on the other side of the split. Labels that were shuffled
hold nothing to be learned: what a split scores on them is what it lets the head recognize.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from cytology.augmentation import pictures_of
from cytology.features import Features, features_in_cache, key_of_run
from cytology.heads import fitted_head
from cytology.intervals import group_weights, over_draws, percentile_interval, span
from cytology.metrics import auc_from_ranks, auc_of_draws
from cytology.settings import NETWORK_TITLE, InputError, cores, plural, progress
from cytology.splitting import group_folds

# The column whose values are kept on one side.
PROTOCOLS = {"images_random": None, "copies_together": "family", "patients_together": "group"}
LABELS = ("true", "shuffled")
HONEST = "patients_together"
FEWEST_SHUFFLES = 10  # for a verdict: of five all lie above 0.5 by chance once in 32 times


@dataclass(frozen=True)
class Audit:
    """What was found for one network.

    `scores` has `protocol, labels, seed, auc, accuracy`. `logits[protocol, seed]` are the pooled
    out-of-fold logits of `pictures` (`image_id, orientation, label, group, family`) for the true
    labels, shape (pictures,).
    """

    scores: pd.DataFrame
    pictures: pd.DataFrame
    logits: dict[tuple[str, int], np.ndarray]


def draw_images(
    manifest: pd.DataFrame, most: int, seed: int, parameter: str = "audit_images"
) -> pd.DataFrame:
    """At most `most` images of the manifest: whole groups, drawn at random; all if they fit.

    `parameter` is the notebook's name of `most`, for the sentence of an `InputError`.
    """
    if len(manifest) <= most:
        return manifest
    sizes = manifest.groupby("group").size().sample(frac=1, random_state=seed)
    chosen = sizes.index[sizes.cumsum() <= most]
    drawn = manifest[manifest["group"].isin(chosen)]
    if drawn["label"].nunique() < 2 or len(chosen) < 2:
        raise InputError(
            f"Parameter `{parameter}` is {most}: too few for groups of both classes. Raise it."
        )
    return drawn


def audit(
    features: Features, images: pd.DataFrame, orientations: int, folds: int, seeds: int
) -> Audit:
    """Score the three protocols on true and on shuffled labels, once a seed.

    `images` are rows of the manifest. Every protocol judges the same pictures, all orientations
    of all images, each by a head that was trained on the other folds.
    """
    columns = ["image_id", "label", "group", "family"]
    pictures = pictures_of(images[columns], orientations).reset_index(drop=True)
    values = features.of(pictures)
    work = [
        (s, labels, protocol) for s in range(seeds) for labels in LABELS for protocol in PROTOCOLS
    ]

    def score(seed, labels, protocol):
        shown = pictures if labels == "true" else shuffle_labels(pictures, seed)
        malignant = (shown["label"] == "M").to_numpy()
        return malignant, out_of_fold_logits(
            values, malignant, assign_folds(shown, protocol, folds, seed)
        )

    scores, logits = [], {}
    # One thread for each solver here, since each that sets and resets it would disturb the others.
    with threadpool_limits(1):
        jobs = (delayed(score)(*item) for item in work)
        results = Parallel(cores(), prefer="threads", return_as="generator")(jobs)
        results = progress(results, "audit", len(work), "split")
        for (seed, labels, protocol), (malignant, found) in zip(work, results, strict=True):
            if labels == "true":
                logits[protocol, seed] = found
            about = {"protocol": protocol, "labels": labels, "seed": seed}
            about["auc"] = auc_from_ranks(malignant, found)
            about["accuracy"] = float(((found >= 0) == malignant).mean())
            scores.append(about)
    return Audit(pd.DataFrame(scores), pictures, logits)


def shuffle_labels(pictures: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Pictures with their labels shuffled image by image; all copies of an image keep one label."""
    of_family = pictures.groupby("family", sort=True)["label"].first()
    shuffled = np.random.default_rng(seed).permutation(of_family.to_numpy())
    drawn = pictures["family"].map(pd.Series(shuffled, index=of_family.index))
    return pictures.assign(label=drawn)


def assign_folds(pictures: pd.DataFrame, protocol: str, folds: int, seed: int) -> np.ndarray:
    """The fold of each picture, shape (pictures,), stratified by label.

    Raises `InputError` where fewer units than folds are to be kept together.
    """
    together, labels = PROTOCOLS[protocol], pictures["label"]
    if together is None:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = [held_out for _, held_out in splitter.split(pictures, labels)]
    else:
        if pictures[together].nunique() < folds:
            raise InputError(
                f"The audit needs at least {folds} groups, one for each of the `folds`."
            )
        parts = group_folds(folds, seed, labels, pictures[together])
    fold = np.empty(len(pictures), int)
    for number, held_out in enumerate(parts):
        fold[held_out] = number
    return fold


def out_of_fold_logits(values: np.ndarray, malignant: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Logits of each picture by a head trained on the other folds, shape (pictures,)."""
    logits = np.empty(len(values))
    for number in np.unique(fold):
        held_out = fold == number
        head = fitted_head(values[~held_out], malignant[~held_out])
        logits[held_out] = head.decision_function(values[held_out])
    return logits


# -------------------------------------------------------------------- summary


def summarize(found: Audit, draws: int = 500, seed: int = 0) -> pd.DataFrame:
    """A row a protocol and kind of labels: mean AUC and accuracy over seeds, with intervals.

    `auc_low`, `auc_high`: for true labels 95 % from drawing whole groups (the cluster bootstrap of
    `intervals.group_weights`) of the mean over seeds; for shuffled labels the 2.5 and 97.5 %
    quantiles over the shuffles. `inflation` is the mean AUC less that of patients kept together,
    in points of 0.01, and its interval comes from the same draws of groups.
    """
    rows = found.scores.groupby(["protocol", "labels"])[["auc", "accuracy"]].mean()
    shuffled = found.scores[found.scores["labels"] == "shuffled"].groupby("protocol")["auc"]
    drawn = bootstrap_mean_auc(found, draws, seed)
    for protocol in PROTOCOLS:
        low, high = shuffled.get_group(protocol).quantile([0.025, 0.975])
        rows.loc[(protocol, "shuffled"), ["auc_low", "auc_high"]] = low, high
        low, high = percentile_interval(drawn[protocol])
        rows.loc[(protocol, "true"), ["auc_low", "auc_high"]] = low, high
        gain = 100 * (rows.loc[(protocol, "true"), "auc"] - rows.loc[(HONEST, "true"), "auc"])
        low, high = percentile_interval(100 * (drawn[protocol] - drawn[HONEST]))
        names = ["inflation", "inflation_low", "inflation_high"]
        rows.loc[(protocol, "true"), names] = gain, low, high
    order = pd.MultiIndex.from_product([PROTOCOLS, LABELS], names=["protocol", "labels"])
    return rows.reindex(order).reset_index()


def bootstrap_mean_auc(found: Audit, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Mean AUC over seeds in each draw of whole groups, by protocol; NaN where a class is missing.

    The same groups are drawn for every protocol, so that differences can be taken draw by draw.
    """
    truth = (found.pictures["label"] == "M").to_numpy()

    def mean_aucs(weights):
        return {
            protocol: np.mean(
                [
                    auc_of_draws(truth, logits, weights)
                    for (name, _), logits in found.logits.items()
                    if name == protocol
                ],
                axis=0,
            )
            for protocol in PROTOCOLS
        }

    drawn = over_draws(found.pictures, group_weights(found.pictures, draws, seed), mean_aucs)
    return drawn


def verdict(scores: pd.DataFrame) -> str:
    """Whether shuffled labels are no better than chance with whole groups kept together, in words.

    They are not above chance if the 2.5 % quantile of AUC over the shuffles is at most 0.5.
    """
    rows = scores[(scores["protocol"] == HONEST) & (scores["labels"] == "shuffled")]
    quantile = rows["auc"].quantile(0.025)
    if len(rows) < FEWEST_SHUFFLES:
        return f"{len(rows)} shuffles are too few to tell; set audit_seeds to {FEWEST_SHUFFLES}"
    words = "passed" if quantile <= 0.5 else "NOT PASSED: something leaks"
    return f"2.5 % quantile of {len(rows)} shuffles {quantile:.3f}: {words}"


def in_words(summary: pd.DataFrame, unit: str, seeds: int) -> list[str]:
    """The result in sentences, one a network; plain text."""
    sentences = []
    for name, rows in summary.groupby("architecture", sort=False):
        at = rows.set_index(["protocol", "labels"])
        leaky, honest = at.loc[("images_random", "true")], at.loc[(HONEST, "true")]
        random, kept = (at.loc[(split, "shuffled"), "auc"] for split in ("images_random", HONEST))
        sentences.append(
            f"{NETWORK_TITLE[name]} ({leaky['weights']} weights), mean of {seeds} repetitions: "
            f"splitting augmented pictures at random gives AUC {leaky['auc']:.3f}, keeping "
            f"{plural(unit)} together {honest['auc']:.3f}. The split alone adds "
            f"{leaky['inflation']:z.1f} points ({span(leaky, 'inflation', '95 % ', 'z.1f')}). "
            "With shuffled labels, where nothing can be learned, it still gives "
            f"{random:.3f}, against {kept:.3f} with {plural(unit)} kept together."
        )
    return sentences


# ------------------------------------------------------------------- features


def features_of_run(
    run: Path,
    architecture: str,
    images: pd.DataFrame,
    orientations: int,
    root: Path,
    weights: str,
    batch_size: int,
) -> Features:
    """Frozen features of all orientations of `images`, with the weights that the run began with.

    From the cache, without TensorFlow, where its training notebook left them; else computed here.
    Raises `InputError` if `weights` are not those of the run.
    """
    found = features_in_cache(run, architecture, images, orientations)
    if found is not None:
        return found
    # Late, since only a run without cached features needs TensorFlow, which takes seconds.
    from cytology.pipeline import frozen_features
    from cytology.training import backbone_of_run

    extractor, decoded = backbone_of_run(run, architecture, root, weights)
    pictures = pictures_of(images[["image_id"]], orientations)
    key = key_of_run(run, architecture)
    return frozen_features(extractor, decoded, pictures, key, batch_size)
