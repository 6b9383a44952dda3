"""One domain left out: train on all stains (or sites) but one, judge on that one."""

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.audits.judged_images import draw_images
from cytology.audits.leakage import assign_folds, features_of_run, out_of_fold_logits
from cytology.audits.robustness import rounded_interval
from cytology.audits.robustness_sentences import change_size, random_weights_sentence
from cytology.evaluation.statistics.clusters import pair_weights
from cytology.evaluation.statistics.intervals import auc_interval
from cytology.evaluation.statistics.mean_auc import MeanAuc
from cytology.networks.linear_head import fitted_head
from cytology.notebook import progress
from cytology.run import Run
from cytology.wording import counted, plural, with_interval

DOMAIN_COLUMNS = ("site", "stain")  # columns of the manifest
MIXED_REPEATS = 25  # of the random parts, which are few and therefore vary
MOST_DOMAIN_IMAGES = 2000


def domains_of(manifest: pd.DataFrame, column: str) -> list[str]:
    """The values of `column` that can be left out, sorted; empty if there are not two.

    Such a domain has both classes, and so do the groups without an image in it. Images without a
    value belong to no domain.
    """
    if column not in manifest:
        return []
    known = manifest[manifest[column] != ""]
    found = [
        domain
        for domain in sorted(known[column].unique())
        if all(
            known["label"][part].nunique() == 2
            for part in judged_and_trained(known, column, domain)
        )
    ]
    return found if len(found) > 1 else []


def judged_and_trained(
    images: pd.DataFrame, column: str, domain: str
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the judged images and of the training images if `domain` is left out.

    A group in two domains is judged and never used for training.
    """
    judged = (images[column] == domain).to_numpy()
    return judged, ~images["group"].isin(images["group"][judged]).to_numpy()


def leave_one_out(values: np.ndarray, images: pd.DataFrame, column: str, seed: int) -> pd.DataFrame:
    """One row per domain: AUC of a head that never saw it, and of heads that saw all domains.

    `values` are features of `images`, shape (images, width). Both kinds of heads judge the domain's
    images, and neither saw a judged group. Those of `auc_mixed` come from as many random parts of
    whole groups as there are domains, so both learn from about as many images; `auc_mixed` is the
    mean over `MIXED_REPEATS` random divisions, and so is its interval. `auc_change` is left out
    minus mixed, on the same images (negative: worse).
    """
    there = (images[column] != "").to_numpy()
    values, images = values[there], images[there].reset_index(drop=True)
    malignant, domains = (images["label"] == "M").to_numpy(), domains_of(images, column)
    mixed = []
    for repeat in range(MIXED_REPEATS):
        fold = assign_folds(images, "patients_together", len(domains), seed + repeat)
        mixed.append((out_of_fold_logits(values, malignant, fold), fold))
    table = []
    for domain in domains:
        judged, trained_on = judged_and_trained(images, column, domain)
        rows, truth = images.loc[judged, ["group", "label"]], malignant[judged]
        head = fitted_head(values[trained_on], malignant[trained_on])
        left_out = head.logits(values[judged])
        alone = MeanAuc(rows, [left_out], [np.zeros(len(rows))])
        # Parts without a pair of this domain's images carry no information and are left out.
        saw = [[each[judged] for each in pair] for pair in mixed]
        saw = [pair for pair in saw if not np.isnan(pair_weights(truth, pair[1])).any()]
        together = MeanAuc(rows, *map(list, zip(*saw, strict=True)))
        row = {"column": column, "left_out": domain, "images": len(rows)}
        row |= {"groups": rows["group"].nunique(), "trained_on": int(trained_on.sum())}
        row |= rounded_interval("auc", alone.auc, *auc_interval(rows.assign(logit=left_out)))
        row |= rounded_interval("auc_mixed", together.auc, *together.interval())
        table.append(row | rounded_interval("auc_change", *alone.gain_over(together)))
    return pd.DataFrame(table)


def leave_one_out_of_run(run: Run, names: list[str], seed: int) -> pd.DataFrame:
    """`leave_one_out` for each network and each of `DOMAIN_COLUMNS` that allows it; may be empty.

    With features of images as taken, from the training notebooks' cache if there, of at most
    `MOST_DOMAIN_IMAGES` images in whole groups.
    """
    images = draw_images(run.manifest, MOST_DOMAIN_IMAGES, seed)
    columns = [column for column in DOMAIN_COLUMNS if domains_of(images, column)]
    tables = []
    for name in names if columns else []:
        values = features_of_run(run, name, images, 1).of(images.assign(orientation=0))
        for column in progress(columns, NETWORK_TITLE[name], unit="column"):
            table = leave_one_out(values, images, column, seed)
            table.insert(0, "architecture", name)
            table.insert(1, "weights", run.weights_behind(name))
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def domain_sentences(table: pd.DataFrame, unit: str) -> list[str]:
    """The table of domains in words, one sentence per network and domain."""
    sentences = random_weights_sentence(table)
    for _, row in table[table["weights"] != "random"].iterrows():
        if round(row["auc_change_high"], 3) < 0:
            verdict = f"Not having seen it costs {change_size(row, 'auc_change')}"
        elif round(row["auc_change_low"], 3) > 0:
            verdict = f"Heads that saw it are worse by {change_size(row, 'auc_change')}"
        else:
            verdict = f"The change is {with_interval(row, 'auc_change')}, not shown to matter here"
        sentences.append(
            f"{NETWORK_TITLE[row['architecture']]}, {row['column']} {row['left_out']} left out: "
            f"AUC {with_interval(row, 'auc')} on its {row['images']} images of "
            f"{counted(row['groups'], unit, plural(unit))}, against "
            f"{with_interval(row, 'auc_mixed')} by heads that saw every {row['column']}. {verdict}."
        )
    return sentences
