"""The gradient penalty: a critic of slope one between real and fake images."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Float[Tensor, "B C H W"],
    fake: Float[Tensor, "b c h w"],
    mix: Float[Tensor, "n"],
) -> Float[Tensor, ""]:
    """mean over the batch of (||∇ D(x)||₂ - 1)², at x = mix · real + (1 - mix) · fake.

    The norm is that of the whole gradient of an image, over C, H and W together. Where the critic
    gives a map of scores, the gradient is that of their sum. It is computed outside autocast, in
    float32 or better: bfloat16 changes a penalty visibly. Nothing is random here and nothing is
    read back from the device, so that the step can be captured as a CUDA graph.

    The gradient of the penalty goes to the critic alone; real and fake are detached.

    Args:
        critic: images to scores, one an image or a map, each image judged by itself (no batch
            norm).
        real: images.
        fake: as many images of the same shape.
        mix: (B,) numbers in [0, 1], uniform in the paper, one an image.

    Raises:
        ValueError: no images, fakes of another shape than the real ones, or not one `mix` an image.

    Source: Gulrajani et al., NIPS 2017, Eq. (3) and Algorithm 1; without their coefficient λ.
    """
    if real.shape != fake.shape or len(real) == 0:
        raise ValueError(
            "expected real and fake images of one shape, at least one of each, got "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if mix.shape != real.shape[:1]:
        raise ValueError(
            f"expected {len(real)} mixing numbers, one an image, got shape {tuple(mix.shape)}"
        )
    with torch.autocast(real.device.type, enabled=False):
        precision = torch.promote_types(real.dtype, torch.float32)
        real, fake = real.detach().to(precision), fake.detach().to(precision)
        share = mix.detach().to(precision)[:, None, None, None]
        between = (share * real + (1.0 - share) * fake).requires_grad_()
        score = critic(between)
        (slope,) = torch.autograd.grad(score.sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1.0).square().mean()
