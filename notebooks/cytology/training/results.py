"""The results of a training notebook: tables, model, metrics and times."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.evaluation.judged import TEST, headline, judged_rows
from cytology.evaluation.predictions import as_taken
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.networks import model_files
from cytology.networks.backend import GPUS, device
from cytology.networks.batches import DecodedImages
from cytology.networks.building import linear_head
from cytology.networks.engines import BFLOAT16, TITLES
from cytology.networks.features import Features
from cytology.training.fine_tuning import recipe_in_words
from cytology.training.recipes import Stage
from cytology.training.start import Network

COMPARED = 32  # pictures for which the saved model must give the same logits
MOST_DIFFERENCE = 1e-3  # of a logit after loading, as a share of the largest
MOST_IN_SHORT = 0.25  # the same for 16-bit features, or a GPU, which rounds its factors


def write_tables(network: Network, stages: list[Stage]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `predictions.csv` and `history.csv` and return both.

    The predictions of the final model are those after the last stage.
    """
    tables = [stage.predictions for stage in stages]
    earlier = [table[table["model"] != "final"] for table in tables[:-1]]
    kept = [table for table in earlier if len(table)] + tables[-1:]
    predictions = pd.concat(kept, ignore_index=True)
    history = pd.concat([stage.history for stage in stages], ignore_index=True)
    network.run.write(f"{network.architecture}/predictions.csv", predictions)
    network.run.write(f"{network.architecture}/history.csv", history)
    return predictions, history


@dataclass(frozen=True)
class JudgedPredictions:
    """The predictions that are compared, the part that they are `on`, and those on test."""

    on: str
    rows: pd.DataFrame
    test: pd.DataFrame


def judge(predictions: pd.DataFrame, split: pd.DataFrame, on_test: bool) -> JudgedPredictions:
    """The predictions that a network is judged on; see `judged.headline`. Images as taken."""
    taken = as_taken(predictions, split)
    on, rows = headline(taken, on_test)
    return JudgedPredictions(on, rows, judged_rows(taken, TEST))


def save(network: Network, features: Features | None, images: DecodedImages) -> None:
    """Save the model and load it again: `RuntimeError` if the file does not give the same logits.

    They are compared with the live model; if only the head was trained, also with its frozen
    `features`, which another engine may have made.
    """
    pictures = pd.DataFrame({"image_id": images.row.index, "orientation": 0})
    frozen = None if network.run.parameters["fine_tune"] else features
    if frozen is not None:
        pictures = pictures[pd.MultiIndex.from_frame(pictures).isin(frozen.index)]
    pictures = pictures[:COMPARED]
    pixels = images.batch(pictures["image_id"], pictures["orientation"])
    few = pixels[: model_files.AT_ONCE]
    live = model_files.logits_by_layers(network.model, few)
    for path in model_files.save_model(network.model, network.run):
        held_against = frozen if path.suffix == ".keras" else None
        found = model_files.saved_logits(path, few if held_against is None else pixels)
        difference = check_logits(path, found[: len(few)], live, MOST_DIFFERENCE)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, logits differ by {difference:.1e}")
        if held_against is not None:
            of_features = linear_head(network.model).logits(held_against.of(pictures))
            exact = network.engine.name != BFLOAT16 and network.precision == "float32" and not GPUS
            most = MOST_DIFFERENCE if exact else MOST_IN_SHORT
            difference = check_logits(path, found, of_features, most)
            print(
                f"for {len(found)} pictures they differ by {difference:.1e} from those of features "
                f"by {TITLES[network.engine.name]}"
            )


def check_logits(path: Path, found: np.ndarray, expected: np.ndarray, most: float) -> float:
    """The largest difference of logits; `RuntimeError` if above `most` times the largest logit."""
    difference = float(np.abs(found - expected).max())
    if not difference < most * max(1.0, np.abs(expected).max()):
        raise RuntimeError(f"{path} does not give the same logits after loading")
    return difference


def write_metrics(network: Network, stages: list[Stage], judged: JudgedPredictions) -> None:
    """Write `metrics.json`: weights, recipe, saved model and its metrics."""
    run, name, asked = network.run, network.architecture, network.run.parameters
    split, rounded = run.facts("split.json"), any(stage.rounded for stage in stages)
    words = recipe_in_words(
        asked["train_head"], asked["fine_tune"], asked["fine_tune_from"], rounded
    )
    about = {
        "architecture": name,
        "weights": network.weights.kind,
        "explanation": network.weights.explanation,
        "recipe": words,
        "strengths": next((stage.strengths for stage in stages if stage.strengths), {}),
        "fine_tuned": asked["fine_tune"],
        **{key: asked[key] for key in ("class_weight", "head_epochs", "patience")},
        "fit": network.fit,
        "image_size": network.size,
        "precision": network.precision,
        "engine": network.engine.name,
        "engine_why": network.engine.why,
        "weights_hash": network.weights_hash,
        "seed": asked["seed"],
        "split": split["fingerprint"],
        "protocol": split["protocol"],
        "judged_on": judged.on,
        "metrics": metrics_with_intervals(judged.rows),
    }
    about |= model_files.about_file(run / name / "model.keras")
    run.write(f"{name}/metrics.json", about)


def write_timing(
    network: Network, stages: list[Stage], features: Features | None, images: DecodedImages
) -> pd.DataFrame:
    """Write `timing.json` and return it as a table; the time of training is the final model's."""
    run, name = network.run, network.architecture
    timing = {
        "device": device(),
        "precision": network.precision,
        "engine": network.engine.name,
        "parameters": network.model.count_params(),
        "megabytes": (run / name / "model.keras").stat().st_size / 1e6,
        "feature_seconds": features.seconds if features else 0.0,
        "features_computed": features.computed if features else 0,
        "training_seconds": sum(stage.seconds for stage in stages),
        "images_per_second": model_files.images_per_second(network.passes, images),
    }
    run.write(f"{name}/timing.json", timing)
    return pd.DataFrame([timing])
