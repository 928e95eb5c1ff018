"""A critic: one unbounded number for each image, high for what looks real."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.nn.few_places import FewPlacesConv2d


class Critic(nn.Module):
    """4x4 convolutions of stride 2, each with LeakyReLU(0.2), until 2x2 pixels are left, and one
    2x2 convolution that sees them all. Channels double from `base` up to eight times `base`.

    There is no sigmoid, because a Wasserstein critic's score has no bounds, and no norm: batch
    normalisation would tie the images of a batch together, and the gradient penalty is defined for
    each image on its own (Gulrajani et al., NIPS 2017, Section 4).

    Reading (network, layers of D): Zhang et al. (MICCAI 2019) say "a seven-layer CNN" and no more.
        Here: At 128 px there are seven convolutions, of 64, 128, 256, 512, 512, 512 and 1 channels;
            at 64 px there are six.
        Why: The last one always sees the whole image.
    """

    def __init__(self, channels: int = 1, base: int = 64, size: int = 128) -> None:
        """
        Args:
            channels: channels of the image.
            base: channels of the first convolution.
            size: height and width of the image in pixels, a power of two of 4 or more.

        Raises:
            ValueError: `size` is no such power, or another number is below 1.
        """
        super().__init__()
        if size < 4 or size & (size - 1):
            raise ValueError(f"expected a size that is a power of two of 4 or more, got {size}")
        if min(channels, base) < 1:
            raise ValueError(f"expected channels and base of 1 or more, got {channels} and {base}")
        self.size = size
        halvings = size.bit_length() - 2
        widths = [base * min(2**k, 8) for k in range(halvings)]
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise([channels, *widths]):
            layers += [FewPlacesConv2d(channels_in, channels_out, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 2))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
        """
        Raises:
            ValueError: an image that is not `size` x `size`.
        """
        height, width = image.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise ValueError(
                f"expected images of {self.size} x {self.size} pixels, got {height} x {width}"
            )
        return self.layers(image).flatten()
