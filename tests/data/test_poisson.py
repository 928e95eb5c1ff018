"""Poisson blending: against the equations solved one by one, and what must not change."""

import inspect

import numpy as np
import pytest
import torch

from cxrtut.data.poisson import poisson_blend, rectangles


def films(seed=0, channels=1, size=16):
    generator = torch.Generator().manual_seed(seed)
    return [0.8 * torch.rand(channels, size, size, generator=generator) - 0.4 for _ in range(2)]


def solved_slowly(image, source, rectangle):
    """The Laplacian of the source in a rectangle, the image around it: a dense system."""
    top, bottom, left, right = rectangle
    inside = [(y, x) for y in range(top, bottom) for x in range(left, right)]
    place = {p: i for i, p in enumerate(inside)}
    matrix, given = np.zeros((len(inside),) * 2), np.zeros(len(inside))
    f, g = (x[0].double().numpy() for x in (image, source))
    for (y, x), i in place.items():
        matrix[i, i] = 4
        for neighbour in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            given[i] += g[y, x] - g[neighbour]
            if neighbour in place:
                matrix[i, place[neighbour]] = -1
            else:
                given[i] += f[neighbour]
    found = image.clone().double()
    for p, value in zip(inside, np.linalg.solve(matrix, given), strict=True):
        found[0][p] = value
    return found.float()


@pytest.mark.parametrize("box", [(3.0, 4.0, 9.0, 13.0), (2.2, 2.7, 5.4, 3.9), (5.0, 5.0, 6.0, 6.0)])
def test_it_solves_the_equations_of_the_box(box):
    image, source = films()
    (rectangle,) = rectangles(torch.tensor([box]), 16, 16)
    found = poisson_blend(image, source, torch.tensor([box]))
    torch.testing.assert_close(found, solved_slowly(image, source, rectangle))


def test_nothing_outside_changes_by_a_bit_and_everything_inside_does():
    image, source = films(1, channels=3)
    boxes = torch.tensor([[2.0, 3.0, 7.0, 9.0], [10.0, 10.0, 14.0, 12.0]])
    found = poisson_blend(image, source, boxes)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:9, 2:7] = inside[10:12, 10:14] = True
    assert torch.equal(found[:, ~inside], image[:, ~inside])
    assert (found != image)[:, inside].all()


def test_what_differs_by_a_constant_is_the_image_again():
    image, _ = films(2)
    found = poisson_blend(image, image + 0.3, torch.tensor([[3.0, 3.0, 12.0, 10.0]]))
    torch.testing.assert_close(found, image, atol=1e-6, rtol=0)


def test_a_lesion_is_gone_where_the_source_has_none():
    ramp = torch.linspace(-0.5, 0.5, 32).expand(1, 32, 32)
    ill = ramp.clone()
    ill[:, 10:20, 8:18] += 0.4
    found = poisson_blend(ill, ramp + 0.1, torch.tensor([[6.0, 8.0, 20.0, 22.0]]))
    torch.testing.assert_close(found, ramp.clone(), atol=1e-6, rtol=0)


def test_the_larger_of_two_boxes_comes_first_and_the_order_given_does_not_matter():
    image, source = films(3)
    small, large = [6.0, 6.0, 9.0, 9.0], [3.0, 3.0, 8.0, 12.0]
    both = poisson_blend(image, source, torch.tensor([small, large]))
    assert torch.equal(both, poisson_blend(image, source, torch.tensor([large, small])))
    first = poisson_blend(image, source, torch.tensor([large]))
    torch.testing.assert_close(both, poisson_blend(first, source, torch.tensor([small])))


def test_a_box_at_the_edge_leaves_the_outermost_pixels():
    image, source = films(4)
    found = poisson_blend(image, source, torch.tensor([[-5.0, 0.0, 30.0, 6.0]]))
    changed = (found != image)[0]
    assert changed[1:6, 1:15].all() and changed.sum() == 5 * 14
    assert rectangles(torch.tensor([[-5.0, 0.0, 30.0, 6.0]]), 16, 16) == [(1, 6, 1, 15)]


@pytest.mark.parametrize(
    "box",
    [(4.0, 4.0, 4.0, 8.0), (4.6, 4.0, 5.4, 8.0), (0.0, 0.0, 1.0, 9.0), (20.0, 2.0, 30.0, 9.0)],
)
def test_a_box_without_a_pixel_changes_nothing(box):
    image, source = films(5)
    assert torch.equal(poisson_blend(image, source, torch.tensor([box])), image)
    assert rectangles(torch.zeros(0, 4), 16, 16) == []


def test_values_stay_in_the_range_of_images_and_inputs_as_they_were():
    image, source = torch.full((1, 16, 16), 0.9), films(6)[1] * 4
    copies = image.clone(), source.clone()
    found = poisson_blend(image, source, torch.tensor([[2.0, 2.0, 14.0, 14.0]]))
    assert found.max() == 1 and found.min() >= -1 and found.dtype == torch.float32
    assert torch.equal(image, copies[0]) and torch.equal(source, copies[1])


def test_a_source_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"source: expected the size of the image, \(1, 16, 16\)"):
        inspect.unwrap(poisson_blend)(films()[0], torch.zeros(1, 16, 15), torch.zeros(0, 4))
