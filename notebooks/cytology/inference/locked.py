"""A network's threshold and calibration, decided before test was looked at."""

from dataclasses import dataclass

from scipy.special import expit

from cytology.evaluation.predictions import predictions_fingerprint
from cytology.run import Run
from cytology.settings import InputError


@dataclass(frozen=True)
class Decision:
    """Threshold and calibration chosen by `rule` before test was looked at, for the logit.

    `note` says why no slope could be fitted; it is then 1, and the intercept 0. `threshold_note`
    says what the threshold cannot promise.
    """

    rule: str
    chosen_on: str
    threshold_logit: float
    slope: float
    intercept: float
    note: str = ""
    threshold_note: str = ""

    @property
    def threshold(self) -> float:
        """The lowest calibrated probability that is called malignant."""
        return float(expit(self.calibrated(self.threshold_logit)))

    def calibrated(self, logit):
        """The calibrated logit of a logit, or of many."""
        return self.intercept + self.slope * logit

    def margin(self, logit):
        """The distance of logits from the threshold, in calibrated logits."""
        return self.slope * abs(logit - self.threshold_logit)

    def in_words(self) -> str:
        """The decision in a sentence."""
        kind = "an uncalibrated" if self.note else "a calibrated"
        return (
            f"rule {self.rule}, chosen on {self.chosen_on} predictions: malignant at {kind} "
            f"probability of {self.threshold:.3f} or more; calibrated logit: "
            f"{self.intercept:.2f} + {self.slope:.2f} x logit"
            + (f" ({self.note})" if self.note else "")
            + (f"; {self.threshold_note}" if self.threshold_note else "")
        )


def locked_decision(run: Run, architecture: str, rule: str) -> Decision:
    """The threshold and calibration that notebook 08 chose for a network."""
    thresholds = run.table("tables/thresholds.csv")
    row = thresholds[(thresholds["model"] == architecture) & (thresholds["rule"] == rule)]
    slopes = run.table("tables/calibration.csv")
    fitted = slopes[(slopes["model"] == architecture) & (slopes["method"] == "platt")]
    if row.empty or fitted.empty:
        raise InputError(
            f"tables/thresholds.csv and tables/calibration.csv have no {architecture}: run "
            "notebook 08 again."
        )
    row, fitted = row.iloc[0], fitted.iloc[0]
    if row["predictions"] != predictions_fingerprint(run, architecture):
        raise InputError(
            f"{architecture} was trained again after its threshold was chosen: run notebook 08."
        )
    locked = row["chosen_on"], row["threshold_logit"], fitted["slope"], fitted["intercept"]
    return Decision(rule, *locked, fitted["note"], row["note"])
