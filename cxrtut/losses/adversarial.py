"""Three games between a generator and its judge.

A judge (discriminator or critic) gives one score an image, or one for each patch of it; a high
score means real. Every loss is minimised and is the mean over all scores. Nothing is halved: a
paper that halves the judge's loss says so in its own file.

Scores carry the gradient. A judge's step takes the scores of a *detached* fake.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def wasserstein_critic_loss(
    real_score: Float[Tensor, "*n"], fake_score: Float[Tensor, "*m"]
) -> Float[Tensor, ""]:
    """E[D(fake)] - E[D(real)]: minus the critic's estimate of the Wasserstein distance.

    It is an estimate only for a critic of slope 1 or less; see `gradient_penalty`.

    Args:
        real_score: any shape, unbounded.
        fake_score: any shape; there may be more or fewer of them.

    Raises:
        ValueError: no scores.

    Source: Arjovsky, Chintala and Bottou, ICML 2017, Eq. (2).
    """
    return _mean(fake_score) - _mean(real_score)


def wasserstein_generator_loss(fake_score: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """-E[D(fake)]; see `wasserstein_critic_loss`."""
    return -_mean(fake_score)


def least_squares_discriminator_loss(
    real_score: Float[Tensor, "*n"], fake_score: Float[Tensor, "*m"]
) -> Float[Tensor, ""]:
    """E[(D(real) - 1)²] + E[D(fake)²].

    Reading (loss, the factor 1/2): Mao et al. print both losses with a factor 1/2, CycleGAN (Zhu et
        al., ICCV 2017, Section 4) without it.
        Here: We leave it out.
        Why: The weights of other losses then mean what they mean in CycleGAN.

    Args:
        real_score: any shape, unbounded.
        fake_score: any shape; there may be more or fewer of them.

    Raises:
        ValueError: no scores.

    Source: Mao et al., ICCV 2017, Eq. (9).
    """
    return _mean((real_score - 1.0).square()) + _mean(fake_score.square())


def least_squares_generator_loss(fake_score: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """E[(D(fake) - 1)²]; see `least_squares_discriminator_loss`."""
    return _mean((fake_score - 1.0).square())


def non_saturating_discriminator_loss(
    real_logit: Float[Tensor, "*n"], fake_logit: Float[Tensor, "*m"]
) -> Float[Tensor, ""]:
    """-E[log σ(D(real))] - E[log(1 - σ(D(fake)))], with σ the sigmoid: cross-entropy, label 1 for
    real and 0 for fake. It is 2 log 2 where the discriminator knows nothing.

    Args:
        real_logit: any shape, before the sigmoid.
        fake_logit: any shape; there may be more or fewer of them.

    Raises:
        ValueError: no logits.

    Source: Goodfellow et al., NIPS 2014, Eq. (1).
    """
    # log σ(z) = -softplus(-z), and 1 - σ(z) = σ(-z): no logarithm of a rounded zero
    return _mean(F.softplus(-real_logit)) + _mean(F.softplus(fake_logit))


def non_saturating_generator_loss(fake_logit: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """-E[log σ(D(fake))], whose gradient does not vanish where the discriminator is sure; see
    `non_saturating_discriminator_loss`.

    Source: Goodfellow et al., NIPS 2014, end of Section 3.
    """
    return _mean(F.softplus(-fake_logit))


def _mean(values: Tensor) -> Float[Tensor, ""]:
    """In float32 or better: a difference of two means in bfloat16 would be rounding noise."""
    if values.numel() == 0:
        raise ValueError(f"expected at least one score, got shape {tuple(values.shape)}")
    return values.mean(dtype=torch.promote_types(values.dtype, torch.float32))
