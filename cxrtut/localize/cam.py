"""Class activation maps (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR
2016, Eqs. (1) and (2)).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def class_activation_map(
    features: Float[Tensor, "B c h w"], weight: Float[Tensor, "K c"]
) -> Float[Tensor, "B K h w"]:
    """Eq. (2): M_k(i, j) = Σ_c w_kc f_c(i, j), the share of every place in every class's score.

    For a classifier that ends in global average pooling and a linear layer, the spatial mean of
    M_k plus the bias of class k *is* the logit of class k. The map is of any sign and any range:
    negative evidence is information, so nothing is cut off. The gradient flows through both
    arguments.

    Reading (network, sum or mean): Zhou et al. sum over the places, call this average pooling, and
        set the bias to zero.
        Here: The classifier takes the mean, so a map is $h w$ times its share. The bias is left out
            of the map.
        Why: Today's networks take the mean, and the bias belongs to no place.

    Args:
        features: what the last convolution gives, before pooling.
        weight: of the linear layer, one row per class.

    Raises:
        ValueError: the features and the weights disagree about the number of channels.
    """
    if features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"weight: expected {features.shape[1]} columns, one per channel of the features, "
            f"got {weight.shape[1]}"
        )
    return torch.einsum("bchw,kc->bkhw", features, weight)
