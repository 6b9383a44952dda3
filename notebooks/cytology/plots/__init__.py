"""Every figure of the series, a file a group of notebooks: tables in, a Matplotlib figure out."""

from cytology.plots.audit import leakage_audit
from cytology.plots.blocks import building_block
from cytology.plots.comparison import (
    cost_and_quality,
    coverage,
    curves,
    forest,
    learning_and_orientations,
    pair_differences,
    seed_spread,
)
from cytology.plots.data import (
    appearance,
    class_counts,
    copies,
    gallery,
    image_sizes,
    lossy_changes,
    orientations,
    pad_or_stretch,
)
from cytology.plots.decisions import abstention, calibration, decision_curve, thresholds
from cytology.plots.explanation import (
    deletion_and_insertion,
    explanation_checks,
    feature_map,
    heatmaps,
    neighbours,
)
from cytology.plots.export import exports
from cytology.plots.inference import answers, at_threshold, predicted_gallery
from cytology.plots.robustness import (
    against_strength,
    calibration_curves,
    domains_left_out,
    shifts,
)
from cytology.plots.style import CLASS_COLOUR, NETWORK_COLOUR, SPLIT_COLOUR, of_bounds
from cytology.plots.training import confusions, learning_curves, who_is_where

__all__ = [
    "CLASS_COLOUR",
    "NETWORK_COLOUR",
    "SPLIT_COLOUR",
    "abstention",
    "against_strength",
    "answers",
    "appearance",
    "at_threshold",
    "building_block",
    "calibration",
    "calibration_curves",
    "class_counts",
    "confusions",
    "copies",
    "cost_and_quality",
    "coverage",
    "curves",
    "decision_curve",
    "deletion_and_insertion",
    "domains_left_out",
    "explanation_checks",
    "exports",
    "feature_map",
    "forest",
    "gallery",
    "image_sizes",
    "heatmaps",
    "leakage_audit",
    "learning_and_orientations",
    "learning_curves",
    "lossy_changes",
    "neighbours",
    "of_bounds",
    "orientations",
    "pad_or_stretch",
    "pair_differences",
    "predicted_gallery",
    "seed_spread",
    "shifts",
    "thresholds",
    "who_is_where",
]
