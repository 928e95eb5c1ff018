r"""CycleGAN: two generators, there and back, for images that come in no pairs; one of Fig. 3 of
GRANet.

J.-Y. Zhu, T. Park, P. Isola and A. A. Efros, Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks, ICCV 2017.

Equations
    (1)  $L_{GAN}(G, D_Y, X, Y)$, of least squares (Section 4)
         `losses.adversarial.least_squares_generator_loss`, `CycleGAN.discriminator_loss`
    (2)  $L_{cyc}(G, F) = E \| F(G(x)) - x \|_1 + E \| G(F(y)) - y \|_1$
         `CycleGAN.generator_loss`
    (3)  $L(G, F, D_X, D_Y) = L_{GAN}(G, D_Y, X, Y) + L_{GAN}(F, D_X, Y, X) + \lambda L_{cyc}(G, F)$
         `CycleGAN.generator_loss`
    (4)  $\min_{G,F} \max_{D_X, D_Y} L(G, F, D_X, D_Y)$    `CycleGAN.phases`
    Section 5.2, $L_{identity} = E \| G(y) - y \|_1 + E \| F(x) - x \|_1$
         `CycleGAN.generator_loss`
    Section 4, a pool of 50 images    `nn.image_pool.ImagePool`
    Section 7.2, the networks    `nn.resnet_generator.ResNetGenerator`, `nn.patchgan.PatchGAN`

Here X are abnormal images and Y normal ones: G makes a normal image, F an abnormal one.

Reading (loss, identity): The paper uses $L_{identity}$ for paintings alone; the public code has it
    on, with half the weight of the cycle.
    Here: It is on, with that weight.
    Why: A normal image is to stay as it is when its abnormality is asked for.

Reading (training, what D sees): G and D are said to alternate.
    Here: The discriminators see, by way of their pools, the very images that the generators were
        graded by in the same step.
    Why: So does the public code, and it saves a pass through both generators.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch, abnormal, normal
from cxrtut.engine.task import Phase, Terms
from cxrtut.losses.adversarial import (
    least_squares_discriminator_loss,
    least_squares_generator_loss,
)
from cxrtut.nn.image_pool import ImagePool

POOL = 50  # images


class CycleGAN:
    """Trained on Eq. (3). A batch has normal and abnormal images in turn, which belong together in
    nothing else.

    Networks: `generator` G, `back` F, `normal_discriminator` D_Y and `abnormal_discriminator` D_X,
    and the pools of their fakes.
    """

    n_uniforms = 2

    def __init__(
        self,
        generator: nn.Module,
        back: nn.Module,
        normal_discriminator: nn.Module,
        abnormal_discriminator: nn.Module,
        *,
        size: int,
        channels: int = 1,
        pool: int = POOL,
        learning_rate: float = 2e-4,
        lambda_cycle: float = 10.0,
        lambda_identity: float = 5.0,
    ) -> None:
        """
        Args:
            generator, back: such as `nn.resnet_generator.ResNetGenerator`; on their device.
            normal_discriminator, abnormal_discriminator: such as `nn.patchgan.PatchGAN`.
            size, channels: of the images, for the pools.
            pool: images in each pool.
            learning_rate: of Adam (betas .5 and .999), for all.
            lambda_cycle: of Eq. (3).
            lambda_identity: see the module; 0 leaves the term out.
        """
        self.networks: dict[str, nn.Module] = {
            "generator": generator, "back": back, "normal_discriminator": normal_discriminator,
            "abnormal_discriminator": abnormal_discriminator,
        }  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), learning_rate, betas=(0.5, 0.999))
            for name, network in self.networks.items()
        }
        device = next(generator.parameters()).device
        self.pools = [ImagePool(pool, channels, size).to(device) for _ in range(2)]
        self.networks |= dict(zip(("normal_pool", "abnormal_pool"), self.pools, strict=True))
        self.lambda_cycle, self.lambda_identity = lambda_cycle, lambda_identity

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("G", ("generator", "back"), self.generator_loss)
        yield Phase(
            "D", ("normal_discriminator", "abnormal_discriminator"), self.discriminator_loss
        )

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (3) for G and F, with the identity; each norm is a mean over pixels."""
        G, F = self.networks["generator"], self.networks["back"]
        x, y = abnormal(batch.image), normal(batch.image)
        to_normal, to_abnormal = G(x), F(y)
        assert batch.uniforms is not None, "a batch for training has uniform numbers"
        of_normal, of_abnormal = batch.uniforms[1::2], batch.uniforms[0::2]
        self.pools[0](to_normal, of_normal)
        self.pools[1](to_abnormal, of_abnormal)
        adversarial = least_squares_generator_loss(
            self.networks["normal_discriminator"](to_normal)
        ) + least_squares_generator_loss(self.networks["abnormal_discriminator"](to_abnormal))
        cycle = (F(to_normal) - x).abs().mean() + (G(to_abnormal) - y).abs().mean()
        loss = adversarial + self.lambda_cycle * cycle
        terms = {"adversarial": adversarial, "cycle": cycle}
        if not self.lambda_identity:
            return loss, terms
        identity = (G(y) - y).abs().mean() + (F(x) - x).abs().mean()
        return loss + self.lambda_identity * identity, {**terms, "identity": identity}

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (1) for both discriminators, each halved: real images against those of the pools."""
        of_normal = least_squares_discriminator_loss(
            self.networks["normal_discriminator"](normal(batch.image)),
            self.networks["normal_discriminator"](self.pools[0].shown),
        )
        of_abnormal = least_squares_discriminator_loss(
            self.networks["abnormal_discriminator"](abnormal(batch.image)),
            self.networks["abnormal_discriminator"](self.pools[1].shown),
        )
        loss = (of_normal + of_abnormal) / 2
        return loss, {"normal": of_normal / 2, "abnormal": of_abnormal / 2}


def to_healthy(generator: nn.Module, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """G(x), for `baselines.pseudo_healthy.PseudoHealthy`."""
    return generator(x)
