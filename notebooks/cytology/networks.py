"""The networks that the series compares: what must be known of each without TensorFlow.

An entry here and a spec in `architectures` make a network known everywhere. Where its weights come
from is Keras' own list (`keras.applications`), which gives a checksum for most.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """Title for readers, the notebook that trains it, its ImageNet weights, its look in figures.

    `weights` is a file below Keras' download address, `md5` its checksum where Keras has one.
    """

    title: str
    notebook: str
    weights: str
    md5: str
    colour: str
    line: str
    marker: str


KEPT_AS_H5 = ("densenet121",)  # as the original project had it
# Colours: Okabe & Ito, "Color universal design", 2008; line and marker tell them apart in grey.
NETWORKS = {
    "mobilenetv2": Network(
        title="MobileNetV2",
        notebook="04_train_mobilenetv2",
        weights="mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        md5="",
        colour="#009E73",
        line="-",
        marker="o",
    ),
    "inceptionv3": Network(
        title="InceptionV3",
        notebook="05_train_inceptionv3",
        weights="inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="bcbd6486424b2319ff4ef7d526e38f63",
        colour="#CC79A7",
        line="--",
        marker="s",
    ),
    "densenet121": Network(
        title="DenseNet121",
        notebook="06_train_densenet121",
        weights="densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="30ee3e1110167f948a6b9946edeeb738",
        colour="#56B4E9",
        line="-.",
        marker="^",
    ),
}
