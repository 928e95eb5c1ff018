"""Artificial biomarkers: small pictures pasted at random places, with a smoothed rim (Zhang et al.,
MICCAI 2019, Sec. 3).

The paper pastes one to three ImageNet thumbnails of 4, 8 or 16 pixels into normal skin "and smooths
locally"; the ground truth is the pasted squares. Here the thumbnails are an argument:
`texture_thumbnails` makes some out of nothing, `crop_thumbnails` cuts them from other images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from cxrtut.data.sample import PADDING

SIZES = (4, 8, 16)
COUNTS = (1, 2, 3)
_TRIES = 50


@dataclass(frozen=True, eq=False)
class Pasted:
    """Images with pasted thumbnails and where they are.

    Attributes:
        image: the images with biomarkers.
        mask: True in the pasted squares, before smoothing.
        boxes: xyxy of the squares, zeros where padded.
        box_label: 0, or -1 where padded.
    """

    image: UInt8[Tensor, "B C H W"]
    mask: Bool[Tensor, "B H W"]
    boxes: Float[Tensor, "B M 4"]
    box_label: Int[Tensor, "B M"]


def paste_thumbnails(
    image: UInt8[Tensor, "B C H W"],
    thumbnails: UInt8[Tensor, "T c h w"],
    *,
    generator: torch.Generator,
    sizes: Sequence[int] = SIZES,
    counts: Sequence[int] = COUNTS,
    rim: int = 2,
    sigma: float = 1.0,
) -> Pasted:
    """Paste thumbnails into every image.

    Reading (data, how squares are smoothed): Thumbnails are "locally smoothed". How is not said.
        Here: A Gaussian of standard deviation `sigma` replaces the pixels within `rim` of the
            square's edge, on both sides. Squares of one image do not overlap as long as there is
            room.
        Why: Only the seam should change.

    Args:
        image: normal images.
        thumbnails: any size, any number; a drawn one is averaged down to the drawn size.
        generator: a CPU generator; every choice comes from it.
        sizes: sides of the squares in pixels; each is equally likely.
        counts: squares per image; each is equally likely.
        rim: pixels.
        sigma: pixels.

    Raises:
        ValueError: no thumbnails, other channels than the images, or squares that do not fit the
            images.
    """
    n, channels, height, width = image.shape
    if not len(thumbnails) or thumbnails.shape[1] != channels:
        raise ValueError(
            f"thumbnails: expected (T >= 1, {channels}, h, w), got {tuple(thumbnails.shape)}"
        )
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= min(height, width):
        raise ValueError(f"sizes: expected sides in 1 ... {min(height, width)}, got {sizes}")
    if not counts or min(counts) < 0:
        raise ValueError(f"counts: expected numbers >= 0, got {counts}")
    pasted = image.cpu().float()
    mask = torch.zeros(n, height, width, dtype=torch.bool)
    boxes = torch.zeros(n, max(1, *counts), 4)
    box_label = torch.full(boxes.shape[:2], PADDING, dtype=torch.int64)
    edge = torch.zeros_like(mask)
    for i in range(n):
        for slot in range(_choose(counts, generator)):
            side = _choose(sizes, generator)
            top, left = _free_place(mask[i], side, generator)
            picture = thumbnails[_choose(range(len(thumbnails)), generator)][None].cpu().float()
            rows, columns = slice(top, top + side), slice(left, left + side)
            pasted[i, :, rows, columns] = F.interpolate(picture, size=(side, side), mode="area")[0]
            mask[i, rows, columns] = True
            edge[i] |= _near_edge(top, left, side, rim, height, width)
            boxes[i, slot] = torch.tensor([left, top, left + side, top + side])
            box_label[i, slot] = 0
    smooth = torch.where(edge[:, None], _gaussian_blur(pasted, sigma), pasted)
    result = Pasted(smooth.round().clamp(0, 255).to(torch.uint8), mask, boxes, box_label)
    device = image.device
    return Pasted(result.image.to(device), mask.to(device), boxes.to(device), box_label.to(device))


def texture_thumbnails(
    n: int, channels: int, size: int, *, generator: torch.Generator
) -> UInt8[Tensor, "{n} {channels} {size} {size}"]:
    """Stripes of random direction, period (2 pixels to `size`), contrast and colour: thumbnails
    from nothing.
    """
    axis = torch.arange(size) + 0.5
    angle = torch.rand(n, 1, 1, generator=generator) * torch.pi
    period = 2.0 + (size - 2.0) * torch.rand(n, 1, 1, generator=generator)
    phase = torch.rand(n, 1, 1, generator=generator) * 2 * torch.pi
    along = axis[None, None, :] * angle.cos() + axis[None, :, None] * angle.sin()
    wave = torch.sin(2 * torch.pi * along / period + phase)[:, None]
    middle = 255 * torch.rand(n, channels, 1, 1, generator=generator)
    contrast = 60 + 67 * torch.rand(n, channels, 1, 1, generator=generator)
    return (middle + contrast * wave).round().clamp(0, 255).to(torch.uint8)


def crop_thumbnails(
    image: UInt8[Tensor, "B C H W"], n: int, size: int, *, generator: torch.Generator
) -> UInt8[Tensor, "{n} C {size} {size}"]:
    """`n` square crops of `size` pixels at random places of random images.

    Raises:
        ValueError: no images, or images smaller than a crop.
    """
    count, _, height, width = image.shape
    if count == 0 or min(height, width) < size:
        raise ValueError(f"expected images of at least {size} pixels, got {tuple(image.shape)}")
    crops = []
    for _ in range(n):
        i = _choose(range(count), generator)
        top = _choose(range(height - size + 1), generator)
        left = _choose(range(width - size + 1), generator)
        crops.append(image[i, :, top : top + size, left : left + size])
    return torch.stack(crops) if crops else image.new_zeros(0, image.shape[1], size, size)


def _choose(values: Sequence[int], generator: torch.Generator) -> int:
    return values[int(torch.randint(len(values), (), generator=generator))]


def _free_place(
    taken: Bool[Tensor, "H W"], side: int, generator: torch.Generator
) -> tuple[int, int]:
    """(top, left) of a square that touches no taken pixel, or, after many tries, of any square."""
    height, width = taken.shape
    top = left = 0
    for _ in range(_TRIES):
        top = _choose(range(height - side + 1), generator)
        left = _choose(range(width - side + 1), generator)
        if not taken[top : top + side, left : left + side].any():
            break
    return top, left


def _near_edge(
    top: int, left: int, side: int, rim: int, height: int, width: int
) -> Bool[Tensor, "{height} {width}"]:
    """Pixels at most `rim` outside the square or less than `rim` inside its edge."""
    near = torch.zeros(height, width, dtype=torch.bool)
    near[max(0, top - rim) : top + side + rim, max(0, left - rim) : left + side + rim] = True
    if side > 2 * rim:
        near[top + rim : top + side - rim, left + rim : left + side - rim] = False
    return near


def _gaussian_blur(image: Float[Tensor, "B C H W"], sigma: float) -> Float[Tensor, "B C H W"]:
    """Separable, cut off at three standard deviations, the border repeated."""
    if sigma <= 0:
        return image
    radius = max(1, round(3 * sigma))
    offset = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offset / sigma) ** 2)
    weights = weights / weights.sum()
    flat = image.flatten(0, 1)[:, None]
    flat = F.conv2d(
        F.pad(flat, (radius, radius, 0, 0), mode="replicate"), weights[None, None, None]
    )
    flat = F.conv2d(
        F.pad(flat, (0, 0, radius, radius), mode="replicate"), weights[None, None, :, None]
    )
    return flat.reshape(image.shape)
