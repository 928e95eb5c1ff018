import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from viz.sight import KINDS, lab

from cxrtut.viz import overlays
from cxrtut.viz.images import RED_BLUE, grid
from cxrtut.viz.images import draw as draw_image


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
    return layer.cmap(layer.norm(layer.get_array())), axis


def over(image: torch.Tensor, draw, values: torch.Tensor) -> np.ndarray:
    """sRGB (n, n, 3) in the middles of the cells of a map as rendered over a dimmed image."""
    n = len(values)
    figure, (axis,) = grid(1, 1)
    figure.set_facecolor("black")
    draw_image(axis, image, overlays.DIMMED)
    draw(axis, values, 1.0, n)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    middles = axis.transData.transform([(k, k) for k in range(n)]).round().astype(int)
    return picture[len(picture) - 1 - middles[:, 1]][:, middles[:, 0]]


HEATS = (0.0, 0.25, 0.5, 0.75, 1.0)


def levels(draw, sign: float) -> np.ndarray:
    """sRGB (5, 5, 3): rows are grounds from black to white, columns heats from none to full."""
    ground = torch.linspace(-1, 1, 5)[:, None].expand(5, 5)
    return over(ground, draw, sign * torch.tensor(HEATS).expand(5, 5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("draw", "sign"),
    [(overlays.draw_heat, 1.0), (overlays.draw_evidence, 1.0), (overlays.draw_evidence, -1.0)],
)
def test_more_heat_is_brighter_for_every_eye_over_every_grey_of_a_radiograph(draw, sign, kind):
    seen = lab(levels(draw, sign), kind)
    assert (np.diff(seen[..., 0], axis=1) > 0.5).all()
    dimmed = np.linspace(0, overlays.DIMMED, 100)[:, None].repeat(3, 1)
    greys = lab(dimmed, kind)
    apart = np.linalg.norm(seen[:, :, None] - greys, axis=-1).min(-1)
    assert (apart[:, 2:] > 18).all() and (apart[:, 1] > 8).all()


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_for_and_against_differ_for_every_eye(kind):
    for_, against = (lab(levels(overlays.draw_evidence, sign), kind)[:, 2:] for sign in (1.0, -1.0))
    assert (np.linalg.norm(for_ - against, axis=-1) > 25).all()


@pytest.mark.parametrize("kind", KINDS)
def test_differences_are_darker_the_larger_and_differ_in_sign_for_every_eye(kind):
    sizes = np.linspace(0, 1, 6)
    more, less = (
        lab(matplotlib.colormaps[RED_BLUE](0.5 + sign * sizes / 2)[:, :3], kind) for sign in (1, -1)
    )
    for seen in (more, less):
        assert (np.diff(seen[:, 0]) < 0).all()
    assert (np.linalg.norm(more - less, axis=-1)[1:-1] > 15).all()


def test_evidence_for_is_yellow_and_against_is_blue_and_none_is_transparent():
    colours, _ = shown(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), 1.0)
    for_, against, none, half = colours.reshape(4, 4)
    assert min(for_[0], for_[1]) > for_[2] and against[2] > against[0]
    assert none[3] == 0
    assert for_[3] == against[3] == overlays.OPACITY
    assert half[3] == pytest.approx(overlays.OPACITY / 2, abs=0.01)


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
    assert len(figure.axes) == 6 + 1
    assert [axis.get_title() for axis in figure.axes[:2]] == ["x", "y"]
    assert [figure.axes[2 * row].texts[0].get_text() for row in (1, 2)] == ["a", "b"]
    for axis, sign in zip(figure.axes[2:6], (1, -1, 1, -1), strict=True):
        values = np.asarray(axis.images[1].get_array())
        assert np.allclose(values, sign * np.eye(2)) and axis.images[1].norm.vmin == -1
        assert axis.collections, "the region is outlined"


def test_a_map_of_zeros_only_dims_the_radiograph():
    figure = overlays.evidence_rows(
        torch.zeros(1, 1, 8, 8), [torch.zeros(1, 2, 2)], ["none"], square(8, 2, 5)
    )
    ground, layer = figure.axes[1].images
    assert not layer.cmap(layer.norm(layer.get_array()))[..., 3].any()
    assert ground.norm.vmax == 255 / overlays.DIMMED


def test_boxes_and_the_true_region_are_drawn_in_the_last_row_only():
    image, inside = torch.zeros(2, 1, 8, 8), square(8, 2, 5).repeat(2, 1, 1)
    boxes = [torch.tensor([[2.0, 2.0, 5.0, 5.0]]), torch.zeros(0, 4)]
    figure = overlays.found_boxes(image, inside.float(), inside, boxes, inside)
    panels = figure.axes[:-1]
    assert [len(axis.patches) for axis in panels] == [0, 0, 0, 0, 1, 0]
    assert [len(axis.collections) for axis in panels] == [0, 0, 0, 0, 1, 1]


def test_above_the_cut_heat_stays_as_it_is_and_elsewhere_is_none():
    inside, heat = square(8, 2, 5), torch.linspace(0.1, 2, 64).reshape(1, 8, 8)
    figure = overlays.found_boxes(
        torch.zeros(1, 1, 8, 8), heat, inside, [torch.zeros(0, 4)], inside
    )
    whole, cut = (np.asarray(axis.images[1].get_array()) for axis in figure.axes[:2])
    there = inside[0].numpy()
    assert np.allclose(whole, heat[0] / 2)
    assert np.array_equal(cut[there], whole[there]) and not cut[~there].any()


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


def test_the_frame_of_a_box_has_a_dark_casing_on_white():
    image, none = torch.ones(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    everything, box = torch.ones(1, 8, 8, dtype=torch.bool), torch.tensor([[2.0, 2.0, 6.0, 6.0]])
    (picture,) = overlays.spotlights(image, everything, [box], none, 4)
    assert picture[16, 6:11].tolist() == [255, 0, 255, 0, 255]


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


def test_each_frame_has_the_radiographs_in_rows_with_its_own_cut_and_boxes():
    image, none = torch.full((3, 1, 8, 8), 0.2), torch.zeros(3, 8, 8, dtype=torch.bool)
    without, box = torch.zeros(0, 4), torch.tensor([[2.0, 2.0, 6.0, 6.0]])
    boxes = [[without] * 3, [without, without, box]]
    first, second = overlays.spotlight_frames(image, [none, ~none], boxes, none, columns=2)
    assert first.shape == second.shape == (48, 48)
    assert (first[:24] == round(153 * overlays.DIMMED)).all(), "two radiographs beside each other"
    assert (second[:24] == 153).all()
    assert (first[24:, 24:] == 0).all() and (second[24:, 24:] == 0).all(), "no fourth one"
    assert (second[24:, :24] == 255).any() and not (first == 255).any()
    with pytest.raises(ValueError, match="boxes for each of 1 frames, got 2"):
        overlays.spotlight_frames(image, [none], boxes, none)
