"""Pictures with what a network says about them, notebooks 07 and 08."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import ImageOps

from cytology.plots.style import CLASS_COLOUR, grid, picture
from cytology.quality import open_rgb


def predicted_gallery(root: Path, rows: pd.DataFrame, columns: int = 6) -> Figure:
    """Images with predicted class and probability of M; `label` may be empty where unknown.

    A wrong prediction has a red frame and says so. A column `group` says whose image it is.
    """
    figure, axes = grid(len(rows), columns, 2.2, 2.4)
    for axis, (_, row) in zip(axes, rows.iterrows(), strict=True):
        title = f"{row['predicted']}, P(M) = {row['probability']:.2f}"
        wrong = row["label"] not in ("", row["predicted"])
        if row["label"]:
            title += f"\ntrue {row['label']}{': wrong' if wrong else ''}"
        if "group" in row:
            title += f"\n{row['group']}"
        thumbnail = ImageOps.contain(open_rgb(root / row["image_id"]), (320, 320))
        picture(axis, thumbnail, title, CLASS_COLOUR[row["predicted"]])
        if wrong:
            for spine in axis.spines.values():
                spine.set(visible=True, color="#b00020", linewidth=3)
    return figure
