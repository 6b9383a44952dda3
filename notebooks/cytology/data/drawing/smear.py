"""A microscope field in layers, the stain of a patient, and the photograph of both."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

# Optical densities in red, green and blue light at full strength: each patient is between these two
# ends. The transmitted light is 10 ** -density (Beer and Lambert), so layers add up.
STAINS = {
    "Giemsa": {
        "nucleus": ([0.14, 1.00, 0.11], [0.96, 0.84, 0.24]),  # magenta to deep blue
        "cytoplasm": ([0.13, 0.27, 0.04], [0.36, 0.25, 0.09]),  # lilac to grey-blue
        "red": ([0.02, 0.28, 0.17], [0.04, 0.34, 0.34]),  # pink to orange-red
        "ground": ([0.08, 0.20, 0.06], [0.10, 0.08, 0.02]),  # plasma: pink to pale blue
    },
    "Papanicolaou": {
        "nucleus": ([0.60, 0.64, 0.34], [0.77, 0.64, 0.38]),  # blue-black haematoxylin
        "cytoplasm": ([0.26, 0.10, 0.11], [0.14, 0.18, 0.12]),  # cyan-green to rose
        "red": ([0.02, 0.16, 0.22], [0.11, 0.11, 0.16]),  # pale orange to grey
        "ground": ([0.06, 0.04, 0.06], [0.10, 0.05, 0.08]),
    },
}
PIXELS_PER_UM = 1.7


def stain_of_patient(card: dict) -> dict[str, np.ndarray]:
    """Optical density of each layer, arrays of shape (3,) for red, green and blue."""
    strength = 0.85 + 0.3 * card["strength"]
    stain = {}
    for layer, (one, other) in STAINS[card["stain"]].items():
        mix = card["red_hue"] if layer == "red" else card["hue"]
        stain[layer] = strength * ((1 - mix) * np.array(one) + mix * np.array(other))
    return stain


@dataclass
class Smear:
    """One microscope field: per layer a strength from 0 up, float (height, width)."""

    card: dict
    rng: np.random.Generator
    height: int
    width: int
    layers: dict = field(init=False)

    def __post_init__(self):
        self.um = PIXELS_PER_UM * (0.92 + 0.16 * self.card["zoom"]) * self.height / 192
        names = ("nucleus", "cytoplasm", "red", "ground", "rim")
        self.layers = {name: np.zeros((self.height, self.width)) for name in names}
        self.mask = np.zeros((self.height, self.width), bool)
        self.fine = self.noise(0.45)
        self.coarse = self.noise(0.8)

    def noise(self, um: float) -> np.ndarray:
        """Smooth noise of mean 0 and deviation 1 with a grain of about `um` micrometres."""
        rough = ndimage.gaussian_filter(
            self.rng.standard_normal((self.height, self.width)), um * self.um, mode="wrap"
        )
        return (rough - rough.mean()) / rough.std()

    def somewhere(self) -> np.ndarray:
        """A random place (y, x) in pixels."""
        return self.rng.random(2) * (self.height, self.width)

    def outline(self, centre, radii, angle=0.0, rough=0.0):
        """Window (two slices) and distance to the edge of a wavy ellipse, pixels, inside > 0.

        `centre` is (y, x) in pixels, `radii` the two half axes in micrometres.
        """
        long, short = np.maximum(radii, 0.3) * self.um
        reach = 1.5 * max(long, short) + 3
        (top, bottom), (left, right) = (
            np.clip([place - reach, place + reach], 0, side).astype(int)
            for place, side in zip(centre, (self.height, self.width), strict=True)
        )
        y = np.arange(top, bottom)[:, None] - centre[0]
        x = np.arange(left, right)[None, :] - centre[1]
        u = (x * np.cos(angle) + y * np.sin(angle)) / long
        v = (y * np.cos(angle) - x * np.sin(angle)) / short
        edge = 1.0
        if rough:
            around = np.arctan2(v, u)
            for waves in (2, 3, 4, 6):
                swing = rough * self.rng.normal() * 2 / waves
                edge = edge + swing * np.cos(waves * around + self.rng.uniform(0, 2 * np.pi))
        window = slice(top, bottom), slice(left, right)
        return window, (edge - np.hypot(u, v)) * np.sqrt(long * short)


def cover(distance, soft=1.2):
    """Share of each pixel that a shape covers: smooth edges, `soft` pixels wide."""
    return np.clip(distance / soft + 0.5, 0, 1)


def lay(smear: Smear, layer: str, window, strength) -> None:
    """Raise a layer to `strength` wherever it is weaker."""
    smear.layers[layer][window] = np.maximum(smear.layers[layer][window], strength)


def photograph(smear: Smear) -> np.ndarray:
    """The photograph, through all layers, lens and sensor: uint8 (height, width, 3)."""
    rng, card, layers = smear.rng, smear.card, smear.layers
    layers["nucleus"] = 1.6 * (1 - np.exp(-layers["nucleus"] / 1.5))  # overlaps saturate
    stain = stain_of_patient(card)
    uneven = 1 + 0.07 * smear.noise(25)
    density = sum(layers[name][..., None] * stain[name] for name in stain) * uneven[..., None]
    density -= 0.035 * np.clip(layers["rim"], -5, 1.5)[..., None]  # edges refract light
    warm = card["warmth"] + rng.normal(0, 0.05)
    lamp = np.array([0.85 + 0.14 * warm, 0.95, 1.02 - 0.14 * warm])
    lamp = lamp * (0.76 + 0.24 * card["brightness"]) * rng.normal(1, 0.02)
    y, x = np.mgrid[-1 : 1 : smear.height * 1j, -1 : 1 : smear.width * 1j]
    side = 2 * np.pi * card["direction"]
    fall = 1 - (0.03 + 0.11 * card["vignette"]) * (y**2 + x**2)
    fall += 0.04 * (np.sin(side) * y + np.cos(side) * x)
    picture = lamp * fall[..., None] * (0.02 + 0.98 * 10.0**-density)
    blur = 0.4 + 0.5 * card["focus"] + abs(rng.normal(0, 0.15))
    picture = ndimage.gaussian_filter(picture, (blur, blur, 0))
    noise = rng.standard_normal(picture.shape)
    picture += 0.011 * ndimage.gaussian_filter(noise, (0.4, 0.4, 0))
    return np.clip(255 * picture + 0.5, 0, 255).astype(np.uint8)
