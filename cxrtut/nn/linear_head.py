"""The last layer of a classifier whose maps can be read."""

from __future__ import annotations

from torch import nn


def linear_head(classifier: nn.Module, *, with_bias: bool = False) -> nn.Linear:
    """`classifier.classifier`, the one linear layer behind the last feature map, which serves as a
    1 x 1 convolution where a map for each class is wanted.

    Args:
        classifier: with `features` and `classifier`.
        with_bias: whether it must have a bias.

    Raises:
        TypeError: another layer, several layers, or no bias.
    """
    head = classifier.get_submodule("classifier")
    if isinstance(head, nn.Linear) and (head.bias is not None or not with_bias):
        return head
    wanted = "one nn.Linear with a bias" if with_bias else "one nn.Linear"
    found = type(head).__name__ + (" without" if isinstance(head, nn.Linear) else "")
    raise TypeError(f"classifier.classifier: expected {wanted}, got {found}")
