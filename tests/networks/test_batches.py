"""Images decoded once, pictures in batches, features computed once."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from cytology.data.augmentation import fit_to_square, orient, pictures_of
from cytology.data.images.opening import open_rgb
from cytology.data.inspection import inspect_images
from cytology.data.load import load
from cytology.networks import batches as pipeline
from cytology.networks.batches import DecodedImages, batches, decode, frozen_features
from cytology.settings import InputError

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("cache")]
SIZE = 75


def test_an_image_is_decoded_once_and_found_by_name(data, tmp_path, monkeypatch):
    for name in data.manifest["image_id"]:
        expected = fit_to_square(open_rgb(data.root / name), SIZE, "pad")
        np.testing.assert_array_equal(data.images.pixels[data.images.row[name]], expected)
    first = decode(data.root, data.manifest, 75, "stretch", tmp_path)
    shuffled = data.manifest.sample(frac=1, random_state=0)
    again = decode(tmp_path / "gone", shuffled, 75, "stretch", tmp_path)
    for name in data.manifest["image_id"]:
        np.testing.assert_array_equal(again.pixels[again.row[name]], first.pixels[first.row[name]])
    assert not np.array_equal(first.pixels, data.images.pixels)
    assert list((tmp_path / "images").iterdir()) != []
    monkeypatch.setattr(pipeline, "READING", "other code")
    with pytest.raises(InputError, match="can no longer be read"):  # so the file was opened
        decode(tmp_path / "gone", shuffled, 75, "stretch", tmp_path)


def test_decoding_continues_where_it_was_interrupted(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "rows_of_a_pack", lambda shape, dtype: 5)
    opened = []

    def breaks_after(count):
        def open_some(path):
            if len(opened) == count:
                raise KeyboardInterrupt
            opened.append(path.name)
            return open_rgb(path)

        return open_some

    monkeypatch.setattr(pipeline, "cores", lambda: 1)
    monkeypatch.setattr(pipeline, "open_rgb", breaks_after(13))
    with pytest.raises(KeyboardInterrupt):
        decode(data.root, data.manifest, SIZE, "pad", tmp_path)
    kept = sum(len(np.load(pack)) for pack in tmp_path.glob("images/*/*.npy"))
    assert kept in (9, 10)  # two packs; the smallest of the five has four images
    del opened[:]
    monkeypatch.setattr(pipeline, "open_rgb", breaks_after(24))
    images = decode(data.root, data.manifest, SIZE, "pad", tmp_path)
    assert len(opened) == 24 - kept
    for name in data.manifest["image_id"]:
        expected = data.images.pixels[data.images.row[name]]
        np.testing.assert_array_equal(images.pixels[images.row[name]], expected)


def test_a_changed_or_duplicated_image_gets_no_stale_pixels(data, tmp_path, smear):
    root = tmp_path / "data"
    shutil.copytree(data.root, root)
    decode(root, data.manifest, 75, "pad", tmp_path)
    smear(12345).save(root / "B" / "p000_0.png")
    shutil.copy(root / "B" / "p002_0.png", root / "B" / "p002_1.png")
    readable, _ = inspect_images(load(str(root)), tmp_path)
    images = decode(root, readable, 75, "pad", tmp_path)
    expected = fit_to_square(smear(12345), 75, "pad")
    np.testing.assert_array_equal(images.pixels[images.row["B/p000_0.png"]], expected)
    assert images.row["B/p002_0.png"] == images.row["B/p002_1.png"]
    assert len(images.pixels) == 23


def test_pictures_labels_and_weights_stay_together_when_shuffled(data):
    pictures = pictures_of(data.split, 8)[["image_id", "orientation", "label"]]
    pictures["weight"] = np.arange(len(pictures), dtype=float)
    feed = batches(data.images, pictures, 20, shuffle_seed=1)
    orders = []
    for _ in range(2):
        weights = []
        for found, labels, weight in feed:
            rows = pictures.iloc[weight.numpy().astype(int)]
            expected = data.images.batch(rows["image_id"], rows["orientation"])
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(labels.numpy().ravel() == 1, rows["label"] == "M")
            weights += weight.numpy().tolist()
        assert sorted(weights) == pictures["weight"].tolist()
        orders.append(weights)
    assert orders[0] != orders[1]
    again = [w for *_, weight in batches(data.images, pictures, 20, 1) for w in weight.numpy()]
    assert again == orders[0]
    assert not feed.options().autotune.enabled  # it would delay the end of each epoch


def test_each_picture_of_a_batch_is_the_rotated_image(data):
    (found,) = batches(data.images, pictures_of(data.manifest[["image_id"]][:1], 8), 8)
    upright = data.images.pixels[data.images.row[data.manifest["image_id"][0]]]
    np.testing.assert_array_equal(found, [orient(upright, o) for o in range(8)])


KEY = ("mean", "hash", SIZE, "pad", "float32", "tensorflow")


@dataclass
class MeanColour:
    """In place of a network: features are the colours of the corner; counts its pictures."""

    shape: tuple = (3,)
    engine: str = "tensorflow"
    seen: int = 0

    def __call__(self, batch):
        self.seen += len(batch)
        return np.asarray(batch)[:, 0, 20, : self.shape[0]].astype(np.float32)


def features_from(data, pictures, cache, key=KEY, images=None):
    passes, images = MeanColour(), images or data.images
    found = frozen_features(passes, images, pictures, list(key), 5, cache)
    assert passes.seen == found.computed
    expected = images.batch(pictures["image_id"], pictures["orientation"])[:, 0, 20]
    np.testing.assert_array_equal(found.of(pictures), expected)
    np.testing.assert_array_equal(found.of(pictures[::-1]), expected[::-1])
    return found.computed


def test_features_are_computed_once_and_only_if_missing(data, tmp_path):
    some, everything = pictures_of(data.manifest[:6], 4), pictures_of(data.manifest, 8)
    assert features_from(data, some, tmp_path) == 24
    assert features_from(data, some.sample(frac=1, random_state=0), tmp_path) == 0
    assert features_from(data, everything, tmp_path) == 8 * 24 - 24
    assert features_from(data, everything, tmp_path) == 0
    assert features_from(data, some, tmp_path, ("mean", "other", *KEY[2:])) == 24
    assert features_from(data, some, tmp_path, (*KEY[:5], "openvino")) == 24
    assert features_from(data, some, tmp_path) == 0


def test_features_of_another_width_are_computed_again(data, tmp_path):
    pictures = pictures_of(data.manifest, 1)
    features_from(data, pictures, tmp_path)

    narrower = MeanColour(shape=(2,))
    found = frozen_features(narrower, data.images, pictures, list(KEY), 5, tmp_path)
    assert found.computed == narrower.seen == 24 and found.width == 2


def test_only_changed_images_are_recomputed_not_renamed_or_duplicated_ones(data, tmp_path):
    pictures = pictures_of(data.manifest, 1)
    features_from(data, pictures, tmp_path)
    pixels, sha256 = np.array(data.images.pixels), data.images.sha256.copy()
    changed, copied, other = data.manifest["image_id"][:3]
    row = data.images.row.copy()
    pixels[row[changed]] = 7
    sha256[changed] = "changed"
    row[copied], sha256[copied] = row[other], sha256[other]
    images = DecodedImages(pixels, row, sha256)
    assert features_from(data, pictures, tmp_path, images=images) == 1
    names = {name: f"new/{name}" for name in data.manifest["image_id"]}
    renamed = DecodedImages(pixels, row.rename(names), sha256.rename(names))
    pictures = pictures.assign(image_id=pictures["image_id"].map(names))
    assert features_from(data, pictures, tmp_path, images=renamed) == 0
