"""Pyramids of small networks and of ResNet-50."""

import pytest
import torch
from torch import nn

from cxrtut.nn.pyramids import ResNet50Pyramid, SmallPyramid, SmallStages
from cxrtut.nn.retinanet import retinanet


@pytest.mark.parametrize("strides", [(8,), (4,), (16,), (4, 8), (4, 8, 16)])
def test_the_pyramid_gives_the_maps_that_were_asked_for(strides):
    maps = SmallPyramid(2, 8, 24, strides)(torch.rand(3, 2, 32, 64))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        str(s): (3, 24, 32 // s, 64 // s) for s in strides
    }


def test_what_lies_above_the_coarsest_map_is_not_made():
    fine, coarse = (
        sum(p.numel() for p in SmallPyramid(strides=s).parameters()) for s in ((4,), (4, 16))
    )
    assert fine < coarse / 4


def test_a_fine_map_hears_of_the_whole_image_by_the_coarse_ones():
    torch.manual_seed(0)
    backbone = SmallPyramid(1, 8, 16, (4, 16))
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(backbone(image)["4"][0, :, 0, 0].sum(), image)
    assert slope[0, 0, 33:, 33:].abs().max() > 0


@pytest.mark.parametrize("strides", [(), (8, 4), (8, 8), (32,)])
def test_other_strides_are_refused(strides):
    with pytest.raises(ValueError, match="strides: expected some of"):
        SmallPyramid(strides=strides)


def test_a_width_that_its_norms_cannot_share_is_refused():
    with pytest.raises(ValueError, match="width: expected a multiple of 8, got 12"):
        SmallPyramid(width=12)


def test_stages_are_the_maps_below_the_pyramid():
    torch.manual_seed(0)
    pyramid = SmallPyramid(1, 8, 16, (4, 8, 16))
    stages = SmallStages(1, 8, (8, 16))
    stages.load_state_dict(pyramid.state_dict(), strict=False)
    image = torch.rand(2, 1, 32, 32)
    maps = stages(image)
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(16, 4, 4), (32, 2, 2)]
    assert stages.widths == (16, 32)
    torch.testing.assert_close(pyramid.pyramid(pyramid.all_maps(image)), pyramid(image))
    torch.testing.assert_close(maps["16"], pyramid.all_maps(image)["16"])


@pytest.mark.parametrize(("finest", "last"), [(4, 64), (8, 128)])
def test_maps_of_resnet_50_are_called_by_their_strides(finest, last):
    with torch.no_grad():
        maps = ResNet50Pyramid(1, finest=finest)(torch.rand(1, 1, 128, 128))
    assert next(iter(maps)) == str(finest) and list(maps)[-1] == str(last)
    assert all(tuple(m.shape) == (1, 256, 128 // int(s), 128 // int(s)) for s, m in maps.items())


def test_resnet_50_is_trained_whole_with_norms_that_normalise():
    network = ResNet50Pyramid()
    assert all(p.requires_grad for p in network.parameters())
    norms = [m for m in network.modules() if "Norm" in type(m).__name__ and not [*m.children()]]
    assert norms and all(isinstance(norm, nn.GroupNorm) for norm in norms)


def test_retinanet_on_it_is_torchvisions_and_the_norms_of_the_towers():
    sizes = [[s * 2 ** (k / 3) for k in range(3)] for s in (32, 64, 128, 256, 512)]
    network = retinanet(ResNet50Pyramid(finest=8), 1, 128, sizes=sizes)
    norms = 2 * 4 * 256  # of each layer of the towers weight and bias, and no other bias
    assert sum(p.numel() for p in network.parameters()) == 32_194_797 + norms


def test_another_finest_stride_is_refused():
    with pytest.raises(ValueError, match="finest: expected 4 or 8, got 2"):
        ResNet50Pyramid(finest=2)
