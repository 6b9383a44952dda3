"""Checks of heatmaps on maps with a known answer."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import ttest_1samp

from cytology.data.augmentation import fit_to_square, orient
from cytology.explanation.checks import (
    HEATMAP_CHECKS,
    NETWORK,
    NOISE,
    ORDERS,
    by_cell,
    correlation_of_turned_copies,
    correlation_with_others,
    cover_cells,
    covering_curves,
    covering_plan,
    map_correlation,
    mean_logits_of_curves,
    mean_of_others,
    noise_maps,
    nuclei_in_square,
    on_nuclei,
    turn_back,
    values_of,
)
from cytology.explanation.heatmaps import over_square
from cytology.explanation.summary import check_summary, evidence_pieces, explanation_sentences

pytestmark = pytest.mark.numeric

SIZE = 64


@pytest.fixture(scope="module")
def field():
    """16 images of 16 patients, each with one nucleus of 12 x 12 at a different place."""
    rng = np.random.default_rng(0)
    nuclei = np.zeros((16, SIZE, SIZE), bool)
    for mask, (y, x) in zip(nuclei, rng.integers(0, SIZE - 12, (16, 2)), strict=True):
        mask[y : y + 12, x : x + 12] = True
    rows = pd.DataFrame({"image_id": [f"{k:02}" for k in range(16)], "label": list("BM") * 8})
    return rows.assign(group=rows["image_id"]), nuclei, np.ones_like(nuclei)


def means(values):
    return values.groupby("check")[["value", "chance"]].mean()


def test_heat_on_the_nuclei_wins_and_uniform_heat_is_chance(field):
    rows, nuclei, image = field
    table = check_summary(on_nuclei(rows, nuclei * 1.0, nuclei, image)).set_index("check")
    assert np.allclose(table["value"], 1)
    # Of nuclei of one size the heat on them has no spread, and no interval.
    others = table.drop(index="heat on nuclei")
    assert (others["passed"] == "yes").all() and table["passed"].isin(["yes", "unclear"]).all()
    assert table.loc["heat on nuclei", "chance"] == pytest.approx(144 / SIZE**2)
    even = means(on_nuclei(rows, np.ones((16, SIZE, SIZE)), nuclei, image))
    assert even.loc["heat on nuclei", "value"] == pytest.approx(144 / SIZE**2)


def test_random_heat_is_no_better_than_chance(field):
    rows, nuclei, image = field
    heat = np.random.default_rng(1).random((16, SIZE, SIZE))
    table = check_summary(on_nuclei(rows, heat, nuclei, image)).set_index("check")
    assert table.loc["heat on nuclei", "difference"] == pytest.approx(0, abs=0.01)
    assert set(table["passed"]) == {"not shown"}


def test_heat_in_a_habitual_place_is_distinguished_from_an_explanation(field):
    """Heat in the middle, nuclei in the middle: right every time, but not because of the image."""
    rows, _, image = field
    middle = np.zeros((16, SIZE, SIZE), bool)
    for k, mask in enumerate(middle):
        mask[20 : 40 + k, 20:40] = True
    heat = np.repeat(middle[:1] * 1.0, 16, axis=0)
    table = check_summary(on_nuclei(rows, heat, middle, image)).set_index("check")
    assert table.loc["pointing game, habit", "difference"] == 0
    # Right every time leaves no spread, so that nothing is shown by it; heat on nuclei varies.
    assert table.loc["heat on nuclei", "difference_low"] > 0
    assert (
        evidence_pieces(table.reset_index()) == "unclear"
    ).all()  # all images have the same heat


def test_the_tolerance_around_nuclei_also_applies_to_chance(field):
    rows, nuclei, image = field
    beside = np.roll(nuclei, 1, axis=1) & ~nuclei  # the row below each nucleus
    found = on_nuclei(rows, beside * 1.0, nuclei, image)
    assert means(found).loc["pointing game", "value"] == 1
    area = 144 / SIZE**2
    assert area * 1.5 < means(found).loc["pointing game", "chance"] < area * 3.5


def test_heat_on_the_padding_and_below_zero_does_not_count(field):
    rows, nuclei, _ = field
    image = np.zeros_like(nuclei)
    image[:, 8:56] = True
    heat = np.where(image, -1.0, 9.0)
    heat[nuclei & image] = 0.5
    found = means(on_nuclei(rows, heat, nuclei & image, image))
    assert found.loc["heat on nuclei", "value"] == pytest.approx(1)
    assert found.loc["pointing game", "value"] == 1


def test_images_without_nucleus_or_heat_are_left_out(field):
    rows, nuclei, image = field
    empty, cold = nuclei.copy(), nuclei * 1.0
    empty[0], cold[1] = False, -1.0
    table = check_summary(on_nuclei(rows, cold, empty, image)).set_index("check")
    assert table.loc["pointing game", "images"] == 15
    assert table.loc["heat on nuclei", "images"] == 14


def test_masks_are_padded_like_the_picture(tmp_path):
    mask = Image.new("L", (128, 96))
    mask.paste(255, (32, 24, 96, 72))
    mask.save(tmp_path / "maß e.png")
    nuclei, image = nuclei_in_square(tmp_path / "maß e.png", SIZE, "pad")
    assert image[8:56].all() and not image[:8].any() and not image[56:].any()
    picture = fit_to_square(mask.convert("RGB"), SIZE, "pad")[..., 0] > 127
    np.testing.assert_array_equal(nuclei, picture)
    stretched, everywhere = nuclei_in_square(tmp_path / "maß e.png", SIZE, "stretch")
    assert everywhere.all() and stretched[16:48, 16:48].all() and stretched.sum() == 32 * 32


def test_the_mean_of_the_other_rows_ignores_missing_values():
    np.testing.assert_allclose(
        mean_of_others(np.array([[9.0, 1, 3], [2, 9, np.nan], [4, 6, 9]])), [2, 2, 5]
    )


def test_covered_cells_have_the_colour_of_the_border():
    picture = np.random.default_rng(0).integers(0, 255, (70, 70, 3)).astype(np.uint8)
    picture[0] = picture[-1] = picture[:, 0] = picture[:, -1] = 200
    changed = cover_cells(picture, np.array([0, 8]), (7, 7))
    assert (changed[:10, :10] == 200).all() and (changed[10:20, 10:20] == 200).all()
    changed[:10, :10] = picture[:10, :10]
    changed[10:20, 10:20] = picture[10:20, 10:20]
    np.testing.assert_array_equal(changed, picture)
    np.testing.assert_array_equal(cover_cells(picture, np.array([], int), (7, 7)), picture)


def test_deletion_and_insertion_match_a_network_that_counts_red_cells(field):
    """The judge's logit is the share of red cells: by heat it must fall, and rise, at once."""
    rows, nuclei, _ = field
    pixels = np.full((16, 70, 70, 3), 200, np.uint8)
    heat = np.random.default_rng(0).random((16, 7, 7)) < 0.2
    for picture, red in zip(pixels, heat, strict=True):
        picture[np.kron(red, np.ones((10, 10))).astype(bool)] = 255, 0, 0
    for picture in pixels:
        picture[0] = picture[-1] = picture[:, 0] = picture[:, -1] = 200

    def logits(pictures, of):
        assert (of == of[0]).all()
        return (pictures[..., 1] == 0).mean(axis=(1, 2))

    curves = covering_curves(logits, pixels, {NETWORK: heat * 1.0}, np.ones(16), 7, 0)
    ends = curves[curves["share"].isin([0, 1])].groupby(["curve", "share", "image"])["logit"]
    assert (ends.max() - ends.min() < 1e-12).all()  # nothing or everything is covered, in any order
    table = check_summary(mean_logits_of_curves(rows, curves, NETWORK)).set_index("check")
    assert (table["passed"] == "yes").all()
    against = covering_curves(logits, pixels, {NETWORK: -1.0 * heat}, np.ones(16), 7, 0)
    assert (check_summary(mean_logits_of_curves(rows, against, NETWORK))["passed"] == "no").all()
    mirrored = covering_curves(logits, pixels, {NETWORK: heat * 1.0}, -np.ones(16), 7, 0)
    np.testing.assert_allclose(mirrored["logit"], -curves["logit"])


def test_the_random_curve_is_the_mean_of_ten_orders_and_each_set_is_predicted_once():
    """Against orders followed one by one, with a judge whose logit is linear in the cells."""
    rng, worth, counted = np.random.default_rng(3), np.random.default_rng(4).normal(size=49), []
    pixels = np.full((1, 70, 70, 3), 200, np.uint8)
    pixels[0, 1:-1, 1:-1] = 0

    def logits(pictures, of):
        counted.append(len(pictures))
        open_cells = (pictures[:, 5::10, 5::10, 0] == 0).reshape(len(pictures), 49)
        return open_cells @ worth

    heat = rng.normal(size=(1, 7, 7))
    curves = covering_curves(logits, pixels, {NETWORK: heat}, np.ones(1), 7, seed=9)
    drawn = np.random.default_rng(9)
    orders = [drawn.permutation(49) for _ in range(ORDERS // 2)]
    orders += [each[::-1] for each in orders]
    assert len(orders) == 10
    found = curves.set_index(["curve", "order", "share"])["logit"]
    for step, share in enumerate(np.linspace(0, 1, 8)):
        done = step * 7
        deleted = np.mean([worth[order[done:]].sum() for order in orders])
        inserted = np.mean([worth[order[:done]].sum() for order in orders])
        assert found["deletion", "random", share] == pytest.approx(deleted)
        assert found["insertion", "random", share] == pytest.approx(inserted)
        hottest = np.argsort(-heat.ravel())
        assert found["deletion", NETWORK, share] == pytest.approx(worth[hottest[done:]].sum())
    assert counted == [2 + 12 + 60]  # nothing, all; by heat both ways; ten orders, each way once


def test_a_plan_covers_cells_step_by_step_and_uncovers_the_rest():
    table, hidden = covering_plan([("a", np.array([2, 0, 1]))], steps=3)
    deleted, inserted = (
        hidden[(table["curve"] == name).to_numpy()] for name in ("deletion", "insertion")
    )
    assert deleted.tolist() == [[False] * 3, [False, False, True], [True, False, True], [True] * 3]
    np.testing.assert_array_equal(deleted, ~inserted)


def test_map_similarity_is_spearmans_correlation_and_undefined_for_constant_maps():
    one = np.arange(9.0).reshape(1, 3, 3)
    assert map_correlation(one, np.exp(one))[0] == pytest.approx(1)
    assert map_correlation(one, -one)[0] == pytest.approx(-1)
    assert np.isnan(map_correlation(one, np.ones((1, 3, 3)))[0])
    assert np.isnan(map_correlation(np.ones((1, 1, 1)), np.ones((1, 1, 1)))[0])
    maps = np.stack([one[0], -one[0], one[0]])
    np.testing.assert_allclose(correlation_with_others(maps, maps), [0, -1, 0])


@pytest.mark.parametrize("orientation", range(8))
def test_a_rotated_map_is_rotated_back(orientation):
    maps = np.random.default_rng(0).random((3, 5, 5))
    turned = orient(maps[..., None], orientation)[..., 0]
    np.testing.assert_array_equal(turn_back(turned, orientation), maps)


def test_a_rotation_equivariant_network_agrees_with_itself():
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 6, 3)).astype(np.uint8)

    def follows(pictures):
        return pictures.mean(axis=-1)

    np.testing.assert_allclose(correlation_of_turned_copies(follows, pixels, follows(pixels)), 1)
    stays = correlation_of_turned_copies(lambda pictures: follows(pixels), pixels, follows(pixels))
    assert (stays < 0.5).all()


def test_attributions_are_summed_over_cells():
    values = np.random.default_rng(0).normal(size=(2, 70, 70))
    cells = by_cell(values, (7, 5))
    assert cells.shape == (2, 7, 5)
    np.testing.assert_allclose(cells[1, 2, 3], values[1, 20:30, 42:56].sum())
    np.testing.assert_allclose(cells.sum(axis=(1, 2)), values.sum(axis=(1, 2)))


@pytest.fixture
def twelve_images():
    rows = pd.DataFrame({"image_id": [str(k) for k in range(12)], "label": list("BM") * 6})
    return rows.assign(group=rows["image_id"])


def test_the_summary_counts_groups_and_reports_what_is_not_shown(twelve_images):
    rng = np.random.default_rng(0)
    good = values_of("turned copies", twelve_images, 0.8 + rng.normal(0, 0.05, 12), 0.1)
    open_ = values_of("deletion", twelve_images, rng.normal(0, 1, 12), 0.0)
    worse = values_of("insertion", twelve_images, rng.normal(-1, 0.1, 12), 0.0)
    alike = values_of("shuffled head", twelve_images, 0.9 + rng.normal(0, 0.05, 12), 0.5)
    apart = values_of("shuffled network", twelve_images, rng.normal(0, 0.05, 12), 0.5)
    table = check_summary(pd.concat([good, open_, worse, alike, apart]))
    assert table.set_index("check")["passed"].to_dict() == {
        "deletion": "not shown",
        "insertion": "no",
        "turned copies": "yes",
        "shuffled head": "no",
        "shuffled network": "yes",
    }
    assert table.set_index("check")["kind"].to_dict()["shuffled head"] == "necessary"
    (sentence,) = explanation_sentences(table.assign(architecture="mobilenetv2"))
    assert (
        "1 of 3 pieces of evidence that its heatmaps follow the image: turned copies." in sentence
    )
    assert "Not shown: deletion." in sentence and "WORSE THAN CHANCE: insertion." in sentence
    assert "NOT PASSED, although any noise passes it: shuffled head." in sentence
    fine = explanation_sentences(
        check_summary(pd.concat([good, apart])).assign(architecture="mobilenetv2")
    )[0]
    assert fine.endswith("Of 1 checks that any noise passes they pass 1.")


def test_checks_without_groups_or_variation_are_unclear(twelve_images):
    few = twelve_images.assign(group="a")
    unknown = check_summary(values_of("insertion", few, np.arange(12.0), 0.5))
    assert unknown["passed"].tolist() == ["unclear"]
    assert np.isnan(unknown["difference_low"][0]) and unknown["groups"][0] == 1
    (said,) = explanation_sentences(unknown.assign(architecture="mobilenetv2"))
    assert "are too few or too alike to say: insertion" in said
    nothing = check_summary(values_of("insertion", twelve_images, np.nan, 0.5))
    assert nothing["images"][0] == 0 and nothing["passed"][0] == "unclear"
    alike = check_summary(values_of("insertion", twelve_images, 1.0, 0.5))
    assert alike["passed"].tolist() == ["unclear"]


def test_the_interval_and_p_match_scipy_on_patient_means_and_widen_out_of_fold(twelve_images):
    rng = np.random.default_rng(1)
    rows = pd.concat([twelve_images, twelve_images]).reset_index(drop=True)
    value = rng.normal(0.5, 1, 24)
    (row,) = check_summary(values_of("insertion", rows, value, 0.0)).itertuples()
    test = ttest_1samp(pd.Series(value).groupby(rows["group"]).mean(), 0)
    bounds = test.confidence_interval(0.95)
    assert (row.difference_low, row.difference_high) == pytest.approx((bounds.low, bounds.high))
    assert row.p == pytest.approx(test.pvalue) == row.p_holm
    folded = rows.assign(fold=rows["group"].astype(int) % 3)
    (wide,) = check_summary(values_of("insertion", folded, value, 0.0)).itertuples()
    ratio = (wide.difference_high - wide.difference_low) / (bounds.high - bounds.low)
    assert ratio == pytest.approx(np.sqrt(2))


def test_checks_that_share_a_value_count_as_one_in_holms_correction(twelve_images):
    """A habit: better than a random point, and no better than other images' heat."""
    rng = np.random.default_rng(2)
    value = 0.8 + rng.normal(0, 0.1, 12)
    parts = [
        values_of("heat on nuclei", twelve_images, value, 0.2),
        values_of("heat on nuclei, habit", twelve_images, value, 0.8),
        values_of("deletion", twelve_images, value - 0.8, 0.05),
    ]
    table = check_summary(pd.concat(parts)).set_index("check")
    apart = [check_summary(part)["p"][0] for part in parts]
    pair = table.loc[["heat on nuclei", "heat on nuclei, habit"]]
    assert (pair["p"] == max(apart[:2])).all() and (pair["passed"] == "not shown").all()
    two = {"heat": max(apart[:2]), "deletion": apart[2]}
    smaller, larger = sorted(two, key=two.get)
    assert table.loc["deletion", "p"] == apart[2]
    by_hand = {smaller: 2 * two[smaller], larger: max(2 * two[smaller], two[larger])}
    assert table.loc["deletion", "p_holm"] == pytest.approx(by_hand["deletion"])
    assert pair["p_holm"].to_numpy() == pytest.approx([by_hand["heat"]] * 2)


def test_evidence_that_barely_excludes_0_is_not_shown_after_holm(twelve_images):
    rng = np.random.default_rng(5)
    spread = rng.normal(size=12)
    spread = (spread - spread.mean()) / spread.std(ddof=1)
    value = 2.5 / np.sqrt(12) + spread  # t of 2.5: P is 0.03
    asked = ["turned copies", "integrated gradients", "insertion"]
    noise = [values_of(check, twelve_images, rng.permutation(spread), 0.0) for check in asked[1:]]
    table = check_summary(pd.concat([values_of(asked[0], twelve_images, value, 0.0), *noise]))
    row = table.set_index("check").loc[asked[0]]
    assert row["difference_low"] > 0 and row["p"] == pytest.approx(0.0296, abs=1e-3)
    assert row["p_holm"] == pytest.approx(3 * row["p"]) and row["passed"] == "not shown"


# ------------------------------------------------------------------------- noise


def noise_run(field, seed):
    """All checks of one run of noise maps, with a judge that sees cells."""
    rows, nuclei, image = field
    rng = np.random.default_rng(seed)
    heat, fresh = (noise_maps((16, 7, 7), rng) for _ in range(2))
    pixels = np.full((16, 14, 14, 3), 200, np.uint8)
    pixels[:, 1:-1, 1:-1] = 0
    worth = rng.normal(size=(16, 49))

    def logits(pictures, of):
        return (pictures[:, 1::2, 1::2, 0] == 0).reshape(len(pictures), 49) @ worth[of[0]]

    curves = covering_curves(logits, pixels, {NOISE: heat}, np.ones(16), 7, seed)
    squares = np.stack([over_square(each, SIZE) for each in heat])
    cells = noise_maps((16, 7, 7), rng)
    parts = [
        on_nuclei(rows, squares, nuclei, image),
        mean_logits_of_curves(rows, curves, NOISE),
        values_of(
            "turned copies", rows, map_correlation(heat, fresh), correlation_with_others(heat, heat)
        ),
        values_of(
            "integrated gradients",
            rows,
            map_correlation(cells, heat),
            correlation_with_others(cells, heat),
        ),
        values_of("shuffled head", rows, map_correlation(heat, cells), 0.5),
    ]
    return check_summary(pd.concat(parts))


def test_noise_maps_pass_the_necessary_checks_and_give_no_evidence(field):
    runs = [noise_run(field, seed) for seed in range(20)]
    evidence = [(evidence_pieces(run) == "yes").any() for run in runs]
    assert len(evidence_pieces(runs[0])) == 6 and np.mean(evidence) <= 0.1
    necessary = [run.loc[run["kind"] == "necessary", "passed"].eq("yes").all() for run in runs]
    assert np.mean(necessary) == 1


def test_noise_maps_are_smooth_seeded_and_reported_with_the_network(twelve_images):
    one, again = (noise_maps((3, 7, 7), np.random.default_rng(0)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    neighbours = np.corrcoef(one[:, :, :-1].ravel(), one[:, :, 1:].ravel())[0, 1]
    assert neighbours > 0.5 and not np.allclose(one[0], one[1])
    rng = np.random.default_rng(0)
    of_network = values_of("insertion", twelve_images, rng.normal(3, 1, 12), 0.0).assign(
        map=NETWORK
    )
    of_noise = values_of("insertion", twelve_images, rng.normal(0, 1, 12), 0.0).assign(map=NOISE)
    (row,) = check_summary(pd.concat([of_network, of_noise])).itertuples()
    assert row.value == of_network["value"].mean() and row.passed == "yes"
    assert row.noise == of_noise["value"].mean() and row.noise_passed == "not shown"
    table = check_summary(pd.concat([of_network, of_noise])).assign(architecture="mobilenetv2")
    assert "1 of 1 pieces of evidence" in explanation_sentences(table)[0]
    assert "where a map of noise has 0: insertion." in explanation_sentences(table)[0]


def test_every_check_has_a_description():
    for check in HEATMAP_CHECKS.values():
        assert check.asks.endswith("?") and check.better in (1, -1) and check.chance
