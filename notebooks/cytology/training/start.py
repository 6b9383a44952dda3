"""The start of a training: the split, the images, and the network."""

from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np
import pandas as pd

from cytology.architectures import NETWORK_TITLE
from cytology.data.augmentation import augmentation_of
from cytology.data.splitting import check_batch_size, read_split, training_pictures
from cytology.evaluation.caveats import weights_html
from cytology.networks.backend import be_deterministic, device, keras
from cytology.networks.batches import DecodedImages, decode_images, frozen_features
from cytology.networks.building import feature_extractor, precision_for
from cytology.networks.engines import TENSORFLOW, TITLES, Passes
from cytology.networks.features import Features
from cytology.networks.passes import Engine, choose_engine
from cytology.networks.weights import Weights, find_weights
from cytology.run import Run
from cytology.training.backbone import with_weights
from cytology.training.cuts import cut_before


def split_and_images(run: Run) -> tuple[pd.DataFrame, DecodedImages]:
    """The split, checked again before training, and the decoded images."""
    split = read_split(run)
    check_batch_size(run.parameters["batch_size"], split, augmentation_of(run).orientations)
    return split, decode_images(run)


@dataclass(frozen=True, repr=False)
class Network:
    """A network of a run, with its initial weights.

    `precision` is that of its training, `engine` computes its frozen features, `fit` is how images
    were made square, `orientations` how many of each image it sees, `start` its weights before
    training.
    """

    run: Run
    model: keras.Model
    weights: Weights
    weights_hash: str
    precision: str
    engine: Engine
    fit: str
    orientations: int
    start: list[np.ndarray]

    @property
    def architecture(self) -> str:
        """Its name in the run."""
        return self.model.name

    @property
    def title(self) -> str:
        """Its name in figures."""
        return NETWORK_TITLE[self.architecture]

    @property
    def size(self) -> int:
        """Side of the square input in pixels."""
        return self.model.input_shape[1]

    @property
    def key(self) -> list:
        """What its features depend on: the values of `features.KEY`."""
        made_by = [self.precision, self.engine.name]
        return [self.architecture, self.weights_hash, self.size, self.fit, *made_by]

    @cached_property
    def passes(self) -> Passes:
        """The function for its pooled features; TensorFlow uses the network's present weights."""
        return self.engine.passes(feature_extractor(self.model), self.weights_hash)

    def start_again(self) -> None:
        """Restore the initial weights: a cell that is run twice must not continue training."""
        self.model.set_weights(self.start)

    def features(self, images: DecodedImages, split: pd.DataFrame) -> Features | None:
        """The frozen network's features of each picture; None if no head is to be trained."""
        if not self.run.parameters["train_head"]:
            print("train_head is False: fine-tuning changes the features, so none are kept.")
            return None
        pictures = training_pictures(split, self.orientations)
        batch_size, present = self.run.parameters["batch_size"], self.model.get_weights()
        self.start_again()  # frozen features are not those of a tuned network
        try:
            found = frozen_features(self.passes, images, pictures, self.key, batch_size)
        finally:
            self.model.set_weights(present)
        print(
            f"{len(found.values):,} pictures x {found.width:,} features; "
            f"{found.computed:,} computed now, in {found.seconds:.1f} s"
        )
        return found

    def __repr__(self) -> str:
        return (
            f"{self.title}: {self.model.count_params():,} parameters, {len(self.model.layers)} "
            f"layers, trained in {self.precision} on {device()}"
        )

    def _repr_html_(self) -> str:
        banner = weights_html(self.weights.kind, self.weights.explanation)
        why = f"Frozen features by {TITLES[self.engine.name]}: {self.engine.why}"
        return f"{banner}<p>{escape(repr(self))}</p><p>{escape(why)}</p>"


def build_network(
    run: Run, architecture: str, images: DecodedImages, split: pd.DataFrame
) -> Network:
    """Build a network according to its notebook's parameters; see `backbone.with_weights`.

    Raises `InputError` if they name weights that are not available, or a block that does not exist.
    """
    asked, augmentation = run.parameters, augmentation_of(run)
    be_deterministic(asked["deterministic"], asked["seed"])
    weights = find_weights(architecture, asked["weights"])
    precision = precision_for(asked["precision"])
    model, weights_hash = with_weights(
        architecture, weights, images, split, asked["seed"], precision, asked["strategy"]
    )
    if asked["fine_tune"] and asked["fine_tune_from"]:
        cut_before(model, asked["fine_tune_from"])  # refuse an unknown block before the work
    extractor = feature_extractor(model)
    if asked["train_head"]:
        engine = choose_engine(asked["engine"], extractor, weights_hash, images, precision)
    else:
        engine = Engine(TENSORFLOW, "fine-tuning needs TensorFlow.")
    noted = weights, weights_hash, precision, engine, augmentation.fit, augmentation.orientations
    return Network(run, model, *noted, model.get_weights())
