"""Shifts of a picture: stain, light, focus, compression or scale, at five strengths."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageCms, ImageEnhance
from scipy import ndimage
from sklearn.cluster import KMeans

from cytology.data.augmentation import border_colour, place_in_square
from cytology.data.images.opening import open_rgb
from cytology.notebook import progress


@dataclass(frozen=True)
class FramedSmear:
    """An image scaled to a network's square, without padding, and what its shifts depend on.

    `stain` is its stain group; `own` and `other` are mean and deviation in 8-bit Lab, shape (2, 3),
    of that group and of the other one. `reverse` turns round the direction of its shifts.
    """

    image: Image.Image
    sha256: str
    stain: str = ""
    own: np.ndarray | None = None
    other: np.ndarray | None = None
    reverse: bool = False

    def random(self, what: str) -> np.random.Generator:
        """Random numbers that depend only on the file and `what`, the same in every run."""
        named = hashlib.sha256(f"{self.sha256} {what}".encode()).hexdigest()
        return np.random.default_rng(int(named, 16))

    def both_stains(self) -> tuple[np.ndarray, np.ndarray]:
        """`own` and `other`, which are set by `with_stains` on the judged images."""
        assert self.own is not None and self.other is not None
        return self.own, self.other

    def direction(self, what: str) -> int:
        """1 or -1: half of all images shift one way, half the other way."""
        return 1 if (self.random(what).random() < 0.5) != self.reverse else -1


def turn_hue(smear: FramedSmear, degrees: float) -> Image.Image:
    """Turn all hues at equal luminance (`hueRotate` of the W3C's Filter Effects, section 9.6)."""
    angle = np.radians(degrees) * smear.direction("hue")
    grey = np.array([0.213, 0.715, 0.072])
    sideways = [[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]]
    matrix = grey + np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * np.array(sideways)
    pixels = np.asarray(smear.image, float) @ matrix.T
    return Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))


def change_saturation(smear: FramedSmear, factor: float) -> Image.Image:
    """More or less colour: the distance from grey times `factor`, or divided by it."""
    return ImageEnhance.Color(smear.image).enhance(factor ** smear.direction("saturation"))


def move_stain(smear: FramedSmear, share: float) -> Image.Image:
    """Move the colours a `share` of the way from the image's stain group to the other.

    Mean and deviation of each Lab channel are matched as by Reinhard et al. 2001 (doi
    10.1109/38.946629), but those of the groups, not those of the image: an image that is
    dark because it is full of nuclei stays so.
    """
    lab = lab_pixels(smear.image)
    (mean, deviation), (other_mean, other_deviation) = smear.both_stains()
    moved = (lab - mean) * other_deviation / np.maximum(deviation, 1) + other_mean
    mixed = (lab + share * (moved - lab)).round()
    light, colour = np.clip(mixed[..., :1], 0, 255), np.clip(mixed[..., 1:], -128, 127)
    channels = light.astype(np.uint8), colour.astype(np.int8).view(np.uint8)
    whole = np.concatenate(channels, axis=-1)
    image = Image.frombytes("LAB", smear.image.size, whole.tobytes())
    changed = ImageCms.applyTransform(image, lab_transforms()[1])
    assert changed is not None  # it is only where the image is changed in place
    return changed


def change_brightness(smear: FramedSmear, factor: float) -> Image.Image:
    """More or less light: every value times `factor`, or divided by it."""
    return ImageEnhance.Brightness(smear.image).enhance(factor ** smear.direction("brightness"))


def blur(smear: FramedSmear, sigma: float) -> Image.Image:
    """Out of focus: a Gaussian, `sigma` in pixels of a square with sides of 224."""
    sigma = sigma * max(smear.image.size) / 224
    pixels = ndimage.gaussian_filter(np.asarray(smear.image, float), (sigma, sigma, 0))
    return Image.fromarray(pixels.round().astype(np.uint8))


def compress(smear: FramedSmear, quality: float) -> Image.Image:
    """Stored once as JPEG of this quality (Pillow's scale of 1 to 95)."""
    stream = BytesIO()
    smear.image.save(stream, "JPEG", quality=int(quality))
    return Image.open(stream, formats=["JPEG"]).convert("RGB")


def add_noise(smear: FramedSmear, deviation: float) -> Image.Image:
    """Gaussian noise of this standard deviation in grey levels, independent in each channel."""
    pixels = np.asarray(smear.image, float)
    noise = smear.random("noise").normal(size=pixels.shape)
    return Image.fromarray(np.clip((pixels + deviation * noise).round(), 0, 255).astype(np.uint8))


def change_scale(smear: FramedSmear, factor: float) -> Image.Image:
    """Cells `factor` times larger, showing the middle only, or smaller, in an empty frame."""
    image, (width, height) = smear.image, smear.image.size
    if smear.direction("scale") > 0:
        left, top = (1 - 1 / factor) * width / 2, (1 - 1 / factor) * height / 2
        box = (left, top, width - left, height - top)
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)
    smaller = max(1, round(width / factor)), max(1, round(height / factor))
    frame = Image.new("RGB", image.size, border_colour(np.asarray(image)))
    place = (width - smaller[0]) // 2, (height - smaller[1]) // 2
    frame.paste(image.resize(smaller, Image.Resampling.BICUBIC), place)
    return frame


def tilt(smear: FramedSmear, degrees: float) -> Image.Image:
    """Turned by an angle other than a quarter turn: interpolated, with filled corners."""
    degrees *= smear.direction("orientation")
    fill = border_colour(np.asarray(smear.image))
    return smear.image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill)


@functools.cache
def lab_transforms() -> tuple:
    """Pillow's transforms from sRGB to CIE Lab and back."""
    rgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    there = ImageCms.buildTransform(rgb, lab, "RGB", "LAB")
    return there, ImageCms.buildTransform(lab, rgb, "LAB", "RGB")


def lab_pixels(image: Image.Image) -> np.ndarray:
    """8-bit Lab of each pixel as float, shape (height, width, 3): L 0 to 255, a and b signed."""
    lab = np.asarray(ImageCms.applyTransform(image, lab_transforms()[0]))
    return np.concatenate([lab[..., :1], lab[..., 1:].view(np.int8)], axis=-1, dtype=float)


@dataclass(frozen=True)
class Shift:
    """A kind of shift: its amounts at strengths 1 to 5, their wording, and its function."""

    amounts: tuple
    words: str
    axis: str
    apply: Callable[[FramedSmear, float], Image.Image]

    @property
    def goes_both_ways(self) -> bool:
        """Whether half of the images shift one way and half the other."""
        return self.axis.endswith(BOTH)


NONE = "none"  # the shift of pictures that are untouched; their strength is 0
SHIFT_STRENGTHS = (1, 2, 3, 4, 5)
BOTH = ", either way"
# Chosen so that 3 is what another careful laboratory might send, and 5 is gross.
SHIFTS = {
    "hue": Shift((5, 10, 15, 25, 40), "{:g} degrees", "degrees" + BOTH, turn_hue),
    "saturation": Shift((1.1, 1.2, 1.4, 1.7, 2), "factor {:g}", "factor" + BOTH, change_saturation),
    "stain": Shift((0.2, 0.4, 0.6, 0.8, 1), "share {:g}", "share of the way", move_stain),
    "brightness": Shift(
        (1.05, 1.1, 1.2, 1.35, 1.5), "factor {:g}", "factor" + BOTH, change_brightness
    ),
    "blur": Shift((0.5, 1, 1.5, 2, 3), "sigma {:g} px", "sigma (pixels)", blur),
    "jpeg": Shift((90, 70, 50, 30, 10), "quality {:g}", "quality", compress),
    "noise": Shift((2, 4, 8, 16, 32), "deviation {:g}", "deviation (grey levels)", add_noise),
    "scale": Shift((1.05, 1.1, 1.2, 1.5, 2), "factor {:g}", "factor" + BOTH, change_scale),
    "orientation": Shift((5, 10, 20, 30, 45), "{:g} degrees", "degrees" + BOTH, tilt),
}


def shift_picture(smear: FramedSmear, name: str, strength: int) -> Image.Image:
    """The picture under shift `name` at `strength` 0 (untouched) to 5, of the same size."""
    if strength == 0:
        return smear.image
    return SHIFTS[name].apply(smear, SHIFTS[name].amounts[strength - 1])


def amount_in_words(name: str, strength: int) -> str:
    """The amount of a shift in words, e.g. `sigma 1.5 px`."""
    if strength == 0:
        return "as taken"
    return SHIFTS[name].words.format(SHIFTS[name].amounts[strength - 1])


# -------------------------------------------------------------------- smears


def open_smears(root: Path, images: pd.DataFrame, size: int, fit: str) -> list[FramedSmear]:
    """The chosen images scaled to a square of `size`, with their stain groups."""
    smears = []
    for row in progress(list(images.itertuples()), "opening"):
        image = open_rgb(root / row.image_id)
        # As in `fit_to_square`, so untouched pictures equal its result pixel by pixel.
        inside = place_in_square(*image.size, size, fit)[2:]
        small = image.resize(inside, Image.Resampling.BILINEAR, reducing_gap=3.0)
        smears.append(FramedSmear(small, row.sha256))
    return with_stains(smears, images)


def with_stains(smears: list[FramedSmear], images: pd.DataFrame) -> list[FramedSmear]:
    """The smears with the colours of their own and of the other stain group.

    The groups are the values of the column `stain`. If it has fewer than two, or gaps, they are two
    clusters (k-means) of the mean Lab of each `group`: "darker" and "lighter". The colours of a
    group are the means over its images. With more than two groups, the other is the one whose mean
    is furthest away.
    """
    labs = [lab_pixels(smear.image).reshape(-1, 3) for smear in smears]
    colours = np.array([[lab.mean(axis=0), lab.std(axis=0)] for lab in labs])
    stain = images.get("stain", pd.Series("", index=images.index))
    if stain.nunique() < 2 or (stain == "").any():
        means = pd.DataFrame(colours[:, 0]).groupby(images["group"].to_numpy()).mean()
        found = KMeans(2, n_init=10, random_state=0).fit(means)
        darker = np.argmin(found.cluster_centers_[:, 0])
        names = np.where(found.labels_ == darker, "darker", "lighter")
        stain = images["group"].map(pd.Series(names, index=means.index))
    stain = stain.to_numpy()
    of_stain = {name: colours[stain == name].mean(axis=0) for name in np.unique(stain)}

    def distance(one, other):
        return np.linalg.norm(of_stain[one][0] - of_stain[other][0])

    other = {name: max(of_stain, key=functools.partial(distance, name)) for name in of_stain}
    return [
        replace(smear, stain=str(name), own=of_stain[name], other=of_stain[other[name]])
        for smear, name in zip(smears, stain, strict=True)
    ]
