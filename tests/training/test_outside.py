"""Models from outside: their files are read completely or refused, and join the run."""

from functools import partial

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.audits import leakage
from cytology.audits.judged_images import models_to_audit
from cytology.data.augmentation import pictures_of
from cytology.data.splitting import split_by_group
from cytology.evaluation import comparison, operating_points, summary
from cytology.evaluation.caveats import about_outside
from cytology.evaluation.judged import OUT_OF_FOLD, TEST
from cytology.evaluation.predictions import read_predictions
from cytology.evaluation.statistics.significance import compare_pairs, with_gate
from cytology.networks import features as features_module
from cytology.networks.features import FeatureStore, key_of_run, named_by_content, write_features
from cytology.report.known_failures import known_failures
from cytology.report.page import write_report
from cytology.run import BASELINE
from cytology.settings import InputError
from cytology.training import outside_files, outside_models
from cytology.training.head_training import cross_validate_head, train_final_head
from cytology.training.outside_models import UNKNOWN, WEIGHTS, take_outside_models
from cytology.training.recipes import HeadRecipe
from cytology.training.strengths import choose_strengths


@pytest.fixture
def outside_folder(tmp_path):
    folder = tmp_path / "théirs und más"
    folder.mkdir()
    return folder


@pytest.fixture
def of_run(run, outside_folder, monkeypatch):
    """The run with `outside` set, and a cache of its own."""
    store = partial(FeatureStore, cache=run.folder.parent / "cache")
    for module in (outside_models, features_module):
        monkeypatch.setattr(module, "FeatureStore", store)
    run.parameters = {"outside": str(outside_folder), "seed": 0}
    run.write("augmentation.json", {"image_size": 224, "fit": "pad", "orientations": 8})
    return run


def truth(rows):
    return np.where(rows["label"] == "M", 1.0, -1.0)


def vectors(rows, seed=0, width=6):
    """Features that know something, shape (rows, width)."""
    noise = np.random.default_rng(seed).normal(size=(len(rows), width))
    return (noise + 0.5 * truth(rows)[:, None]).astype(np.float32)


def predictions(run, noise=1.0, seed=0):
    """`image, probability, fold` of all images, from somebody who used the same folds."""
    split = run.table("split.csv")
    logits = truth(split) + noise * np.random.default_rng(seed).normal(size=len(split))
    table = split.assign(image=split["image_id"], probability=expit(logits))
    return table[["image", "probability", "fold"]]


def write(table, outside_folder, name="x.predictions.csv"):
    table.to_csv(outside_folder / name, index=False)


# --------------------------------------------------------------------------- identical rows


def kept_features(run, name="mobilenetv2"):
    """Features of 8 orientations in the run's cache, and predictions of heads on them."""
    split, manifest = run.table("split.csv"), run.manifest
    split["fold"] = split["fold"].astype("Int64")
    pictures = pictures_of(manifest[["image_id", "label"]], 8)
    store = features_module.FeatureStore(key_of_run(run, name))
    names = named_by_content(pictures, manifest.set_index("image_id")["sha256"])
    store.add(names, vectors(pictures))
    features = features_module.features_in_cache(run, name, manifest, 8)
    chosen = choose_strengths(features, split).of
    recipe = HeadRecipe(200, "balanced", None, 0, 8, chosen)
    stages = cross_validate_head(features, split, recipe), train_final_head(features, split, recipe)
    run.write(f"{name}/predictions.csv", pd.concat([stage.predictions for stage in stages]))
    return chosen


def test_the_runs_own_features_from_outside_give_the_same_row(of_run, outside_folder):
    chosen = kept_features(of_run)
    write_features(of_run, "mobilenetv2", outside_folder / "own.features.npz")
    take_outside_models(of_run)
    assert of_run.outside == ["outside/own"]
    assert of_run.about("outside/own")["strengths"] == chosen
    ours, own = (
        read_predictions(of_run, name, turned=True).sort_values(
            ["model", "image_id", "orientation"]
        )
        for name in ("mobilenetv2", "outside/own")
    )
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), own.reset_index(drop=True))
    table = comparison.comparison_all(of_run, comparison.baseline_of(of_run))
    rows = table.set_index("model").drop(columns=["weights"])
    pd.testing.assert_frame_equal(
        rows.loc["mobilenetv2"].reset_index(drop=True),
        rows.loc["outside/own"].reset_index(drop=True),
    )
    assert set(table.loc[table["model"] == "outside/own", "weights"]) == {WEIGHTS}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("vectors", "is not the one written for it"),
        ("short", "it lacks 1 image of this run"),
        ("doubled", "twice"),
        ("nan", "NaN or infinity"),
        ("orientations", "it has 3 orientations"),
        ("halves", "not whole numbers from 0 to 7"),
    ],
)
def test_a_changed_copy_of_our_features_is_refused(of_run, outside_folder, change, said):
    kept_features(of_run)
    write_features(of_run, "mobilenetv2", outside_folder / "own.features.npz")
    rows = dict(np.load(outside_folder / "own.features.npz"))
    if change == "vectors":
        rows["features"] = rows["features"][::-1]
    elif change == "nan":
        rows["features"][3, 2] = np.nan
    elif change == "halves":
        more = {"image": rows["image"][:1], "orientation": np.array([0.5])}
        more |= {"features": rows["features"][:1], "checksum": rows["checksum"][:1]}
        rows = {name: np.concatenate([each, more[name]]) for name, each in rows.items()}
    elif change == "orientations":
        few = rows["orientation"] < 3
        rows = {name: each[few] for name, each in rows.items()}
    else:
        kept = np.arange(len(rows["image"]) + (1 if change == "doubled" else -1))
        rows = {name: np.take(each, kept, axis=0, mode="wrap") for name, each in rows.items()}
    np.savez(outside_folder / "own.features.npz", **rows)
    with pytest.raises(InputError, match=said):
        take_outside_models(of_run)
    assert of_run.outside == []


def test_row_order_does_not_matter(of_run, outside_folder):
    kept_features(of_run)
    write_features(of_run, "mobilenetv2", outside_folder / "own.features.npz")
    take_outside_models(of_run)
    before = of_run.table("outside/own/predictions.csv")
    rows = dict(np.load(outside_folder / "own.features.npz"))
    order = np.random.default_rng(0).permutation(len(rows["image"]))
    np.savez(
        outside_folder / "own.features.npz", **{name: each[order] for name, each in rows.items()}
    )
    take_outside_models(of_run)
    pd.testing.assert_frame_equal(of_run.table("outside/own/predictions.csv"), before)


# ------------------------------------------------------------------------- formats


def test_every_format_of_features_gives_the_same_predictions(of_run, outside_folder):
    rows = of_run.manifest
    values, names = vectors(rows), [name.split("/")[1] for name in rows["image_id"]]
    each = dict(zip(rows["image_id"], values, strict=True))
    np.savez(outside_folder / "a.features.npz", names=names, embeddings=values)
    np.savez(outside_folder / "b.features.npz", **each)
    with h5py.File(outside_folder / "c.features.h5", "w") as stored:
        stored["filenames"], stored["features"] = names, values
    with h5py.File(outside_folder / "d.features.H5", "w") as stored:
        for name, vector in each.items():
            stored[name] = vector
    columns = [f"f{k}" for k in range(values.shape[1])]
    table = pd.DataFrame(values, columns=columns).assign(
        image=rows["image_id"].str.replace("/", "\\")
    )
    table.to_csv(outside_folder / "e.features.csv", index=False, sep=";")
    take_outside_models(of_run)
    assert of_run.outside == [f"outside/{name}" for name in "abcde"]
    first, *others = (of_run.table(f"{name}/predictions.csv") for name in of_run.outside)
    for other in others:
        pd.testing.assert_frame_equal(other, first)
    assert of_run.about("outside/a")["orientations"] == 1
    assert set(first["model"]) == {"oof", "fold0", "fold1", "fold2", "final"}


def test_predictions_may_be_logits_or_probabilities(of_run, outside_folder):
    table = predictions(of_run)
    write(table, outside_folder, "p.predictions.csv")
    logits = np.log(table["probability"] / (1 - table["probability"]))
    write(
        table.drop(columns="probability").assign(logit=logits), outside_folder, "l.predictions.csv"
    )
    take_outside_models(of_run)
    p, other = (read_predictions(of_run, name) for name in ("outside/p", "outside/l"))
    assert np.allclose(p["logit"], other["logit"], atol=1e-5)
    assert set(p["model"]) == {"oof", "final"}


def test_files_that_are_not_models_are_named(of_run, outside_folder, capsys):
    write(predictions(of_run), outside_folder, "x.Predictions.CSV")
    for name in ("notes.docx", "y.training.txt"):
        (outside_folder / name).write_text("")
    take_outside_models(of_run)
    assert "notes.docx, y.training.txt (no model" in capsys.readouterr().out
    assert "orientations" not in of_run.about("outside/x")


def test_predictions_on_possible_training_images_are_not_used(of_run, outside_folder, capsys):
    table = predictions(of_run).drop(columns="fold")
    write(table, outside_folder)
    take_outside_models(of_run)
    found = of_run.table("outside/x/predictions.csv")
    assert set(found["split"]) == {"test"}
    assert f"{len(table) - len(found)} predictions are for train or val" in capsys.readouterr().out
    write(
        pd.concat([table, table[table["image"] != found["image_id"][0]].iloc[:1]]), outside_folder
    )
    with pytest.raises(InputError, match="twice"):
        take_outside_models(of_run)


def test_a_training_description_that_is_not_text_is_refused(of_run, outside_folder):
    write(predictions(of_run), outside_folder)
    (outside_folder / "x.training.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text"):
        take_outside_models(of_run)


def test_an_array_in_another_file_is_refused(of_run, outside_folder):
    np.zeros((4, 4), np.float32).tofile(outside_folder / "secret.bin")
    with h5py.File(outside_folder / "x.features.h5", "w") as stored:
        stored["image"] = of_run.manifest["image_id"].tolist()
        there = [(str(outside_folder / "secret.bin"), 0, 64)]
        stored.create_dataset("features", (4, 4), "f4", external=there)
    with pytest.raises(InputError, match="is in another file"):
        take_outside_models(of_run)


def test_the_report_says_what_is_unknown_about_outside_models(of_run, outside_folder):
    write(predictions(of_run), outside_folder)
    take_outside_models(of_run)
    page = write_report(of_run).read_text("utf-8")
    assert "“x” (from outside): Its file says that no image" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.assign(image=t["image"].replace(t["image"][0], "B/else.png")),
            "1 image is not",
        ),
        (lambda t: t.iloc[1:], "it lacks 1 image of "),
        (lambda t: pd.concat([t, t.iloc[:1]]), "twice"),
        (lambda t: t.assign(probability=1.2), "not a number from 0 to 1"),
        (lambda t: t.assign(probability=np.nan), "not a number from 0 to 1"),
        (lambda t: t.assign(fold=(t["fold"] + 1) % 3), "its folds are not those of this run"),
        (lambda t: t.assign(fold=t["fold"].fillna(0)), "in test here"),
        (lambda t: t.rename(columns={"probability": "score"}), "it needs the columns image and"),
    ],
)
def test_mismatched_predictions_are_refused_completely(of_run, outside_folder, change, said):
    write(change(predictions(of_run)), outside_folder)
    write(predictions(of_run), outside_folder, "a good one.predictions.csv")
    with pytest.raises(InputError, match=said):
        take_outside_models(of_run)
    assert of_run.outside == []


def test_vectors_of_different_lengths_are_refused(of_run, outside_folder):
    each = dict(zip(of_run.manifest["image_id"], vectors(of_run.manifest), strict=True))
    each[next(iter(each))] = np.ones(3)
    np.savez(outside_folder / "x.features.npz", **each)
    with pytest.raises(InputError, match="2 lengths, from 3 to 6"):
        take_outside_models(of_run)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04 pickled"])
@pytest.mark.parametrize("ending", ["npz", "h5", "csv"])
def test_a_damaged_file_of_features_is_refused(of_run, outside_folder, content, ending):
    (outside_folder / f"x.features.{ending}").write_bytes(content)
    with pytest.raises(InputError, match="x.features"):
        take_outside_models(of_run)


def test_two_models_with_the_same_name_are_refused(of_run, outside_folder):
    write(predictions(of_run), outside_folder, "x.predictions.csv")
    np.savez(outside_folder / "X.features.npz", a=[1.0])
    with pytest.raises(InputError, match="two models named"):
        take_outside_models(of_run)


def test_an_empty_folder_is_refused(of_run):
    with pytest.raises(InputError, match="contains no model"):
        take_outside_models(of_run)


def test_the_run_does_not_import_its_own_results(of_run, outside_folder):
    write(predictions(of_run), outside_folder)
    take_outside_models(of_run)
    of_run.parameters["outside"] = str(of_run / "outside")
    with pytest.raises(InputError, match="Name another folder"):
        take_outside_models(of_run)
    assert of_run.outside == ["outside/x"]


def test_clearing_the_folder_removes_the_outside_models(of_run, outside_folder):
    write(predictions(of_run), outside_folder)
    take_outside_models(of_run)
    of_run.parameters["outside"] = ""
    take_outside_models(of_run)
    assert of_run.outside == []
    assert about_outside(of_run) == []


# -------------------------------------------------------------------------------- reports


def test_a_model_from_outside_is_in_every_table_of_the_comparison(of_run, outside_folder):
    write(predictions(of_run, noise=0.3), outside_folder)
    np.savez(outside_folder / "f.features.npz", image=list(of_run.manifest["image_id"]),
             features=vectors(of_run.manifest))  # fmt: skip
    take_outside_models(of_run)
    baseline = comparison.baseline_of(of_run)
    everything = comparison.comparison_all(of_run, baseline)
    pairs = comparison.pairs_of_models(of_run, baseline)
    names = {"outside/f", "outside/x"}
    for on in (OUT_OF_FOLD, TEST):
        rows = everything[everything["judged_on"] == on]
        assert names < set(rows["model"]) and (rows["level"] == "patient").any()
    of_family = pairs[(pairs["family"] == "outside") & (pairs["level"] == "image")]
    assert len(of_family) == 7  # three networks with each, and the two with each other
    assert names < set(pairs.loc[pairs["family"] == "baseline", "second"])
    thresholds = operating_points.locked_thresholds(of_run, 0.95)
    calibrations = operating_points.locked_calibrations(of_run)
    for table in (thresholds, calibrations, operating_points.abstentions(of_run, 0.95)):
        assert names < set(table["model"])
        assert set(table.loc[table["model"].isin(names), "weights"]) == {WEIGHTS}
    assert names < set(operating_points.net_benefits(of_run))
    assert names < set(operating_points.reliabilities(of_run, "none"))
    table = comparison.comparison(of_run)
    assert not names & set(table["architecture"])  # one row per architecture
    said = summary.summary(table, pairs, "patient", pd.DataFrame(), everything)
    assert sum("“x” (from outside)" in each for each in said) >= 4  # its pairs, and the baseline
    for name, table in {"thresholds": thresholds, "calibration": calibrations}.items():
        of_run.write(f"tables/{name}.csv", table)
    of_run.write("tables/pairwise.csv", pairs)
    of_run.write("tables/comparison_all.csv", everything)
    failures = known_failures(of_run, ["mobilenetv2"], "patient")
    assert not any("from outside" in each and "threshold" in each for each in failures)
    assert len(about_outside(of_run)) == 2


def skilled_rows(split, noise, rng):
    """Out-of-fold rows that know the truth but for `noise`."""
    logits = truth(split) + noise * rng.normal(size=len(split))
    rows = split.assign(orientation=0, seed=0, logit=logits, probability=expit(logits))
    return rows[rows["split"] != "test"]


@pytest.mark.parametrize(("noise", "better"), [(0.5, True), (2.0, False)])
def test_a_better_model_is_detected_and_an_equal_one_is_not(manifest, noise, better):
    more = manifest.assign(image_id="2" + manifest["image_id"], group="2" + manifest["group"])
    split, found = split_by_group(pd.concat([manifest, more]), 3, 0.2, 0.2, seed=0), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tables = {name: skilled_rows(split, 2.0, rng) for name in ARCHITECTURE_NAMES}
        pairs = [(name, "outside/x") for name in tables]
        rows = compare_pairs(tables | {"outside/x": skilled_rows(split, noise, rng)}, pairs)
        rows = with_gate(rows.assign(family="outside", level="image", weights=WEIGHTS))
        found.append((rows["separated"] & (rows["difference"] > 0)).any())
    assert all(found) if better else not any(found)


def test_a_model_that_may_have_seen_the_test_images_is_not_called_better(of_run, outside_folder):
    split = of_run.table("split.csv")
    learned = np.where(split["label"] == "M", 0.999, 0.001)
    write(
        split.assign(image=split["image_id"], probability=learned)[["image", "probability"]],
        outside_folder,
    )
    take_outside_models(of_run)
    assert of_run.about("outside/x")["weights"] == UNKNOWN
    baseline = comparison.baseline_of(of_run)
    everything = comparison.comparison_all(of_run, baseline)
    rows = everything[everything["model"] == "outside/x"]
    assert set(rows["judged_on"]) == {TEST} and rows["auc"].round(9).eq(1).all()
    pairs = comparison.pairs_of_models(of_run, baseline)
    of_family = pairs[pairs["family"] == "outside"]
    assert len(of_family) and not of_family["separated"].any()
    assert of_family["p_holm"].isna().all() and set(of_family["judged_on"]) == {TEST}
    said = summary.outside_in_words(of_family[of_family["level"] == "image"], everything)
    assert len(said) == 1 and "no comparison is made" in said[0]
    assert "Its training images are unknown" in about_outside(of_run)[0].text
    assert "outside/x" not in set(operating_points.locked_thresholds(of_run, 0.95)["model"])


def test_the_training_description_is_quoted(of_run, outside_folder):
    write(predictions(of_run).drop(columns="fold"), outside_folder)
    (outside_folder / "x.training.txt").write_text(
        "1,200 smears of\nour own clinic.", encoding="utf-8"
    )
    take_outside_models(of_run)
    assert of_run.about("outside/x")["weights"] == WEIGHTS
    (said,) = about_outside(of_run)
    assert said.text == (
        "“x” (from outside): Its authors say: 1,200 smears of our own clinic. That cannot "
        "be checked here."
    )


def test_features_from_outside_are_audited(of_run, outside_folder, monkeypatch):
    np.savez(outside_folder / "f.features.npz", image=list(of_run.manifest["image_id"]),
             features=vectors(of_run.manifest))  # fmt: skip
    write(predictions(of_run), outside_folder)
    take_outside_models(of_run)
    assert models_to_audit(of_run)[3:] == ["outside/f"]
    monkeypatch.setattr(type(of_run), "images", of_run.folder)
    monkeypatch.setattr(leakage, "features_in_cache", features_module.features_in_cache)
    found = leakage.features_of_run(of_run, "outside/f", of_run.manifest, 8)
    assert found.values.shape == (len(of_run.manifest), 6)
    audits = {"outside/f": leakage.audit(found, of_run.manifest, 3, 2)}
    table = leakage.audit_of_run(of_run, audits)
    assert set(table["weights"]) == {WEIGHTS}
    (said,) = leakage.leakage_sentences(table, "patient", 2)
    assert said.startswith("“f” (from outside), mean of 2 repetitions")


def test_an_outside_model_does_not_replace_a_model_of_the_same_name(of_run, outside_folder):
    write(predictions(of_run), outside_folder, "ensemble.predictions.csv")
    take_outside_models(of_run)
    everything = comparison.comparison_all(of_run, comparison.baseline_of(of_run))
    assert {"outside/ensemble", BASELINE} < set(everything["model"])
    mean = everything[(everything["model"] == "ensemble") & (everything["level"] == "image")]
    assert len(mean) == 2 and outside_files.NAME.fullmatch("ensemble")
