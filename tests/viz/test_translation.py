"""Images on their way to another domain."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cxrtut.viz import translation
from cxrtut.viz.translation import ENLARGED

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def films(*values, size=4):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, size, size)


def test_a_strength_adds_its_share_of_the_change_and_clips():
    image, change = films(-0.5, 0.0), films(0.5, -1.0)
    frames = translation.strength_frames(image, change, [0.0, 0.5, 1.0, 2.0])
    levels = [[int(frame[0, 0]), int(frame[0, -1])] for frame in frames]
    assert levels == [[64, 128], [96, 64], [128, 0], [191, 0]]
    assert {frame.shape for frame in frames} == {(4 * ENLARGED, 8 * ENLARGED)}
    assert all(len(np.unique(frame)) == 2 for frame in frames)


def test_images_fill_rows_of_the_columns_asked_for():
    image = films(-1.0, -0.5, 0.5, 1.0)
    (frame,) = translation.strength_frames(image, torch.zeros_like(image), [1.0], columns=2)
    corners = [int(frame[i, j]) for i in (0, -1) for j in (0, -1)]
    assert frame.shape == (8 * ENLARGED, 8 * ENLARGED) and corners == [0, 64, 191, 255]
    (strip,) = translation.wipe_frames(image, image, [0.0], columns=4)
    assert strip.shape == (4 * ENLARGED, 16 * ENLARGED)


def test_a_wipe_shows_the_translated_image_left_of_the_border_and_the_image_right_of_it():
    image, translated = films(0.0, 0.0), films(1.0, -1.0)
    none, half, all_ = translation.wipe_frames(image, translated, [0.0, 0.5, 1.0])
    width, middle = 4 * ENLARGED, 2 * ENLARGED
    assert (none == 128).all()
    assert (all_[:, :width] == 255).all() and (all_[:, width:] == 0).all()
    row = half[0, :width].tolist()
    assert row[: middle - 1] == [255] * (middle - 1)
    assert row[middle - 1 : middle + 2] == [0, 255, 0]  # the border
    assert row[middle + 2 :] == [128] * (middle - 2)
    assert (half[:, width : width + middle - 1] == 0).all() and (half == half[:1]).all()
    again = translation.wipe_frames(image, translated, [1.0, 0.5, 0.0])  # frames are apart
    assert all((a == b).all() for a, b in zip(again, (all_, half, none), strict=True))


def test_pixels_are_enlarged_as_they_are():
    image = torch.tensor([[[[-1.0, 1.0], [0.0, -1.0]]]])
    (frame,) = translation.strength_frames(image, torch.zeros_like(image), [1.0], columns=1)
    assert (frame == np.kron([[0, 255], [128, 0]], np.ones((ENLARGED, ENLARGED)))).all()


def test_a_border_at_the_edge_stays_inside_its_image():
    image = films(0.0, 0.0)
    low, high = translation.wipe_frames(image, image, [0.01, 0.99])
    width = 4 * ENLARGED
    assert low[0, :2].tolist() == [255, 0] and low[0, width - 1] == 128
    assert high[0, width - 1] == 0 and high[0, width : 2 * width - 1].tolist() == [128] * (
        width - 1
    )


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_border_lies_in_the_image(share):
    image = films(0.0)
    with pytest.raises(ValueError, match=rf"shares: expected numbers in \[0, 1\], got {share}"):
        translation.wipe_frames(image, image, [share])


def test_every_method_has_its_curve_over_the_strength_and_the_full_change_is_marked():
    shares, rates = [0.0, 0.5, 1.0, 1.5], {"A": [0.0, 0.2, 0.7, 0.9], "B": [0.0, 0.1, 0.1, 0.4]}
    figure = translation.flip_rates(shares, rates)
    (axis,), (legend,) = figure.axes, figure.legends
    mark, *curves = axis.lines
    assert list(mark.get_xdata()) == [1.0, 1.0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in curves}
    assert drawn == rates and all(list(line.get_xdata()) == shares for line in curves)
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]
    low, high = axis.get_ylim()
    assert low < 0 and high > 1
    assert len({line.get_color() for line in curves}) == 2
    assert len({line.get_linestyle() for line in curves}) == 2


def test_every_kind_of_images_has_its_plot_of_changes_over_the_tolerance():
    kinds = {"P to H": {"A": [0.9, 0.5], "B": [0.3, 0.1]}, "H to H": {"A": [0.2, 0.0]}}
    figure = translation.change_rates([0, 4], kinds)
    assert [axis.get_title() for axis in figure.axes] == list(kinds)
    for axis, of in zip(figure.axes, kinds.values(), strict=True):
        assert {line.get_label(): list(line.get_ydata()) for line in axis.lines} == of
        assert axis.get_xticks().tolist() == [0, 4]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]


def test_a_figure_is_higher_for_every_three_names_of_its_legend():
    def heights(*numbers):
        of = [{str(k): [0.5, 0.5] for k in range(n)} for n in numbers]
        kinds = dict(zip(("P to H", "H to H"), of, strict=False))
        curves = translation.flip_rates([0.0, 1.0], of[0])
        changes = translation.change_rates([0, 1], kinds)
        return curves.get_figheight(), changes.get_figheight()

    one, same, more = heights(1, 3), heights(3, 1), heights(4, 1)
    assert one == same and all(low + 0.2 < high for low, high in zip(same, more, strict=True))
    assert heights(1, 4)[1] == more[1]  # the longest counts
