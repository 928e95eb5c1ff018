"""How well a lesion was taken out of an image, where the healthy twin is known (phantoms).

Throughout, x is the image with the lesion, h its healthy twin, g what a method made of x, and m the
mask of the lesion; x and h are equal outside m up to the threshold at which m was drawn. All
measures are per image, in float64, averaged over channels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.metrics.inputs import check_finite, check_truth


def residual_lesion_ratio(
    image: Float[Tensor, "B C H W"],
    healthy: Float[Tensor, "B C H W"],
    output: Float[Tensor, "B C H W"],
    mask: Bool[Tensor, "B H W"],
) -> Float[Tensor, "B"]:
    """What is left of the lesion: mean |g - h| over mean |x - h|, both inside m.

    0 where the lesion is replaced by exactly what was behind it, 1 for an untouched image, above 1
    where the change made it worse. NaN where m is empty or the lesion cannot be seen (x = h
    inside m).

    Raises:
        TypeError: the mask is not of bools, or an image not of floats.
        ValueError: shapes that do not agree, or values that are not finite.
    """
    _check(mask, image=image, healthy=healthy, output=output)
    left = _mean_inside((output - healthy).abs(), mask)
    lesion = _mean_inside((image - healthy).abs(), mask)
    return torch.where(lesion > 0, left / lesion, torch.nan)


def background_change(
    image: Float[Tensor, "B C H W"],
    output: Float[Tensor, "B C H W"],
    mask: Bool[Tensor, "B H W"],
) -> Float[Tensor, "B"]:
    """What was changed that had no reason to change: mean |g - x| outside m, in [0, 2] for images
    in [-1, 1].

    With an empty m (a normal image) all of the image is outside. NaN where nothing is outside.

    Raises:
        TypeError: the mask is not of bools, or an image not of floats.
        ValueError: shapes that do not agree, or values that are not finite.
    """
    _check(mask, image=image, output=output)
    return _mean_inside((output - image).abs(), ~mask)


def pixel_change_rate(
    image: Float[Tensor, "B C H W"], output: Float[Tensor, "B C H W"], *, grey_levels: float = 0.0
) -> Float[Tensor, "B"]:
    """Eq. (13) of Kim et al. (PILLET-GAN, MIDL 2022): the share of pixels that were changed, in any
    channel, by more than `grey_levels` of 255; float64. Two levels are hardly visible.

    Reading (evaluation, what a changed pixel is): Eq. (13) counts a pixel as changed unless
        $x_{ij} = G_{ij}(x, t)$.
        Here: Both images are clipped and rounded to the 256 grey levels of a file before they are
            compared. A tolerance of more than 0 levels can be asked for.
        Why: No network gives back a floating-point number exactly, so that every pixel of every
            method would count as changed.

    Raises:
        TypeError: an image that is not of floats.
        ValueError: shapes that do not agree, values that are not finite, or a tolerance below 0.
    """
    _check(None, image=image, output=output)
    if grey_levels < 0:
        raise ValueError(f"grey_levels: expected 0 or more, got {grey_levels}")
    before, after = _grey_levels(image), _grey_levels(output)
    changed = ((after - before).abs() > grey_levels).any(dim=1)
    return changed.double().mean(dim=(1, 2))


def _grey_levels(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """0 ... 255 of [-1, 1], as files hold them, in floats that can be subtracted."""
    return ((image.float() + 1.0) * 127.5).round().clamp(0, 255)


def _mean_inside(
    difference: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"]
) -> Float[Tensor, "B"]:
    """Mean over the channels and the pixels of the mask; 0 / 0 = NaN for an empty mask."""
    total = (difference.double() * mask[:, None]).sum(dim=(1, 2, 3))
    return total / (mask.sum(dim=(1, 2)) * difference.shape[1])


def _check(mask: object, *, image: object, **others: object) -> None:
    shape = check_finite("image", image, "B C H W").shape
    for name, other in others.items():
        found = check_finite(name, other, "B C H W").shape
        if found != shape:
            raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(found)}")
    if mask is not None:
        check_truth("mask", mask, (shape[0], *shape[2:]), "images")
