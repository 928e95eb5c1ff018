"""Shapes of anchors that fit the boxes of a training set: k-means with 1 - IoU as the distance.

Redmon and Farhadi, YOLO9000, CVPR 2017, Section 2; in two levels as PYolo's "double K-means" may
be read (see `baselines.pyolo`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.randomness import generator

STARTS = 5
ROUNDS = 100  # at most


def shape_iou(a: Float[Tensor, "n 2"], b: Float[Tensor, "m 2"]) -> Float[Tensor, "n m"]:
    """The intersection over union of widths and heights with a common centre."""
    shared = torch.minimum(a[:, None], b[None]).prod(-1)
    return shared / (a.prod(-1)[:, None] + b.prod(-1)[None] - shared)


def fitted_shapes(sides: Float[Tensor, "n 2"], k: int, *, seed: int) -> Float[Tensor, "k 2"]:
    """k widths and heights, by increasing area: each the median of the boxes that are nearest to
    it, from the best of five starts.

    Args:
        sides: widths and heights of boxes that are learnt from, in pixels.
        k: how many.
        seed: of the starts.

    Raises:
        ValueError: fewer boxes than shapes, or a side that is not positive.
    """
    if k < 1 or len(sides) < k or not (sides > 0).all():
        raise ValueError(
            f"expected {max(k, 1)} boxes or more of positive sides, got {len(sides)} and a "
            f"smallest side of {float(sides.min()) if len(sides) else 'none'}"
        )
    draw = generator("anchor shapes", seed)
    best, best_fit = sides[:k], -1.0
    for _ in range(STARTS):
        shapes = sides[torch.randperm(len(sides), generator=draw)[:k].to(sides.device)]
        nearest = shape_iou(sides, shapes).argmax(1)
        for _ in range(ROUNDS):
            shapes = _medians(sides, nearest, shapes)
            moved = shape_iou(sides, shapes).argmax(1)
            if torch.equal(moved, nearest):
                break
            nearest = moved
        fit = mean_best_iou(sides, shapes)
        if fit > best_fit:
            best, best_fit = shapes, fit
    return best[best.prod(-1).argsort()]


def fitted_in_two_levels(
    sides: Float[Tensor, "n 2"], groups: int = 3, of_each: int = 3, *, seed: int
) -> Float[Tensor, "m 2"]:
    """Boxes in `groups` by `fitted_shapes`, smallest first, and of each group its own shapes.

    Raises:
        ValueError: a group with fewer boxes than shapes.
    """
    coarse = fitted_shapes(sides, groups, seed=seed)
    nearest = shape_iou(sides, coarse).argmax(1)
    return torch.cat(
        [fitted_shapes(sides[nearest == g], of_each, seed=seed) for g in range(groups)]
    )


def mean_best_iou(sides: Float[Tensor, "n 2"], shapes: Float[Tensor, "k 2"]) -> float:
    """How well shapes fit: of each box the largest IoU with one of them, the mean over boxes."""
    return float(shape_iou(sides, shapes).amax(1).mean())


def _medians(
    sides: Float[Tensor, "n 2"], nearest: Int[Tensor, " n"], shapes: Float[Tensor, "k 2"]
) -> Float[Tensor, "k 2"]:
    """The median of the boxes of each shape; one that has none stays."""
    return torch.stack([
        sides[nearest == g].quantile(0.5, dim=0) if (nearest == g).any() else shapes[g]
        for g in range(len(shapes))
    ])  # fmt: skip
