"""Darknet-53 and the three heads of YOLOv3.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, arXiv 1804.02767, 2018, Table 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

RESIDUALS = (1, 2, 8, 8, 4)  # of the stages at strides 2 to 32
STRIDES = (8, 16, 32)  # of the maps that have heads
PER_CELL = 3  # anchors
RARE = 0.01  # probability of an object at first


class Darknet53(nn.Module):
    """An image to its maps C3, C4 and C5 at strides 8, 16 and 32, of 8, 16 and 32 times `width`
    channels.
    """

    def __init__(self, channels: int = 1, width: int = 32, *, dilated: bool = False) -> None:
        """
        Args:
            channels: of the image.
            width: channels of the first convolution; 32 as published.
            dilated: whether the 3x3 convolutions of the last stage's residual units are dilated by
                2, see `baselines.pyolo`.
        """
        super().__init__()
        self.stem = unit(channels, width, 3)
        self.stages = nn.ModuleList()
        for k, n in enumerate(RESIDUALS):
            c = width * 2 ** (k + 1)
            far = 2 if dilated and k == len(RESIDUALS) - 1 else 1
            self.stages.append(
                nn.Sequential(unit(c // 2, c, 3, stride=2), *(_Residual(c, far) for _ in range(n)))
            )
        self.widths = (8 * width, 16 * width, 32 * width)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """C3, C4 and C5."""
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-3:]


class YoloHeads(nn.Module):
    """Maps C3, C4 and C5 to the raw answers of three anchors for each of their cells, C3's first.

    From the coarsest map to the finest: five convolutions, of whose result a head is made and, by
    a 1x1 convolution and a nearest enlargement, what is put in front of the next map.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        """
        Args:
            widths: channels of C3, C4 and C5.
            classes: K.
        """
        super().__init__()
        self.numbers = 5 + classes
        self.necks, self.heads, self.bridges = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        from_above = 0
        for width in reversed(widths):
            c = width // 2
            self.necks.append(
                nn.Sequential(
                    unit(width + from_above, c, 1), unit(c, 2 * c, 3), unit(2 * c, c, 1),
                    unit(c, 2 * c, 3), unit(2 * c, c, 1),
                )
            )  # fmt: skip
            self.heads.append(
                nn.Sequential(unit(c, 2 * c, 3), nn.Conv2d(2 * c, PER_CELL * self.numbers, 1))
            )
            from_above = c // 2
            if width != widths[0]:
                self.bridges.append(unit(c, from_above, 1))
        for head in self.heads:
            assert isinstance(head, nn.Sequential)
            bias = head[1].bias
            assert isinstance(bias, Tensor)
            with torch.no_grad():
                bias.zero_()
                bias.view(PER_CELL, -1)[:, 4] = -math.log((1 - RARE) / RARE)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "B P N"]:
        """Of each image P = three times the cells of all maps, each with N = 5 + K numbers: those
        of C3 first, row by row, three to a cell.
        """
        answers: list[Tensor] = []
        above: Tensor | None = None
        for k, features in enumerate(reversed(maps)):
            if above is not None:
                bridged = self.bridges[k - 1](above)
                larger = F.interpolate(bridged, size=features.shape[-2:], mode="nearest")
                features = torch.cat((larger, features), dim=1)
            above = self.necks[k](features)
            raw = self.heads[k](above)
            told = raw.permute(0, 2, 3, 1).reshape(len(raw), -1, self.numbers)
            answers.insert(0, told)
        return torch.cat(answers, dim=1)


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            unit(channels, channels // 2, 1), unit(channels // 2, channels, 3, dilation=dilation)
        )

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        return x + self.layers(x)


def unit(
    channels_in: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution without bias, a batch norm, and a leaky ReLU of slope .1."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(
        channels_in, channels, kernel, stride, padding, dilation=dilation, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(0.1))
