"""The U-Net: an encoder and a decoder that see each other at every resolution.

Ronneberger, Fischer and Brox, MICCAI 2015.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class UNet(nn.Module):
    """Image to image of the same size. The output is that of the last convolution: no activation.

    Level k of the encoder has `base * 2**k` channels at 1 / 2^k of the resolution, for k from 0 to
    `depth`. Each level is twice (3x3 convolution, norm, ReLU); between levels the encoder takes the
    largest of 2x2 pixels, and the decoder a transposed 2x2 convolution of stride 2, concatenated
    behind the encoder's map of the same level. `output` is the last, 1x1 convolution.

    Reading (network, layers of G): Zhang et al. (MICCAI 2019) use "a modified UNet" and give no
        layers.
        Here: Two things differ from the original: 3 × 3 convolutions are padded by 1, and each is
            followed by a norm (it keeps its bias).
        Why: The output is then as large as the input, and norms are usual today.
    """

    def __init__(
        self,
        channels: int = 1,
        base: int = 64,
        depth: int = 4,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        stem: int = 1,
    ) -> None:
        """
        Args:
            channels: channels of the image, and of the output.
            base: channels of the first level.
            depth: how often the resolution is halved.
            norm: the norm of a map with so many channels; `nn.InstanceNorm2d` is one without
                running statistics, so that training and evaluation agree.
            stem: blocks of stem x stem pixels become channels before the first level and pixels
                again after the last: the same network at 1 / stem of the resolution, for small
                machines.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        if min(channels, base, depth, stem) < 1:
            raise ValueError(
                "expected channels, base, depth and stem of 1 or more, got "
                f"{channels}, {base}, {depth} and {stem}"
            )
        self.multiple = stem * 2**depth
        widths = [base * 2**level for level in range(depth + 1)]
        stacked = channels * stem**2
        self.to_channels = nn.PixelUnshuffle(stem)
        self.encoder = nn.ModuleList(_level(a, b, norm) for a, b in pairwise([stacked, *widths]))
        upward = list(pairwise(reversed(widths)))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in upward)
        self.decoder = nn.ModuleList(_level(2 * b, b, norm) for _, b in upward)
        self.output = nn.Conv2d(base, stacked, 1)
        self.to_pixels = nn.PixelShuffle(stem)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """
        Raises:
            ValueError: height or width is no multiple of `stem * 2**depth`.
        """
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"expected height and width divisible by {self.multiple} (stem x 2^depth), "
                f"got {height} x {width}"
            )
        x = self.to_channels(image)
        seen = []
        for level in self.encoder[:-1]:
            seen.append(level(x))
            x = F.max_pool2d(seen[-1], 2)
        x = self.encoder[-1](x)
        for enlarge, level in zip(self.enlarge, self.decoder, strict=True):
            x = level(torch.cat((seen.pop(), enlarge(x)), dim=1))
        return self.to_pixels(self.output(x))


def _level(channels_in: int, channels: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        norm(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        norm(channels),
        nn.ReLU(inplace=True),
    )
