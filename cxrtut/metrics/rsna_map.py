"""The precision of boxes as the RSNA Pneumonia Detection Challenge counts it, and two relatives of
it that are used beside it; Kim et al. (GRANet, 2020), Eq. (4).

Boxes come without scores: what is too unsure has been left out before.

Reading (evaluation, matches): Eq. (4) counts "a single predicted object" that "matches a ground
    truth object", and does not say which matches which.
    Here: Boxes are taken from the surest down; each takes, of the true boxes that are left, the one
        that it overlaps most, if the intersection over union is above the threshold.
    Why: The challenge says so. The public scripts go through true boxes instead, and count a hit
        less where two boxes compete; `kernel_map` does the same, to compare with.

Reading (evaluation, images without a box): Eq. (4) is 0 / 0 for an image that has neither a true
    nor a predicted box.
    Here: Such an image is not counted. One without a true, but with a predicted box counts as 0.
    Why: The challenge says so.

Reading (evaluation, average precision without misses): In the second setting average precision is
    "measured with the equation 4 without counting false negatives". The caption of Table 2 says
    "conventional average precision".
    Here: `precision_map` is the text's, and `box_precision.box_average_precision` the caption's.
    Why: Both cannot be meant; Table 2 is compared with the text's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.metrics.detection import BoxesOfPairs, iou_matrix
from cxrtut.metrics.inputs import check_finite

CHALLENGE = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
Share = Callable[[int, int, int], float]


def rsna_map(
    predicted: BoxesOfPairs, truth: BoxesOfPairs, thresholds: Sequence[float] = CHALLENGE
) -> float:
    """Eq. (4): of each image the mean over thresholds of TP / (TP + FP + FN), and the mean over
    images with a true or a predicted box.

    Args:
        predicted: boxes (n, 4) of each image, xyxy, the surest first.
        truth: boxes (m, 4) of the same images.
        thresholds: t, each in [0, 1); an IoU above it is a match.

    Returns:
        In [0, 1]; NaN where no image has a box.

    Raises:
        TypeError: boxes that are not of floats.
        ValueError: not as many images in both, boxes that are not (n, 4) or not finite, no
            threshold, or one out of range.
    """
    return _mean(predicted, truth, thresholds, _matches, lambda tp, n, m: tp / (n + m - tp))


def precision_map(
    predicted: BoxesOfPairs, truth: BoxesOfPairs, thresholds: Sequence[float] = CHALLENGE
) -> float:
    """Eq. (4) without FN: TP / (TP + FP), 0 where an image has true boxes and no predicted one.

    Args, Returns, Raises: as `rsna_map`.
    """
    return _mean(predicted, truth, thresholds, _matches, lambda tp, n, m: tp / n if n else 0.0)


def kernel_map(
    predicted: BoxesOfPairs, truth: BoxesOfPairs, thresholds: Sequence[float] = CHALLENGE
) -> float:
    """`rsna_map` as public scripts of the challenge compute it: true boxes are taken in turn, and
    each takes the first predicted one that is left with an IoU of t or more.

    Args, Returns, Raises: as `rsna_map`.
    """
    return _mean(predicted, truth, thresholds, _scripts, lambda tp, n, m: tp / (n + m - tp))


def _mean(
    predicted: Sequence[Any],
    truth: Sequence[Any],
    thresholds: Sequence[float],
    match: Callable[[Float[Tensor, "n m"], float], int],
    share: Share,
) -> float:
    if not thresholds or not all(0 <= t < 1 for t in thresholds):
        raise ValueError(f"thresholds: expected some in [0, 1), got {tuple(thresholds)}")
    if len(predicted) != len(truth):
        raise ValueError(
            f"expected predicted and true boxes of the same images, got {len(predicted)} and "
            f"{len(truth)}"
        )
    found = []
    for image, (boxes, true) in enumerate(zip(predicted, truth, strict=True)):
        for name, corners in (("predicted", boxes), ("truth", true)):
            check_finite(f"{name}[{image}]", corners, "n 4")
        n, m = len(boxes), len(true)
        if n or m:
            iou = iou_matrix(boxes, true).cpu()
            each = [share(match(iou, t), n, m) for t in thresholds]
            found.append(sum(each) / len(each))
    return sum(found) / len(found) if found else float("nan")


def _matches(iou: Float[Tensor, "n m"], threshold: float) -> int:
    """How many predicted boxes get a true box."""
    free, hits = torch.ones(iou.shape[1], dtype=torch.bool), 0
    for overlap in iou:
        left = overlap.masked_fill(~free, -1.0)
        if len(left) and float(left.max()) > threshold:
            free[left.argmax()] = False
            hits += 1
    return hits


def _scripts(iou: Float[Tensor, "n m"], threshold: float) -> int:
    free, hits = torch.ones(iou.shape[0], dtype=torch.bool), 0
    for overlap in iou.T:
        good = (overlap >= threshold) & free
        if bool(good.any()):
            free[good.nonzero()[0]] = False
            hits += 1
    return hits
