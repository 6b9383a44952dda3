"""A trained model on new images: a folder in, a table of predictions out."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from cytology.augmentation import fit_to_square
from cytology.backend import keras
from cytology.datasets import image_root
from cytology.evaluation import THRESHOLD
from cytology.folders import IMAGE_SUFFIXES, find_files
from cytology.quality import UnreadableImage, open_rgb
from cytology.settings import InputError, resolve
from cytology.splitting import read_split
from cytology.tables import read_json, read_table, require


def load_trained(run: Path, architecture: str) -> tuple[keras.Model, dict]:
    """The saved model of a run and its `metrics.json`; Keras' safe mode, no code is run."""
    path = require(run, f"{architecture}/model.keras")
    about = read_json(run, f"{architecture}/metrics.json")
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if model.name != architecture:
        raise InputError(f"{path} holds a {model.name}, not a {architecture}: train it again.")
    return model, about


def choose_images(run: Path, data: str, images: str) -> tuple[Path, list[str], dict[str, str]]:
    """Root, names and known labels of the images to predict.

    `images` is a folder, `unseen` (the run's images of neither class) or empty: the test part.
    """
    if images == "unseen":
        unseen = read_table(run, "unseen.csv")
        if unseen.empty:
            raise InputError(
                "Parameter `images` is unseen, but this data set has no images of neither class: "
                "name a folder."
            )
        return image_root(run, data), list(unseen["image_id"]), {}
    if images:
        return resolve(images), images_in(resolve(images)), {}
    split = read_split(run)
    test = split[split["split"] == "test"].drop_duplicates("image_id")
    labels = test.set_index("image_id")["label"]
    return image_root(run, data), list(labels.index), labels.to_dict()


def images_in(folder: Path) -> list[str]:
    """Image files below `folder`, as posix paths; `InputError` if there is none."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: check the parameter `images`.")
    files, _ = find_files(folder)
    files = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError(f"No JPEG, PNG, BMP or TIFF file in {folder}: check `images`.")
    return sorted(path.relative_to(folder).as_posix() for path in files)


def predict_files(
    model: keras.Model, root: Path, image_ids: list[str], fit: str, batch_size: int = 32
) -> pd.DataFrame:
    """Predict image files: `image_id, predicted, probability, logit, reason`.

    A file that cannot be read gets a row with its `reason` and no prediction; the batch goes on.
    """
    size = model.input_shape[1]
    rows = []
    for start in range(0, len(image_ids), batch_size):
        pixels, found = [], []
        for image_id in image_ids[start : start + batch_size]:
            try:
                pixels.append(fit_to_square(open_rgb(root / image_id), size, fit))
                found.append({"image_id": image_id, "reason": ""})
            except UnreadableImage as error:
                rows.append({"image_id": image_id, "reason": str(error)})
        if pixels:
            logits = model.predict_on_batch(np.stack(pixels)).ravel()
            rows += [row | {"logit": z} for row, z in zip(found, logits, strict=True)]
    table = pd.DataFrame(rows, columns=["image_id", "logit", "reason"])
    table["probability"] = expit(table["logit"].astype(float))
    called = np.where(table["probability"] >= THRESHOLD, "M", "B")
    table["predicted"] = np.where(table["logit"].isna(), "", called)
    columns = ["image_id", "predicted", "probability", "logit", "reason"]
    return table.sort_values("image_id", ignore_index=True)[columns]
