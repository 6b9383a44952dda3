"""The same network by another engine: the same features, or the reason why not."""

import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from closeness import assert_close
from refusals import refused

from cytology.networks import engines, model_files, passes
from cytology.networks.backend import keras
from cytology.networks.batches import DecodedImages
from cytology.networks.building import (
    build,
    calibrate_normalization,
    computed_in,
    feature_extractor,
    freeze_normalization,
    head_layers,
    put_head,
)
from cytology.networks.engines import (
    BFLOAT16,
    ENGINES,
    OPENVINO,
    TENSORFLOW,
    graph_path,
    kept_passes,
)
from cytology.networks.features import Features
from cytology.networks.linear_head import LinearHead
from cytology.networks.passes import Engine, KerasPasses, choose_engine, fastest, lost_differences
from cytology.run import Run
from cytology.training import results

pytestmark = pytest.mark.numeric
SIZE, WIDTH = 32, 6
HASH = "hash of the weights"


def small_network(seed=0, precision="float32"):
    """A network of few layers with the name of another, built as `building.build` builds."""
    keras.utils.set_random_seed(seed)
    with computed_in(precision):
        image = keras.Input((SIZE, SIZE, 3), name="image")
        x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
        x = keras.layers.Conv2D(WIDTH, 5, strides=4)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.DepthwiseConv2D(3, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D(name="features", dtype="float32")(x)
        model = keras.Model(image, head_layers(x), name="mobilenetv2")
    freeze_normalization(model)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=WIDTH)
    put_head(model, LinearHead(rng.normal(size=WIDTH), np.ones(WIDTH), weights, 0.5))
    return model


def some_pictures(count, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def decoded(count=20, seed=0):
    """Decoded images of noise."""
    names = [f"{k}.png" for k in range(count)]
    row = pd.Series(range(count), index=names)
    sha256 = pd.Series([f"{seed}{k:063x}" for k in range(count)], index=names)
    return DecodedImages(some_pictures(count, seed=seed), row, sha256)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    for module in (engines, passes):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def openvino():
    pytest.importorskip("openvino")


# ------------------------------------------------------------------------ features


def test_openvino_gives_the_features_of_tensorflow(openvino, each_network, cache):
    model = build(each_network, 96)
    pixels = some_pictures(6, 96)
    pixels[:3] //= 3  # smears are not all noise
    calibrate_normalization(model, [pixels])  # else random networks give near-constant features
    extractor = feature_extractor(model)
    ours, theirs = Engine(OPENVINO, "").passes(extractor, HASH), KerasPasses(extractor)
    assert (ours.engine, theirs.engine) == (OPENVINO, TENSORFLOW)
    assert ours.shape == theirs.shape == (model.get_layer("features").output.shape[1],)
    expected = theirs(pixels)
    spread = np.ptp(expected, axis=0).max()
    for count in (6, 2, 1):
        found = ours(pixels[:count])
        assert found.dtype == np.float32 and found.shape == (count, *ours.shape)
        # A random network amplifies rounding: InceptionV3's largest difference is 0.4 % of this.
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-2 * spread)
    assert lost_differences(ours(pixels), expected) < 1e-4
    again = ours(pixels)
    np.testing.assert_array_equal(ours(pixels), again)
    turned = ours(pixels[::-1])[::-1]  # also pictures that do not lie in order in memory
    np.testing.assert_allclose(turned, again, rtol=0, atol=1e-5 * spread)
    np.testing.assert_allclose(ours(pixels[3:5]), again[3:5], rtol=0, atol=1e-5 * spread)


def test_returned_features_do_not_change_with_the_next_call(openvino, cache):
    """OpenVINO could hand out the memory in which it computes."""
    ours, pixels = (
        Engine(OPENVINO, "").passes(feature_extractor(small_network()), HASH),
        some_pictures(8),
    )
    first = ours(pixels[:4])
    kept = first.copy()
    assert not np.array_equal(ours(pixels[4:]), kept)
    np.testing.assert_array_equal(first, kept)


def test_a_copy_with_other_weights_leaves_no_files(openvino, cache, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(cache.parent / "temporary"))
    (cache.parent / "temporary").mkdir()
    monkeypatch.setattr(passes.tempfile, "tempdir", None)
    pixels = some_pictures(3)
    frozen = Engine(OPENVINO, "").passes(feature_extractor(small_network()), HASH)(pixels)
    before = sorted(cache.rglob("*"))
    other = feature_extractor(small_network(seed=1))
    found = passes.passes_of_copy(other, OPENVINO)(pixels)
    assert_close(found, KerasPasses(other)(pixels))
    assert not np.allclose(found, frozen, rtol=0.1)
    assert sorted(cache.rglob("*")) == before
    assert list((cache.parent / "temporary").iterdir()) == []
    assert isinstance(passes.passes_of_copy(other, TENSORFLOW), KerasPasses)


@pytest.mark.parametrize(
    ("fine_tuned", "offered", "expected"),
    [(False, (OPENVINO,), OPENVINO), (True, (OPENVINO,), TENSORFLOW), (False, (), TENSORFLOW)],
)
def test_a_saved_model_runs_as_in_training(
    openvino, cache, monkeypatch, fine_tuned, offered, expected
):
    monkeypatch.setattr(engines, "available_engines", lambda: offered)
    model, pixels = small_network(), some_pictures(2)
    about = {"engine": OPENVINO, "architecture": model.name, "fine_tuned": fine_tuned}
    found = model_files.passes_of_model(SimpleNamespace(about=lambda name: about), model)
    assert found.engine == expected
    assert_close(found(pixels), feature_extractor(model).predict_on_batch(pixels))
    assert not cache.exists()


# -------------------------------------------------------------------- kept graphs

WITHOUT_TENSORFLOW = """
import sys
from pathlib import Path
import numpy as np
from cytology.networks import engines
about = {"architecture": "mobilenetv2", "weights_hash": sys.argv[1], "image_size": 32}
found = engines.kept_passes(about, engines.OPENVINO)
np.save(sys.argv[2], found(np.load(sys.argv[3])))
assert found.shape == (6,)
assert not {"tensorflow", "keras"} & set(sys.modules)
"""


def test_a_cached_graph_is_read_without_tensorflow(openvino, cache, monkeypatch):
    pixels, extractor = some_pictures(3), feature_extractor(small_network())
    Engine(OPENVINO, "").passes(extractor, HASH)
    asked, answer = cache / "asked.npy", cache / "answer.npy"
    np.save(asked, pixels)
    monkeypatch.setenv("CYTOLOGY_CACHE", str(cache))
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, HASH, str(answer), str(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_close(np.load(answer), KerasPasses(extractor)(pixels))


def test_without_a_cached_graph_openvino_needs_tensorflow(openvino, cache, capsys):
    about = {"architecture": "mobilenetv2", "weights_hash": HASH, "image_size": SIZE}
    assert kept_passes(about, OPENVINO) is None  # nothing is there
    path = passes.kept_graph(feature_extractor(small_network()), HASH)
    assert path == graph_path("mobilenetv2", HASH, SIZE)
    assert kept_passes(about, OPENVINO).engine == OPENVINO
    assert kept_passes(about, TENSORFLOW) is None
    for name, value in (("weights_hash", "other"), ("image_size", 33)):
        assert kept_passes(about | {name: value}, OPENVINO) is None
    assert capsys.readouterr().out == ""
    path.write_bytes(path.read_bytes()[:-9])
    assert kept_passes(about, OPENVINO) is None
    assert "is damaged" in capsys.readouterr().out


def test_a_graph_is_converted_once(cache, monkeypatch):
    extractor = feature_extractor(small_network())
    path = passes.kept_graph(extractor, HASH)
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(passes, "with_constants", None)
        assert passes.kept_graph(extractor, HASH).read_bytes() == whole
    path.write_bytes(b"")
    assert len(passes.kept_graph(extractor, HASH).read_bytes()) == len(whole)


# ------------------------------------------------------------------------- lost


def test_the_lost_share_of_differences_matches_known_examples():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(16, 5)).astype(np.float32)
    assert lost_differences(exact, exact) == 0
    assert lost_differences(np.broadcast_to(exact.mean(axis=0), exact.shape), exact) == (
        pytest.approx(1, rel=1e-5)
    )
    off = exact + rng.normal(scale=0.1, size=exact.shape).astype(np.float32)
    lost = lost_differences(off, exact)
    assert lost == pytest.approx(np.square(off - exact).sum() / (16 * exact.var(axis=0).sum()))
    assert lost_differences(off * 1000, exact * 1000) == pytest.approx(lost, rel=1e-4)
    assert lost_differences(off + 64, exact + 64) == pytest.approx(lost, rel=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_features_lose_everything(value):
    exact = np.arange(6.0).reshape(3, 2)
    spoiled = exact.copy()
    spoiled[1, 1] = value
    assert lost_differences(spoiled, exact) == 1.0


def test_pictures_without_differences_lose_nothing():
    same = np.ones((3, 2), np.float32)
    assert lost_differences(same, same) == 0 and lost_differences(same * 1.1, same) > 1


# ----------------------------------------------------------------------- choice


def trial_results(tensorflow=50.0, openvino=(80.0, 1e-12), bfloat16=(200.0, 0.004)):
    """What a trial may have found: (pictures a second, share lost)."""
    found = zip(ENGINES, [(tensorflow, 0.0), openvino, bfloat16], strict=True)
    return {name: {"a_second": speed, "lost": lost} for name, (speed, lost) in found}


@pytest.mark.parametrize(
    ("found", "expected", "says"),
    [
        (trial_results(), BFLOAT16, ["TensorFlow 50", "float32 80", "200", "loses 0.40%"]),
        (
            trial_results(bfloat16=(200, 0.034)),
            OPENVINO,
            ["(200) would lose 3.4%", "1% is accepted"],
        ),
        (trial_results(bfloat16=(200, 1.0)), OPENVINO, ["would lose 100.0%"]),
        (
            trial_results(openvino=(54, 0), bfloat16=(200, 0.1)),
            TENSORFLOW,
            ["50 pictures", "float32 54"],
        ),
        (trial_results(openvino=(54, 0), bfloat16=(53, 0)), TENSORFLOW, ["50 pictures"]),
        (
            trial_results(openvino=(90, 0), bfloat16=(30, 0)),
            OPENVINO,
            ["90 pictures", "TensorFlow 50"],
        ),
        (
            trial_results(openvino=(90, 0.5), bfloat16=(95, 0.5)),
            TENSORFLOW,
            ["50 pictures per second in a trial."],
        ),
    ],
)
def test_the_fastest_sufficiently_exact_engine_is_chosen_with_a_reason(found, expected, says):
    engine = fastest(found)
    assert engine.name == expected
    assert not [words for words in says if words not in engine.why], engine.why
    assert ("It loses" in engine.why) == (found[expected]["lost"] > 1e-6)
    refused_ones = [each for each in found.values() if each["lost"] > 0.01]
    assert engine.why.count("would lose") == len(refused_ones)
    assert fastest(dict(reversed(found.items()))).name == expected


def test_each_engine_is_tried_for_speed_and_exactness(openvino, cache):
    found = passes.try_engines(feature_extractor(small_network()), HASH, some_pictures(16))
    assert list(found) == [TENSORFLOW, *engines.available_engines()]
    assert all(of["a_second"] > 0 for of in found.values())
    assert found[TENSORFLOW]["lost"] == 0 and found[OPENVINO]["lost"] < 1e-6
    assert found.get(BFLOAT16, {"lost": 1e-4})["lost"] > 1e-8  # it does compute in bfloat16
    assert graph_path("mobilenetv2", HASH, SIZE).is_file()


@dataclass
class Trials:
    """Stands for `passes.try_engines`: counts, and finds OpenVINO the fastest."""

    count: int = 0
    found: dict = field(default_factory=lambda: trial_results(bfloat16=(200, 0.5)))

    def __call__(self, extractor, weights_hash, pixels):
        assert pixels.shape == (16, SIZE, SIZE, 3) and pixels.dtype == np.uint8
        self.count += 1
        return self.found


@pytest.fixture
def trials(cache, monkeypatch):
    """A processor with both engines of OpenVINO, without running them."""
    monkeypatch.setattr(passes, "GPUS", [])
    monkeypatch.setattr(passes, "available_engines", lambda: (OPENVINO, BFLOAT16))
    monkeypatch.setattr(passes, "processor", lambda: ["this one"])
    found = Trials()
    monkeypatch.setattr(passes, "try_engines", found)
    return found


NETWORK = SimpleNamespace(name="mobilenetv2")


def test_auto_uses_the_engine_of_a_trial_that_is_cached(trials, monkeypatch):
    first = choose_engine("auto", NETWORK, HASH, decoded())
    assert first.name == OPENVINO and "TensorFlow 50" in first.why and trials.count == 1
    more = choose_engine("auto", NETWORK, HASH, decoded())
    assert more == first and trials.count == 1
    shuffled = decoded()
    shuffled = DecodedImages(shuffled.pixels, shuffled.row[::-1], shuffled.sha256[::-1])
    assert choose_engine("auto", NETWORK, HASH, shuffled) == first and trials.count == 1


@pytest.mark.parametrize("other", ["weights", "images", "processor", "TensorFlow"])
def test_a_trial_is_repeated_if_its_subject_changes(trials, other, monkeypatch):
    choose_engine("auto", NETWORK, HASH, decoded())
    weights, images = HASH, decoded()
    if other == "weights":
        weights = "others"
    elif other == "images":
        images = decoded(seed=1)
    elif other == "processor":
        monkeypatch.setattr(passes, "processor", lambda: ["another one"])
    else:
        monkeypatch.setattr(passes.tf, "__version__", "2.99")
    choose_engine("auto", NETWORK, weights, images)
    assert trials.count == 2


def test_a_damaged_trial_is_repeated(trials, cache, capsys):
    first = choose_engine("auto", NETWORK, HASH, decoded())
    (path,) = (cache / "engines").glob("mobilenetv2-*.json")
    path.write_text(path.read_text().replace("80", "8"))
    assert choose_engine("auto", NETWORK, HASH, decoded()) == first and trials.count == 2
    assert "is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["auto", "tensorflow"])
def test_auto_is_tensorflow_on_a_gpu(trials, monkeypatch, asked):
    monkeypatch.setattr(passes, "GPUS", ["GPU:0"])
    engine = choose_engine(asked, NETWORK, HASH, decoded(), "float16")
    assert engine.name == TENSORFLOW and trials.count == 0
    assert engine.why == {"auto": "this machine has a GPU."}.get(asked, "as requested.")


def test_without_openvino_tensorflow_is_used_and_reported(trials, monkeypatch):
    monkeypatch.setattr(passes, "available_engines", lambda: ())
    engine = choose_engine("auto", NETWORK, HASH, decoded())
    assert engine.name == TENSORFLOW and trials.count == 0
    assert "is not installed (pip install openvino)" in engine.why


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_auto_is_tensorflow_in_another_precision(trials, precision):
    engine = choose_engine("auto", NETWORK, HASH, decoded(), precision)
    assert engine == Engine(TENSORFLOW, f"`precision` is {precision}.") and trials.count == 0


@pytest.mark.parametrize("asked", ENGINES)
def test_a_requested_engine_is_used_without_a_trial(trials, asked):
    assert choose_engine(asked, NETWORK, HASH, decoded()) == Engine(asked, "as requested.")
    assert trials.count == 0


@pytest.mark.parametrize(
    ("asked", "offered", "says"),
    [
        (OPENVINO, (), "OpenVINO is not installed here (pip install openvino)"),
        (BFLOAT16, (), "OpenVINO is not installed here (pip install openvino)"),
        (BFLOAT16, (OPENVINO,), "this machine does not support OpenVINO in bfloat16"),
    ],
)
def test_an_unavailable_engine_is_refused(trials, monkeypatch, asked, offered, says):
    monkeypatch.setattr(passes, "available_engines", lambda: offered)
    told = refused(choose_engine, asked, NETWORK, HASH, decoded())
    assert told == f"Parameter `engine` is {asked}, but {says}: set it to auto."


# -------------------------------------------------- the saved model and its features


@pytest.fixture
def trained(tmp_path):
    """A network with a head, 20 images, and their exact features."""
    model, images = small_network(), decoded()
    index = pd.MultiIndex.from_product([images.row.index[4:], [0, 1]])
    values = KerasPasses(feature_extractor(model))(images.pixels[4:])
    features = Features(np.repeat(values, 2, axis=0), index, 0)
    run = Run(tmp_path, {"fine_tune": False})
    return SimpleNamespace(model=model, run=run, precision="float32"), features, images


def logits_moved(features, model, share):
    """Features from which the head makes logits that are off by `share` of the largest."""
    head = results.linear_head(model)
    slopes, _ = head.line
    largest = max(1.0, np.abs(head.logits(features.values)).max())
    values = features.values + (share * largest * slopes / (slopes @ slopes)).astype(np.float32)
    return Features(values, features.index)


@pytest.mark.parametrize(
    ("engine", "share", "accepted"),
    [
        (TENSORFLOW, 0, True),
        (TENSORFLOW, 0.01, False),
        (OPENVINO, 1e-4, True),
        (OPENVINO, 0.01, False),
        (BFLOAT16, 0.01, True),
        (BFLOAT16, 0.5, False),
        (BFLOAT16, np.nan, False),
    ],
)
def test_a_saved_model_gives_the_logits_computed_from_features(
    trained, engine, share, accepted, capsys
):
    network, features, images = trained
    network.engine = Engine(engine, "")
    moved = logits_moved(features, network.model, share)
    if not accepted:
        with pytest.raises(RuntimeError, match="model.keras does not give the same logits"):
            results.save(network, moved, images)
        return
    results.save(network, moved, images)
    told = capsys.readouterr().out
    assert f"differ by {0:.1e}" in told.splitlines()[0]
    assert "for 16 pictures they differ by" in told
    assert f"from those of features by {engines.TITLES[engine]}" in told
    assert ("e-02" in told) == (share == 0.01)


@pytest.mark.parametrize("shortened", ["precision", "GPUS"])
def test_reduced_precision_may_differ_more(trained, monkeypatch, shortened):
    network, features, images = trained
    network.engine = Engine(TENSORFLOW, "")
    if shortened == "precision":
        network.precision = "float16"
    else:
        monkeypatch.setattr(results, "GPUS", ["GPU:0"])
    results.save(network, logits_moved(features, network.model, 0.01), images)


def test_a_saved_fine_tuned_network_is_not_compared_with_features(trained, capsys):
    network, features, images = trained
    network.engine = Engine(BFLOAT16, "")
    spoiled = logits_moved(features, network.model, np.nan)
    network.run.parameters["fine_tune"] = True
    results.save(network, spoiled, images)
    results.save(network, None, images)
    told = capsys.readouterr().out
    assert told.count("logits differ by") == 2 and "features" not in told


@pytest.mark.parametrize("engine", [TENSORFLOW, BFLOAT16])
def test_a_file_that_gives_other_logits_is_refused(trained, monkeypatch, engine):
    network, features, images = trained
    network.engine = Engine(engine, "")
    whole = results.model_files.saved_logits
    off = 2e-3 * max(1.0, np.abs(results.linear_head(network.model).logits(features.values)).max())
    monkeypatch.setattr(results.model_files, "saved_logits", lambda *what: whole(*what) + off)
    with pytest.raises(RuntimeError, match="model.keras does not give the same logits"):
        results.save(network, features, images)
