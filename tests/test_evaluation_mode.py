"""Evaluation mode for a while."""

import pytest
import torch
from torch import nn

from cxrtut.evaluation_mode import evaluating, in_parts


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_put_back_also_after_an_error(mode: bool):
    network = nn.Sequential(nn.BatchNorm2d(2)).train(mode)
    with evaluating(network):
        assert not network.training and not network[0].training
    assert network.training is mode and network[0].training is mode
    with pytest.raises(KeyError), evaluating(network):
        raise KeyError
    assert network.training is mode and network[0].training is mode


def test_each_module_comes_back_to_its_own_mode_also_of_several_networks_and_when_nested():
    one = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2)))
    one[0].eval(), one[2][0].eval()
    other = nn.Dropout().eval()
    modules = [*one.modules(), *other.modules()]
    before = [module.training for module in modules]
    with evaluating(one, other):
        with evaluating(one):
            assert not any(module.training for module in modules)
        assert not any(module.training for module in modules)
    assert [module.training for module in modules] == before


@pytest.mark.parametrize(("size", "at_once"), [(64, 8), (32, 32), (256, 1), (512, 1)])
def test_a_network_on_a_cpu_is_asked_about_as_many_pixels_at_once(size, at_once):
    images = torch.arange(40.0)[:, None, None, None].expand(40, 1, size, size)
    parts = in_parts(images)
    assert {len(part) for part in parts[:-1]} <= {at_once} and len(parts[0]) == at_once
    assert torch.equal(torch.cat(parts), images)


def test_a_network_elsewhere_is_asked_about_sixty_four_images_at_once():
    images = torch.empty(100, 1, 512, 512, device="meta")
    assert [len(part) for part in in_parts(images)] == [64, 36]
    assert [part.shape for part in in_parts(images[:0])] == [(0, 1, 512, 512)]
