"""PYolo, in the style of its abstract: a detector of Table 2 of GRANet.

S. Yao, Y. Chen, X. Tian, R. Jiang and S. Ma, An Improved Algorithm for Detecting Pneumonia Based on
YOLOv3, Applied Sciences 10(5), 2020.

Steps, as far as the abstract tells them
    dilated convolution      `nn.darknet.Darknet53`
    an attention mechanism   `Excitation`
    a double K-means         `data.anchor_shapes.fitted_in_two_levels`

Reading (network, PYolo): Only the abstract could be read. It names YOLOv3, dilated convolution, an
    attention mechanism and anchors by a double K-means, and no more.
    Here: The last stage is dilated by 2, each map that has a head goes through squeeze and
        excitation (Hu et al., CVPR 2018), and anchors are fitted in three groups of three. All else
        is YOLOv3.
    Why: These are the smallest standard meanings of the words. The row is a reconstruction, and is
        called that.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.yolov3 import YOLOv3
from cxrtut.nn.darknet import Darknet53

REDUCED = 16  # times fewer channels inside


class PYolo(YOLOv3):
    """`YOLOv3` with a dilated last stage and attention; see the module."""

    def __init__(
        self,
        classes: int,
        size: int,
        anchors: Float[Tensor, "9 2"],
        channels: int = 1,
        *,
        width: int = 32,
    ) -> None:
        """
        Args:
            classes, size, anchors, channels, width: see `YOLOv3`; a width of 2 or more.

        Raises:
            ValueError: see `YOLOv3`.
        """
        super().__init__(classes, size, anchors, channels, width=width)
        self.backbone = ExcitedDarknet(Darknet53(channels, width, dilated=True))


class ExcitedDarknet(nn.Module):
    """The maps of a Darknet, each excited."""

    def __init__(self, darknet: Darknet53) -> None:
        super().__init__()
        self.darknet = darknet
        self.excitation = nn.ModuleList(Excitation(width) for width in darknet.widths)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """C3, C4 and C5."""
        return [e(x) for e, x in zip(self.excitation, self.darknet(image), strict=True)]


class Excitation(nn.Module):
    """Squeeze and excitation: each channel times a number between 0 and 1, which two linear layers
    make of the means of all channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // REDUCED)
        self.layers = nn.Sequential(
            nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, channels), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]
