"""How far images are from a target, in the features of a network and in pixels.

Only features come in: the network and the choice of its layers are the caller's. The target has one
image for each of the others, or one for all of them. Gradients flow through both sides; detach what
shall not move. Everything is computed in float32 or better.

Norms are `torch.linalg.vector_norm`, whose gradient at the zero vector is zero (the square root of
a sum of squares would give NaN there): a pixel or a layer that agrees exactly pulls nowhere.

Reading (loss, means instead of sums): Kim, Jung and Lee (2021) add Eq. (7), which divides the norm
    of each layer by its number of features, and Eq. (8), a sum over pixels. Batches are not
    mentioned.
    Here: We take means in both, and over the images (`perceptual_loss`, `euclidean_loss`). The
        losses as printed are `printed_perceptual_loss` and `printed_euclidean_loss`.
    Why: At 512 pixels Eq. (8) is some ten million times Eq. (7), so their sum is Eq. (8) alone, and
        depends on the size of the image. Means are comparable at every size.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

# The axes have no names in lists: layers differ in size.
Layers = Sequence[Float[Tensor, "_ _ _ _"]]
"""Features of some layers, each (B, C, h, w) with C, h and w of its own."""


def perceptual_loss(target: Layers, features: Layers) -> Float[Tensor, ""]:
    """Mean over the layers of mean (F_s(A) - F_s(x))², over images, channels and places.

    Reading (loss, the square of the norm): Eq. (7) of Kim, Jung and Lee has no square, but cites
        Johnson et al., who have one.
        Here: We square, and average over the layers instead of adding them.
        Why: The gradient then shrinks as the images agree.

    Args:
        target: of each layer (B or 1, C, h, w).
        features: of the same layers (B, C, h, w).

    Raises:
        ValueError: no layers, not as many in the target, shapes that do not agree, or no images.

    Source: Johnson, Alahi and Fei-Fei, ECCV 2016, Eq. (2), averaged over the layers.
    """
    _check_layers(target, features)
    layers = [_difference(a, x).square().mean() for a, x in zip(target, features, strict=True)]
    return torch.stack(layers).mean()


def printed_perceptual_loss(target: Layers, features: Layers) -> Float[Tensor, ""]:
    """Eq. (7) to the letter: Σ_s ||F_s(A) - F_s(x)||₂ / (C_s H_s W_s), mean over the images.

    The norm is that of all features of a layer together, and is not squared. Arguments and errors
    as in `perceptual_loss`.

    Source: Kim, Jung and Lee, Eq. (7).
    """
    _check_layers(target, features)
    layers = [
        torch.linalg.vector_norm(_difference(a, x), dim=(1, 2, 3)) / x[0].numel()
        for a, x in zip(target, features, strict=True)
    ]
    return torch.stack(layers).sum(0).mean()


def euclidean_loss(
    target: Float[Tensor, "_ C H W"], image: Float[Tensor, "B C H W"]
) -> Float[Tensor, ""]:
    """Mean over pixels and images of ||A(i, j) - x(i, j)||₂, the norm over the channels.

    A grey image copied to three channels is √3 times as far as the same image with one.

    Args:
        target: (B or 1, C, H, W).
        image: of the same C, H and W.

    Raises:
        ValueError: shapes that do not agree, or no images.
    """
    return _pixel_distances(target, image).mean()


def printed_euclidean_loss(
    target: Float[Tensor, "_ C H W"], image: Float[Tensor, "B C H W"]
) -> Float[Tensor, ""]:
    """Eq. (8) to the letter: Σ_ij ||A(i, j) - x(i, j)||₂, mean over the images; H W times
    `euclidean_loss`, with its arguments and errors.

    Source: Kim, Jung and Lee, Eq. (8).
    """
    return _pixel_distances(target, image).sum(dim=(1, 2)).mean()


def _pixel_distances(target: Tensor, image: Tensor) -> Float[Tensor, "B H W"]:
    _check_pair("image", target, image, len(image))
    return torch.linalg.vector_norm(_difference(target, image), dim=1)


def _difference(target: Tensor, image: Tensor) -> Tensor:
    """In float32 or better: the difference of near equals in bfloat16 would be rounding noise."""
    precision = torch.promote_types(image.dtype, torch.float32)
    return target.to(precision) - image.to(precision)


def _check_layers(target: Layers, features: Layers) -> None:
    if len(target) != len(features) or len(features) == 0:
        raise ValueError(
            "expected target and features of the same layers, at least one, got "
            f"{len(target)} and {len(features)}"
        )
    for layer, (a, x) in enumerate(zip(target, features, strict=True)):
        _check_pair(f"layer {layer}", a, x, len(features[0]))


def _check_pair(name: str, target: Tensor, image: Tensor, n_images: int) -> None:
    agree = target.shape[1:] == image.shape[1:] and len(target) in (1, n_images)
    if not agree or len(image) != n_images or image.numel() == 0:
        raise ValueError(
            f"{name}: expected {n_images} of one shape (C, H, W), at least one, and as many "
            f"targets or a single one, got {tuple(image.shape)} and target {tuple(target.shape)}"
        )
