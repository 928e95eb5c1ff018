r"""Noisy-or: an image has a disease where at least one of its patches has it (multiple instances).

Z. Li, C. Wang, M. Han et al., Thoracic Disease Identification and Localization with Limited
Supervision, CVPR 2018; after accounts of it, as `baselines.limited_supervision` says.

Equations
    $p$ and $1 - p$ from [0, 1] to [0.98, 1]    `log_normalised`
    (2)  $p(y | x) = 1 - \prod_j (1 - p_j)$    `log_image_probability`
"""

import torch
from jaxtyping import Float
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def log_normalised(
    logits: Float[Tensor, "B K h w"], lowest: float = 0.98
) -> tuple[Float[Tensor, "B K h w"], Float[Tensor, "B K h w"]]:
    """log of p and of 1 - p, each brought from [0, 1] to [lowest, 1] on a straight line.

    Their products over a few hundred patches then cannot come near zero. The two no longer sum to
    one.
    """
    room = 1 - lowest
    return torch.log1p(-room * torch.sigmoid(-logits)), torch.log1p(-room * torch.sigmoid(logits))


def log_image_probability(
    log_absent: Float[Tensor, "B K h w"],
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """log p(y | x) and log(1 - p(y | x)), of p(y | x) = 1 - Π (1 - p): at least one patch has it.

    Where all patches say no so surely that the sum is zero in float32, the first is -87 and has no
    gradient.
    """
    log_none = log_absent.sum((2, 3))
    log_some = torch.log(-torch.expm1(log_none.clamp(max=-_TINY)))
    return log_some, log_none
