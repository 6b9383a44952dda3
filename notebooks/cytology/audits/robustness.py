"""How a trained network takes another stain, focus, compression or scale.

Pictures are shifted as a network meets them: shrunk into its square, shifted, then padded. Each is
judged by the head that never saw its patient, at five strengths of every shift.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from PIL import Image
from scipy.special import expit
from sklearn.cluster import KMeans

from cytology.architectures import NETWORK_TITLE
from cytology.audits.shifts import NONE, SHIFTS, STRENGTHS, Smear, amount, lab_pixels, shifted
from cytology.data.augmentation import fit_to_square, place_in_square
from cytology.data.images.opening import open_rgb
from cytology.data.splitting import read_split
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics.clusters import effective_groups
from cytology.evaluation.statistics.intervals import (
    LEVEL,
    NO_INTERVAL,
    around,
    gain_error,
    mean_interval,
    metrics_with_intervals,
    variance_inflation,
    with_span,
)
from cytology.evaluation.statistics.metrics import auc_from_ranks
from cytology.evaluation.statistics.significance import holm, p_of_interval
from cytology.files import file_hash
from cytology.networks.features import FeatureStore, key_of_run
from cytology.networks.linear_head import LinearHead, read_heads
from cytology.notebook import progress
from cytology.settings import CACHE, InputError
from cytology.tables import read_json, read_table, require, splits_as_the_original
from cytology.wording import counted, plural

# --------------------------------------------------------- images and networks


def judged_on(run: Path, names: list[str]) -> str:
    """`out-of-fold` where every network has heads of the folds, else `test`.

    A network that was fine-tuned has no folds; those of the original's protocol leak.
    """
    tuned = any(read_json(run, f"{name}/metrics.json")["fine_tuned"] for name in names)
    return "test" if tuned or splits_as_the_original(run) else "out-of-fold"


def choose_images(run: Path, on: str, most: int, seed: int) -> pd.DataFrame:
    """At most `most` images to shift: `image_id, group, label, fold, sha256`, perhaps `stain`.

    Both classes in turn as long as they last, and within a class one image of each group before
    the second of any. A smaller `most` gives the first of them. Raises `InputError` where fewer
    than two groups can be judged.
    """
    split, manifest = read_split(run), read_table(run, "manifest.csv")
    rows = split[(split["split"] == "test") == (on == "test")].drop_duplicates("image_id")
    known = manifest[["image_id", "sha256", *manifest.columns.intersection(["stain"])]]
    images = rows[["image_id", "group", "label", "fold"]].merge(known, on="image_id")
    images = images.drop_duplicates("sha256").sort_values("image_id")
    images = images.sample(frac=1, random_state=seed)
    of_group = images.groupby(["label", "group"]).cumcount()
    images = images.iloc[np.argsort(of_group, kind="stable")]
    in_turn = images.groupby("label").cumcount()
    images = images.iloc[np.lexsort([images["label"], in_turn])].head(most)
    if images["group"].nunique() < 2 or images["label"].nunique() < 2:
        raise InputError(
            "Shifts need images of two groups and of both classes, and the images that can be "
            "judged have fewer: gather images of more patients."
        )
    return images.reset_index(drop=True)


def open_smears(root: Path, images: pd.DataFrame, size: int, fit: str) -> list[Smear]:
    """The chosen images as they lie in a square of `size`, with their stain groups."""
    smears = []
    for row in progress(list(images.itertuples()), "opening"):
        image = open_rgb(root / row.image_id)
        # As `fit_to_square` does it, so that untouched pictures are pixel by pixel its own.
        inside = place_in_square(*image.size, size, fit)[2:]
        small = image.resize(inside, Image.Resampling.BILINEAR, reducing_gap=3.0)
        smears.append(Smear(small, row.sha256))
    return with_stains(smears, images)


def with_stains(smears: list[Smear], images: pd.DataFrame) -> list[Smear]:
    """The smears with the colours of their own and of the other stain group.

    The groups are the values of the column `stain`; where it has no two, or misses one, two
    clusters (k-means) of the mean Lab of each `group`: "darker" and "lighter". The colours of a
    group are the means over its images. Of more than two groups, the other is the one whose mean
    is furthest away.
    """
    labs = [lab_pixels(smear.image).reshape(-1, 3) for smear in smears]
    colours = np.array([[lab.mean(axis=0), lab.std(axis=0)] for lab in labs])
    stain = images.get("stain", pd.Series("", index=images.index))
    if stain.nunique() < 2 or (stain == "").any():
        means = pd.DataFrame(colours[:, 0]).groupby(images["group"].to_numpy()).mean()
        found = KMeans(2, n_init=10, random_state=0).fit(means)
        darker = np.argmin(found.cluster_centers_[:, 0])
        names = np.where(found.labels_ == darker, "darker", "lighter")
        stain = images["group"].map(pd.Series(names, index=means.index))
    stain = stain.to_numpy()
    of_stain = {name: colours[stain == name].mean(axis=0) for name in np.unique(stain)}

    def distance(one, other):
        return np.linalg.norm(of_stain[one][0] - of_stain[other][0])

    other = {name: max(of_stain, key=functools.partial(distance, name)) for name in of_stain}
    return [
        replace(smear, stain=str(name), own=of_stain[name], other=of_stain[other[name]])
        for smear, name in zip(smears, stain, strict=True)
    ]


@dataclass(frozen=True)
class Network:
    """A trained network of a run: what its features hang on, its heads, and how it is loaded.

    `load` returns a Keras model that gives features; without `heads` it gives logits itself.
    """

    name: str
    key: list
    size: int
    fit: str
    heads: dict[str, LinearHead] | None
    load: Callable

    def logits(self, features: np.ndarray, folds: pd.Series) -> np.ndarray:
        """Logits of features of shape (images, width), each by the head of its own fold."""
        if self.heads is None:
            return features[:, 0].astype(float)
        logits = np.empty(len(features))
        for fold in folds.unique():
            rows = (folds == fold).to_numpy(bool)
            logits[rows] = self.heads[f"fold{fold}"].logits(features[rows])
        return logits


def network_of_run(run: Path, name: str, on: str, root: Path, weights: str) -> Network:
    """The network `name` of a run as it judges `out-of-fold` or `test`; loaded when needed."""
    about, key = read_json(run, f"{name}/metrics.json"), key_of_run(run, name)
    if on == "test":
        heads, load = None, functools.partial(whole_network, run, name)
        key += ["whole network", file_hash(require(run, f"{name}/model.keras"))]
    else:
        heads, load = read_heads(run, name), functools.partial(backbone, run, name, root, weights)
    key += [PIL.__version__]
    return Network(name, key, about["image_size"], about["fit"], heads, functools.cache(load))


def whole_network(run: Path, name: str):
    """The saved Keras model, from pictures to logits."""
    from cytology.networks.model_files import load_trained  # late: starts TensorFlow

    return load_trained(run, name)[0]


def backbone(run: Path, name: str, root: Path, weights: str):
    """The Keras model that made the run's features; `InputError` if `weights` are others."""
    from cytology.training.backbone import backbone_of_run  # late: starts TensorFlow

    return backbone_of_run(run, name, root, weights)[0]


# --------------------------------------------------------------------- judging


def shifted_features(
    networks: list[Network], smears: list[Smear], name: str, batch_size: int, cache: Path = CACHE
) -> list[np.ndarray]:
    """What each network makes of the smears under a shift: (strengths, smears, width); cached.

    The networks have one input size and one `fit`: a picture is shifted once for all of them. The
    cache's name says the network, the shift, its amounts and its code; in it, pictures are found
    by (file hash, strength).
    """
    what, strengths = [name], (0,)
    if name != NONE:
        shift, strengths = SHIFTS[name], STRENGTHS
        what += [shift.amounts, inspect.getsource(shift.apply)]
    if name == "stain":  # its target depends on which images were chosen
        what += [[s.sha256, s.own.round(3).tolist(), s.other.round(3).tolist()] for s in smears]
    stores = [FeatureStore([*network.key, *what], cache) for network in networks]
    pictures = [(smear, strength) for strength in strengths for smear in smears]
    names = pd.Index([f"{smear.sha256} {strength}" for smear, strength in pictures])
    missing = [store.missing(names) for store in stores]
    anywhere, computed = np.unique(np.concatenate(missing)), [[] for _ in networks]
    for start in range(0, len(anywhere), batch_size):
        batch = anywhere[start : start + batch_size]
        squares = np.stack(
            [
                fit_to_square(shifted(smear, name, strength), networks[0].size, networks[0].fit)
                for smear, strength in (pictures[k] for k in batch)
            ]
        )
        for network, lacking, values in zip(networks, missing, computed, strict=True):
            if (mine := np.isin(batch, lacking)).any():
                values.append(network.load().predict_on_batch(squares[mine]))
    for store, lacking, values in zip(stores, missing, computed, strict=True):
        if values:
            store.add(names[lacking], np.concatenate(values))
    return [store.rows(names)[:].reshape(len(strengths), len(smears), -1) for store in stores]


def judge(
    networks: list[Network], images: pd.DataFrame, smears: list[Smear], batch_size: int, cache=CACHE
) -> pd.DataFrame:
    """A row a picture: `image_id, group, label, fold, architecture, shift, strength, logit,
    probability`.

    Untouched pictures stand once, as shift `none` with strength 0. The networks have one input.
    """
    rows = {network.name: [] for network in networks}
    for name in progress([NONE, *SHIFTS], "judging", unit="shift"):
        found = shifted_features(networks, smears, name, batch_size, cache)
        for network, values in zip(networks, found, strict=True):
            for strength, features in enumerate(values, start=0 if name == NONE else 1):
                logit = network.logits(features, images["fold"])
                about = {"architecture": network.name, "shift": name, "strength": strength}
                about |= {"logit": logit, "probability": expit(logit)}
                found_here = images[["image_id", "group", "label", "fold"]].assign(**about)
                rows[network.name].append(found_here)
    return pd.concat([table for tables in rows.values() for table in tables], ignore_index=True)


def distance_from_predictions(run: Path, judged: pd.DataFrame, on: str) -> float:
    """Largest distance of the untouched pictures' logits from those in `predictions.csv`.

    NaN where it names none of them as taken, as may be under the original's protocol.
    """
    distances = []
    for name, rows in judged[judged["shift"] == NONE].groupby("architecture"):
        stored = read_predictions(run, name).query("orientation == 0")
        stored = stored[stored["model"] == ("final" if on == "test" else "oof")]
        both = rows.merge(stored, on="image_id", suffixes=("", "_stored"))
        distances.append((both["logit"] - both["logit_stored"]).abs().max())
    return float(max(distances))


def distance_in_words(distance: float) -> str:
    """What `distance_from_predictions` found, as a clause."""
    if np.isnan(distance):
        return "none of the untouched ones has a stored logit to be compared with"
    return f"untouched logits differ by at most {distance:.1e}"


# --------------------------------------------------------------------- summary

SHOWN = ("auc", "recall", "specificity", "ece")
CHANGES = ("auc_change", "loss_rise")
FEW_IMAGES = 48  # with fewer hardly any shift is found, whatever it does


def summarize(judged: pd.DataFrame) -> pd.DataFrame:
    """A row a network, shift and strength: metrics and how they changed, with 95 % intervals.

    `auc_change` (`intervals.gain_error`; minus: worse) and `loss_rise` (a mean over images) are
    shifted less untouched, on the same images. Their `_p` are of t tests, and `_p_holm` corrects
    them for the shifts of one network at one strength. With too few groups there are no intervals
    (NaN), and none where a shift changed nothing. Calibration errors have none.
    """
    table = []
    for architecture, of_network in judged.groupby("architecture", sort=False):
        untouched = of_network[of_network["shift"] == NONE].sort_values("image_id")
        for (shift, strength), rows in of_network.groupby(["shift", "strength"], sort=False):
            row = {"architecture": architecture, "shift": shift, "strength": strength}
            row["amount"] = amount(shift, strength)
            rows = rows.sort_values("image_id")
            found, losses = metrics_with_intervals(rows, names=SHOWN), image_losses(rows)
            row |= found | with_interval("loss", losses.mean(), mean_of(losses, rows))
            changes = {name: (0.0, 0.0, 0.0, np.nan) for name in CHANGES}
            if shift != NONE:
                changes["auc_change"] = change_of_auc(untouched, rows)
                changes["loss_rise"] = change_of_loss(losses - image_losses(untouched), rows)
            for name, (change, *bounds, p) in changes.items():
                row |= with_interval(name, change, bounds) | {f"{name}_p": p}
            table.append(row)
    table = pd.DataFrame(table)
    for name in CHANGES:
        families = table.groupby(["architecture", "strength"], sort=False)[f"{name}_p"]
        table[f"{name}_p_holm"] = families.transform(holm)
    return table


def image_losses(rows: pd.DataFrame) -> np.ndarray:
    """The log loss of each image, in nats, from its logit: shape (n,)."""
    return np.logaddexp(0, np.where(rows["label"] == "M", -1, 1) * rows["logit"].to_numpy())


def mean_of(values: np.ndarray, rows: pd.DataFrame) -> tuple[float, float]:
    """The interval of the mean of a number an image, by the groups and folds of `rows`."""
    return mean_interval(values, rows["group"].to_numpy(), variance_inflation(rows))


def change_of_auc(untouched: pd.DataFrame, rows: pd.DataFrame) -> tuple[float, ...]:
    """The AUC of rows less that of the same images untouched, its two bounds and P."""
    change, error, freedom = gain_error(rows, untouched["logit"], rows["logit"])
    bounds = around(change, error**2, freedom)
    return change, *bounds, p_of_interval(change, *bounds, freedom)


def change_of_loss(rises: np.ndarray, rows: pd.DataFrame) -> tuple[float, ...]:
    """The mean of rises of the log loss, shape (n,), its two bounds and P."""
    bounds, groups = mean_of(rises, rows), effective_groups(rows["group"].value_counts())
    return rises.mean(), *bounds, p_of_interval(rises.mean(), *bounds, groups - 1)


def with_interval(name: str, value: float, bounds: tuple[float, float]) -> dict[str, float]:
    """`name`, `name_low` and `name_high` of a row."""
    values = value, *bounds
    named = zip((name, f"{name}_low", f"{name}_high"), values, strict=True)
    return {key: round(float(each), 12) + 0.0 for key, each in named}  # no -0.0, no 1e-17


def orientation_agreement(run: Path, name: str, on: str) -> dict | None:
    """How the 8 exact orientations agree, from `predictions.csv`; None if it has only one.

    `alike` is the share of images that are called the same in all orientations; `auc_lowest` and
    `auc_highest` are those of one orientation alone.
    """
    if splits_as_the_original(run):
        return None
    rows = read_predictions(run, name, turned=True)
    rows = rows[rows["model"] == ("final" if on == "test" else "oof")]
    rows = rows[rows["split"] == "test"] if on == "test" else rows
    if rows["orientation"].nunique() < 2:
        return None
    aucs = [
        auc_from_ranks((part["label"] == "M").to_numpy(), part["logit"].to_numpy())
        for _, part in rows.groupby("orientation")
    ]
    called = rows.assign(called=rows["logit"] >= 0).groupby("image_id")["called"].nunique()
    return {
        "architecture": name, "images": len(called), "orientations": len(aucs),
        "alike": float((called == 1).mean()), "auc_lowest": min(aucs), "auc_highest": max(aucs),
    }  # fmt: skip


# -------------------------------------------------------------------- in words


def without_weights(table: pd.DataFrame) -> list[str]:
    """The sentence on networks without pretrained weights, where the table has any."""
    names = table.loc[table["weights"] == "random", "architecture"].drop_duplicates()
    if names.empty:
        return []
    return [
        f"No pretrained weights for {', '.join(names.map(NETWORK_TITLE))}: these rows show the "
        "machinery and rank nothing. Nothing is called harmful or harmless from them."
    ]


def in_words(table: pd.DataFrame, reference: int, unit: str) -> list[str]:
    """What the table of shifts allows to say at strength `reference`, one network a sentence.

    A change is called a rise or a fall if its interval leaves out 0 and its P after Holm is below
    0.05; else it is called "not shown to matter here", however large.
    """
    if (table["protocol"] == "original").any():
        return [
            "Protocol original: the split leaks, so these numbers say how well shifted copies "
            "are recognized. Nothing is called harmful or harmless from them."
        ]
    sentences = without_weights(table)
    pretrained = table[table["weights"] != "random"]
    for name, rows in pretrained.groupby("architecture", sort=False):
        untouched = rows[rows["shift"] == NONE].iloc[0]
        clauses = verdicts(rows[(rows["strength"] == reference) & (rows["shift"] != NONE)])
        sentences.append(
            f"{NETWORK_TITLE[name]}, {untouched['judged_on']}, {untouched['images']} images of "
            f"{counted(untouched['groups'], unit, plural(unit))}: AUC "
            f"{with_span(untouched, 'auc', '95 %: ')} untouched. At strength "
            f"{reference} {'; '.join(clauses)}."
        )
    at = pretrained[pretrained["strength"] == reference]
    if at["auc_change_low"].notna().any():
        few = at["images"].min()
        sentences.append(
            "Rises and falls are named after Holm's correction for the shifts of one network; the "
            "intervals are not corrected."
            + (f" {few} images are few: most real falls stay unseen." if few < FEW_IMAGES else "")
        )
    return sentences


def shown(at: pd.DataFrame, name: str, sign: int) -> pd.Series:
    """Which rows show a change above (`sign` 1) or below 0 (-1), after Holm, that prints as one."""
    end = at[f"{name}_low"] if sign > 0 else -at[f"{name}_high"]
    return (end.round(3) > 0) & (at[f"{name}_p_holm"] < 1 - LEVEL)


def by(row: pd.Series, name: str) -> str:
    """How large a change is, whatever its sign, with its interval."""
    sign = -1 if row[name] < 0 else 1
    low, high = sorted(sign * row[[f"{name}_low", f"{name}_high"]].to_numpy(float))
    return with_span({"by": sign * row[name], "by_low": low, "by_high": high}, "by")


def verdicts(at: pd.DataFrame) -> list[str]:
    """Clauses on AUC and log loss from the rows of one network at one strength."""
    known = at["auc_change_low"].notna()
    if not known.any():
        return [f"nothing is said of any shift ({NO_INTERVAL})"]
    falls, rises = at[shown(at, "auc_change", -1)], at[shown(at, "auc_change", 1)]
    clauses = []
    for verb, rows in (("falls", falls), ("rises", rises)):
        named = [
            f"{row['shift']} ({row['amount']}) by {by(row, 'auc_change')}"
            for _, row in rows.sort_values("auc_change", ascending=verb == "falls").iterrows()
        ]
        clauses += [f"AUC {verb} under {', '.join(named)}"] if named else []
    open_ = at[known].drop(index=[*falls.index, *rises.index])
    if len(open_):
        worst = np.clip(-open_["auc_change_low"].min(), 0, 1)
        clauses.append(
            f"not shown to matter here: {', '.join(open_['shift'])} (their intervals would also "
            f"allow falls of up to {worst:.3f})"
        )
    if not known.all():
        clauses.append(f"nothing is said of {', '.join(at['shift'][~known])} ({NO_INTERVAL})")
    for verb, sign in (("rises", 1), ("falls", -1)):
        rows = shown(at, "loss_rise", sign)
        if rows.any():
            clauses.append(f"log loss {verb} under {', '.join(at.loc[rows, 'shift'])}")
    return clauses
