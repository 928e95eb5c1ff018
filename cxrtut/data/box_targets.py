"""Boxes of a batch as torchvision's detectors want them."""

from __future__ import annotations

from torch import Tensor

from cxrtut.data.boxes import box_areas
from cxrtut.data.sample import PADDING, Batch


def box_targets(batch: Batch, *, first: int) -> list[dict[str, Tensor]]:
    """What torchvision's detectors learn from, for each image: `boxes` (n, 4), xyxy in pixels, and
    `labels` (n,). Padding and boxes without area are left out; an image may have none.

    Args:
        batch: its boxes have labels from 0.
        first: label of the first class: 1 where 0 is background (Faster and Mask R-CNN, SSD), 0
            where there is none (RetinaNet).

    Raises:
        ValueError: another first label.
    """
    if first not in (0, 1):
        raise ValueError(f"first: expected 0 or 1, got {first}")
    kept = (batch.box_label != PADDING) & (box_areas(batch.boxes) > 0)
    return [
        {"boxes": boxes[known], "labels": labels[known] + first}
        for boxes, labels, known in zip(batch.boxes, batch.box_label, kept, strict=True)
    ]
