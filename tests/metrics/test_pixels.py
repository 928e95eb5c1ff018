import inspect
import math

import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
    multilabel_average_precision,
)

from cxrtut.metrics.pixels import (
    average_precision,
    best_f1,
    image_average_precision,
    pixel_average_precision,
    pixel_prevalence,
    pointing_game,
    precision_recall_curve,
    step_area,
    trapezoid_area,
)


def with_ties(n: int, seed: int, levels: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of few levels, and truths that follow them loosely."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-levels, levels, (n,), generator=generator) / levels
    positive = torch.rand(n, generator=generator) < (score + 1.2) / 3
    return score, positive


def points(score, positive):
    """Threshold, precision and recall straight from their definitions, one threshold at a time."""
    score, positive = score.tolist(), positive.tolist()
    for threshold in sorted(set(score), reverse=True):
        called = [truth for value, truth in zip(score, positive, strict=True) if value >= threshold]
        yield threshold, sum(called) / len(called), sum(called) / sum(positive)


def slow_average_precision(score, positive):
    area, recall_before = 0.0, 0.0
    for _, precision, recall in points(score, positive):
        area, recall_before = area + (recall - recall_before) * precision, recall
    return area


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_and_its_areas_follow_their_definitions(seed):
    score, positive = with_ties(200, seed)
    threshold, precision, recall = map(list, zip(*points(score, positive), strict=True))
    curve = precision_recall_curve(score, positive)
    assert curve.threshold.tolist() == threshold
    assert curve.precision.tolist() == precision
    assert curve.recall.tolist() == recall
    area = average_precision(score, positive)
    assert area == step_area(curve)
    assert math.isclose(area, slow_average_precision(score, positive), rel_tol=1e-12)
    slow = sum(
        (r1 - r0) * (p0 + p1) / 2
        for p0, p1, r0, r1 in zip([1, *precision], precision, [0, *recall], recall, strict=False)
    )
    assert math.isclose(trapezoid_area(curve), slow, rel_tol=1e-12)


def test_an_example_by_hand():
    """Called positive: the 0.9 (right), then the two 0.5 (one right), then the 0.1 (right)."""
    score, positive = torch.tensor([0.5, 0.9, 0.1, 0.5]), torch.tensor([True, True, True, False])
    curve = precision_recall_curve(score, positive)
    assert torch.allclose(curve.precision, torch.tensor([1, 2 / 3, 3 / 4]).double())
    assert torch.allclose(curve.recall, torch.tensor([1 / 3, 2 / 3, 1]).double())
    assert math.isclose(average_precision(score, positive), (1 + 2 / 3 + 3 / 4) / 3, rel_tol=1e-7)
    assert best_f1(curve) == (pytest.approx(6 / 7), pytest.approx(0.1))


def test_the_order_of_tied_pixels_does_not_matter():
    score, positive = with_ties(300, seed=7, levels=3)
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    expected = average_precision(score, positive)
    assert average_precision(score[shuffle], positive[shuffle]) == expected
    best_first = positive.int().argsort(descending=True)
    assert average_precision(score[best_first], positive[best_first]) == expected
    assert average_precision(score[best_first.flip(0)], positive[best_first.flip(0)]) == expected


def test_a_perfect_score_is_one_and_a_reversed_one_is_worse_than_chance():
    positive = torch.arange(20) < 4
    score = -torch.arange(20.0)
    assert average_precision(score, positive) == 1.0
    worst = sum(k / (16 + k) for k in range(1, 5)) / 4
    assert math.isclose(average_precision(-score, positive), worst, rel_tol=1e-12)
    assert worst < 4 / 20


def test_a_constant_score_has_the_prevalence_and_the_trapezoid_flatters_it():
    positive = torch.arange(50) < 7
    curve = precision_recall_curve(torch.full((50,), 0.3), positive)
    assert math.isclose(step_area(curve), 7 / 50, rel_tol=1e-12)
    assert math.isclose(trapezoid_area(curve), (1 + 7 / 50) / 2, rel_tol=1e-12)


def test_all_positive_is_one_and_none_positive_is_undefined():
    score = torch.tensor([0.2, 0.7, 0.2])
    assert average_precision(score, torch.ones(3).bool()) == 1.0
    assert math.isnan(average_precision(score, torch.zeros(3).bool()))
    assert math.isnan(average_precision(torch.zeros(0), torch.zeros(0).bool()))
    with pytest.raises(ValueError, match="at least one positive, got none among 3"):
        precision_recall_curve(score, torch.zeros(3).bool())
    with pytest.raises(ValueError, match="at least one positive, got none among 0"):
        precision_recall_curve(torch.zeros(0), torch.zeros(0).bool())


def test_a_rising_function_of_the_score_changes_nothing_and_infinity_is_a_score():
    score, positive = with_ties(200, seed=3)
    expected = average_precision(score, positive)
    assert average_precision((3 * score).exp() - 5, positive) == expected
    score[score == score.max()] = torch.inf
    assert average_precision(score, positive) == expected


def test_the_best_f1_is_the_best_of_all_thresholds():
    score, positive = with_ties(200, seed=4)
    f1 = {
        threshold: 2
        * float((positive & (score >= threshold)).sum())
        / float((score >= threshold).sum() + positive.sum())
        for threshold in score.unique().tolist()
    }
    best, threshold = best_f1(precision_recall_curve(score, positive))
    assert math.isclose(best, max(f1.values()), rel_tol=1e-12)
    assert math.isclose(f1[threshold], best, rel_tol=1e-12)


def test_the_best_f1_takes_thresholds_that_call_nothing_right_as_zero():
    score, positive = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([False, True, False])
    assert best_f1(precision_recall_curve(score, positive)) == (pytest.approx(2 / 3), 2.0)


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    score, positive = with_ties(4 * 6 * 5, seed=1)
    heatmap, mask = score.view(4, 6, 5), positive.view(4, 6, 5).clone()
    mask[2] = False
    return heatmap, mask


def test_pixels_are_pooled_over_the_images_that_have_a_positive():
    heatmap, mask = maps()
    kept = [0, 1, 3]
    expected = slow_average_precision(heatmap[kept].flatten(), mask[kept].flatten())
    assert math.isclose(pixel_average_precision(heatmap, mask), expected, rel_tol=1e-12)
    hotter = heatmap.clone()
    hotter[2] += 100
    assert pixel_average_precision(hotter, mask) == pixel_average_precision(heatmap, mask)
    hotter[1] += 100
    assert pixel_average_precision(hotter, mask) != pixel_average_precision(heatmap, mask)


def test_the_level_of_chance_is_the_prevalence_in_the_images_that_are_counted():
    heatmap, mask = maps()
    prevalence = pixel_prevalence(mask)
    assert math.isclose(prevalence, float(mask.sum()) / (3 * 30), rel_tol=1e-12)
    constant = torch.ones_like(heatmap)
    assert math.isclose(pixel_average_precision(constant, mask), prevalence, rel_tol=1e-12)


def test_each_image_by_itself_and_nan_where_it_has_no_positive():
    heatmap, mask = maps()
    areas = image_average_precision(heatmap, mask)
    assert areas.dtype == torch.float64 and areas.isnan().tolist() == [False, False, True, False]
    for i in (0, 1, 3):
        expected = slow_average_precision(heatmap[i].flatten(), mask[i].flatten())
        assert math.isclose(areas[i], expected, rel_tol=1e-12)


def test_without_any_positive_or_any_image_the_pixel_measures_are_undefined():
    for n in (0, 2):
        heatmap, mask = torch.rand(n, 3, 3), torch.zeros(n, 3, 3).bool()
        assert math.isnan(pixel_average_precision(heatmap, mask))
        assert math.isnan(pixel_prevalence(mask))
        assert image_average_precision(heatmap, mask).isnan().tolist() == [True] * n
        assert pointing_game(heatmap, mask).isnan().tolist() == [True] * n


def test_the_pointing_game_asks_where_the_hottest_pixel_is():
    heatmap = torch.zeros(3, 2, 2)
    heatmap[0, 0, 1] = heatmap[1, 1, 0] = heatmap[2, 0, 0] = 1.0
    mask = torch.zeros(3, 2, 2).bool()
    mask[:2, 0] = True
    hits = pointing_game(heatmap, mask)
    assert hits[:2].tolist() == [1, 0] and hits[2].isnan()


def test_pointing_at_several_pixels_counts_the_share_that_is_inside():
    mask = torch.zeros(1, 4, 5).bool()
    mask[0, 1, :3] = True
    assert pointing_game(torch.full((1, 4, 5), 0.2), mask).tolist() == [3 / 20]


MEASURES = (pixel_average_precision, image_average_precision, pointing_game)


@pytest.mark.parametrize("measure", MEASURES)
def test_heat_that_is_nan_is_refused_and_not_ranked_first(measure):
    heatmap, mask = maps()
    heatmap[2, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="heatmap: expected numbers, got NaN in 1 of 120"):
        measure(heatmap, mask)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_mask_of_another_shape_or_type_is_named(measure):
    heatmap, mask = maps()
    with pytest.raises(ValueError, match=r"shape \(4, 6, 5\).* got \(1, 6, 5\)"):
        inspect.unwrap(measure)(heatmap, mask[:1])
    with pytest.raises(TypeError, match=r"torch.bool, got torch.uint8"):
        inspect.unwrap(measure)(heatmap, mask.byte())


@pytest.mark.parametrize("measure", [average_precision, precision_recall_curve])
def test_truths_of_another_shape_or_type_are_named(measure):
    with pytest.raises(ValueError, match=r"shape \(3,\).* got \(4,\)"):
        inspect.unwrap(measure)(torch.rand(3), torch.ones(4).bool())
    with pytest.raises(TypeError, match=r"torch.bool, got torch.float32"):
        inspect.unwrap(measure)(torch.rand(3), torch.ones(3))
    with pytest.raises(ValueError, match="score: expected numbers, got NaN in 2 of 3"):
        measure(torch.tensor([1.0, torch.nan, torch.nan]), torch.ones(3).bool())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same_numbers():
    heatmap, mask = maps()
    on_gpu = heatmap.cuda(), mask.cuda()
    expected = pixel_average_precision(heatmap, mask)
    assert math.isclose(pixel_average_precision(*on_gpu), expected, rel_tol=1e-12)
    for measure in (image_average_precision, pointing_game):
        found = measure(*on_gpu)
        assert found.is_cuda
        assert torch.allclose(found.cpu(), measure(heatmap, mask), rtol=1e-12, equal_nan=True)


def scores_for_others(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores in [0, 1], as torchmetrics wants them, and truths with at least one positive."""
    score, positive = with_ties(500, seed=8)
    fine = torch.rand(500, generator=torch.Generator().manual_seed(9))
    return {
        "distinct": (fine, positive),
        "tied": ((score + 1) / 2, positive),
        "constant": (torch.full((500,), 0.5), positive),
        "perfect": (positive.float(), positive),
        "reversed": (1 - positive.float(), positive),
        "one positive": (fine, torch.arange(500) == 250),
        "one negative": (fine, torch.arange(500) != 250),
        "all positive": (fine, torch.ones(500, dtype=torch.bool)),
        "one pixel": (fine[:1], torch.ones(1, dtype=torch.bool)),
    }[kind]


KINDS = ["distinct", "tied", "constant", "perfect", "reversed", "one positive", "one negative",
         "all positive", "one pixel"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_and_its_areas_are_those_of_scikit_learn(kind):
    score, positive = scores_for_others(kind)
    curve = precision_recall_curve(score, positive)
    # lowest threshold first there, and a point of recall 0 that belongs to no threshold
    precision, recall, threshold = sklearn.metrics.precision_recall_curve(
        positive.numpy(), score.numpy()
    )
    assert curve.threshold.tolist() == threshold[::-1].tolist()
    assert curve.precision.tolist() == precision[-2::-1].tolist()
    assert curve.recall.tolist() == recall[-2::-1].tolist()
    area = sklearn.metrics.average_precision_score(positive.numpy(), score.numpy())
    assert average_precision(score, positive) == pytest.approx(area, abs=1e-12)
    straight = sklearn.metrics.auc(recall, precision)
    assert trapezoid_area(curve) == pytest.approx(straight, abs=1e-12)
    f1, cut = best_f1(curve)
    called = (score >= cut).numpy()
    assert f1 == pytest.approx(sklearn.metrics.f1_score(positive.numpy(), called), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_and_its_area_are_those_of_torchmetrics(kind):
    score, positive = scores_for_others(kind)
    curve = precision_recall_curve(score, positive)
    precision, recall, threshold = binary_precision_recall_curve(score, positive.long())
    assert torch.equal(curve.threshold, threshold.flip(0))
    assert torch.allclose(curve.precision.float(), precision[:-1].flip(0), atol=1e-6)
    assert torch.allclose(curve.recall.float(), recall[:-1].flip(0), atol=1e-6)
    area = float(binary_average_precision(score, positive.long()))  # in float32
    assert average_precision(score, positive) == pytest.approx(area, abs=1e-5)


def test_the_mean_over_images_and_the_pooled_area_are_those_of_scikit_learn_and_torchmetrics():
    generator = torch.Generator().manual_seed(2)
    heatmap = (torch.rand(6, 9, 11, generator=generator) * 20).round() / 20
    mask = torch.rand(6, 9, 11, generator=generator) < heatmap / 2
    pixels, truth = heatmap.flatten(1), mask.flatten(1)
    each = image_average_precision(heatmap, mask)
    for found, score, positive in zip(each.tolist(), pixels, truth, strict=True):
        area = sklearn.metrics.average_precision_score(positive.numpy(), score.numpy())
        assert found == pytest.approx(area, abs=1e-12)
    macro = multilabel_average_precision(pixels.T, truth.T.long(), num_labels=6, average="macro")
    assert float(each.mean()) == pytest.approx(float(macro), abs=1e-5)
    pooled = sklearn.metrics.average_precision_score(mask.flatten().numpy(), pixels.flatten())
    assert pixel_average_precision(heatmap, mask) == pytest.approx(pooled, abs=1e-12)


def test_without_positives_the_area_is_undefined_where_scikit_learn_warns():
    score, nothing = torch.rand(5), torch.zeros(5, dtype=torch.bool)
    with pytest.warns(UserWarning, match="No positive class"):
        assert sklearn.metrics.average_precision_score(nothing.numpy(), score.numpy()) == 0
    assert math.isnan(average_precision(score, nothing))
