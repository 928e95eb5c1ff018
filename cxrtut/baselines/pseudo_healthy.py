"""A generator of healthy images as a system: what it changes is where the disease is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Prediction
from cxrtut.evaluation_mode import evaluating, in_parts
from cxrtut.localize.residual import residual_heatmap

Translate = Callable[[nn.Module, Tensor], Tensor]


class PseudoHealthy:
    """The translated image, clipped to the range of images, and |x_fake - x| as the heat map.

    Networks: `generator`.
    """

    def __init__(
        self,
        generator: nn.Module,
        to_healthy: Translate,
        classes: tuple[str, ...],
        *,
        size: int,
        channels: int,
    ) -> None:
        """
        Args:
            generator: trained, or about to be.
            to_healthy: generator and images to the healthy images, of any range.
            classes: the diseases that it removes; they share one heat map.
            size: of the images, pixels.
            channels: of the images.
        """
        self.classes = classes if len(classes) == 1 else ("any of " + ", ".join(classes),)
        self.size, self.channels, self.to_healthy = size, channels, to_healthy
        self.networks: dict[str, nn.Module] = {"generator": generator}

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The healthy images, and a heat map of one channel in [0, 2]."""
        generator = self.networks["generator"]
        healthy = images.clone()
        if len(images):  # an instance norm wants one at least
            with evaluating(generator):
                parts = [self.to_healthy(generator, x).clamp(-1, 1) for x in in_parts(images)]
            healthy = torch.cat(parts)
        return Prediction(heatmap=residual_heatmap(images, healthy)[:, None], image=healthy)
