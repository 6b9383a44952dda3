"""The leakage audit on made-up features, where the right answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cytology.audits import first_look, leakage
from cytology.audits.judged_images import draw_images
from cytology.data.augmentation import pictures_of
from cytology.data.splitting import group_folds
from cytology.evaluation.statistics.intervals import auc_interval, gain_error, t_interval
from cytology.evaluation.statistics.mean_auc import MeanAuc, components_within_folds
from cytology.networks import features as cache
from cytology.networks.features import Features, FeatureStore, named_by_content
from cytology.networks.linear_head import STRENGTHS, fitted_head
from cytology.run import Run
from cytology.settings import InputError
from cytology.tables import write_json

pytestmark = pytest.mark.numeric

A, B, C = leakage.PROTOCOLS
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
    """Features with a trace of the class, the group and the image, and noise per picture."""
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
def audited():
    """30 groups of 3 images in 4 orientations: images, features and their audit."""
    images = make_images()
    features = make_features(images)
    found = leakage.audit(features, images, FOLDS, SEEDS)
    return SimpleNamespace(images=images, features=features, audit=found)


@pytest.fixture(scope="module")
def pictures(audited):
    return audited.audit.pictures


def mean_auc(found, protocol, labels):
    rows = found.scores[(found.scores["protocol"] == protocol) & (found.scores["labels"] == labels)]
    return rows["auc"].mean()


def slow_auc(truth, score, fold):
    """Concordant pairs of the same fold over all pairs of the same fold, one by one."""
    right = pairs = 0
    for i in np.flatnonzero(truth):
        for j in np.flatnonzero(~truth & (fold == fold[i])):
            right += float(score[i] > score[j]) + 0.5 * float(score[i] == score[j])
            pairs += 1
    return right / pairs


# ---------------------------------------------------------------- known answers


def test_every_protocol_is_scored_once_per_seed_with_all_labels(audited):
    scores = audited.audit.scores
    assert list(scores) == ["protocol", "labels", "seed", "auc", "accuracy"]
    expected = pd.MultiIndex.from_product([leakage.PROTOCOLS, leakage.LABELS, range(SEEDS)])
    found = pd.MultiIndex.from_frame(scores[["protocol", "labels", "seed"]])
    assert len(scores) == len(expected) and set(found) == set(expected)
    keys = {(name, seed) for name in leakage.PROTOCOLS for seed in range(SEEDS)}
    assert set(audited.audit.logits) == set(audited.audit.folds) == keys


def test_the_auc_falls_as_images_and_then_groups_are_kept_together(audited):
    a, b, c = (mean_auc(audited.audit, protocol, "true") for protocol in leakage.PROTOCOLS)
    assert a > b + 0.05 and b > c + 0.03 and c > 0.7


def test_shuffling_by_image_reveals_copies_and_by_group_also_patients(audited):
    assert mean_auc(audited.audit, A, "shuffled") > 0.9
    assert 0.4 < mean_auc(audited.audit, B, "shuffled") < 0.6  # blind to groups that cross
    assert mean_auc(audited.audit, B, "shuffled by group") > 0.65
    assert 0.4 < mean_auc(audited.audit, C, "shuffled by group") < 0.6


def test_the_verdict_passes_whole_groups_and_fails_groups_that_cross(audited):
    summary = leakage.audit_summary(audited.audit)
    assert "passed; a leak of up to " in leakage.shuffle_verdict(summary, SEEDS)
    assert leakage.shuffle_verdict(summary, SEEDS).startswith("mean AUC of 10 shuffles 0.")
    assert leakage.shuffle_verdict(summary, SEEDS, B).endswith(": NOT PASSED: something leaks")


def one_row(low, high, protocol=C, auc=0.55):
    row = {"protocol": protocol, "labels": "shuffled by group", "auc": auc}
    return pd.DataFrame([row | {"auc_low": low, "auc_high": high}])


def test_the_verdict_depends_on_the_interval_of_the_mean_and_needs_enough_shuffles():
    assert "NOT PASSED" in leakage.shuffle_verdict(one_row(0.501, 0.6), 10)
    assert "up to 10.0 points could hide" in leakage.shuffle_verdict(one_row(0.5, 0.6), 10)
    assert "up to 0.0 points" in leakage.shuffle_verdict(one_row(0.3, 0.4), 10)
    few = leakage.shuffle_verdict(one_row(0.6, 0.7), leakage.FEWEST_SHUFFLES - 1)
    assert few == "9 shuffles are too few; set audit_seeds to 10 or more"
    assert "no verdict" in leakage.shuffle_verdict(one_row(np.nan, np.nan), 10)


def test_more_shuffles_detect_a_five_point_leak_more_often_without_false_alarms():
    """Leak 0.05, standard deviation 0.05 per shuffle; a quantile test would get weaker."""
    rng = np.random.default_rng(0)

    def detected_share(mean, shuffles):
        drawn = rng.normal(mean, 0.05, (400, shuffles))
        return np.mean([leakage.mean_of_shuffles(pd.Series(each))[0] > 0.5 for each in drawn])

    assert (
        0.7 < detected_share(0.55, 10) < detected_share(0.55, 20)
        and detected_share(0.55, 20) > 0.97
    )
    assert detected_share(0.5, 10) < 0.05 and detected_share(0.5, 20) < 0.05


def test_the_interval_of_the_mean_over_shuffles_uses_students_t():
    low, high = leakage.mean_of_shuffles(pd.Series([0.4, 0.5, 0.6, np.nan]))
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom, from a table
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert leakage.mean_of_shuffles(pd.Series([1.0, 1.0])) == (1, 1)
    assert np.isnan(leakage.mean_of_shuffles(pd.Series([0.7]))).all()


def test_audits_of_20_shuffles_detect_crossing_patients_and_rarely_raise_false_alarms():
    """A small version of the simulation in docs/statistics.md, groups of 1 to 20 images."""
    detected_share, wolf = [], []
    for study in range(4):
        rng = np.random.default_rng(study)
        sizes = np.exp(rng.uniform(0, np.log(20), 16)).astype(int)
        group = np.repeat(np.arange(16), sizes)
        images = pd.DataFrame({"group": [f"g{g:02}" for g in group]})
        images["label"] = np.where(group % 2, "M", "B")
        images["family"] = [f"{k:03}" for k in range(len(group))]
        values = rng.normal(size=(len(group), 12)) + rng.normal(size=(16, 12))[group]
        values += 0.5 * (group % 2)[:, None]  # the true labels are present and must not be learned
        for protocol, found in ((B, detected_share), (C, wolf)):
            aucs = []
            for seed in range(20):
                shown = leakage.shuffle_labels(images, seed, "group")
                truth, fold = (
                    (shown["label"] == "M").to_numpy(),
                    leakage.assign_folds(images, protocol, 5, seed),
                )
                logits = leakage.out_of_fold_logits(values, truth, fold)
                aucs.append(components_within_folds(truth, logits, fold)[truth].mean())
            found.append(leakage.mean_of_shuffles(pd.Series(aucs))[0] > 0.5)
    assert np.mean(detected_share) == 1 and np.sum(wolf) <= 1


def test_without_image_and_group_effects_no_protocol_scores_higher():
    images = make_images(groups=20)
    features = make_features(images, signal=0.1, group=0, image=0, noise=1)
    found = leakage.audit(features, images, FOLDS, seeds=2)
    a, b, c = (mean_auc(found, protocol, "true") for protocol in leakage.PROTOCOLS)
    assert a == pytest.approx(c, abs=0.05) and b == pytest.approx(c, abs=0.05)
    assert mean_auc(found, A, "shuffled") < 0.6


# ------------------------------------------------------------- labels and folds


def with_copies(images):
    """Every third image is a copy of the one before it, in another group."""
    family = images["family"].where(images.index % 3 != 2, images["family"].shift())
    return images.assign(family=family)


def test_copies_keep_one_label_when_labels_are_shuffled():
    images = with_copies(make_images())
    pictures = pictures_of(images, ORIENTATIONS)
    shuffled = leakage.shuffle_labels(pictures, seed=0)
    assert (shuffled.groupby("family")["label"].nunique() == 1).all()
    by_family = shuffled.groupby("family")["label"].first()
    before = images.groupby("family")["label"].first()
    assert by_family.value_counts().to_dict() == before.value_counts().to_dict()
    assert 0.3 < (by_family == before).mean() < 0.7
    assert shuffled.drop(columns="label").equals(pictures.drop(columns="label"))


def test_groups_of_one_label_exchange_their_labels():
    images = make_images(groups=20, images=4)
    pictures = pictures_of(images, ORIENTATIONS)
    shuffled = leakage.shuffle_labels(pictures, 0, "group")
    of_group = shuffled.groupby("group")["label"]
    assert (of_group.nunique() == 1).all()
    before = images.groupby("group")["label"].first()
    assert of_group.first().value_counts().to_dict() == before.value_counts().to_dict()
    assert 0.2 < (of_group.first() == before).mean() < 0.8
    assert shuffled.drop(columns="label").equals(pictures.drop(columns="label"))


def test_groups_of_both_labels_exchange_their_shares_regardless_of_size():
    images = pd.DataFrame({"group": np.repeat(list("abcd"), [3, 10, 30, 60])})
    images["family"] = [f"{k:03}" for k in range(len(images))]
    share = images["group"].map({"a": 0, "b": 0.5, "c": 0.1, "d": 1})
    number = images.groupby("group").cumcount()
    size = images.groupby("group")["family"].transform("size")
    images["label"] = np.where(number < share * size, "M", "B")
    dealt = [leakage.shuffle_labels(images, seed, "group") for seed in range(60)]
    shares = np.array([(each["label"] == "M").groupby(each["group"]).mean() for each in dealt])
    for of_group, count in zip(shares.T, (3, 10, 30, 60), strict=True):
        nearest = np.abs(of_group[:, None] - [0, 0.5, 0.1, 1]).min(axis=1)
        assert (nearest < 1 / count).all()  # a share of whole images
        assert of_group.mean() == pytest.approx(0.4, abs=0.17)  # each share as often as another
    within = np.array([(each["label"] == "M").to_numpy() for each in dealt])[:, 3:13]
    assert (within.any(axis=0) & ~within.all(axis=0)).all()  # no image keeps its label


def test_labels_correlated_with_group_size_are_shuffled_too():
    """Exchanging labels among groups of similar size would change none of these."""
    images = make_images(groups=12, images=2)
    large = images[images["label"] == "M"]
    more = [large.assign(family=large["family"] + str(k)) for k in range(4)]
    images = pd.concat([images, *more], ignore_index=True)
    truth = images.groupby("group")["label"].first()
    alike = [
        (
            leakage.shuffle_labels(images, seed, "group").groupby("group")["label"].first() == truth
        ).mean()
        for seed in range(40)
    ]
    assert np.mean(alike) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("by", leakage.SHUFFLED.values())
def test_shuffled_labels_depend_on_the_seed_and_not_on_row_order(pictures, by):
    first = leakage.shuffle_labels(pictures, 0, by)["label"]
    other_order = leakage.shuffle_labels(pictures.sample(frac=1, random_state=0), 0, by)["label"]
    assert other_order.sort_index().equals(first)
    assert not leakage.shuffle_labels(pictures, 1, by)["label"].equals(first)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", leakage.PROTOCOLS)
def test_folds_keep_together_what_the_protocol_requires(protocol, seed):
    images = with_copies(make_images())
    images["group"] = images["group"].where(images.index % 3 != 2, images["group"].shift())
    pictures = pictures_of(images, ORIENTATIONS)
    fold = pd.Series(leakage.assign_folds(pictures, protocol, FOLDS, seed))
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
        leakage.assign_folds(pictures, C, FOLDS, 0)
    assert len(set(leakage.assign_folds(pictures, B, FOLDS, 0))) == FOLDS


def test_logits_come_from_heads_that_never_saw_the_fold():
    """Labels of a fold change all logits except its own."""
    rng = np.random.default_rng(0)
    values, malignant = rng.normal(size=(90, 8)), np.arange(90) % 2 == 1
    fold = np.arange(90) // 30
    before = leakage.out_of_fold_logits(values, malignant, fold)
    after = leakage.out_of_fold_logits(values, malignant ^ (fold == 1), fold)
    np.testing.assert_array_equal(after[fold == 1], before[fold == 1])
    assert np.abs(after - before)[fold != 1].min() > 0


def test_nothing_is_learned_if_the_other_folds_have_one_class():
    values, malignant = np.random.default_rng(0).normal(size=(9, 2)), np.arange(9) >= 6
    logits = leakage.out_of_fold_logits(values, malignant, np.arange(9) // 3)
    assert (logits[6:] == 0).all() and (logits[:6] != 0).all()


# ------------------------------------------------------------- the slow definition


def test_the_auc_counts_pairs_within_a_fold(audited):
    truth = (audited.audit.pictures["label"] == "M").to_numpy()
    scores = audited.audit.scores.query("labels == 'true'").set_index(["protocol", "seed"])
    for protocol in leakage.PROTOCOLS:
        logits, fold = audited.audit.logits[protocol, 2], audited.audit.folds[protocol, 2]
        row = scores.loc[(protocol, 2)]
        assert row["auc"] == pytest.approx(slow_auc(truth, logits, fold))
        assert row["accuracy"] == pytest.approx(((logits >= 0) == truth).mean())


@pytest.mark.parametrize("labels", leakage.LABELS)
@pytest.mark.parametrize(("protocol", "column"), [(B, "family"), (C, "group")])
def test_scikit_learns_own_folds_and_aucs_give_the_same_scores(audited, protocol, column, labels):
    """An independent computation: heads and scikit-learn's AUC fold by fold."""
    pictures = audited.audit.pictures
    parts = group_folds(FOLDS, 3, pictures["label"], pictures[column])  # of the true labels
    if labels in leakage.SHUFFLED:
        pictures = leakage.shuffle_labels(pictures, 3, leakage.SHUFFLED[labels])
    truth, values = (pictures["label"] == "M").to_numpy(), audited.features.of(pictures)
    aucs = []
    for part in parts:
        rest = np.setdiff1d(np.arange(len(pictures)), part)
        logits = fitted_head(values[rest], truth[rest]).logits(values[part])
        aucs.append(roc_auc_score(truth[part], logits))
    row = audited.audit.scores.query("protocol == @protocol and labels == @labels and seed == 3")
    pairs = np.array([truth[part].sum() * (~truth[part]).sum() for part in parts])
    assert row["auc"].item() == pytest.approx(pairs @ aucs / pairs.sum(), abs=1e-6)


def test_components_have_the_mean_and_the_influence_of_the_auc_within_folds():
    rng = np.random.default_rng(0)
    truth, fold = np.arange(30) % 3 == 0, rng.integers(0, 4, 30)
    truth[fold == 3] = False  # a fold of one class has no pairs
    score = np.round(rng.normal(size=30) + truth, 1)
    components = components_within_folds(truth, score, fold)
    auc = slow_auc(truth, score, fold)
    for which in (truth, ~truth):
        assert components[which].mean() == pytest.approx(auc)
    for k in range(30):  # the slope of a weighted AUC in the weight of one row, by hand
        step = 1e-6
        weight = np.ones(30)
        weight[k] += step
        pairs = np.outer(truth, ~truth) * (fold[:, None] == fold) * np.outer(weight, weight)
        right = (score[:, None] > score) + 0.5 * (score[:, None] == score)
        slope = ((pairs * right).sum() / pairs.sum() - auc) / step
        count = truth.sum() if truth[k] else (~truth).sum()
        assert (components[k] - auc) / count == pytest.approx(slope, abs=1e-4)
    assert np.isnan(components_within_folds(truth, score, np.arange(30))).all()


# ------------------------------------------------------------------ the summary


def test_the_summary_has_means_within_their_intervals(audited):
    summary = leakage.audit_summary(audited.audit)
    assert summary[["protocol", "labels"]].to_numpy().tolist() == [
        [protocol, labels] for protocol in leakage.PROTOCOLS for labels in leakage.LABELS
    ]
    for row in summary.itertuples():
        mean = mean_auc(audited.audit, row.protocol, row.labels)
        assert row.auc == pytest.approx(mean) and row.auc_low < mean < row.auc_high
    true = summary[summary["labels"] == "true"].set_index("protocol")
    gain = 100 * (true["auc"] - true.loc[C, "auc"])
    assert true["inflation"].to_numpy() == pytest.approx(gain.to_numpy())
    assert (true["inflation_low"] < gain)[[A, B]].all()
    assert (true["inflation_high"] > gain)[[A, B]].all()
    assert true.loc[C, "inflation"] == 0 and np.isnan(true.loc[C, "inflation_low"])
    assert true["inflation_low"][[A, B]].min() > 0
    assert summary.loc[summary["labels"] != "true", "inflation"].isna().all()


def test_the_summary_shows_the_range_of_auc_over_penalties(audited):
    found = audited.audit.strengths
    assert sorted(set(found["strength"])) == sorted(STRENGTHS) and len(found) == 2 * len(STRENGTHS)
    summary = leakage.audit_summary(audited.audit).set_index(["protocol", "labels"])
    for key in leakage.OF_STRENGTH:
        rows = found[(found["protocol"] == key[0]) & (found["labels"] == key[1])]
        assert summary.loc[key, "auc_lowest"] == rows["auc"].min() < rows["auc"].max()
        assert summary.loc[key, "auc_highest"] == rows["auc"].max()
    assert summary["auc_lowest"].notna().sum() == 2
    pictures, (protocol, _) = audited.audit.pictures, leakage.OF_STRENGTH[1]
    fold, truth = (
        leakage.assign_folds(pictures, protocol, FOLDS, 0),
        (pictures["label"] == "M").to_numpy(),
    )
    logits = leakage.out_of_fold_logits(
        audited.features.of(pictures), truth, fold, strength=STRENGTHS[-1]
    )
    row = found.query("protocol == @protocol and strength == @STRENGTHS[-1]")
    assert row["auc"].item() == pytest.approx(slow_auc(truth, logits, fold))


def audit_of(pictures, logits, folds):
    nothing = pd.DataFrame()
    return leakage.Audit(nothing, pictures, logits, folds, nothing)


def test_the_mean_over_seeds_is_taken_within_the_folds_of_each(pictures):
    rng, truth = np.random.default_rng(1), (pictures["label"] == "M").to_numpy()
    logits = {(C, seed): rng.normal(size=len(truth)) for seed in range(3)}
    folds = {key: rng.integers(0, 3, len(truth)) for key in logits}
    mean = leakage.mean_auc_of(audit_of(pictures, logits, folds), C)
    aucs = [slow_auc(truth, logits[key], folds[key]) for key in logits]
    assert mean.auc == pytest.approx(np.mean(aucs)) == mean.components[~truth].mean()


def test_the_interval_of_a_gain_is_a_jackknife_over_groups(pictures):
    """The standard error of leaving out one group at a time, times the root of two."""
    rng, truth = np.random.default_rng(1), (pictures["label"] == "M").to_numpy()
    group, of_group = pictures["group"].to_numpy(), rng.normal(size=30)
    codes = pd.factorize(group)[0]
    fold = codes // 2 % 3
    before = rng.normal(size=len(truth)) + of_group[codes] + truth
    after = before + 0.5 * rng.normal(size=30)[codes] + 0.5 * truth
    first, second = (MeanAuc(pictures, [score], [fold]) for score in (before, after))
    gain, low, high = second.gain_over(first)

    def slow_gain(keep):
        aucs = [slow_auc(truth[keep], score[keep], fold[keep]) for score in (before, after)]
        return aucs[1] - aucs[0]

    left_out = np.array([slow_gain(codes != number) for number in range(30)])
    error = np.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
    half = 2.144787 * np.sqrt(2) * error  # t of 14 degrees of freedom, from a table
    assert gain == pytest.approx(slow_gain(np.ones(len(truth), bool)))
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert (high + low) / 2 == pytest.approx(gain)
    assert np.isnan(first.gain_over(first)[1:]).all()
    assert high - low < np.ptp(first.interval())  # the difficulty of a group cancels


def test_means_over_seeds_match_every_cross_validated_auc(audited):
    """For one seed they equal `auc_interval` and `gain_error`."""
    logits, folds = audited.audit.logits, audited.audit.folds
    rows = audited.audit.pictures.assign(fold=folds[C, 0], logit=logits[C, 0])
    own, other = (MeanAuc(rows, [logits[name, 0]], [folds[C, 0]]) for name in (C, A))
    assert own.interval() == pytest.approx(auc_interval(rows))
    gain, error, freedom = gain_error(rows, logits[C, 0], logits[A, 0])
    expected = gain, *t_interval(gain, error**2, freedom)
    assert other.gain_over(own) == pytest.approx(expected)
    twice, both = (MeanAuc(rows, [logits[k, 0] for k in (n, A)], other.folds * 2) for n in (A, C))
    assert twice.gain_over(own) == pytest.approx(expected)
    assert both.gain_over(own)[0] == pytest.approx(gain / 2)


def test_intervals_shrink_with_more_groups_and_not_with_more_copies():
    def width(groups, images, orientations):
        table = make_images(groups, images)
        pictures = pictures_of(table, orientations).reset_index(drop=True)
        rng = np.random.default_rng(0)
        number = pd.factorize(pictures["group"])[0]
        logits = rng.normal(size=number.max() + 1)[number] + (pictures["label"] == "M")
        mean = MeanAuc(pictures, [logits.to_numpy()], [np.zeros(len(pictures))])
        return np.ptp(mean.interval())

    few, many = width(20, 3, 4), width(180, 3, 4)
    assert many < few / 2
    assert width(20, 3, 1) == pytest.approx(few, rel=0.1) == pytest.approx(width(20, 9, 1), rel=0.1)


def test_the_same_seed_gives_the_same_audit(audited):
    images = audited.images.iloc[:60]
    first, again = (leakage.audit(audited.features, images, 3, 2) for _ in range(2))
    pd.testing.assert_frame_equal(first.scores, again.scores)
    pd.testing.assert_frame_equal(leakage.audit_summary(first), leakage.audit_summary(again))
    per_seed = first.scores.query("protocol == @C").groupby("labels")["auc"].nunique()
    assert (per_seed == 2).all() and len(per_seed) == 3


def test_every_protocol_predicts_the_same_pictures(audited):
    pictures = audited.audit.pictures
    assert len(pictures) == len(audited.images) * ORIENTATIONS
    assert not pictures.duplicated(["image_id", "orientation"]).any()
    assert all(len(logits) == len(pictures) for logits in audited.audit.logits.values())


def test_the_sentences_name_weights_units_and_numbers(audited):
    summary = leakage.audit_summary(audited.audit).assign(
        architecture="densenet121", weights="random"
    )
    (sentence,) = leakage.leakage_sentences(summary, "field of view", SEEDS)
    numbers = summary.set_index(["protocol", "labels"])
    assert sentence.startswith("DenseNet121 (random weights), mean of 10 repetitions, AUC within")
    assert "keeping fields of view together" in sentence
    by_group = "shuffled by group"
    for key in ((A, "true"), (C, "true"), (A, "shuffled"), (B, by_group), (C, by_group)):
        assert f"{numbers.loc[key, 'auc']:.3f}" in sentence
    assert f"adds {numbers.loc[(A, 'true'), 'inflation']:+.1f} points" in sentence
    assert "fields of view are recognized across such folds" in sentence
    assert "passed; a leak of up to" in sentence and "NOT PASSED" not in sentence
    (open_,) = leakage.leakage_sentences(
        summary.assign(inflation_low=-1.0, auc_low=0.4), "patient", SEEDS
    )
    (nothing,) = leakage.leakage_sentences(summary.assign(auc=np.nan), "patient", SEEDS)
    assert nothing == "DenseNet121: no fold has both classes, so no AUC exists."
    assert "is not shown to add anything" in open_ and "are not shown to be recognized" in open_


# ------------------------------------------------------------ images and features


def test_whole_groups_are_drawn_if_there_are_too_many_images():
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


def test_cached_features_of_a_training_notebook_are_read_without_a_network(
    tmp_path, audited, monkeypatch
):
    """No TensorFlow: there is no image, so anything but reading would fail."""
    key = ["mobilenetv2", "abc", 224, "pad", "float32", "openvino"]
    write_json(tmp_path, "mobilenetv2/metrics.json", dict(zip(cache.KEY, key, strict=True)))
    sha256 = audited.images.set_index("image_id")["sha256"]
    pictures = audited.audit.pictures
    store = FeatureStore(key, tmp_path)
    store.add(named_by_content(pictures, sha256), audited.features.of(pictures))
    monkeypatch.setattr(cache, "FeatureStore", lambda key: FeatureStore(key, tmp_path))
    write_json(tmp_path, "dataset.json", {"data": "sample", "root": str(tmp_path)})
    found = leakage.features_of_run(Run(tmp_path), "mobilenetv2", audited.images, ORIENTATIONS)
    np.testing.assert_array_equal(found.of(pictures), audited.features.of(pictures))


def test_the_first_look_is_part_of_the_audit(audited):
    found = first_look.first_look(audited.features, audited.images, FOLDS, seed=0)
    few = audited.audit.scores[audited.audit.scores["seed"] < first_look.REPETITIONS]
    expected = few.groupby(["protocol", "labels"])["auc"].mean()
    for protocol, split in first_look.SPLITS.items():
        for labels in ("true", "shuffled"):
            value = found.loc[split, f"{labels} labels"]
            assert value == pytest.approx(expected[protocol, labels], abs=1e-6)


def test_a_first_look_at_too_few_groups_gives_the_reason(audited):
    two = audited.images[audited.images["group"].isin(["g00", "g01"])]
    with pytest.raises(InputError, match="folds"):
        first_look.first_look(audited.features, two, FOLDS, seed=0)
