import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrtut.nn.unet import UNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("base", "parameters"), [(64, 31_043_651), (16, 1_944_083)])
def test_the_network_has_the_number_of_parameters_of_its_description(base, parameters):
    with torch.device("meta"):
        assert count(UNet(3, base)) == parameters


def reference(network: UNet, image: Tensor) -> Tensor:
    """The U-Net as a recursion: a level works on its input, and on what the levels below make of
    it. Weights only, written from the description.
    """
    weights = network.state_dict()
    depth = len(network.enlarge)

    def convolutions(name: str, x: Tensor) -> Tensor:
        for k in ("0", "3"):
            x = F.conv2d(x, weights[f"{name}.{k}.weight"], weights[f"{name}.{k}.bias"], padding=1)
            x = x.clamp(min=0)
        return x

    def level(k: int, x: Tensor) -> Tensor:
        here = convolutions(f"encoder.{k}", x)
        if k == depth:
            return here
        below = level(k + 1, here.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)))
        name = f"{depth - 1 - k}"
        below = F.conv_transpose2d(
            below, weights[f"enlarge.{name}.weight"], weights[f"enlarge.{name}.bias"], stride=2
        )
        return convolutions(f"decoder.{name}", torch.cat((here, below), 1))

    return F.conv2d(level(0, image), weights["output.weight"], weights["output.bias"])


def test_the_network_is_the_recursion_over_levels():
    torch.manual_seed(0)
    network = UNet(2, base=8, depth=3, norm=nn.Identity)
    for weight in network.parameters():
        nn.init.normal_(weight, 0.0, 0.2)
    image = torch.randn(2, 2, 16, 24)
    expected = reference(network, image)
    assert torch.allclose(network(image), expected, rtol=1e-4, atol=1e-4)
    assert expected.std((0, 2, 3)).min() > 0.1  # no dead network


def test_the_lowest_level_of_an_image_of_128_px_has_1024_channels_of_8_x_8():
    shapes = []
    with torch.device("meta"):
        network = UNet()
        network.encoder[-1].register_forward_hook(lambda *seen: shapes.append(seen[-1].shape))
        assert network(torch.empty(2, 1, 128, 128)).shape == (2, 1, 128, 128)
    assert shapes == [(2, 1024, 8, 8)]


def test_a_stem_of_two_is_the_network_on_blocks_of_two_by_two_pixels():
    torch.manual_seed(0)
    network, inner = UNet(2, 4, 2, stem=2).eval(), UNet(8, 4, 2).eval()
    inner.load_state_dict(network.state_dict())
    image = torch.randn(2, 2, 24, 16)
    blocks = image.reshape(2, 2, 12, 2, 8, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 8, 12, 8)
    output = inner(blocks).reshape(2, 2, 2, 2, 12, 8).permute(0, 1, 4, 2, 5, 3)
    assert torch.allclose(network(image), output.reshape(2, 2, 24, 16), atol=1e-6)


def test_nothing_bounds_the_output():
    torch.manual_seed(0)
    network = UNet(1, 4, 2).eval()
    image = torch.randn(1, 1, 16, 16)
    before = network(image)
    with torch.no_grad():
        network.output.weight.mul_(1024)
        network.output.bias.mul_(1024)
    assert torch.equal(network(image), 1024 * before) and before.abs().max() > 2 / 1024


def test_every_convolution_of_a_level_is_followed_by_a_norm():
    network = UNet(1, 4, 2, norm=lambda channels: nn.GroupNorm(2, channels))
    norms = [part.num_channels for part in network.modules() if isinstance(part, nn.GroupNorm)]
    assert norms == [4, 4, 8, 8, 16, 16, 8, 8, 4, 4]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def test_with_instance_norm_training_and_evaluation_agree():
    torch.manual_seed(0)
    network = UNet(1, 4, 2, norm=nn.InstanceNorm2d)
    image = torch.randn(2, 1, 16, 16)
    trained = network.train()(image)
    assert torch.equal(network.eval()(image), trained)


def test_the_gradient_reaches_every_parameter_and_the_image():
    torch.manual_seed(0)
    network = UNet(1, 4, 2, norm=nn.Identity)
    image = torch.randn(2, 1, 16, 16, requires_grad=True)
    network(image).square().mean().backward()
    for name, parameter in [*network.named_parameters(), ("image", image)]:
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 36)])
def test_a_size_that_cannot_be_halved_so_often_is_named(height, width):
    network = UNet(1, 2, depth=3, stem=2)
    words = f"divisible by 16 (stem x 2^depth), got {height} x {width}"
    with pytest.raises(ValueError, match=re.escape(words)):
        network(torch.zeros(1, 1, height, width))


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"base": 0}, {"depth": 0}, {"stem": 0}])
def test_numbers_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="expected channels, base, depth and stem of 1 or more"):
        UNet(**wrong)
