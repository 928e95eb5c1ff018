import inspect

import pytest
import torch

from cxrtut.data.boxes import mask_to_box
from cxrtut.localize.boxes import component_boxes, largest_component_box, threshold_relative


def drawn(*rows: str) -> torch.Tensor:
    """One mask from a picture of # and dots."""
    return torch.tensor([[[pixel == "#" for pixel in row] for row in rows]])


def flood(inside: torch.Tensor) -> list[torch.Tensor]:
    """Components (masks) of one image by flooding from pixel to pixel, diagonals too."""
    height, width = inside.shape
    left = {(i, j) for i, j in inside.nonzero().tolist()}
    components = []
    while left:
        edge, component = [left.pop()], torch.zeros(height, width, dtype=torch.bool)
        while edge:
            i, j = edge.pop()
            component[i, j] = True
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            edge += near
        components.append(component)
    return components


def test_the_cut_is_above_a_fraction_of_each_images_own_maximum():
    heat = torch.tensor([[[0.0, 0.5, 0.6, 1.0]], [[0.0, 2.0, 6.0, 10.0]]])
    assert threshold_relative(heat, 0.5).int().tolist() == [[[0, 0, 1, 1]], [[0, 0, 1, 1]]]
    assert threshold_relative(heat, 0.0).int().tolist() == [[[0, 1, 1, 1]]] * 2


def test_a_map_of_zeros_or_below_has_nothing_above_the_cut():
    flat = torch.stack((torch.zeros(3, 3), torch.full((3, 3), -1.0)))
    assert not threshold_relative(flat, 0.7).any() and not threshold_relative(flat, 0.0).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 180.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match=r"in \[0, 1\), got"):
        threshold_relative(torch.ones(1, 2, 2), fraction)


def test_components_become_boxes_that_end_one_beyond_their_last_pixel():
    inside = drawn(
        "##...",
        "##...",
        ".....",
        "...#.",
    )
    heat = torch.zeros(1, 4, 5)
    heat[0, 1, 1], heat[0, 3, 3] = 0.5, 0.75
    ((boxes, score),) = component_boxes(inside, heat)
    assert boxes.tolist() == [[3, 3, 4, 4], [0, 0, 2, 2]] and boxes.dtype == torch.float32
    assert score.tolist() == [0.75, 0.5]


def test_pixels_that_touch_at_a_corner_are_one_component():
    inside = drawn(
        "#...#",
        ".#.#.",
        ".....",
    )
    ((boxes, _),) = component_boxes(inside, torch.ones(1, 3, 5))
    assert boxes.tolist() == [[0, 0, 2, 2], [3, 0, 5, 2]]


def test_all_components_are_those_of_flooding_with_the_boxes_of_the_data():
    generator = torch.Generator().manual_seed(0)
    heat = torch.rand(6, 13, 17, generator=generator)
    inside = heat > 0.75
    for scored, mask, image in zip(component_boxes(inside, heat), inside, heat, strict=True):
        components = flood(mask)
        expected = [(float(image[c].max()), mask_to_box(c).tolist()) for c in components]
        boxes, score = scored
        assert list(zip(score.tolist(), boxes.tolist(), strict=True)) == sorted(expected)[::-1]
        assert len(components) > 5


def test_equally_hot_components_come_from_above_and_from_the_left():
    inside = drawn(
        "..#.#",
        "....#",
        "#####",
    )
    ((boxes, _),) = component_boxes(inside, torch.ones(1, 3, 5))
    assert boxes.tolist() == [[0, 0, 5, 3], [2, 0, 3, 1]]


def test_small_components_are_left_out_by_their_number_of_pixels():
    inside = drawn(
        "#..##",
        ".#.##",
        "..#..",
    )
    heat = torch.ones(1, 3, 5)
    inside[0, 2, 2] = False
    assert len(component_boxes(inside, heat)[0][0]) == 2
    ((boxes, score),) = component_boxes(inside, heat, min_area=3)
    assert boxes.tolist() == [[3, 0, 5, 2]] and score.tolist() == [1]
    assert component_boxes(inside, heat, min_area=5)[0][0].shape == (0, 4)


def test_the_largest_component_has_the_most_pixels_not_the_widest_box():
    inside = drawn(
        "#.....",
        ".#....",
        "..#.##",
        "...#..",
        "##....",
        "###...",
    )
    inside[0, 2, 4:] = False
    heat = inside.float()
    heat[0, 0, 0] = 2.0
    ((boxes, score),) = largest_component_box(inside, heat)
    assert boxes.tolist() == [[0, 4, 3, 6]] and score.tolist() == [1]


def test_of_two_largest_components_the_hotter_one_counts():
    inside = drawn("##.##")
    for hot in (0, 4):
        heat = torch.full((1, 1, 5), 0.5)
        heat[0, 0, hot] = 0.75
        ((boxes, score),) = largest_component_box(inside, heat)
        assert boxes.tolist() == [[0, 0, 2, 1] if hot == 0 else [3, 0, 5, 1]]
        assert score.tolist() == [0.75]


def test_images_are_boxed_one_by_one_and_one_without_heat_has_no_box():
    heat = torch.zeros(3, 4, 4)
    heat[0, 1, 2] = heat[2, 0, 0] = 1.0
    for boxes_of in (component_boxes, largest_component_box):
        first, second, third = boxes_of(threshold_relative(heat, 0.5), heat)
        assert first[0].tolist() == [[2, 1, 3, 2]] and third[0].tolist() == [[0, 0, 1, 1]]
        assert second[0].shape == (0, 4) and second[1].shape == (0,)
        assert boxes_of(torch.zeros(0, 4, 4).bool(), torch.zeros(0, 4, 4)) == []


def test_a_component_may_be_the_whole_image():
    for boxes_of in (component_boxes, largest_component_box):
        ((boxes, score),) = boxes_of(torch.ones(1, 3, 5).bool(), torch.full((1, 3, 5), -2.0))
        assert boxes.tolist() == [[0, 0, 5, 3]] and score.tolist() == [-2]


@pytest.mark.parametrize("boxes_of", [component_boxes, largest_component_box])
def test_heat_that_is_nan_or_of_another_shape_is_named(boxes_of):
    inside, heat = torch.ones(1, 2, 2).bool(), torch.full((1, 2, 2), torch.nan)
    with pytest.raises(ValueError, match="got NaN in 4 pixels"):
        boxes_of(inside, heat)
    with pytest.raises(ValueError, match=r"inside: expected \(1, 2, 2\).* got \(1, 2, 3\)"):
        inspect.unwrap(boxes_of)(torch.ones(1, 2, 3).bool(), heat)
