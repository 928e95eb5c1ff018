"""The losses of a generator that translates images between domains, and of its discriminator, which
says of an image whether it is real and of which domain it is (StarGAN, Choi et al., CVPR 2018).

A discriminator gives two answers, (scores of patches, logits of domains); see `nn.stargan`. A
domain is given as a one-hot vector. Every loss is minimised.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cxrtut.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss
from cxrtut.losses.gradient_penalty import gradient_penalty

Discriminator = Callable[[Tensor], tuple[Tensor, Tensor]]


def domain_vector(label_vector: Float[Tensor, "B K"], domains: int = 2) -> Float[Tensor, "B D"]:
    """Labels as domains, the first of which is "without disease".

    Args:
        label_vector: of K diseases.
        domains: 2, where any disease makes an image one of the second domain; or K + 1, where each
            disease is a domain, and an image with several of them belongs to each in equal parts.

    Raises:
        ValueError: another number of domains.
    """
    diseased, diseases = label_vector.amax(1, keepdim=True), label_vector.shape[1]
    if domains == 2:
        return torch.cat((1 - diseased, diseased), dim=1)
    if domains != diseases + 1:
        raise ValueError(
            f"domains: expected 2, or {diseases + 1} for {diseases} diseases, got {domains}"
        )
    parts = label_vector / label_vector.sum(1, keepdim=True).clamp_min(1)
    return torch.cat((1 - diseased, parts), dim=1)


def origin_and_target(
    label_vector: Float[Tensor, "B K"],
    target_vector: Float[Tensor, "B K"] | None,
    domains: int = 2,
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
    """The domains o of the images of a batch, and t that they shall have.

    Args:
        label_vector: of the batch.
        target_vector: of the batch; a loader makes one that is told so.
        domains: see `domain_vector`.

    Raises:
        ValueError: a batch without target labels, or another number of domains.
    """
    if target_vector is None:
        raise ValueError("target_vector: expected target labels, got none; ask the loader for them")
    return domain_vector(label_vector, domains), domain_vector(target_vector, domains)


def healthy_domain(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 2"]:
    """Of two domains (1, 0), "healthy", for each image."""
    return images.new_tensor([1.0, 0.0]).expand(len(images), 2)


def domain_loss(logits: Float[Tensor, "B K"], domain: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """-E[log softmax(logits)[domain]]: the mean cross-entropy of images of known domains.

    Reading (loss, softmax or sigmoids): Eqs. (9) and (10) of PILLET-GAN do not say how the outputs
        of D become probabilities.
        Here: We take the softmax.
        Why: A radiograph is healthy or not, so the domains exclude each other. For such domains the
            public code of StarGAN takes the softmax, too.
    """
    return F.cross_entropy(logits.float(), domain)


def discriminator_loss(
    discriminator: Discriminator,
    real: Float[Tensor, "B C H W"],
    fake: Float[Tensor, "B C H W"],
    domain: Float[Tensor, "B K"],
    mix: Float[Tensor, "B"],
    *,
    lambda_gp: float,
    lambda_cls: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """E[D(fake)] - E[D(real)] + λ_gp E[(||∇D||₂ - 1)²] + λ_cls E[-log D_cls(domain | real)].

    Args:
        discriminator: see the module; it judges each image by itself (no batch norm).
        real: images.
        fake: translated ones, as many; no gradient goes to them.
        domain: of the real images.
        mix: where between a real and a translated image the penalty is taken, in [0, 1].
        lambda_gp: of the gradient penalty, on the sum of an image's patch scores.
        lambda_cls: of the classification.

    Returns:
        The loss, and for the report the distance E[D(real)] - E[D(fake)], the penalty and the
        cross-entropy.
    """
    both, logits = discriminator(torch.cat((real, fake.detach())))  # one pass for the two
    score, fake_score = both.tensor_split((len(real),))
    distance = wasserstein_critic_loss(score, fake_score)
    penalty = gradient_penalty(lambda x: discriminator(x)[0], real, fake, mix)
    classified = domain_loss(logits[: len(real)], domain)
    terms = {"distance": -distance, "penalty": penalty, "cls": classified}
    return distance + lambda_gp * penalty + lambda_cls * classified, terms


def translation_loss(
    discriminator: Discriminator,
    fake: Float[Tensor, "B C H W"],
    target: Float[Tensor, "B K"],
    *,
    lambda_cls: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """-E[D(fake)] + λ_cls E[-log D_cls(target | fake)]: what a generator hears from a frozen
    discriminator.

    Returns:
        The loss, and its two terms for the report.
    """
    score, logits = discriminator(fake)
    adversarial, classified = wasserstein_generator_loss(score), domain_loss(logits, target)
    return adversarial + lambda_cls * classified, {"adversarial": adversarial, "cls": classified}
