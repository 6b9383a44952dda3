"""The leakage audit on made-up features, where the right answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytology import features as cache
from cytology import leakage
from cytology.augmentation import pictures_of
from cytology.features import Features, FeatureStore, named_by_content
from cytology.leakage import (
    LABELS,
    PROTOCOLS,
    assign_folds,
    audit,

    draw_images,
    features_of_run,
    in_words,
    out_of_fold_logits,
    shuffle_labels,
    summarize,
    verdict,
)
from cytology.settings import InputError
from cytology.splitting import group_folds
from cytology.tables import write_json

pytestmark = pytest.mark.numeric

A, B, C = PROTOCOLS
ORIENTATIONS, FOLDS, SEEDS = 4, 5, 10


def make_images(groups=30, images=3):
    """Rows of a manifest: every other group is malignant."""
    rows = [
        (f"{'BM'[g % 2]}/{g:02}_{i}.png", "BM"[g % 2], f"g{g:02}")
        for g in range(groups)
        for i in range(images)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "label", "group"])
    return table.assign(family=table["image_id"], sha256=table["image_id"] + " hash")


def make_features(images, signal=0.2, group=0.5, image=1.0, noise=0.3, width=120):
    """Features with a trace of the class, of the group and of the image, and noise a picture."""
    rng = np.random.default_rng(0)
    pictures = pictures_of(images, ORIENTATIONS)
    values = noise * rng.normal(size=(len(pictures), width))
    for column, strength in (("group", group), ("image_id", image)):
        number = pd.factorize(pictures[column])[0]
        values += strength * rng.normal(size=(number.max() + 1, width))[number]
    values += signal * (pictures["label"] == "M").to_numpy()[:, None]
    names = pd.MultiIndex.from_frame(pictures[["image_id", "orientation"]])
    return Features(values.astype(np.float32), names)


@pytest.fixture(scope="module")
def made():
    """30 groups of 3 images in 4 orientations: images, features and their audit."""
    images = make_images()
    features = make_features(images)
    found = audit(features, images, ORIENTATIONS, FOLDS, SEEDS)
    return SimpleNamespace(images=images, features=features, audit=found)


@pytest.fixture(scope="module")
def pictures(made):
    return made.audit.pictures


def mean_auc(found, protocol, labels):
    rows = found.scores[(found.scores["protocol"] == protocol) & (found.scores["labels"] == labels)]
    return rows["auc"].mean()


# ---------------------------------------------------------------- known answers


def test_every_protocol_is_scored_on_both_labels_once_a_seed(made):
    scores = made.audit.scores
    assert list(scores) == ["protocol", "labels", "seed", "auc", "accuracy"]
    expected = pd.MultiIndex.from_product([PROTOCOLS, LABELS, range(SEEDS)])
    found = pd.MultiIndex.from_frame(scores[["protocol", "labels", "seed"]])
    assert len(scores) == len(expected) and set(found) == set(expected)
    assert set(made.audit.logits) == {(name, seed) for name in PROTOCOLS for seed in range(SEEDS)}


def test_each_thing_kept_together_costs_what_the_features_knew_of_it(made):
    a, b, c = (mean_auc(made.audit, protocol, "true") for protocol in PROTOCOLS)
    assert a > b + 0.05 and b > c + 0.03 and c > 0.7


def test_shuffled_labels_are_recognized_at_random_and_are_chance_with_groups_together(made):
    assert mean_auc(made.audit, A, "shuffled") > 0.9
    assert 0.4 < mean_auc(made.audit, B, "shuffled") < 0.55
    rows = made.audit.scores.query("protocol == @C and labels == 'shuffled'")
    assert len(rows) >= 10 and rows["auc"].quantile(0.025) <= 0.5
    assert verdict(made.audit.scores).startswith("2.5 % quantile of 10 shuffles 0.4")
    assert verdict(made.audit.scores).endswith(": passed")


def test_the_verdict_is_on_shuffled_labels_with_groups_together_and_needs_enough_of_them():
    def scores(protocol, labels, auc, seeds=10):
        return pd.DataFrame({"protocol": protocol, "labels": labels, "auc": [auc] * seeds})

    leaky = pd.concat([scores(A, "shuffled", 0.9), scores(C, "true", 0.9)])
    assert "passed" in verdict(pd.concat([leaky, scores(C, "shuffled", 0.5)]))
    leaks = verdict(pd.concat([leaky, scores(C, "shuffled", 0.51)]))
    assert leaks == "2.5 % quantile of 10 shuffles 0.510: NOT PASSED: something leaks"
    few = verdict(pd.concat([leaky, scores(C, "shuffled", 0.4, leakage.FEWEST_SHUFFLES - 1)]))
    assert "passed" not in few.lower() and "too few to tell" in few


def test_without_traces_of_image_and_group_no_protocol_is_better():
    images = make_images(groups=20)
    features = make_features(images, signal=0.1, group=0, image=0, noise=1)
    found = audit(features, images, ORIENTATIONS, FOLDS, seeds=2)
    a, b, c = (mean_auc(found, protocol, "true") for protocol in PROTOCOLS)
    assert a == pytest.approx(c, abs=0.05) and b == pytest.approx(c, abs=0.05)
    assert mean_auc(found, A, "shuffled") < 0.6


def test_only_the_traces_of_images_are_lost_when_groups_have_none(made):
    features = make_features(made.images, group=0)
    found = audit(features, made.images, ORIENTATIONS, FOLDS, seeds=2)
    a, b, c = (mean_auc(found, protocol, "true") for protocol in PROTOCOLS)
    assert a > b + 0.03 and b == pytest.approx(c, abs=0.03)


# ------------------------------------------------------------- labels and folds


def with_copies(images):
    """Every third image is a copy of the one before it, in another group."""
    family = images["family"].where(images.index % 3 != 2, images["family"].shift())
    return images.assign(family=family)


def test_copies_keep_one_label_when_labels_are_shuffled():
    images = with_copies(make_images())
    pictures = pictures_of(images, ORIENTATIONS)
    shuffled = shuffle_labels(pictures, seed=0)
    assert (shuffled.groupby("family")["label"].nunique() == 1).all()
    by_family = shuffled.groupby("family")["label"].first()
    before = images.groupby("family")["label"].first()
    assert by_family.value_counts().to_dict() == before.value_counts().to_dict()
    assert 0.3 < (by_family == before).mean() < 0.7
    assert shuffled.drop(columns="label").equals(pictures.drop(columns="label"))


def test_the_seed_decides_how_labels_are_shuffled_and_the_order_of_rows_does_not(pictures):
    first = shuffle_labels(pictures, 0)["label"]
    other_order = shuffle_labels(pictures.sample(frac=1, random_state=0), 0)["label"]
    assert other_order.sort_index().equals(first)
    assert not shuffle_labels(pictures, 1)["label"].equals(first)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_keep_together_what_the_protocol_says(protocol, seed):
    images = with_copies(make_images())
    images["group"] = images["group"].where(images.index % 3 != 2, images["group"].shift())
    pictures = pictures_of(images, ORIENTATIONS)
    fold = pd.Series(assign_folds(pictures, protocol, FOLDS, seed))
    assert sorted(fold.unique()) == list(range(FOLDS))
    spread = {c: fold.groupby(pictures[c]).nunique().mean() for c in ("group", "family")}
    if protocol == A:
        assert spread["family"] > 2
    else:
        assert spread["family"] == 1
        assert (spread["group"] == 1) == (protocol == C)
    assert fold.value_counts(normalize=True).between(0.15, 0.25).all()
    malignant = (pictures["label"] == "M").groupby(fold).mean()
    assert malignant.between(0.3, 0.7).all()


def test_fewer_groups_than_folds_are_refused():
    images = make_images(groups=4)
    pictures = pictures_of(images, ORIENTATIONS)
    with pytest.raises(InputError, match="The audit needs at least 5 groups"):
        assign_folds(pictures, C, FOLDS, 0)
    assert len(set(assign_folds(pictures, B, FOLDS, 0))) == FOLDS


def test_logits_are_those_of_heads_that_never_saw_the_fold():
    """Labels of a fold change nothing in its own logits, and all the others."""
    rng = np.random.default_rng(0)
    values, malignant = rng.normal(size=(90, 8)), np.arange(90) % 2 == 1
    fold = np.arange(90) // 30
    before = out_of_fold_logits(values, malignant, fold)
    after = out_of_fold_logits(values, malignant ^ (fold == 1), fold)
    np.testing.assert_array_equal(after[fold == 1], before[fold == 1])
    assert np.abs(after - before)[fold != 1].min() > 0


# ---------------------------------------------------------- scikit-learn's answer


def test_the_auc_is_scikit_learns_of_the_pooled_logits(made):
    truth = made.audit.pictures["label"] == "M"
    scores = made.audit.scores.query("labels == 'true'").set_index(["protocol", "seed"])
    for (protocol, seed), logits in made.audit.logits.items():
        assert scores.loc[(protocol, seed), "auc"] == pytest.approx(roc_auc_score(truth, logits))
        accuracy = ((logits >= 0) == truth).mean()
        assert scores.loc[(protocol, seed), "accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize(("protocol", "column"), [(B, "family"), (C, "group")])
def test_scikit_learns_own_cross_validation_gives_the_same_scores(made, protocol, column, labels):
    """Another way through: `cross_val_predict`, and labels drawn as the docstring says."""
    images = made.images.sort_values("image_id")
    if labels == "shuffled":
        drawn = np.random.default_rng(3).permutation(images["label"].to_numpy())
        images = images.assign(label=drawn)
    pictures = made.audit.pictures.drop(columns="label").merge(images[["image_id", "label"]])
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    folds = [
        (np.setdiff1d(np.arange(len(pictures)), held_out), held_out)
        for held_out in group_folds(FOLDS, 3, pictures["label"], pictures[column])
    ]
    logits = cross_val_predict(
        head,
        made.features.of(pictures),
        pictures["label"],
        cv=folds,
        method="decision_function",
    )
    row = made.audit.scores.query("protocol == @protocol and labels == @labels and seed == 3")
    # The solver stops near the optimum: two logits that are almost equal may change places.
    expected = roc_auc_score(pictures["label"] == "M", logits)
    assert row["auc"].item() == pytest.approx(expected, abs=1e-3)


# ------------------------------------------------------------------ the summary


def test_the_summary_has_means_and_intervals_that_hold_them(made):
    summary = summarize(made.audit, draws=200)
    assert summary[["protocol", "labels"]].to_numpy().tolist() == [
        [protocol, labels] for protocol in PROTOCOLS for labels in LABELS
    ]
    for row in summary.itertuples():
        mean = mean_auc(made.audit, row.protocol, row.labels)
        assert row.auc == pytest.approx(mean) and row.auc_low < mean < row.auc_high
    true = summary[summary["labels"] == "true"].set_index("protocol")
    gain = 100 * (true["auc"] - true.loc[C, "auc"])
    assert true["inflation"].to_numpy() == pytest.approx(gain.to_numpy())
    assert (true["inflation_low"] < gain)[[A, B]].all()
    assert (true["inflation_high"] > gain)[[A, B]].all()
    assert (true.loc[C, ["inflation", "inflation_low", "inflation_high"]] == 0).all()
    assert true["inflation_low"][[A, B]].min() > 0
    assert summary.loc[summary["labels"] == "shuffled", "inflation"].isna().all()


def test_differences_are_taken_on_the_same_draws_of_groups(made):
    """Paired, so the interval of a difference is narrower than those of its parts allow."""
    drawn = bootstrap_mean_auc(made.audit, draws=100, seed=0)
    paired = np.std(drawn[B] - drawn[C])
    unpaired = np.sqrt(np.var(drawn[B]) + np.var(drawn[C]))
    assert paired < 0.9 * unpaired


def test_intervals_shrink_with_more_groups_and_not_with_more_copies(made):
    def width(groups, images, orientations):
        table = make_images(groups, images)
        pictures = pictures_of(table, orientations).reset_index(drop=True)
        rng = np.random.default_rng(0)
        number = pd.factorize(pictures["group"])[0]
        logits = rng.normal(size=number.max() + 1)[number] + (pictures["label"] == "M")
        found = leakage.Audit(
            pd.DataFrame(), pictures, {(name, 0): logits.to_numpy() for name in PROTOCOLS}
        )
        return np.ptp(np.quantile(bootstrap_mean_auc(found, 200, 0)[C], [0.025, 0.975]))

    few, many = width(20, 3, 4), width(180, 3, 4)
    assert many < few / 2
    assert width(20, 3, 1) == pytest.approx(few) == width(20, 9, 1)


def test_the_interval_is_that_of_the_mean_over_the_seeds(pictures):
    truth = np.where(pictures["label"] == "M", 1.0, -1.0)
    logits = {(name, seed): truth * (1 - 2 * seed) for name in PROTOCOLS for seed in range(2)}
    drawn = bootstrap_mean_auc(leakage.Audit(pd.DataFrame(), pictures, logits), 20, seed=0)
    assert all((drawn[protocol] == 0.5).all() for protocol in PROTOCOLS)


def test_the_same_seed_gives_the_same_audit(made):
    images = made.images.iloc[:60]
    first, again = (audit(made.features, images, 2, 3, 2) for _ in range(2))
    pd.testing.assert_frame_equal(first.scores, again.scores)
    pd.testing.assert_frame_equal(summarize(first, 50), summarize(again, 50))
    assert not summarize(first, 50).equals(summarize(first, 50, seed=1))
    per_seed = first.scores.query("protocol == @C").groupby("labels")["auc"].nunique()
    assert (per_seed == 2).all()


def test_every_protocol_judges_the_same_pictures(made):
    pictures = made.audit.pictures
    assert len(pictures) == len(made.images) * ORIENTATIONS
    assert not pictures.duplicated(["image_id", "orientation"]).any()
    assert all(len(logits) == len(pictures) for logits in made.audit.logits.values())


def test_the_result_in_words_names_weights_units_and_numbers(made):
    summary = summarize(made.audit, draws=50).assign(architecture="densenet121", weights="random")
    (sentence,) = in_words(summary, "field of view", SEEDS)
    numbers = summary.set_index(["protocol", "labels"])
    assert sentence.startswith("DenseNet121 (random weights), mean of 10 repetitions: ")
    assert "fields of view kept together" in sentence
    for protocol, labels in ((A, "true"), (C, "true"), (A, "shuffled"), (C, "shuffled")):
        assert f"{numbers.loc[(protocol, labels), 'auc']:.3f}" in sentence
    assert f"adds {numbers.loc[(A, 'true'), 'inflation']:.1f} points" in sentence


# ------------------------------------------------------------ images and features


def test_whole_groups_are_drawn_where_there_are_too_many_images():
    images = make_images(groups=30, images=4)
    drawn = draw_images(images, 50, seed=0)
    assert 45 < len(drawn) <= 50 and drawn["label"].nunique() == 2
    assert (drawn.groupby("group").size() == 4).all()
    assert drawn.index.is_monotonic_increasing
    assert draw_images(images, 50, seed=0).equals(drawn)
    assert not draw_images(images, 50, seed=1).equals(drawn)
    assert draw_images(images, 120, seed=0) is images


def test_too_few_images_for_groups_of_both_classes_are_refused():
    images = make_images(groups=4, images=60)
    with pytest.raises(InputError, match="Parameter `audit_images` is 40: too few for groups"):
        draw_images(images, 40, seed=0)


def test_features_that_a_training_notebook_left_are_read_without_a_network(
    tmp_path, made, monkeypatch
):
    """No TensorFlow: the root does not exist, so that anything but reading would fail."""
    key = ["mobilenetv2", "abc", 224, "pad", "float32"]
    write_json(tmp_path, "mobilenetv2/metrics.json", dict(zip(cache.KEY, key, strict=True)))
    sha256 = made.images.set_index("image_id")["sha256"]
    pictures = made.audit.pictures
    store = FeatureStore(key, tmp_path)
    store.add(named_by_content(pictures, sha256), made.features.of(pictures))
    monkeypatch.setattr(cache, "FeatureStore", lambda key: FeatureStore(key, tmp_path))
    found = features_of_run(
        tmp_path, "mobilenetv2", made.images, ORIENTATIONS, tmp_path / "gone", "random", 8
    )
    np.testing.assert_array_equal(found.of(pictures), made.features.of(pictures))
