"""How a trained network copes with another stain, focus, compression or scale.

Pictures are shifted at the network's input size: shrunk into its square, shifted, then padded. Each
is judged by the head that never saw its patient, at five strengths of every shift.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from cytology.audits import shifts
from cytology.data.augmentation import fit_to_square
from cytology.evaluation.judged import judged_rows
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics.calibration import log_losses, reliability
from cytology.evaluation.statistics.intervals import (
    gain_error,
    metrics_with_intervals,
    named_interval,
    t_interval,
)
from cytology.evaluation.statistics.significance import holm, mean_by_group, p_of_interval
from cytology.files import file_hash
from cytology.networks.engines import TENSORFLOW, Passes, engine_here, kept_passes
from cytology.networks.features import FeatureStore, key_of_run
from cytology.networks.linear_head import LinearHead, logits_by_fold, read_heads
from cytology.notebook import progress
from cytology.run import Run
from cytology.settings import CACHE
from cytology.tables import require

# --------------------------------------------------------- images and networks


@dataclass(frozen=True)
class RunNetwork:
    """A trained network of a run: what its features depend on, its heads, and how to load it.

    `load` returns the passes that make its features; without `heads` these are the logits.
    """

    name: str
    key: list
    size: int
    fit: str
    heads: dict[str, LinearHead] | None
    engine: str
    load: Callable[[], Passes]

    def smears(self, root: Path, images: pd.DataFrame) -> list[shifts.FramedSmear]:
        """The images below `root`, placed in this network's square."""
        return shifts.open_smears(root, images, self.size, self.fit)

    def logits(self, features: np.ndarray, folds: pd.Series) -> np.ndarray:
        """Logits of features of shape (images, width), each by the head of its own fold."""
        if self.heads is None:
            return features[:, 0].astype(float)
        return logits_by_fold(self.heads, features, folds.to_numpy(int))


def network_of_run(run: Run, name: str, on: str) -> RunNetwork:
    """The network `name` of a run for judging `out-of-fold` or `test`; loaded when needed.

    Out of fold, the heads judge the backbone's features. If these are not in the cache, the
    backbone is built from the notebook's `weights`; `InputError` if they are not those of the run.
    """
    about = run.about(name)
    heads = None if on == "test" else read_heads(run, name)
    engine = engine_here(about) if heads else TENSORFLOW
    key = key_of_run(run, name, engine)
    if heads is None:
        key += ["whole network", file_hash(require(run.folder, f"{name}/model.keras"))]

    @functools.cache
    def load() -> Passes:
        if heads and (kept := kept_passes(about, engine)):
            return kept
        # Imported late: they start TensorFlow.
        from cytology.networks.model_files import load_trained
        from cytology.networks.passes import KerasPasses
        from cytology.training.backbone import frozen_network

        if heads is None:
            return KerasPasses(load_trained(run, name)[0])
        return frozen_network(run, name, run.parameters["weights"], engine)[0]

    key.append(PIL.__version__)
    return RunNetwork(name, key, about["image_size"], about["fit"], heads, engine, load)


# --------------------------------------------------------------------- judging


def shifted_features(
    networks: list[RunNetwork],
    smears: list[shifts.FramedSmear],
    name: str,
    batch_size: int,
    cache: Path = CACHE,
) -> list[np.ndarray]:
    """Each network's features of the smears under a shift: (strengths, smears, width); cached.

    The networks have the same input size and `fit`: a picture is shifted once for all of them. The
    name of the cache depends on the network, the shift, its amounts and its code; pictures in it
    are found by (file hash, strength).
    """
    what: list[Any] = [name]
    strengths: tuple[int, ...] = (0,)
    if name != shifts.NONE:
        shift, strengths = shifts.SHIFTS[name], shifts.SHIFT_STRENGTHS
        what += [shift.amounts, inspect.getsource(shift.apply)]
    if name == "stain":  # its target depends on the chosen images
        what += [[s.sha256, *(c.round(3).tolist() for c in s.both_stains())] for s in smears]
    stores = [FeatureStore([*network.key, *what], cache) for network in networks]
    pictures = [(smear, strength) for strength in strengths for smear in smears]
    names = pd.Index([f"{smear.sha256} {strength}" for smear, strength in pictures])
    missing = [store.missing(names) for store in stores]
    anywhere = np.unique(np.concatenate(missing))
    computed: list[list[np.ndarray]] = [[] for _ in networks]
    for start in range(0, len(anywhere), batch_size):
        batch = anywhere[start : start + batch_size]
        squares = np.stack(
            [
                fit_to_square(
                    shifts.shift_picture(smear, name, strength), networks[0].size, networks[0].fit
                )
                for smear, strength in (pictures[k] for k in batch)
            ]
        )
        for network, lacking, values in zip(networks, missing, computed, strict=True):
            if (mine := np.isin(batch, lacking)).any():
                values.append(network.load()(squares[mine]))
    for store, lacking, values in zip(stores, missing, computed, strict=True):
        if values:
            store.add(names[lacking], np.concatenate(values))
    return [store.rows(names)[:].reshape(len(strengths), len(smears), -1) for store in stores]


def judge_shifts(
    networks: list[RunNetwork],
    images: pd.DataFrame,
    smears: list[shifts.FramedSmear],
    batch_size: int,
    cache: Path = CACHE,
) -> pd.DataFrame:
    """One row per picture: `image_id, group, label, fold, architecture, engine, shift, strength,
    logit, probability`.

    Untouched pictures appear once, as shift `none` with strength 0. The networks have the same
    input.
    """
    rows: dict[str, list[pd.DataFrame]] = {network.name: [] for network in networks}
    for name in progress([shifts.NONE, *shifts.SHIFTS], "judging", unit="shift"):
        found = shifted_features(networks, smears, name, batch_size, cache)
        for network, values in zip(networks, found, strict=True):
            for strength, features in enumerate(values, start=0 if name == shifts.NONE else 1):
                logit = network.logits(features, images["fold"])
                found_here = images[["image_id", "group", "label", "fold"]].assign(
                    architecture=network.name,
                    engine=network.engine,
                    shift=name,
                    strength=strength,
                    logit=logit,
                    probability=expit(logit),
                )
                rows[network.name].append(found_here)
    return pd.concat([table for tables in rows.values() for table in tables], ignore_index=True)


def judge_all(run: Run, networks: list[RunNetwork], images: pd.DataFrame) -> pd.DataFrame:
    """`judge_shifts` by all networks of a run; networks with the same input share the pictures."""
    parts = []
    for size, fit in dict.fromkeys((network.size, network.fit) for network in networks):
        alike = [network for network in networks if (network.size, network.fit) == (size, fit)]
        smears = alike[0].smears(run.images, images)
        parts.append(judge_shifts(alike, images, smears, run.parameters["batch_size"]))
    return pd.concat(parts, ignore_index=True)


def distance_from_predictions(run: Run, judged: pd.DataFrame, on: str) -> float:
    """Largest difference of the untouched pictures' logits from those in `predictions.csv`.

    NaN if it has none of them as taken, as may happen under the original's protocol.
    """
    distances = []
    for name, rows in judged[judged["shift"] == shifts.NONE].groupby("architecture"):
        stored = judged_rows(read_predictions(run, name).query("orientation == 0"), on)
        both = rows.merge(stored, on="image_id", suffixes=("", "_stored"))
        distances.append((both["logit"] - both["logit_stored"]).abs().max())
    return float(max(distances))


def distance_clause(distance: float) -> str:
    """The result of `distance_from_predictions` as a clause."""
    if np.isnan(distance):
        return "no untouched picture has a stored logit to compare with"
    return f"untouched logits differ by at most {distance:.1e}"


# --------------------------------------------------------------------- summary

SHIFT_METRICS = ("auc", "recall", "specificity", "ece")
CHANGES = ("auc_change", "loss_rise")
FEWEST_IN_BIN = 8  # images behind a point of a calibration curve: with fewer it jumps from 0 to 1


def shift_summary(judged: pd.DataFrame) -> pd.DataFrame:
    """One row per network, shift and strength: metrics and their change, with 95 % intervals.

    `auc_change` (`intervals.gain_error`; negative: worse) and `loss_rise` (a mean over images) are
    shifted minus untouched, on the same images. Their `_p` come from t tests, `_p_holm` is
    corrected for the shifts of one network at one strength. Intervals are NaN with too few groups,
    or if a shift changed nothing. Calibration errors have none.
    """
    found = []
    for architecture, of_network in judged.groupby("architecture", sort=False):
        untouched = of_network[of_network["shift"] == shifts.NONE].sort_values("image_id")
        for (shift, strength), rows in of_network.groupby(["shift", "strength"], sort=False):
            row = {"architecture": architecture, "engine": rows["engine"].iloc[0]}
            row |= {"shift": shift, "strength": strength}
            row["amount"] = shifts.amount_in_words(shift, strength)
            rows = rows.sort_values("image_id")
            losses = log_losses(rows)
            row |= metrics_with_intervals(rows, names=SHIFT_METRICS)
            row |= rounded_interval("loss", *mean_by_group(losses, rows)[:3])
            changes: dict[str, tuple[float, ...]]
            changes = dict.fromkeys(CHANGES, (0.0, 0.0, 0.0, np.nan))
            if shift != shifts.NONE:
                changes["auc_change"] = change_of_auc(untouched, rows)
                changes["loss_rise"] = mean_by_group(losses - log_losses(untouched), rows)
            for name, (*change, p) in changes.items():
                row |= rounded_interval(name, *change) | {f"{name}_p": p}
            found.append(row)
    table = pd.DataFrame(found)
    for name in CHANGES:
        families = table.groupby(["architecture", "strength"], sort=False)[f"{name}_p"]
        table[f"{name}_p_holm"] = families.transform(holm)
    return table


def shifts_of_run(run: Run, judged: pd.DataFrame, on: str) -> pd.DataFrame:
    """`shift_summary` with weights, protocol and the part judged in front."""
    table = run.marked(shift_summary(judged).assign(judged_on=on))
    first = ["architecture", "weights", "protocol", "judged_on", "engine"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def change_of_auc(untouched: pd.DataFrame, rows: pd.DataFrame) -> tuple[float, ...]:
    """The AUC of rows minus that of the same images untouched, its two bounds and P."""
    change, error, freedom = gain_error(rows, untouched["logit"], rows["logit"])
    bounds = t_interval(change, error**2, freedom)
    return change, *bounds, p_of_interval(change, *bounds, freedom)


def rounded_interval(name: str, *values: float) -> dict[str, float]:
    """`named_interval` without -0.0 and 1e-17."""
    return {key: round(float(x), 12) + 0.0 for key, x in named_interval(name, *values).items()}


def shift_reliability(judged: pd.DataFrame, reference: int) -> pd.DataFrame:
    """`calibration.reliability` of each `architecture`, in bins of equal counts.

    `strength` 0 has the untouched pictures, `reference` all shifts together. Five bins, or fewer if
    one would hold less than `FEWEST_IN_BIN` images.
    """
    images = judged.loc[judged["strength"] == 0, "image_id"].nunique()
    bins = int(np.clip(images // FEWEST_IN_BIN, 2, 5))
    of_network = judged[judged["strength"].isin([0, reference])].groupby(
        ["architecture", "strength"], sort=False
    )
    parts = [
        reliability(rows, equal_counts=bins).assign(architecture=name, strength=strength)
        for (name, strength), rows in of_network
    ]
    return pd.concat(parts, ignore_index=True)


def orientation_agreement(run: Run, names: list[str], on: str) -> pd.DataFrame:
    """One row per network: how well the 8 exact orientations agree, from `predictions.csv`.

    Networks with predictions for one orientation only have no row. `alike` is the share of images
    with the same answer in all orientations; `auc_lowest` and `auc_highest` are those of single
    orientations.
    """
    found = []
    for name in () if run.is_original else names:
        rows = judged_rows(read_predictions(run, name, turned=True), on)
        if rows["orientation"].nunique() > 1:
            parts = rows.groupby("orientation")
            aucs = [roc_auc_score(part["label"] == "M", part["logit"]) for _, part in parts]
            called = rows.assign(called=rows["logit"] >= 0).groupby("image_id")["called"].nunique()
            row = {"architecture": name, "images": len(called), "orientations": len(aucs)}
            row |= {"alike": float((called == 1).mean())}
            found.append(row | {"auc_lowest": min(aucs), "auc_highest": max(aucs)})
    return pd.DataFrame(found)
