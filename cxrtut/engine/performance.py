"""How a device computes: settings that change the speed, never the method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


def set_memory_format(device: torch.device, networks: Mapping[str, nn.Module]) -> None:
    """Puts networks into the memory layout that their convolutions like best: `channels_last`, on
    CUDA and on a CPU. What they compute is the same but for the last bits.

    Args:
        device: where the networks are.
        networks: by name. On a CPU a discriminator stays as it is: the second derivative of a
            gradient penalty takes almost twice the time in the other layout.
    """
    for name, network in networks.items():
        if device.type == "cuda" or (device.type == "cpu" and not name.startswith("discriminator")):
            network.to(memory_format=torch.channels_last)


@contextmanager
def performance_settings(device: torch.device, networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """The layout of `set_memory_format`, which the networks keep. On CUDA also TensorFloat-32 for
    float32 products and cuDNN's fastest algorithm for each shape; these settings are global, and
    they are put back.

    Args:
        device: where the networks are.
        networks: of a task, by name.
    """
    set_memory_format(device, networks)
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        cudnn.benchmark, cudnn.allow_tf32 = True, True
        torch.set_float32_matmul_precision("high")
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before[0], before[1]
        torch.set_float32_matmul_precision(before[2])
