"""Maps and points of the plane as figures: what is drawn where, and in which scale."""

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from viz.sight import contrast, luminance

from cxrtut.viz import surfaces

REAL = torch.tensor([[0.5, 0.5], [-0.5, 0.5]])
FAKE = torch.tensor([[0.0, -1.0]])


@pytest.fixture(autouse=True)
def figures_without_a_screen() -> Iterator[None]:
    matplotlib.use("agg")
    yield
    plt.close("all")


def ramp(n: int = 9) -> torch.Tensor:
    """Rises with y, from -1 to 1: the first row is the lowest."""
    return torch.linspace(-1, 1, n)[:, None].expand(n, n)


def test_score_maps_show_real_and_generated_points_where_they_are() -> None:
    figure = surfaces.score_maps([ramp(), 40 * ramp()], REAL, [FAKE, FAKE], ["a", "b"], limit=2.0)
    first, second = figure.axes[:2]
    rims_and_dots = first.collections[-4:]
    places = [dots.get_offsets() for dots in rims_and_dots]
    for shown, meant in zip(places, (REAL, REAL, FAKE, FAKE), strict=True):
        assert np.allclose(shown, meant)
    colours = [to_hex(dots.get_facecolor()[0]) for dots in rims_and_dots[1::2]]
    assert colours == [surfaces.REAL, surfaces.FAKE]
    assert first.get_xlim() == (-2, 2) and first.get_ylim() == (-2, 2)
    assert first.get_title() == "a\nscores 2.0 apart"
    assert second.get_title() == "b\nscores 80 apart"


def test_high_scores_are_at_the_top_when_they_are_at_high_y() -> None:
    figure = surfaces.score_maps([ramp(33)], REAL, [FAKE], ["a"], limit=1.0, columns=1)
    figure.canvas.draw()
    shown = np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(2)
    column = shown[:, shown.shape[1] // 4]
    inside = column[column < 250]
    assert inside[10:40].mean() > inside[-40:-10].mean() + 20


def test_a_slope_of_one_is_white_and_doublings_are_equal_steps() -> None:
    slope = torch.tensor([[0.5, 1.0], [2.0, 1e6]])
    figure = surfaces.slope_maps([slope], ["a"], limit=1.0)
    image = figure.axes[0].images[0]
    assert np.asarray(image.get_array())[:, 0].tolist() == [-1, 1]
    red, green, blue, _ = image.cmap(image.norm(0.0))
    assert min(red, green, blue) > 0.95
    assert image.origin == "lower"
    assert figure.axes[0].get_title() == "a\nmedian 1.0"
    labels = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert labels == ["1/512", "1/64", "1/8", "1", "8", "64", "512"]
    assert figure.axes[1].get_xticks().tolist() == [np.log2(1 / 512), -6, -3, 0, 3, 6, 9]


def test_slopes_of_a_critic_without_penalty_are_told_apart() -> None:
    """Without the penalty the median was 147: such a map must not be one flat red."""
    figure = surfaces.slope_maps([torch.tensor([[50.0, 147.0], [300.0, 500.0]])], ["a"], limit=1.0)
    image = figure.axes[0].images[0]
    light = luminance(image.cmap(image.norm(image.get_array()))[..., :3]).ravel()
    assert (np.diff(light) < -0.01).all()


def test_a_slope_of_zero_can_be_drawn() -> None:
    figure = surfaces.slope_maps([torch.zeros(2, 2)], ["flat"], limit=1.0)
    assert np.isfinite(np.asarray(figure.axes[0].images[0].get_array())).all()


def test_clouds_show_each_cloud_over_the_same_real_points() -> None:
    figure = surfaces.clouds(REAL, [FAKE, FAKE + 1], ["a", "b"], limit=2.0)
    for axis, fake, title in zip(figure.axes, (FAKE, FAKE + 1), "ab", strict=False):
        _, real, _, generated = axis.collections
        assert np.allclose(real.get_offsets(), REAL)
        assert np.allclose(generated.get_offsets(), fake)
        assert axis.get_title() == title


def test_a_picture_has_high_y_at_its_top_and_points_at_their_places() -> None:
    real, fake = torch.tensor([[-0.5, 0.5]]), torch.tensor([[0.5, -0.5]])
    shown = surfaces.picture(ramp(), real, fake, limit=1.0, size=100)
    assert shown.shape == (100, 100) and shown.dtype == np.uint8
    assert shown[25, 25] == 255 and shown[75, 75] == 0
    assert shown[2, 60] > shown[50, 10] > shown[97, 10]
    ground = shown[:, 90]
    assert ground.min() >= 90 and ground.max() <= 170


def test_a_flat_surface_and_points_far_outside_make_a_picture() -> None:
    shown = surfaces.picture(torch.zeros(4, 4), REAL * 100, FAKE * 1000, limit=1.0, size=20)
    assert (shown == 90).all()


def test_the_outermost_places_of_a_lattice_lie_on_the_border_of_its_map():
    slope = torch.ones(5, 5)
    figure = surfaces.slope_maps([slope], ["a"], limit=2.0)
    axis = figure.axes[0]
    assert axis.images[0].get_extent() == [-2.5, 2.5, -2.5, 2.5]
    assert axis.get_xlim() == axis.get_ylim() == (-2.0, 2.0)


def test_a_slope_of_scores_is_a_slope_over_the_whole_picture():
    line = torch.linspace(0, 1, 5).expand(5, 5)
    none = torch.zeros(0, 2)
    shown = surfaces.picture(line, none, none, limit=1.0, size=240)
    borders = (np.diff(shown[120].astype(int)) != 0).nonzero()[0] + 1
    assert np.abs(borders - 240 * np.arange(1, 12) / 12).max() <= 1


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_points_have_a_contrast_of_three_to_their_rim_on_every_colour(level: float) -> None:
    scores = torch.full((9, 9), level)
    scores[0, 0], scores[0, -1] = 0, 1
    for colour in (surfaces.REAL, surfaces.FAKE):
        point, none = torch.zeros(1, 2), torch.zeros(0, 2)
        real, fake = (point, none) if colour == surfaces.REAL else (none, point)
        figure = surfaces.score_maps([scores], real, [fake], ["a"], limit=1.0)
        axis = figure.axes[0]
        figure.set_dpi(760 / 7.5)
        figure.canvas.draw()
        shown = luminance(np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255)
        x, y = axis.transData.transform((0, 0)).round().astype(int)
        row = shown[len(shown) - 1 - y, x - 4 : x + 5]
        assert min(contrast(row[4], side.min()) for side in (row[:4], row[5:])) >= 3


def test_points_of_a_picture_show_on_all_its_greys() -> None:
    point, none = torch.zeros(1, 2), torch.zeros(0, 2)
    for level in (0.0, 1.0):
        scores = torch.full((9, 9), level)
        scores[0, 0], scores[0, -1] = 0, 1
        for real, fake in ((point, none), (none, point)):
            shown = surfaces.picture(scores, real, fake, limit=1.0, size=101)
            row = luminance(shown[50, 45:56, None].repeat(3, 1) / 255)
            assert contrast(row[5], row[:5].max()) >= 3 or contrast(row[5], row[:5].min()) >= 3


def test_scores_are_shown_as_shares_of_their_range_on_one_bar() -> None:
    figure = surfaces.score_maps([40 * ramp() + 7], REAL, [FAKE], ["a"], limit=2.0, columns=1)
    filled = figure.axes[0].collections[0]
    assert np.allclose(filled.levels, np.linspace(0, 1, surfaces.LEVELS + 1))
    assert all(len(path.vertices) for path in filled.get_paths())  # every step occurs
    heights = np.concatenate([path.vertices[:, 1] for path in filled.get_paths()])
    assert heights.min() == -2 and heights.max() == 2
    flat = surfaces.score_maps([torch.ones(5, 5)], REAL, [FAKE], ["a"], limit=2.0, columns=1)
    assert flat.axes[0].get_title() == "a\nscores 0.0 apart"
