"""A pool of earlier fakes, from which a discriminator is shown one now and then.

Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial Training,
CVPR 2017, Section 2.3, as in the public code of CycleGAN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ImagePool(nn.Module):
    """State without parameters; a checkpoint of a run has it, as images of many steps ago are in
    it.

    Attributes:
        shown: what was returned last.
    """

    images: Float[Tensor, "S C H W"]
    filled: Tensor
    shown: Float[Tensor, "b C H W"]

    def __init__(self, slots: int, channels: int, size: int) -> None:
        """
        Args:
            slots: images that are kept; 0 for no pool.
            channels, size: of an image.

        Raises:
            ValueError: a negative number of slots.
        """
        super().__init__()
        if slots < 0:
            raise ValueError(f"slots: expected 0 or more, got {slots}")
        self.register_buffer("images", torch.zeros(slots, channels, size, size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shown", torch.zeros(0, channels, size, size), persistent=False)

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "b C H W"], uniforms: Float[Tensor, "b 2"]
    ) -> Float[Tensor, "b C H W"]:
        """What the discriminator is shown, image by image: while the pool is not full, the new one,
        which it keeps; then, with a probability of one half, one of the pool at random, whose place
        the new one takes, and otherwise the new one. It has no gradient.
        """
        if self.shown.shape != images.shape:
            self.shown = torch.zeros_like(images)
        slots = len(self.images)
        if not slots:
            return self.shown.copy_(images.detach())
        for k, (new, (u, v)) in enumerate(zip(images.detach(), uniforms, strict=True)):
            filling = self.filled < slots
            drawn = (v * slots).long().clamp(max=slots - 1)
            place = torch.where(filling, self.filled.clamp(max=slots - 1), drawn)[None]
            stored = self.images.index_select(0, place)[0]
            swapped = ~filling & (u < 0.5)
            self.shown[k] = torch.where(swapped, stored, new)
            kept = torch.where(swapped | filling, new, stored)
            self.images.index_copy_(0, place, kept[None].to(self.images.dtype))
            self.filled += filling
        return self.shown
