"""Attention by what a generator changes, around any backbone with a feature pyramid.

Kim, Lee and Lee, Generative Residual Attention Network for Disease Detection (GRANet), 2020,
Section 2.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KINDS = ("residual", "product")
Attention = Callable[[Float[Tensor, "B C H W"]], Float[Tensor, "B 1 H W"]]


class AttendedBackbone(nn.Module):
    r"""Each feature map $F$ of a backbone times $1 + A$, A the attention averaged down to its size.

    The attention is computed of the images that the backbone sees, after all augmentation. It is
    no part of this network: its parameters are neither trained nor stored with it.

    Reading (network, how attention acts): The residual is "used as the spatial attention map"
        (Section 2.1), "downsampled to the feature dimensions". Neither the operation nor the
        features are named.
        Here: Every map of the pyramid is multiplied by $1 + A$, A by an average over cells. The
            product alone is an option.
        Why: A normal image is to have $A = 0$. With the product alone, nothing would be left of it
            for the detector to learn from.
    """

    def __init__(
        self, backbone: nn.Module, attention: Attention, *, kind: str = "residual"
    ) -> None:
        """
        Args:
            backbone: images to an ordered dictionary of maps, with `out_channels` and `strides`,
                such as `nn.pyramids.SmallPyramid`.
            attention: images to A, in [0, 1].
            kind: `residual`, F (1 + A), or `product`, F A.

        Raises:
            ValueError: another kind.
        """
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        self.backbone, self.kind = backbone, kind
        self.out_channels: int = backbone.out_channels  # type: ignore[assignment]
        self._attention = (attention,)  # in a tuple: a module of its own would be registered

    @property
    def attention(self) -> Attention:
        """What was given; a copy of this network has a copy of it."""
        return self._attention[0]

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of the backbone."""
        strides: tuple[int, ...] = self.backbone.strides  # type: ignore[assignment]
        return strides

    def forward(self, image: Float[Tensor, "B C H W"]) -> OrderedDict[str, Tensor]:
        """The maps of the backbone, attended, under their names."""
        by_pixel = self.attention(image)
        return OrderedDict(
            (name, features * self._factor(by_pixel, features))
            for name, features in self.backbone(image).items()
        )

    def _factor(
        self, attention: Float[Tensor, "B 1 H W"], features: Float[Tensor, "B c h w"]
    ) -> Float[Tensor, "B 1 h w"]:
        height, width = features.shape[-2:]
        cells = F.adaptive_avg_pool2d(attention, (height, width))
        return 1 + cells if self.kind == "residual" else cells


class ResidualAttention:
    """A = |x - G(x)| / 2 of a generator, the mean over channels, in [0, 1] for images in [-1, 1].

    Whoever trains the detector alone freezes G and sets it to evaluation mode; it is on the device
    of the images.

    Reading (network, the scale of attention): The residual of images in [-1, 1] lies in [0, 2].
        Here: It is halved.
        Why: An attention is a share. The paper gives neither the range of its images nor a scale.

    Attributes:
        generator: G.
    """

    def __init__(self, generator: nn.Module) -> None:
        self.generator = generator

    def __call__(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
        return (image - self.generator(image)).abs().mean(1, keepdim=True) / 2
