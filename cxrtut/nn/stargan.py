"""The networks of StarGAN: what Fixed-Point GAN and PILLET-GAN are built on, too.

Choi et al., StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image
Translation, CVPR 2018, Tables 4 and 5.

A domain is one of K kinds of images, such as healthy and diseased. One generator translates into
all of them: it sees the image and, as K further channels, the domain that is asked for.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.few_places import FewPlacesConv2d
from cxrtut.nn.instance_norm import InstanceNorm2d


class StarGANTrunk(nn.Module):
    """The generator without its last layer: image and target domain to `base` feature maps, as
    large as the image.

    A 7x7 convolution, two 4x4 convolutions of stride 2, residual blocks, and two transposed 4x4
    convolutions of stride 2, each with instance norm and ReLU. Padding is with zeros: the target
    domain is a constant in each channel, and behind a padding by reflection the instance norm would
    subtract it again, so that the generator could not tell the domains apart.

    Reading (network, statistics of the norm): The text says "instance normalization".
        Here: The norm has weights, but no running statistics.
        Why: The public code of StarGAN keeps running statistics and never uses them, because it
            never switches to evaluation mode. Switching would change what the network says.
    """

    def __init__(
        self, channels: int = 1, domains: int = 2, base: int = 64, residual_blocks: int = 6
    ) -> None:
        """
        Args:
            channels: channels of the image.
            domains: how many there are.
            base: channels of the first convolution, and of the feature maps that come out.
            residual_blocks: at a quarter of the resolution; 6 in the paper.

        Raises:
            ValueError: a number below 1 (of residual blocks, below 0).
        """
        super().__init__()
        if min(channels, domains, base) < 1 or residual_blocks < 0:
            raise ValueError(
                "expected channels, domains and base of 1 or more and no negative number of "
                f"residual_blocks, got {channels}, {domains}, {base} and {residual_blocks}"
            )
        self.domains = domains
        widths = [channels + domains, base, 2 * base, 4 * base]
        down = [nn.Conv2d(widths[0], base, 7, 1, 3, bias=False)]
        down += [nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(widths[1:])]
        self.down = nn.Sequential(*[_normalised(c, c.out_channels) for c in down])
        self.residual = nn.Sequential(*[_Residual(4 * base) for _ in range(residual_blocks)])
        up = [
            nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(reversed(widths[1:]))
        ]
        self.up = nn.Sequential(*[_normalised(c, c.out_channels) for c in up])

    def forward(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "b K"]
    ) -> Float[Tensor, "B base H W"]:
        """
        Args:
            image: in [-1, 1]; one at least, as an instance norm wants it.
            target: the domain that is asked for, one-hot; one for each image.

        Raises:
            ValueError: height or width is no multiple of 4, or not one target of K domains an
                image.
        """
        height, width = image.shape[-2:]
        if height % 4 or width % 4:
            raise ValueError(f"expected height and width divisible by 4, got {height} x {width}")
        if target.shape != (len(image), self.domains):
            raise ValueError(
                f"target: expected shape {(len(image), self.domains)}, got {tuple(target.shape)}"
            )
        planes = target[:, :, None, None].to(image.dtype).expand(-1, -1, height, width)
        return self.up(self.residual(self.down(torch.cat((image, planes), dim=1))))


class StarGANGenerator(nn.Module):
    """`StarGANTrunk` and a 7x7 convolution to the image's channels, without bias. The last
    activation, tanh in StarGAN, is not part of it: Fixed-Point GAN leaves it out.
    """

    def __init__(
        self, channels: int = 1, domains: int = 2, base: int = 64, residual_blocks: int = 6
    ) -> None:
        """See `StarGANTrunk`."""
        super().__init__()
        self.trunk = StarGANTrunk(channels, domains, base, residual_blocks)
        self.output = nn.Conv2d(base, channels, 7, 1, 3, bias=False)

    def forward(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B K"]
    ) -> Float[Tensor, "B C H W"]:
        return self.output(self.trunk(image, target))


class StarGANDiscriminator(nn.Module):
    """Two answers about an image: a score for each of its patches, high for what looks real, and a
    logit for each domain.

    4x4 convolutions of stride 2 with LeakyReLU(0.01) and without a norm (the gradient penalty is
    defined for each image on its own), channels doubling from `base`. On the last map lie two
    heads: a 3x3 convolution for the patches, and a convolution that sees all of the map at once for
    the domains. The second one ties the network to one size of images.
    """

    def __init__(
        self,
        channels: int = 1,
        domains: int = 2,
        base: int = 64,
        size: int = 128,
        halvings: int = 6,
    ) -> None:
        """
        Args:
            channels: channels of the image.
            domains: how many there are.
            base: channels of the first convolution.
            size: height and width of the image in pixels, a multiple of 2^halvings.
            halvings: convolutions of stride 2; 6 in the paper.

        Raises:
            ValueError: another size, or a number below 1.
        """
        super().__init__()
        if min(channels, domains, base, halvings) < 1:
            raise ValueError(
                "expected channels, domains, base and halvings of 1 or more, got "
                f"{channels}, {domains}, {base} and {halvings}"
            )
        if size < 1 or size % 2**halvings:
            raise ValueError(f"size: expected a multiple of 2^{halvings}, got {size}")
        self.size = size
        widths = [base * 2**k for k in range(halvings)]
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise([channels, *widths]):
            layers += [FewPlacesConv2d(channels_in, channels_out, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.layers = nn.Sequential(*layers)
        self.source = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        self.domain = nn.Conv2d(widths[-1], domains, size // 2**halvings, bias=False)

    def forward(
        self, image: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B 1 h w"], Float[Tensor, "B K"]]:
        """The scores of the patches, and the logits of the domains.

        Raises:
            ValueError: an image that is not `size` x `size`.
        """
        height, width = image.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise ValueError(
                f"expected images of {self.size} x {self.size} pixels, got {height} x {width}"
            )
        features = self.layers(image)
        return self.source(features), self.domain(features).flatten(1)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _normalised(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = InstanceNorm2d(channels, affine=True)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        return x + self.norm(self.second(self.first(x)))


def _normalised(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, InstanceNorm2d(channels, affine=True), nn.ReLU(inplace=True))
