"""How a GPU computes while a task is trained: settings that change the speed, never the method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def performance_settings(device: torch.device, networks: Iterable[nn.Module]) -> Iterator[None]:
    """On CUDA: TensorFloat-32 for float32 products, cuDNN's fastest algorithm for each shape, and
    networks in the memory layout that convolutions like best. The global settings are put back.
    """
    if device.type != "cuda":
        yield
        return
    for network in networks:
        network.to(memory_format=torch.channels_last)
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        cudnn.benchmark, cudnn.allow_tf32 = True, True
        torch.set_float32_matmul_precision("high")
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before[0], before[1]
        torch.set_float32_matmul_precision(before[2])
