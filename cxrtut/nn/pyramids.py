"""Networks with maps of several strides, for detectors: small ones, trained from scratch, and
ResNet-50.

Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017. Torchvision is imported when a
network is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STRIDES = (4, 8, 16)


@runtime_checkable
class Pyramid(Protocol):
    """What a detector stands on.

    Attributes:
        out_channels: of every map.
        strides: pixels of a cell, of each map, finest first.
    """

    @property
    def out_channels(self) -> int: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    def __call__(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """The maps by their stride, finest first."""
        ...


class SmallStages(nn.Module):
    """A residual network with group norms, for small images: a 3x3 convolution of stride 2 and
    three residual blocks of stride 2 give maps at strides 4, 8 and 16.

    Attributes:
        widths: channels of the maps: one, two and four times `width`.
    """

    def __init__(
        self, channels: int = 1, width: int = 16, strides: Sequence[int] = STRIDES
    ) -> None:
        """
        Args:
            channels: channels of the image.
            width: channels of the first convolution, a multiple of 8.
            strides: which maps are given, of `STRIDES`; those above the coarsest are not made.

        Raises:
            ValueError: other strides, or a width that is no multiple of 8.
        """
        super().__init__()
        if not strides or list(strides) != [s for s in STRIDES if s in strides]:
            raise ValueError(
                f"strides: expected some of {STRIDES}, finest first, got {tuple(strides)}"
            )
        if width < 8 or width % 8:
            raise ValueError(f"width: expected a multiple of 8, got {width}")
        made = [width, 2 * width, 4 * width][: STRIDES.index(strides[-1]) + 1]
        self.strides, self._made = tuple(strides), made
        self.widths = tuple(w for s, w in zip(STRIDES, made, strict=False) if s in strides)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), _norm(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            _Block(a, b) for a, b in zip([width, *made], made, strict=False)
        )

    def all_maps(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """All maps that are made, by their stride."""
        x = self.stem(image)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for stride, block in zip(STRIDES, self.blocks, strict=False):
            x = maps[str(stride)] = block(x)
        return maps

    def forward(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """The maps by their stride, finest first."""
        return self._given(self.all_maps(image))

    def _given(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(stride), maps[str(stride)]) for stride in self.strides)


class SmallPyramid(SmallStages):
    """`SmallStages` with a feature pyramid on top, which adds to each map what lies above it."""

    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        channels_out: int = 32,
        strides: Sequence[int] = (8,),
    ) -> None:
        """
        Args:
            channels: channels of the image.
            width: channels of the first convolution, a multiple of 8.
            channels_out: channels of every map of the pyramid.
            strides: which maps are given, of `STRIDES`; those above the coarsest are not made.

        Raises:
            ValueError: other strides, or a width that is no multiple of 8.
        """
        super().__init__(channels, width, strides)
        from torchvision.ops import FeaturePyramidNetwork

        self.out_channels = channels_out
        self.pyramid = FeaturePyramidNetwork(self._made, channels_out)

    def forward(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """The maps by their stride, finest first."""
        return self._given(self.pyramid(self.all_maps(image)))


class ResNet50Pyramid(nn.Module):
    """ResNet-50 and a pyramid of 256 channels, trained from scratch with group norms.

    At strides 4 to 32, and 64 by taking every second place, as Faster and Mask R-CNN have it; or
    at strides 8 to 32, and 64 and 128 by convolutions, as RetinaNet has it.
    """

    out_channels = 256

    def __init__(self, channels: int = 1, *, finest: int = 4) -> None:
        """
        Args:
            channels: channels of the image.
            finest: the first stride, 4 or 8.

        Raises:
            ValueError: another stride.
        """
        super().__init__()
        if finest not in (4, 8):
            raise ValueError(f"finest: expected 4 or 8, got {finest}")
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

        of_four = finest == 4
        self.strides: tuple[int, ...] = (4, 8, 16, 32, 64) if of_four else (8, 16, 32, 64, 128)
        self.network = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=partial(nn.GroupNorm, 32),
            trainable_layers=5, returned_layers=[1, 2, 3, 4] if of_four else [2, 3, 4],
            extra_blocks=LastLevelMaxPool() if of_four else LastLevelP6P7(256, 256),
        )  # fmt: skip
        if channels != 3:
            self.network.body.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)

    def forward(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """The maps by their stride, finest first."""
        names = map(str, self.strides)
        return OrderedDict(zip(names, self.network(image).values(), strict=True))


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([_norm(channels), _norm(channels)])
        self.skip = nn.Conv2d(channels_in, channels, 1, 2, bias=False)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d p q"]:
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(h)) + self.skip(x))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)
