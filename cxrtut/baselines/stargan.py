r"""StarGAN: one generator for all domains.

Y. Choi, M. Choi, M. Kim et al., StarGAN: Unified Generative Adversarial Networks for Multi-Domain
Image-to-Image Translation, CVPR 2018.

Equations
    (1), (8)  $L_{adv}$ with the gradient penalty
         `losses.adversarial.wasserstein_critic_loss`
    (2), (3)  $L_{cls}^r$, $L_{cls}^f$    `losses.domain_translation.domain_loss`
    (4)  $L_{rec} = E \| x - G(G(x, c), c') \|_1$    `StarGAN.generator_loss`
    (5)  $L_D = -L_{adv} + \lambda_{cls} L_{cls}^r$    `StarGAN.discriminator_loss`
    (6)  $L_G = L_{adv} + \lambda_{cls} L_{cls}^f + \lambda_{rec} L_{rec}$
         `StarGAN.generator_loss`
    Where the disease is: $|x - G(x, healthy)|$    `baselines.pseudo_healthy.PseudoHealthy`
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.data.sample import Batch
from cxrtut.engine.task import Phase, Terms
from cxrtut.losses.domain_translation import (
    discriminator_loss,
    healthy_domain,
    origin_and_target,
    translation_loss,
)


def translate(
    generator: nn.Module, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B D"]
) -> Float[Tensor, "B C H W"]:
    """tanh(G(x, t)): the image in the target domain, made anew."""
    return torch.tanh(generator(image, target))


def to_healthy(generator: nn.Module, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """`translate` to the healthy domain."""
    return translate(generator, image, healthy_domain(image))


class StarGAN:
    """Generator and discriminator, trained by turns; a batch brings its target domains.

    Networks: `generator`, `discriminator`.
    """

    n_uniforms = 1  # where between a real and a fake image the penalty is taken

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        critic_steps: int = 5,
        lambda_cls: float = 1.0,
        lambda_rec: float = 10.0,
        lambda_gp: float = 10.0,
        domains: int = 2,
    ) -> None:
        """
        Args:
            generator: image and target domain to an image, such as `nn.stargan.StarGANGenerator`;
                on its device.
            discriminator: such as `nn.stargan.StarGANDiscriminator`; on its device.
            learning_rate: of Adam, for both.
            betas: of Adam.
            critic_steps: steps of the discriminator for one of the generator.
            lambda_cls: of Eqs. (5) and (6).
            lambda_rec: of Eq. (6).
            lambda_gp: of Eq. (8).
            domains: of both networks: 2, healthy and diseased, or one more than there are diseases.
        """
        self.networks: dict[str, nn.Module] = {
            "generator": generator, "discriminator": discriminator,
        }  # fmt: skip
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), learning_rate, betas=betas)
            for name, network in self.networks.items()
        }
        self.critic_steps, self.domains = critic_steps, domains
        self.lambda_cls, self.lambda_rec, self.lambda_gp = lambda_cls, lambda_rec, lambda_gp

    def phases(self, step: int, epoch: int) -> Iterator[Phase]:
        yield Phase("D", ("discriminator",), self.discriminator_loss)
        if (step + 1) % self.critic_steps == 0:
            yield Phase("G", ("generator",), self.generator_loss)

    def translate(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B C H W"]:
        """`translate`, by the generator as it is now."""
        return translate(self.networks["generator"], image, target)

    def origin_and_target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """c and c': the domains of the images, and those that they shall have."""
        return origin_and_target(batch.label_vector, batch.target_vector, self.domains)

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (5), with the penalty of Eq. (8)."""
        x, (o, t) = batch.image, self.origin_and_target(batch)
        with torch.no_grad():
            fake = self.translate(x, t)
        assert batch.uniforms is not None, "a batch for training has uniform numbers"
        return discriminator_loss(
            self.networks["discriminator"], x, fake, o, batch.uniforms[:, 0],
            lambda_gp=self.lambda_gp, lambda_cls=self.lambda_cls,
        )  # fmt: skip

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Eq. (6), with the reconstruction of Eq. (4) as a mean over pixels."""
        x, (o, t) = batch.image, self.origin_and_target(batch)
        fake = self.translate(x, t)
        loss, terms = translation_loss(
            self.networks["discriminator"], fake, t, lambda_cls=self.lambda_cls
        )
        rec = (self.translate(fake, o) - x).abs().mean()
        return loss + self.lambda_rec * rec, {**terms, "rec": rec}
