"""Benchmarks of engines and of alternatives, with made-up features and times."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytology.settings import PROJECT_ROOT, InputError

sys.path.insert(0, str(PROJECT_ROOT))

from benchmarks import alternatives, engines, networks, plain_pytorch

from cytology.networks.engines import OPENVINO, TENSORFLOW, TITLES

SLOW, FAST = engines.EXACT, TITLES[OPENVINO]


@pytest.fixture
def split():
    """40 images of both classes in 5 folds."""
    label = np.tile(list("BM"), 20)
    fold = np.repeat(range(5), 8).astype(float)
    return pd.DataFrame({"image_id": range(40), "label": label, "fold": fold})


@pytest.fixture
def features(split):
    """Exact features that tell the classes apart, the same again, and each of another image."""
    exact = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    exact[split["label"] == "M"] += 2
    reverse = np.r_[exact[1:], exact[:1]]  # each image with the features of one of the other class
    return {SLOW: exact, FAST: exact.copy(), "reverse": reverse}


# ---------------------------------------------------------------------- engines


def test_exact_features_lose_nothing_and_inexact_ones_do(features, split):
    table = engines.exactness(features, split, ranks=False).set_index("way")
    assert table.loc[FAST].tolist() == [0, 0]
    assert table.loc["reverse", "lost"] > 0.5
    assert table.loc["reverse", "largest_of_a_logit"] > 1
    assert "auc" not in table


def test_heads_of_each_engine_never_saw_the_fold_that_they_judge(features, split):
    table = engines.exactness(features, split, ranks=True).set_index("way")
    assert table.loc[FAST, "auc"] == table.loc[SLOW, "auc"] > 0.9
    assert table.loc[FAST, "other_decisions"] == 0
    # Heads trained on reversed features reverse them again.
    assert table.loc["reverse", "auc"] > 0.9 and table.loc["reverse", "other_decisions"] < 0.3
    noise = np.random.default_rng(1).normal(size=(40, 200)).astype(np.float32)
    assert engines.exactness({SLOW: noise}, split, ranks=True)["auc"].item() < 0.8


def test_sentences_report_the_result(features, split):
    exact, same, reverse = engines.sentences("net", engines.exactness(features, split, True))
    assert exact.startswith(f"net, {SLOW}: AUC out of fold 0.9") and "loses" not in exact
    assert "loses 0 of the differences" in same and "0.00% of the decisions" in same
    assert "a logit differs by" in reverse
    assert len(engines.sentences("net", engines.exactness(features, split, False))) == 2


def test_unavailable_engines_are_left_out_and_named(monkeypatch):
    def refuse(model):
        raise InputError("not here.")

    monkeypatch.setattr(engines, "feature_extractor", lambda model: model)
    monkeypatch.setattr(engines, "in_bfloat16", refuse)
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "tf2onnx" else name)
    monkeypatch.setattr(engines, "available_engines", lambda: ())
    ways, lacking = engines.ways_of(None, None)
    assert list(ways) == [SLOW]
    assert ["not here" in lacking[0], "tf2onnx not installed." in lacking[1]] == [True, True]
    assert "OpenVINO was not measured" in lacking[2]


def test_the_series_is_compared_with_tensorflow_and_with_its_engine_alone():
    rates = {SLOW: [10.0], FAST: [45.0], engines.ALONE: [44.0], engines.SERIES: [41.0]}
    way, series, alone = engines.rows_of("net", rates, 4)
    assert way.ratio == 4.5 and way.met is None
    assert series.ratio == 4.1 and series.met
    assert alone.ratio == pytest.approx(41 / 44) and alone.limit == 0.9 and alone.met
    slower = rates | {engines.SERIES: [39.0]}
    assert [row.met for row in engines.rows_of("net", slower, 4)] == [None, False, False]


def test_all_pictures_are_processed_in_batches():
    passed = []
    assert engines.rate_of(lambda pixels: passed.append(len(pixels)), np.zeros((70, 1))) > 0
    assert passed == [32, 32, 6]


def test_engines_are_tried_without_the_project_cache(monkeypatch, tmp_path):
    module, seen = networks.passes, []

    def choose(asked, *_):
        seen.extend([asked, module.CACHE, networks.engines.CACHE])
        return module.Engine(TENSORFLOW, "it is there.")

    monkeypatch.setattr(module, "choose_engine", choose)
    before = module.CACHE
    passes, engine = networks.chosen_passes("extractor", None, tmp_path)
    assert seen == ["auto", tmp_path, tmp_path] and module.CACHE == before != tmp_path
    assert passes.model == "extractor" and engine.name == TENSORFLOW


# ----------------------------------------------------------------- alternatives


def test_alternatives_are_compared_on_the_same_number_of_pictures():
    seconds = {alternatives.OURS: [2.0], alternatives.PLAIN: [30.0]}
    seconds |= {alternatives.AS_TAKEN: [1.0], alternatives.PREDICT: [3.0]}
    rows = alternatives.rows_of_ways(seconds)
    assert [row.ratio for row in rows] == [15, 3]
    rows = alternatives.rows_of_ways(seconds | {alternatives.PYTORCH: [0.5]})
    assert rows[-1].ratio == 0.5 and alternatives.PYTORCH in rows[-1].what


def test_the_image_folders_can_be_read_by_every_library(tmp_path, smear):
    (tmp_path / "given").mkdir()
    smear(0).save(tmp_path / "given/one.JPG", "JPEG")
    smear(1).save(tmp_path / "given/two.tif")
    images = pd.DataFrame({"image_id": ["one.JPG", "two.tif"], "label": ["M", "B"]})
    task = SimpleNamespace(root=tmp_path / "given", split=images)
    root = alternatives.as_folders(task, tmp_path / "folders")
    assert (root / "M/000000.jpg").read_bytes() == (tmp_path / "given/one.JPG").read_bytes()
    with Image.open(root / "B/000001.png") as converted:
        assert np.array_equal(converted, smear(1))


def test_rows_are_in_the_order_of_their_files(split):
    table = alternatives.truth_and_fold(split)
    rows = plain_pytorch.rows_of(table, ["x/M/000039.jpg", "x/B/000000.png"])
    assert rows["malignant"].tolist() == [True, False] and rows["fold"].tolist() == [4, 0]


def test_plain_heads_predict_the_fold_held_out(features, split):
    table = alternatives.truth_and_fold(split)
    malignant, fold = table["malignant"].to_numpy(), table["fold"].to_numpy()
    logits = plain_pytorch.plain_heads(features[SLOW], malignant, fold)
    assert ((logits > 0) == malignant).mean() > 0.9
    told = np.where(fold == 0, ~malignant, malignant)  # labels that are wrong in one fold alone
    other = plain_pytorch.plain_heads(features[SLOW], told, fold)
    assert np.array_equal(other[fold == 0], logits[fold == 0])
    assert not np.array_equal(other[fold != 0], logits[fold != 0])
