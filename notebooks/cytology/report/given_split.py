"""The page about a split that came with the images, for those who made it.

One file that needs no network, no script and no other file. It names files and patients, which the
report of a run never does: its readers must find them.
"""

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import ImageOps

from cytology.data.copies import SAME_PICTURE
from cytology.data.crossing import COPIES, FILES, SplitCheck, examples
from cytology.data.images.opening import open_rgb
from cytology.data.splitting import SPLITS
from cytology.report.page_parts import POLICY, encode
from cytology.run import Run

NAME = "given_split.html"
TABLES = ("tables/given_split.csv", "tables/given_split_repaired.csv")
ROWS = 12  # of each kind on the page; the table has them all
SIDE = 240  # pixels of a picture
MOST_TABLE_BYTES = 2_000_000  # a longer table stays beside the page


def write_page(run: Run, check: SplitCheck, said: list[str]) -> None:
    """Write `given_split.html` about a given split, and its two tables.

    `said` are the sentences of `crossing.in_words`.
    """
    from jinja2 import Environment, FileSystemLoader

    run.write(TABLES[0], check.crossings)
    run.write(TABLES[1], check.repaired)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(f"{NAME}.jinja")
    run.write(NAME, page.render(page_contents(run, check, said)))


def page_contents(run: Run, check: SplitCheck, said: list[str]) -> dict[str, Any]:
    """Everything that the page shows."""
    dataset, images = run.facts("dataset.json"), check.images
    parts = [part for part in SPLITS if (images["split"] == part).any()]
    sizes = pd.DataFrame({"given": images["split"], "repaired": images["repaired"]})
    sizes = sizes.apply(lambda column: column.value_counts()).reindex(parts).fillna(0).astype(int)
    classes = pd.crosstab(images["split"], images["label"]).reindex(parts)
    groups = images.groupby("split")["group"].nunique()
    kinds = check.touched.drop("any")
    rows = {kind: check.crossings[check.crossings["kind"] == kind] for kind in kinds.index}
    return {
        "policy": POLICY,
        "said": said,
        "clean": check.crossings.empty,
        "parts": [
            {"part": part, "groups": int(groups[part]), **sizes.loc[part], **classes.loc[part]}
            for part in parts
        ],
        "touched": check.touched.reset_index(names="kind").to_dict("records"),
        "has_val": "val" in parts,
        "rows": {kind: table.head(ROWS).to_dict("records") for kind, table in rows.items()},
        "named": {kind: kind not in (FILES, COPIES) for kind in rows},
        "more": {kind: max(0, len(table) - ROWS) for kind, table in rows.items()},
        "pairs": pairs_of(run.images, check),
        "moved": moves_of(check),
        "unit": check.unit,
        "unknown": dataset.get("of_unknown_unit", 0),
        "images": len(images),
        "fingerprint": dataset["fingerprint"],
        "same_picture": SAME_PICTURE,
        "tables": [table_link(run, name) for name in TABLES],
    }


def moves_of(check: SplitCheck) -> list[dict[str, Any]]:
    """How many images and groups the repaired split moves, from which part to which."""
    moves = check.moved.groupby(["split", "repaired"])["group"].agg(["size", "nunique"])
    return [
        {"start": start, "end": end, "images": int(row["size"]), "groups": int(row["nunique"])}
        for (start, end), row in moves.iterrows()
    ]


def pairs_of(root: Path, check: SplitCheck) -> dict[str, list[dict[str, str]]]:
    """Of each kind a handful of crossings, as names, parts and pictures of two images each."""
    pairs: dict[str, list[dict[str, str]]] = {}
    for pair in examples(check).to_dict("records"):
        pair |= {
            "picture": data_address(root / pair["image_id"]),
            "other_picture": data_address(root / pair["other"]),
        }
        pairs.setdefault(pair["kind"], []).append(pair)
    return pairs


def data_address(path: Path) -> str:
    """A small picture of an image as a data address."""
    thumbnail = ImageOps.contain(open_rgb(path), (SIDE, SIDE))
    data = base64.b64encode(encode(thumbnail, "JPEG", quality=85)).decode("ascii")
    return f"data:image/jpeg;base64,{data}"


def table_link(run: Run, name: str) -> dict[str, str]:
    """A table inside the page, to be saved from there; without address if it is too long."""
    content = (run / name).read_bytes()
    data = base64.b64encode(content).decode("ascii")
    address = f"data:text/csv;base64,{data}" if len(content) <= MOST_TABLE_BYTES else ""
    return {"name": name.removeprefix("tables/"), "address": address}
