"""Features are found by the content of a picture, and stale ones are never used."""

import numpy as np
import pandas as pd
import pytest

from cytology.data.augmentation import pictures_of
from cytology.networks.features import Features, FeatureStore, key_of_run, named_by_content

KEY = ["network", "hash of the weights", 224, "pad", "float32", "tensorflow"]
IMAGES = pd.Series({"a.png": "sha a", "b.png": "sha b", "c.png": "sha c"})


def pictures(*image_ids, orientations=2):
    return pictures_of(pd.DataFrame({"image_id": image_ids}), orientations)


def values_of(rows, shift=0.0):
    """Made-up features, shape (pictures, 3): another row for every picture."""
    first = rows["image_id"].map({"a.png": 1.0, "b.png": 2.0, "c.png": 3.0}).to_numpy()
    return np.stack([first, rows["orientation"], first * 0 + shift], axis=1).astype(np.float32)


@pytest.fixture
def cache(tmp_path):
    """A cache that holds two images in two orientations."""
    rows = pictures("a.png", "b.png")
    FeatureStore(KEY, tmp_path).add(named_by_content(rows, IMAGES), values_of(rows))
    return tmp_path


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "other network"),
        (1, "other weights"),
        (2, 96),
        (3, "stretch"),
        (4, "float16"),
        (5, "openvino"),
    ],
)
def test_features_are_not_found_under_another_key(cache, place, value):
    key = [*KEY[:place], value, *KEY[place + 1 :]]
    assert FeatureStore(key, cache).features(pictures("a.png"), IMAGES) is None


def test_the_key_of_a_run_names_its_engine_or_the_one_used_instead(run):
    own, instead = key_of_run(run, "mobilenetv2"), key_of_run(run, "mobilenetv2", "openvino")
    assert own == ["mobilenetv2", "0" * 64, 224, "pad", "float32", "tensorflow"]
    assert instead == [*own[:5], "openvino"]


def test_features_of_another_image_reader_are_not_found(cache, monkeypatch):
    monkeypatch.setattr("cytology.networks.features.READING", "other code")
    assert FeatureStore(KEY, cache).features(pictures("a.png"), IMAGES) is None


def test_features_of_another_width_are_reported_and_recomputed(cache, capsys):
    rows = pictures("a.png")
    assert FeatureStore(KEY, cache, shape=(3,)).features(rows, IMAGES) is not None
    store = FeatureStore(KEY, cache, shape=(5,))
    assert store.features(rows, IMAGES) is None
    assert "has rows of shape (3,), not (5,), and is made again" in capsys.readouterr().out
    store.add(named_by_content(rows, IMAGES), np.ones((2, 5), np.float32))
    assert FeatureStore(KEY, cache).features(rows, IMAGES).width == 5


@pytest.mark.parametrize(
    "wanted",
    [pictures("a.png", "c.png"), pictures("a.png", orientations=4)],
    ids=["an image", "an orientation"],
)
def test_there_are_no_features_if_any_is_missing(cache, wanted):
    assert FeatureStore(KEY, cache).features(wanted, IMAGES) is None


def test_an_unknown_image_has_no_features():
    rows = pictures("a.png", "b.png")
    names = pd.MultiIndex.from_frame(rows[["image_id", "orientation"]])
    with pytest.raises(KeyError, match="no features of c.png"):
        Features(values_of(rows), names).of(pictures("a.png", "c.png"))
