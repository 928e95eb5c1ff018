"""The networks of MUNIT: content and style apart, and together again.

X. Huang, M.-Y. Liu, S. Belongie and J. Kautz, Multimodal Unsupervised Image-to-Image Translation,
ECCV 2018, Section 5.1 and the appendix.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.instance_norm import InstanceNorm2d

STYLE = 8  # numbers of a style
BLOCKS = 4  # residual ones, of the content encoder and of the decoder
SCALES = 3  # of the discriminator
HIDDEN = 256  # units of the layers that turn a style into shifts and scales


class MunitGenerator(nn.Module):
    """An image of one domain to a content and a style, and a content and a style to an image of
    that domain. Convolutions are padded by reflection and have biases.
    """

    def __init__(self, channels: int = 1, base: int = 64) -> None:
        """
        Args:
            channels: of the image.
            base: channels of the first convolution; 64 as published.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        if min(channels, base) < 1:
            raise ValueError(f"expected channels and base of 1 or more, got {channels} and {base}")
        c = 4 * base
        self.style_encoder = nn.Sequential(
            _reflected(channels, base, 7), nn.ReLU(), _halved(base, 2 * base), nn.ReLU(),
            _halved(2 * base, c), nn.ReLU(), _halved(c, c), nn.ReLU(), _halved(c, c), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, STYLE, 1),
        )  # fmt: skip
        self.content_encoder = nn.Sequential(
            _reflected(channels, base, 7), InstanceNorm2d(base), nn.ReLU(),
            _halved(base, 2 * base), InstanceNorm2d(2 * base), nn.ReLU(),
            _halved(2 * base, c), InstanceNorm2d(c), nn.ReLU(),
            *[_Residual(c) for _ in range(BLOCKS)],
        )  # fmt: skip
        self.styled = nn.ModuleList(_StyledResidual(c) for _ in range(BLOCKS))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), _reflected(c, 2 * base, 5), _layer_norm(2 * base),
            nn.ReLU(), nn.Upsample(scale_factor=2), _reflected(2 * base, base, 5),
            _layer_norm(base), nn.ReLU(), _reflected(base, channels, 7), nn.Tanh(),
        )  # fmt: skip
        self.mapping = nn.Sequential(
            nn.Linear(STYLE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, BLOCKS * 2 * 2 * c),
        )  # fmt: skip
        _begin(self)

    def content(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
        """What stays, at a quarter of the resolution."""
        return self.content_encoder(image)

    def style(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 8"]:
        """What changes."""
        return self.style_encoder(image).flatten(1)

    def image(
        self, content: Float[Tensor, "B c h w"], style: Float[Tensor, "B 8"]
    ) -> Float[Tensor, "B C H W"]:
        """The image of a content and a style, in [-1, 1]."""
        layers = self.mapping(style).view(len(style), BLOCKS, 2, -1)
        x = content
        for k, block in enumerate(self.styled):
            x = block(x, layers[:, k])
        return self.up(x)


class MunitDiscriminator(nn.Module):
    """Patches of the image at full, half and quarter resolution: for each a 1x1 convolution behind
    four of stride 2, without norms.
    """

    def __init__(self, channels: int = 1, base: int = 64, scales: int = SCALES) -> None:
        """
        Args:
            channels: of the image.
            base: channels of the first convolution; 64 as published.
            scales: resolutions; 3 as published, 2 for images of 32 pixels.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        if min(channels, base, scales) < 1:
            raise ValueError(
                "expected channels, base and scales of 1 or more, got "
                f"{channels}, {base} and {scales}"
            )
        widths = [channels, base, 2 * base, 4 * base, 8 * base]
        self.scales = nn.ModuleList()
        for _ in range(scales):
            layers: list[nn.Module] = []
            for a, b in pairwise(widths):
                layers += [_halved(a, b), nn.LeakyReLU(0.2)]
            self.scales.append(nn.Sequential(*layers, nn.Conv2d(8 * base, 1, 1)))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Scores of patches, one map for each resolution, finest first."""
        scores = []
        for scale in self.scales:
            scores.append(scale(image))
            image = F.avg_pool2d(image, 3, 2, 1, count_include_pad=False)
        return scores


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _reflected(channels, channels, 3), InstanceNorm2d(channels), nn.ReLU(),
            _reflected(channels, channels, 3), InstanceNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        return x + self.layers(x)


class _StyledResidual(nn.Module):
    """A residual block whose two instance norms have the shifts and scales of a style."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _reflected(channels, channels, 3)
        self.second = _reflected(channels, channels, 3)
        self.norm = InstanceNorm2d(channels)

    def forward(
        self, x: Float[Tensor, "B c h w"], numbers: Float[Tensor, "B 2 d"]
    ) -> Float[Tensor, "B c h w"]:
        h = F.relu(self._styled(self.first(x), numbers[:, 0]))
        return x + self._styled(self.second(h), numbers[:, 1])

    def _styled(
        self, x: Float[Tensor, "B c h w"], numbers: Float[Tensor, "B d"]
    ) -> Float[Tensor, "B c h w"]:
        """AdaIN: the first half of the numbers are shifts, the second half scales as they are."""
        shift, scale = numbers[:, :, None, None].chunk(2, dim=1)
        return scale * self.norm(x) + shift


def _reflected(channels_in: int, channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel, 1, kernel // 2, padding_mode="reflect")


def _halved(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 4, 2, 1, padding_mode="reflect")


def _layer_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels)


def _begin(network: nn.Module) -> None:
    """Weights as He et al. (2015) draw them, biases 0, gains of layer norms uniform in [0, 1]."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GroupNorm) and layer.affine:
            nn.init.uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def drawn_style(uniforms: Float[Tensor, "B d"]) -> Float[Tensor, "B 8"]:
    """A style from the standard normal distribution, of sixteen uniform numbers in [0, 1) each
    (Box and Muller).

    Raises:
        ValueError: other than twice as many numbers as a style has.
    """
    if uniforms.shape[1] != 2 * STYLE:
        raise ValueError(f"uniforms: expected {2 * STYLE} columns, got {uniforms.shape[1]}")
    radius, turn = uniforms.chunk(2, dim=1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * torch.pi * turn)
