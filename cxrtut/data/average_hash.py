"""Images that look alike, found by a few bits of each."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

SIDE = 16  # cells of a hash in a row


def grey_cells(images: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B n"]:
    """Each image averaged over its channels and over side x side cells, row by row.

    Raises:
        ValueError: images of fewer pixels than that.
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(
            f"expected images of {side} x {side} pixels or more, got {height} x {width}"
        )
    return F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), side).flatten(1)


def average_hash(images: Float[Tensor, "B C H W"]) -> Bool[Tensor, "B 256"]:
    """The average hash of each image: grey, averaged over 16 x 16 cells, and of each cell whether
    it is brighter than the mean of all. Two images of one layout have nearly the same bits,
    whatever their brightness and contrast are.

    Raises:
        ValueError: images of fewer than 16 x 16 pixels.
    """
    cells = grey_cells(images, SIDE)
    return cells > cells.mean(1, keepdim=True)


def hamming_distance(
    first: Bool[Tensor, "B n"], second: Bool[Tensor, "N n"]
) -> Float[Tensor, "B N"]:
    """In how many bits each of the first differs from each of the second."""
    a, b = first.float(), second.float()
    return a @ (1 - b).T + (1 - a) @ b.T


def nearest(
    images: Float[Tensor, "B C H W"],
    hashes: Bool[Tensor, "N n"],
    not_this: Bool[Tensor, "B N"] | None = None,
) -> Int[Tensor, "B"]:
    """For each image which of N hashes is nearest in Hamming distance, the first of equal ones.
    Nothing is read back from the device.

    Args:
        images: to find a neighbour for.
        hashes: of `average_hash`, one at least.
        not_this: which of them may not be taken, such as the image's own; one that may is preferred
            at any distance.

    Raises:
        ValueError: no hashes.
    """
    if not len(hashes):
        raise ValueError("hashes: expected one at least, got none")
    distance = hamming_distance(average_hash(images), hashes)
    if not_this is not None:
        distance = distance + 2 * hashes.shape[1] * not_this
    return distance.argmin(1)
