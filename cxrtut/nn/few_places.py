"""Convolutions to many channels at few places, as the last layers of a critic are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS_PER_PLACE = 4  # from where on the matrix product was faster, on a CPU


def pays(channels: int, places: int, device: torch.device) -> bool:
    """Whether a matrix product is faster than a convolution to so many channels at so many places
    of a batch, or, transposed, from so many: on a CPU, with four channels or more for each place.
    """
    return device.type == "cpu" and channels >= CHANNELS_PER_PLACE * places


class FewPlacesConv2d(nn.Conv2d):
    """A convolution whose kernel has far more numbers than its input.

    A CPU's convolution brings the kernel into an order of its own in every pass, which here takes
    longer than the products. So on a CPU it is one matrix product, of the kernel and the patches
    below it, where there are at least four channels for each place of the batch; elsewhere, and on
    a GPU, it is `torch.nn.Conv2d`. The weights are the same, and the results, but for rounding.
    """

    def forward(self, input: Float[Tensor, "B c H W"]) -> Float[Tensor, "B d h w"]:
        plain = self.groups == 1 and self.padding_mode == "zeros"
        if not plain or isinstance(self.padding, str):
            return super().forward(input)
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                input.shape[-2:], self.padding, self.dilation, self.kernel_size, self.stride,
                strict=True,
            )
        )  # fmt: skip
        if not pays(self.out_channels, len(input) * height * width, input.device):
            return super().forward(input)
        patches = F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)
        columns = patches.transpose(0, 1).flatten(1)  # (c k k, B h w)
        product = self.weight.flatten(1) @ columns
        if self.bias is not None:
            product = product + self.bias[:, None]
        return product.view(self.out_channels, len(input), height, width).transpose(0, 1)
