"""Neighbours in feature space: groups left out, images unlike training, the map."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from cytology.inference.similarity import (
    Reference,
    feature_places,
    nearest,
    read_reference,
    reference,
    write_reference,
)

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def known():
    """60 images of 12 groups; images of one group lie close together."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 5)
    values = rng.normal(size=(12, 20))[group] * 3 + rng.normal(size=(60, 20)) * 0.1
    table = pd.DataFrame({"image_id": [f"ü{k:02}.png" for k in range(60)]})
    table["label"] = np.where(group % 2, "M", "B")
    return reference(table.assign(group=[f"g{k:02}" for k in group]), values)


def test_distances_ignore_an_images_own_group(known):
    for k in (0, 17, 59):
        others = known.values[(known.table["group"] != known.table["group"][k]).to_numpy()]
        scaler = StandardScaler().fit(others)
        model = NearestNeighbors(n_neighbors=1).fit(scaler.transform(others))
        expected = model.kneighbors(scaler.transform(known.values[k : k + 1]))[0][0, 0]
        assert known.distances[k] == pytest.approx(expected, rel=1e-4)
    counted, _ = nearest(known, known.values, 2)
    assert (counted[:, 0] < 1e-3).all()  # itself
    assert (counted[:, 1] < known.distances).all()  # its group


def test_neighbours_match_scikit_learn(known):
    new = np.random.default_rng(1).normal(size=(7, 20))
    scaler = StandardScaler().fit(known.values)
    model = NearestNeighbors(n_neighbors=4).fit(scaler.transform(known.values))
    expected, positions = model.kneighbors(scaler.transform(new))
    distances, found = nearest(known, new, 4)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    np.testing.assert_array_equal(found, positions)


def test_distant_images_are_beyond_the_limit_and_known_patients_are_not(known):
    distances, _ = nearest(known, known.values, 1, known.table["group"])
    assert (distances[:, 0] > known.limit).mean() <= 0.02
    assert (nearest(known, known.values[:3] + 40, 1)[0] > known.limit).all()


def limit_slowly(known):
    """The smallest distance whose mean share beyond, with one group more, is within the rate."""
    near = np.isfinite(known.distances)
    groups = known.table["group"][near]
    for distance in np.sort(known.distances[near]):
        beyond = pd.Series(known.distances[near] > distance).groupby(groups.to_numpy()).mean()
        if (beyond.sum() + 1) / (len(beyond) + 1) <= known.rate + 1e-12:
            return distance


@pytest.mark.parametrize("groups", [5, 40, 150, 400])
def test_the_limit_is_the_smallest_that_respects_the_rate(groups):
    rng = np.random.default_rng(groups)
    sizes = np.exp(rng.uniform(0, np.log(9), groups)).astype(int)
    group = np.repeat(np.arange(groups), sizes)
    table = pd.DataFrame({"image_id": np.arange(len(group)).astype(str), "label": "B"})
    distances = rng.exponential(size=len(group)).round(2)
    known = Reference(table.assign(group=group), np.zeros((len(group), 1)), distances)
    assert known.rate == max(0.01, 1 / (groups + 1))
    assert known.limit == limit_slowly(known)
    assert (known.limit == distances.max()) == (groups < 100)


@pytest.mark.parametrize("patients", [8, 40])
def test_new_patients_are_flagged_no_more_often_than_promised(patients):
    """Some patients are unusual as a whole, which a quantile over images hardly detects."""
    rng, flagged = np.random.default_rng(patients), []

    def images(count):
        group = np.repeat(np.arange(count), 6)
        odd = rng.exponential(size=(count, 1))[group]
        values = odd * rng.normal(size=(count, 4))[group] + 0.3 * rng.normal(size=(len(group), 4))
        table = pd.DataFrame({"image_id": np.arange(len(group)).astype(str), "label": "B"})
        return table.assign(group=group), values

    for _ in range(120):
        known = reference(*images(patients))
        distances, _ = nearest(known, images(20)[1], 1)
        flagged.append((distances[:, 0] > known.limit).mean())
    error = np.std(flagged) / np.sqrt(len(flagged))
    assert 0.2 * known.rate < np.mean(flagged) <= known.rate + 2 * error


def test_a_single_group_has_no_neighbours():
    table = pd.DataFrame({"image_id": ["a", "b"], "label": "B", "group": "g"})
    distances, _ = nearest(reference(table, np.eye(2)), np.eye(2), 1, table["group"])
    assert np.isinf(distances).all()
    assert np.isinf(reference(table, np.eye(2)).limit)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_keeps_groups_together_and_is_reproducible(known, method):
    placed, axes = feature_places(known.values, method, 0)
    assert ("of the variance" in axes[0]) == (method == "pca")
    assert placed.shape == (60, 2)
    np.testing.assert_array_equal(placed, feature_places(known.values, method, 0)[0])
    group = known.table["group"].to_numpy()
    model = NearestNeighbors(n_neighbors=2).fit(placed)
    neighbour = model.kneighbors(placed)[1][:, 1]
    assert (group[neighbour] == group).mean() > 0.9


def test_a_reference_is_read_only_for_its_own_model(known, tmp_path):
    path = tmp_path / "größe" / "reference.npz"
    assert read_reference(path, "abc") is None
    write_reference(path, known, "abc", 0.25)
    assert read_reference(path, "another") is None
    again, falsely = read_reference(path, "abc")
    assert falsely == 0.25
    pd.testing.assert_frame_equal(again.table, known.table, check_dtype=False)
    np.testing.assert_array_equal(again.values, known.values)
    assert again.limit == known.limit
