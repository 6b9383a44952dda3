"""The content of a drawn smear: epithelium, white and red blood cells, strands and debris."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from cytology.data.drawing.smear import Smear, cover, lay

# --------------------------------------------------------------------- cells


def draw_cytoplasm(smear: Smear, centre, radii, angle=0.0, rough=0.08, strength=0.8) -> None:
    """A pale rim of cytoplasm, frayed by `rough`, thinner towards its edge."""
    window, distance = smear.outline(centre, radii, angle, rough)
    body = strength * (0.75 + 0.1 * smear.fine[window] + 0.1 * smear.coarse[window])
    lay(smear, "cytoplasm", window, cover(distance, 2.5) * body)


def draw_nucleus(smear: Smear, centre, radii, angle, atypia, dark=1.0, in_mask=True) -> None:
    """A nucleus; `atypia` makes its margin uneven and its chromatin coarse, and adds nucleoli."""
    rng = smear.rng
    window, distance = smear.outline(centre, radii, angle, 0.02 + 0.09 * atypia)
    inside = cover(distance)
    grain = (1 - atypia) * 0.1 * smear.fine[window] + atypia * 0.28 * smear.coarse[window]
    membrane = (0.12 + 0.13 * atypia) * np.exp(-(((distance - 1) / 1.2) ** 2))
    strength = dark * (1 + grain + membrane)
    smear.layers["nucleus"][window] += inside * np.clip(strength, 0.2, None)
    if in_mask:
        smear.mask[window] |= inside > 0.5
    for _ in range(rng.binomial(3, 0.04 + 0.35 * atypia)):
        place = centre + rng.uniform(-0.4, 0.4, 2) * min(radii) * smear.um
        spot, inner = smear.outline(place, np.full(2, rng.uniform(0.6, 0.8 + 0.5 * atypia)))
        smear.layers["nucleus"][spot] += 0.45 * cover(inner, 1.5)


def nucleus_radius(smear: Smear, atypia: float) -> float:
    """Mean radius of an epithelial nucleus in micrometres: a red cell when bland, up to double.

    How much a smear's nuclei swell as they dry depends on its patient, not on its label.
    """
    return (3.4 + 3.8 * atypia) * (0.9 + 0.2 * smear.card["swelling"])


def epithelial_nucleus(smear: Smear, centre, atypia, dark) -> float:
    """Draw an epithelial nucleus, more unequal with atypia; returns its radius in micrometres."""
    rng = smear.rng
    spread = 0.09 + 0.18 * atypia
    radius = nucleus_radius(smear, atypia) * np.clip(np.exp(rng.normal(0, spread)), 0.6, 1.7)
    stretch = np.exp(abs(rng.normal(0, 0.2 + 0.06 * atypia)))
    radii = radius * np.array([stretch, 1 / stretch]) ** 0.7
    darkness = dark * rng.normal(1, 0.05 + 0.12 * atypia)
    draw_nucleus(smear, centre, radii, rng.uniform(0, np.pi), atypia, max(darkness, 0.5))
    return radius


def lattice(count: int, spacing: float, jitter: float, rng) -> np.ndarray:
    """The `count` points of a honeycomb nearest to 0, shape (count, 2), in units of `spacing`."""
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
    spacing = 2 * nucleus_radius(smear, atypia) * smear.rng.uniform(1.1, 1.4)
    places = centre + lattice(count, spacing, 0.13 + 0.08 * atypia, smear.rng) * smear.um
    for place in places:
        draw_cytoplasm(smear, place, [0.66 * spacing] * 2, rough=0.15, strength=0.85)
    span = 0.75 * spacing * smear.um
    low = np.clip(places.min(0) - span, 0, None).astype(int)
    high = np.clip(places.max(0) + span, 0, (smear.height, smear.width)).astype(int)
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
    gaps = np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1])
    if gaps.size and count > 1:
        nearest = np.partition(gaps, 1, axis=-1)
        border = np.exp(-(((nearest[..., 1] - nearest[..., 0]) / (0.9 * smear.um)) ** 2))
        smear.layers["cytoplasm"][low[0] : high[0], low[1] : high[1]] *= 1 - 0.3 * border
    for place in places:
        epithelial_nucleus(smear, place, atypia, dark)


def crowded_group(smear: Smear, centre, count, atypia, dark) -> None:
    """A crowded group: overlapping nuclei without order, little cytoplasm between them."""
    spacing = 2 * nucleus_radius(smear, atypia) * smear.rng.uniform(0.78, 1.0)
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

    The share does not depend on the label, so the amount of blue does not reveal it. (Real
    malignant smears often have more cells.)
    """
    rng = smear.rng
    kinds = (honeycomb_sheet, crowded_group, single_cells, bare_nuclei)
    bland = 1 - atypia
    chances = np.array([0.6 * bland, 0.05 + 0.45 * atypia, 0.05 + 0.6 * atypia, 0.5 * bland**2])
    one = np.pi * (nucleus_radius(smear, atypia) * smear.um) ** 2
    taken: list[np.ndarray] = []
    for _ in range(60):
        missing = (share - smear.mask.mean()) * smear.mask.size / one
        if missing < 0.5 and taken:
            break
        draw = kinds[rng.choice(4, p=chances / chances.sum())]
        most = rng.integers(7, 32) if draw in kinds[:2] else rng.integers(1, 6)
        count = max(1, min(most, round(missing)))
        # Choose the place farthest from other groups: on real slides they are apart.
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
    """Red cells: a crowded carpet with gaps, or single ones, round or stretched by smearing."""
    rng, card = smear.rng, smear.card
    outlined = 5 * card["refraction"] ** 2  # dark outlines, as of dried cells slightly off focus
    cells = np.maximum(smear.layers["cytoplasm"], smear.layers["nucleus"]) > 0.25
    away = ndimage.distance_transform_edt(~cells) / smear.um
    if card["carpet"] < 0.25:
        grain = smear.noise(1.7) + 0.6 * smear.noise(4) + 0.5 * smear.noise(9)
        level = np.quantile(grain, 1 - (0.3 + 0.55 * amount))
        carpet = cover(grain - level, 0.5) * (0.95 + 0.06 * smear.noise(3))
        # A clear gap surrounds the cells, since the carpet shrinks away from them as it dries.
        smear.layers["red"] = carpet * np.clip(away / 2.2 - 0.3, 0, 1)
        smear.layers["rim"] += 4 * (1 - outlined) * carpet * (1 - np.clip(carpet, 0, 1))
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
        smear.layers["rim"][window] -= outlined * np.exp(-(((distance - 0.3) / 0.8) ** 2))


def draw_film(smear: Smear) -> None:
    """Dried plasma over the whole field, grains of stain in it, and holes where fat was."""
    rng, card, layers = smear.rng, smear.card, smear.layers
    plasma = 1 + 0.3 * smear.coarse + 0.4 * smear.noise(12)
    layers["ground"] += card["ground"] * np.clip(plasma, 0, 3)
    grains = smear.fine + 0.5 * smear.coarse - 3.6 + 1.4 * card["grains"]
    layers["nucleus"] += 0.4 * cover(grains, 1)
    for _ in range(rng.poisson(30 * card["fat"] ** 2)):
        window, distance = smear.outline(smear.somewhere(), [rng.uniform(0.4, 2.2)] * 2, rough=0.05)
        for layer in ("ground", "red"):
            layers[layer][window] *= 1 - cover(distance)
        layers["rim"][window] += cover(distance) - 2 * np.exp(-(((distance + 0.5) / 0.9) ** 2))


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
