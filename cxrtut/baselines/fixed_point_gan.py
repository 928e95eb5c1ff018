r"""Fixed-Point GAN: a translation that leaves alone what is already in the target domain.

M. M. Rahman Siddiquee, Z. Zhou, N. Tajbakhsh et al., Learning Fixed Points in Generative
Adversarial Networks: From Image-to-Image Translation to Disease Detection and Localization, ICCV
2019.

Equations, by what they say
    The translation $\tanh(x + G(x, c))$    `translate`
    Discriminator, on translations to other domains    `baselines.stargan.StarGAN`
    Generator, cross-domain: adversarial, classification and cycle loss
         `FixedPointGAN.generator_loss`
    Generator, same domain: the three again, and the conditional identity loss
         $E \| G(x, c_x) - x \|_1$    `FixedPointGAN.generator_loss`
    Where the disease is: $|x - G(x, healthy)|$    `baselines.pseudo_healthy.PseudoHealthy`

Reading (loss, weight of the identity loss): $\lambda_{id}$ is 10 for faces; the command line that
    the public code gives for its medical images has 0.1.
    Here: It is 10.
    Why: PILLET-GAN has 10, so that the two are compared at the same weight.

Reading (network, fixed points): $\tanh(x + \delta)$ is not $x$ for $\delta = 0$, so that no image
    can be left exactly as it is by doing nothing.
    Here: It stays as in the public code.
    Why: It is part of the method. PILLET-GAN puts its tanh around the map instead, and the arm
        "tanh around the sum" shows what that is worth.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.stargan import StarGAN
from cxrtut.data.sample import Batch
from cxrtut.engine.task import Terms
from cxrtut.losses.domain_translation import (
    healthy_domain,
    translation_loss,
)


def translate(
    generator: nn.Module, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B D"]
) -> Float[Tensor, "B C H W"]:
    """tanh(x + G(x, t)): G says what to add."""
    return torch.tanh(image + generator(image, target))


def to_healthy(generator: nn.Module, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """`translate` to the healthy domain."""
    return translate(generator, image, healthy_domain(image))


class FixedPointGAN(StarGAN):
    """StarGAN's networks and discriminator loss; the generator is asked for the image's own domain
    as well, and that branch has a cycle of its own: four passes of G in a step.
    """

    lambda_id = 10.0

    def translate(
        self, image: Float[Tensor, "B C H W"], target: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B C H W"]:
        """`translate`, by the generator as it is now."""
        return translate(self.networks["generator"], image, target)

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        """[adv + λ_cls cls + λ_rec rec](t) + [adv + λ_cls cls + λ_rec rec + λ_id id](o)."""
        x, (o, t) = batch.image, self.origin_and_target(batch)
        _, cross, cross_terms = self._branch(x, o, t)
        fixed, same, same_terms = self._branch(x, o, o)
        identity = (fixed - x).abs().mean()
        terms = {**cross_terms, **{f"{k} same": v for k, v in same_terms.items()}, "id": identity}
        return cross + same + self.lambda_id * identity, terms

    def _branch(
        self, x: Tensor, origin: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The translation, its losses, and their terms."""
        fake = self.translate(x, target)
        loss, terms = translation_loss(
            self.networks["discriminator"], fake, target, lambda_cls=self.lambda_cls
        )
        rec = (self.translate(fake, origin) - x).abs().mean()
        return fake, loss + self.lambda_rec * rec, {**terms, "rec": rec}
