"""The U-Net of pix2pix: halved by convolutions until one pixel is left.

Isola, Zhu, Zhou and Efros, Image-to-Image Translation with Conditional Adversarial Networks, CVPR
2017, Sections 3.2.1 and 6.1.1.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.few_places import FewPlacesConv2d, pays

DROPPED = 3  # blocks with dropout


class Pix2PixUNet(nn.Module):
    """Image to image of the same size, in [-1, 1]: the output goes through tanh.

    The encoder is `halvings` 4x4 convolutions of stride 2, each with a norm, and LeakyReLU(0.2)
    before the next; the first and the last have no norm. The decoder is as many transposed 4x4
    convolutions of stride 2, each after a ReLU, and all but the last with a norm. All but the
    innermost see, before the map from below, the encoder's map of the same size. Channels double
    from `base` up to eight times `base`.

    Dropout stands behind the norms of the three blocks that follow the innermost one of the
    decoder. In pix2pix it is the only source of variation, and stays on when images are made.

    Reading (network, the innermost block): Section 6.1.1 has dropout in the first three blocks of
        the decoder.
        Here: It stands in the second, third and fourth, also where an image is smaller and there
            are fewer blocks. The innermost map, of one pixel, has no norm.
        Why: The public code does the same at 256 px. The norm of a single pixel of a single image
            is zero.
    """

    def __init__(
        self,
        channels: int = 1,
        base: int = 64,
        halvings: int = 8,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        *,
        dropout: float = 0.5,
    ) -> None:
        """
        Args:
            channels: channels of the image, and of the output.
            base: channels of the first convolution.
            halvings: convolutions of the encoder: 8 for images of 256 pixels, whose innermost map
                then has one.
            norm: the norm of a map with so many channels. Convolutions before one that learns a
                shift have no bias.
            dropout: probability that a channel's value is left out.

        Raises:
            ValueError: fewer than two halvings, another number below 1, or no probability.
        """
        super().__init__()
        if min(channels, base) < 1 or halvings < 2:
            raise ValueError(
                "expected channels and base of 1 or more and 2 halvings or more, got "
                f"{channels}, {base} and {halvings}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")
        self.multiple = 2**halvings
        widths = [base * min(2**k, 8) for k in range(halvings)]
        shifts = getattr(norm(base), "bias", None) is not None

        def down(channels_in: int, channels_out: int) -> nn.Module:
            return FewPlacesConv2d(channels_in, channels_out, 4, 2, 1, bias=not shifts)

        self.encoder = nn.ModuleList([nn.Sequential(down(channels, base))])
        for level, (a, b) in enumerate(pairwise(widths), start=1):
            norms = [norm(b)] if level < halvings - 1 else []
            self.encoder.append(nn.Sequential(nn.LeakyReLU(0.2), down(a, b), *norms))
        self.decoder = nn.ModuleList()
        for level in reversed(range(1, halvings)):
            seen, made = widths[level], widths[level - 1]
            doubled = seen if level == halvings - 1 else 2 * seen
            drops = halvings - 1 - DROPPED <= level < halvings - 1
            self.decoder.append(
                nn.Sequential(
                    nn.ReLU(),
                    _Enlarge(doubled, made, bias=not shifts),
                    norm(made),
                    *([nn.Dropout(dropout)] if drops else []),
                )
            )
        self.output = nn.Sequential(nn.ReLU(), _Enlarge(2 * base, channels), nn.Tanh())

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """
        Raises:
            ValueError: height or width is no multiple of 2^halvings.
        """
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"expected height and width divisible by {self.multiple} (2^halvings), "
                f"got {height} x {width}"
            )
        seen = []
        x = image
        for level in self.encoder:
            x = level(x)
            seen.append(x)
        x = seen.pop()
        for level in self.decoder:
            x = torch.cat((seen.pop(), level(x)), dim=1)
        return self.output(x)


class _Enlarge(nn.ConvTranspose2d):
    """A transposed 4x4 convolution of stride 2. On a CPU it is one matrix product where it has far
    more channels than places, for the reason given in `nn.few_places`.
    """

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 4, 2, 1, bias=bias)

    def forward(self, input: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d H W"]:  # type: ignore[override]
        height, width = input.shape[-2:]
        if not pays(self.in_channels, len(input) * height * width, input.device):
            return super().forward(input)
        columns = self.weight.flatten(1).t() @ input.transpose(0, 1).flatten(1)
        patches = columns.view(len(columns), len(input), height * width).transpose(0, 1)
        enlarged = F.fold(patches, (2 * height, 2 * width), 4, padding=1, stride=2)
        return enlarged if self.bias is None else enlarged + self.bias[:, None, None]
