"""Short names for patients, slides, groups and images, for everything that may leave the machine.

They are numbered in the order of the images' hashes: a number says nothing about the name, and is
the same when the run is made again. `pseudonyms.csv` of the run folder is the key.
"""

import pandas as pd

from cytology.settings import InputError

KINDS = {"patient": "patient", "slide": "slide", "group": "group", "image": "image_id"}


def pseudonyms(manifest: pd.DataFrame) -> pd.DataFrame:
    """The key of a run, one row per name: `kind, name, pseudonym` (patient, Ann Lee, patient 07).

    `manifest` has `patient, slide, group, image_id` and the images' `sha256`.
    """
    ordered = manifest.sort_values(["sha256", "image_id"])
    parts = []
    for kind, column in KINDS.items():
        names = ordered.loc[ordered[column] != "", column].drop_duplicates()
        width = len(str(len(names)))
        numbered = [f"{kind} {number:0{width}}" for number in range(1, len(names) + 1)]
        parts.append(pd.DataFrame({"kind": kind, "name": names, "pseudonym": numbered}))
    return pd.concat(parts, ignore_index=True)


def with_pseudonyms(
    rows: pd.DataFrame, manifest: pd.DataFrame, columns: tuple[str, ...] = ("group",)
) -> pd.DataFrame:
    """A table whose `columns` have pseudonyms for names; `InputError` for a name without one."""
    key = pseudonyms(manifest)
    kind_of = {column: kind for kind, column in KINDS.items()}
    for column in columns:
        known = key[key["kind"] == kind_of[column]].set_index("name")["pseudonym"]
        unknown = sorted(set(rows[column]) - set(known.index))
        if unknown:
            raise InputError(
                f"manifest.csv knows no {kind_of[column]} {unknown[0]!r}: put back what notebook "
                "01 wrote, or run it and what follows again."
            )
        rows = rows.assign(**{column: rows[column].map(known)})
    return rows
