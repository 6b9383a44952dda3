"""At another place: do shares, calibration and referral keep their promises? With known truths.

    python -m benchmarks places
    python -m benchmarks places --studies 100 --only share referral

share     how often the 95 % interval of the share of malignant images, estimated from unlabelled
          logits, contains it; the mean estimate; how often the logits are said to have moved,
          which they have not (level 5 %)
moved     the same if a stain has moved the new logits, by a number of standard deviations of a
          class, or spread or squeezed them
values    how often the intervals of predictive values, false alarms and net benefit at another
          share contain the truth
there     labelled patients of a place where the probabilities are off: intervals of calibration in
          the large and slope, the change of the log loss by recalibration (its interval, and what
          it is for new patients)
referral  the share of all patients who are malignant and not referred, against what was promised;
          with images as units instead, the share of all images

Prints one row per design and number. About ten minutes on two cores.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import logit

from benchmarks.coverage import RESULTS
from benchmarks.fixed_scores import FixedDesign
from cytology.audits.simulation import FEATURE_COUNT, FOLDS
from cytology.data.splitting import group_folds
from cytology.evaluation.statistics import elsewhere, label_shift, prevalence, referral
from cytology.evaluation.statistics.calibration import calibrate, log_losses
from cytology.evaluation.statistics.decisions import relative_to_threshold
from cytology.machine import cores
from cytology.networks.linear_head import fitted_head
from cytology.notebook import progress

EQUAL, UNEQUAL = (6, 6), (1, 60)
# Likeness, AUC and noise.
KINDS = ((0.5, 0.92, "normal"), (0.9, 0.98, "normal"), (0.5, 0.92, "t3"))


@dataclass(frozen=True)
class Place(FixedDesign):
    """A study and another place: `new` patients there, of whom a share `there` is malignant.

    `moved` and `spread` change the new logits: a shift in standard deviations of a class, and a
    factor. With `heads`, logits here are those of cross-validated heads, there of a head trained on
    all patients; otherwise they were learned elsewhere. `at` is a share or a level.
    """

    new: int = 30
    there: float = 0.3
    moved: float = 0.0
    spread: float = 1.0
    heads: bool = False
    at: float = 0.1

    def of_place(self, patients: int, share: float, rng) -> pd.DataFrame:
        """Images of `patients`, each malignant with probability `share`."""
        rows = replace(self, patients=patients).draw_patients(rng)
        malignant = rng.random(patients) < share
        return rows.assign(label=np.where(malignant[rows["group"]], "M", "B"))

    def scores(self, rows: pd.DataFrame, rng, *shape: int) -> np.ndarray:
        """Noise of the images, plus the classes' distance along the first number, (*shape, n)."""
        group = rows["group"].to_numpy()
        noise = replace(self, patients=group.max() + 1).draw_noise(rng, group, *shape)
        apart = self.distance * ((rows["label"] == "M").to_numpy() - 0.5)
        (noise[0] if shape else noise)[:] += apart
        return noise


def draw_study(place: Place, rng, new: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images here, with logits from heads that did not see them, and `new` patients there."""
    known = place.of_place(place.patients, place.malignant, rng)
    asked = place.of_place(new or place.new, place.there, rng)
    if not place.heads:
        here, there = (place.scores(rows, rng) for rows in (known, asked))
        there = place.spread * there + place.moved
        prior = logit(place.malignant)
        return tuple(
            rows.assign(logit=place.distance * score + prior)
            for rows, score in ((known, here), (asked, there))
        )
    here, there = (place.scores(rows, rng, FEATURE_COUNT).T for rows in (known, asked))
    malignant = (known["label"] == "M").to_numpy()
    seed = int(rng.integers(2**31))
    parts = group_folds(FOLDS, seed, known["label"], known["group"])
    for number, held_out in enumerate(parts):
        others = np.setdiff1d(np.arange(len(known)), held_out)
        head = fitted_head(here[others], malignant[others])
        known.loc[held_out, "logit"] = head.logits(here[held_out])
        known.loc[held_out, "fold"] = number
    return known, asked.assign(logit=fitted_head(here, malignant).logits(there))


def both_classes(rows: pd.DataFrame) -> bool:
    """Whether there are five patients of each class, the minimum for any statement."""
    of_class = rows.groupby("label")["group"].nunique()
    return len(of_class) == 2 and of_class.min() >= 5


def check_interval(found: dict, name: str, truth: float) -> dict[str, float]:
    """Whether an interval contains the truth, its width and the estimate."""
    low, high = found[f"{name}_low"], found[f"{name}_high"]
    if np.isnan(low):
        return {name: found[name]}
    return {
        f"{name} held": low <= truth <= high,
        f"{name} above": low > truth,
        f"{name} width": high - low,
        name: found[name],
    }


def share(place: Place, rng) -> dict[str, float]:
    """The share of malignant images at a place, estimated from its logits."""
    known, asked = draw_study(place, rng)
    while not both_classes(known):
        known, asked = draw_study(place, rng)
    found = label_shift.estimated_share(asked, known)
    return check_interval(found, "prevalence", place.there) | {"said to have moved": found["moved"]}


def moved(place: Place, rng) -> dict[str, float]:
    """The same where the assumption is violated."""
    found = share(place, rng)
    return {name: found[name] for name in ("said to have moved", "prevalence held", "prevalence")}


def values(place: Place, rng) -> dict[str, float]:
    """Predictive values and net benefit at the share `at`, of a threshold chosen elsewhere."""
    known, _ = draw_study(place, rng)
    while not both_classes(known):
        known, _ = draw_study(place, rng)
    rows = relative_to_threshold(known, logit(place.malignant))
    found = prevalence.at_prevalence(rows, place.at, 0.2)
    half = place.distance / 2
    s, p, m = 1 - place.share_below(-half), place.share_below(half), place.at
    truth = {"precision": m * s / (m * s + (1 - m) * (1 - p))}
    truth["negative_predictive_value"] = (1 - m) * p / ((1 - m) * p + m * (1 - s))
    truth["false_alarms"] = 1 / truth["precision"] - 1
    truth["net_benefit"] = m * s - (1 - m) * (1 - p) / 4
    parts = [check_interval(found, name, value) for name, value in truth.items()]
    return {k: v for part in parts for k, v in part.items() if k.endswith((" held", " above"))}


def there(place: Place, rng) -> dict[str, float]:
    """Labelled patients of a place with another share, where logits are `spread` times as large.

    The right logit there is distance x score + log odds of the share.
    """
    _, asked = draw_study(place, rng)
    while not both_classes(asked):
        _, asked = draw_study(place, rng)
    many = draw_study(place, rng, 400)[1]
    found = elsewhere.calibration_there(asked)
    table = elsewhere.recalibration_gain(asked).set_index("way")
    # By algebra: the slope that undoes spread and shift.
    said = check_interval(found, "calibration_slope", 1 / place.spread)
    for way in elsewhere.WAYS[1:]:
        after = log_losses(calibrate(many, elsewhere.recalibrated_by(asked, way)))
        change = (after - log_losses(many)).mean()
        row = table.loc[way]
        said |= {f"{way}: low": row["loss_change_low"], f"{way}: high": row["loss_change_high"]}
        said |= {f"{way}: judged": row["loss_change"], f"{way}: for new": change}
    return said


def refer(place: Place, rng) -> dict[str, float]:
    """The share of all patients missed, at the level `at`; `there` as here."""
    place = replace(place, there=place.malignant)
    known, asked = draw_study(place, rng, 300)
    images = known.assign(group=known["image_id"])
    by_image = referral.choose_referral(referral.by_patient(images), place.at)
    missed_images = (asked["label"] == "M") & (asked["logit"] < by_image.limit)
    of_patients = missed_images.groupby(asked["group"]).mean()
    patients, new = (referral.by_patient(rows) for rows in (known, asked))
    chosen = referral.choose_referral(patients, place.at)
    missed = (new["label"] == "M") & (new["logit"] < chosen.limit)
    elsewhere_at = referral.choose_referral(patients, place.at, 0.2)
    of_malignant = new["logit"][new["label"] == "M"] < elsewhere_at.limit
    return {
        "promised": place.at,
        "missed": missed.mean(),
        "referred": (new["logit"] >= chosen.limit).mean(),
        "missed where 20 % are malignant": 0.2 * of_malignant.mean(),
        "images as units: missed images": of_patients.mean(),
        "could be promised": chosen.promised,
    }


QUESTIONS: dict[str, tuple[Callable, list[Place]]] = {
    "share": (
        share,
        [
            Place(n, images, 0.5, likeness, auc, noise, new, share_there)
            for n, new in ((30, 30), (60, 60), (60, 20))
            for images in (EQUAL, UNEQUAL)
            for likeness, auc, noise in KINDS
            for share_there in (0.1, 0.3, 0.6)
        ]
        + [
            Place(n, EQUAL, 0.5, 0.4, 0.98, new=n, there=share_there, heads=True)
            for n in (30, 60)
            for share_there in (0.1, 0.3)
        ],
    ),
    "moved": (
        moved,
        [
            Place(60, EQUAL, 0.5, 0.5, 0.92, new=n, there=t, moved=by, spread=spread)
            for n in (20, 40)
            for t in (0.1, 0.5)
            for by, spread in ((-2, 1), (-1, 1), (1, 1), (2, 1), (0, 0.3), (0, 0.5), (0, 2))
        ],
    ),
    "values": (
        values,
        [
            Place(n, images, 0.5, likeness, auc, noise, at=at)
            for n in (20, 60)
            for images in (EQUAL, UNEQUAL)
            for likeness, auc, noise in KINDS
            for at in (0.01, 0.1, 0.5)
        ],
    ),
    "there": (
        there,
        [
            Place(30, images, 0.5, 0.5, 0.92, new=n, there=t, spread=spread)
            for n, t in ((20, 0.5), (40, 0.3))
            for images in (EQUAL, (1, 20))
            for spread in (1.0, 2.0)
        ],
    ),
    "referral": (
        refer,
        [
            Place(n, images, 0.5, 0.9, 0.92, at=at)
            for n, at in ((10, 0.05), (20, 0.05), (40, 0.05), (100, 0.02))
            for images in (EQUAL, UNEQUAL)
        ]
        + [Place(n, EQUAL, 0.5, 0.4, 0.98, at=0.05, heads=True) for n in (20, 40)],
    ),
}


def measure_design(question: str, place: Place, studies: int, seed: int) -> pd.DataFrame:
    """The means over the studies of one design, one row per number, with standard errors."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame([QUESTIONS[question][0](place, rng) for _ in range(studies)]).astype(float)
    for name in [name for name in table if name.endswith(": low")]:
        way = name.removesuffix(": low")
        # The truth is the mean over studies: the value of such a fit for new patients.
        truth = table[f"{way}: for new"].mean()
        low, high = table.pop(f"{way}: low"), table.pop(f"{way}: high")
        table[f"{way}: held"] = ((low <= truth) & (truth <= high)).where(low.notna())
    means = pd.DataFrame({"mean": table.mean(), "error": table.sem()}).rename_axis("what")
    about = asdict(place) | {"images": "{} to {}".format(*place.images)}
    return means.reset_index().assign(question=question, **about)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """The smallest, mean and largest over designs, by question and number."""
    grouped = table.groupby(["question", "what"], sort=False)["mean"]
    return grouped.agg(["min", "mean", "max", "count"]).reset_index()


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print and keep; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks places",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--studies", type=int, default=400, help="of each design")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    given = parser.parse_args(arguments)
    # A design always has the same seed, whatever else is run.
    work = [(name, place) for name, (_, places) in QUESTIONS.items() for place in places]
    jobs = [
        delayed(measure_design)(name, place, given.studies, given.seed + k)
        for k, (name, place) in enumerate(work)
        if name in given.only
    ]
    found = Parallel(cores(), return_as="generator")(jobs)
    table = pd.concat(progress(found, "places", len(jobs), "design"), ignore_index=True)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "places.csv", index=False)
    print(summarize(table).to_string(index=False, float_format="{:.3f}".format))
    print(f"Kept in {RESULTS / 'places.csv'}")
    return 0
