"""Poisson blending: pixels of one image in boxes of another, without a seam.

Perez, Gangnet and Blake, Poisson Image Editing, SIGGRAPH 2003, Eqs. (7) and (8).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dstn, idstn
from torch import Tensor

Rectangle = tuple[int, int, int, int]


def poisson_blend(
    image: Float[Tensor, "C H W"], source: Float[Tensor, "C H W"], boxes: Float[Tensor, "N 4"]
) -> Float[Tensor, "C H W"]:
    """The image with the source's gradients inside the boxes: within each, the pixels whose
    Laplacian is the source's and whose surroundings are the image's, clipped to [-1, 1].

    Outside the boxes nothing changes, not by a bit. Boxes that overlap are blended one after the
    other, the largest first.

    The equations of a rectangle are solved exactly by a sine transform: what is added to the
    source is the harmonic function that makes up for its difference to the image around the box.

    Reading (data, Poisson blending): Section 2.2 of Kim et al. (GRANet, 2020) names Poisson
        blending and none of its variants.
        Here: Gradients are those of the source alone, and the box's pixels are free; the pixels
            around it are the border.
        Why: It is the first variant of the paper that they cite. Mixed gradients would let edges of
            the lesion survive.

    Reading (data, boxes at the edge): A box that reaches the edge of the image has no border there.
        Here: It is blended without the outermost row or column of the image.
        Why: The equations need a value on each side. OpenCV's `seamlessClone` moves the patch
            instead.

    Args:
        image: in [-1, 1].
        source: as large as the image, in the same pose.
        boxes: xyxy in pixels; a pixel is inside when its centre is. One without a pixel changes
            nothing.

    Raises:
        ValueError: a source of another size.
    """
    if image.shape != source.shape:
        raise ValueError(
            f"source: expected the size of the image, {tuple(image.shape)}, "
            f"got {tuple(source.shape)}"
        )
    blended, patch = (x.detach().cpu().double().numpy().copy() for x in (image, source))
    changed = np.zeros(blended.shape[1:], dtype=bool)
    for top, bottom, left, right in sorted(rectangles(boxes, *image.shape[1:]), key=_minus_area):
        around = (slice(None), slice(top - 1, bottom + 1), slice(left - 1, right + 1))
        inside = (slice(None), slice(top, bottom), slice(left, right))
        blended[inside] = patch[inside] + _harmonic((blended - patch)[around])
        changed[inside[1:]] = True
    found = torch.from_numpy(blended).clamp(-1, 1).to(image)
    return torch.where(torch.from_numpy(changed).to(image.device), found, image)


def rectangles(boxes: Float[Tensor, "N 4"], height: int, width: int) -> list[Rectangle]:
    """Top, bottom, left and right of the pixels whose centre is in a box, without the outermost
    ones of the image; boxes without such a pixel are left out.
    """
    found = []
    for x0, y0, x1, y1 in boxes.tolist():
        left, top = (max(1, math.ceil(v - 0.5)) for v in (x0, y0))
        right, bottom = min(width - 1, math.ceil(x1 - 0.5)), min(height - 1, math.ceil(y1 - 0.5))
        if top < bottom and left < right:
            found.append((top, bottom, left, right))
    return found


def _minus_area(rectangle: Rectangle) -> int:
    top, bottom, left, right = rectangle
    return -(bottom - top) * (right - left)


def _harmonic(values: Float[np.ndarray, "C H W"]) -> Float[np.ndarray, "C h w"]:
    """The inside of rectangles whose border is given: each pixel the mean of its four neighbours.

    What lies inside `values` is not looked at, nor are the four corners.
    """
    height, width = (n - 2 for n in values.shape[1:])
    given = np.zeros((len(values), height, width))
    given[:, 0] += values[:, 0, 1:-1]
    given[:, -1] += values[:, -1, 1:-1]
    given[:, :, 0] += values[:, 1:-1, 0]
    given[:, :, -1] += values[:, 1:-1, -1]
    waves = [2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) for n in (height, width)]
    eigenvalues = waves[0][:, None] + waves[1][None, :]
    return idstn(dstn(given, type=1, axes=(1, 2)) / eigenvalues, type=1, axes=(1, 2))
