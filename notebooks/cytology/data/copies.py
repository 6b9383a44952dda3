"""Finds copies among images: rotated by any angle, mirrored, re-encoded or resized.

A rotation about the centre moves nothing from one ring around it to another. So each image is
represented by grey levels on rings (a *disc*: the largest circle that fits). Rotation shifts the
levels along the rings, mirroring reverses them. The magnitudes of each ring's Fourier coefficients
do not change with either, and find the candidates. Their phases then align one disc with the other
and give the angle; the correlation after that decides (Reddy & Chatterji 1996, "An FFT-based
technique for translation, rotation, and scale-invariant image registration",
doi 10.1109/83.506761, without its search for shift and scale).

Everything outside the disc, such as black or mirrored corners, is ignored, and a disc ends where a
black frame begins. Copies that were cropped, shifted or zoomed are not found. Different pictures
with the same white frame may be joined by mistake. `benchmarks/copies.py` measures both errors.
"""

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import label, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

RINGS, ANGLES = 24, 96
DISC = RINGS * ANGLES  # bytes
SIDE = 96  # pixels of the square from which the rings are read
# Angular frequencies that are compared. The lowest are the same in every picture of a round cell in
# the middle; the highest are noise from JPEG and interpolation.
FREQUENCIES = np.arange(2, 21)
COARSE = 13  # frequencies whose magnitudes find candidates, on pairs of rings
FINER = 4  # the angle is found to a quarter of 360 / ANGLES degrees
SAME_PICTURE = 0.80  # correlation; chosen on Herlev cells by `benchmarks/copies.py`
BLACK = 12  # a pixel at the border up to this grey level belongs to a frame
FAINT = 1.0  # grey levels of variation along the rings; with less there is nothing to compare
NEIGHBOURS = 10
SQUARE = 0.02  # sides that differ by less count as equal


def discs(image: Image.Image) -> bytes:
    """The image's discs, `DISC` bytes each: of its middle, and of the whole stretched to a square.

    A square image has only one. The second finds copies that were stretched before they were
    rotated, as by Keras' generators.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    frames = [(left, top, left + side, top + side)]
    if max(width, height) > side * (1 + SQUARE):
        frames.append((0, 0, width, height))
    grey = image.convert("L")
    return b"".join(disc(grey, frame) for frame in frames)


def disc(grey: Image.Image, frame: tuple[float, float, float, float]) -> bytes:
    """Grey levels on the rings of the largest circle in `frame`, shape (RINGS, ANGLES) as bytes."""
    frame = without_black_frame(grey, frame)
    shrinks = min(frame[2] - frame[0], frame[3] - frame[1]) >= 2 * SIDE
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    square = np.asarray(grey.resize((SIDE, SIDE), how, box=frame), np.float32)
    radius = (np.arange(RINGS)[:, None] + 0.5) / RINGS * (SIDE / 2 - 1)
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    middle = (SIDE - 1) / 2
    place = [middle + radius * np.sin(angle), middle + radius * np.cos(angle)]
    return np.round(map_coordinates(square, place, order=1)).astype(np.uint8).tobytes()


def without_black_frame(grey: Image.Image, frame: tuple) -> tuple:
    """`frame` shrunk until its largest circle contains no black connected to the border.

    Black corners of a larger canvas, or around a round field of view, would be the same in all
    pictures and make them similar.
    """
    side = 2 * SIDE
    dark = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR, box=frame)) <= BLACK
    border = np.ones_like(dark)
    border[1:-1, 1:-1] = False
    if not dark[border].any():
        return frame
    regions, _ = label(dark)
    rows, columns = np.nonzero(np.isin(regions, np.unique(regions[border & dark])))
    middle = (side - 1) / 2
    share = np.hypot(rows - middle, columns - middle).min() / (side / 2)
    if share > 0.95:  # only corners outside the circle: rotated without enlarging the canvas
        return frame
    share = max(share, 0.2)
    left, top, right, bottom = frame
    x, y = (left + right) / 2, (top + bottom) / 2
    across, down = share * (right - left) / 2, share * (bottom - top) / 2
    return (x - across, y - down, x + across, y + down)


class Discs:
    """The discs of many images, ready to be compared. `owner` is the image of each disc."""

    def __init__(self, of_images: list[bytes]):
        counts = [len(content) // DISC for content in of_images]
        self.owner = np.repeat(np.arange(len(of_images)), counts)
        levels = np.frombuffer(b"".join(of_images), np.uint8).reshape(-1, RINGS, ANGLES)
        self.detail = np.empty((len(levels), RINGS, len(FREQUENCIES)), np.complex64)
        self.shape = np.empty((len(levels), RINGS // 2 * COARSE), np.float32)
        self.faint = np.empty(len(levels), bool)
        for start in range(0, len(levels), 4096):
            part = slice(start, start + 4096)
            self._transform(levels[part].astype(np.float32), part)

    def _transform(self, levels: np.ndarray, part: slice) -> None:
        waves = np.fft.rfft(levels, axis=-1)
        # A ring covers more of the picture the larger its radius.
        waves *= np.sqrt(np.arange(RINGS) + 0.5)[:, None]
        detail = waves[..., FREQUENCIES] * FREQUENCIES
        energy = 2 * (np.abs(detail) ** 2).sum(axis=(-1, -2), keepdims=True)
        self.detail[part] = detail / np.sqrt(np.maximum(energy, 1e-12))
        along = levels - levels.mean(axis=-1, keepdims=True)
        self.faint[part] = along.std(axis=(-1, -2)) < FAINT
        size = np.abs(waves[..., :COARSE])
        size[..., 0] -= size[..., 0].mean(axis=-1, keepdims=True)
        size = size.reshape(len(size), RINGS // 2, 2, COARSE).mean(axis=2).reshape(len(size), -1)
        self.shape[part] = size / np.maximum(np.linalg.norm(size, axis=1, keepdims=True), 1e-6)

    def register(self, one: np.ndarray, other: np.ndarray) -> pd.DataFrame:
        """Align disc `other[k]` with disc `one[k]`: `similarity` (-1 to 1), `angle`, `mirrored`.

        `angle` is in degrees, -180 to 180, in the direction of Pillow's `rotate`: rotated by it
        (after mirroring left to right, if `mirrored`) the first looks like the other.
        """
        parts = [
            self._register(one[start : start + 2048], other[start : start + 2048])
            for start in range(0, len(one), 2048)
        ]
        columns = ["similarity", "angle", "mirrored"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def _register(self, one: np.ndarray, other: np.ndarray) -> pd.DataFrame:
        steps = ANGLES * FINER
        first, second = self.detail[one], self.detail[other]
        correlation, shift = [], []
        for start_from in (first.conj(), first):  # unchanged; mirrored
            spectrum = np.zeros((len(first), steps // 2 + 1), np.complex64)
            spectrum[:, FREQUENCIES] = (start_from * second).sum(axis=1)
            curve = np.fft.irfft(spectrum, steps, axis=-1)
            correlation.append(curve.max(axis=-1))
            shift.append(curve.argmax(axis=-1))
        mirrored = correlation[1] > correlation[0]
        shift = np.where(mirrored, shift[1], shift[0])
        # Rows count downwards, so a shift to larger angles is a clockwise turn. Mirroring left to
        # right reverses the direction along the rings.
        angle = np.where(mirrored, 180 - shift * 360 / steps, -shift * 360 / steps)
        first = np.where(mirrored[:, None, None], first, first.conj())
        return pd.DataFrame(
            {
                "similarity": similarity(first, second, shift * 2 * np.pi / steps),
                "angle": (angle + 180) % 360 - 180,
                "mirrored": mirrored,
            }
        )


def similarity(first: np.ndarray, second: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Correlation of discs after a turn in radians, averaged over the rings, shape (pairs,).

    The first is already conjugated. A ring's weight is its variation, but at most that of the
    disc's median ring: otherwise a scale bar or the corners of a canvas would dominate.
    """
    turned = second * np.exp(1j * turn[:, None, None] * FREQUENCIES)
    product = (first * turned).sum(axis=-1).real
    energy = np.sqrt((np.abs(first) ** 2).sum(axis=-1) * (np.abs(second) ** 2).sum(axis=-1))
    weight = np.minimum(energy, np.median(energy, axis=1, keepdims=True))
    ring = product / np.maximum(energy, 1e-12)
    return (weight * ring).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)


def find_copies(images: pd.DataFrame) -> pd.DataFrame:
    """Families of images that are copies of one another, each named after its first image.

    `images` has `image_id`, `sha256` and `discs`. Returns `image_id, family, kind, similarity,
    angle, mirrored`: one row per image that is a copy of its family's first, no row for an
    image without copies. `kind` is `same file`, `turned` (by quarter turns and flips, or not at
    all) or `rotated` (by any other angle); the other columns are as in `Discs.register`.
    """
    table = images[["image_id", "sha256", "discs"]].sort_values("image_id", ignore_index=True)
    known = Discs(list(table["discs"]))
    file = pd.factorize(table["sha256"])[0]
    links = [np.array([np.arange(len(table)), first_of(file)])]
    family = join(links, len(table))
    while True:
        # First among all images, then among the families found so far, until no more are joined:
        # ten nearest neighbours show only a part of a family of a hundred.
        candidates = np.flatnonzero(np.isin(known.owner, first_of(family)) & ~known.faint)
        pairs = nearest_pictures(known, candidates)
        same = known.register(*pairs)["similarity"].to_numpy(float) >= SAME_PICTURE
        links.append(known.owner[pairs[:, same]])
        joined = join(links, len(table))
        if joined.max() == family.max():
            return describe_copies(table["image_id"], known, file, family)
        family = joined


def first_of(family: np.ndarray) -> np.ndarray:
    """For each image the first of its family, as positions; `family` numbers the families."""
    _, first, which = np.unique(family, return_index=True, return_inverse=True)
    return first[which]


def join(links: list[np.ndarray], images: int) -> np.ndarray:
    """The family of each image, from pairs of positions, each array of shape (2, pairs)."""
    one, other = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(images, images))
    return connected_components(graph, directed=False)[1]


def nearest_pictures(known: Discs, candidates: np.ndarray) -> np.ndarray:
    """Pairs of similar discs of different images, whatever their rotation, shape (2, n)."""
    if len(candidates) < 2:
        return np.empty((2, 0), int)
    neighbours = min(NEIGHBOURS + 1, len(candidates))  # each disc is its own nearest
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute")
    shapes = known.shape[candidates]
    found = candidates[search.fit(shapes).kneighbors(shapes, return_distance=False)]
    pairs = np.stack([np.repeat(candidates, neighbours), found.ravel()])
    pairs = pairs[:, known.owner[pairs[0]] != known.owner[pairs[1]]]
    return np.unique(np.sort(pairs, axis=0), axis=1)


def describe_copies(image_id: pd.Series, known: Discs, file: np.ndarray, family: np.ndarray):
    """The table of `find_copies`: each copy with the first image of its family."""
    first = first_of(family)
    copy = np.flatnonzero(first != np.arange(len(first)))
    start = np.searchsorted(known.owner, np.arange(len(first)))
    count = np.bincount(known.owner, minlength=len(first))
    # An image has one disc or two; of up to four pairs, the most similar one counts.
    tried = [
        known.register(start[first[copy]] + i % count[first[copy]], start[copy] + j % count[copy])
        for i in range(2)
        for j in range(2)
    ]
    rows = pd.concat(tried).sort_values("similarity", kind="stable").groupby(level=0).last()
    quarter = np.abs((rows["angle"].astype(float) + 45) % 90 - 45) < 3
    kind = np.where(
        file[copy] == file[first[copy]], "same file", np.where(quarter, "turned", "rotated")
    )
    names = image_id.to_numpy()
    found = pd.DataFrame({"image_id": names[copy], "family": names[first[copy]], "kind": kind})
    return found.join(rows)


def family_of(image_id: pd.Series, copies: pd.DataFrame) -> pd.Series:
    """The family of each image; an image without copies is its own."""
    first = dict(zip(copies["image_id"], copies["family"], strict=True))
    return image_id.map(lambda name: first.get(name, name))


def describe_copy(copy) -> str:
    """How a copy, a row of `find_copies`, differs from the first image of its family, in words."""
    if copy.kind == "same file":
        return "the same file"
    angle = round(abs(copy.angle)) % 360
    signed = "180°" if angle == 180 else f"{copy.angle:+.0f}°"
    words = (["mirrored"] if copy.mirrored else []) + ([f"turned {signed}"] if angle else [])
    return ", ".join(words) or "not turned"
