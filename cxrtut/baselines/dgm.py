r"""DGM, a disentangled generative model: a normal image and a residue, told apart by image labels
alone; a row of Table 1 of GRANet.

Y. Tang, Y. Tang, Y. Zhu, J. Xiao and R. M. Summers, A Disentangled Generative Model for Disease
Decomposition in Chest X-Rays via Normal Image Synthesis, Medical Image Analysis 67, 2021.

Equations (Section 2, read from a picture of the page)
    (1)  $\frac{1}{2} E D(N)^2 + \frac{1}{2} E (D(y) - 1)^2$, y a normal image
         `DGM.discriminator_loss`, `DGM.generator_loss`
    (2)  $R_1 = \| N + R - x \|_1$    `DGM.generator_loss`
    (3)  $R_2 = \| G_j([E_n(x), E_r(x)]) - x \|_1$    `DGM.generator_loss`
    (4)  $R_3 = \| R \|_1$ of a normal x    `DGM.generator_loss`
    (5)  $TV = \sum_{i,j} |N_{i+1,j} - N_{i,j}| + |N_{i,j+1} - N_{i,j}|$    `total_variation`
    (6)  $10 L_{GAN} + 10 (R_1 + R_2 + R_3) + TV$    `DGM.generator_loss`
    Networks    `nn.dgm.DisentangledGenerator`, `nn.dgm.PatchScores`

Reading (loss, DGM, means): The norms are printed without a factor.
    Here: They are means over pixels, and $R_3$ is one over the normal images of a batch.
    Why: As sums over 50,176 pixels they would drown the adversarial loss.

Reading (loss, DGM, whom D is shown): Both public codes break the adversarial loss: one lets D judge
    x instead of N, so that no gradient reaches the generator, and one shows D abnormal images as
    real ones, too.
    Here: D is shown N as made and normal images as real, and the generator is graded by D's score
        of N.
    Why: So it is printed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, normal
from cxrtut.engine.task import Phase, Terms
from cxrtut.losses.adversarial import (
    least_squares_discriminator_loss,
    least_squares_generator_loss,
)
from cxrtut.nn.dgm import DisentangledGenerator


class DGM:
    """Trained on Eq. (6). A batch has normal and abnormal images in turn.

    Networks: `generator` and `discriminator`.
    """

    n_uniforms = 0

    def __init__(
        self,
        generator: DisentangledGenerator,
        discriminator: nn.Module,
        *,
        learning_rate: float = 2e-4,
        lambda_adversarial: float = 10.0,
        lambda_reconstruction: float = 10.0,
        lambda_variation: float = 1.0,
    ) -> None:
        """
        Args:
            generator: on its device.
            discriminator: such as `nn.dgm.PatchScores`.
            learning_rate: of Adam (betas .5 and .999), for both.
            lambda_adversarial, lambda_reconstruction, lambda_variation: of Eq. (6).
        """
        self.networks: dict[str, nn.Module] = {
            "generator": generator, "discriminator": discriminator,
        }  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), learning_rate, betas=(0.5, 0.999))
            for name, network in self.networks.items()
        }
        self.lambda_adversarial = lambda_adversarial
        self.lambda_reconstruction = lambda_reconstruction
        self.lambda_variation = lambda_variation

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("discriminator",), self.discriminator_loss)
        yield Phase("G", ("generator",), self.generator_loss)

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (1) for D: half the mean of D(N)², of all images, and half that of (D(y) - 1)²."""
        D, G = self.networks["discriminator"], self.networks["generator"]
        assert isinstance(G, DisentangledGenerator)
        with torch.no_grad():
            made = G.normal(batch.image)
        return least_squares_discriminator_loss(D(normal(batch.image)), D(made)) / 2, {}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (6)."""
        x = batch.image
        made, residue, joint = self.networks["generator"](x)
        score = self.networks["discriminator"](made)
        adversarial = least_squares_generator_loss(score) / 2
        reconstruction = (made + residue - x).abs().mean() + (joint - x).abs().mean()
        silent = normal(residue).abs().mean()
        variation = total_variation(made)
        loss = (
            self.lambda_adversarial * adversarial
            + self.lambda_reconstruction * (reconstruction + silent)
            + self.lambda_variation * variation
        )
        terms = {
            "adversarial": adversarial, "reconstruction": reconstruction, "residue": silent,
            "variation": variation,
        }  # fmt: skip
        return loss, terms


class DisentangledInput(nn.Module):
    """A backbone of three channels behind a DGM: it sees the image, N and R.

    The generator is no part of this network: it is neither trained nor stored with it.

    Reading (network, DGM and RetinaNet): Table 1 of GRANet has a row "RetinaNet + DGM"; how the one
        enters the other could not be read.
        Here: The detector sees x, N and R as three channels.
        Why: A grey image has three channels to give away, so that the detector stays as large as it
            is without.
    """

    def __init__(self, backbone: nn.Module, generator: DisentangledGenerator) -> None:
        """
        Args:
            backbone: three channels to maps, with `out_channels` and `strides`.
            generator: trained on images of one channel; in evaluation mode, and frozen.
        """
        super().__init__()
        self.backbone, self._generator = backbone, (generator,)
        self.out_channels: int = backbone.out_channels  # type: ignore[assignment]

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of the backbone."""
        strides: tuple[int, ...] = self.backbone.strides  # type: ignore[assignment]
        return strides

    def forward(self, image: Float[Tensor, "B 1 H W"]) -> OrderedDict[str, Tensor]:
        """The maps of the backbone."""
        made, residue, _ = self._generator[0](image)
        maps: OrderedDict[str, Tensor] = self.backbone(torch.cat((image, made, residue), 1))
        return maps


def total_variation(image: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Eq. (5): the mean difference of neighbours from left to right, and from top to bottom."""
    across, down = image.diff(dim=-1), image.diff(dim=-2)
    return across.abs().mean() + down.abs().mean()


def to_healthy(generator: nn.Module, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """N, for `baselines.pseudo_healthy.PseudoHealthy`."""
    assert isinstance(generator, DisentangledGenerator)
    return generator.normal(x)
