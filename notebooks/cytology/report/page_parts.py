"""Figures and tables inside an HTML page, as data addresses: the page needs no other file."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from cytology.architectures import TRAINING_NOTEBOOKS
from cytology.data.images.opening import UnreadableImage, opened
from cytology.machine import cores
from cytology.run import Run
from cytology.tables import naming_columns

# Widths tried in turn until all figures together stay below MOST_FIGURE_BYTES of the page.
FIGURE_WIDTHS = (1400, 1000, 700, 450)
MOST_FIGURE_BYTES = 6_500_000  # base64 makes it 8.7 MB
MOST_TABLE_BYTES = 100_000  # a longer table is a link to its file beside the page
WITH_PATHS = ("run.json", "dataset.json", "metrics.json")  # of this machine, and names in them

# What a page may load: nothing that it does not hold. No slip elsewhere can call home then.
POLICY = (
    "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Figure:
    """A picture as a data address; `number` is its notebook's."""

    name: str
    number: str
    caption: str
    source: str
    width: int
    height: int


def embedded_figures(run: Run) -> list[Figure]:
    """Every PNG of the run's figures, in name order, small enough for the page to load fast."""
    paths = sorted((run / "figures").glob("*.png"))
    with ThreadPoolExecutor(cores()) as pool:
        for width in FIGURE_WIDTHS:
            figures = [*filter(None, pool.map(partial(embed_figure, most=width), paths))]
            if sum(len(figure.source) for figure in figures) <= MOST_FIGURE_BYTES * 4 / 3:
                break
    return figures


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """A key by which `07_2_pairs` comes before `07_10_more`."""
    return [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split("_")
    ]


def embed_figure(path: Path, most: int) -> Figure | None:
    """A PNG no wider than `most` pixels with the caption it carries; None if it is unreadable."""
    from PIL import Image

    try:
        with opened(path) as picture:
            picture.load()
            caption = str(picture.info.get("Description", "")) or path.stem.replace("_", " ")
            if picture.width <= most:
                small, data = picture.copy(), path.read_bytes()
            else:
                height = max(1, round(picture.height * most / picture.width))
                small = picture.convert("RGBA").resize((most, height), Image.Resampling.LANCZOS)
                data = encode(small, "PNG")
    except UnreadableImage:
        return None
    kind = "png"
    # Plots are small as PNG; galleries of photographs are not, and lose nothing as WebP.
    if len(data) > 250_000 and len(webp := encode(small, "WEBP", quality=85)) < len(data):
        kind, data = "webp", webp
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Figure(path.stem, notebook_of(path.stem), caption, source, *small.size)


def notebook_of(figure: str) -> str:
    """The number of the notebook that drew a figure: `07_1_auc`, `densenet121_curves`."""
    return TRAINING_NOTEBOOKS.get(figure.split("_")[0], figure)[:2]


def encode(picture, form: str, **options) -> bytes:
    """The bytes of a picture in a format of Pillow's."""
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


@dataclass(frozen=True)
class Link:
    """The link to a file of the run, which is in the page itself or in the run folder."""

    address: str
    inside: bool


def link_to(run: Run, name: str) -> Link | None:
    """A link to a file of the run; None if it is missing. Short files are embedded in the page.

    Lists of patients or files, pages and records are never embedded, since they may hold names.
    """
    path = run / name
    if not path.is_file():
        return None
    short = path.stat().st_size <= MOST_TABLE_BYTES and path.suffix != ".html"
    inside = short and path.name not in WITH_PATHS and not naming_columns(path)
    data = base64.b64encode(path.read_bytes()).decode("ascii") if inside else ""
    return Link(f"data:text/plain;base64,{data}" if inside else quote(name), inside)
