"""Boxes as torchvision wants them: which are left out, and what the labels become."""

import pytest
import torch
from baselines.squares import batch_of

from cxrtut.data.box_targets import box_targets


@pytest.mark.parametrize("first", [0, 1])
def test_targets_are_boxes_without_padding_and_labels_from_the_first(first):
    some = [[1, 2, 9, 8], [3, 4, 12, 20]]
    found = box_targets(
        batch_of([some, [[0, 0, 0, 0], [5, 5, 6, 9]], [[0] * 4] * 2], [[1, 0], [-1, 1], [-1, -1]]),
        first=first,
    )
    assert [t["boxes"].tolist() for t in found] == [some, [[5, 5, 6, 9]], []]
    assert [t["labels"].tolist() for t in found] == [[1 + first, first], [1 + first], []]
    assert found[2]["boxes"].shape == (0, 4) and found[2]["labels"].dtype == torch.int64


def test_a_box_without_area_which_torchvision_refuses_is_left_out():
    flat = batch_of([[[2, 2, 2, 9], [2, 2, 9, 9]]], [[0, 1]])
    assert box_targets(flat, first=1)[0]["labels"].tolist() == [2]


def test_another_first_label_is_refused():
    with pytest.raises(ValueError, match="first: expected 0 or 1, got 2"):
        box_targets(batch_of([[[0] * 4]], [[-1]]), first=2)
