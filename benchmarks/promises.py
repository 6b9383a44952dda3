"""Are the promises about new patients kept? Simulated studies with a known truth.

    python -m benchmarks promises
    python -m benchmarks promises --studies 100

sensitivity  the threshold that should find 95 % of the malignant images: what it finds in new
             patients on average, and what the plain 5 % quantile of the images would find
optimism     sensitivity + specificity - 1 at Youden's threshold on noise, for which 0 is the truth:
             each fold is called at the threshold of the others, whose heads saw it
unlike       the share of new patients' images that are called unlike any training image
audit        labels shuffled by patient: how often a leak is reported if patients are kept together
             (a false alarm), and if only copies are (a real leak)

Prints one row per design. About four minutes on two cores.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cytology.audits import leakage
from cytology.audits.simulation import Design, cross_validated_study
from cytology.evaluation.statistics import decisions
from cytology.evaluation.statistics.metrics import auc_within_folds
from cytology.inference.similarity import nearest, reference
from cytology.machine import cores
from cytology.notebook import progress

EQUAL, UNEQUAL = (6, 6), (1, 60)
WANTED, SHUFFLES = 0.95, 20
NEW_PATIENTS = 300


def sensitivity(patients: int, images: tuple, rng: np.random.Generator) -> dict[str, float]:
    """One study of malignant patients: the share found in many others."""
    known, new = (smears(Design(count, images), rng) for count in (patients, NEW_PATIENTS))
    benign = pd.DataFrame({"label": ["B"], "group": [-1], "logit": [-9.0]})
    rows = pd.concat([known, benign])
    threshold = decisions.choose_threshold(rows, "sensitivity", WANTED)
    plain = np.quantile(known["logit"], 1 - WANTED, method="lower")
    return {
        "promised": WANTED,
        "kept": share_found(new, threshold),
        "by image": share_found(new, plain),
    }


def smears(design: Design, rng: np.random.Generator) -> pd.DataFrame:
    """Malignant images, each with a score."""
    rows = design.draw_patients(rng).assign(label="M")
    return rows.assign(logit=design.draw_noise(rng, rows["group"].to_numpy()))


def share_found(rows: pd.DataFrame, threshold: float) -> float:
    """The mean over patients of the share of images at or above a threshold."""
    return float((rows["logit"] >= threshold).groupby(rows["group"]).mean().mean())


def optimism(patients: int, images: tuple, rng: np.random.Generator) -> dict[str, float]:
    """One study of noise, called fold by fold."""
    design = Design(patients, images, likeness=0.5, auc=0.5)
    (rows,) = cross_validated_study(design, rng).tables
    called = decisions.cross_fitted_calls(rows, "youden", WANTED)["logit"] >= 0
    of_class = called.groupby(rows["label"]).mean()
    return {"promised": 0.0, "kept": of_class["M"] - of_class["B"]}


def unlike(patients: int, images: tuple, rng: np.random.Generator) -> dict[str, float]:
    """One study of patients, some of them odd, and of new patients of the same kind."""

    def drawn(count):
        rows = Design(count, images).draw_patients(rng).astype({"image_id": str})
        odd, group = rng.exponential(size=(count, 1)), rows["group"].to_numpy()
        values = (odd * rng.normal(size=(count, 4)))[group]
        return rows, values + 0.3 * rng.normal(size=values.shape)

    known, (new, values) = reference(*drawn(patients)), drawn(20)
    distance = nearest(known, values, 1)[0][:, 0]
    flagged = pd.Series(distance > known.limit).groupby(new["group"]).mean().mean()
    return {"promised": known.rate, "kept": flagged}


def audit(patients: int, images: tuple, rng: np.random.Generator) -> dict[str, float]:
    """One audit of features that depend on the patient, and a little on the label."""
    design = Design(patients, images, likeness=0.2)
    rows = design.draw_patients(rng)
    group = rows["group"].to_numpy()
    rows = rows.assign(
        family=[f"{k:05}" for k in range(len(rows))], group=rows["group"].astype(str)
    )
    values = design.draw_noise(rng, group, 20).T + 0.5 * (rows[["label"]] == "M").to_numpy()
    above = {}
    for name, protocol in (("kept", "patients_together"), ("caught", "copies_together")):
        aucs = [shuffled_auc(rows, values, protocol, seed) for seed in range(SHUFFLES)]
        above[name] = float(leakage.mean_of_shuffles(pd.Series(aucs))[0] > 0.5)
    return {"promised": 0.025} | above


def shuffled_auc(rows: pd.DataFrame, values: np.ndarray, protocol: str, seed: int) -> float:
    """The AUC within folds for labels exchanged between whole patients."""
    shown = leakage.shuffle_labels(rows, seed, "group")
    fold = leakage.assign_folds(rows, protocol, 5, seed)
    logit = leakage.out_of_fold_logits(values, (shown["label"] == "M").to_numpy(), fold)
    return auc_within_folds(shown.assign(fold=fold, logit=logit))


DESIGNS: list[tuple[Callable, int, tuple]] = [
    *[(audit, 20, images) for images in (EQUAL, UNEQUAL)],
    *[(sensitivity, n, images) for n in (10, 20, 50, 100) for images in (EQUAL, UNEQUAL)],
    (optimism, 20, EQUAL),
    *[(unlike, n, EQUAL) for n in (8, 16, 40)],
]

FEWER = {audit: 4}  # which trains two hundred heads a study


def measure_design(
    question: Callable, patients: int, images: tuple, studies: int, seed: int
) -> dict:
    """The means over the studies of one design, and the standard error of `kept`."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame([question(patients, images, rng) for _ in range(studies)])
    about = {"what": question.__name__, "patients": patients, "images": "{} to {}".format(*images)}
    return about | table.mean().to_dict() | {"error": table["kept"].sem(), "studies": studies}


def main(arguments: list[str] | None = None) -> int:
    """Simulate and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks promises",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--studies", type=int, default=400, help="of each design")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    jobs = (
        # An audit trains two hundred heads.
        delayed(measure_design)(
            *each, max(given.studies // (4 if each[0] is audit else 1), 2), given.seed
        )
        for each in DESIGNS
    )
    rows = Parallel(cores(), return_as="generator")(jobs)
    table = pd.DataFrame(progress(rows, "promises", len(DESIGNS), "design"))
    print(table.to_string(index=False, float_format="{:.3f}".format))
    return 0
