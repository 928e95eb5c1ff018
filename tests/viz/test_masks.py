import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from cxrtut.viz import masks
from cxrtut.viz.images import BOX_ON_HEAT


@pytest.fixture(autouse=True)
def figures_without_a_screen():
    matplotlib.use("agg")
    yield
    plt.close("all")


def test_each_class_has_the_anchor_with_its_mask_of_every_set_over_it():
    anchor, own, other = torch.rand(1, 32, 32) * 2 - 1, torch.rand(5, 4, 4), torch.rand(5, 8, 8)
    sets = {"own": own, "other": other}
    figure = masks.masks_over(anchor, sets, list("abcde"), label="share")
    *panels, bar = figure.axes
    assert bar.get_xlabel() == "share"
    assert [axis.get_title() for axis in panels] == [*"abcd", *[""] * 4, "e", *[""] * 7]
    shown = [axis.images for axis in panels]
    assert [len(pictures) for pictures in shown] == [2] * 8 + [2, 0, 0, 0] * 2
    wanted = [*own[:4], *other[:4], own[4], other[4]]
    for (below, above), mask in zip(filter(None, shown), wanted, strict=True):
        assert below.get_array().shape == (32, 32)
        assert torch.allclose(torch.as_tensor(above.get_array()), mask)
        assert above.get_extent() == [-0.5, 31.5, 31.5, -0.5]
    names = [(i, text.get_text()) for i, axis in enumerate(panels) for text in axis.texts]
    assert names == [(0, "own"), (4, "other"), (8, "own"), (12, "other")]
    with pytest.raises(ValueError, match="other: expected 5 masks, got 4"):
        masks.masks_over(anchor, {"own": own, "other": other[:4]}, list("abcde"))


def test_images_stand_beside_their_aligned_selves_and_the_means_come_last():
    before, after = torch.zeros(3, 1, 8, 8), torch.full((3, 1, 8, 8), 0.5)
    means = [torch.full((1, 8, 8), -1.0), torch.full((1, 8, 8), 1.0)]
    figure = masks.before_and_after(before, after, means)
    values = [int(axis.images[0].get_array()[0, 0]) for axis in figure.axes]
    assert values == [128, 191, 128, 191, 128, 191, 0, 255]
    titles = [axis.get_title() for axis in figure.axes]
    of = ("1", "2", "3", "mean")
    assert titles == [f"{name}: {state}" for name in of for state in ("as it is", "aligned")]
    assert all(len(axis.lines) == 2 for axis in figure.axes)  # the cross


def test_every_method_has_a_row_with_its_heat_and_its_boxes():
    image, truth = torch.zeros(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.bool)
    truth[0, 4:9, 4:9] = True
    box, none = torch.tensor([[2.0, 3.0, 9.0, 12.0]]), torch.zeros(0, 4)
    found = {
        "one": (torch.rand(2, 16, 16), [box, none]),
        "other": (torch.zeros(2, 16, 16), [none, box]),
    }
    figure = masks.localisations(image, truth, found, ["a", "b"])
    boxes = [
        [
            patch.get_bbox().bounds
            for patch in axis.patches
            if patch.get_edgecolor()[:3] != (0, 0, 0)
        ]
        for axis in figure.axes[:-1]
    ]
    there = (1.5, 2.5, 7.0, 9.0)
    assert boxes == [[there], [], [], [there]]
    colour = matplotlib.colors.to_rgba(BOX_ON_HEAT)
    assert figure.axes[0].patches[0].get_edgecolor() == colour
    assert [axis.get_title() for axis in figure.axes[:-1]] == ["a", "b", "", ""]
    assert [t.get_text() for axis in figure.axes for t in axis.texts] == ["one", "other"]
    assert torch.equal(torch.as_tensor(figure.axes[1].images[1].get_array()), found["one"][0][1])
    assert figure.axes[0].collections and not figure.axes[1].collections  # the outline


def test_more_than_four_images_go_on_below_with_every_method_again():
    n = 6
    image = torch.linspace(-1, 1, n)[:, None, None, None].expand(n, 1, 4, 4)
    none, nowhere = torch.zeros(0, 4), torch.zeros(n, 4, 4, dtype=torch.bool)
    found = {name: (torch.zeros(n, 4, 4), [none] * n) for name in ("one", "other")}
    figure = masks.localisations(image, nowhere, found, list("abcdef"))
    shown = [
        int(axis.images[0].get_array()[0, 0]) if axis.images else None for axis in figure.axes[:-1]
    ]
    grey = [0, 51, 102, 153, 204, 255]
    assert shown == grey[:4] * 2 + (grey[4:] + [None] * 2) * 2
    titles = [axis.get_title() for axis in figure.axes[:-1]]
    assert titles == [*"abcd", *[""] * 4, "e", "f", *[""] * 6]
    names = [(i, t.get_text()) for i, axis in enumerate(figure.axes) for t in axis.texts]
    assert names == [(0, "one"), (4, "other"), (8, "one"), (12, "other")]
