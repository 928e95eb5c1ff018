"""Curves and the pictures of pseudo-healthy images."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from viz.sight import KINDS, contrast, lab, luminance

from cxrtut.viz.curves import (
    COLOURS,
    STYLES,
    learning_curves,
    precision_over_recall,
    terms_over_steps,
)
from cxrtut.viz.pseudo_healthy import rows_of_arms

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_each_term_has_its_plot_and_empty_places_have_no_axes():
    terms = {"D/loss": [1.0, 2.0], "G/loss": [3.0, 4.0], "G/ED": [0.1, 0.2], "GC/CE": [0.7, 0.6]}
    figure = terms_over_steps([10, 20], terms)
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in shown] == list(terms) and len(figure.axes) == 6
    for axis, values in zip(shown, terms.values(), strict=True):
        assert axis.lines[0].get_xdata().tolist() == [10, 20]
        assert axis.lines[0].get_ydata().tolist() == values


def test_precision_recall_curves_are_named_and_chance_is_drawn():
    curve = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.8, 0.1])
    figure = precision_over_recall({"G-D-C": curve, "CAM": curve}, chance=0.05)
    (axis,) = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["G-D-C", "CAM", "chance"]
    assert axis.lines[-1].get_ydata() == [0.05, 0.05]
    assert len({line.get_color() for line in axis.lines}) == 3


def test_colours_of_curves_show_on_white_and_on_black():
    for colour in COLOURS:
        light = luminance(np.array(to_rgb(colour)))
        assert min(contrast(light, 0.0), contrast(light, 1.0)) >= 3, colour


@pytest.mark.parametrize("kind", KINDS)
def test_curves_of_one_style_differ_in_colour_for_every_kind_of_eye(kind):
    seen = lab(np.array([to_rgb(colour) for colour in COLOURS]), kind)
    for i in range(len(COLOURS) - len(STYLES)):
        assert np.linalg.norm(seen[i] - seen[i + len(STYLES)]) > 20


def test_pseudo_healthy_images_stand_in_rows_with_signed_differences():
    x = torch.zeros(2, 1, 8, 8)
    darker = x - 0.2
    figure = rows_of_arms(x, {"A": darker, "B": x}, torch.ones(2, 8, 8, dtype=torch.bool))
    assert len(figure.axes) == 2 * 6 + 1
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles == ["x", "A", "B", "x and region", "difference", "difference"]
    assert figure.axes[3].collections and not figure.axes[0].collections  # the outline
    made = figure.axes[7].images[0].get_array()
    assert int(made[0, 0]) == 102  # of the second image, by A
    difference = figure.axes[4].images[0].get_array()
    assert difference.min() == pytest.approx(0.1)  # x - G(x), in units of the full range
    assert abs(figure.axes[5].images[0].get_array()).max() == 0


def test_more_than_three_methods_go_on_in_the_next_two_rows():
    x = torch.zeros(1, 1, 4, 4)
    figure = rows_of_arms(x, {name: x - k / 10 for k, name in enumerate("ABCD")})
    titles = [axis.get_title() for axis in figure.axes[:-1]]
    four = ["difference"] * 3
    assert titles == ["x", *"ABC", "x", *four, "x", "D", "", "", "x", "difference", "", ""]
    last = figure.axes[13].images[0].get_array()
    assert last.max() == pytest.approx(0.15)


def test_no_images_or_no_methods_are_an_error():
    with pytest.raises(ValueError, match="got 1 and 0"):
        rows_of_arms(torch.zeros(1, 1, 4, 4), {})


def test_a_learning_curve_has_a_thin_line_for_each_seed_and_a_named_mean():
    seeds = [([10, 20], [0.2, 0.4]), ([10, 20], [0.4, 1.0])]
    figure = learning_curves({"many": seeds, "one": [([5], [0.5])]}, "pixel AUC")
    (axis,) = figure.axes
    thin, thick = axis.lines[:2], axis.lines[2:]
    assert [line.get_ydata().tolist() for line in thin] == [[0.2, 0.4], [0.4, 1.0]]
    assert [line.get_ydata().tolist() for line in thick] == [pytest.approx([0.3, 0.7]), [0.5]]
    assert max(line.get_linewidth() for line in thin) < thick[0].get_linewidth()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["many", "one"]
    assert axis.get_ylabel() == "pixel AUC"
    assert len({line.get_color() for line in (*thin, thick[0])}) == 1


def test_seeds_that_were_measured_after_other_steps_have_no_mean():
    figure = learning_curves({"many": [([10], [0.2]), ([20, 30], [0.4, 1.0])]}, "pixel AUC")
    (axis,) = figure.axes
    assert [line.get_xdata().tolist() for line in axis.lines] == [[10], [20, 30]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["many"]
