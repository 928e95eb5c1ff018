import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrtut.nn.critic import Critic


def convolutions(critic: Critic) -> list[nn.Conv2d]:
    return [part for part in critic.modules() if isinstance(part, nn.Conv2d)]


def test_the_critic_for_128_px_has_seven_layers_and_the_number_of_parameters_described():
    with torch.device("meta"):
        critic = Critic(3)
    assert [layer.out_channels for layer in convolutions(critic)] == [64, 128, 256, *[512] * 3, 1]
    assert sum(parameter.numel() for parameter in critic.parameters()) == 11_148_225


@pytest.mark.parametrize(("size", "layers"), [(4, 2), (64, 6), (128, 7), (256, 8)])
def test_the_last_layer_sees_two_by_two_pixels_at_every_size(size, layers):
    with torch.device("meta"):
        critic = Critic(1, 2, size)
        seen = critic.layers[:-1](torch.empty(3, 1, size, size))
        assert critic(torch.empty(3, 1, size, size)).shape == (3,)
    assert len(convolutions(critic)) == layers and seen.shape[-2:] == (2, 2)


def reference(critic: Critic, image: Tensor) -> Tensor:
    *hidden, last = convolutions(critic)
    for layer in hidden:
        x = F.conv2d(F.pad(image, (1, 1, 1, 1)), layer.weight, layer.bias, stride=2)
        image = torch.where(x > 0, x, x / 5)
    return (image * last.weight).sum((1, 2, 3)) + last.bias


def test_the_score_is_that_of_the_formula():
    torch.manual_seed(0)
    critic = Critic(2, 4, 32)
    image = torch.randn(5, 2, 32, 32)
    score = critic(image)
    assert torch.allclose(score, reference(critic, image), atol=1e-6) and score.std() > 1e-3


def test_without_biases_a_doubled_image_has_a_doubled_score():
    """No norm, no sigmoid: scores are unbounded, and proportional for powers of two exactly."""
    torch.manual_seed(0)
    critic = Critic(1, 4, 16)
    with torch.no_grad():
        for layer in convolutions(critic):
            layer.bias.zero_()
    image = torch.randn(3, 1, 16, 16)
    assert torch.equal(critic(2**20 * image), 2**20 * critic(image))


def test_the_score_of_an_image_does_not_depend_on_the_others():
    torch.manual_seed(0)
    critic = Critic(1, 4, 16).train()
    image = torch.randn(4, 1, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(image)[1], image)
    moved = slope.flatten(1).abs().amax(1) > 0
    assert moved.tolist() == [False, True, False, False]


@pytest.mark.parametrize("size", [0, 2, 6, 96, 127])
def test_a_size_that_is_no_power_of_two_is_refused(size):
    with pytest.raises(ValueError, match=f"power of two of 4 or more, got {size}"):
        Critic(1, 4, size)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected images of 16 x 16 pixels, got 16 x 32"):
        Critic(1, 4, 16)(torch.zeros(1, 1, 16, 32))


@pytest.mark.parametrize(("channels", "base"), [(0, 4), (1, 0)])
def test_numbers_below_one_are_refused(channels, base):
    with pytest.raises(ValueError, match=f"1 or more, got {channels} and {base}"):
        Critic(channels, base, 16)
