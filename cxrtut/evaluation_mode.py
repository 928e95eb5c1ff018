"""Evaluation mode for a while, and how many images a network is then asked about at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

_ON_A_CPU = 8 * 64 * 64  # pixels at once: a layer of a narrow network then stays in the cache
_ON_A_GPU = 64  # images


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Inside, networks are in evaluation mode. Afterwards, also after an error, every module of
    them is in the mode that it had: a batch norm that was kept in evaluation mode inside a network
    in training stays there.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def in_parts(images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "b C H W"], ...]:
    """The images in parts for a network that is only asked: 64 on a GPU; on a CPU as many as make
    8 images of 64 x 64 pixels, but one at least, which takes half the time of 64.
    """
    if images.device.type != "cpu":
        return images.split(_ON_A_GPU)
    return images.split(max(1, _ON_A_CPU // max(1, images.shape[-2] * images.shape[-1])))
