"""A network for TensorFlow Serving, which is also to take image files as they are.

Training images were resized by Pillow, and a network may answer otherwise where single pixels
differ by one level. So Pillow's arithmetic, in whole numbers and in its order, is done here in
TensorFlow: `src/libImaging/Resample.c` and `Reduce.c` of Pillow.
"""

import base64
from pathlib import Path

from cytology.networks.backend import keras, quietly, tf

LIMITS = (
    "Send upright 8-bit JPEG, PNG or 24-bit BMP. TensorFlow knows no camera orientation (EXIF), "
    "drops transparency instead of laying it on white, and reads no TIFF. Of JPEG it decodes "
    "single pixels a little otherwise than Pillow."
)
BITS = 22  # Pillow's weights of pixels are whole numbers, this power of two their sum
REDUCING_GAP = 3.0  # as in `augmentation.fit_to_square`


def save_for_serving(model: keras.Model, fit: str, folder: Path) -> None:
    """Write a SavedModel with two signatures, each from a batch to its `logit`, (batch, 1).

    `serving_default` takes `image`, raw RGB squares of shape (batch, size, size, 3), float32;
    `from_bytes` takes `image_bytes`, the bytes of image files, shape (batch,).
    """
    size = model.input_shape[1]

    def one(contents):
        return square_of_bytes(contents, size, fit)

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.float32, name="image")])
    def from_arrays(image):
        return {"logit": model(image, training=False)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def from_bytes(image_bytes):
        found = tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)
        return {"logit": model(tf.ensure_shape(found, (None, size, size, 3)), training=False)}

    owner = tf.Module()
    owner.variables_in_use = from_arrays.get_concrete_function().variables
    signatures = {"serving_default": from_arrays, "from_bytes": from_bytes}
    for name in ("assets", "variables"):  # TensorFlow's own folders are closed to one's group
        (folder / name).mkdir(parents=True)
    with quietly():
        tf.saved_model.save(owner, str(folder), signatures)


def serving_request(contents: list[bytes]) -> dict:
    """The JSON that asks TensorFlow Serving about image files, for `/v1/models/NAME:predict`."""
    coded = [base64.b64encode(each).decode("ascii") for each in contents]
    instances = [{"image_bytes": {"b64": each}} for each in coded]
    return {"signature_name": "from_bytes", "instances": instances}


# ------------------------------------------------------------ as Pillow does it


def square_of_bytes(contents: tf.Tensor, size: int, fit: str) -> tf.Tensor:
    """`augmentation.fit_to_square` in TensorFlow: from an image file's bytes to (size, size, 3).

    Whole numbers from 0 to 255, float32; the same as Pillow's for the same decoded pixels.
    """
    image = tf.cast(decoded(contents), tf.float32)
    sides = tf.shape(image)[:2]
    if fit == "stretch":
        return tf.ensure_shape(resized(image, tf.constant([size, size])), (size, size, 3))
    scale = size / tf.reduce_max(sides)
    inner = tf.maximum(tf.cast(tf.round(tf.cast(sides, tf.float64) * scale), tf.int32), 1)
    small = resized(image, inner)
    colour = border_colour(small)
    first = (size - inner) // 2
    margins = tf.concat([tf.stack([first, size - inner - first], axis=1), [[0, 0]]], axis=0)
    return tf.ensure_shape(tf.pad(small - colour, margins) + colour, (size, size, 3))


def decoded(contents: tf.Tensor) -> tf.Tensor:
    """The pixels of an image file, (height, width, 3), uint8; JPEG in full accuracy."""
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
    )


def border_colour(image: tf.Tensor) -> tf.Tensor:
    """Median colour of the border, rounded down, as `augmentation.border_colour` has it."""
    border = tf.concat([image[0], image[-1], image[:, 0], image[:, -1]], axis=0)
    ordered = tf.sort(border, axis=0)
    half = tf.shape(border)[0] // 2  # of an even number
    return tf.floor((ordered[half - 1] + ordered[half]) / 2)


def resized(image: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Pillow's `resize(BILINEAR, reducing_gap=3)` of whole numbers to (height, width) `sides`.

    Since version 13 it resizes images that are very tall in the other order; there single pixels
    differ by one level.
    """
    before = tf.shape(image)[:2]
    factors = tf.cast(before / sides / REDUCING_GAP, tf.int32)
    factors = tf.maximum(factors, 1)
    image = reduced(image, factors)
    # What is left is seldom whole: half a cell of the last row, say.
    left = tf.cast(before, tf.float32) / tf.cast(factors, tf.float32)
    image = weighted(image, left[1], sides[1], "hwc,xw->hxc")
    return weighted(image, left[0], sides[0], "hwc,yh->ywc")


def reduced(image: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Means of cells of (height, width) `factors` pixels, rounded as Pillow's `reduce` does."""
    sides = tf.shape(image)[:2]
    cells = -(-sides // factors)
    missing = cells * factors - sides
    padded = tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])
    sums = tf.reshape(padded, [cells[0], factors[0], cells[1], factors[1], 3])
    sums = tf.cast(tf.reduce_sum(sums, axis=[1, 3]), tf.int64)
    counts = [in_cells(sides[axis], factors[axis], cells[axis]) for axis in (0, 1)]
    pixels = (counts[0][:, None] * counts[1][None, :])[..., None]
    share = tf.cast(2.0**24 / tf.cast(pixels, tf.float32), tf.int64)
    return tf.cast(((sums + tf.cast(pixels // 2, tf.int64)) * share) // 2**24, tf.float32)


def in_cells(side: tf.Tensor, factor: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """How many pixels lie in each cell along a side; in the last one fewer may."""
    return tf.minimum(factor, side - factor * tf.range(cells))


def weighted(image: tf.Tensor, length: tf.Tensor, side: tf.Tensor, product: str) -> tf.Tensor:
    """One pass of Pillow's resampling along a side of `length` old pixels to `side` new ones."""
    inside = tf.shape(image)[1 if product.startswith("hwc,x") else 0]
    scale = tf.cast(length, tf.float64) / tf.cast(side, tf.float64)
    support = tf.maximum(scale, 1.0)
    centre = (tf.cast(tf.range(side), tf.float64) + 0.5)[:, None] * scale
    first = tf.maximum(tf.floor(centre - support + 0.5), 0)
    behind = tf.minimum(tf.floor(centre + support + 0.5), tf.cast(inside, tf.float64))
    place = tf.cast(tf.range(inside), tf.float64)[None, :]
    weights = tf.maximum(1 - tf.abs((place - centre + 0.5) / support), 0)
    weights = tf.where((place >= first) & (place < behind), weights, 0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    whole = tf.floor(weights * 2**BITS + 0.5)
    sums = tf.einsum(product, tf.cast(image, tf.float64), whole)
    return tf.cast(tf.clip_by_value(tf.floor(sums / 2**BITS + 0.5), 0, 255), tf.float32)
