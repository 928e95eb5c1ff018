import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cxrtut.viz import images


@pytest.fixture(autouse=True)
def figures_without_a_screen():
    matplotlib.use("agg")
    yield
    plt.close("all")


def test_grey_maps_the_ends_of_the_range_to_black_and_white():
    assert images.grey(torch.tensor([[-1.0, 0.0, 1.0, 3.0]])).tolist() == [[0, 128, 255, 255]]


def test_a_gallery_shows_the_grey_levels_unchanged_and_in_order():
    x = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 8, 8)
    axes = images.gallery(x, ["a", "b", "c"], columns=2).axes
    shown = [axis.images[0].get_array() for axis in axes if axis.images]
    assert [int(np.asarray(s)[0, 0]) for s in shown] == [0, 128, 255]
    assert axes[0].images[0].norm.vmin == 0 and axes[0].images[0].norm.vmax == 255
    assert [axis.get_title() for axis in axes[:3]] == ["a", "b", "c"]


def test_boxes_are_drawn_on_the_edges_between_pixels():
    _, (axis,) = images.grid(1, 1)
    images.draw(axis, torch.zeros(10, 10))
    images.draw_boxes(axis, torch.tensor([[2.0, 3.0, 6.0, 9.0]]), ["Mass"])
    (rectangle,) = axis.patches
    assert rectangle.get_xy() == (1.5, 2.5)
    assert (rectangle.get_width(), rectangle.get_height()) == (4, 6)
    assert axis.texts[0].get_text() == "Mass"


def test_twins_show_healthy_image_difference_and_region_for_each_pair():
    healthy = torch.zeros(2, 1, 16, 16)
    image = healthy.clone()
    image[:, :, 4:8, 4:8] = 0.5
    region = (image - healthy)[:, 0] > 0
    boxes = [torch.tensor([[4.0, 4.0, 8.0, 8.0]])] * 2
    figure = images.twins(image, healthy, region, boxes, ["Mass", "Nodule"])
    assert len(figure.axes) == 8
    assert figure.axes[5].get_title() == "Nodule"
    difference = np.asarray(figure.axes[2].images[0].get_array())
    assert difference[5, 5] == 0.25 and difference[0, 0] == 0
    assert len(figure.axes[3].patches) == 1 and len(figure.axes[3].collections) == 1


def test_an_empty_mask_has_no_outline():
    _, (axis,) = images.grid(1, 1)
    images.draw_outline(axis, torch.zeros(8, 8, dtype=torch.bool))
    assert not axis.collections


def test_planes_and_named_points_carry_their_names():
    figure = images.planes([torch.rand(4, 4), torch.rand(4, 4)], ["lung", "heart"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["lung", "heart"]
    figure = images.named_points(torch.zeros(8, 8), torch.tensor([[1.0, 2.0]]), ["carina"])
    assert figure.axes[1].texts[0].get_text() == "1  carina"


def test_the_outline_of_a_mask_at_the_border_is_closed_there():
    """Between the last pixel inside and the first one outside: half a pixel beyond the border."""
    mask = torch.zeros(8, 6, dtype=torch.bool)
    mask[:3, 2:] = True
    axis = plt.figure().add_subplot()
    images.draw_outline(axis, mask)
    (path,) = axis.collections[0].get_paths()
    (line,) = path.to_polygons(closed_only=False)
    assert np.array_equal(line[0], line[-1])
    assert line.min(0).tolist() == [1.5, -0.5] and line.max(0).tolist() == [5.5, 2.5]
