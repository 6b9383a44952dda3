"""Makes models from outside models of the run: their features get a head like all others.

Each gets a folder `outside/NAME` with its predictions and what is known about it, so every
comparison of the run's networks includes it.
"""

import shutil
from typing import Any

import numpy as np
import pandas as pd

from cytology.data.augmentation import pictures_of
from cytology.data.splitting import read_split
from cytology.evaluation.judged import compared_on
from cytology.files import file_hash
from cytology.networks.features import KEY, Features, FeatureStore, named_by_content
from cytology.run import OUTSIDE, Run, outside_title
from cytology.settings import InputError, resolve
from cytology.training import outside_files
from cytology.training.head_training import cross_validate_head, train_final_head
from cytology.training.outside_files import OutsideModel
from cytology.training.recipes import HeadRecipe
from cytology.training.strengths import choose_strengths

WEIGHTS = "from outside"
UNKNOWN = "from outside, training unknown"  # such a model is never called better


def take_outside_models(run: Run) -> None:
    """Read the models of the folder `outside`, and write each into the run.

    All files are read before anything is written. Models of an earlier folder are removed from the
    run. Raises `InputError` for a file that does not fit.
    """
    folder = run.parameters["outside"]
    taken = [_read(run, model) for model in _models(run, folder)] if folder else []
    if (run / OUTSIDE).is_dir():
        shutil.rmtree(run / OUTSIDE)
    for model, found in taken:
        _write(run, model, found)


def _models(run: Run, folder: str) -> list[OutsideModel]:
    """The models of the folder; other files in it are reported."""
    if run.is_original:
        raise InputError(
            "Parameter `outside`: under the original's protocol each picture counts as an image, "
            "but files from outside name images. Leave it empty, or run notebook 03 with "
            "`protocol` grouped."
        )
    compared_on(run)  # raises if there is no network to compare with
    if (run / OUTSIDE).resolve() in (resolve(folder), *resolve(folder).parents):
        raise InputError(
            f"Parameter `outside`: {folder} is where the run keeps its own results for models from "
            "outside. Name another folder."
        )
    models, others = outside_files.find_models(resolve(folder))
    if others:
        print(f"Not read in {folder}: {', '.join(others)} (no model's ending).")
    return models


def _read(run: Run, model: OutsideModel):
    split = read_split(run)
    if model.has_features:
        return model, outside_files.read_features(model, split)
    return model, outside_files.read_predictions(model, split, run.parameters["seed"])


def _write(run: Run, model: OutsideModel, found) -> None:
    """Write `outside/NAME`, after training heads on features."""
    name, like = f"{OUTSIDE}{model.name}", run.about(run.networks[0])
    recipe = ("class_weight", "head_epochs", "patience", "seed", "split", "protocol")
    about: dict[str, Any] = dict.fromkeys(KEY, "") | {"architecture": name, "image_size": 0}
    about |= {key: like[key] for key in recipe} | {"fine_tuned": False, "engine_why": ""}
    about |= {"weights": WEIGHTS, "weights_hash": file_hash(model.path)}
    if model.has_features:
        predictions = with_heads(run, found, about)
    else:
        predictions = found
        about |= {"recipe": "predictions as given", "class_weight": "none"}
        if not (model.training or (found["model"] == "oof").any()):
            about["weights"] = UNKNOWN
    about["explanation"] = known_of(model, predictions, about.get("orientations", 0))
    run.write(f"{name}/predictions.csv", predictions)
    run.write(f"{name}/metrics.json", about)
    print(f"{outside_title(name)}: {about['recipe']}, from {model.path.name}")


def with_heads(run: Run, features: Features, about: dict[str, Any]) -> pd.DataFrame:
    """Predictions of heads trained on features like those of the networks; `about` gets details.

    Writes the results of each strength, and keeps the features for the audit.
    """
    split, seed, weight = read_split(run), about["seed"], about["class_weight"]
    orientations = 1 + int(features.index.get_level_values("orientation").max())
    chosen = choose_strengths(features, split, weight, seed)
    most, patience = about["head_epochs"], about["patience"] or None
    recipe = HeadRecipe(most, weight, patience, seed, orientations, chosen.of)
    folds = cross_validate_head(features, split, recipe, watch=False)
    final = train_final_head(features, split, recipe)
    about |= {"recipe": "head on features from outside", "strengths": chosen.of}
    about["orientations"] = orientations
    run.write(f"{about['architecture']}/strengths.csv", chosen.rows)
    keep_features(run, about, features, orientations)
    return pd.concat([folds.predictions, final.predictions], ignore_index=True)


def keep_features(run: Run, about: dict, features: Features, orientations: int) -> None:
    """Put features into the cache for the leakage audit and the learning curve."""
    images = run.manifest.set_index("image_id")["sha256"]
    ids = features.index.get_level_values("image_id").unique()
    pictures = pictures_of(pd.DataFrame({"image_id": ids}), orientations)
    store, names = FeatureStore([about[key] for key in KEY]), named_by_content(pictures, images)
    missing = store.missing(names)
    if len(missing):
        store.add(names[missing], np.asarray(features.of(pictures.iloc[missing])))


def known_of(model: OutsideModel, predictions: pd.DataFrame, orientations: int) -> str:
    """What is known about the training of a model from outside, and what is not."""
    named = f"Its authors say: {model.training.rstrip('.')}." if model.training else ""
    if model.has_features:
        turned = "images as taken" if orientations == 1 else f"{orientations} orientations"
        own = "Whether the network behind its features has seen these images is unknown."
        return (
            f"Its head was trained here on {turned}, with the same folds and recipe as those of "
            f"the networks. {named or own}"
        )
    if (predictions["model"] == "oof").any():
        folds = "Its file says that no image was predicted by a model that had seen its fold."
        return f"{folds} {named} That cannot be checked here.".replace("  ", " ")
    if named:
        return f"{named} That cannot be checked here."
    return (
        "Its training images are unknown: it may have seen the test images. So it is not compared "
        "with the networks."
    )
