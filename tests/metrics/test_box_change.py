"""What changed in a box, by hand."""

import inspect

import pytest
import torch

from cxrtut.metrics.box_change import box_change


def test_it_is_the_largest_change_inside_in_grey_levels():
    image = torch.zeros(3, 2, 4, 4)
    inside = torch.zeros(3, 4, 4, dtype=torch.bool)
    inside[:, 1:3, 1:3] = True
    output = image.clone()
    output[0, 1, 1, 2] = -2 / 127.5
    output[0, 0, 2, 2] = 1 / 127.5
    output[0, 0, 0, 0] = 1  # outside
    output[1, :, 3] = 1  # outside
    assert box_change(image, output, inside).tolist() == pytest.approx([2, 0, 0])


def test_nothing_inside_is_no_change_and_no_images_have_none():
    image = torch.rand(2, 1, 3, 3)
    none = torch.zeros(2, 3, 3, dtype=torch.bool)
    assert box_change(image, -image, none).tolist() == [0, 0]
    assert box_change(image[:0], image[:0], none[:0]).shape == (0,)


def test_other_shapes_are_refused_by_name():
    image, inside = torch.zeros(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
    unchecked = inspect.unwrap(box_change)  # without the types that the tests check
    with pytest.raises(ValueError, match="output: expected the shape of image"):
        unchecked(image, torch.zeros(1, 1, 4, 5), inside)
    with pytest.raises(ValueError, match=r"inside: expected shape \(1, 4, 4\)"):
        unchecked(image, image, inside[:, :3])
