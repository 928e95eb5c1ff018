"""Correct location, from the definition."""

import math

import pytest
import torch

from cxrtut.metrics.correct_location import correct_location
from cxrtut.metrics.detection import best_iou, macro_mean


def test_a_pair_is_right_from_the_threshold_on():
    iou, of = torch.tensor([0.1, 0.0999, 0.7, 0.0]), torch.tensor([0, 0, 2, 2])
    found = correct_location(iou.double(), of, 3, 0.1)
    assert found[[0, 2]].tolist() == [0.5, 0.5] and math.isnan(found[1])


def test_an_overlap_of_exactly_the_threshold_is_one_for_boxes_of_whole_pixels():
    true, half = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 1]])
    iou = best_iou([half, half[:0]], [true, true])
    assert correct_location(iou, torch.tensor([0, 0]), 1, 0.1).tolist() == [0.5]


def test_the_totals_of_the_paper_are_means_of_its_classes():
    """Table 2, the column of the original images after 15,000 steps, cut to three digits."""
    right, pairs = [1, 36, 14, 17, 11, 2], [54, 44, 46, 37, 36, 30]
    iou = torch.cat(
        [torch.tensor([1.0] * r + [0.0] * (n - r)) for r, n in zip(right, pairs, strict=True)]
    )
    of = torch.arange(6).repeat_interleave(torch.tensor(pairs))
    found = correct_location(iou, of, 6, 0.1)
    printed = [0.018, 0.818, 0.304, 0.459, 0.305, 0.066, 0.328]
    cut = [math.floor(1000 * v) / 1000 for v in [*found.tolist(), macro_mean(found)]]
    assert cut == printed


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, math.nan])
def test_a_threshold_that_all_or_none_would_pass_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold: expected one in \(0, 1\]"):
        correct_location(torch.tensor([0.5]), torch.tensor([0]), 1, threshold)


@pytest.mark.parametrize(
    ("iou", "of", "words"),
    [
        ([1.5], [0], "iou: expected values in"),
        ([-0.5], [0], "iou: expected values in"),
        ([0.5], [1], "class_index: expected 0 to 0, got 1"),
        ([0.5], [-1], "class_index: expected 0 to 0, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(iou, of, words):
    with pytest.raises(ValueError, match=words):
        correct_location(torch.tensor(iou), torch.tensor(of), 1, 0.1)


def test_without_pairs_every_class_is_unknown():
    assert correct_location(torch.zeros(0), torch.zeros(0).long(), 2, 0.1).isnan().all()
