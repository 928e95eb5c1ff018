"""Correct location (CorLoc): the surest box of a class that an image has, against the true boxes.

Deselaers, Alexe and Ferrari, Localizing Objects While Learning Their Appearance, ECCV 2010; the
measure of that name in TensorFlow's Object Detection API.

The unit is a pair of an image and a class that it has, as in `metrics.detection`: `best_iou` of the
surest box of the class gives the IoU of each pair, 0 where no box of the class was found. Whatever
is found of classes that an image does not have costs nothing, so a mean average precision belongs
beside it (`metrics.box_precision`).

Reading (evaluation, correct location): Xing et al. (MICCAI 2019) take "correct location (CL)
    accuracy computed at an intersection over union (IoU) of 0.1 ..., as per" ChestX-ray8, where any
    box may be the hit. They do not say which of a detector's boxes counts.
    Here: It is the box with the highest score of each class that the image has, however low, and an
        IoU of exactly T is a hit. With the IoU of all boxes of the class it is ChestX-ray8's.
    Why: Their detector is TensorFlow's, and so is the name.

Reading (evaluation, the total): The row "Total" of their Table 2 is not defined.
    Here: It is the plain mean over the classes (`detection.macro_mean`), of one network.
    Why: The first three columns show it. The printed totals of five others lie below the mean of
        the cells above them, as if each cell were taken from the checkpoint that was best for it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.metrics.inputs import check_finite, check_positions


def correct_location(
    iou: Float[Tensor, "P"], class_index: Int[Tensor, "P"], n_classes: int, threshold: float
) -> Float[Tensor, "{n_classes}"]:
    """The share of the pairs of each class with IoU >= T, float64; NaN for a class without pairs.

    Args:
        iou: of each pair, from `detection.best_iou` of its surest box.
        class_index: of each pair, in 0 ... n_classes - 1.
        n_classes: K.
        threshold: T in (0, 1]; 0.1 in the paper.

    Raises:
        TypeError: IoUs that are not floats, or classes that are not integers.
        ValueError: not one class for each pair, or a class, a threshold or an IoU out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected one in (0, 1], got {threshold}")
    values = check_finite("iou", iou, "P")
    if len(values) and not 0 <= float(values.min()) <= float(values.max()) <= 1:
        raise ValueError(
            f"iou: expected values in [0, 1], got {values.min().item()} to {values.max().item()}"
        )
    check_positions("class_index", class_index, values.shape)
    strange = class_index[(class_index < 0) | (class_index >= n_classes)]
    if len(strange):
        raise ValueError(f"class_index: expected 0 to {n_classes - 1}, got {int(strange[0])}")
    hits = torch.bincount(class_index[values >= threshold], minlength=n_classes)
    return hits.double() / torch.bincount(class_index, minlength=n_classes)
