import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cxrtut.viz import overlays
from cxrtut.viz.images import grid


@pytest.fixture(autouse=True)
def figures_without_a_screen():
    matplotlib.use("agg")
    yield
    plt.close("all")


def square(size: int, first: int, last: int) -> torch.Tensor:
    """A mask (1, size, size), True in rows and columns first ... last - 1."""
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, first:last, first:last] = True
    return mask


def shown(evidence: torch.Tensor, limit: float) -> tuple[np.ndarray, plt.Axes]:
    """Colours (h, w, 4) in which a map is laid over an image of 8 pixels."""
    _, (axis,) = grid(1, 1)
    overlays.draw_evidence(axis, evidence, limit, 8)
    (layer,) = axis.images
    colours = layer.cmap(layer.norm(layer.get_array()))
    colours[..., 3] = layer.get_alpha()
    return colours, axis


def test_evidence_for_is_red_and_against_is_blue_and_none_is_transparent():
    colours, _ = shown(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), 1.0)
    for_, against, none, half = colours.reshape(4, 4)
    assert for_[0] > for_[2] and against[2] > against[0]
    assert none[3] == 0
    assert for_[3] == against[3] == overlays.OPACITY
    assert half[3] == overlays.OPACITY / 2


def test_evidence_beyond_the_limit_is_as_strong_as_the_limit():
    colours, _ = shown(torch.tensor([[1.0, 7.0]]), 1.0)
    assert np.array_equal(colours[0, 0], colours[0, 1])


def test_a_coarse_map_covers_exactly_the_pixels_of_the_image():
    _, axis = shown(torch.rand(2, 2), 1.0)
    assert tuple(axis.images[0].get_extent()) == (-0.5, 7.5, 7.5, -0.5)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_positive_is_an_error(limit):
    with pytest.raises(ValueError, match=f"limit: expected a positive number, got {limit}"):
        shown(torch.zeros(2, 2), limit)


def test_each_set_of_maps_has_a_row_with_its_name_and_each_map_its_own_scale():
    image, region = torch.zeros(2, 1, 8, 8), square(8, 2, 5).repeat(2, 1, 1)
    maps = torch.stack([torch.eye(2), -40 * torch.eye(2)])
    figure = overlays.evidence_rows(image, [maps, maps / 7], ["a", "b"], region, ["x", "y"])
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:2]] == ["x", "y"]
    assert [figure.axes[2 * row].texts[0].get_text() for row in (1, 2)] == ["a", "b"]
    for axis, strongest in zip(figure.axes[2:], (1, 40, 1 / 7, 40 / 7), strict=True):
        assert axis.images[1].norm.vmax == pytest.approx(strongest)
        assert axis.collections, "the region is outlined"


def test_a_map_of_zeros_leaves_the_radiograph_as_it_is():
    figure = overlays.evidence_rows(
        torch.zeros(1, 1, 8, 8), [torch.zeros(1, 2, 2)], ["none"], square(8, 2, 5)
    )
    assert not np.asarray(figure.axes[1].images[1].get_alpha()).any()


def test_boxes_and_the_true_region_are_drawn_in_the_last_row_only():
    image, inside = torch.zeros(2, 1, 8, 8), square(8, 2, 5).repeat(2, 1, 1)
    boxes = [torch.tensor([[2.0, 2.0, 5.0, 5.0]]), torch.zeros(0, 4)]
    figure = overlays.found_boxes(image, inside.float(), inside, boxes, inside)
    assert [len(axis.patches) for axis in figure.axes] == [0, 0, 0, 0, 1, 0]
    assert [len(axis.collections) for axis in figure.axes] == [0, 0, 0, 0, 1, 1]
    alpha = np.asarray(figure.axes[2].images[1].get_alpha())
    assert (alpha > 0).tolist() == inside[0].tolist()


def test_a_spotlight_leaves_the_inside_and_dims_the_outside():
    image, none = torch.full((1, 1, 8, 8), 0.2), torch.zeros(1, 8, 8, dtype=torch.bool)
    (picture,) = overlays.spotlights(image, square(8, 2, 5), [torch.zeros(0, 4)], none, 2)
    assert picture.shape == (16, 16)
    assert (picture[4:10, 4:10] == 153).all()
    outside = np.ones((16, 16), dtype=bool)
    outside[4:10, 4:10] = False
    assert (picture[outside] == round(153 * overlays.DIMMED)).all()


def test_the_frame_of_a_box_lies_on_its_outermost_pixels():
    image, none = torch.full((1, 1, 8, 8), -1.0), torch.zeros(1, 8, 8, dtype=torch.bool)
    box = torch.tensor([[2.0, 3.0, 5.0, 8.0]])
    (picture,) = overlays.spotlights(image, none, [box], none, 3)
    rows, columns = np.nonzero(picture)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 23, 6, 14)
    assert (picture[10:23, 7:14] == 0).all(), "a frame, not a filled box"


def test_the_true_region_has_a_dotted_outline_that_shows_on_black_and_on_white():
    region, everything = square(8, 2, 6), torch.ones(1, 8, 8, dtype=torch.bool)
    for level, other in ((-1.0, 255), (1.0, 0)):
        image = torch.full((1, 1, 8, 8), level)
        (picture,) = overlays.spotlights(image, everything, [torch.zeros(0, 4)], region, 4)
        rows, columns = np.nonzero(picture == other)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 23, 8, 23)
        assert 0 < len(rows) < 4 * 16


def test_a_picture_of_no_pixels_is_an_error():
    none = torch.zeros(1, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        overlays.spotlights(torch.zeros(1, 1, 8, 8), none, [torch.zeros(0, 4)], none, 0)
