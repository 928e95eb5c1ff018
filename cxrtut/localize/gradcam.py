"""Grad-CAM: where a class's logit would rise with the activation of a layer (Selvaraju et al.,
Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def grad_cam(
    network: nn.Module,
    layer: nn.Module,
    image: Float[Tensor, "B C H W"],
    class_index: Int[Tensor, "B"],
) -> Float[Tensor, "B h w"]:
    """Eqs. (1) and (2): ReLU(Σ_c α_c A_c) with α_c the spatial mean of ∂ logit / ∂ A_c.

    A (B, c, h, w) is what `layer` puts out. The map is >= 0 and not normalised. For a classifier
    that ends in global average pooling and a linear layer, Grad-CAM at the last convolution is the
    ReLU of the class activation map divided by h w.

    Only the gradient with respect to A is taken: the parameters' `grad` stays as it is, and the
    part of the network before `layer` is not differentiated. It works under `no_grad` and with
    frozen parameters. Training or evaluation mode is the caller's business: with BatchNorm in
    training mode the images of a batch influence each other, and the running statistics move.

    Args:
        network: gives logits (B, K).
        layer: one of the network's modules, run once per call.
        image: what the network takes.
        class_index: the class asked about, one per image.

    Raises:
        ValueError: `layer` is not in the network, does not run exactly once, puts out something
            else than a (B, c, h, w) activation, or does not lead to the logits; the network's
            output is not (B, K); a class index is missing or out of range.
    """
    if not any(module is layer for module in network.modules()):
        raise ValueError(
            f"layer: expected a module of the {type(network).__name__}, got a "
            f"{type(layer).__name__} that is not in it"
        )
    with torch.enable_grad():
        activation, logits = _run(network, layer, image)
        _check_logits(logits, class_index, len(image))
        score = logits.gather(1, class_index.long()[:, None]).sum()
    slope = None
    if score.requires_grad:
        (slope,) = torch.autograd.grad(score, activation, allow_unused=True)
    if slope is None:
        raise ValueError(
            f"layer: expected one that leads to the logits, got a {type(layer).__name__} on which "
            "they do not depend (under torch.inference_mode nothing seems to depend on anything)"
        )
    weight = slope.mean(dim=(2, 3), keepdim=True)
    return (weight * activation.detach()).sum(dim=1).relu()


def _run(
    network: nn.Module, layer: nn.Module, image: Float[Tensor, "B C H W"]
) -> tuple[Float[Tensor, "B c h w"], Tensor]:
    """The activation of `layer` as the beginning of a graph that ends in the network's output."""
    activations: list[Tensor] = []

    def begin_graph(module: nn.Module, inputs: tuple, output: object) -> Tensor:
        if not (isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point()):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer: expected an activation (B, c, h, w), got {got}")
        # Copies, as the next layer may be an in-place ReLU.
        activations.append(output.detach().clone().requires_grad_())
        return activations[-1].clone()

    hook = layer.register_forward_hook(begin_graph)
    try:
        logits = network(image)
    finally:
        hook.remove()
    if len(activations) != 1:
        raise ValueError(
            f"layer: expected a {type(layer).__name__} that runs once, it ran "
            f"{len(activations)} times"
        )
    return activations[0], logits


def _check_logits(logits: object, class_index: Tensor, n_images: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n_images:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"network: expected logits ({n_images}, K), got {got}")
    if tuple(class_index.shape) != (n_images,):
        raise ValueError(
            f"class_index: expected shape ({n_images},), one per image, "
            f"got {tuple(class_index.shape)}"
        )
    n_classes = logits.shape[1]
    wrong = class_index[(class_index < 0) | (class_index >= n_classes)]
    if len(wrong):
        raise ValueError(f"class_index: expected 0 to {n_classes - 1}, got {wrong[0].item()}")
