import inspect
import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.detection import intersection_over_union

from cxrtut.metrics import detection
from cxrtut.metrics.detection import (
    accuracy_by_class,
    average_false_positives,
    best_iou,
    iou_matrix,
    localisation_accuracy,
    macro_mean,
    oracle_threshold,
)

NONE = torch.zeros(0, 4)
NAN = math.nan


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def drawn(n: int, seed: int, size: int = 12) -> Tensor:
    """Boxes with corners on whole pixels, at least one pixel large."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, size - 1, (n, 2), generator=generator)
    extent = torch.randint(1, size, (n, 2), generator=generator)
    return torch.cat((corner, (corner + extent).clamp(max=size)), dim=1).float()


def slow_iou(a: list[float], b: list[float]) -> Fraction:
    """By counting the pixels that two boxes cover."""

    def pixels(box: list[float]) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = (int(corner) for corner in box)
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    return Fraction(len(pixels(a) & pixels(b)), len(pixels(a) | pixels(b)))


def test_the_iou_is_the_share_of_the_covered_pixels_that_both_cover():
    a, b = drawn(20, seed=0), drawn(15, seed=1)
    expected = [[float(slow_iou(x, y)) for y in b.tolist()] for x in a.tolist()]
    assert iou_matrix(a, b).tolist() == expected
    assert 0 < sum(value == 0 for row in expected for value in row) < 250


def test_the_iou_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(5)
    corner = torch.rand(2, 30, 2, generator=generator) * 10
    a, b = torch.cat((corner, corner + torch.rand(2, 30, 2, generator=generator) * 8), dim=-1)
    expected = intersection_over_union(a, b, aggregate=False)
    assert torch.allclose(iou_matrix(a, b).float(), expected, atol=1e-6)
    diagonal = best_iou(list(a[:, None]), list(b[:, None]))
    assert torch.allclose(diagonal.float(), expected.diagonal(), atol=1e-6)
    assert (expected == 0).any() and expected.max() > 0.3


def test_the_iou_of_boxes_between_pixels():
    (row,) = iou_matrix(boxes((0, 0, 1, 1)), boxes((0.5, 0, 1.5, 1), (0.25, 0.25, 0.75, 0.75)))
    assert row.tolist() == [0.5 / 1.5, 0.25] and row.dtype == torch.float64


def test_the_iou_does_not_depend_on_the_order_nor_on_a_common_shift_or_scale():
    a, b = drawn(9, seed=2), drawn(7, seed=3)
    whole = iou_matrix(a, b)
    assert torch.equal(iou_matrix(b, a).T, whole)
    assert torch.equal(iou_matrix(4 * a + 3, 4 * b + 3), whole)
    assert (iou_matrix(a, a).diagonal() == 1).all()


def test_a_box_without_area_overlaps_nothing_not_even_itself():
    flat = boxes((2, 2, 2, 2), (0, 0, 0, 9), (5, 5, 1, 1), (5, 1, 1, 5))
    assert (iou_matrix(flat, flat) == 0).all()
    assert (iou_matrix(flat, boxes((0, 0, 9, 9), (0, 0, 3, 3))) == 0).all()


def test_boxes_that_touch_do_not_overlap():
    assert iou_matrix(boxes((0, 0, 2, 2)), boxes((2, 0, 4, 2), (2, 2, 4, 4))).tolist() == [[0, 0]]


def test_no_boxes_give_an_empty_matrix():
    assert iou_matrix(NONE, drawn(3, seed=0)).shape == (0, 3)
    assert iou_matrix(drawn(3, seed=0), NONE).shape == (3, 0)


@pytest.mark.parametrize("corner", [math.nan, math.inf])
def test_a_corner_that_is_no_number_is_an_error(corner):
    with pytest.raises(ValueError, match="a: expected finite values"):
        iou_matrix(boxes((0, 0, corner, 1)), boxes((0, 0, 1, 1)))
    with pytest.raises(ValueError, match="truth: expected finite values"):
        best_iou([boxes((0, 0, 1, 1))], [boxes((0, 0, corner, 1))])


def test_the_best_iou_of_a_pair_is_the_largest_of_all_its_matches():
    numbers = [(0, 1), (3, 1), (1, 4), (5, 2), (2, 2), (0, 3)]
    predicted = [drawn(n, seed=10 + k) for k, (n, _) in enumerate(numbers)]
    truth = [drawn(m, seed=20 + k) for k, (_, m) in enumerate(numbers)]
    expected = [
        max((float(slow_iou(a, b)) for a in p.tolist() for b in t.tolist()), default=0.0)
        for p, t in zip(predicted, truth, strict=True)
    ]
    found = best_iou(predicted, truth)
    assert found.tolist() == expected and found.dtype == torch.float64
    assert expected[0] == expected[5] == 0 and len(set(expected)) > 4


def test_one_pair_of_many_boxes_costs_what_it_costs_alone(monkeypatch):
    """Nothing is padded to the largest pair: 2,000 + 3 x 99 matches, not 2,000 x 3 x 100."""
    predicted = [drawn(2000 if k == 7 else 1, seed=k) for k in range(100)]
    truth = [drawn(1 if k == 7 else 3, seed=k + 200) for k in range(100)]
    expected = [iou_matrix(p, t).max().item() for p, t in zip(predicted, truth, strict=True)]
    matches, paired = [], detection._paired_iou
    monkeypatch.setattr(
        detection, "_paired_iou", lambda a, b: (matches.append(len(a)), paired(a, b))[1]
    )
    assert best_iou(predicted, truth).tolist() == expected
    assert matches == [2000 + 3 * 99]


def test_boxes_without_area_among_the_pairs_overlap_nothing():
    flat = boxes((2, 2, 2, 2), (0, 0, 0, 9), (5, 5, 1, 1), (5, 1, 1, 5))
    here = boxes((0, 0, 9, 9))
    assert best_iou([flat, here, flat], [here, flat, flat]).tolist() == [0, 0, 0]
    assert best_iou([torch.cat((flat, here))], [here]).tolist() == [1]
    assert average_false_positives([flat], [flat], 0.0, n_images=1) == 4


def test_what_is_predicted_for_one_pair_does_not_count_for_another():
    here, there = boxes((0, 0, 4, 4)), boxes((5, 5, 9, 9))
    assert best_iou([here, there], [there, here]).tolist() == [0, 0]
    assert best_iou([here, NONE], [here, there]).tolist() == [1, 0]


def test_of_two_true_boxes_of_one_pair_the_better_match_counts():
    truth = boxes((0, 0, 4, 4), (6, 6, 8, 8))
    assert best_iou([boxes((0, 0, 4, 2))], [truth]).tolist() == [0.5]
    assert best_iou([boxes((6, 6, 8, 8), (0, 0, 4, 2))], [truth]).tolist() == [1.0]
    assert best_iou([boxes((6, 6, 8, 8))], [truth.flip(0)]).tolist() == [1.0]


def test_the_any_box_protocol_is_the_best_over_the_boxes_of_all_cuts():
    truth = [drawn(1, seed=k) for k in range(6)]
    cuts = [[drawn(k % 3, seed=50 * cut + k) for k in range(6)] for cut in (1, 2)]
    union = [torch.cat(of_pair) for of_pair in zip(*cuts, strict=True)]
    each = torch.stack([best_iou(cut, truth) for cut in cuts])
    assert torch.equal(best_iou(union, truth), each.amax(0))
    assert (each[0] > each[1]).any() and (each[1] > each[0]).any()


def test_nothing_predicted_is_a_miss_at_every_threshold():
    iou = best_iou([NONE, NONE], [drawn(1, seed=0), drawn(2, seed=1)])
    assert iou.tolist() == [0, 0] and localisation_accuracy(iou, 0.0) == 0


def test_no_pairs_have_no_accuracy():
    assert best_iou([], []).shape == (0,)
    assert math.isnan(localisation_accuracy(best_iou([], []), 0.3))


def test_a_pair_without_a_true_box_is_never_scored():
    one = boxes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"truth\[1\].*no-box images are never scored"):
        best_iou([one, one], [one, NONE])


@pytest.mark.parametrize(
    "score", [best_iou, lambda p, t: average_false_positives(p, t, 0.5, n_images=1)]
)
def test_boxes_of_other_numbers_of_pairs_are_an_error(score):
    one = boxes((0, 0, 1, 1))
    with pytest.raises(ValueError, match="of the same pairs, got 1 and 2"):
        score([one], [one, one])


@pytest.mark.parametrize(("threshold", "width"), [(0.3, 3), (0.5, 5), (0.7, 7), (0.1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_iou_of_exactly_the_threshold_is_no_hit(threshold, width, dtype):
    """Part of a box of ten pixels: as many tenths are covered as the part has pixels."""
    truth = boxes((2, 5, 12, 6))
    same, more = boxes((2, 5, 2 + width, 6)), boxes((2, 5, 3 + width, 6))
    assert slow_iou(same[0].tolist(), truth[0].tolist()) == Fraction(width, 10)
    iou = best_iou([same, more], [truth, truth]).to(dtype)
    assert localisation_accuracy(iou[:1], threshold) == 0.0
    assert localisation_accuracy(iou, threshold) == 0.5
    by_class = accuracy_by_class(iou, torch.tensor([0, 1]), 2, threshold)
    assert by_class.tolist() == [0.0, 1.0]
    assert average_false_positives([same, more], [truth, truth], threshold, n_images=1) == 1.0


def test_the_accuracy_is_the_share_of_hits_and_falls_with_the_threshold():
    iou = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8])
    found = [localisation_accuracy(iou, threshold) for threshold in (0.0, 0.3, 0.5, 0.7, 0.9)]
    assert found == [0.8, 0.6, 0.4, 0.2, 0.0]


def test_the_accuracy_of_each_class_is_that_of_its_pairs():
    generator = torch.Generator().manual_seed(0)
    iou = torch.rand(200, generator=generator)
    class_index = torch.randint(0, 6, (200,), generator=generator)
    class_index[class_index == 4] = 0
    found = accuracy_by_class(iou, class_index, 7, 0.5)
    for k in (0, 1, 2, 3, 5):
        assert found[k].item() == localisation_accuracy(iou[class_index == k], 0.5)
    assert found[[4, 6]].isnan().all() and found.shape == (7,) and found.dtype == torch.float64


def test_the_mean_over_classes_leaves_out_what_is_not_there():
    assert macro_mean(torch.tensor([0.25, NAN, 0.75])) == 0.5
    assert math.isnan(macro_mean(torch.tensor([NAN, NAN]))) and math.isnan(macro_mean(NONE[:, 0]))


COUNTS = (180, 146, 153, 123, 85, 79, 120, 98)
"""Boxes of each class in ChestX-ray14, in the order of the columns of Table 1."""


@pytest.mark.parametrize(
    ("row", "mean", "pooled"),
    [
        ((0.40, 0.97, 0.40, 0.58, 0.50, 0.14, 0.40, 0.38), 0.47, 0.49),
        ((0.18, 0.80, 0.21, 0.25, 0.35, 0.05, 0.15, 0.16), 0.27, 0.28),
    ],
)
def test_the_mean_in_table_1_of_kim_et_al_is_the_plain_mean_over_classes(row, mean, pooled):
    """ResNet-50 + Alignment + DM at T 0.3 and 0.5, from as many hits as give the printed row."""
    iou, class_index = [], []
    for k, (accuracy, count) in enumerate(zip(row, COUNTS, strict=True)):
        hits = round(accuracy * count)
        iou += [0.9] * hits + [0.1] * (count - hits)
        class_index += [k] * count
    assert len(iou) == 984
    by_class = accuracy_by_class(torch.tensor(iou), torch.tensor(class_index), 8, 0.3)
    assert torch.allclose(by_class, torch.tensor(row, dtype=torch.float64), atol=0.007)
    assert round(macro_mean(by_class), 2) == mean
    assert round(localisation_accuracy(torch.tensor(iou), 0.3), 2) == pooled


def test_false_positives_are_the_predicted_boxes_that_match_nothing():
    numbers = [(4, 1), (0, 2), (3, 0), (0, 0), (5, 3)]
    predicted = [drawn(n, seed=k) for k, (n, _) in enumerate(numbers)]
    truth = [drawn(m, seed=30 + k) for k, (_, m) in enumerate(numbers)]
    expected = 0
    for p, t in zip(predicted, truth, strict=True):
        expected += sum(all(slow_iou(a, b) <= 0.25 for b in t.tolist()) for a in p.tolist())
    assert 3 < expected < 12
    assert average_false_positives(predicted, truth, 0.25, n_images=5) == expected / 5
    assert average_false_positives(predicted, truth, 0.25, n_images=2) == expected / 2


def test_all_that_is_predicted_for_an_image_without_the_disease_is_false():
    predicted = [boxes((0, 0, 2, 2), (3, 3, 5, 5)), boxes((0, 0, 2, 2))]
    assert average_false_positives(predicted, [NONE, NONE], 0.0, n_images=2) == 1.5


def test_two_boxes_on_one_true_box_are_both_matched():
    truth = boxes((0, 0, 4, 4))
    twice = boxes((0, 0, 4, 4), (0, 0, 4, 3))
    assert average_false_positives([twice], [truth], 0.5, n_images=1) == 0.0
    assert average_false_positives([twice], [truth], 0.8, n_images=1) == 1.0


def test_nothing_predicted_is_never_false():
    assert average_false_positives([NONE, NONE], [NONE, drawn(1, seed=0)], 0.5, n_images=2) == 0
    assert average_false_positives([], [], 0.5, n_images=3) == 0


@pytest.mark.parametrize("n_images", [0, -1])
def test_false_positives_per_image_need_an_image(n_images):
    with pytest.raises(ValueError, match=f"n_images: expected at least 1, got {n_images}"):
        average_false_positives([], [], 0.5, n_images)


def test_the_oracle_takes_for_each_class_its_own_best_cut():
    class_index = torch.tensor([0, 0, 0, 1, 1, 3])
    iou = torch.tensor(
        [
            [0.6, 0.1, 0.1, 0.1, 0.1, 0.2],
            [0.6, 0.9, 0.1, 0.1, 0.1, 0.2],
            [0.1, 0.6, 0.7, 0.1, 0.8, 0.2],
        ]
    )
    cut, accuracy = oracle_threshold(iou, class_index, 4, 0.5)
    assert cut.tolist() == [1, 2, -1, 0] and cut.dtype == torch.int64
    assert accuracy[[0, 1, 3]].tolist() == [2 / 3, 0.5, 0.0]
    assert accuracy[2].isnan() and accuracy.dtype == torch.float64


def test_the_oracle_is_an_upper_bound_of_every_fixed_cut():
    generator = torch.Generator().manual_seed(1)
    iou, class_index = torch.rand(9, 60, generator=generator), torch.arange(60) % 4
    cut, accuracy = oracle_threshold(iou, class_index, 4, 0.5)
    fixed = torch.stack([accuracy_by_class(row, class_index, 4, 0.5) for row in iou])
    assert (accuracy >= fixed).all() and macro_mean(accuracy) > fixed.mean(1).max() + 0.01
    for k in range(4):
        assert fixed[cut[k], k] == accuracy[k] and (fixed[: cut[k], k] < accuracy[k]).all()


def test_an_oracle_without_cuts_is_an_error():
    with pytest.raises(ValueError, match=r"at least one cut, got shape \(0, 3\)"):
        oracle_threshold(torch.zeros(0, 3), torch.zeros(3, dtype=torch.int64), 1, 0.5)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 50, math.nan])
def test_a_threshold_that_is_none_is_an_error(threshold):
    one = boxes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\), got"):
        localisation_accuracy(torch.ones(1), threshold)
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\), got"):
        average_false_positives([one], [one], threshold, n_images=1)


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_an_iou_out_of_range_is_an_error(value):
    iou = torch.tensor([0.5, value])
    with pytest.raises(ValueError, match=r"iou: expected numbers in \[0, 1\], got"):
        localisation_accuracy(iou, 0.5)
    with pytest.raises(ValueError, match=r"iou: expected numbers in \[0, 1\], got"):
        accuracy_by_class(iou, torch.tensor([0, 0]), 1, 0.5)


@pytest.mark.parametrize("strange", [-1, 2])
def test_a_class_out_of_range_is_an_error(strange):
    with pytest.raises(ValueError, match=f"class_index: expected 0 to 1, got {strange}"):
        accuracy_by_class(torch.ones(2), torch.tensor([0, strange]), 2, 0.5)


def test_a_class_for_another_number_of_pairs_is_an_error():
    with pytest.raises(ValueError, match=r"class_index: expected shape \(3,\), got \(2,\)"):
        inspect.unwrap(accuracy_by_class)(torch.ones(3), torch.tensor([0, 1]), 2, 0.5)
