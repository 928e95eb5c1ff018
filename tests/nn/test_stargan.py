"""StarGAN's networks: against the printed sizes, and against the formulas, layer by layer."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrtut.nn.stargan import StarGANDiscriminator, StarGANGenerator, StarGANTrunk


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def one_hot(*domains: int, of: int = 2) -> Tensor:
    return F.one_hot(torch.tensor(domains), of).float()


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Weights of any size, those of the norms too: as they begin, a norm's show nothing."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in network.named_parameters():
        spread = 0.1 if parameter.ndim > 1 else 0.5
        middle = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = middle + spread * noise
    return dict(network.named_parameters())


def test_the_networks_have_the_papers_number_of_parameters():
    with torch.device("meta"):
        assert count(StarGANTrunk(1)) == 8_405_440
        assert count(StarGANTrunk(3)) == 8_411_712
        assert count(StarGANGenerator(3)) == 8_421_120
        assert count(StarGANGenerator(3, 5)) == 8_430_528
        assert count(StarGANDiscriminator(3)) == 44_737_472
        assert count(StarGANDiscriminator(3, size=256)) == 44_786_624
        assert count(StarGANDiscriminator(3, 5)) == 44_762_048


def normalised(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    middle = x.mean((2, 3), keepdim=True)
    x = (x - middle) / ((x - middle).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def trunk_by_hand(weights: dict[str, Tensor], image: Tensor, target: Tensor, blocks: int) -> Tensor:
    planes = [image[:, c] for c in range(image.shape[1])]
    planes += [target[:, k, None, None] + 0 * image[:, 0] for k in range(target.shape[1])]
    x = torch.stack(planes, 1)
    for k, (stride, padding) in enumerate([(1, 3), (2, 1), (2, 1)]):
        x = F.conv2d(F.pad(x, (padding,) * 4), weights[f"down.{k}.0.weight"], stride=stride)
        x = normalised(weights, f"down.{k}.1", x).clamp(min=0)
    for k in range(blocks):
        name = f"residual.{k}"
        h = F.conv2d(x, weights[f"{name}.first.0.weight"], padding=1)
        h = normalised(weights, f"{name}.first.1", h).clamp(min=0)
        h = F.conv2d(h, weights[f"{name}.second.weight"], padding=1)
        x = x + normalised(weights, f"{name}.norm", h)
    for k in range(2):
        x = F.conv_transpose2d(x, weights[f"up.{k}.0.weight"], stride=2, padding=1)
        x = normalised(weights, f"up.{k}.1", x).clamp(min=0)
    return x


@pytest.mark.parametrize(("channels", "domains", "blocks"), [(1, 2, 2), (3, 4, 1), (2, 3, 0)])
def test_the_trunk_is_that_of_the_formulas(channels, domains, blocks):
    trunk = StarGANTrunk(channels, domains, 4, blocks)
    weights = weights_of(trunk)
    image = torch.rand(2, channels, 16, 24) * 2 - 1
    target = one_hot(1, 0, of=domains)
    features = trunk(image, target)
    expected = trunk_by_hand(weights, image, target, blocks)
    assert features.shape == (2, 4, 16, 24) and expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


def test_the_generator_is_a_linear_convolution_of_the_trunk():
    generator = StarGANGenerator(3, 2, 4, 1)
    weights_of(generator)
    image, target = torch.rand(2, 3, 16, 16) * 2 - 1, one_hot(0, 1)
    weight = generator.output.weight
    assert weight.shape == (3, 4, 7, 7) and generator.output.bias is None
    expected = F.conv2d(F.pad(generator.trunk(image, target), (3, 3, 3, 3)), weight)
    torch.testing.assert_close(generator(image, target), expected)
    weight.data *= 1024
    translated = generator(image, target)
    assert torch.equal(translated, 1024 * expected) and translated.abs().max() > 1  # no tanh


def test_training_and_evaluation_say_the_same():
    generator, image = StarGANGenerator(1, 2, 4, 2), torch.rand(3, 1, 16, 16)
    trained = generator.train()(image, one_hot(0, 1, 1))
    assert torch.equal(generator.eval()(image, one_hot(0, 1, 1)), trained)
    assert not list(generator.buffers())  # nothing is remembered of the images


def test_another_target_domain_gives_another_image():
    generator, image = StarGANGenerator(1, 3, 8, 1), torch.rand(1, 1, 32, 32)
    answers = [generator(image, one_hot(k, of=3)) for k in range(3)]
    for k in range(3):
        assert (answers[k] - answers[k - 1]).abs().mean() > 1e-3


def test_behind_a_padding_by_reflection_the_domains_would_be_one():
    """A constant is still one behind the convolution, and the norm subtracts it."""
    generator, image = StarGANGenerator(1, 2, 8, 1), torch.rand(1, 1, 32, 32)
    first = generator.trunk.down[0][0]
    assert first.padding_mode == "zeros"
    zeros = [generator(image, one_hot(k)) for k in range(2)]
    first.padding_mode = "reflect"
    reflected = [generator(image, one_hot(k)) for k in range(2)]
    assert (zeros[0] - zeros[1]).abs().mean() > 1e-3
    assert (reflected[0] - reflected[1]).abs().max() < 1e-4


def test_the_trunk_treats_each_image_by_itself():
    trunk = StarGANTrunk(1, 2, 4, 1)
    image, target = torch.rand(3, 1, 16, 16), one_hot(0, 1, 0)
    alone = torch.cat([trunk(image[k, None], target[k, None]) for k in range(3)])
    torch.testing.assert_close(trunk(image, target), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_target_may_be_of_another_precision_than_the_image(dtype):
    trunk = StarGANTrunk(1, 2, 4, 1).to(dtype)
    assert trunk(torch.rand(2, 1, 16, 16).to(dtype), one_hot(0, 1)).dtype == dtype


def discriminator_by_hand(network: StarGANDiscriminator, image: Tensor) -> tuple[Tensor, Tensor]:
    convolutions = [part for part in network.layers if isinstance(part, nn.Conv2d)]
    for layer in convolutions:
        x = F.conv2d(F.pad(image, (1, 1, 1, 1)), layer.weight, layer.bias, stride=2)
        image = torch.where(x > 0, x, x / 100)
    source = F.conv2d(F.pad(image, (1, 1, 1, 1)), network.source.weight)
    return source, torch.einsum("bchw,kchw->bk", image, network.domain.weight)


@pytest.mark.parametrize(
    ("channels", "domains", "size", "halvings"), [(1, 2, 32, 3), (3, 5, 16, 4), (2, 3, 24, 2)]
)
def test_the_discriminator_is_that_of_the_formulas(channels, domains, size, halvings):
    network = StarGANDiscriminator(channels, domains, 4, size, halvings)
    weights_of(network)
    image = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))
    source, domain = network(image)
    cells = size // 2**halvings
    assert source.shape == (3, 1, cells, cells) and domain.shape == (3, domains)
    assert len([part for part in network.layers if isinstance(part, nn.Conv2d)]) == halvings
    for found, expected in zip(
        (source, domain), discriminator_by_hand(network, image), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert expected.std(0).max() > 1e-2


def test_the_channels_of_the_discriminator_double():
    with torch.device("meta"):
        network = StarGANDiscriminator(1)
    widths = [part.out_channels for part in network.layers if isinstance(part, nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 1024, 2048]


def test_without_biases_a_doubled_image_has_doubled_answers():
    """No norm and nothing that saturates; the heads have no bias to begin with."""
    network = StarGANDiscriminator(1, 2, 4, 16, 2)
    for part in network.layers:
        if isinstance(part, nn.Conv2d):
            part.bias.data.zero_()
    image = torch.randn(3, 1, 16, 16)
    for one, other in zip(network(2**20 * image), network(image), strict=True):
        assert torch.equal(one, 2**20 * other) and other.any()


def test_the_answers_about_an_image_do_not_depend_on_the_others():
    network = StarGANDiscriminator(1, 2, 4, 16, 2).train()
    image = torch.randn(4, 1, 16, 16, requires_grad=True)
    source, domain = network(image)
    (slope,) = torch.autograd.grad(source[1].sum() + domain[1].sum(), image)
    assert (slope.flatten(1).abs().amax(1) > 0).tolist() == [False, True, False, False]


def test_the_gradient_reaches_every_parameter():
    generator, judge = StarGANGenerator(1, 2, 4, 2), StarGANDiscriminator(1, 2, 4, 16, 2)
    source, domain = judge(generator(torch.rand(2, 1, 16, 16), one_hot(0, 1)))
    (source.square().mean() + F.cross_entropy(domain, one_hot(1, 1))).backward()
    for network in (generator, judge):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("numbers", [(0, 2, 4, 1), (1, 0, 4, 1), (1, 2, 0, 1), (1, 2, 4, -1)])
def test_a_trunk_without_channels_domains_or_width_is_refused(numbers):
    channels, domains, base, blocks = numbers
    words = f"1 or more and no negative number of residual_blocks, got {channels}, {domains}, "
    for network in (StarGANTrunk, StarGANGenerator):
        with pytest.raises(ValueError, match=f"{words}{base} and {blocks}"):
            network(*numbers)


@pytest.mark.parametrize("numbers", [(0, 2, 4, 1), (1, 0, 4, 1), (1, 2, 0, 1), (1, 2, 4, 0)])
def test_a_discriminator_without_channels_domains_width_or_layers_is_refused(numbers):
    channels, domains, base, halvings = numbers
    words = f"halvings of 1 or more, got {channels}, {domains}, {base} and {halvings}"
    with pytest.raises(ValueError, match=words):
        StarGANDiscriminator(channels, domains, base, 16, halvings)


@pytest.mark.parametrize("size", [-64, 0, 32, 96])
def test_a_size_that_the_halvings_do_not_divide_is_refused(size):
    with pytest.raises(ValueError, match=rf"size: expected a multiple of 2\^6, got {size}"):
        StarGANDiscriminator(1, 2, 4, size)


@pytest.mark.parametrize(("height", "width"), [(18, 16), (16, 18)])
def test_an_image_that_four_does_not_divide_is_refused(height, width):
    with pytest.raises(ValueError, match=f"divisible by 4, got {height} x {width}"):
        StarGANTrunk(1, 2, 4, 1)(torch.zeros(1, 1, height, width), one_hot(0))


@pytest.mark.parametrize(("shape", "of"), [((1, 2), 2), ((2, 3), 2), ((2, 2), 3)])
def test_anything_but_one_target_an_image_is_refused(shape, of):
    words = re.escape(f"target: expected shape {(2, of)}, got {shape}")
    with pytest.raises(ValueError, match=words):
        StarGANTrunk(1, of, 4, 1)(torch.zeros(2, 1, 16, 16), torch.zeros(shape))


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16), (32, 32)])
def test_an_image_of_another_size_is_refused(height, width):
    with pytest.raises(ValueError, match=f"images of 16 x 16 pixels, got {height} x {width}"):
        StarGANDiscriminator(1, 2, 4, 16, 2)(torch.zeros(1, 1, height, width))
