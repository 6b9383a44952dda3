"""The figures of `docs/tour.md`, taken from a finished run.

    python tools/tour_figures.py outputs/herlev

Each is at most 1,000 pixels wide and 250 kB; the command of the run stands on the page.
"""

import io
import re
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tour.md"
WIDTH, MOST_BYTES = 1000, 250_000
COLOURS = 256
FIGURE = re.compile(r"\]\(tour/([\w.-]+\.png)\)")


def small(path: Path) -> bytes:
    """A PNG of a figure, with a palette, as wide as the page allows and as large as git should."""
    picture = Image.open(path).convert("RGB")
    width = min(WIDTH, picture.width)
    while True:
        size = (width, round(picture.height * width / picture.width))
        file = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).quantize(COLOURS).save(
            file, "PNG", optimize=True
        )
        if file.tell() <= MOST_BYTES:
            return file.getvalue()
        width = round(width * 0.9)


def main(run: Path) -> None:
    """Write every figure that the page names."""
    folder = PAGE.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name in FIGURE.findall(PAGE.read_text("utf-8")):
        (folder / name).write_bytes(small(run / "figures" / name))
        print(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
