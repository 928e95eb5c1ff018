"""The challenge's precision, by hand and case by case."""

import math
from itertools import permutations

import pytest
import torch

from cxrtut.metrics.detection import iou_matrix
from cxrtut.metrics.rsna_map import CHALLENGE, kernel_map, precision_map, rsna_map

NONE = torch.zeros(0, 4)
BOX = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
FAR = torch.tensor([[50.0, 50.0, 60.0, 60.0]])


def part(share):
    """A box whose IoU with `BOX` is this share."""
    return torch.tensor([[0.0, 0.0, 10.0, 10.0 * share]])


def test_the_thresholds_are_those_of_the_challenge():
    assert pytest.approx([0.4 + 0.05 * k for k in range(8)]) == list(CHALLENGE)


@pytest.mark.parametrize(("share", "hits"), [(1.0, 8), (0.76, 8), (0.6, 4), (0.3, 0)])
def test_one_box_scores_the_share_of_thresholds_that_its_overlap_is_above(share, hits):
    for measure in (rsna_map, precision_map):
        assert measure([part(share)], [BOX]) == pytest.approx(hits / 8)


def test_an_overlap_of_just_the_threshold_is_no_match_but_for_the_scripts():
    assert rsna_map([part(0.5)], [BOX], [0.5]) == 0
    assert kernel_map([part(0.5)], [BOX], [0.5]) == 1


def test_a_false_and_a_missed_box_each_make_the_denominator_larger():
    both, two = torch.cat((BOX, FAR)), torch.cat((BOX, FAR + 100))
    assert rsna_map([both], [BOX], [0.5]) == 0.5
    assert rsna_map([BOX], [two], [0.5]) == 0.5
    assert rsna_map([both], [two], [0.5]) == pytest.approx(1 / 3)
    assert precision_map([both], [BOX], [0.5]) == 0.5
    assert precision_map([BOX], [two], [0.5]) == 1  # what was missed does not count


def test_images_without_any_box_are_not_counted_and_false_alarms_are():
    assert math.isnan(rsna_map([NONE], [NONE])) and math.isnan(precision_map([], []))
    assert rsna_map([BOX, NONE], [BOX, NONE], [0.5]) == 1
    assert rsna_map([BOX, FAR], [BOX, NONE], [0.5]) == 0.5
    assert rsna_map([BOX, NONE], [BOX, FAR], [0.5]) == 0.5
    assert precision_map([BOX, NONE], [BOX, FAR], [0.5]) == 0.5


def test_a_true_box_is_taken_once():
    assert rsna_map([torch.cat((BOX, BOX))], [BOX], [0.5]) == 0.5


def test_surest_first_and_true_first_can_differ():
    """The first box overlaps both true ones, the second one of them: see the Reading."""
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 4.0, 10.0, 14.0]])
    first = torch.tensor([[0.0, 2.5, 10.0, 12.5]])  # nearer to the second true box
    second = torch.tensor([[0.0, 0.0, 10.0, 8.0]])  # the first true box alone
    iou = iou_matrix(torch.cat((first, second)), truth)
    assert iou[0, 1] > iou[0, 0] > 0.5 and iou[1, 0] > 0.5 > iou[1, 1]
    predicted = [torch.cat((first, second))]
    assert rsna_map(predicted, [truth], [0.5]) == 1
    assert kernel_map(predicted, [truth], [0.5]) == pytest.approx(1 / 3)


def best_matching(iou, threshold):
    """The most hits that any assignment has."""
    n, m = iou.shape
    longer = max(n, m)
    return max(
        sum(1 for i, j in enumerate(order[:n]) if j < m and iou[i, j] > threshold)
        for order in permutations(range(longer))
    )


def test_random_boxes_never_have_more_hits_than_the_best_assignment_and_mostly_as_many():
    generator = torch.Generator().manual_seed(0)
    equal = 0
    for _ in range(40):
        corners = 8 * torch.rand(2, 3, 2, generator=generator)
        boxes = torch.cat((corners, corners + 8), dim=2)
        iou = iou_matrix(*boxes)
        found = rsna_map([boxes[0]], [boxes[1]], [0.3])
        best = best_matching(iou, 0.3)
        assert found <= best / (6 - best) + 1e-9
        equal += found == pytest.approx(best / (6 - best))
    assert equal > 30


def test_the_mean_is_over_images_of_means_over_thresholds():
    found = rsna_map([part(0.6), part(0.3)], [BOX, BOX], [0.25, 0.5])
    assert found == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("thresholds", [(), (0.5, 1.0), (-0.1,)])
def test_thresholds_out_of_range_are_refused(thresholds):
    with pytest.raises(ValueError, match="thresholds: expected some in"):
        rsna_map([BOX], [BOX], thresholds)


def test_as_many_images_on_both_sides():
    with pytest.raises(ValueError, match="of the same images, got 1 and 2"):
        rsna_map([BOX], [BOX, BOX])
