"""Arrays on disk, found by name: made once, added in packs, mapped into memory when read.

Decoded images, frozen features and activations at a cut are kept so. A pack is written whole and
never changed. So several notebooks may add at once, what was made before an interruption counts,
and what is read takes no memory of the process's own.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.tables import written_whole

PACK_BYTES = 32 * 2**20


def digest(*parts) -> str:
    """A short name for what a cache entry depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


class Rows:
    """Rows of a store in an order of one's own, read when they are indexed.

    An integer gives a mapped row; a slice or an array of indices copies rows into memory, as
    `np.asarray` does with all of them. `shape` is (rows, ...).
    """

    def __init__(self, packs: list[np.ndarray], pack: np.ndarray, row: np.ndarray):
        self.packs, self.pack, self.row = packs, pack, row
        self.shape = (len(row), *packs[0].shape[1:]) if packs else (0,)
        self.dtype = packs[0].dtype if packs else np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index) -> np.ndarray:
        pack, row = self.pack[index], self.row[index]
        if np.ndim(row) == 0:
            return self.packs[pack][row]
        found = np.empty((len(row), *self.shape[1:]), self.dtype)
        for number in np.unique(pack):
            here = pack == number
            found[here] = self.packs[number][row[here]]
        return found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


class ArrayStore:
    """Rows of one shape and type in `folder`, each found by its name; `names` are those it has."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.packs: list[np.ndarray] = []
        self.names = pd.Index([], dtype=object)
        self._read: set[str] = set()
        self._pack = self._row = np.empty(0, np.int64)
        self.look_again()

    def look_again(self) -> None:
        """Take up what was added since, also by others."""
        names, pack, row = [self.names], [self._pack], [self._row]
        # The list of names is written last: without one, a pack is not there.
        for listed in sorted(self.folder.glob("*.names")):
            if listed.stem in self._read:
                continue
            self._read.add(listed.stem)
            added = listed.read_text(encoding="utf-8").split("\n")
            names.append(pd.Index(added, dtype=object))
            pack.append(np.full(len(added), len(self.packs)))
            row.append(np.arange(len(added)))
            mapped = np.load(listed.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            self.packs.append(mapped)
        if len(names) > 1:
            known = names[0].append(names[1:])
            first = ~known.duplicated()  # two notebooks may have made the same row
            self.names = known[first]
            self._pack, self._row = np.concatenate(pack)[first], np.concatenate(row)[first]

    def missing(self, names: pd.Index) -> np.ndarray:
        """Positions in `names` of what is not there; of a name that stands twice, the first."""
        return np.flatnonzero(~names.isin(self.names) & ~names.duplicated())

    def add(self, names: pd.Index, values: np.ndarray) -> None:
        """Keep `values`, shape (names, ...), under `names`."""
        name = digest(*names)
        if not (self.folder / f"{name}.names").is_file():
            with written_whole(self.folder / f"{name}.npy") as temporary:
                np.save(temporary, values)
            with written_whole(self.folder / f"{name}.names") as temporary:
                temporary.write_text("\n".join(names), encoding="utf-8")
        self.look_again()

    def rows(self, names: pd.Index) -> Rows:
        """The rows of `names`, in their order; KeyError for one that is not there."""
        found = self.names.get_indexer(names)
        if (found < 0).any():
            raise KeyError(f"{names[found < 0][0]} is not in {self.folder}")
        return Rows(self.packs, self._pack[found], self._row[found])


def rows_of_a_pack(shape: tuple[int, ...], dtype) -> int:
    """How many rows of `shape` make a pack of about 32 MiB; at least 1."""
    return max(1, PACK_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize))
