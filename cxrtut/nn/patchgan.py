"""The PatchGAN: a discriminator that judges every patch of an image on its own.

Isola, Zhu, Zhou and Efros, CVPR 2017 (pix2pix), Sections 3.2.2 and 6.1.2.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


class PatchGAN(nn.Module):
    """One logit for each patch, high for what looks real. With three halvings a patch has 70 x 70
    pixels, and an image of 256 px has 30 x 30 patches.

    4x4 convolutions padded by 1: `halvings` of stride 2 and two of stride 1, the last of them with
    one channel. All but the first and the last have a norm, all but the last LeakyReLU(0.2).
    Channels double from `base` up to eight times `base`. There is no sigmoid: the losses take
    logits.

    A convolution has a bias where no shift is learnt behind it: before a batch norm it has none,
    before an instance norm (without weights) it has one, although the norm subtracts it again.
    That is how the public pix2pix and CycleGAN networks are built.

    Reading (network, strides): All convolutions of pix2pix have stride 2 (Section 6.1), which would
        give patches of 94 × 94 pixels.
        Here: The last two have stride 1.
        Why: The public code does the same, and gives the 70 × 70 that the paper names.
    """

    def __init__(
        self,
        channels: int = 1,
        base: int = 64,
        halvings: int = 3,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        """
        Args:
            channels: channels of what is judged; a conditional discriminator sees its condition as
                further channels.
            base: channels of the first convolution.
            halvings: convolutions of stride 2.
            norm: the norm of a map with so many channels; `nn.InstanceNorm2d` in CycleGAN.

        Raises:
            ValueError: a number below 1.
        """
        super().__init__()
        if min(channels, base, halvings) < 1:
            raise ValueError(
                "expected channels, base and halvings of 1 or more, got "
                f"{channels}, {base} and {halvings}"
            )
        self.smallest = 3 * 2**halvings
        layers: list[nn.Module] = [nn.Conv2d(channels, base, 4, 2, 1), nn.LeakyReLU(0.2)]
        widths = [base * min(2**k, 8) for k in range(halvings + 1)]
        for k in range(1, halvings + 1):
            stride = 2 if k < halvings else 1
            layers += _normalised(widths[k - 1], widths[k], stride, norm(widths[k]))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        """
        Raises:
            ValueError: an image too small for a single patch.
        """
        height, width = image.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"expected images of {self.smallest} x {self.smallest} pixels or more, "
                f"got {height} x {width}"
            )
        return self.layers(image)


def _normalised(channels_in: int, channels: int, stride: int, norm: nn.Module) -> list[nn.Module]:
    shifts = getattr(norm, "bias", None) is not None
    return [
        nn.Conv2d(channels_in, channels, 4, stride, 1, bias=not shifts),
        norm,
        nn.LeakyReLU(0.2),
    ]
