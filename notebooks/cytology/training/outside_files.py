"""The files of models from outside: predictions or features for the images of a run.

The folder has a file for each model: `NAME.predictions.csv`, or `NAME.features.npz`, `.h5` or
`.csv`. A text `NAME.training.txt` may describe its training. Nothing is guessed or used in part: a
file either fits the images of the run or is refused.
"""

import csv
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from cytology.data.sources.patients import keys_of
from cytology.data.sources.spreadsheets import read_spreadsheet, text_of
from cytology.evaluation.predictions import prediction_rows
from cytology.networks.features import Features, checksums
from cytology.settings import InputError
from cytology.wording import counted, normalized

PARAMETER = "outside"  # of notebook 07
ENDINGS = (".predictions.csv", ".features.npz", ".features.h5", ".features.csv")
TRAINING = ".training.txt"
NAME = re.compile(r"\w[\w .+-]*")
# Usual names for the images and for their vectors.
IMAGE = ("image", "image_id", "images", "name", "names", "filename", "filenames", "path", "paths")
ORIENTATIONS = (1, 4, 8)
SUREST = 1e-12  # a probability of 0 or 1 has no logit: it is moved inwards by this much


@dataclass(frozen=True)
class OutsideModel:
    """A file of a model from outside; `training` is the text about its training, or empty."""

    name: str
    path: Path
    training: str = ""

    @property
    def has_features(self) -> bool:
        """Whether the file holds features, not predictions."""
        return not self.path.name.lower().endswith(ENDINGS[0])

    def wrong(self, what: str) -> InputError:
        """The error for this file."""
        return InputError(f"{self.path}: {what}")


def find_models(folder: Path) -> tuple[list[OutsideModel], list[str]]:
    """The models of a folder, by name, and the names of other files in it.

    Raises `InputError` if there is no model, if two have the same name, or if a name cannot be used
    for a folder.
    """
    models: dict[str, OutsideModel] = {}
    used: set[str] = set()
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in files:
        ending = next((each for each in ENDINGS if path.name.lower().endswith(each)), None)
        if ending is None:
            continue
        name = normalized(path.name[: -len(ending)])
        if not NAME.fullmatch(name):
            raise InputError(
                f"{path}: {name!r} cannot name a model: use letters, digits, spaces and . + - _"
            )
        if (other := models.get(name.lower())) is not None:
            raise InputError(
                f"{folder} contains two models named {name}: {other.path.name} and {path.name}. "
                "Rename one of them."
            )
        about = path.with_name(path.name[: -len(ending)] + TRAINING)
        training = ""
        if about.is_file():
            training = " ".join(text_of(about, PARAMETER).split())
            used.add(about.name)
        used.add(path.name)
        models[name.lower()] = OutsideModel(name, path, training)
    if not models:
        raise InputError(
            f"Parameter `{PARAMETER}`: {folder} contains no model. Name the files NAME"
            + ", NAME".join(ENDINGS)
            + "."
        )
    return list(models.values()), [path.name for path in files if path.name not in used]


def match_images(model: OutsideModel, names: pd.Series, images: pd.Series) -> pd.Series:
    """The `image_id` of each name: the path as in the manifest, or a unique file name.

    `InputError` for names that are not among the `images`.
    """
    # Accept paths as written by Windows and by `find`.
    names = names.astype(str).map(normalized).str.replace("\\", "/").str.removeprefix("./")
    known = images.drop_duplicates()
    keys = keys_of(known, names)
    of_name = pd.Series(known.to_numpy(), index=keys)[keys.notna().to_numpy()]
    unknown = names[~names.isin(of_name.index)]
    if len(unknown):
        raise model.wrong(
            f"{counted(unknown.nunique(), 'image is', 'images are')} not in this run, or not the "
            f"only one of that name, the first is {unknown.iloc[0]!r}. An image is called, e.g., "
            f"{known.iloc[0]!r}."
        )
    return names.map(of_name)


def refuse_gaps(model: OutsideModel, there: pd.Index, wanted: pd.Index, what: str) -> None:
    """`InputError` for duplicate images, and for missing ones of `wanted`."""
    doubled, missing = there[there.duplicated()], wanted.difference(there)
    if len(doubled):
        raise model.wrong(f"it has {doubled[0]!r} twice.")
    if len(missing):
        lacking = counted(len(missing), "image", "images")
        raise model.wrong(f"it lacks {lacking} of {what}, the first is {missing[0]!r}.")


# ------------------------------------------------------------------- predictions


def read_predictions(model: OutsideModel, split: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows of `predictions.csv` for a model's predictions.

    With a column `fold`: `oof` rows of train and val, if all are predicted and in the folds of this
    run. Without it, and for images without a fold: `final` rows of test; others are not used.
    """
    table = read_spreadsheet(model.path, PARAMETER)
    image = next((name for name in IMAGE if name in table), None)
    value = next((name for name in ("logit", "probability") if name in table), None)
    if image is None or value is None or table.columns.has_duplicates:
        raise model.wrong(
            "it needs the columns image and probability (or logit), each once, and fold if it was "
            f"cross-validated; it has {', '.join(table.columns)}."
        )
    table["image_id"] = match_images(model, table[image], split["image_id"])
    refuse_gaps(model, pd.Index(table["image_id"]), pd.Index([]), "")
    found = pd.to_numeric(table[value], errors="coerce").astype(float)
    wrong = ~np.isfinite(found)
    if value == "probability":
        wrong |= (found < 0) | (found > 1)
        found = pd.Series(logit(found.clip(SUREST, 1 - SUREST)), index=found.index)
    if wrong.any():
        row = table[wrong].iloc[0]
        kind = "number" if value == "logit" else "number from 0 to 1"
        raise model.wrong(f"the {value} of {row['image_id']!r} is {row[value]!r}, not a {kind}.")
    rows = split.set_index("image_id")
    said = table["fold"] if "fold" in table else pd.Series("", index=table.index)
    named, held = said != "", split[split["split"] != "test"]
    parts = []
    if named.any():
        check_folds(model, table[named], said[named], rows)
        refuse_gaps(model, pd.Index(table["image_id"][named]), pd.Index(held["image_id"]), "a fold")
        parts.append(("oof", named))
    tested = ~named & table["image_id"].map(rows["split"]).eq("test")
    if tested.any() or not parts:
        of_test = pd.Index(split.loc[split["split"] == "test", "image_id"])
        refuse_gaps(model, pd.Index(table["image_id"][~named]), of_test, "test")
        parts.append(("final", tested))
    made = []
    for name, chosen in parts:
        ids = table["image_id"][chosen]
        pictures = rows.loc[ids].reset_index().assign(orientation=0)
        made.append(prediction_rows(pictures, found[chosen], name, seed))
    if unused := len(table) - sum(map(len, made)):
        what = counted(unused, "prediction is", "predictions are")
        print(
            f"{model.path.name}: {what} for train or val without a fold, and not used: the model "
            "may have been trained on these images."
        )
    return pd.concat(made, ignore_index=True).sort_values(["model", "image_id"], ignore_index=True)


def check_folds(model: OutsideModel, table: pd.DataFrame, said: pd.Series, rows: pd.DataFrame):
    """`InputError` unless each image is in the same fold as in this run."""
    ours, theirs = table["image_id"].map(rows["fold"]), pd.to_numeric(said, errors="coerce")
    other = (ours.astype("Float64") != theirs).fillna(True).to_numpy(bool)
    if other.any():
        image_id, fold = table["image_id"][other].iloc[0], ours[other].iloc[0]
        here = "in test" if pd.isna(fold) else f"in fold {fold}"
        raise model.wrong(
            f"its folds are not those of this run: {image_id!r} is in fold {said[other].iloc[0]} "
            f"there, but {here} here. Take the folds from this run's split.csv, or remove the "
            "column fold; the model is then judged on test only."
        )


# ---------------------------------------------------------------------- features


def read_features(model: OutsideModel, split: pd.DataFrame) -> Features:
    """Features of all images of a split, float32.

    A file with turned copies has a column `orientation`, with 4 or 8 for each image; otherwise all
    are images as taken. If it has `checksum` (`features.write_features`), each vector must match
    its name.
    """
    arrays = READERS[model.path.suffix.lower()](model)
    names, turned, values = _vectors(model, arrays)
    if values.ndim != 2 or len(values) != len(names) or not values.shape[1]:
        raise model.wrong(
            f"it has {len(names)} names, but vectors of shape {values.shape}: it needs one row per "
            "name."
        )
    images = match_images(model, pd.Series(names), split["image_id"])
    index = pd.MultiIndex.from_arrays([images, turned], names=["image_id", "orientation"])
    wanted = split["image_id"].drop_duplicates()
    count = int(turned.max()) + 1 if len(turned) else 1
    if count not in ORIENTATIONS:
        raise model.wrong(f"it has {count} orientations: it needs 1, 4 or 8 for each image.")
    whole = pd.MultiIndex.from_product([wanted, range(count)], names=index.names)
    refuse_gaps(model, index, whole, "this run")
    if len(index) != len(whole):
        raise model.wrong(f"its orientations are not whole numbers from 0 to {count - 1}.")
    values = np.ascontiguousarray(values, np.float32)
    if (odd := ~np.isfinite(values).all(axis=1)).any():
        raise model.wrong(f"the vector of {images[odd].iloc[0]!r} contains NaN or infinity.")
    if "checksum" in arrays:
        odd = checksums(names, turned, values) != arrays["checksum"]
        if odd.any():
            raise model.wrong(
                f"the vector of {images[odd].iloc[0]!r} is not the one written for it."
            )
    return Features(values, index)


def _vectors(model: OutsideModel, arrays: dict[str, np.ndarray]):
    """(names, orientations, vectors): from named arrays, or from one array per image."""
    key = next((name for name in IMAGE if name in arrays), None)
    if key is None:  # the name of each array is that of an image
        lengths = {np.size(each) for each in arrays.values()}
        if len(lengths) != 1:
            raise model.wrong(
                f"its vectors have {len(lengths)} lengths, from {min(lengths, default=0)} to "
                f"{max(lengths, default=0)}: all must have the same."
            )
        values = np.stack([np.ravel(each) for each in arrays.values()])
        return list(arrays), np.zeros(len(values), int), values
    names = [each.decode() if isinstance(each, bytes) else str(each) for each in arrays[key]]
    turned = pd.to_numeric(pd.Series(arrays.get("orientation", 0), range(len(names))), "coerce")
    turned = turned.where(turned % 1 == 0, -1).to_numpy(int)
    vectors = [each for each in arrays.values() if each.ndim == 2 and each.dtype.kind in "fiu"]
    if len(vectors) != 1 or len(turned) != len(names):
        raise model.wrong(
            f"besides {key} it needs one array of vectors, shape (images, width); it has "
            f"{', '.join(f'{name} {each.shape}' for name, each in arrays.items())}."
        )
    return names, turned, vectors[0]


def _arrays_of_npz(model: OutsideModel) -> dict[str, np.ndarray]:
    try:
        with np.load(model.path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise model.wrong(f"it cannot be read as arrays ({error}).") from None


def _arrays_of_h5(model: OutsideModel) -> dict[str, np.ndarray]:
    import h5py  # Keras brings it; only such files need it

    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, each) -> None:
        if isinstance(each, h5py.Dataset):
            if each.external or each.is_virtual:
                raise model.wrong(f"its array {name} is in another file: put it into this one.")
            arrays[name] = each[()]

    try:
        with h5py.File(model.path) as stored:
            stored.visititems(keep)
    except OSError as error:
        raise model.wrong(f"it cannot be read as HDF5 ({error}).") from None
    return arrays


def _arrays_of_csv(model: OutsideModel) -> dict[str, np.ndarray]:
    try:
        table = pd.read_csv(model.path, encoding="utf-8-sig", sep=None, engine="python")
    except (ValueError, csv.Error, StopIteration) as error:
        raise model.wrong(f"it cannot be read as a table ({error}).") from None
    about = [name for name in table if name in (*IMAGE, "orientation")]
    rest = table.drop(columns=about)
    words = [name for name in rest if not pd.api.types.is_numeric_dtype(rest[name])]
    if not set(about) & set(IMAGE) or words:
        raise model.wrong(
            "it needs a column image, and otherwise only numbers"
            + (f"; the column {words[0]} has other values." if words else ".")
        )
    arrays = {name: table[name].to_numpy() for name in about}
    return arrays | {"features": rest.to_numpy(float)}


READERS = {".npz": _arrays_of_npz, ".h5": _arrays_of_h5, ".csv": _arrays_of_csv}
