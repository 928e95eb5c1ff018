"""Maps and points of the plane as figures: what is drawn where, and in which scale."""

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

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
    dots = [c for c in first.collections if len(c.get_offsets()) in (1, 2)][-2:]
    assert np.allclose(dots[0].get_offsets(), REAL) and np.allclose(dots[1].get_offsets(), FAKE)
    assert [to_hex(d.get_facecolor()[0]) for d in dots] == [surfaces.REAL, surfaces.FAKE]
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
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert labels == ["1/32", "1/8", "1/2", "1", "2", "8", "32"]


def test_a_slope_of_zero_can_be_drawn() -> None:
    figure = surfaces.slope_maps([torch.zeros(2, 2)], ["flat"], limit=1.0)
    assert np.isfinite(np.asarray(figure.axes[0].images[0].get_array())).all()


def test_clouds_show_each_cloud_over_the_same_real_points() -> None:
    figure = surfaces.clouds(REAL, [FAKE, FAKE + 1], ["a", "b"], limit=2.0)
    for axis, fake, title in zip(figure.axes, (FAKE, FAKE + 1), "ab", strict=False):
        real, generated = axis.collections
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
    assert ground.min() >= 70 and ground.max() <= 170


def test_a_flat_surface_and_points_far_outside_make_a_picture() -> None:
    shown = surfaces.picture(torch.zeros(4, 4), REAL * 100, FAKE * 1000, limit=1.0, size=20)
    assert (shown == 70).all()


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
