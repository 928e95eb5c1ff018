import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from viz.sight import contrast, luminance

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
    assert len(figure.axes) == 8 + 1  # the bar of colours
    assert figure.axes[5].get_title() == "Nodule"
    difference = np.asarray(figure.axes[2].images[0].get_array())
    assert difference[5, 5] == 0.25 and difference[0, 0] == 0
    assert len(figure.axes[3].patches) == 1 and len(figure.axes[3].collections) == 1


def test_an_empty_mask_has_no_outline():
    _, (axis,) = images.grid(1, 1)
    images.draw_outline(axis, torch.zeros(8, 8, dtype=torch.bool))
    assert not axis.collections


def test_planes_and_named_points_carry_their_names():
    values = [torch.tensor([[-2.0, 0.0], [1.0, 4.0]]), torch.ones(2, 2)]
    figure = images.planes(values, ["lung", "heart"], columns=2)
    titles = [axis.get_title() for axis in figure.axes[:2]]
    assert titles == ["lung\n−2 to 4", "heart\n1 to 1"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.allclose(shown, [[0, 1 / 3], [0.5, 1]])
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


def test_an_outline_leaves_the_picture_its_place_in_the_panel():
    _, (axis, other) = images.grid(2, 2)
    images.draw(axis, torch.zeros(8, 8))
    images.draw(other, torch.zeros(8, 8))
    images.draw_outline(axis, torch.ones(8, 8, dtype=torch.bool))
    assert axis.axis() == other.axis()


def test_more_than_four_columns_and_too_few_titles_are_errors():
    with pytest.raises(ValueError, match="columns: expected 1 to 4, got 5"):
        images.gallery(torch.zeros(5, 1, 4, 4), columns=5)
    with pytest.raises(ValueError, match="columns: expected 1 to 4, got 0"):
        images.gallery(torch.zeros(0, 1, 4, 4), columns=0)
    with pytest.raises(ValueError, match="titles: expected 2, one for each panel, got 1"):
        images.gallery(torch.zeros(2, 1, 4, 4), ["a"])


def test_long_titles_are_wrapped_and_lines_of_their_own_stay():
    assert images.wrapped("x\none step of the critic, not five", 4) == (
        "x\none step of the\ncritic, not five"
    )


def test_a_label_stays_inside_the_picture_on_either_side():
    for x0 in (0.0, 40.0):
        figure, (axis,) = images.grid(1, 1)
        images.draw(axis, torch.zeros(64, 64))
        images.draw_boxes(axis, torch.tensor([[x0, 0.0, x0 + 24, 20.0]]), ["Cardiomegaly"])
        figure.canvas.draw()
        place, picture = axis.texts[0].get_window_extent(), axis.get_window_extent()
        assert picture.x0 <= place.x0 and place.x1 <= picture.x1 and place.y1 <= picture.y1 + 1


def pixels(figure: plt.Figure) -> np.ndarray:
    """Luminance (h, w) of a figure 760 pixels wide on a ground of mid-grey."""
    figure.set(dpi=760 / 7.5, facecolor="#808080")
    figure.canvas.draw()
    return luminance(np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255)


def across(level: float, draw) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn in the second of four panels, and what lies there without: 21 places
    (21, pixels) along the left edge of a square, each from 6 pixels before it to 6 behind.
    """
    told = []
    for drawn in (draw, lambda axis: None):
        figure, axes = images.grid(4, 4)
        for axis in axes:
            images.draw(axis, torch.full((64, 64), level))
        drawn(axes[1])
        shown = pixels(figure)
        x, y = axes[1].transData.transform([(15.5, 24), (15.5, 40)]).T
        rows = np.linspace(y[0], y[1], 21).round().astype(int)
        column = round(x[0])
        told.append(shown[len(shown) - 1 - rows, column - 6 : column + 7])
    return told[0], told[1]


def square_box(axis: plt.Axes) -> None:
    images.draw_boxes(axis, torch.tensor([[16.0, 16.0, 48.0, 48.0]]))


def square_outline(axis: plt.Axes) -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:48, 16:48] = True
    images.draw_outline(axis, mask)


@pytest.mark.parametrize("draw", [square_box, square_outline])
@pytest.mark.parametrize("level", [-1.0, -0.5, 0.0, 0.2, 0.4, 0.7, 1.0])
def test_lines_have_a_contrast_of_three_to_their_casing_on_every_grey(draw, level):
    drawn, _ = across(level, draw)
    line = drawn[:, 4:9].max(1)
    dark = drawn.min(1)
    assert min(contrast(a, b) for a, b in zip(line, dark, strict=True)) >= 3


@pytest.mark.parametrize("draw", [square_box, square_outline])
def test_a_casing_is_two_to_four_pixels_wide(draw):
    drawn, without = across(1.0, draw)
    changed = (np.abs(drawn - without) > 0.02).sum(1)
    assert changed.min() >= 2 and changed.max() <= 5


def test_named_points_have_a_casing_on_white():
    figure = images.named_points(torch.ones(64, 64), torch.tensor([[32.0, 32.0]]), ["carina"])
    shown = pixels(figure)
    x, y = figure.axes[0].transData.transform((32, 32)).round().astype(int)
    row = shown[len(shown) - 1 - y]
    for side in (row[x - 6 : x], row[x : x + 6]):
        assert contrast(side.min(), row[x]) >= 3
