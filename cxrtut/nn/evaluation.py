"""Evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, a network is in evaluation mode; afterwards, also after an error, in the mode that it
    had.
    """
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
