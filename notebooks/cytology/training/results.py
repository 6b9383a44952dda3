"""What a training notebook leaves behind: its tables, its model, what is known of it, its times."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cytology.evaluation.judged import TEST, headline, judged_rows
from cytology.evaluation.predictions import as_taken
from cytology.evaluation.statistics.intervals import metrics_with_intervals
from cytology.networks import model_files
from cytology.networks.backend import device
from cytology.networks.batches import DecodedImages
from cytology.networks.building import linear_head
from cytology.networks.engines import BFLOAT16, TITLES
from cytology.networks.features import Features
from cytology.training.fine_tuning import recipe_in_words
from cytology.training.recipes import Stage
from cytology.training.start import Network

COMPARED = 32  # pictures that the saved model must answer as before
MOST_DIFFERENCE = 1e-3  # of a logit after loading, as a share of the largest
MOST_IN_BFLOAT16 = 0.25  # where its features are bfloat16's; the file computes in float32


def write_tables(network: Network, stages: list[Stage]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `predictions.csv` and `history.csv` and return both.

    Of the predictions of the final model, those after the last stage count.
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
class Judged:
    """Predictions that the comparison will rest on, `on` which part, and those of test."""

    on: str
    rows: pd.DataFrame
    test: pd.DataFrame


def judge(predictions: pd.DataFrame, split: pd.DataFrame, fine_tuned: bool) -> Judged:
    """What a network is judged on; see `judged.headline`. Images as taken."""
    taken = as_taken(predictions, split)
    on, rows = headline(taken, fine_tuned)
    return Judged(on, rows, judged_rows(taken, TEST))


def save(network: Network, features: Features | None, images: DecodedImages) -> None:
    """Save the model, load it again and compare: `RuntimeError` if its logits differ.

    They are compared with what the head makes of its frozen `features`; with the live model's
    where more than the head was trained.
    """
    if features is None or network.run.parameters["fine_tune"]:
        pixels = images.pixels[:COMPARED]
        of, most = "the model before", MOST_DIFFERENCE
        logits = np.asarray(network.model(pixels, training=False)).ravel()
    else:
        of, most = f"features by {TITLES[network.engine.name]}", MOST_DIFFERENCE
        pictures = pd.DataFrame({"image_id": images.row.index, "orientation": 0})
        pictures = pictures[pd.MultiIndex.from_frame(pictures).isin(features.index)][:COMPARED]
        pixels = images.batch(pictures["image_id"], pictures["orientation"])
        logits = linear_head(network.model).logits(features.of(pictures))
        if network.engine.name == BFLOAT16:
            most = MOST_IN_BFLOAT16
    for path in model_files.save_model(network.model, network.run):
        difference = model_files.differences(path, pixels, logits).max()
        print(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, its logits of {len(pixels)} "
            f"pictures differ by at most {difference:.1e} from those of {of}"
        )
        if not difference < most * max(1.0, np.abs(logits).max()):
            raise RuntimeError(f"{path} does not give the same logits after loading")


def write_metrics(network: Network, stages: list[Stage], judged: Judged) -> None:
    """Write `metrics.json`: the weights, the recipe, what the saved model is and how good."""
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
        "class_weight": asked["class_weight"],
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
