"""Would more patients help? The same head trained on fewer of them, judged on the same images.

The head is that of the leakage audit, on cached features of images as taken. Its strength is the
same for every share: it weighs the penalty against the mean loss, whatever the number of images.
"""

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.audits.judged_images import draw_images
from cytology.data.splitting import read_split
from cytology.evaluation.statistics.intervals import NO_BOUNDS
from cytology.evaluation.statistics.mean_auc import MeanAuc
from cytology.networks.features import Features, features_in_cache
from cytology.networks.linear_head import fitted_head
from cytology.notebook import progress
from cytology.run import Run
from cytology.wording import interval_text

SHARES = (0.25, 0.5, 0.75, 1.0)
CURVE_REPEATS = 3  # other groups each time
CURVE_COLUMNS = ["share", "trained_on", "repeats", "auc", "auc_low", "auc_high"]
CURVE_COLUMNS += ["gain", "gain_low", "gain_high"]


def draw_groups(rows: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The images of a share of the groups, the same share of each label, at least one group each.

    With the same seed a larger share contains all groups of a smaller one. A group has the label of
    most of its images.
    """
    malignant = (rows["label"] == "M").groupby(rows["group"]).mean() > 0.5
    order = np.random.default_rng(seed).permutation(len(malignant))
    chosen = []
    for label in (False, True):
        groups = malignant.index[order][malignant.to_numpy()[order] == label]
        chosen.extend(groups[: max(1, round(share * len(groups)))])
    return rows[rows["group"].isin(chosen)]


def learning_curve(
    features: Features, split: pd.DataFrame, repeats: int, seed: int
) -> pd.DataFrame:
    """Out-of-fold logits of heads trained on shares of the other folds' groups.

    `split` are rows of train and val, images as taken. Returns `share, repeat, trained_on` (groups,
    mean over the folds), `image_id, group, label, fold, logit, probability`.
    """
    rows = split.assign(orientation=0).reset_index(drop=True)
    values, malignant = features.of(rows), (rows["label"] == "M").to_numpy()
    work = [(share, repeat) for share in SHARES for repeat in range(repeats if share < 1 else 1)]
    parts = []
    for share, repeat in progress(work, "learning curve", unit="step"):
        logit, counts = np.empty(len(rows)), []
        for fold in rows["fold"].unique():
            held_out = (rows["fold"] == fold).to_numpy()
            train = draw_groups(rows[~held_out], share, seed + repeat)
            head = fitted_head(values[train.index], malignant[train.index])
            logit[held_out] = head.logits(values[held_out])
            counts.append(train["group"].nunique())
        part = rows[["image_id", "group", "label", "fold"]]
        part = part.assign(logit=logit, probability=expit(logit))
        parts.append(part.assign(share=share, repeat=repeat, trained_on=np.mean(counts)))
    return pd.concat(parts, ignore_index=True)


def curve_table(logits: pd.DataFrame) -> pd.DataFrame:
    """One row per share: `trained_on` (groups), mean `auc` over repeats, `_low`, `_high`.

    AUCs are within folds, with intervals of the mean over repeats. `gain` is the AUC minus that of
    the previous share, on the same images. Its interval treats the drawn training groups as fixed:
    it reflects chance in the judged patients, not in the training patients.
    """
    found, before = [], None
    for share, part in logits.groupby("share"):
        repeats = [rows.sort_values("image_id") for _, rows in part.groupby("repeat")]
        rows, scores = repeats[0], [each["logit"].to_numpy() for each in repeats]
        mean = MeanAuc(rows, scores, [rows["fold"].to_numpy()] * len(repeats))
        gain = (np.nan, *NO_BOUNDS) if before is None else mean.gain_over(before)
        about = share, part["trained_on"].mean(), len(repeats), mean.auc
        found.append((*about, *mean.interval(), *gain))
        before = mean
    return pd.DataFrame(found, columns=CURVE_COLUMNS)


def learning_curves_of_run(run: Run, most: int, seed: int) -> pd.DataFrame:
    """`curve_table` of each model of a run with cached features, with its `weights`.

    From at most `most` images of train and val. Empty under the original's protocol, which does not
    keep groups apart, and for networks that were trained as a whole from the start.
    """
    split, parts = read_split(run), []
    if "orientation" in split:
        return pd.DataFrame(columns=["architecture", "weights", *CURVE_COLUMNS])
    rows = draw_images(split[split["split"] != "test"], most, seed, "curve_images")
    for name in [*run.networks, *run.outside]:
        features = features_in_cache(run, name, rows, 1)
        if features is not None:
            table = curve_table(learning_curve(features, rows, CURVE_REPEATS, seed))
            weights = run.about(name)["weights"]
            parts.append(table.assign(architecture=name, weights=weights))
    table = pd.concat(parts) if parts else pd.DataFrame(columns=CURVE_COLUMNS)
    return table.reindex(columns=["architecture", "weights", *CURVE_COLUMNS])


def learning_curve_sentence(table: pd.DataFrame, name: str, units: str) -> str:
    """The last step of a network's curve in words; no statement for random weights."""
    less, whole = (table[table["share"] == share].iloc[0] for share in SHARES[-2:])
    if whole["weights"] == "random":
        return f"{name}: random weights, so its curve means nothing."
    if np.isnan(whole["gain"]):
        return f"{name}: no fold has both classes, so its curve means nothing."
    points = 100 * whole[["gain", "gain_low", "gain_high"]].astype(float)
    verdict = (
        "More would likely help." if round(points["gain_low"], 1) > 0 else "Not shown to help."
    )
    return (
        f"{name}: training on {whole['trained_on']:.0f} {units} instead of "
        f"{less['trained_on']:.0f} changes the AUC by {points['gain']:+z.1f} points "
        f"({interval_text(points, 'gain', '95 % ', '+z.1f')}). {verdict}"
    )
