"""Where a network looked: heatmaps of its logit.

Grad-CAM (Selvaraju et al. 2017, doi 10.1109/ICCV.2017.74), HiResCAM (Draelos & Carin 2020, arXiv
2011.08891) and integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365). A single logit
has no class to choose: it speaks for M, and its negative for B (tf-keras-vis#11).

Heat is signed: above zero for the explained class, below against it.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cytology.augmentation import border_colour, place_in_square
from cytology.backend import enough_memory, keras, tf
from cytology.settings import InputError

METHODS = ("gradcam", "hirescam")


def last_map(model: keras.Model) -> str:
    """The layer whose maps are averaged into the pooled features: the last that knows where."""
    pooled = model.get_layer("features").input
    return next(layer.name for layer in model.layers if layer.output is pooled)


def map_of(model: keras.Model, layer: str):
    """The output of `layer` ("": of the last map); `InputError` if it is none with places."""
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
            f"Parameter `explain_layer` is {layer!r}, whose output of shape {output.shape[1:]} has "
            f"no places in the picture: name a layer before {model.name}'s pooling."
        )
    return output


def sign_of(toward) -> np.ndarray:
    """+1 where M is to be explained, -1 where B is, float32."""
    return np.where(np.asarray(toward) == "M", 1, -1).astype(np.float32)


# --------------------------------------------------------------- class activation


@dataclass(frozen=True)
class Heat:
    """Signed `maps` of shape (n, rows, columns), and the network's `logits`, shape (n,)."""

    maps: np.ndarray
    logits: np.ndarray


class Explainer:
    """Makes heatmaps of one network at one layer, batch by batch.

    Traced once; the head may be exchanged between two calls. `method` is `gradcam`, which weighs
    each channel by its mean gradient, or `hirescam`, which keeps the gradient of every place. At
    the last map both are the same: behind it everything is an average and a weighted sum.
    """

    def __init__(self, model: keras.Model, layer: str = "", method: str = "gradcam"):
        if method not in METHODS:
            raise ValueError(f"no method {method}")
        both = keras.Model(model.input, [map_of(model, layer), model.output])
        shape = (None, *model.input_shape[1:])

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
        def explained(pixels):
            pictures = tf.cast(pixels, tf.float32)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                # Watched from the pictures on, since a layer in the middle cannot be; going back
                # ends at the layer all the same.
                tape.watch(pictures)
                activation, logit = both(pictures, training=False)
            gradient = tf.cast(tape.gradient(logit, activation), tf.float32)
            if method == "gradcam":
                gradient = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
            heat = tf.reduce_sum(gradient * tf.cast(activation, tf.float32), axis=-1)
            return heat, logit[:, 0]

        self._explained = explained

    def __call__(self, pixels: np.ndarray, toward, batch_size: int = 32) -> Heat:
        """Explain uint8 `pixels`, shape (n, size, size, 3), toward "M" or "B", one or n of them."""
        with enough_memory(batch_size):
            parts = [
                self._explained(np.ascontiguousarray(pixels[start : start + batch_size]))
                for start in range(0, len(pixels), batch_size)
            ]
        maps, logits = (np.concatenate([part[k].numpy() for part in parts]) for k in (0, 1))
        sign = np.broadcast_to(sign_of(toward), len(maps))
        return Heat(maps * sign[:, None, None], logits)


# ----------------------------------------------------------- integrated gradients


def integrated_gradients(
    model: keras.Model, pixels: np.ndarray, toward, steps: int = 16, batch_size: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Attributions, shape (n, size, size), and by how much they miss completeness, shape (n,).

    The path leads from an empty field, in the colour of the picture's border, to the picture;
    gradients are taken in the middle of `steps` equal steps. Attributions should add up to the
    difference of the two logits: returned is |sum - difference| / |difference|.
    """
    shape = (None, *model.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def gradients(pictures):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pictures)
            logit = model(pictures, training=False)
        return tape.gradient(logit, pictures)

    middles = ((np.arange(steps) + 0.5) / steps).astype(np.float32)[:, None, None, None]
    found, missed = [], []
    signs = np.broadcast_to(sign_of(toward), len(pixels))
    with enough_memory(batch_size):
        for picture, sign in zip(pixels.astype(np.float32), signs, strict=True):
            empty = np.empty_like(picture)
            empty[:] = border_colour(picture)
            path = empty + middles * (picture - empty)
            parts = [
                gradients(path[start : start + batch_size]).numpy()
                for start in range(0, steps, batch_size)
            ]
            attribution = sign * (picture - empty) * np.concatenate(parts).mean(axis=0)
            logits = np.asarray(model(np.stack([picture, empty]), training=False), float).ravel()
            difference = sign * (logits[0] - logits[1])
            found.append(attribution.sum(axis=-1))
            missed.append(abs(attribution.sum() - difference) / max(abs(difference), 1e-6))
    return np.stack(found), np.array(missed)


def by_cell(attributions: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Attributions of pixels, shape (n, size, size), summed over a grid: (n, rows, columns)."""
    by_row = np.array_split(attributions, rows, axis=1)
    cells = [
        [part.sum(axis=(1, 2)) for part in np.array_split(row, columns, axis=2)] for row in by_row
    ]
    return np.moveaxis(np.array(cells), 2, 0)


# ---------------------------------------------------------------- over the picture


def over_square(heat: np.ndarray, size: int) -> np.ndarray:
    """A map of the network's grid, shape (rows, columns), bilinear over its (size, size) input."""
    small = Image.fromarray(np.asarray(heat, np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BILINEAR))


def over_image(heat: np.ndarray, width: int, height: int, size: int, fit: str) -> np.ndarray:
    """A map over the original image, shape (height, width): what lies on the padding is cut off."""
    left, top, inside_width, inside_height = place_in_square(width, height, size, fit)
    inside = over_square(heat, size)[top : top + inside_height, left : left + inside_width]
    resized = Image.fromarray(inside).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
