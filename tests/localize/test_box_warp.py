"""Boxes of resampled images: against masks that are resampled, there and back."""

import math

import pytest
import torch

from cxrtut.data.boxes import boxes_to_mask, mask_to_box
from cxrtut.localize.box_warp import warp_boxes
from cxrtut.nn.spatial_transformer import five_parameter_matrix, invert, warp

BOXES = torch.tensor([[8.0, 12.0, 24.0, 40.0], [30.0, 30.0, 50.0, 42.0]])


def matrix(sx=1.0, sy=1.0, tx=0.0, ty=0.0, angle=0.0):
    return five_parameter_matrix(*(torch.tensor([float(v)]) for v in (sx, sy, tx, ty, angle)))


@pytest.mark.parametrize("kind", ["thirds", "corners"])
def test_the_identity_leaves_boxes_alone_and_so_does_there_and_back(kind):
    torch.testing.assert_close(warp_boxes(BOXES, matrix()[0], 64, kind=kind), BOXES)
    m = matrix(0.8, 1.2, 0.1, -0.05)
    there = warp_boxes(BOXES, invert(m)[0], 64, kind=kind)
    torch.testing.assert_close(warp_boxes(there, m[0], 64, kind=kind), BOXES)


def test_a_scale_of_one_half_doubles_a_box_and_a_shift_moves_it():
    there = warp_boxes(BOXES[:1], invert(matrix(0.5, 0.5))[0], 64)
    assert there[0].tolist() == pytest.approx([-16, -8, 16, 48])
    there = warp_boxes(BOXES[:1], invert(matrix(tx=0.25, ty=-0.5))[0], 64)
    assert there[0].tolist() == pytest.approx([0, 28, 16, 56])


@pytest.mark.parametrize(
    "m", [matrix(0.8, 1.1, 0.1, 0.2), matrix(angle=0.3), matrix(ty=0.1, angle=-0.2)]
)
def test_the_box_of_an_aligned_image_is_where_its_mask_goes(m):
    """Corners enclose the turned mask; thirds lie between that and the mask itself."""
    mask = boxes_to_mask(BOXES[1:], 64, 64).float()[None, None]
    around = mask_to_box(warp(mask, m, outside=0.0)[0, 0] > 0.5)
    corners = warp_boxes(BOXES[1], invert(m)[0], 64, kind="corners")
    torch.testing.assert_close(corners, around, atol=1.5, rtol=0)
    thirds = warp_boxes(BOXES[1], invert(m)[0], 64)
    assert (thirds[:2] >= corners[:2] - 1e-4).all() and (thirds[2:] <= corners[2:] + 1e-4).all()


def test_thirds_keep_the_area_of_a_turned_square_nearer_than_corners():
    square = torch.tensor([24.0, 24.0, 40.0, 40.0])
    m = invert(matrix(angle=math.pi / 8))[0]
    area = [
        float((b[2] - b[0]) * (b[3] - b[1]))
        for b in (warp_boxes(square, m, 64, kind=k) for k in ("thirds", "corners"))
    ]
    assert 256 < area[0] < area[1]
    assert area[1] == pytest.approx(256 * (math.cos(math.pi / 8) + math.sin(math.pi / 8)) ** 2)


def test_no_boxes_and_another_kind():
    assert warp_boxes(torch.zeros(0, 4), matrix()[0], 64).shape == (0, 4)
    with pytest.raises(ValueError, match="kind: expected one of thirds, corners, got 'hull'"):
        warp_boxes(BOXES, matrix()[0], 64, kind="hull")
