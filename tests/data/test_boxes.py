import pytest
import torch
from torchvision import ops

from cxrtut.data.boxes import (
    box_areas,
    boxes_to_mask,
    clip_boxes,
    mask_to_box,
    scale_boxes,
    transform_boxes,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

NONE = torch.zeros(0, 4)


def test_width_and_height_become_the_far_corner_and_back():
    xywh = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert xywh_to_xyxy(xywh).tolist() == [[1, 2, 4, 6]]
    assert torch.equal(xyxy_to_xywh(xywh_to_xyxy(xywh)), xywh)


def test_no_boxes_stay_no_boxes():
    for convert in (xywh_to_xyxy, xyxy_to_xywh):
        assert convert(NONE).shape == (0, 4)
    assert clip_boxes(NONE, 4, 4).shape == (0, 4)
    assert scale_boxes(NONE, (4, 4), (8, 8)).shape == (0, 4)
    assert box_areas(NONE).shape == (0,)
    assert not boxes_to_mask(NONE, 3, 5).any()
    assert transform_boxes(torch.zeros(2, 0, 4), torch.zeros(2, 2, 3), 4, 4).shape == (2, 0, 4)
    assert mask_to_box(torch.zeros(0, 3, 5, dtype=torch.bool)).shape == (0, 4)


def test_clipping_keeps_the_part_inside_and_flattens_what_is_outside():
    boxes = torch.tensor([[-2.0, 1.0, 3.0, 9.0], [10.0, 10.0, 12.0, 12.0]])
    clipped = clip_boxes(boxes, height=4, width=6)
    assert clipped[0].tolist() == [0, 1, 3, 4]
    assert box_areas(clipped).tolist() == [9, 0]


def test_an_inside_out_box_has_no_area():
    assert box_areas(torch.tensor([[3.0, 3.0, 1.0, 1.0]])).item() == 0


def test_scaling_takes_each_axis_by_its_own_factor():
    box = torch.tensor([[256.0, 512.0, 1024.0, 1024.0]])
    assert scale_boxes(box, (1024, 1024), (256, 512)).tolist() == [[128, 128, 512, 256]]
    with pytest.raises(ValueError, match="positive"):
        scale_boxes(box, (0, 1024), (256, 256))


def test_a_mask_of_boxes_is_their_union_by_pixel_centres():
    boxes = torch.tensor([[1.0, 0.0, 3.0, 2.0], [2.6, 1.0, 4.4, 3.0]])
    expected = [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 0]]
    assert boxes_to_mask(boxes, 3, 5).int().tolist() == expected


def test_mask_and_box_are_inverse_for_whole_pixels():
    boxes = torch.tensor([[1.0, 2.0, 4.0, 3.0], [0.0, 0.0, 6.0, 5.0], [5.0, 4.0, 6.0, 5.0]])
    masks = torch.stack([boxes_to_mask(box[None], 5, 6) for box in boxes])
    assert torch.equal(mask_to_box(masks), boxes)
    assert torch.equal(mask_to_box(masks[0]), boxes[0])


def test_an_empty_mask_gives_the_zeros_of_padding():
    assert mask_to_box(torch.zeros(2, 3, 5, dtype=torch.bool)).tolist() == [[0] * 4] * 2


def test_a_mirror_moves_boxes_to_width_minus_x():
    box = torch.tensor([[[1.0, 2.0, 4.0, 3.0]]])
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(transform_boxes(box, mirror, 8, 10), torch.tensor([6.0, 2, 9, 3]))


def test_a_quarter_turn_and_a_shift_follow_the_closed_form():
    box = torch.tensor([[[1.0, 2.0, 4.0, 3.0]]])
    turn = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])  # (u, v) -> (-v, u)
    assert torch.allclose(transform_boxes(box, turn, 8, 8), torch.tensor([5.0, 1, 6, 4]))
    shift = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, -0.25]]])
    assert torch.allclose(transform_boxes(box, shift, 8, 8), torch.tensor([3.0, 1, 6, 2]))


def test_conversions_areas_and_clips_are_those_of_torchvision():
    """Which `cxrtut.data` does not import: it would nearly double the time to its first batch."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(50, 2, generator=generator) * 40 - 10
    boxes = torch.cat((corner, corner + torch.rand(50, 2, generator=generator) * 20), dim=1)
    assert torch.equal(xyxy_to_xywh(boxes), ops.box_convert(boxes, "xyxy", "xywh"))
    assert torch.equal(xywh_to_xyxy(boxes), ops.box_convert(boxes, "xywh", "xyxy"))
    assert torch.equal(box_areas(boxes), ops.box_area(boxes))
    assert torch.equal(clip_boxes(boxes, 20, 25), ops.clip_boxes_to_image(boxes, (20, 25)))
    inside_out = boxes[:, [2, 3, 0, 1]]
    assert (box_areas(inside_out) == 0).all() and (ops.box_area(inside_out) > 0).all()
