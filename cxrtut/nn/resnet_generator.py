"""The generator of CycleGAN: halved, residual blocks, enlarged again.

Zhu, Park, Isola and Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, ICCV 2017, Section 7.2; Johnson, Alahi and Fei-Fei, ECCV 2016.
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.instance_norm import InstanceNorm2d


class ResNetGenerator(nn.Module):
    """Image to image of the same size, in [-1, 1]: the output goes through tanh.

    A 7x7 convolution, two 3x3 convolutions of stride 2, residual blocks, two transposed 3x3
    convolutions of stride 2, and a 7x7 convolution. All but the last have an instance norm without
    weights and a ReLU. What surrounds an image is its reflection; behind convolutions of stride 2
    it is zeros. Every convolution has a bias, although the norm behind it takes it away again: so
    the public code counts its parameters.
    """

    def __init__(self, channels: int = 1, base: int = 64, residual_blocks: int = 9) -> None:
        """
        Args:
            channels: channels of the image, and of the output.
            base: channels of the first convolution.
            residual_blocks: at a quarter of the resolution; 9 for 256 pixels, 6 for 128.

        Raises:
            ValueError: a number below 1 (of residual blocks, below 0).
        """
        super().__init__()
        if min(channels, base) < 1 or residual_blocks < 0:
            raise ValueError(
                "expected channels and base of 1 or more and no negative number of "
                f"residual_blocks, got {channels}, {base} and {residual_blocks}"
            )
        widths = [base, 2 * base, 4 * base]
        self.down = nn.Sequential(
            _normalised(_reflected(channels, base, 7), base),
            *[_normalised(nn.Conv2d(a, b, 3, 2, 1), b) for a, b in pairwise(widths)],
        )
        self.residual = nn.Sequential(*[_Residual(widths[-1]) for _ in range(residual_blocks)])
        up = [
            _normalised(nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1), b)
            for a, b in pairwise(reversed(widths))
        ]
        self.up = nn.Sequential(*up)
        self.output = nn.Sequential(_reflected(base, channels, 7), nn.Tanh())

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """
        Raises:
            ValueError: height or width is no multiple of 4, or below 8.
        """
        height, width = image.shape[-2:]
        if height % 4 or width % 4 or min(height, width) < 8:
            raise ValueError(
                f"expected height and width of 8 or more, divisible by 4, got {height} x {width}"
            )
        return self.output(self.up(self.residual(self.down(image))))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _normalised(_reflected(channels, channels, 3), channels),
            _reflected(channels, channels, 3),
            InstanceNorm2d(channels),
        )

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        return x + self.layers(x)


def _reflected(channels_in: int, channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel, 1, kernel // 2, padding_mode="reflect")


def _normalised(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, InstanceNorm2d(channels), nn.ReLU())
