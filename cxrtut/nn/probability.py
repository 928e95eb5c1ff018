"""Probabilities of logits, in the order of the logits."""

import torch
from jaxtyping import Float
from torch import Tensor


def probabilities(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sigmoid, in float64 where the device has it: in float32 all logits above 17 become 1, and
    the sure ones lose their order.
    """
    return torch.sigmoid(logits if logits.device.type == "mps" else logits.double())
