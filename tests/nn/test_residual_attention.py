"""Attention around a backbone: what it multiplies, and whose parameters it leaves alone."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from cxrtut.nn.detectors import faster_rcnn
from cxrtut.nn.pyramids import SmallPyramid
from cxrtut.nn.residual_attention import AttendedBackbone, ResidualAttention


class Ones(nn.Module):
    """Maps of ones at strides 4 and 8."""

    out_channels, strides = 3, (4, 8)

    def forward(self, image):
        n, _, height, width = image.shape
        return OrderedDict(
            (str(s), torch.ones(n, 3, height // s, width // s)) for s in self.strides
        )


class Darker(nn.Module):
    """G(x) = x - d in the upper left quarter."""

    def __init__(self, d):
        super().__init__()
        self.d = nn.Parameter(torch.tensor(d))

    def forward(self, x):
        change = torch.zeros_like(x)
        change[..., : x.shape[-2] // 2, : x.shape[-1] // 2] = 1
        return x - self.d * change


def test_the_attention_is_half_of_the_residual_and_the_mean_over_channels():
    attention = ResidualAttention(Darker(0.5))
    found = attention(torch.zeros(2, 3, 8, 8))
    assert found.shape == (2, 1, 8, 8)
    assert (found[..., :4, :4] == 0.25).all() and found.sum() == 2 * 16 * 0.25


def test_what_is_added_counts_as_what_is_taken_away_and_channels_are_averaged():
    class Redder(nn.Module):
        def forward(self, x):
            return x + torch.tensor([0.6, 0.0, 0.0])[:, None, None]

    added = ResidualAttention(Redder())(torch.zeros(1, 3, 4, 4))
    torch.testing.assert_close(added, torch.full((1, 1, 4, 4), 0.1))


def test_a_copy_of_a_detector_and_its_generator_attends_to_the_copy():
    generator = Darker(0.5)
    both = {
        "generator": generator,
        "detector": AttendedBackbone(Ones(), ResidualAttention(generator)),
    }
    copied = copy.deepcopy(both)
    assert copied["detector"].attention.generator is copied["generator"]
    copied["generator"].d.data.zero_()
    image = torch.zeros(1, 1, 8, 8)
    assert (copied["detector"](image)["4"] == 1).all()
    assert (both["detector"](image)["4"] != 1).any()


@pytest.mark.parametrize(
    ("kind", "there", "elsewhere"), [("residual", 1.25, 1), ("product", 0.25, 0)]
)
def test_each_map_is_multiplied_by_the_attention_averaged_to_its_size(kind, there, elsewhere):
    attended = AttendedBackbone(Ones(), ResidualAttention(Darker(0.5)), kind=kind)
    found = attended(torch.zeros(1, 1, 16, 16))
    assert list(found) == ["4", "8"]
    for name, side in (("4", 4), ("8", 2)):
        expected = torch.full((1, 3, side, side), float(elsewhere))
        expected[..., : side // 2, : side // 2] = there
        torch.testing.assert_close(found[name], expected)
    assert attended.out_channels == 3 and attended.strides == (4, 8)


def test_a_cell_has_the_mean_of_its_pixels():
    attended = AttendedBackbone(Ones(), lambda x: (x > 0).float())
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 0, :2] = 1
    assert attended(image)["4"][0, 0].tolist() == [[1 + 2 / 16, 1], [1, 1]]


def test_the_generator_is_no_part_of_the_detector():
    generator = Darker(0.5)
    attended = AttendedBackbone(SmallPyramid(1, 8, 16), ResidualAttention(generator))
    assert all(p is not generator.d for p in attended.parameters())
    direct = AttendedBackbone(SmallPyramid(1, 8, 16), Darker(0.5))
    assert not any("attention" in name for name in direct.state_dict())


def test_gradients_reach_the_generator_unless_it_is_frozen():
    generator = Darker(0.5)
    attended = AttendedBackbone(Ones(), ResidualAttention(generator))
    attended(torch.zeros(1, 1, 8, 8))["4"].sum().backward()
    assert generator.d.grad > 0
    generator.requires_grad_(False)
    assert not attended(torch.zeros(1, 1, 8, 8))["4"].requires_grad


def test_a_detector_of_torchvision_takes_it_for_its_backbone():
    torch.manual_seed(0)
    plain = SmallPyramid(1, 8, 16)
    image = [torch.rand(1, 32, 32)]
    answers = []
    for attention in (lambda x: torch.zeros_like(x), lambda x: torch.ones_like(x)):
        attended = AttendedBackbone(plain, attention)
        torch.manual_seed(1)
        network = faster_rcnn(attended, 1, 32, sizes=[(8, 12)], head=16).eval()
        answers.append(network(image)[0]["scores"])
    torch.manual_seed(1)
    without = faster_rcnn(plain, 1, 32, sizes=[(8, 12)], head=16).eval()(image)[0]["scores"]
    assert torch.equal(answers[0], without)
    assert answers[1].shape != without.shape or not torch.equal(answers[1], without)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind: expected one of residual, product, got 'sum'"):
        AttendedBackbone(Ones(), lambda x: x, kind="sum")
