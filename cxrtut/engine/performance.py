"""How a device computes: settings that change the speed, never the method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer


def set_memory_format(device: torch.device, networks: Mapping[str, nn.Module]) -> None:
    """Puts networks into the memory layout that their convolutions like best: `channels_last`, on
    CUDA and on a CPU. What they compute is the same but for the last bits.

    Args:
        device: where the networks are.
        networks: by name. Three kinds stay as they are on a CPU: a discriminator, since the second
            derivative of a gradient penalty takes almost twice the time in the other layout; what
            has group norms, whose gradient takes five times as long there; and what has a strided
            pointwise convolution of few channels, see `_overruns`.
    """
    for name, network in networks.items():
        suits = not name.startswith("discriminator") and not any(
            isinstance(module, nn.GroupNorm) or _overruns(module) for module in network.modules()
        )
        if device.type == "cuda" or (device.type == "cpu" and suits):
            network.to(memory_format=torch.channels_last)


def _overruns(module: nn.Module) -> bool:
    """Whether a CPU must not be given the module in `channels_last`: there the gradient of a
    strided 1 x 1 convolution by an input of fewer than 16 channels is written beyond its memory
    (torch 2.14).
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels < 16
    )


def set_fused(device: torch.device, optimizer: Optimizer) -> None:
    """Lets Adam update all that it owns in one pass, on a CPU: 0.22 of the time for 31 M numbers.
    Elsewhere it takes torch's default, also when its state was saved on a CPU.

    The one pass reads memory in its order: where parameter, gradient and moments have different
    layouts it computes nonsense and does not say so. Moments therefore take the parameter's layout
    here, and gradients do in `Ranks.average_gradients`; autograd's own always have it.
    """
    if not isinstance(optimizer, (Adam, AdamW)):
        return
    for group in optimizer.param_groups:
        group["fused"] = True if device.type == "cpu" else None
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


@contextmanager
def performance_settings(
    device: torch.device, networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
) -> Iterator[None]:
    """The layout of `set_memory_format` and the one pass of `set_fused`, which the networks and
    optimisers keep. On CUDA also TensorFloat-32 for float32 products and cuDNN's fastest algorithm
    for each shape; these settings are global, and they are put back.

    Args:
        device: where the networks are.
        networks: of a task, by name.
        optimizers: of its networks, by name.
    """
    set_memory_format(device, networks)
    for optimizer in optimizers.values():
        set_fused(device, optimizer)
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
