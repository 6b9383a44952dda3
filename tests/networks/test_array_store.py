"""Arrays on disk: found by name, added by several processes at once, complete or missing."""

import numpy as np
import pandas as pd
import pytest

from cytology.files import is_sound, keep_checksum
from cytology.networks import array_store
from cytology.networks.array_store import ArrayStore, rows_of_a_pack


def names(*found):
    return pd.Index(found, dtype=object)


def values(*found):
    """A small array of shape (rows, 2, 3) for each number."""
    return np.stack([np.full((2, 3), number, np.uint8) for number in found])


@pytest.fixture
def folder(tmp_path):
    """A store in two packs, in a folder with a space and an umlaut."""
    folder = tmp_path / "mit Übung"
    store = ArrayStore(folder)
    store.add(names("a", "b"), values(1, 2))
    store.add(names("c"), values(3))
    return folder


def test_rows_are_read_by_name_in_any_order_and_from_any_pack(folder):
    for store in (ArrayStore(folder), ArrayStore(folder)):
        rows = store.rows(names("c", "a", "b", "a"))
        assert rows.shape == (4, 2, 3) and rows.dtype == np.uint8 and len(rows) == 4
        np.testing.assert_array_equal(rows, values(3, 1, 2, 1))
        np.testing.assert_array_equal(rows[1:3], values(1, 2))
        np.testing.assert_array_equal(rows[np.array([2, 0])], values(2, 3))
        np.testing.assert_array_equal(rows[-1], values(1)[0])


def test_arrays_are_memory_mapped_and_read_only(folder):
    row = ArrayStore(folder).rows(names("a"))[0]
    assert isinstance(row, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        row[:] = 0


def test_missing_rows_are_named_once(folder):
    store = ArrayStore(folder)
    assert store.missing(names("x", "a", "y", "x", "c")).tolist() == [0, 2]
    with pytest.raises(KeyError, match="x is not in"):
        store.rows(names("a", "x"))


def test_concurrent_writers_lose_nothing_and_duplicates_do_no_harm(tmp_path):
    one, other = ArrayStore(tmp_path), ArrayStore(tmp_path)
    one.add(names("a", "b"), values(1, 2))
    other.add(names("b", "c"), values(2, 3))
    assert list(one.names) == ["a", "b"]
    one.refresh()
    for store in (one, other, ArrayStore(tmp_path)):
        assert sorted(store.names) == ["a", "b", "c"]
        np.testing.assert_array_equal(store.rows(names("c", "b", "a")), values(3, 2, 1))


def test_the_same_pack_is_written_once(tmp_path):
    one, other = ArrayStore(tmp_path), ArrayStore(tmp_path)
    one.add(names("a"), values(1))
    stood = (tmp_path / next(tmp_path.glob("*.npy"))).stat().st_mtime_ns
    other.add(names("a"), values(1))
    assert next(tmp_path.glob("*.npy")).stat().st_mtime_ns == stood
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pack_without_its_names_is_ignored_and_written_again(folder, monkeypatch):
    def breaks(path, array):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", breaks)
        with pytest.raises(KeyboardInterrupt):
            ArrayStore(folder).add(names("d"), values(4))
    assert ArrayStore(folder).missing(names("d")).tolist() == [0]
    assert len(list(folder.iterdir())) == 4  # no partial file is left

    written = array_store.written_whole
    with monkeypatch.context() as patch:
        patch.setattr(array_store, "written_whole", lambda path: written(_only_arrays(path)))
        with pytest.raises(KeyboardInterrupt):
            ArrayStore(folder).add(names("d"), values(4))
    store = ArrayStore(folder)
    assert store.missing(names("d")).tolist() == [0]
    store.add(names("d"), values(5))
    np.testing.assert_array_equal(store.rows(names("d")), values(5))


def _only_arrays(path):
    if path.suffix == ".names":
        raise KeyboardInterrupt
    return path


def test_packs_have_about_the_same_size_whatever_their_rows():
    assert rows_of_a_pack((224, 224, 3), np.uint8) == 222
    assert rows_of_a_pack((1280,), np.float32) == 6553
    assert rows_of_a_pack((5000, 5000, 3), np.uint8) == 1


# -------------------------------------------------------------------- checksums


def flip_bit(path):
    """Turn one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "harm", [flip_bit, truncate, lambda path: path.write_bytes(b""), lambda p: p.unlink()]
)
@pytest.mark.parametrize("kind", ["npy", "names"])
def test_a_damaged_pack_is_reported_and_written_again(folder, capsys, harm, kind):
    (listed,) = (path for path in folder.glob("*.names") if "a" in path.read_text().split("\n"))
    harmed = listed.with_suffix(f".{kind}")
    harm(harmed)
    gone = not harmed.exists()
    store = ArrayStore(folder)
    assert store.missing(names("a", "b", "c")).tolist() == [0, 1]
    # Without its list a pack counts as never written, and nothing is reported.
    told = not (gone and kind == "names")
    assert ("is damaged and is made again" in capsys.readouterr().out) == told
    store.add(names("a", "b"), values(1, 2))
    for each in (store, ArrayStore(folder)):
        assert not len(each.missing(names("a", "b", "c")))
        np.testing.assert_array_equal(each.rows(names("c", "a", "b")), values(3, 1, 2))


def test_only_the_requested_packs_are_verified(folder, monkeypatch):
    read = []
    monkeypatch.setattr(array_store, "checksum", lambda path: read.append(path) or "no")
    ArrayStore(folder).missing(names("c"))
    assert len(read) == 1


def test_files_and_folders_match_their_checksums(tmp_path, capsys):
    folder = tmp_path / "ein Archiv"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"one")
    (tmp_path / "b.h5").write_bytes(b"weights")
    for path in (folder, tmp_path / "b.h5"):
        keep_checksum(path)
        assert is_sound(path) and is_sound(path)
    (folder / "a.png").rename(folder / "c.png")
    (tmp_path / "b.h5").write_bytes(b"wejghts")
    for path in (folder, tmp_path / "b.h5", tmp_path / "never there"):
        assert not is_sound(path) and not path.exists()
    assert capsys.readouterr().out.count("is damaged") == 2
