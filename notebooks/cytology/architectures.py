"""The networks that the series compares, one entry each; needs no TensorFlow.

CONTRIBUTING.md says how to add one.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network of `keras.applications`, the original project's recipe for it, its look in figures.

    `title` is also the network's name in `keras.applications`, `optimizer` one in
    `keras.optimizers`. `scale` and `offset` turn RGB 0..255 into the input that the network was
    pretrained with. `last_block` is where `fine_tune_from: last` starts: layers that see whole
    nuclei, at a small part of the cost. `weights` is a file below Keras' download address, `md5`
    its checksum in Keras' list; empty if Keras lists none.
    """

    title: str
    notebook: str
    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]
    smallest_image: int
    last_block: str
    optimizer: str
    learning_rate: float
    weights: str
    md5: str
    colour: str
    line: str
    marker: str
    kept_as_h5: bool = False  # beside model.keras, as the original project had it


# Colours: Okabe & Ito, "Color universal design", 2008. In grey, line and marker distinguish them.
ARCHITECTURES = {
    "mobilenetv2": Architecture(
        title="MobileNetV2",
        notebook="04_train_mobilenetv2",
        scale=1 / 127.5,
        offset=-1.0,
        smallest_image=32,
        last_block="block_16",
        optimizer="Adam",
        learning_rate=1e-4,
        weights="mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        md5="",
        colour="#009E73",
        line="-",
        marker="o",
    ),
    "inceptionv3": Architecture(
        title="InceptionV3",
        notebook="05_train_inceptionv3",
        scale=1 / 127.5,
        offset=-1.0,
        smallest_image=75,
        last_block="mixed9",
        optimizer="RMSprop",
        learning_rate=1e-5,
        weights="inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="bcbd6486424b2319ff4ef7d526e38f63",
        colour="#CC79A7",
        line="--",
        marker="s",
    ),
    "densenet121": Architecture(
        title="DenseNet121",
        notebook="06_train_densenet121",
        # Mean and deviation of ImageNet's red, green and blue, for pixels from 0 to 255.
        scale=tuple(1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)),
        offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
        smallest_image=32,
        last_block="conv5",
        optimizer="Adam",
        learning_rate=1e-4,
        weights="densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="30ee3e1110167f948a6b9946edeeb738",
        colour="#56B4E9",
        line="-.",
        marker="^",
        kept_as_h5=True,
    ),
}
ARCHITECTURE_NAMES = tuple(ARCHITECTURES)
NETWORK_TITLE = {name: network.title for name, network in ARCHITECTURES.items()}
TRAINING_NOTEBOOKS = {name: network.notebook for name, network in ARCHITECTURES.items()}
TRAINED_BY = {notebook: name for name, notebook in TRAINING_NOTEBOOKS.items()}
