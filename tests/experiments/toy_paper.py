"""A toy sixth paper: the background of a film, and the detector of what is not background.

Nobody, Nothing in Particular, Journal of Toys 2026.

Equations
    (1)  L_B = mean |x - b|, b one grey level for each pixel      `ToyTask.background_loss`
    (2)  L_C = cross-entropy of the detector's logits             `ToyTask.detector_loss`
Steps
    Section 2, "the detector sees the difference"                 `Toy.predict`, `Background`
    Section 3, the heat map                                       `heatmap_from_maps`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, Prediction
from cxrtut.engine.task import Phase, Terms
from cxrtut.evaluation_mode import evaluating
from cxrtut.localize.heatmap import heatmap_from_maps
from cxrtut.nn.probability import probabilities
from cxrtut.randomness import seeded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and lengths; every number is a toy's."""

    size: int = 32
    channels: int = 1
    width: int = 4
    learning_rate: float = 0.02
    batch_size: int = 8
    steps: int = 60


PAPER = Config()
SMOKE = replace(PAPER, width=2)


class Background(nn.Module):
    """b of Eq. (1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(config.channels, config.size, config.size))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self.level.expand_as(image)


def make_networks(config: Config, seed: int) -> dict[str, nn.Module]:
    """Background and detector with the initial weights of a seed."""
    with seeded("toy paper", seed):
        detector = nn.Sequential(
            nn.Conv2d(config.channels, config.width, 5, padding=2), nn.ReLU(),
            nn.Conv2d(config.width, 1, 1),
        )  # fmt: skip
    return {"background": Background(config), "detector": detector}


class ToyTask:
    """The detector moves in every step, the background in every other."""

    n_uniforms = 0

    def __init__(self, config: Config, seed: int, device: torch.device) -> None:
        self.networks = make_networks(config, seed)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.to(device).parameters(), config.learning_rate)
            for name, network in self.networks.items()
        }

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("C", ("detector",), self.detector_loss)
        if step % 2 == 1:
            yield Phase("B", ("background",), self.background_loss)

    def background_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (1)."""
        return (batch.image - self.networks["background"](batch.image)).abs().mean(), {}

    def detector_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (2)."""
        difference = batch.image - self.networks["background"](batch.image)
        logits = self.networks["detector"](difference).mean((2, 3))
        return F.binary_cross_entropy_with_logits(logits, batch.label_vector), {}


class Toy:
    """Both networks as a system."""

    def __init__(
        self, config: Config, classes: tuple[str, ...], networks: dict[str, nn.Module]
    ) -> None:
        self.classes, self.size, self.channels = classes, config.size, config.channels
        self.networks = networks

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """Probability, heat map and background."""
        background, detector = self.networks["background"], self.networks["detector"]
        with evaluating(background, detector):
            image = background(images)
            maps = detector(images - image)
        height, width = images.shape[-2:]
        return Prediction(
            scores=probabilities(maps.mean((2, 3))),
            heatmap=heatmap_from_maps(maps, (height, width)), image=image.clamp(-1, 1),
        )  # fmt: skip
