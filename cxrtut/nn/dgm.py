"""The networks of the disentangled generative model (DGM): a normal image and a residue, each by an
encoder and a decoder of its own, and a decoder of both.

Y. Tang, Y. Tang, Y. Zhu, J. Xiao and R. M. Summers, A Disentangled Generative Model for Disease
Decomposition in Chest X-Rays via Normal Image Synthesis, Medical Image Analysis 67, 2021.

Reading (network, DGM): The layers of the paper were not at hand. Those of a public
    re-implementation could be read.
    Here: They are those, with a group norm of one group for its layer norms, which are made for one
        size of images.
    Why: No other source was found. The row is labelled so.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.instance_norm import InstanceNorm2d

BLOCKS = 4  # residual ones, of each encoder and decoder


class DisentangledGenerator(nn.Module):
    """En, Er, Gn, Gr and Gj: an image x to a normal image N = Gn(En(x)), a residue R = Gr(Er(x)),
    and x again, from both codes, by Gj.
    """

    def __init__(self, channels: int = 1, base: int = 64, halvings: int = 5) -> None:
        """
        Args:
            channels: of the image.
            base: channels of the first convolution; 64 in the public code.
            halvings: 2 to 5; 5 in the public code, for images of 224 pixels.

        Raises:
            ValueError: a number below 1, or another number of halvings.
        """
        super().__init__()
        if min(channels, base) < 1 or not 2 <= halvings <= 5:
            raise ValueError(
                "expected channels and base of 1 or more and 2 to 5 halvings, got "
                f"{channels}, {base} and {halvings}"
            )
        self.halvings = halvings
        self.content_encoder = _encoder(channels, base, halvings, normalised=True)
        self.residue_encoder = _encoder(channels, base, halvings, normalised=False)
        self.normal_decoder = _decoder(channels, base, halvings, codes=1)
        self.residue_decoder = _decoder(channels, base, halvings, codes=1)
        self.joint_decoder = _decoder(channels, base, halvings, codes=2)

    def forward(
        self, image: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C H W"], Float[Tensor, "B C H W"]]:
        """N and R, each in [-1, 1], and the image that Gj makes of both codes.

        Raises:
            ValueError: height or width is no multiple of 2 to the halvings, or makes a code below
                2 x 2.
        """
        self._check(image)
        content, residue = self.content_encoder(image), self.residue_encoder(image)
        joint = self.joint_decoder(torch.cat((content, residue), dim=1))
        return self.normal_decoder(content), self.residue_decoder(residue), joint

    def normal(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """N alone.

        Raises:
            ValueError: see `forward`.
        """
        self._check(image)
        return self.normal_decoder(self.content_encoder(image))

    def _check(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        step = 2**self.halvings
        if height % step or width % step or min(height, width) < 2 * step:
            raise ValueError(
                f"expected height and width of {2 * step} or more, divisible by {step}, got "
                f"{height} x {width}"
            )


class PatchScores(nn.Module):
    """Scores of patches, without a sigmoid and without norms: convolutions of stride 2, and one
    more without padding.
    """

    def __init__(self, channels: int = 1, base: int = 64, halvings: int = 4) -> None:
        """
        Args:
            channels: of the image.
            base: channels of the first convolution.
            halvings: 4 in the public code, 3 for images of 64 pixels.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        if min(channels, base, halvings) < 1:
            raise ValueError(
                "expected channels, base and halvings of 1 or more, got "
                f"{channels}, {base} and {halvings}"
            )
        widths = [channels, *(base * 2**k for k in range(halvings))]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        return self.layers(image)


def _encoder(channels: int, base: int, halvings: int, *, normalised: bool) -> nn.Sequential:
    """The encoder of a residue has no norms, which would take the level of grey away."""
    widths = [base, *[base, 2 * base, 4 * base, 8 * base][-(halvings - 1) :]]
    layers: list[nn.Module] = [nn.Conv2d(channels, base, 7, 2, 3), *_after(base, normalised)]
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1), *_after(b, normalised)]
    norm = InstanceNorm2d if normalised else nn.Identity
    layers += [_Residual(8 * base, 8 * base, norm) for _ in range(BLOCKS)]
    return nn.Sequential(*layers)


def _after(channels: int, normalised: bool) -> tuple[nn.Module, ...]:
    return (InstanceNorm2d(channels), nn.ReLU()) if normalised else (nn.ReLU(),)


def _decoder(channels: int, base: int, halvings: int, *, codes: int) -> nn.Sequential:
    deep = 8 * base
    layers: list[nn.Module] = [_Residual(codes * deep, deep, _layer_norm)]
    layers += [_Residual(deep, deep, _layer_norm) for _ in range(BLOCKS - 1)]
    for a, b in pairwise([deep, *[8 * base, 4 * base, 2 * base, base][-(halvings - 1) :]]):
        layers += [
            nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 5, 1, 2), _layer_norm(b), nn.ReLU()
        ]  # fmt: skip
    layers += [nn.Upsample(scale_factor=2), nn.Conv2d(base, channels, 7, 1, 3), nn.Tanh()]
    return nn.Sequential(*layers)


def _layer_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels)


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, 1, 1), norm(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1), norm(channels),
        )  # fmt: skip
        same = channels_in == channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
        return self.skip(x) + self.layers(x)
