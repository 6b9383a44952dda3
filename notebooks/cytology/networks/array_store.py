"""Arrays on disk, found by name: made once, added in packs, mapped into memory when read.

They hold decoded images, frozen features and activations at a cut. A pack is written atomically and
never changed. So several notebooks may add at once, finished packs survive an interruption, and
reading copies nothing into memory. Disks make errors: a checksum is compared before anything from
the cache is used, and damaged packs are made again.
"""

import functools
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from cytology.files import checksum, digest, written_whole

PACK_BYTES = 32 * 2**20


class Rows:
    """A lazy view of selected rows of a store; data are read when indexed.

    An integer gives a mapped row; a slice or an array of indices copies rows into memory, and
    `np.asarray` copies all of them. `shape` is (rows, ...).
    """

    def __init__(self, packs: list[np.ndarray | None], pack: np.ndarray, row: np.ndarray):
        self.packs, self.pack, self.row = packs, pack, row
        there = [each for each in packs if each is not None]  # damaged packs are None
        self.shape = (len(row), *there[0].shape[1:]) if there else (0,)
        self.dtype = there[0].dtype if there else np.dtype(np.float32)

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
    """Rows of one shape and type in `folder`, each found by its name; `names` lists them.

    A pack is `<name>.npy` with its list `<name>.names`, whose first line has two checksums: that of
    the names is compared when the list is read, that of the pack when its rows are needed. If the
    `shape` of a row is given, a pack of another shape is reported and removed.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...] | None = None):
        self.folder, self.shape = folder, shape
        self.packs: list[np.ndarray | None] = []
        self.names = pd.Index([], dtype=object)
        self._lists: list[Path | None] = []
        self._pack = self._row = np.empty(0, np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Also find packs that were added since, by any process."""
        names, pack, row = [self.names], [self._pack], [self._row]
        # The list of names is written last: a pack without one does not count.
        for listed in sorted({*self.folder.glob("*.names")} - {*self._lists}):
            try:
                added = read_list(listed)
                mapped = np.load(listed.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                self._remove(listed)
                continue
            if self.shape not in (None, mapped.shape[1:]):
                self._remove(listed, f"has rows of shape {mapped.shape[1:]}, not {self.shape},")
                continue
            names.append(pd.Index(added, dtype=object))
            pack.append(np.full(len(added), len(self.packs)))
            row.append(np.arange(len(added)))
            self.packs.append(mapped)
            self._lists.append(listed)
        if len(names) > 1:
            known = names[0].append(names[1:])
            first = ~known.duplicated()  # two notebooks may have added the same row
            self.names = known[first]
            self._pack, self._row = np.concatenate(pack)[first], np.concatenate(row)[first]

    def missing(self, names: pd.Index) -> np.ndarray:
        """Positions in `names` of missing rows; of a name that occurs twice, the first.

        Rows in a damaged pack are missing: such packs are reported and removed.
        """
        found = self.names.get_indexer(names)
        for number in np.unique(self._pack[found[found >= 0]]):
            listed = self._lists[number]
            if not _is_whole(listed, *_states(listed)):
                self.packs[number] = None
                kept = self._pack != number
                self.names = self.names[kept]
                self._pack, self._row = self._pack[kept], self._row[kept]
                self._remove(listed)
        return np.flatnonzero(~names.isin(self.names) & ~names.duplicated())

    def _remove(self, listed: Path, trouble: str = "is damaged") -> None:
        """Report what is wrong with a pack and remove it, its list first."""
        print(f"{listed.with_suffix('.npy')} {trouble} and is made again.")
        listed.unlink(missing_ok=True)
        listed.with_suffix(".npy").unlink(missing_ok=True)
        if listed in self._lists:
            self._lists[self._lists.index(listed)] = None

    def add(self, names: pd.Index, values: np.ndarray) -> None:
        """Keep `values`, shape (names, ...), under `names`."""
        name = digest(*names)
        if not (self.folder / f"{name}.names").is_file():
            with written_whole(self.folder / f"{name}.npy") as temporary:
                np.save(temporary, values)
                of_pack = checksum(temporary)
            with written_whole(self.folder / f"{name}.names") as temporary:
                listing = "\n".join(names)
                first = f"{zlib.crc32(listing.encode()):08x} {of_pack}"
                temporary.write_bytes(f"{first}\n{listing}".encode())
        self.refresh()

    def rows(self, names: pd.Index) -> Rows:
        """The rows of `names`, in order; KeyError if one is missing."""
        found = self.names.get_indexer(names)
        if (found < 0).any():
            raise KeyError(f"{names[found < 0][0]} is not in {self.folder}")
        return Rows(self.packs, self._pack[found], self._row[found])


def rows_of_a_pack(shape: tuple[int, ...], dtype) -> int:
    """How many rows of `shape` make a pack of about 32 MiB; at least 1."""
    return max(1, PACK_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize))


def read_list(listed: Path) -> list[str]:
    """The names in a list; `ValueError` if it is damaged."""
    first, _, listing = listed.read_bytes().partition(b"\n")
    if first.split(b" ")[0] != f"{zlib.crc32(listing):08x}".encode():
        raise ValueError(f"{listed} is damaged")
    return listing.decode().split("\n")


def _states(listed: Path) -> tuple:
    """Times and sizes of a pack and its list, which change when they are rewritten."""
    found = [path.stat() for path in (listed, listed.with_suffix(".npy"))]
    return tuple((about.st_mtime_ns, about.st_size) for about in found)


@functools.cache
def _is_whole(listed: Path, *states: tuple) -> bool:
    """Whether a pack matches the checksum in its list; compared once per process."""
    first = listed.read_text(encoding="utf-8").partition("\n")[0]
    return first.split(" ")[1] == checksum(listed.with_suffix(".npy"))
