"""One `build` function for all architectures, and changes to a built network."""

import contextlib
from pathlib import Path

import numpy as np

from cytology.architectures import ARCHITECTURES
from cytology.networks.backend import GPUS, details, keras, tf
from cytology.networks.linear_head import EPSILON, LinearHead
from cytology.settings import InputError

# The Keras policy of each precision, for computations; weights and logits stay float32.
POLICIES = {"float32": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
TENSOR_CORES = (7, 0)  # compute capability from which GPUs have them


def precision_for(asked: str) -> str:
    """The precision to use here: `auto` means float16 on GPUs with tensor cores.

    Raises `InputError` if TensorFlow does not support the wanted one.
    """
    if asked == "auto":
        capabilities = [details(gpu).get("compute_capability", (0, 0)) for gpu in GPUS]
        return "float16" if capabilities and min(capabilities) >= TENSOR_CORES else "float32"
    try:  # it fails where ONEDNN_MAX_CPU_ISA allows less than TensorFlow finds in the processor
        tf.nn.conv2d(tf.ones((1, 4, 4, 1), asked), tf.ones((2, 2, 1, 1), asked), 1, "SAME")
    except tf.errors.AbortedError:
        raise InputError(
            f"Parameter `precision` is {asked}, which TensorFlow does not support on this machine: "
            "set it to float32 or auto."
        ) from None
    return asked


CALIBRATION_BATCH = 8  # all maps of a batch are in memory at once: 32 would need 6 GB


def build(
    architecture: str,
    image_size: int,
    weights: str | Path | None = None,
    seed: int = 0,
    precision: str = "float32",
) -> keras.Model:
    """A network from raw RGB 0..255, (batch, size, size, 3), to a logit, (batch, 1).

    One flat functional graph: preprocessing, backbone, global average ("features"), head.
    The logit is positive for malignant; features and head stay float32 in any `precision`.
    `weights` is the path of a backbone's weights, or None for random ones. Batch
    normalization never learns here: it keeps its statistics even while every other layer
    is fine-tuned.
    """
    spec = ARCHITECTURES[architecture]
    if image_size < spec.smallest_image:
        raise InputError(
            f"Parameter `image_size` is {image_size}; {spec.title} needs at least "
            f"{spec.smallest_image}."
        )
    keras.utils.set_random_seed(seed)
    with computed_in(precision):
        image = keras.Input((image_size, image_size, 3), name="image")
        scale, offset = np.array(spec.scale).tolist(), np.array(spec.offset).tolist()
        scaled = keras.layers.Rescaling(scale, offset, name="preprocess")(image)
        backbone = getattr(keras.applications, spec.title)(
            include_top=False, weights=weights, input_tensor=scaled
        )
        pooling = keras.layers.GlobalAveragePooling2D(name="features", dtype="float32")
        logit = head_layers(pooling(backbone.output))
        model = keras.Model(image, logit, name=architecture)
    freeze_normalization(model)
    return model


@contextlib.contextmanager
def computed_in(precision: str):
    """Context whose layers compute in `precision`; their weights stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def head_layers(features):
    """The new top: standardize each feature, one logit; fine-tuning drops a fifth of the features.

    "standardize" stores mean and variance of the training features. It is a batch normalization
    that never learns, so every file format keeps its numbers. The logit starts from zero: with
    fewer images than features, most directions are never learned, and a random start would
    remain in the predictions as noise.
    """
    standardize = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=EPSILON, dtype="float32", name="standardize"
    )
    dropout = keras.layers.Dropout(0.2, dtype="float32", name="dropout")
    logit = keras.layers.Dense(1, kernel_initializer="zeros", dtype="float32", name="logit")
    return logit(dropout(standardize(features)))


def freeze_normalization(model: keras.Model) -> None:
    """Keep every batch normalization at its stored statistics, even during training."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def feature_extractor(model: keras.Model) -> keras.Model:
    """The part of `model` that ends in the pooled features, (batch, width); shares weights."""
    return keras.Model(model.input, model.get_layer("features").output, name=model.name)


def put_head(model: keras.Model, head: LinearHead) -> None:
    """Make a trained head the top of a network of the same width."""
    model.get_layer("standardize").set_weights([head.mean, head.variance])
    model.get_layer("logit").set_weights([head.weights[:, None], np.array([head.bias])])


def linear_head(model: keras.Model) -> LinearHead:
    """The head of a network as plain numbers."""
    mean, variance = model.get_layer("standardize").get_weights()
    kernel, bias = model.get_layer("logit").get_weights()
    return LinearHead(mean, variance, kernel.ravel(), float(bias[0]))


def shuffle_weights(model: keras.Model, batches, seed: int) -> keras.Model:
    """A copy of `model` with the values of each weight variable shuffled.

    Its normalizations are reset, to scale 1, shift 0 and the statistics of `batches`: with
    those learned for other weights, hardly any unit would respond.
    """
    rng, copy = np.random.default_rng(seed), keras.models.clone_model(model)
    for layer, shuffled in zip(model.layers, copy.layers, strict=True):
        if not isinstance(layer, keras.layers.BatchNormalization):
            values = [rng.permutation(v.ravel()).reshape(v.shape) for v in layer.get_weights()]
            shuffled.set_weights(values)
    calibrate_normalization(copy, batches)
    return copy


def calibrate_normalization(model: keras.Model, batches) -> None:
    """Give a random backbone batch-normalization statistics, from unlabelled image batches.

    With its initial statistics (mean 0, variance 1) the signal of a random network vanishes or
    explodes layer by layer. At momentum 0 a normalization stores the statistics of the last batch
    alone; their mean over the batches is kept in the end.
    """
    extractor = feature_extractor(model)
    layers = [
        layer for layer in extractor.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.trainable, layer.momentum = True, 0.0
    # As one graph: layer by layer it would take twice as long.
    extracted = tf.function(lambda images: extractor(images, training=True), reduce_retracing=True)
    found = []
    for images in batches:
        extracted(images)
        found.append([np.stack([layer.moving_mean, layer.moving_variance]) for layer in layers])
    for layer, momentum, *statistics in zip(layers, momenta, *found, strict=True):
        mean, variance = np.mean(statistics, axis=0)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
        layer.momentum, layer.trainable = momentum, False
