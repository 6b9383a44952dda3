"""Open every image of a listing once, on all cores, and remember what was found.

The results are kept by the hash of each file in `outputs/cache/inspected.sqlite`, so each image is
opened only once, even after an interruption.
"""

import inspect
import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.data import copies, crops, quality
from cytology.data.images.opening import READING
from cytology.data.sources.listing import Listing
from cytology.data.sources.masks import FEW_COLOURS, MASK_FOLDER, masks_by_colour
from cytology.files import digest, file_hash
from cytology.machine import in_parallel
from cytology.settings import CACHE, InputError

INSPECTED = ["width", "height", "sha256", "brightness", "red", "green", "blue"]
INSPECTED += ["contrast", "sharpness", "overexposed", "middle", "emptiest_half"]
INSPECTED += ["converted", "colours", "discs"]
KEPT_AT_ONCE = 1024
TABLE = "checked"


def inspect_images(listing: Listing, cache: Path = CACHE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Open every listed image: (readable images, rejected ones).

    The first has the listing's columns and those of `INSPECTED`; the second those of `REFUSED`,
    with what the listing refused. Raises `InputError` if a class has no readable image.
    """
    images = listing.images.reset_index(drop=True)
    found = inspect_files([listing.root / image_id for image_id in images["image_id"]], cache)
    found = pd.DataFrame(found).reindex(columns=[*INSPECTED, "reason"]).astype({"reason": object})
    found["other"] = ""
    opened = images[["image_id"]].join(found)[found["reason"].isna()]
    for mask, image in masks_by_colour(opened).items():
        row = opened.index[opened["image_id"] == mask]
        found.loc[row, ["reason", "other"]] = f"a mask of {image}, by its few colours", image
    bad = found["reason"].notna()
    rejected = images[["image_id", "label"]][bad].join(found[["reason", "other"]])
    rejected = pd.concat([rejected, listing.refused], ignore_index=True)
    kept = found[~bad].drop(columns=["reason", "other"])
    readable = images[~bad].join(kept).reset_index(drop=True)
    if readable["label"].nunique() < 2:
        raise InputError(
            f"No readable image of {'either class' if readable.empty else 'one class'} in "
            f"{listing.root}: {len(rejected)} files were rejected, the first because: "
            f"{rejected['reason'].iloc[0]}."
        )
    readable[["width", "height"]] = readable[["width", "height"]].astype(int)
    return readable, rejected


def inspect_files(paths: list[Path], cache: Path) -> list[dict]:
    """`quality.inspect_image` of each file, from the cache if its content was seen before."""
    hashes = list(in_parallel(hash_or_none, paths, "reading files", "file"))
    cache.mkdir(parents=True, exist_ok=True)
    with closing(open_cache(cache / "inspected.sqlite")) as store:
        # A file that cannot be hashed goes by its path, and is not kept.
        pairs = zip(paths, hashes, strict=True)
        names = [f"{CODE} {sha256}" if sha256 else str(path) for path, sha256 in pairs]
        known = recall(store, names)
        new = {name: path for name, path in zip(names, paths, strict=True) if name not in known}
        fresh = in_parallel(quality.inspect_image, list(new.values()), "inspecting images")
        for number, (name, found) in enumerate(zip(new, fresh, strict=True), start=1):
            known[name] = found
            remember(store, name, found)
            if number % KEPT_AT_ONCE == 0:
                store.commit()
        store.commit()
    return [known[name] for name in names]


# What was read or measured by other code is measured again.
CODE = digest(READING, *map(inspect.getsource, (quality, crops, copies)))


def hash_or_none(path: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read (`quality.inspect_image` then says why)."""
    try:
        return file_hash(path) if path.is_file() else None
    except OSError:
        return None


def open_cache(path: Path, seconds: float = 60) -> sqlite3.Connection:
    """Open the cache of inspected files; a damaged one is reported, removed and made again.

    Waits up to `seconds` while another process uses it.
    """
    if not path.exists():
        path.touch()  # with what the user's mask allows, of which SQLite takes away
    store = sqlite3.connect(path, timeout=seconds)
    try:
        damage = store.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.OperationalError:
        raise  # in use, or the disk is full: that is no damage
    except sqlite3.DatabaseError as error:
        damage = str(error)
    if damage != "ok":
        print(f"{path} is damaged ({damage.splitlines()[0]}): the images are inspected again.")
        store.close()
        path.unlink()
        return open_cache(path, seconds)
    store.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, found, discs, crc)")
    return store


def recall(store: sqlite3.Connection, names: list[str]) -> dict[str, dict]:
    """What the cache knows of `names`; a row that was altered counts as unknown."""
    known = {}
    for start in range(0, len(names), 500):
        some = names[start : start + 500]
        marks = ",".join("?" * len(some))
        # Only our own name and question marks are put into the text.
        query = f"SELECT key, found, discs, crc FROM {TABLE} WHERE key IN ({marks})"  # noqa: S608
        for name, found, discs, crc in store.execute(query, some):
            if crc == row_check(name, found, discs):
                known[name] = json.loads(found) | {"discs": discs}
    return known


def remember(store: sqlite3.Connection, name: str, found: dict) -> None:
    """Keep what was found of one file, but not that it is unreadable; the caller commits."""
    if "reason" in found:
        return
    plain = json.dumps({what: value for what, value in found.items() if what != "discs"})
    row = (name, plain, found["discs"])
    insert = f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?)"  # noqa: S608
    store.execute(insert, (*row, row_check(*row)))


def row_check(name: str, found: str, discs: bytes) -> int:
    """The checksum of a row, CRC-32."""
    return zlib.crc32(discs, zlib.crc32(f"{name} {found}".encode()))


def findings(
    readable: pd.DataFrame, rejected: pd.DataFrame, found_copies: pd.DataFrame
) -> pd.DataFrame:
    """What is wrong or odd with which image: `image_id, label, finding, other, detail`.

    `finding` is `unusable`, `mask`, `converted`, `blank`, `blurred`, `over-exposed`, `badly cut`,
    `few colours`, `same file`, `turned`, `rotated` or `conflicting labels`; `other` is the image
    that it is a copy or a mask of. An image may have several rows.
    """
    measured = readable[["contrast", "sharpness", "overexposed"]].to_numpy(float)
    poor = readable[["image_id", "label"]].assign(
        finding=[quality.poor_picture(*values) for values in measured],
        detail=[f"contrast {values[0]:.3g}, sharpness {values[1]:.3g}" for values in measured],
    )
    is_few = (readable["colours"] <= FEW_COLOURS) & (poor["finding"] == "")  # a blank one has one
    few = readable.loc[is_few, ["image_id", "label", "colours"]]
    cut = crops.badly_cut(readable)[["image_id", "label", "detail"]]
    converted = readable.loc[readable["converted"] != "", ["image_id", "label", "converted"]]
    label = readable.set_index("image_id")["label"]
    rows = found_copies.itertuples()
    copied = found_copies.rename(columns={"kind": "finding", "family": "other"}).assign(
        label=found_copies["image_id"].map(label),
        detail=[f"{copies.describe_copy(row)}, correlation {row.similarity:.2f}" for row in rows],
    )
    conflicting = copied[copied["label"] != copied["other"].map(label)]
    # Of a mask either the image is known, or only its folder.
    is_mask = (rejected["other"] != "") | (rejected["reason"] == MASK_FOLDER)
    parts = [
        rejected.rename(columns={"reason": "detail"}).assign(
            finding=np.where(is_mask, "mask", "unusable")
        ),
        converted.rename(columns={"converted": "detail"}).assign(finding="converted"),
        poor[poor["finding"] != ""],
        cut.assign(finding="badly cut"),
        few.assign(finding="few colours", detail=few["colours"].map("{:.0f} colours".format)),
        copied,
        conflicting.assign(finding="conflicting labels"),
    ]
    columns = ["image_id", "label", "finding", "other", "detail"]
    table = pd.concat(parts, ignore_index=True).reindex(columns=columns).fillna("")
    return table.sort_values(["finding", "image_id"], ignore_index=True)
