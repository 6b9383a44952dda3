"""Shifts on drawn pictures, judging with made-up networks, and intervals counted by hand.

TensorFlow is never started: a network is anything with `predict_on_batch`.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from cytology.audits import left_out, robustness, shifts
from cytology.audits.judged_images import choose_judged_images
from cytology.audits.left_out import domain_sentences, domains_of, judged_and_trained, leave_one_out
from cytology.audits.robustness_sentences import robustness_sentences
from cytology.audits.shifts import (
    NONE,
    SHIFT_STRENGTHS,
    SHIFTS,
    FramedSmear,
    lab_pixels,
    move_stain,
    open_smears,
    shift_picture,
    with_stains,
)
from cytology.data.augmentation import fit_to_square
from cytology.data.splitting import split_facts
from cytology.evaluation.statistics.calibration import reliability
from cytology.networks import engines
from cytology.networks.features import key_of_run
from cytology.networks.linear_head import LinearHead, write_heads
from cytology.plots import robustness as plots
from cytology.report import known_failures
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import read_table, write_json, write_table
from cytology.wording import NO_INTERVAL

pytestmark = pytest.mark.numeric

every_shift = pytest.mark.parametrize("name", SHIFTS)


@pytest.fixture(scope="module")
def pair(smears):
    """Two drawn smears that are each other's other stain."""
    frame = pd.DataFrame({"group": ["a", "b"], "stain": ["blue", "red"]})
    images = [smears[k].resize((224, 168)) for k in (0, -1)]
    return with_stains([FramedSmear(images[k], f"hash {k}") for k in range(2)], frame)


def distance(one, other):
    return np.abs(np.asarray(one, float) - np.asarray(other, float)).mean()


# ---------------------------------------------------------------------- shifts


@every_shift
def test_a_shift_grows_with_its_strength(pair, name):
    for smear in pair:
        assert shift_picture(smear, name, 0) is smear.image
        pictures = [shift_picture(smear, name, strength) for strength in (0, *SHIFT_STRENGTHS)]
        assert {(p.size, p.mode) for p in pictures} == {((224, 168), "RGB")}
        far = [distance(p, smear.image) for p in pictures]
        assert far[1] > 0 and far[-1] > 1.2 * far[1]
        # Cells that moved on by their own width are no further away: see the tilted bar below.
        assert far == sorted(far) or name in ("scale", "orientation")


@every_shift
def test_a_shift_depends_on_the_file_and_not_on_the_run(pair, name):
    again = replace(pair[0], image=pair[0].image.copy())
    for strength in (1, 5):
        assert (
            shift_picture(pair[0], name, strength).tobytes()
            == shift_picture(again, name, strength).tobytes()
        )


def test_each_direction_gets_about_half_of_the_files_and_noise_differs_by_file(pair):
    for name in ("hue", "saturation", "brightness", "scale", "orientation"):
        ways = [replace(pair[0], sha256=f"{k:064x}").direction(name) for k in range(400)]
        assert set(ways) == {-1, 1} and abs(np.mean(ways)) < 0.15
    other = replace(pair[0], sha256="another")
    assert (
        shift_picture(pair[0], "noise", 3).tobytes() != shift_picture(other, "noise", 3).tobytes()
    )


def test_amounts_match_their_descriptions(pair):
    """Noise, brightness, hue and blur measured on the shifted picture."""
    grey = FramedSmear(Image.new("RGB", (224, 224), (120, 120, 120)), "any")
    noise = np.asarray(shift_picture(grey, "noise", 4), float)
    assert noise.std() == pytest.approx(SHIFTS["noise"].amounts[3], rel=0.02)
    level = np.asarray(shift_picture(grey, "brightness", 3)).mean()
    assert level == pytest.approx(120 * 1.2 ** grey.direction("brightness"), abs=1)
    assert np.ptp(np.asarray(shift_picture(grey, "hue", 5))) == 0  # grey has no hue
    for side in (224, 112):  # the same blur of the same cells, however large the input
        assert measured_blur(side) == pytest.approx(
            SHIFTS["blur"].amounts[4] * side / 224, rel=0.05
        )


def test_the_figure_shows_the_direction_of_a_shift(pair):
    ways = {}
    for k in range(20):
        smear = replace(pair[0], sha256=str(k))
        for name in ("hue", "scale", "blur"):
            words = plots.amount_for_smear(smear, name, 3)
            ways.setdefault((name, smear.direction(name)), set()).add(words)
    assert ways["hue", 1] == {"15 degrees"} and ways["hue", -1] == {"\N{MINUS SIGN}15 degrees"}
    assert ways["scale", 1] == {"factor 1.2"} and ways["scale", -1] == {"factor 1/1.2"}
    assert ways["blur", 1] == ways["blur", -1] == {"sigma 1.5 px"}


def test_the_first_column_shows_the_other_way_or_the_untouched_image(pair):
    axes = np.array(plots.shifts(pair[0], 3).axes).reshape(len(SHIFTS), -1)
    for row, (name, shift) in zip(axes, SHIFTS.items(), strict=True):
        first = row[0].get_title(loc="left") + row[0].get_title()
        if shift.goes_both_ways:
            words = plots.amount_for_smear(replace(pair[0], reverse=True), name, 3)
            assert first == f"other way: {words.removeprefix('factor ')}"
            assert words != plots.amount_for_smear(pair[0], name, 3)
        else:
            assert first == "untouched"


def test_a_calibration_curve_shows_no_bin_with_few_images(judged):
    for images, bins in ((48, 5), (24, 3), (12, 2)):
        some = judged[judged["image_id"].isin(judged["image_id"].unique()[:images])]
        found = robustness.shift_reliability(some, 3)
        assert len(found) == 2 * bins * judged["architecture"].nunique()


def measured_blur(side):
    """Deviation of the slope of an edge under the strongest blur, in pixels."""
    edge = np.zeros((side, side, 3), np.uint8)
    edge[:, side // 2 :] = 255
    blurred = np.asarray(shift_picture(FramedSmear(Image.fromarray(edge), "any"), "blur", 5), float)
    slope, place = np.diff(blurred[5, :, 0]), np.arange(side - 1) - side // 2 + 1
    return np.sqrt((slope * place**2).sum() / slope.sum())


def test_hue_shifts_keep_luminance_and_saturation_leaves_grey_unchanged(pair):
    luminance = [0.213, 0.715, 0.072]
    before, after = (
        np.asarray(p) @ luminance for p in (pair[0].image, shift_picture(pair[0], "hue", 3))
    )
    assert np.abs(before - after).max() < 1.5
    grey = FramedSmear(Image.new("RGB", (20, 20), (90, 90, 90)), "any")
    assert shift_picture(grey, "saturation", 5).tobytes() == grey.image.tobytes()


def test_scale_and_tilt_fill_with_the_colour_of_the_border():
    pixels = np.full((60, 80, 3), (200, 180, 190), np.uint8)
    pixels[20:40, 30:50] = 30
    for name in ("scale", "orientation"):
        for k in range(6):
            found = np.asarray(shift_picture(FramedSmear(Image.fromarray(pixels), str(k)), name, 5))
            assert (found[0, 0] == (200, 180, 190)).all()
    sizes = {}
    for k in range(8):
        smear = FramedSmear(Image.fromarray(pixels), str(k))
        dark = (np.asarray(shift_picture(smear, "scale", 5))[..., 0] < 100).sum()
        sizes[smear.direction("scale")] = dark
    assert sizes[1] == pytest.approx(1600, rel=0.1) and sizes[-1] == pytest.approx(100, rel=0.3)


def test_a_tilt_rotates_by_its_angle():
    pixels = np.full((201, 201, 3), 230, np.uint8)
    pixels[96:105, 40:161] = 0
    for k in range(4):
        smear = FramedSmear(Image.fromarray(pixels), str(k))
        for strength, degrees in zip(SHIFT_STRENGTHS, SHIFTS["orientation"].amounts, strict=True):
            dark = np.argwhere(
                np.asarray(shift_picture(smear, "orientation", strength))[..., 0] < 100
            )
            down, right = np.linalg.svd(dark - dark.mean(axis=0), full_matrices=False)[2][0]
            angle = np.degrees(np.arctan(-down / right))
            assert angle == pytest.approx(degrees * smear.direction("orientation"), abs=0.5)


# ----------------------------------------------------------------------- stain


def test_a_whole_stain_shift_reaches_the_colours_of_the_other_group():
    rng = np.random.default_rng(0)

    def picture(lightness, a, b, spread):
        lab = rng.normal([lightness, a, b], spread, (40, 40, 3)).round()
        light, colour = lab[..., :1].astype(np.uint8), lab[..., 1:].astype(np.int8).view(np.uint8)
        data = np.concatenate([light, colour], axis=-1).tobytes()
        image = Image.frombytes("LAB", (40, 40), data)
        return shifts.ImageCms.applyTransform(image, shifts.lab_transforms()[1])

    images = [picture(150 + 8 * k, 10, -12, 6) for k in range(-2, 3)]
    images += [picture(190 + 4 * k, -8, 6, 3) for k in range(-2, 3)]
    table = pd.DataFrame({"group": list("aabbcddeef"), "stain": ["G"] * 5 + ["P"] * 5})
    smears = with_stains([FramedSmear(image, str(k)) for k, image in enumerate(images)], table)
    assert [smear.stain for smear in smears] == ["G"] * 5 + ["P"] * 5
    assert (smears[0].own == smears[9].other).all() and (smears[0].other == smears[9].own).all()
    for members in (smears[:5], smears[5:]):
        moved = [lab_pixels(move_stain(smear, 1.0)).reshape(-1, 3) for smear in members]
        found = np.mean([[lab.mean(axis=0), lab.std(axis=0)] for lab in moved], axis=0)
        np.testing.assert_allclose(found, members[0].other, atol=1.0)
        half = np.mean([lab_pixels(move_stain(s, 0.5)).mean(axis=(0, 1)) for s in members], axis=0)
        np.testing.assert_allclose(half, (members[0].own[0] + members[0].other[0]) / 2, atol=1.0)
    # An image lighter than its group stays lighter than the group whose stain it gets.
    light = [lab_pixels(move_stain(smear, 1.0))[..., 0].mean() for smear in smears[:5]]
    assert light == sorted(light) and light[-1] - light[0] > 8


def test_without_a_stain_column_groups_are_clustered_by_colour_and_kept_whole(smear):
    images = [smear(k, redder=0 if k < 6 else 55) for k in range(12)]
    smears = [FramedSmear(image, str(k)) for k, image in enumerate(images)]
    groups = pd.DataFrame({"group": [f"p{k // 3}" for k in range(12)]})
    for table in (groups, groups.assign(stain="H&E"), groups.assign(stain=["G", ""] * 6)):
        found = with_stains(smears, table)
        stains = [s.stain for s in found]
        assert stains == ["darker"] * 6 + ["lighter"] * 6
        assert found[0].own[0][0] < found[0].other[0][0]


# --------------------------------------------------------- images and networks


def test_images_are_drawn_from_both_classes_and_from_every_group_before_any_repeats(run):
    images = choose_judged_images(run, "out-of-fold", 20, seed=0)
    split = read_table(run, "split.csv").set_index("image_id")
    assert list(images) == ["image_id", "group", "label", "fold", "sha256"]
    assert images["label"].value_counts().to_dict() == {"B": 10, "M": 10}
    assert (split.loc[images["image_id"], "split"] != "test").all()
    assert (split.loc[images["image_id"], "fold"].to_numpy() == images["fold"]).all()
    per_group = images.groupby(["label", "group"]).size()
    held = split[split["split"] != "test"]
    groups = held.groupby("label")["group"].nunique()
    for label in "BM":
        assert len(per_group[label]) == min(10, groups[label])
    pd.testing.assert_frame_equal(
        choose_judged_images(run, "out-of-fold", 9, seed=0), images.head(9)
    )
    assert set(choose_judged_images(run, "out-of-fold", 20, seed=1)["image_id"]) != set(
        images["image_id"]
    )
    everything = choose_judged_images(run, "out-of-fold", 10_000, seed=0)
    assert sorted(everything["image_id"]) == sorted(held.index)
    of_test = choose_judged_images(run, "test", 10_000, seed=0)
    assert (split.loc[of_test["image_id"], "split"] == "test").all()


def test_duplicate_files_count_once_and_a_single_group_is_refused(run):
    manifest = read_table(run, "manifest.csv")
    manifest["sha256"] = manifest["label"] + manifest["group"]
    split = read_table(run, "split.csv").astype({"fold": "Int64"})
    split = split.drop(columns="sha256").merge(manifest[["image_id", "sha256"]])
    write_table(run, "split.csv", split)
    write_table(run, "manifest.csv", manifest)
    write_json(run, "split.json", split_facts(split, manifest, "grouped", "patient", seed=0))
    once = choose_judged_images(run, "out-of-fold", 10_000, seed=0)
    assert (once.groupby(["label", "group"]).size() == 1).all()
    split = read_table(run, "split.csv").assign(split="test", fold=np.nan)
    split, manifest = split[split["label"] == "B"], manifest[manifest["label"] == "B"]
    write_table(run, "split.csv", split)
    write_table(run, "manifest.csv", manifest)
    write_json(run, "split.json", split_facts(split, manifest, "grouped", "patient", seed=0))
    with pytest.raises(InputError, match="two groups and of both classes"):
        choose_judged_images(run, "test", 8, seed=0)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_unshifted_pictures_are_identical_to_those_of_training(tmp_path, smear, fit):
    for k, (width, height) in enumerate([(300, 170), (90, 200), (64, 64)]):
        smear(k, width, height).save(tmp_path / f"{k}.png")
    images = pd.DataFrame({"image_id": ["0.png", "1.png", "2.png"], "sha256": list("abc")})
    images["group"] = list("xyz")
    for found, name in zip(open_smears(tmp_path, images, 80, fit), images["image_id"], strict=True):
        expected = fit_to_square(Image.open(tmp_path / name).convert("RGB"), 80, fit)
        np.testing.assert_array_equal(fit_to_square(found.image, 80, fit), expected)


class MeanColour:
    """In place of a network: features are the picture's mean colour; counts its calls."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, batch):
        assert batch.dtype == np.uint8 and batch.shape[1:] == (32, 32, 3)
        self.pictures += len(batch)
        return batch.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


def network_of(heads, model=None, key=("weights",)):
    return robustness.RunNetwork(
        "mobilenetv2", list(key), 32, "pad", heads, "tensorflow", lambda: model
    )


@pytest.mark.parametrize(
    ("on", "offered", "expected"),
    [
        ("out-of-fold", ("openvino",), "openvino"),
        ("out-of-fold", (), "tensorflow"),
        ("test", ("openvino",), "tensorflow"),  # the whole network gives the logits
    ],
)
def test_the_network_uses_the_engine_of_the_run_and_avoids_tensorflow(
    run, monkeypatch, on, offered, expected
):
    about = run.about("mobilenetv2") | {"engine": "openvino"}
    run.write("mobilenetv2/metrics.json", about)
    head = LinearHead(np.zeros(3), np.ones(3), np.ones(3), 0.0)
    write_heads(run, "mobilenetv2", {"fold0": head})
    (run / "mobilenetv2" / "model.keras").write_bytes(b"a model")
    monkeypatch.setattr(engines, "available_engines", lambda: offered)
    network = robustness.network_of_run(run, "mobilenetv2", on)
    assert network.key[:6] == key_of_run(run, "mobilenetv2", expected)
    assert ("whole network" in network.key) == (on == "test") == (network.heads is None)
    if expected == "openvino":
        kept = MeanColour()
        monkeypatch.setattr(robustness, "kept_passes", lambda *asked: kept)
        assert network.load() is network.load() is kept


@pytest.fixture
def chosen(smear):
    """8 images of 4 groups in 2 folds, and their smears."""
    images = pd.DataFrame(
        {
            "image_id": [f"{k}.png" for k in range(8)],
            "group": [f"p{k // 2}" for k in range(8)],
            "label": ["BM"[k // 2 % 2] for k in range(8)],
            "fold": [k // 4 for k in range(8)],
        }
    )
    smears = [FramedSmear(smear(k, 32, 24, 10 * k), f"{k:064x}") for k in range(8)]
    return images, with_stains(smears, images)


def test_each_image_is_predicted_by_the_head_of_its_own_fold(chosen, tmp_path):
    images, smears = chosen
    flat = {"mean": np.zeros(3), "variance": np.ones(3) - 1e-5}
    heads = {
        "fold0": LinearHead(**flat, weights=np.array([1.0, 0, 0]), bias=-100.0),
        "fold1": LinearHead(**flat, weights=np.array([0, 0, 2.0]), bias=7.0),
        "final": LinearHead(**flat, weights=np.full(3, np.nan), bias=np.nan),
    }
    judged = robustness.judge_shifts([network_of(heads, MeanColour())], images, smears, 3, tmp_path)
    assert len(judged) == 8 * (1 + 5 * len(SHIFTS))
    assert not judged.duplicated(["image_id", "shift", "strength"]).any()
    np.testing.assert_allclose(judged["probability"], expit(judged["logit"]))
    for name, strength in ((NONE, 0), ("blur", 2), ("stain", 5)):
        rows = judged[(judged["shift"] == name) & (judged["strength"] == strength)]
        squares = [
            fit_to_square(shift_picture(smear, name, strength), 32, "pad") for smear in smears
        ]
        colour = np.array([square.mean(axis=(0, 1)) for square in squares])
        expected = np.where(images["fold"] == 0, colour[:, 0] - 100, 2 * colour[:, 2] + 7)
        np.testing.assert_allclose(rows["logit"], expected, rtol=1e-4)


def test_without_fold_heads_the_network_gives_the_logits():
    features = np.array([[0.5], [-2.0]], np.float32)
    folds = pd.Series([pd.NA, pd.NA], dtype="Int64")
    np.testing.assert_array_equal(network_of(None).logits(features, folds), [0.5, -2.0])


def test_features_are_recomputed_only_if_something_changed(chosen, tmp_path, monkeypatch):
    images, smears = chosen
    model = MeanColour()
    network = network_of({}, model)

    def asked(name, network=network, smears=smears):
        before = model.pictures
        (found,) = robustness.shifted_features([network], smears, name, 3, tmp_path)
        assert found.shape == (1 if name == NONE else 5, len(smears), 3)
        return model.pictures - before

    assert asked(NONE) == 8 and asked(NONE) == 0
    assert asked("blur", smears=smears[:5]) == 25 and asked("blur") == 15 and asked("blur") == 0
    assert asked("blur", network_of({}, model, ("other weights",))) == 40
    assert asked("stain") == 40 and asked("stain") == 0
    assert asked("stain", smears=[replace(s, other=s.other + 1) for s in smears]) == 40
    amounts = replace(SHIFTS["blur"], amounts=(0.5, 1, 1.5, 2, 4))
    monkeypatch.setitem(SHIFTS, "blur", amounts)
    assert asked("blur") == 40


def test_cached_features_are_in_the_order_of_the_smears(chosen, tmp_path):
    _, smears = chosen
    network = network_of({}, MeanColour())
    (first,) = robustness.shifted_features([network], smears, "hue", 3, tmp_path)
    (again,) = robustness.shifted_features([network], smears[::-1], "hue", 3, tmp_path)
    np.testing.assert_array_equal(first, again[:, ::-1])


def test_networks_share_shifted_pictures_and_each_gets_only_those_it_needs(chosen, tmp_path):
    _, smears = chosen
    one, other = MeanColour(), MeanColour()
    networks = [network_of({}, one, ("one",)), network_of({}, other, ("other",))]
    robustness.shifted_features(networks[:1], smears[2:5], "blur", 3, tmp_path)
    assert (one.pictures, other.pictures) == (15, 0)
    first, second = robustness.shifted_features(networks, smears, "blur", 3, tmp_path)
    assert (one.pictures, other.pictures) == (40, 40)
    np.testing.assert_array_equal(first, second)
    third = network_of({}, MeanColour(), ("third",))
    (alone,) = robustness.shifted_features([third], smears, "blur", 3, tmp_path)
    np.testing.assert_array_equal(first, alone)


def test_distance_from_predictions_is_the_largest_over_networks(run):
    rows = []
    for name, off in (("mobilenetv2", 0.0), ("densenet121", 0.25)):
        stored = read_table(run, f"{name}/predictions.csv").query("model == 'oof'").head(6).copy()
        stored.iloc[2, stored.columns.get_loc("logit")] += off
        rows.append(stored[["image_id", "logit"]].assign(architecture=name, shift=NONE))
    judged = pd.concat(rows)
    far = robustness.distance_from_predictions(run, judged, "out-of-fold")
    assert far == pytest.approx(0.25, abs=1e-6)


# --------------------------------------------------------------------- summary


def spoiled_predictions(seed=0, groups=12, images=4, fall=2.5):
    """Pictures of one network whose logits are spoiled by blur and by nothing else."""
    rng = np.random.default_rng(seed)
    group = np.repeat([f"g{k:02}" for k in range(groups)], images)
    label = np.repeat(["B", "M"] * (groups // 2), images)
    of_group = np.repeat(rng.normal(size=groups), images)
    logit = np.where(label == "M", 1.2, -1.2) + 0.7 * of_group + 0.5 * rng.normal(size=len(group))
    base = pd.DataFrame({"image_id": np.arange(len(group)).astype(str)})
    base = base.assign(group=group, label=label, architecture="mobilenetv2", engine="x")
    parts = [base.assign(shift=NONE, strength=0, logit=logit)]
    spoil = rng.normal(size=len(group))
    for name in SHIFTS:
        for strength in SHIFT_STRENGTHS:
            moved = logit + (fall if name == "blur" else 0.02) * strength / 3 * spoil
            parts.append(base.assign(shift=name, strength=strength, logit=moved))
    judged = pd.concat(parts, ignore_index=True)
    return judged.assign(probability=expit(judged["logit"]))


@pytest.fixture(scope="module")
def judged():
    return spoiled_predictions(fall=4)


@pytest.fixture(scope="module")
def table(judged):
    found = robustness.shift_summary(judged)
    return found.assign(weights="imagenet", protocol="grouped", judged_on="out-of-fold")


def test_the_table_has_one_row_per_shift_and_strength_with_every_metric(table):
    assert len(table) == 1 + 5 * len(SHIFTS)
    names = ["auc", "recall", "specificity", "loss", "auc_change", "loss_rise"]
    assert "ece" in table and "ece_low" not in table
    for name in names:
        known = table[table[f"{name}_low"].notna()]  # no width if a shift changes nothing
        assert len(known) > 30
        assert (known[f"{name}_low"] <= known[name]).mean() > 0.9, name
        assert (known[name] <= known[f"{name}_high"]).mean() > 0.9, name
    untouched = table[table["shift"] == NONE].iloc[0]
    assert untouched[["amount", "images", "groups"]].tolist() == ["as taken", 48, 12]
    changes = ["auc_change", "auc_change_low", "auc_change_high", "loss_rise", "loss_rise_high"]
    assert (untouched[changes] == 0).all() and np.isnan(untouched["auc_change_p"])
    words = table.set_index(["shift", "strength"])["amount"]
    assert words["blur", 3] == "sigma 1.5 px" and words["jpeg", 5] == "quality 10"


def test_the_drop_is_paired_and_its_interval_matches_a_bootstrap(judged, table):
    then = judged[judged["shift"] == NONE]
    now = judged[(judged["shift"] == "blur") & (judged["strength"] == 3)]
    row = table.set_index(["shift", "strength"]).loc[("blur", 3)]
    aucs = [roc_auc_score(rows["label"] == "M", rows["logit"]) for rows in (then, now)]
    assert row["auc"] == pytest.approx(aucs[1])
    assert row["auc_change"] == pytest.approx(aucs[1] - aucs[0])
    truth, groups = (then["label"] == "M").to_numpy(), then["group"].to_numpy()
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    rng, drops = np.random.default_rng(5), []
    while len(drops) < 2000:
        drawn = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        if 0 < truth[drawn].sum() < len(drawn):
            aucs = []
            for rows in (then, now):
                logit = rows["logit"].to_numpy()[drawn]
                above = logit[truth[drawn]][:, None] > logit[~truth[drawn]]
                aucs.append(above.mean())
            drops.append(aucs[0] - aucs[1])
    half = 2.570582 * np.std(drops)  # t of 5 degrees of freedom, from a table
    assert (row["auc_change_high"] - row["auc_change_low"]) / 2 == pytest.approx(half, rel=0.2)
    apart = row["auc_high"] - row["auc_low"]
    assert row["auc_change_high"] - row["auc_change_low"] < apart


def test_the_rise_of_log_loss_has_a_t_interval_over_patient_means(judged, table):
    """With as many images each, that of SciPy over the means of the patients."""
    then = judged[judged["shift"] == NONE]
    now = judged[(judged["shift"] == "blur") & (judged["strength"] == 3)]
    losses = [
        -np.log(np.where(rows["label"] == "M", rows["probability"], 1 - rows["probability"]))
        for rows in (then, now)
    ]
    of_patient = pd.Series(losses[1] - losses[0]).groupby(then["group"].to_numpy()).mean()
    row = table.set_index(["shift", "strength"]).loc[("blur", 3)]
    test = ttest_1samp(of_patient, 0)
    bounds = test.confidence_interval(0.95)
    assert row["loss_rise"] == pytest.approx(of_patient.mean())
    assert row["loss_rise_low"] == pytest.approx(bounds.low)
    assert row["loss_rise_high"] == pytest.approx(bounds.high)
    assert row["loss_rise_p"] == pytest.approx(test.pvalue)


def test_p_agrees_with_the_interval_and_holm_corrects_within_a_strength(table):
    for name in robustness.CHANGES:
        known = table[table[f"{name}_p"].notna()]
        outside = (known[f"{name}_low"] > 0) | (known[f"{name}_high"] < 0)
        assert (outside == (known[f"{name}_p"] < 0.05)).all() and outside.any()
        for _, part in known.groupby("strength"):
            order, running = part.sort_values(f"{name}_p"), 0.0
            for k, (_, row) in enumerate(order.iterrows()):
                running = max(running, min(1, (len(part) - k) * row[f"{name}_p"]))
                assert row[f"{name}_p_holm"] == pytest.approx(running)


def test_cross_validated_pictures_have_wider_intervals_and_pairs_within_a_fold(judged):
    some = judged[judged["shift"].isin([NONE, "blur"])]
    fold = some["group"].str[1:].astype(int) // 4
    plain, folded = robustness.shift_summary(some), robustness.shift_summary(some.assign(fold=fold))
    ratio = (folded["loss_high"] - folded["loss_low"]) / (plain["loss_high"] - plain["loss_low"])
    np.testing.assert_allclose(ratio, np.sqrt(2))
    rows = some[some["shift"] == NONE]
    right = pairs = 0
    for _, part in rows.groupby(fold[rows.index]):
        above = part["logit"][part["label"] == "M"].to_numpy()[:, None]
        below = part["logit"][part["label"] == "B"].to_numpy()
        right, pairs = right + (above > below).sum(), pairs + len(above) * len(below)
    assert folded["auc"][0] == pytest.approx(right / pairs)


def test_disagreements_between_exact_orientations_are_counted(run):
    assert robustness.orientation_agreement(run, ["mobilenetv2"], "out-of-fold").empty
    rows = read_table(run, "mobilenetv2/predictions.csv")
    taken = rows[rows["model"] == "oof"].assign(logit=1.0)
    taken["logit"] = np.where(taken["label"] == "M", 2.0, -2.0)
    turned = taken.assign(orientation=1)
    turned.iloc[:3, turned.columns.get_loc("logit")] *= -1
    write_table(run, "mobilenetv2/predictions.csv", pd.concat([taken, turned]))
    found = robustness.orientation_agreement(run, ["mobilenetv2"], "out-of-fold").iloc[0]
    assert (found["images"], found["orientations"]) == (len(taken), 2)
    assert found["alike"] == pytest.approx(1 - 3 / len(taken))
    assert found["auc_highest"] == 1 and found["auc_lowest"] < 1


# ---------------------------------------------------------- one domain left out


def images_of_two_sites(crossing=0):
    """24 groups of 4 images at two sites, `crossing` of which have images at both."""
    rows = [
        (f"{g}_{i}", f"g{g:02}", "BM"[g % 2], "ab"[g // 2 % 2] if g >= crossing else "ab"[i % 2])
        for g in range(24)
        for i in range(4)
    ]
    return pd.DataFrame(rows, columns=["image_id", "group", "label", "site"])


def test_no_group_crosses_when_a_domain_is_left_out():
    images = images_of_two_sites(crossing=6)
    for domain in "ab":
        judged, trained_on = judged_and_trained(images, "site", domain)
        assert judged.any() and trained_on.any() and not (judged & trained_on).any()
        assert (images["site"][judged] == domain).all()
        assert not set(images["group"][judged]) & set(images["group"][trained_on])


def test_a_domain_needs_both_classes_inside_and_outside():
    images = images_of_two_sites()
    assert domains_of(images, "site") == ["a", "b"]
    assert domains_of(images, "stain") == []
    assert domains_of(images.assign(site="a"), "site") == []
    one_class = images.assign(site=np.where(images["label"] == "B", "a", "b"))
    assert domains_of(one_class, "site") == []
    third = images.assign(site=np.where(images["group"] == "g00", "c", images["site"]))
    assert domains_of(third, "site") == ["a", "b"]
    unknown = images.assign(site=np.where(images["site"] == "b", "", "a"))
    assert domains_of(unknown, "site") == []
    assert (
        domains_of(images_of_two_sites(crossing=24), "site") == []
    )  # nothing outside is of other groups


def test_leaving_out_a_site_costs_what_its_site_specific_feature_contributed(monkeypatch):
    """A feature that means malignant at one site and benign at the other misleads only there."""
    monkeypatch.setattr(left_out, "MIXED_REPEATS", 4)
    images, rng = images_of_two_sites(crossing=2), np.random.default_rng(0)
    malignant = (images["label"] == "M").to_numpy()
    truth, site = np.where(malignant, 1.0, -1.0), np.where(images["site"] == "a", 1.0, -1.0)
    noise = rng.normal(size=(len(images), 6))
    turned = np.column_stack([truth * site * 2, site, noise])
    turned[:, 0] += noise[:, 0]
    plain = np.column_stack([truth + noise[:, 0], site, noise])
    # The sign at each site, usable only if both sites were in training.
    seen = np.column_stack([turned, truth * (site > 0) * 2, truth * (site < 0) * 2])
    misled = leave_one_out(seen, images, "site", seed=0)
    steady = leave_one_out(plain, images, "site", seed=0)
    assert list(misled["left_out"]) == ["a", "b"] and (misled["auc_change_high"] < 0).all()
    assert (misled["auc"] < 0.5).all() and (misled["auc_mixed"] > 0.9).all()
    assert (steady["auc"] > 0.75).all() and (steady["auc_change"].abs() < 0.1).all()
    np.testing.assert_allclose(misled["auc_change"], misled["auc"] - misled["auc_mixed"])
    assert (misled["images"] + misled["trained_on"] < len(images)).all()  # the crossing groups


def test_images_without_a_domain_are_left_out(monkeypatch):
    monkeypatch.setattr(left_out, "MIXED_REPEATS", 1)
    images = images_of_two_sites()
    images.loc[images["group"] > "g19", "site"] = ""
    values = np.random.default_rng(0).normal(size=(len(images), 3))
    found = leave_one_out(values, images, "site", seed=0)
    assert found["images"].sum() == (images["site"] != "").sum()
    assert (found["images"] + found["trained_on"] == found["images"].sum()).all()


# -------------------------------------------------------------------- in words


def test_the_sentences_claim_only_what_the_intervals_show(table):
    first, last = robustness_sentences(table, 3, "field of view")
    row = table.set_index(["shift", "strength"]).loc[("blur", 3)]
    assert row["auc_change_high"] < 0
    assert first.startswith("MobileNetV2, out-of-fold, 48 images of 12 fields of view: AUC ")
    claim = (
        f"AUC falls under blur (sigma 1.5 px) by {-row['auc_change']:.3f} "
        f"({-row['auc_change_high']:.3f} to {-row['auc_change_low']:.3f})"
    )
    assert claim in first
    others = table[(table["strength"] == 3) & (table["shift"] != "blur")]
    assert row["auc_change_p_holm"] < 0.05 < others["auc_change_p_holm"].min()
    open_ = first.split("not shown to matter here: ")[1].split(" (")[0]
    assert open_.split(", ") == [name for name in SHIFTS if name != "blur"]
    assert f"falls of up to {-others['auc_change_low'].min():.3f})" in first
    assert "rises under" not in first.split("log loss")[0]
    assert last.startswith("Rises and falls are named after Holm") and last.endswith("corrected.")
    few = robustness_sentences(table.assign(images=12), 3, "patient")[-1]
    assert few.endswith("12 images are few: most real falls go unseen.")


def test_an_interval_that_includes_0_is_never_called_a_fall_or_a_rise(table):
    wide = table.assign(auc_change=-0.3, auc_change_low=-0.6, auc_change_high=0.001)
    wide = wide.assign(loss_rise_low=-1.0, loss_rise_high=1.0)
    assert "under" not in " ".join(robustness_sentences(wide, 3, "patient"))
    better = table.assign(auc_change=0.2, auc_change_low=0.1, auc_change_high=0.3)
    better["auc_change_p_holm"] = 0.2
    assert "AUC" not in robustness_sentences(better, 3, "x")[0].split("At strength 3")[1]
    better["auc_change_p_holm"] = 0.01
    assert (
        "AUC rises under hue (15 degrees) by 0.200 (0.100 to 0.300)"
        in robustness_sentences(better, 3, "x")[0]
    )
    assert "not shown" not in robustness_sentences(better, 3, "x")[0]


def test_no_shift_is_called_harmful_with_random_weights_or_a_leaking_split(table):
    (only,) = robustness_sentences(table.assign(weights="random"), 3, "patient")
    assert "No pretrained weights for MobileNetV2" in only and "rank nothing" in only
    for protocol in ("original", "given, leaks"):
        (leaks,) = robustness_sentences(table.assign(protocol=protocol), 3, "patient")
        assert "the split leaks" in leaks
    for text in (only, leaks):
        assert "falls" not in text and "blur" not in text


def test_with_few_groups_there_is_no_interval_and_no_claim():
    judged = spoiled_predictions(groups=2)
    found = robustness.shift_summary(judged)
    assert found["auc_low"].isna().all() and found["auc_change_low"][1:].isna().all()
    found = found.assign(weights="imagenet", protocol="grouped", judged_on="test")
    (only,) = robustness_sentences(found, 3, "patient")
    why = f"({NO_INTERVAL})"
    assert f"AUC 1.000 {why} untouched" in only
    assert only.endswith(f"At strength 3 no statement about any shift {why}.")
    for metric in ("auc", "loss"):
        plots.metric_by_strength(found, metric, 3, "patient").canvas.draw()
    plots.calibration_curves(robustness.shift_reliability(judged, 3), 3).canvas.draw()
    plots.plt.close("all")


def test_a_shift_without_an_interval_is_named_and_does_not_hide_the_others(table):
    """12 images, all right before and after: no width, and no falls of "up to 0.000"."""
    at = table.copy()
    hue = at["shift"] == "hue"
    at.loc[hue, ["auc_change", "auc_change_low", "auc_change_high"]] = 0, np.nan, np.nan
    at.loc[hue, "auc_change_p_holm"] = np.nan
    first = robustness_sentences(at, 3, "patient")[0]
    assert f"no statement about hue ({NO_INTERVAL})" in first and "falls under blur" in first
    assert "hue" not in first.split("not shown to matter here: ")[1].split(" (")[0]


def test_known_failures_name_the_strengths_at_which_a_drop_is_shown(tmp_path):
    """Shown only at strength 2 does not mean "from strength 2 on"."""
    rows = pd.DataFrame({"strength": [1, 2, 3, 4, 5] * 2, "shift": ["blur"] * 5 + ["hue"] * 5})
    rows = rows.assign(architecture="mobilenetv2", auc_change=-0.1, auc_change_high=0.1)
    rows["auc_change_p"] = 0.5
    one = rows.copy()
    one.loc[1, ["auc_change_high", "auc_change_p"]] = -0.05, 0.001
    write_table(tmp_path, "tables/robustness.csv", one)
    (said,) = known_failures.harmful_shifts(Run(tmp_path))
    assert said.endswith("less well under: blur at strength 2 (AUC falls by up to 0.100).")
    one.loc[[2, 4], ["auc_change_high", "auc_change_p"]] = -0.05, 0.001
    write_table(tmp_path, "tables/robustness.csv", one)
    assert "blur at strengths 2, 3 and 5 (" in known_failures.harmful_shifts(Run(tmp_path))[0]
    uncorrected = rows.copy()
    uncorrected.loc[1, ["auc_change_high", "auc_change_p"]] = -0.01, 0.01  # one of ten tests
    write_table(tmp_path, "tables/robustness.csv", uncorrected)
    assert known_failures.harmful_shifts(Run(tmp_path)) == []


def test_left_out_domains_are_described_in_sentences():
    row = {"architecture": "densenet121", "weights": "imagenet", "column": "stain"}
    row |= {"left_out": "Giemsa", "images": 30, "groups": 6, "trained_on": 40}
    row |= {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    row |= {"auc_mixed": 0.9, "auc_mixed_low": 0.85, "auc_mixed_high": 0.95}
    row |= {"auc_change": -0.2, "auc_change_low": -0.3, "auc_change_high": -0.1}
    (costs,) = domain_sentences(pd.DataFrame([row]), "patient")
    assert costs.startswith(
        "DenseNet121, stain Giemsa left out: AUC 0.700 (0.600 to 0.800) on its 30"
    )
    assert costs.endswith("Not having seen it costs 0.200 (0.100 to 0.300).")
    (open_,) = domain_sentences(pd.DataFrame([row | {"auc_change_high": 0.1}]), "patient")
    assert "not shown to matter here" in open_ and "costs" not in open_
    (only,) = domain_sentences(pd.DataFrame([row | {"weights": "random"}] * 2), "patient")
    assert "rank nothing" in only


# --------------------------------------------------------------------- figures


def test_the_figures_show_every_shift_network_and_domain(pair, judged, table):
    page = plots.shifts(pair[0], 3)
    assert len(page.axes) == 6 * len(SHIFTS)
    assert page.axes[8].get_title("left") == "factor 1/1.2"  # this smear loses colour
    both = pd.concat([table, table.assign(architecture="densenet121")])
    for metric in ("auc", "loss"):
        figure = plots.metric_by_strength(both, metric, 3, "patient")
        assert [axis.get_title("left") for axis in figure.axes] == list(SHIFTS)
        (line, *_) = figure.axes[list(SHIFTS).index("blur")].containers[0].lines
        blur = line.get_ydata().astype(float)
        rows = table[table["shift"].isin([NONE, "blur"])]
        np.testing.assert_allclose(blur, rows[metric])
    assert len(plots.calibration_curves(robustness.shift_reliability(judged, 3), 3).axes) == 1
    found = reliability(judged[judged["shift"] == NONE], equal_counts=5)
    said, true, low, high = (found[name] for name in ("said", "true", "true_low", "true_high"))
    assert len(said) == 5 and (np.diff(said) > 0).all()
    assert ((low <= true) & (true <= high)).all()
    assert true.mean() == pytest.approx(0.5, abs=0.03)
    plots.plt.close("all")


def test_the_figure_of_domains_has_both_heads(pair):
    names = {"architecture": "mobilenetv2", "column": "site", "images": 5, "groups": 2}
    values = {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    values |= {"auc_mixed": 0.9, "auc_mixed_low": 0.8, "auc_mixed_high": 0.95}
    table = pd.DataFrame([names | values | {"left_out": site} for site in "ab"])
    figure = plots.domains_left_out(table, "patient")
    shown = {float(line.get_xdata()[0]) for line in figure.axes[0].lines}
    assert {0.7, 0.9} <= shown
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()][0].startswith("site: a")
    plots.plt.close("all")
