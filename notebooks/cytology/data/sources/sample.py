"""The sample: procedural drawings of fine-needle-aspirate smears, with masks of their nuclei.

These are drawings to show that the machinery works. They are no medical data: nothing measured
on them says anything about patients, and a network trained on them must not see a real smear.

The drawings follow what cytology books say of breast aspirates: benign ones are flat honeycomb
sheets of small uniform nuclei among bare oval nuclei; malignant ones are crowded, overlapping
groups and single cells, with large, unequal, coarse nuclei (Robinson's six features of grading:
dissociation, size, uniformity, nucleoli, margin, chromatin; Lancet 1994; 343: 947). Colours follow
two photographs of real smears. Lengths are in micrometres until they meet a pixel.

Two things are built in on purpose. Every patient has stain, light, focus and cell density of its
own, the same for all of its images: images of one patient in training and in test make a score
too good. None of these depends on the label, so that mean colour tells little. And `atypia`, which
shapes the nuclei, overlaps between the classes, as it does at the microscope.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, ImageDraw
from scipy import ndimage

from cytology.files import file_hash
from cytology.tables import write_table

# Optical densities in red, green and blue light at full strength: two ends between which every
# patient lies. Light that passes is 10 ** -density (Beer and Lambert), so that layers add up.
STAINS = {
    "Giemsa": {
        "nucleus": ([0.58, 0.74, 0.24], [0.90, 0.76, 0.22]),  # violet to deep blue
        "cytoplasm": ([0.22, 0.19, 0.06], [0.36, 0.25, 0.09]),  # grey-blue
        "red": ([0.02, 0.28, 0.17], [0.04, 0.34, 0.34]),  # pink to orange-red
        "ground": ([0.05, 0.03, 0.01], [0.05, 0.06, 0.02]),
    },
    "Papanicolaou": {
        "nucleus": ([0.56, 0.60, 0.32], [0.72, 0.60, 0.36]),  # blue-black haematoxylin
        "cytoplasm": ([0.26, 0.10, 0.11], [0.14, 0.18, 0.12]),  # cyan-green to rose
        "red": ([0.02, 0.16, 0.22], [0.11, 0.11, 0.16]),  # pale orange to grey
        "ground": ([0.03, 0.02, 0.03], [0.06, 0.03, 0.05]),
    },
}
# Numbers from 0 to 1 that make a patient.
TRAITS = (
    *("atypia", "cells", "reds", "carpet", "elongation", "direction", "strands", "inflammation"),
    *("ground", "hue", "red_hue", "strength", "brightness", "warmth", "vignette", "focus", "zoom"),
)
# Atypia of the most typical patient of a class and of the least typical one: they overlap.
ATYPIA = {"B": (0.0, 0.50), "M": (1.0, 0.42)}
PIXELS_PER_UM = 1.7
# Columns of `sample.csv` that name files, and those that hold their SHA-256.
HASHED = {"image": "sha256", "mask": "mask_sha256"}


# ------------------------------------------------------------------ patients


def patient_cards(patients: int, rng) -> list[dict]:
    """One dict a patient: `label`, `stain` and every trait of `TRAITS` from 0 to 1.

    Only atypia depends on the label. Each class has both stains, in turn by atypia, and atypia
    from one end of its range to the other; most patients are nearer to the typical end.
    """
    labels = rng.permutation(["B", "M"] * (patients // 2) + ["B"] * (patients % 2))
    cards = [{"label": str(label)} for label in labels]
    for label, (typical, other) in ATYPIA.items():
        own = [card for card in cards if card["label"] == label]
        for place, card in zip(rng.permutation(len(own)), own, strict=True):
            card |= dict(zip(TRAITS, rng.random(len(TRAITS)), strict=True))
            card["stain"] = list(STAINS)[place % 2]
            rank = (place + rng.random()) / len(own)
            card["atypia"] = typical + (other - typical) * rank**2
    return cards


def images_per_patient(images: int, patients: int, rng) -> np.ndarray:
    """Unequal numbers of images, shape (patients,), at least 1 each and `images` in all."""
    if patients < 4 or images < patients:
        raise ValueError(f"The sample needs 4 patients with an image each: {images=}, {patients=}.")
    shares = rng.uniform(8, 18, patients)
    ends = np.round(np.cumsum(shares) / shares.sum() * (images - patients)).astype(int)
    return 1 + np.diff(ends, prepend=0)


def stain_of_patient(card: dict) -> dict[str, np.ndarray]:
    """Optical density of each layer, arrays of shape (3,) for red, green and blue."""
    strength = 0.85 + 0.3 * card["strength"]
    stain = {}
    for layer, (one, other) in STAINS[card["stain"]].items():
        mix = card["red_hue"] if layer == "red" else card["hue"]
        stain[layer] = strength * ((1 - mix) * np.array(one) + mix * np.array(other))
    return stain


# -------------------------------------------------------------------- canvas


@dataclass
class Smear:
    """One field under the microscope: a strength from 0 up, float (height, width), a layer."""

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
        """Smooth noise of mean 0 and deviation 1 whose grain is about `um` micrometres."""
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
    """Share of a pixel that a shape covers: edges without steps, `soft` pixels wide."""
    return np.clip(distance / soft + 0.5, 0, 1)


def lay(smear: Smear, layer: str, window, strength) -> None:
    """Put `strength` on a layer where it is stronger than what lies there."""
    smear.layers[layer][window] = np.maximum(smear.layers[layer][window], strength)


# --------------------------------------------------------------------- cells


def draw_cytoplasm(smear: Smear, centre, radii, angle=0.0, rough=0.08, strength=0.8) -> None:
    """A pale rim of cytoplasm, frayed by `rough`, thinner towards its edge."""
    window, distance = smear.outline(centre, radii, angle, rough)
    body = strength * (0.75 + 0.1 * smear.fine[window] + 0.1 * smear.coarse[window])
    lay(smear, "cytoplasm", window, cover(distance, 2.5) * body)


def draw_nucleus(smear: Smear, centre, radii, angle, atypia, dark=1.0, in_mask=True) -> None:
    """A nucleus; with `atypia` its margin gets uneven, its chromatin coarse, nucleoli appear."""
    rng = smear.rng
    window, distance = smear.outline(centre, radii, angle, 0.02 + 0.09 * atypia)
    inside = cover(distance)
    grain = (1 - atypia) * 0.06 * smear.fine[window] + atypia * 0.28 * smear.coarse[window]
    membrane = (0.05 + 0.15 * atypia) * np.exp(-(((distance - 1) / 1.2) ** 2))
    strength = dark * (1 + grain + membrane)
    smear.layers["nucleus"][window] += inside * np.clip(strength, 0.2, None)
    if in_mask:
        smear.mask[window] |= inside > 0.5
    for _ in range(rng.binomial(3, 0.04 + 0.35 * atypia)):
        place = centre + rng.uniform(-0.4, 0.4, 2) * min(radii) * smear.um
        spot, inner = smear.outline(place, np.full(2, rng.uniform(0.6, 0.8 + 0.5 * atypia)))
        smear.layers["nucleus"][spot] += 0.45 * cover(inner, 1.5)


def nucleus_radius(atypia: float) -> float:
    """Mean radius of an epithelial nucleus in micrometres: a red cell when bland, up to double."""
    return 3.4 + 3.9 * atypia


def epithelial_nucleus(smear: Smear, centre, atypia, dark) -> float:
    """Draw an epithelial nucleus, more unequal with atypia; returns its radius in micrometres."""
    rng = smear.rng
    spread = 0.07 + 0.2 * atypia
    radius = nucleus_radius(atypia) * np.clip(np.exp(rng.normal(0, spread)), 0.6, 1.7)
    stretch = np.exp(abs(rng.normal(0, 0.1 + 0.12 * atypia)))
    radii = radius * np.array([stretch, 1 / stretch]) ** 0.7
    darkness = dark * rng.normal(1, 0.05 + 0.12 * atypia)
    draw_nucleus(smear, centre, radii, rng.uniform(0, np.pi), atypia, max(darkness, 0.5))
    return radius


def lattice(count: int, spacing: float, jitter: float, rng) -> np.ndarray:
    """The `count` places of a honeycomb nearest to 0, shape (count, 2), in units of `spacing`."""
    steps = np.arange(-9, 10)
    row, column = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    places = np.column_stack([row * np.sqrt(3) / 2, column + row % 2 / 2])
    places += rng.normal(0, jitter, places.shape) + rng.random(2)
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.8)
    along = places @ [np.cos(turn), np.sin(turn)]
    across = places @ [-np.sin(turn), np.cos(turn)]
    reach = np.hypot(along / stretch, across * stretch) * rng.uniform(0.8, 1.2, len(along))
    return places[np.argsort(reach)[:count]] * spacing


def honeycomb_sheet(smear: Smear, centre, count, atypia, dark) -> None:
    """A flat cohesive sheet: even spacing, cytoplasm all round, cell borders like a honeycomb."""
    spacing = 2 * nucleus_radius(atypia) * smear.rng.uniform(1.2, 1.45)
    places = centre + lattice(count, spacing, 0.08 + 0.1 * atypia, smear.rng) * smear.um
    for place in places:
        draw_cytoplasm(smear, place, [0.72 * spacing] * 2, rough=0.05, strength=0.85)
    span = 0.75 * spacing * smear.um
    low = np.clip(places.min(0) - span, 0, None).astype(int)
    high = np.clip(places.max(0) + span, 0, (smear.height, smear.width)).astype(int)
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
    gaps = np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1])
    if gaps.size and count > 1:
        nearest = np.partition(gaps, 1, axis=-1)
        border = np.exp(-(((nearest[..., 1] - nearest[..., 0]) / (0.9 * smear.um)) ** 2))
        smear.layers["cytoplasm"][low[0] : high[0], low[1] : high[1]] *= 1 - 0.45 * border
    for place in places:
        epithelial_nucleus(smear, place, atypia, dark)


def crowded_group(smear: Smear, centre, count, atypia, dark) -> None:
    """A crowded group: overlapping nuclei without order, little cytoplasm between them."""
    spacing = 2 * nucleus_radius(atypia) * smear.rng.uniform(0.78, 1.0)
    for place in centre + lattice(count, spacing, 0.25, smear.rng) * smear.um:
        radius = epithelial_nucleus(smear, place, atypia, dark)
        shift = smear.rng.normal(0, 0.3 * radius * smear.um, 2)
        draw_cytoplasm(smear, place + shift, [1.45 * radius, 1.25 * radius], rough=0.12)


def single_cells(smear: Smear, centre, count, atypia, dark) -> None:
    """Cells that lost their neighbours, nucleus off centre; cytoplasm shrinks with atypia."""
    for _ in range(count):
        place = centre + smear.rng.normal(0, 18 * smear.um, 2)
        radius = epithelial_nucleus(smear, place, atypia, dark)
        angle = smear.rng.uniform(0, np.pi)
        offset = smear.rng.normal(0, 0.35 * radius * smear.um, 2)
        size = radius * (1.85 - 0.45 * atypia) * smear.rng.uniform(0.9, 1.15)
        draw_cytoplasm(smear, place + offset, [1.2 * size, 0.9 * size], angle, 0.1, 0.7)


def bare_nuclei(smear: Smear, centre, count, atypia, dark) -> None:
    """Bare bipolar nuclei: small dark smooth ovals without cytoplasm (myoepithelial, benign)."""
    for _ in range(count):
        place = centre + smear.rng.normal(0, 22 * smear.um, 2)
        radii = np.array([4.3, 2.1]) * smear.rng.uniform(0.85, 1.15)
        draw_nucleus(smear, place, radii, smear.rng.uniform(0, np.pi), 0.3 * atypia, 1.15 * dark)


def draw_epithelium(smear: Smear, atypia: float, share: float) -> None:
    """Groups and single cells until nuclei cover `share` of the field.

    The share does not depend on the label (real malignant smears are often richer in cells), so
    that the amount of blue does not tell it.
    """
    rng = smear.rng
    kinds = (honeycomb_sheet, crowded_group, single_cells, bare_nuclei)
    bland = 1 - atypia
    chances = np.array([0.6 * bland, 0.05 + 0.45 * atypia, 0.05 + 0.6 * atypia, 0.5 * bland**2])
    one = np.pi * (nucleus_radius(atypia) * smear.um) ** 2
    taken: list[np.ndarray] = []
    for _ in range(60):
        missing = (share - smear.mask.mean()) * smear.mask.size / one
        if missing < 0.5 and taken:
            break
        draw = kinds[rng.choice(4, p=chances / chances.sum())]
        most = rng.integers(7, 32) if draw in kinds[:2] else rng.integers(1, 6)
        count = max(1, min(most, round(missing)))
        # Of a few places the one farthest from other groups: they lie apart on real slides.
        tries = [smear.somewhere() for _ in range(6)]
        far = [min((np.hypot(*(place - old)) for old in taken), default=0) for place in tries]
        taken.append(tries[int(np.argmax(far))])
        draw(smear, taken[-1], count, atypia, rng.uniform(0.85, 1.1))


def draw_leukocytes(smear: Smear, count: int) -> None:
    """Lymphocytes (a small dark disc, thin rim) and neutrophils (three lobes in pale cytoplasm)."""
    rng = smear.rng
    for neutrophil in rng.random(count) < 0.55:
        place = smear.somewhere()
        if neutrophil:
            draw_cytoplasm(smear, place, [5.6, 5.2], rough=0.04, strength=0.4)
            for turn in rng.uniform(0, 2 * np.pi) + np.array([0, 1.6, 3.1]):
                lobe = place + 1.9 * smear.um * np.array([np.sin(turn), np.cos(turn)])
                draw_nucleus(smear, lobe, rng.uniform(1.4, 2.1, 2), turn, 0.1, in_mask=False)
        else:
            draw_cytoplasm(smear, place, [4.1, 3.9], rough=0.05, strength=0.8)
            draw_nucleus(smear, place, [3.2, 3.0], 0, 0.2, 1.1, in_mask=False)


# ---------------------------------------------------------------- background


def draw_red_cells(smear: Smear, amount: float) -> None:
    """Red cells: a crowded carpet with gaps, or single ones, round or drawn out by smearing."""
    rng, card = smear.rng, smear.card
    cells = np.maximum(smear.layers["cytoplasm"], smear.layers["nucleus"]) > 0.25
    away = ndimage.distance_transform_edt(~cells) / smear.um
    if card["carpet"] < 0.25:
        grain = smear.noise(1.7) + 0.6 * smear.noise(4) + 0.5 * smear.noise(9)
        level = np.quantile(grain, 1 - (0.3 + 0.55 * amount))
        carpet = cover(grain - level, 0.5) * (0.95 + 0.06 * smear.noise(3))
        # Cells lie in a clear lacuna, as the carpet shrinks away from them when it dries.
        smear.layers["red"] = carpet * np.clip(away / 2.2 - 0.3, 0, 1)
        smear.layers["rim"] += 4 * carpet * (1 - np.clip(carpet, 0, 1))
        return
    stretch = 1 + 0.75 * card["elongation"]
    for _ in range(round(280 * (0.04 + amount) * rng.uniform(0.6, 1.2))):
        y, x = place = smear.somewhere()
        if away[int(y), int(x)] < 2.2:
            continue
        radius = rng.normal(3.5, 0.3)
        angle = np.pi * card["direction"] + rng.normal(0, 0.5)
        window, distance = smear.outline(place, [radius * stretch, radius / stretch], angle, 0.05)
        pallor = 0.3 * np.clip(distance / (radius * smear.um), 0, 1) * (1.7 - card["elongation"])
        lay(smear, "red", window, cover(distance) * (1 - pallor))
        smear.layers["rim"][window] += np.exp(-(((distance + 1.2) / 0.9) ** 2))


def draw_strands(smear: Smear, count: int) -> None:
    """Smeared chromatin and mucus: bundles of thin threads that wander over the field."""
    rng = smear.rng
    canvas = Image.new("L", (2 * smear.width, 2 * smear.height))
    pen = ImageDraw.Draw(canvas)
    for _ in range(count):
        start, heading = smear.somewhere(), rng.uniform(0, 2 * np.pi)
        for _ in range(rng.integers(1, 5)):
            headings = heading + np.cumsum(rng.normal(0, 0.16, rng.integers(12, 34)))
            steps = np.column_stack([np.sin(headings), np.cos(headings)]) * 1.8 * smear.um
            path = 2 * (start + rng.normal(0, 1.5, 2) * smear.um + np.cumsum(steps, 0))
            ink, thick = int(rng.integers(50, 210)), int(rng.integers(1, 5))
            pen.line([(x, y) for y, x in path], fill=ink, width=thick, joint="curve")
    threads = np.asarray(canvas.resize((smear.width, smear.height), Image.Resampling.BOX)) / 255
    smear.layers["nucleus"] += 0.7 * ndimage.gaussian_filter(threads, 0.5)
    smear.layers["cytoplasm"] += 0.8 * ndimage.gaussian_filter(threads, 2.5)


def draw_debris(smear: Smear, atypia: float) -> None:
    """Necrotic smudges, more likely with atypia, and grains of precipitated stain."""
    rng = smear.rng
    for _ in range(rng.binomial(2, 0.08 + 0.25 * atypia)):
        window, distance = smear.outline(smear.somewhere(), rng.uniform(7, 20, 2), 0, 0.3)
        dust = np.clip(0.4 + 0.3 * smear.coarse[window] + 0.2 * smear.fine[window], 0, 1)
        lay(smear, "cytoplasm", window, 0.8 * dust * cover(distance, 8))
        smear.layers["red"][window] += 0.25 * dust * cover(distance, 8)
    for _ in range(rng.poisson(3)):
        for place in smear.somewhere() + rng.normal(0, 3 * smear.um, (rng.integers(1, 5), 2)):
            window, distance = smear.outline(place, rng.uniform(0.3, 0.8, 2), 0, 0.2)
            smear.layers["nucleus"][window] += 0.9 * cover(distance)


# -------------------------------------------------------------------- images


def photograph(smear: Smear) -> np.ndarray:
    """Light through all layers, lens and sensor: uint8 (height, width, 3)."""
    rng, card, layers = smear.rng, smear.card, smear.layers
    layers["nucleus"] = 1.7 * (1 - np.exp(-layers["nucleus"] / 1.25))  # overlaps saturate
    film = 1 + 0.3 * smear.coarse + 0.4 * smear.noise(12)
    layers["ground"] += card["ground"] * np.clip(film, 0, 3)
    stain = stain_of_patient(card)
    uneven = 1 + 0.07 * smear.noise(25)
    density = sum(layers[name][..., None] * stain[name] for name in stain) * uneven[..., None]
    density -= 0.035 * np.clip(layers["rim"], 0, 1.5)[..., None]  # cell edges refract light
    warm = card["warmth"] + rng.normal(0, 0.05)
    lamp = np.array([0.85 + 0.14 * warm, 0.95, 1.02 - 0.14 * warm])
    lamp = lamp * (0.72 + 0.24 * card["brightness"]) * rng.normal(1, 0.02)
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


def draw_smear(card: dict, rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A smear of a patient: uint8 (height, width, 3), and its nuclei, bool (height, width).

    The mask holds epithelial and bare nuclei, not those of white blood cells.
    """
    smear = Smear(card, rng, height, width)
    atypia = float(np.clip(card["atypia"] + rng.normal(0, 0.1), 0, 1))
    share = (0.10 + 0.10 * card["cells"]) * np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.08:
        share *= 0.2  # a few cells only: hard for anyone
    draw_epithelium(smear, atypia, share)
    draw_leukocytes(smear, rng.poisson(0.5 + 4 * card["inflammation"]))
    draw_red_cells(smear, np.clip(card["reds"] + rng.normal(0, 0.12), 0, 1))
    draw_strands(smear, rng.poisson(0.3 + 3 * card["strands"]))
    draw_debris(smear, atypia)
    return photograph(smear), smear.mask


def draw_image(folder: Path, row: dict, card: dict, seed: list[int], height: int, width: int):
    """Draw one image and its mask to the paths of its row of the table."""
    picture, mask = draw_smear(card, np.random.default_rng(seed), height, width)
    Image.fromarray(picture).save(folder / row["image"])
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / row["mask"])


def draw_sample(
    folder, images=320, patients=24, seed=0, height=192, width=256, progress=None
) -> pd.DataFrame:
    """Draw the sample into `folder` and return its table, one row an image.

    Columns: `image` and `mask` (paths below `folder`), `label` (B benign, M malignant), `patient`,
    `slide` (empty: one a patient), `stain`, and the hashes of both files. Sizes are in pixels.
    `progress`, if given, is called with (done, total). The same arguments give the same bytes in
    any order and on any number of cores, since each image has a random generator of its own.
    `sample.csv` is written last: where it is, the sample is complete.
    """
    folder = Path(folder)
    rng = np.random.default_rng([seed, patients, images])
    cards = patient_cards(patients, rng)
    tasks = []
    for patient, count in enumerate(images_per_patient(images, patients, rng)):
        card = cards[patient]
        for number in range(count):
            path = f"{card['label']}/patient{patient + 1:02d}_{number + 1:02d}.png"
            row = {"image": path, "label": card["label"], "patient": f"patient{patient + 1:02d}"}
            row |= {"slide": "", "stain": card["stain"], "mask": f"masks/{path}"}
            tasks.append((row, card, [seed, patient, number]))
    # While drawing, an older table must not vouch for a sample that is half new.
    (folder / "sample.csv").unlink(missing_ok=True)
    for label in ATYPIA:
        (folder / "masks" / label).mkdir(parents=True, exist_ok=True)
        (folder / label).mkdir(parents=True, exist_ok=True)
    # Processes take a second or two to start; a few images are drawn sooner without.
    drawn = Parallel(n_jobs=-1 if images > 40 else 1, return_as="generator_unordered")(
        delayed(draw_image)(folder, *task, height, width) for task in tasks
    )
    for done, _ in enumerate(drawn, start=1):
        if progress:
            progress(done, images)
    table = pd.DataFrame([row for row, _, _ in tasks])
    for column, hashed in HASHED.items():
        table[hashed] = [file_hash(folder / name) for name in table[column]]
    write_table(folder, "sample.csv", table)
    return table


def is_whole(folder: Path) -> bool:
    """Whether the sample in `folder` is complete, and every picture as it was drawn."""
    if not (folder / "sample.csv").is_file():
        return False
    table = pd.read_csv(folder / "sample.csv", dtype=str, keep_default_na=False)
    if not {*HASHED, *HASHED.values()} <= {*table}:
        return False  # of an earlier version
    pairs = [pair for columns in HASHED.items() for pair in table[list(columns)].to_numpy()]
    return all(
        (folder / name).is_file() and file_hash(folder / name) == hash for name, hash in pairs
    )
