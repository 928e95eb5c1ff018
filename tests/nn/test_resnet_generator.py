"""CycleGAN's generator: its parameters, its shapes, what it can and cannot do."""

import pytest
import torch
from torch import nn

from cxrtut.nn.resnet_generator import ResNetGenerator


@pytest.mark.parametrize(("channels", "expected"), [(1, 11_365_633), (3, 11_378_179)])
def test_it_has_the_parameters_of_the_public_network(channels, expected):
    with torch.device("meta"):
        network = ResNetGenerator(channels)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_six_blocks_have_three_pairs_of_convolutions_less():
    with torch.device("meta"):
        nine, six = (ResNetGenerator(residual_blocks=n) for n in (9, 6))
    spare = sum(p.numel() for p in nine.parameters()) - sum(p.numel() for p in six.parameters())
    assert spare == 6 * (256 * 256 * 9 + 256)


def test_the_image_keeps_its_size_and_the_range_is_that_of_images():
    torch.manual_seed(0)
    network = ResNetGenerator(2, 4, 2)
    for shape in ((1, 2, 8, 12), (3, 2, 32, 16)):
        found = network(5 * torch.randn(shape))
        assert found.shape == shape and found.abs().max() < 1


def test_it_is_the_same_in_training_and_in_evaluation():
    torch.manual_seed(0)
    network, image = ResNetGenerator(1, 4, 1), torch.rand(2, 1, 16, 16)
    assert torch.equal(network.train()(image), network.eval()(image))
    alone = torch.cat([network(one[None]) for one in image])
    torch.testing.assert_close(network(image), alone)


def test_every_parameter_learns_but_the_biases_that_a_norm_takes_away():
    torch.manual_seed(0)
    network = ResNetGenerator(1, 4, 1)
    network(torch.rand(2, 1, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        moved = parameter.grad.abs().max() > 1e-7
        assert moved or (name.endswith("bias") and not name.startswith("output")), name


def test_a_residual_block_whose_last_convolution_is_nothing_is_the_identity():
    block = ResNetGenerator(1, 4, 1).residual[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        assert not torch.equal(block(x), x)
        block.layers[1].weight.zero_()
    torch.testing.assert_close(block(x), x)


def test_the_first_half_of_a_block_is_normalised_and_rectified():
    block = ResNetGenerator(1, 4, 1).residual[0]
    with torch.no_grad():
        half = block.layers[0](torch.randn(2, 16, 8, 8))
        convolved = block.layers[0][0](x := torch.randn(2, 16, 8, 8))
        expected = torch.nn.functional.instance_norm(convolved).relu()
        torch.testing.assert_close(block.layers[0](x), expected, atol=1e-5, rtol=1e-4)
    assert half.min() == 0


def test_borders_are_reflected_where_nothing_is_halved():
    convolutions = [m for m in ResNetGenerator(1, 4, 1).modules() if type(m) is nn.Conv2d]
    assert [c.padding_mode for c in convolutions if c.stride == (1, 1)] == ["reflect"] * 4
    assert [c.padding_mode for c in convolutions if c.stride == (2, 2)] == ["zeros"] * 2


@pytest.mark.parametrize("shape", [(10, 16), (16, 18), (4, 4)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="expected height and width of 8 or more, divisible by 4"):
        ResNetGenerator(1, 4, 1)(torch.zeros(1, 1, *shape))


@pytest.mark.parametrize("numbers", [(0, 4, 1), (1, 0, 1), (1, 4, -1)])
def test_numbers_that_make_no_network_are_refused(numbers):
    with pytest.raises(ValueError, match="expected channels and base of 1 or more"):
        ResNetGenerator(*numbers)
