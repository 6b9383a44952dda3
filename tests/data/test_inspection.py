"""Every image is opened once, whatever happens in between; the findings are in a table."""

import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter, ImageOps

from cytology.data import inspection, quality
from cytology.data.copies import find_copies
from cytology.data.inspection import INSPECTED, findings, inspect_images, open_cache
from cytology.data.sources.listing import REFUSED, folder
from cytology.machine import in_parallel
from cytology.settings import InputError


@pytest.fixture
def root(tmp_path, smear_folder):
    return smear_folder(tmp_path / "data", patients=4)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that were really opened, as a list that grows."""
    names, inspect_image = [], quality.inspect_image

    def spy(path):
        names.append(path.name)
        return inspect_image(path)

    monkeypatch.setattr(quality, "inspect_image", spy)
    return names


def cached_images(cache):
    """How many images the cache holds, as another process sees it."""
    with sqlite3.connect(cache / "inspected.sqlite") as store:
        return store.execute("SELECT count(*) FROM checked").fetchone()[0]


# --------------------------------------------------------------------- the tables


def test_readable_images_have_their_measurements(root, cache):
    listing = folder(root, patient_pattern=r"(p\d+)_")
    readable, rejected = inspect_images(listing, cache)
    assert list(readable) == [*listing.images.columns, *INSPECTED]
    pd.testing.assert_frame_equal(readable[listing.images.columns], listing.images)
    assert (readable["width"] == 64).all() and readable["height"].dtype == int
    assert len(rejected) == 0 and list(rejected) == REFUSED


def test_unreadable_images_are_rejected_with_a_reason_and_the_rest_are_kept(root, cache, smear):
    whole = (root / "B" / "p000_0.png").read_bytes()
    (root / "B" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "B" / "text.png").write_text("no image")
    (root / "M" / "empty.jpg").write_bytes(b"")
    smear(1).save(root / "M" / "web.webp")
    readable, rejected = inspect_images(folder(root), cache)
    assert len(readable) == 8 and readable.index.tolist() == list(range(8))
    assert rejected["label"].tolist() == ["B", "B", "M", "M"]
    reasons = rejected.set_index("image_id")["reason"]
    assert reasons.pop("B/cut.png").startswith("damaged: ")
    assert reasons.to_dict() == {
        "B/text.png": "not a JPEG, PNG, BMP or TIFF image",
        "M/empty.jpg": "empty file",
        "M/web.webp": "a WebP image: save it as PNG or TIFF",
    }


@pytest.mark.parametrize(("broken", "which"), [("M", "one class"), ("BM", "either class")])
def test_a_class_without_readable_images_is_refused(root, cache, broken, which):
    for label in broken:
        for path in (root / label).iterdir():
            path.write_text("no image")
    with pytest.raises(InputError) as error:
        inspect_images(folder(root), cache)
    assert str(error.value) == (
        f"No readable image of {which} in {root}: {4 * len(broken)} files were rejected, "
        "the first because: not a JPEG, PNG, BMP or TIFF image."
    )


# ---------------------------------------------------------------------- the cache


def test_a_second_inspection_opens_no_image_and_gives_the_same_result(root, cache, opened):
    first, _ = inspect_images(folder(root), cache)
    assert len(opened) == 8
    again, _ = inspect_images(folder(root), cache)
    assert len(opened) == 8
    pd.testing.assert_frame_equal(again, first)
    assert again["discs"].map(type).eq(bytes).all()


def test_a_changed_file_is_inspected_again_but_not_a_moved_or_duplicated_one(
    root, cache, opened, smear, tmp_path
):
    inspect_images(folder(root), cache)
    opened.clear()
    shutil.move(root, tmp_path / "moved")
    root = tmp_path / "moved"
    shutil.copy(root / "B" / "p000_0.png", root / "B" / "copy.png")
    smear(12345, 80, 40).save(root / "M" / "p001_0.png")
    readable, _ = inspect_images(folder(root), cache)
    assert opened == ["p001_0.png"]
    known = readable.set_index("image_id")
    assert known.loc["M/p001_0.png", ["width", "height"]].tolist() == [80, 40]
    assert known.loc["B/copy.png", "sha256"] == known.loc["B/p000_0.png", "sha256"]


def test_an_unreadable_file_is_not_cached_and_is_inspected_again(root, cache, opened, monkeypatch):
    (root / "B" / "text.png").write_text("no image")
    inspect_images(folder(root), cache)
    assert cached_images(cache) == 8
    opened.clear()
    _, rejected = inspect_images(folder(root), cache)
    assert opened == ["text.png"] and rejected["reason"].tolist() == [
        "not a JPEG, PNG, BMP or TIFF image"
    ]


def test_cached_measurements_apply_to_every_name_of_a_file(root, cache, opened):
    inspect_images(folder(root), cache)
    opened.clear()
    shutil.copy(root / "B" / "p000_0.png", root / "B" / "p000_0.webp")
    readable, rejected = inspect_images(folder(root), cache)
    assert rejected.empty and "B/p000_0.webp" in set(readable["image_id"]) and not opened


def test_measurements_of_other_code_are_repeated(root, cache, opened, monkeypatch):
    inspect_images(folder(root), cache)
    monkeypatch.setattr(inspection, "CODE", "f" * 64)
    inspect_images(folder(root), cache)
    assert len(opened) == 16


def test_an_interrupted_inspection_keeps_its_results(root, cache, monkeypatch):
    inspect_image, done = quality.inspect_image, []

    def interrupted(path):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(path)
        return inspect_image(path)

    def one_by_one(function, items, *_):
        return map(function, items)

    monkeypatch.setattr(inspection, "KEPT_AT_ONCE", 2)
    monkeypatch.setattr(inspection, "in_parallel", one_by_one)
    monkeypatch.setattr(quality, "inspect_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inspect_images(folder(root), cache)
    assert cached_images(cache) == 4
    monkeypatch.setattr(
        quality, "inspect_image", lambda path: done.append(path) or inspect_image(path)
    )
    readable, _ = inspect_images(folder(root), cache)
    assert len(readable) == cached_images(cache) == 8 and len(done) == 5 + 4


def test_two_processes_may_use_the_cache_at_once(root, cache, monkeypatch):
    """The second begins while the first is writing, and both end with the same table."""
    inspect_image, found, failed = quality.inspect_image, {}, []
    monkeypatch.setattr(inspection, "KEPT_AT_ONCE", 1)

    def slow(path):
        time.sleep(0.02)
        return inspect_image(path)

    monkeypatch.setattr(quality, "inspect_image", slow)

    def work(name):
        try:
            found[name] = inspect_images(folder(root), cache)[0]
        except Exception as error:  # a thread's error would otherwise be lost
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and cached_images(cache) == 8
    pd.testing.assert_frame_equal(found["a"], found["b"])
    pd.testing.assert_frame_equal(found["a"], found["c"])


# ------------------------------------------------------------------ many workers


def shape_of(number):
    """Something to compute on a worker."""
    return number, np.full(number, number).sum()


def test_results_of_all_cores_are_in_order():
    assert list(in_parallel(shape_of, list(range(25)), "work", chunk=4)) == [
        (n, n * n) for n in range(25)
    ]
    assert list(in_parallel(shape_of, [], "work")) == []


def scheduler_of(path):
    """Inspect an image on a worker; returns the scheduler of that worker."""
    from distributed import get_worker

    return get_worker().scheduler.address, quality.inspect_image(path)


def test_a_dask_cluster_computes_the_same_in_order(root, monkeypatch):
    distributed = pytest.importorskip("distributed")
    paths = sorted(root.rglob("*.png"))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        found = list(in_parallel(scheduler_of, paths, "work", chunk=3))
        for client in list(distributed.Client._instances):
            client.close()
    assert {address for address, _ in found} == {cluster.scheduler_address}
    assert [image for _, image in found] == [quality.inspect_image(path) for path in paths]


# --------------------------------------------------------------------- findings


def test_findings_name_the_problem_and_the_image(tmp_path, smears, cache):
    for label in "BM":
        (tmp_path / label).mkdir()
    for number, image in enumerate(smears[:6]):
        image.save(tmp_path / "BM"[number % 2] / f"{number}.png")
    shutil.copy(tmp_path / "B" / "0.png", tmp_path / "B" / "same.png")
    ImageOps.mirror(smears[2].rotate(90, expand=True)).save(tmp_path / "B" / "turned.png")
    smears[4].rotate(20, Image.Resampling.BILINEAR).save(tmp_path / "M" / "rotated.png")
    Image.new("RGB", (64, 48), (180, 120, 160)).save(tmp_path / "M" / "blank.png")
    smears[7].filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "M" / "blurred.png")
    Image.new("RGB", (64, 48), "white").save(tmp_path / "M" / "white.png")
    smears[8].convert("CMYK").save(tmp_path / "M" / "cmyk.jpg")
    (tmp_path / "B" / "text.png").write_text("no image")
    readable, rejected = inspect_images(folder(tmp_path), cache)
    table = findings(readable, rejected, find_copies(readable))
    assert list(table) == ["image_id", "label", "finding", "other", "detail"]
    assert table.drop(columns="detail").to_numpy().tolist() == [
        ["M/blank.png", "M", "blank", ""],
        ["M/blurred.png", "M", "blurred", ""],
        ["M/rotated.png", "M", "conflicting labels", "B/4.png"],
        ["M/cmyk.jpg", "M", "converted", ""],
        ["M/white.png", "M", "over-exposed", ""],
        ["M/rotated.png", "M", "rotated", "B/4.png"],
        ["B/same.png", "B", "same file", "B/0.png"],
        ["B/turned.png", "B", "turned", "B/2.png"],
        ["B/text.png", "B", "unusable", ""],
    ]
    detail = table.set_index(["finding", "image_id"])["detail"]
    assert detail["rotated", "M/rotated.png"].startswith("turned +20°, correlation 0.9")
    assert detail["conflicting labels", "M/rotated.png"].startswith("turned +20°")
    assert detail["turned", "B/turned.png"].startswith("mirrored, turned -90°, correlation ")
    assert detail["same file", "B/same.png"] == "the same file, correlation 1.00"
    assert detail["unusable", "B/text.png"] == "not a JPEG, PNG, BMP or TIFF image"
    assert detail["converted", "M/cmyk.jpg"] == "CMYK: converted to RGB"
    assert detail["blank", "M/blank.png"] == "contrast 0, sharpness 0"


def test_a_good_folder_has_no_findings(root, cache):
    readable, rejected = inspect_images(folder(root), cache)
    table = findings(readable, rejected, find_copies(readable))
    assert len(table) == 0 and list(table) == ["image_id", "label", "finding", "other", "detail"]


# ----------------------------------------------------------------- a damaged cache


def test_a_damaged_cache_is_reported_and_rebuilt(root, cache, opened, capsys):
    first, _ = inspect_images(folder(root), cache)
    path = cache / "inspected.sqlite"
    for content in (path.read_bytes()[: path.stat().st_size // 2], b"no data base", b""):
        path.write_bytes(content)
        opened.clear()
        again, _ = inspect_images(folder(root), cache)
        pd.testing.assert_frame_equal(again, first)
        assert len(opened) == 8 and cached_images(cache) == 8
    assert capsys.readouterr().out.count("is damaged") == 2  # an empty file is an empty cache


def test_a_tampered_cache_row_is_inspected_again(root, cache, opened):
    first, _ = inspect_images(folder(root), cache)
    with closing(sqlite3.connect(cache / "inspected.sqlite")) as store, store:
        store.execute("UPDATE checked SET found = replace(found, '64', '65') WHERE rowid = 1")
    opened.clear()
    again, _ = inspect_images(folder(root), cache)
    pd.testing.assert_frame_equal(again, first)
    assert len(opened) == 1


def test_a_locked_cache_is_not_reported_as_damaged(root, cache):
    inspect_images(folder(root), cache)
    with closing(sqlite3.connect(cache / "inspected.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_cache(cache / "inspected.sqlite", seconds=0.1)
    assert cached_images(cache) == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_folder_is_not_waited_for(root, cache):
    os.mkfifo(root / "B" / "pipe.png")
    _, rejected = inspect_images(folder(root), cache)
    assert rejected["reason"].tolist() == ["a pipe or a device, not a file"]
