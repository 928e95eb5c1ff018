"""MUNIT's networks: as large as published, and style where it belongs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxrtut.nn.munit import STYLE, MunitDiscriminator, MunitGenerator, drawn_style


def size(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("channels", "base", "generator", "discriminator"),
    [
        (3, 64, 15_026_187, 8_271_171), (1, 64, 15_007_369, 8_265_027),
        (1, 32, 4_070_473, 2_068_131), (1, 16, 1_202_473, 517_971),
    ],
)  # fmt: skip
def test_they_are_as_large_as_the_published_ones(channels, base, generator, discriminator):
    assert size(MunitGenerator(channels, base)) == generator
    assert size(MunitDiscriminator(channels, base)) == discriminator


def test_parts_of_the_generator_are_as_large_as_the_published_ones():
    network = MunitGenerator(1)
    assert size(network.style_encoder) == 2_758_664
    assert size(network.content_encoder) == 5_379_584
    assert size(network.styled) + size(network.up) == 5_748_353
    assert size(network.mapping) == 1_120_768


def test_content_is_a_quarter_as_large_and_style_eight_numbers():
    network = MunitGenerator(1, 4)
    x = torch.rand(2, 1, 32, 48)
    assert network.content(x).shape == (2, 16, 8, 12) and network.style(x).shape == (2, STYLE)
    made = network.image(network.content(x), network.style(x))
    assert made.shape == x.shape and made.abs().max() <= 1


def test_the_layers_of_a_style_are_shifts_then_raw_scales_of_normed_maps():
    torch.manual_seed(0)
    block = MunitGenerator(1, 4).styled[0]
    x, numbers = torch.randn(2, 16, 5, 5), torch.randn(2, 2, 32)
    h = F.conv2d(F.pad(x, [1] * 4, "reflect"), block.first.weight, block.first.bias)
    h = F.instance_norm(h, eps=1e-5)
    h = F.relu(numbers[:, 0, 16:, None, None] * h + numbers[:, 0, :16, None, None])
    h = F.conv2d(F.pad(h, [1] * 4, "reflect"), block.second.weight, block.second.bias)
    h = F.instance_norm(h, eps=1e-5)
    expected = x + numbers[:, 1, 16:, None, None] * h + numbers[:, 1, :16, None, None]
    torch.testing.assert_close(block(x, numbers), expected, atol=1e-4, rtol=1e-4)


def test_each_block_has_numbers_of_its_own():
    torch.manual_seed(0)
    network = MunitGenerator(1, 4)
    seen = []
    for block in network.styled:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    network.image(torch.randn(1, 16, 8, 8), torch.randn(1, STYLE))
    assert [tuple(s.shape) for s in seen] == [(1, 2, 32)] * 4
    assert len({s.sum().item() for s in seen}) == 4


def test_the_discriminator_looks_at_three_resolutions():
    network = MunitDiscriminator(1, 4)
    x = torch.rand(2, 1, 64, 64)
    assert [tuple(s.shape) for s in network(x)] == [(2, 1, 4, 4), (2, 1, 2, 2), (2, 1, 1, 1)]
    halved = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(network(x)[1], network.scales[1](halved))
    assert not [m for m in network.modules() if "Norm" in type(m).__name__]
    assert len(MunitDiscriminator(1, 4, 2)(torch.rand(1, 1, 32, 32))) == 2


def test_a_constant_image_has_finite_gradients():
    """A norm that divides by the root of a variance of nothing has none."""
    network = MunitGenerator(1, 4)
    x = torch.full((2, 1, 32, 32), -1.0)
    network.image(network.content(x), network.style(x)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_styles_are_drawn_from_the_normal_distribution():
    uniforms = torch.rand(20_000, 2 * STYLE, generator=torch.Generator().manual_seed(0))
    style = drawn_style(uniforms)
    assert style.shape == (20_000, STYLE)
    torch.testing.assert_close(style.mean(0), torch.zeros(STYLE), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(style.T), torch.eye(STYLE), atol=0.04, rtol=0)
    assert (style.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.005)
    assert torch.isfinite(drawn_style(torch.zeros(1, 2 * STYLE))).all()


def test_other_numbers_are_refused():
    with pytest.raises(ValueError, match="uniforms: expected 16 columns, got 8"):
        drawn_style(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="channels and base of 1 or more, got 1 and 0"):
        MunitGenerator(1, 0)
    with pytest.raises(ValueError, match="channels, base and scales of 1 or more"):
        MunitDiscriminator(1, 4, 0)


def test_weights_begin_as_published():
    torch.manual_seed(0)
    generator, discriminator = MunitGenerator(1, 16), MunitDiscriminator(1, 16)
    for layer in generator.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 2000:
            fan = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)
    stds = [m.weight.std().item() for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert max(stds) < 0.03 and min(stds) > 0.01
