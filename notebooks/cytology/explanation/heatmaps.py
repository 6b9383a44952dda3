"""Where a network looked: heatmaps of its logit.

Grad-CAM (Selvaraju et al. 2017, doi 10.1109/ICCV.2017.74) and integrated gradients (Sundararajan et
al. 2017, arXiv 1703.01365). A single logit has no class to choose: the logit explains M, its
negative B (tf-keras-vis#11).

Heat is signed: above zero for the explained class, below against it.
"""

import copy
from dataclasses import replace

import numpy as np
from PIL import Image

from cytology.data.augmentation import border_colour, place_in_square
from cytology.networks.backend import enough_memory, keras, tf
from cytology.networks.building import feature_extractor, linear_head, shuffle_weights
from cytology.networks.engines import Passes
from cytology.networks.linear_head import LinearHead
from cytology.networks.passes import KerasPasses
from cytology.notebook import progress
from cytology.settings import InputError


def last_map(model: keras.Model) -> str:
    """The last layer with spatial output, whose maps are averaged into the pooled features."""
    return [layer.name for layer in model.layers if len(layer.output.shape) == 4][-1]


def map_of(model: keras.Model, layer: str):
    """The output of `layer` ("": the last map); `InputError` if it has no spatial output."""
    names = [each.name for each in model.layers]
    wanted = layer or last_map(model)
    if wanted not in names:
        raise InputError(
            f"Parameter `explain_layer` is {layer!r}; {model.name} has no such layer. Its last map "
            f"is {last_map(model)}."
        )
    output = model.get_layer(wanted).output
    if len(output.shape) != 4:
        raise InputError(
            f"Parameter `explain_layer` is {layer!r}, but its output of shape {output.shape[1:]} "
            f"has no positions in the picture: name a layer before {model.name}'s pooling."
        )
    return output


def sign_of(toward) -> np.ndarray:
    """+1 to explain M, -1 to explain B, float32."""
    return np.where(np.asarray(toward) == "M", 1, -1).astype(np.float32)


# ------------------------------------------------------------------------ networks


class ExplainedNetwork:
    """A network whose logits are explained, at `layer` ("": the last map).

    With `heads`, by fold, each image is judged and explained by the head that never saw its
    patient; without, by the network's own head. `passes` makes the features that are judged;
    gradients are always computed by TensorFlow.
    """

    def __init__(
        self,
        model: keras.Model,
        heads: dict[str, LinearHead] | None = None,
        layer: str = "",
        passes: Passes | None = None,
    ):
        self.model, self.layer = model, layer
        self.heads = heads or {"": linear_head(model)}
        at, features = map_of(model, layer), model.get_layer("features").output
        self._both = keras.Model(model.input, [at, features])
        self.passes = passes or KerasPasses(feature_extractor(model))
        size, width = model.input_shape[1:], features.shape[-1]
        slopes = tf.TensorSpec((None, width), tf.float32)
        self._heat = tf.function(self._heat_of, [tf.TensorSpec((None, *size), tf.uint8), slopes])
        self._gradient = tf.function(
            self._gradient_of, [tf.TensorSpec((None, *size), tf.float32), slopes]
        )

    def heat(self, pixels: np.ndarray, toward, folds=None, batch_size: int = 32) -> np.ndarray:
        """Signed maps, shape (n, rows, columns), of uint8 pictures (n, size, size, 3).

        `toward` is "M" or "B", one or n of them; `folds` has shape (n,) if there are heads.
        """
        slopes, _ = self._lines(folds, len(pixels))
        slopes = slopes * np.broadcast_to(sign_of(toward), len(pixels))[:, None]
        with enough_memory(batch_size):
            maps = [
                self._heat(
                    np.ascontiguousarray(pixels[k : k + batch_size]), slopes[k : k + batch_size]
                )
                for k in range(0, len(pixels), batch_size)
            ]
        return np.concatenate(maps)

    def logits(self, pixels: np.ndarray, folds=None, batch_size: int = 32) -> np.ndarray:
        """Logits of uint8 pictures, shape (n,)."""
        with enough_memory(batch_size):
            features = [
                self.passes(pixels[k : k + batch_size]) for k in range(0, len(pixels), batch_size)
            ]
        slopes, offsets = self._lines(folds, len(pixels))
        return (np.concatenate(features) * slopes).sum(axis=1) + offsets

    def integrated_gradients(
        self, pixels: np.ndarray, toward, folds=None, steps: int = 16
    ) -> tuple[np.ndarray, np.ndarray]:
        """Attributions, shape (n, size, size), and their completeness error, (n,).

        The path leads from an empty field, in the colour of the picture's border, to the picture;
        gradients are taken in the middle of `steps` equal steps. Attributions should add up to the
        difference of the two logits; the error is |sum - difference| / |difference|.
        """
        slopes, _ = self._lines(folds, len(pixels))
        slopes = slopes * np.broadcast_to(sign_of(toward), len(pixels))[:, None]
        middles = ((np.arange(steps) + 0.5) / steps).astype(np.float32)[:, None, None, None]
        found, missed = [], []
        each = list(zip(pixels.astype(np.float32), slopes, strict=True))
        for picture, slope in progress(each, "integrated gradients"):
            empty = empty_field(picture)
            path = empty + middles * (picture - empty)
            path = np.concatenate([path, [picture, empty]])
            along = np.repeat(slope[None], len(path), axis=0)
            with enough_memory(steps):
                gradients, logits = (np.asarray(each) for each in self._gradient(path, along))
            attribution = (picture - empty) * gradients[:steps].mean(axis=0)
            difference = float(logits[-2] - logits[-1])
            found.append(attribution.sum(axis=-1))
            missed.append(abs(attribution.sum() - difference) / max(abs(difference), 1e-6))
        return np.stack(found), np.array(missed)

    def with_shuffled_heads(self, seed: int) -> "ExplainedNetwork":
        """The same network with the weights of each head shuffled among themselves."""
        rng, other = np.random.default_rng(seed), copy.copy(self)
        other.heads = {
            name: replace(head, weights=rng.permutation(head.weights))
            for name, head in self.heads.items()
        }
        return other

    def with_shuffled_weights(self, batches, seed: int) -> "ExplainedNetwork":
        """A copy with every weight shuffled; its normalizations learn from uint8 `batches`."""
        heads = self.with_shuffled_heads(seed).heads
        model = shuffle_weights(self.model, batches, seed)
        return ExplainedNetwork(model, heads, self.layer)

    def _lines(self, folds, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The heads of `count` images as slopes, shape (count, width), and offsets, (count,)."""
        names = [""] * count if folds is None else [f"fold{fold}" for fold in folds]
        lines = {name: head.line for name, head in self.heads.items()}
        slopes = np.array([lines[name][0] for name in names], np.float32)
        return slopes, np.array([lines[name][1] for name in names])

    def _heat_of(self, pixels, slopes):
        pictures = tf.cast(pixels, tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            # The tape watches the pictures, since it cannot watch a layer in the middle.
            # The backward pass ends at the layer all the same.
            tape.watch(pictures)
            activation, features = self._both(pictures, training=False)
            logit = tf.reduce_sum(features * slopes, axis=-1)
        gradient = tf.cast(tape.gradient(logit, activation), tf.float32)
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)  # of the channels
        return tf.reduce_sum(weights * tf.cast(activation, tf.float32), axis=-1)

    def _gradient_of(self, pictures, slopes):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pictures)
            features = self._both(pictures, training=False)[1]
            logit = tf.reduce_sum(features * slopes, axis=-1)
        return tape.gradient(logit, pictures), logit


# ---------------------------------------------------------------- over the picture


def empty_field(picture: np.ndarray) -> np.ndarray:
    """An empty picture of the same shape and type, in the colour of the border."""
    empty = np.empty_like(picture)
    empty[:] = border_colour(picture)
    return empty


def over_square(heat: np.ndarray, size: int) -> np.ndarray:
    """A map of the network's grid, shape (rows, columns), bilinear over its (size, size) input."""
    small = Image.fromarray(np.asarray(heat, np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BILINEAR))


def over_image(heat: np.ndarray, width: int, height: int, size: int, fit: str) -> np.ndarray:
    """A map over the original image, shape (height, width), without the padding."""
    left, top, inside_width, inside_height = place_in_square(width, height, size, fit)
    inside = over_square(heat, size)[top : top + inside_height, left : left + inside_width]
    resized = Image.fromarray(inside).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
