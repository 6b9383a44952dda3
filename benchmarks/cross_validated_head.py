"""B2: cross-validated heads on cached features, against the plain Keras way."""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.comparison import Result, Row, compare, in_turn
from benchmarks.networks import chosen_passes, network
from benchmarks.registry import Options
from cytology.data.augmentation import fit_to_square, pictures_of
from cytology.data.copies import find_copies
from cytology.data.images.opening import open_rgb
from cytology.data.inspection import inspect_images
from cytology.data.load import load
from cytology.data.manifest import build_manifest
from cytology.data.sources.listing import Listing
from cytology.data.sources.sample import draw_sample
from cytology.data.splitting import judged_pictures
from cytology.machine import cores
from cytology.networks.backend import keras, tf
from cytology.networks.batches import DecodedImages, decode, frozen_features
from cytology.networks.building import build, feature_extractor
from cytology.networks.linear_head import is_malignant
from cytology.training.fine_tuning import compile_model
from cytology.training.head_training import cross_validate_head
from cytology.training.recipes import HeadRecipe
from cytology.training.strengths import choose_strengths

FOLDS, ORIENTATIONS, BATCH = 5, 8, 32
IMAGES, PATIENTS = 320, 24  # of the drawn sample
EPOCHS, LEARNING_RATE = 10, 1e-3  # of the plain way
RECIPE = HeadRecipe(200, class_weight="none", patience=None, seed=0, orientations=ORIENTATIONS)
LOWER_AUC = 0.005  # still accepted
EQUAL = (
    "images, 5 folds of whole groups, backbone and its weights, no class weights, the loss of the "
    "held fold after each epoch (the second row takes that off the plain way; ours still pays for "
    "it), judged on images as taken. Ours, from empty caches, counts decoding, trying the engines, "
    "features of all 8 orientations, the choice of the strength in inner folds, and heads that see "
    "all 8 of each image in every epoch, standardized by the training features, until they "
    "converge. The plain way decodes once into memory and takes 10 epochs of Adam at 0.001 in "
    "batches of 32; each passes each training image once, in one of the 8 orientations by chance, "
    "through the whole network; its features are not standardized"
)
# A new network for each fold is the plain way. TensorFlow warns that it must trace each.
tf.get_logger().setLevel("ERROR")


@dataclass(frozen=True)
class Task:
    """The task of both ways: the images below `root`, their folds, and the network's weights."""

    root: Path
    manifest: pd.DataFrame
    split: pd.DataFrame
    architecture: str
    image_size: int
    weights: Path

    def network(self) -> keras.Model:
        """The network with which both start."""
        model = build(self.architecture, self.image_size)
        model.load_weights(self.weights)
        return model


@dataclass(frozen=True)
class Outcome:
    """Seconds of a way, seconds for watching the held fold in every epoch, and the pooled AUC."""

    seconds: float
    watching: float
    auc: float


def measure(options: Options, folder: Path) -> Result:
    """Both ways, in turn."""
    listing = list_images(options, folder)
    task, notes = prepare_task(listing, options, folder)
    ways = {"ours": lambda: on_cached_features(task, folder), "plain": lambda: by_plain_keras(task)}
    return Result(rows_of(in_turn(ways, options.repeats)), [f"Images: {listing.source}.", *notes])


def rows_of(found: dict[str, list[Outcome]]) -> list[Row]:
    """Time with and without watching the held fold, and AUC."""
    ours, plain = found["ours"], found["plain"]
    seconds, of_plain = [each.seconds for each in ours], [each.seconds for each in plain]
    unwatched = [each.seconds - each.watching for each in plain]
    return [
        compare("heads against plain Keras", "s", seconds, of_plain, EQUAL, at_least=12),
        compare("the same, watching taken off", "s", seconds, unwatched, EQUAL),
        row_of_auc([each.auc for each in ours], [each.auc for each in plain]),
    ]


def row_of_auc(ours: list[float], plain: list[float]) -> Row:
    """Pooled out-of-fold AUC; the difference counts."""
    accepted = 1 - LOWER_AUC / float(np.median(plain))
    row = compare("pooled AUC against plain Keras", "AUC", ours, plain, EQUAL, accepted)
    return replace(row, target=f"{LOWER_AUC} lower at most")


# ------------------------------------------------------------------------- data


def list_images(options: Options, folder: Path) -> Listing:
    """The images of `options.data`, else a sample drawn below `folder`."""
    if options.data:
        found = load(str(options.data), patient_pattern=options.patient_pattern)
        return replace(found, source=str(options.data))
    root = folder / "sample"
    table = draw_sample(root, options.images or IMAGES, PATIENTS)
    images = table.rename(columns={"image": "image_id"})[["image_id", "label", "patient", "slide"]]
    return Listing(root, images, source="procedural sample: drawings, no medical data")


def decode_listing(
    listing: Listing, options: Options, folder: Path
) -> tuple[pd.DataFrame, DecodedImages, str]:
    """The manifest of the images, their pixels, and a sentence that counts them."""
    readable, _ = inspect_images(listing, folder / "before")
    manifest = build_manifest(readable, find_copies(readable))
    if options.images:
        manifest = manifest.sample(min(options.images, len(manifest)), random_state=0)
    images = decode(listing.root, manifest, options.image_size, "pad", folder / "before")
    counted = f"{len(manifest):,} images in {manifest['group'].nunique():,} groups."
    return manifest, images, counted


def prepare_task(listing: Listing, options: Options, folder: Path) -> tuple[Task, list[str]]:
    """The task, and sentences about its images and weights."""
    manifest, images, counted = decode_listing(listing, options, folder)
    split = split_into_folds(manifest)
    model, about = network(
        options.architectures[0], options.weights, images, pictures_of(manifest, 1)
    )
    weights = folder / "start.weights.h5"
    model.save_weights(weights)
    task = Task(listing.root, manifest, split, model.name, images.size, weights)
    return task, [counted, about]


def split_into_folds(manifest: pd.DataFrame) -> pd.DataFrame:
    """A split of `FOLDS` folds of whole groups, without a test part."""
    split = manifest[["image_id", "group", "label"]].reset_index(drop=True)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (_, held) in enumerate(folds.split(split, split["label"], split["group"])):
        split.loc[held, "fold"] = fold
    return split.assign(split="train")


# --------------------------------------------------------------------- both ways


def on_cached_features(task: Task, folder: Path, orientations: int = ORIENTATIONS) -> Outcome:
    """Decode once, features once, then one head per fold; from empty caches."""
    cache, started = Path(tempfile.mkdtemp(dir=folder)), time.perf_counter()
    images = decode(task.root, task.manifest, task.image_size, "pad", cache)
    passes, _ = chosen_passes(feature_extractor(task.network()), images, cache)
    pictures = pictures_of(task.split, orientations)
    features = frozen_features(passes, images, pictures, [task.architecture], BATCH, cache)
    chosen = choose_strengths(features, task.split, RECIPE.class_weight).of
    recipe = replace(RECIPE, strengths=chosen, orientations=orientations)
    rows = cross_validate_head(features, task.split, recipe).predictions
    taken = time.perf_counter() - started
    shutil.rmtree(cache, ignore_errors=True)
    judged = rows[(rows["model"] == "oof") & (rows["orientation"] == 0)]
    return Outcome(taken, 0.0, roc_auc_score(judged["label"] == "M", judged["logit"]))


def by_plain_keras(task: Task) -> Outcome:
    """The frozen backbone stays in the model, which is fitted for each fold."""
    started, watch = time.perf_counter(), Watch()
    decoded = Parallel(cores(), prefer="threads")(
        delayed(decode_one)(task, image_id) for image_id in task.split["image_id"]
    )
    pixels, labels = np.stack(decoded), judged_pictures(task.split)["label"]
    malignant = is_malignant(labels).astype(np.float32)[:, None]
    logits = np.empty(len(pixels), np.float32)
    for fold in range(FOLDS):
        held = (task.split["fold"] == fold).to_numpy()
        model = with_frozen_backbone(task)
        model.fit(
            random_orientations(pixels[~held], malignant[~held]),
            validation_data=(pixels[held], malignant[held]),
            validation_batch_size=BATCH,
            epochs=EPOCHS,
            shuffle=False,  # the data are shuffled already
            callbacks=[watch],
            verbose=0,
        )
        logits[held] = model.predict(pixels[held], BATCH, verbose=0).ravel()
    taken = time.perf_counter() - started
    return Outcome(taken, watch.seconds, roc_auc_score(malignant.ravel(), logits))


def decode_one(task: Task, image_id: str) -> np.ndarray:
    """An image as both ways see it, uint8 (size, size, 3)."""
    return fit_to_square(open_rgb(task.root / image_id), task.image_size, "pad")


def with_frozen_backbone(task: Task) -> keras.Model:
    """The network of which only the last layer learns."""
    keras.utils.set_random_seed(RECIPE.seed)
    model = task.network()
    for layer in model.layers:
        layer.trainable = layer.name == "logit"
    compile_model(model, keras.optimizers.Adam(LEARNING_RATE))
    return model


def random_orientations(pixels: np.ndarray, malignant: np.ndarray) -> tf.data.Dataset:
    """Batches in which each image occurs once, in a random one of its 8 orientations."""

    def turn(image, label):
        quarters = tf.random.uniform((), 0, 4, tf.int32)
        return tf.image.rot90(tf.image.random_flip_left_right(image), quarters), label

    dataset = tf.data.Dataset.from_tensor_slices((pixels, malignant)).shuffle(len(pixels))
    return dataset.map(turn, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


class Watch(keras.callbacks.Callback):
    """Adds up the seconds that validation took."""

    def __init__(self):
        super().__init__()
        self.seconds = self._begun = 0.0

    def on_test_begin(self, logs=None):
        self._begun = time.perf_counter()

    def on_test_end(self, logs=None):
        self.seconds += time.perf_counter() - self._begun
