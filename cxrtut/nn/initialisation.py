"""Initial weights."""

import torch
from torch import Tensor, nn

_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)


@torch.no_grad()
def initialise_normal(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Weights of convolutions and linear layers from N(0, std²), scales of norms from N(1, std²),
    all their biases 0; in place. Other parameters, and running statistics, stay as they are.

    Numbers are drawn where the generator lives and then copied, so that one on the CPU gives the
    same network on every device.

    Reading (network, scales of norms): The weights of pix2pix (Isola et al., CVPR 2017, Section
        6.2) and CycleGAN have mean 0 and standard deviation 0.02. Norms are not mentioned.
        Here: Their scales have mean 1.
        Why: The public code of both does the same.

    Args:
        module: a network, or a part of one.
        std: standard deviation, 0 or more; 0.02 in pix2pix and CycleGAN.
        generator: where the numbers come from; nothing global is read or changed.

    Raises:
        ValueError: a negative `std`.
    """
    if std < 0:
        raise ValueError(f"expected a standard deviation of 0 or more, got {std}")
    for part in module.modules():
        if not isinstance(part, _WEIGHTED + _NORMS):
            continue
        if part.weight is not None:
            mean = 1.0 if isinstance(part, _NORMS) else 0.0
            _fill_normal(part.weight, mean, std, generator)
        if part.bias is not None:
            part.bias.zero_()


def _fill_normal(weight: Tensor, mean: float, std: float, generator: torch.Generator) -> None:
    drawn = torch.empty(weight.shape, device=generator.device)
    weight.copy_(drawn.normal_(mean, std, generator=generator))
