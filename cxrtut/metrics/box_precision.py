"""Average precision of boxes: are the sure ones right, and are all found?

Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010; Lin et al., Microsoft
COCO, ECCV 2014, whose rules these are: boxes are taken from the surest down, each matches the true
box of its image that it overlaps most among those not yet taken, and precision is read at 101
recalls.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.metrics.detection import BoxesOfPairs, iou_matrix
from cxrtut.metrics.inputs import check_finite

RECALLS = 101


def box_average_precision(
    predicted: BoxesOfPairs,
    scores: Sequence[Float[Tensor, "_"]],
    truth: BoxesOfPairs,
    threshold: float,
) -> float:
    """The average precision of one class, in [0, 1]; NaN without a true box.

    Args:
        predicted: boxes (n, 4) of each image, xyxy; all that is given may be on any device.
        scores: of these boxes, comparable between images.
        truth: boxes (m, 4) of the same images; m may be 0, and then all that is predicted is wrong.
        threshold: a box is right where its IoU with a true box is at least T, in (0, 1].

    Raises:
        TypeError: boxes or scores that are not of floats.
        ValueError: not as many images in all three, not one score a box, a score or corner that is
            not finite, boxes that are not (n, 4), or a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected one in (0, 1], got {threshold}")
    if not len(predicted) == len(scores) == len(truth):
        raise ValueError(
            "expected predicted, scores and truth of the same images, got "
            f"{len(predicted)}, {len(scores)} and {len(truth)}"
        )
    every, right, n_true = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0).bool()], 0
    for image, (boxes, of, true) in enumerate(zip(predicted, scores, truth, strict=True)):
        for name, corners in (("predicted", boxes), ("truth", true)):
            check_finite(f"{name}[{image}]", corners, "n 4")
        score = check_finite(f"scores[{image}]", of, "n").cpu().double()
        if len(score) != len(boxes):
            raise ValueError(
                f"scores[{image}]: expected one for each of {len(boxes)} boxes, got {len(score)}"
            )
        order = score.argsort(descending=True, stable=True)
        every.append(score[order])
        right.append(_right(iou_matrix(boxes, true).cpu()[order], threshold))
        n_true += len(true)
    if not n_true:
        return float("nan")
    order = torch.cat(every).argsort(descending=True, stable=True)
    found = torch.cat(right)[order].double().cumsum(0)
    precision = found / torch.arange(1, len(found) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)  # at this recall or a higher one
    wanted = torch.linspace(0, 1, RECALLS, dtype=torch.float64)
    at = torch.searchsorted(found / n_true, wanted)
    return float(torch.cat((best, best.new_zeros(1)))[at].mean())


def _right(iou: Float[Tensor, "n m"], threshold: float) -> Bool[Tensor, "n"]:
    """Which boxes of an image, surest first, get a true box that none before them has taken."""
    free, right = torch.ones(iou.shape[1], dtype=torch.bool), []
    for overlap in iou:
        left = overlap.masked_fill(~free, -1.0)
        hit = bool(len(left)) and float(left.max()) >= threshold
        right.append(hit)
        if hit:
            free[left.argmax()] = False
    return torch.tensor(right, dtype=torch.bool)
