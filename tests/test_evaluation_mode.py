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
