"""Evaluation mode for a while."""

import pytest
from torch import nn

from cxrtut.evaluation_mode import evaluating


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
