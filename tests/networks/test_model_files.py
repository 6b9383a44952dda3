"""Only the weights of a model file are loaded: no code, and nothing from elsewhere."""

import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest

from cytology.networks.backend import keras, tf
from cytology.networks.building import build, calibrate_normalization
from cytology.networks.model_files import (
    WEIGHTS,
    UnlikeNetwork,
    about_file,
    load_safely,
    load_trained,
    take_weights,
)
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import read_json, write_json

SIZE = 75
ARRAY = "layers/dense/vars/0"  # of the small network: shape (3, 1)


def write_run(run, model, **about):
    """Save `model` as a network of a run, with its entries from training."""
    path = run / model.name / "model.keras"
    path.parent.mkdir(parents=True)
    model.save(path)
    noted = {"fit": "pad", "image_size": SIZE, "precision": "float32", "engine": "tensorflow"}
    noted |= about_file(path) | about
    write_json(run, f"{model.name}/metrics.json", noted)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a MobileNetV2 whose head is not zero."""
    run = tmp_path_factory.mktemp("run") / "ein Läuf"
    model = build("mobilenetv2", SIZE)
    model.get_layer("logit").set_weights([np.ones((1280, 1)), np.array([0.3])])
    write_run(run, model)
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, to be changed."""
    return Run(shutil.copytree(trained, tmp_path / "run"))


def rewrite(path, **files):
    """Replace files inside a `.keras` file (None: remove), and note the new hash as training."""
    with zipfile.ZipFile(path) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    whole |= {"config.json": files.get("config"), WEIGHTS: files.get("weights", whole[WEIGHTS])}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in whole.items():
            if content is not None:
                archive.writestr(name, content)
    change_metrics(path.parents[1], **about_file(path))


def change_metrics(run, **about):
    """Change what `metrics.json` says."""
    write_json(run, "mobilenetv2/metrics.json", read_json(run, "mobilenetv2/metrics.json") | about)


# ------------------------------------------------------------- what was trained


@pytest.mark.numeric
def test_the_weights_match_those_that_keras_loads(each_network, tmp_path, capsys):
    precision = "bfloat16" if each_network == "densenet121" else "float32"
    model = build(each_network, SIZE, seed=3, precision=precision)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    if precision == "float32":  # not every processor has bfloat16 convolutions
        calibrate_normalization(model, [pixels])  # else features are near-constant
    logit = model.get_layer("logit")
    kernel = np.random.default_rng(1).normal(size=logit.kernel.shape)
    logit.set_weights([kernel, np.array([0.3])])
    model.compile("adam", "mse")  # the optimizer's state lies in the file too
    model.optimizer.build(model.trainable_variables)
    path = write_run(tmp_path, model, precision=precision)
    ours, about = load_trained(Run(tmp_path), each_network)
    assert ours.name == each_network and about["classes"] == ["B", "M"]
    assert capsys.readouterr().out == ""
    assert {each.compute_dtype for each in ours.layers[1:]} == {"float32", precision}
    theirs = keras.saving.load_model(path, compile=False)
    for array, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)
    if precision == "float32":
        logits = [np.asarray(each(pixels, training=False)) for each in (ours, theirs)]
        np.testing.assert_allclose(*logits, rtol=1e-6)
        assert np.ptp(logits[0]) > 0.01


def test_another_minor_version_of_keras_is_reported(run, capsys):
    change_metrics(run, keras="3.4.1")
    load_trained(run, "mobilenetv2")
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert f"was written by Keras 3.4.1, but this is {keras.version()}: if its answers" in told
    change_metrics(run, keras=keras.version().rsplit(".", 1)[0] + ".99")
    load_trained(run, "mobilenetv2")
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------- what is not trusted


@pytest.fixture
def trap(tmp_path):
    """(a SavedModel that writes a file as soon as it is opened, that file)."""
    written = tmp_path / "written by a stranger"

    class Trap(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])

        def _initialize(self):
            tf.io.write_file(str(written), "gone")

        @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3))])
        def serve(self, images):
            return tf.reduce_mean(images, (1, 2, 3))

    module = tf.Module()
    module.trap = Trap()
    module.serve = module.trap.serve
    tf.saved_model.save(module, tmp_path / "saved")
    tf.saved_model.load(str(tmp_path / "saved"))
    assert written.read_text() == "gone"  # the trap works
    written.unlink()
    return tmp_path / "saved", written


def layer_of(folder):
    """The `config.json` whose outermost part is that SavedModel."""
    config = {"name": "mobilenetv2", "trainable": True, "dtype": "float32"}
    config |= {"filepath": str(folder), "call_endpoint": "serve", "call_training_endpoint": None}
    return {"module": "keras.layers", "class_name": "TFSMLayer", "config": config}


@pytest.mark.parametrize("weights", ["ours", "none"])
def test_a_network_that_would_write_a_file_is_never_built(run, trap, weights):
    folder, written = trap
    path = run / "mobilenetv2" / "model.keras"
    content = {"config": json.dumps(layer_of(folder))}
    rewrite(path, **content if weights == "ours" else content | {"weights": None})
    if weights == "ours":
        assert load_trained(run, "mobilenetv2")[0].layers[-1].name == "logit"
    else:
        with pytest.raises(
            InputError, match="not have the weights of MobileNetV2 .* no item named"
        ):
            load_trained(run, "mobilenetv2")
    assert not written.exists()


def test_only_the_weights_of_a_model_file_are_read(run, monkeypatch):
    rewrite(run / "mobilenetv2" / "model.keras", config="[" * 100_000)
    opened, whole = [], zipfile.ZipFile.open

    def spy(archive, name, *rest, **options):
        opened.append(getattr(name, "filename", name))
        return whole(archive, name, *rest, **options)

    monkeypatch.setattr(zipfile.ZipFile, "open", spy)
    load_trained(run, "mobilenetv2")
    assert opened == [WEIGHTS]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("classes", ["M", "B"], r"classes = \['M', 'B'\], not one of \['B', 'M'\]"),
        ("classes", 5, r"classes = 5, not one of"),
        ("image_size", "75", "image_size = '75', not a whole number from 75 to 1,024"),
        ("image_size", 10**9, "image_size = 1000000000, not a whole number"),
        ("image_size", None, "image_size = None, not"),
        ("precision", ["float32"], r"precision = \['float32'\], not one of float32, float16, "),
        ("precision", "x" * 999, "precision = 'x{39}, not one of"),
        ("keras", "3.4\x1b[2J", r"keras = '3.4\\x1b\[2J', not text"),
        ("keras", 3, "keras = 3, not text"),
        ("model_sha256", None, "model_sha256 = None, not text"),
    ],
)
def test_implausible_facts_about_a_model_are_refused(name, value, shown, tmp_path):
    about = {"image_size": SIZE, "precision": "float32", "classes": ["B", "M"], "keras": "3"}
    about |= {"model_sha256": "0", name: value}
    with pytest.raises(InputError, match=rf"^mobilenetv2/metrics.json has {shown}.*: run notebook"):
        load_safely(tmp_path / "model.keras", "mobilenetv2", about)


# ---------------------------------------------------------------- the wrong file


def test_a_replaced_model_file_is_refused(run):
    path = run / "mobilenetv2" / "model.keras"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        InputError,
        match=r"model.keras is not the file that notebook 04 wrote: restore that file, or run "
        r"notebook 04_train_mobilenetv2 again\.$",
    ):
        load_trained(run, "mobilenetv2")


@pytest.mark.parametrize("cut", ["nothing", "half", "text", "inside"])
def test_a_damaged_file_is_refused_in_one_sentence(run, cut):
    path = run / "mobilenetv2" / "model.keras"
    whole = path.read_bytes()
    place = whole.index(b"model.weights.h5") + 400
    wrong = {"nothing": b"", "half": whole[: len(whole) // 2], "text": b"not a network" * 9}
    wrong["inside"] = whole[:place] + bytes(255 - byte for byte in whole[place : place + 300])
    wrong["inside"] += whole[place + 300 :]
    path.write_bytes(wrong[cut])
    change_metrics(run, **about_file(path))
    with pytest.raises(
        InputError, match=r"does not have the weights of MobileNetV2 \(.+\): run notebook 04"
    ) as told:
        load_trained(run, "mobilenetv2")
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


def small_network():
    """A network of few arrays."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3), name="image")
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(image)))


def replace_array(file, **how):
    """Store the array in another way."""
    values = file[ARRAY][()]
    del file[ARRAY]
    file.create_dataset(ARRAY, **({"data": values} | how))


def linked(file, link):
    del file[ARRAY]
    file[ARRAY] = link


def elsewhere(file):
    secret = file.filename + ".secret"
    with open(secret, "wb") as stream:
        stream.write(bytes(12))
    replace_array(file, data=None, shape=(3, 1), dtype="f4", external=[(secret, 0, 12)])


def virtual(file):
    layout = h5py.VirtualLayout((3, 1), "f4")
    layout[:] = h5py.VirtualSource(file.filename + ".other", "x", (3, 1))
    del file[ARRAY]
    file.create_virtual_dataset(ARRAY, layout)


WRONG = {
    "link to another file": (lambda f: linked(f, h5py.ExternalLink("other.h5", "x")), "is a link"),
    "link": (lambda f: linked(f, h5py.SoftLink("/layers/dense/vars/1")), "is a link"),
    "in another file": (elsewhere, "is not stored as plain numbers"),
    "virtual": (virtual, "is not stored as plain numbers"),
    "packed": (lambda f: replace_array(f, compression="gzip"), "is not stored as plain numbers"),
    "double": (lambda f: replace_array(f, dtype="f8"), "has another shape or type"),
    "larger": (
        lambda f: replace_array(f, data=np.zeros((4, 1), "f4")),
        "has another shape or type",
    ),
    "missing": (lambda f: f.pop(ARRAY), "is missing"),
    "a group": (lambda f: (f.pop(ARRAY), f.create_group(ARRAY)), "is missing"),
    "no group": (lambda f: (f.pop("layers"), f.create_dataset("layers", data=1)), "is missing"),
    "not a number": (
        lambda f: replace_array(f, data=np.full((3, 1), np.nan, "f4")),
        "is not finite",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_arrays_of_another_shape_are_refused(wrong, tmp_path):
    spoil, shown = WRONG[wrong]
    model = small_network()
    model.save_weights(tmp_path / "own.weights.h5")
    with h5py.File(tmp_path / "own.weights.h5", "r+") as file:
        spoil(file)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(tmp_path / "own.weights.h5", WEIGHTS)
    before = model.get_weights()
    with pytest.raises(UnlikeNetwork, match=f"^{ARRAY} {shown}$"):
        take_weights(model, tmp_path / "model.keras")
    for array, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, other)


def test_weights_that_expand_when_unpacked_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(WEIGHTS, bytes(10**7))
    with pytest.raises(UnlikeNetwork, match="^model.weights.h5 is compressed$"):
        take_weights(small_network(), tmp_path / "model.keras")


def test_another_architecture_is_refused(run):
    shutil.copytree(run / "mobilenetv2", run / "inceptionv3")
    with pytest.raises(InputError, match=r"not have the weights of InceptionV3 \(layers/.+: run"):
        load_trained(run, "inceptionv3")
