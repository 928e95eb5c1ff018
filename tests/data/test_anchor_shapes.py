"""Shapes of anchors that fit boxes."""

import pytest
import torch

from cxrtut.data.anchor_shapes import (
    fitted_in_two_levels,
    fitted_shapes,
    mean_best_iou,
    shape_iou,
)


def clusters(n=60, seed=0):
    draw = torch.Generator().manual_seed(seed)
    middles = torch.tensor([[8.0, 10.0], [30.0, 16.0], [20.0, 60.0]])
    noise = 0.5 * torch.randn(n, 3, 2, generator=draw)
    return middles, (middles + noise).flatten(0, 1)


def test_shapes_overlap_as_boxes_with_one_centre_do():
    a, b = torch.tensor([[4.0, 6.0]]), torch.tensor([[4.0, 6.0], [8.0, 3.0]])
    assert shape_iou(a, b).tolist()[0] == pytest.approx([1.0, 12 / (24 + 24 - 12)])


def test_the_shapes_of_three_clusters_are_their_medians_by_area():
    middles, sides = clusters()
    found = fitted_shapes(sides, 3, seed=1)
    assert (found.prod(-1).diff() > 0).all()
    torch.testing.assert_close(found, middles, atol=0.4, rtol=0)
    assert mean_best_iou(sides, found) > 0.9
    assert torch.equal(found, fitted_shapes(sides, 3, seed=1))


def test_more_shapes_fit_better_and_one_for_each_box_fits_exactly():
    _, sides = clusters(4)
    fits = [mean_best_iou(sides, fitted_shapes(sides, k, seed=0)) for k in (1, 3, 12)]
    assert fits[0] < fits[1] < fits[2] == pytest.approx(1.0)


def test_two_levels_have_three_shapes_near_each_cluster():
    middles, sides = clusters()
    found = fitted_in_two_levels(sides, seed=0).view(3, 3, 2)
    torch.testing.assert_close(found.mean(1), middles, atol=0.5, rtol=0)
    for group in found:
        assert len(group.unique(dim=0)) == 3


@pytest.mark.parametrize("sides", [torch.ones(2, 2), torch.zeros(9, 2), torch.zeros(0, 2)])
def test_too_few_boxes_and_boxes_without_area_are_refused(sides):
    with pytest.raises(ValueError, match="expected 3 boxes or more of positive sides"):
        fitted_shapes(sides, 3, seed=0)
