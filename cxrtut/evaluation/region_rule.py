"""Localisation as Li et al. (2018) and the group of Liu et al. (2019) score it: not a box around
the hottest region, but all places with a probability above one half, compared with the box as they
are.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, row_parts
from cxrtut.evaluation.localisation import IOU_THRESHOLDS, true_masks
from cxrtut.evaluation.measure import Better, Measure, Numbers, device_of
from cxrtut.localize.heatmap import resize_heatmap
from cxrtut.metrics.detection import macro_mean
from cxrtut.nn.spatial_transformer import align, invert, warp

PROBABLE = 0.5
BETTER: dict[str, Better] = {
    f"region_acc{end}@{t}": "higher" for end in ("", "_aligned") for t in IOU_THRESHOLDS
}


@runtime_checkable
class HasProbabilities(Protocol):
    """A system whose maps are probabilities of places."""

    def probability_maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """In [0, 1], one map for each class."""
        ...


@runtime_checkable
class BehindAlignment(Protocol):
    """A system that looks at aligned images: an aligner, and the system that sees them."""

    aligner: nn.Module
    system: System


def region_accuracy(system: System, split: Split, side: Side) -> Numbers:
    """The share of pairs of an image and a class in which the places with a probability above .5
    overlap the union of its true boxes with an IoU of T or more; the mean over classes.

    Reading (evaluation, the frame): Li et al. score images as they are. Code of the group of Liu et
        al. moves boxes with the images and scores where they are aligned.
        Here: `region_acc@T` is in the frame of the image, `region_acc_aligned@T`, of systems behind
            an alignment, in the aligned one.
        Why: A box that is moved with its image can become smaller or leave the frame, so that the
            two numbers are not of the same boxes.

    Args:
        system: one that has `probability_maps`, or such a one behind an alignment.
        split: gives images and boxes.
        side: of the split.

    Returns:
        The numbers for T of .3, .5 and .7. Nothing of a system whose maps are no probabilities, or
        where there are no boxes.

    Raises:
        ValueError: not a map for each class of the split.
    """
    inner = system.system if isinstance(system, BehindAlignment) else system
    rows, labels = split.pairs(side)
    if not len(rows) or not isinstance(inner, HasProbabilities):
        return {}
    overlaps: dict[str, list[Tensor]] = {"": [], "_aligned": []}
    device = device_of(system)
    for part in row_parts(np.arange(len(rows))):
        image = split.batch(rows[part], device).image
        truth = true_masks(split, rows[part], labels[part]).to(device)
        label = torch.from_numpy(np.ascontiguousarray(labels[part])).to(device)
        if isinstance(system, BehindAlignment):
            moved, matrix = align(system.aligner, image)
            maps = _enlarged(inner, moved, label, len(split.classes))
            there = warp(truth[:, None].float(), matrix, outside=0.0)[:, 0] > 0.5
            overlaps["_aligned"].append(_iou(maps > PROBABLE, there))
            maps = warp(maps[:, None], invert(matrix), outside=0.0)[:, 0]
        else:
            maps = _enlarged(inner, image, label, len(split.classes))
        overlaps[""].append(_iou(maps > PROBABLE, truth))
    label = torch.from_numpy(np.ascontiguousarray(labels))
    return {
        f"region_acc{end}@{t}": _mean_over_classes(torch.cat(of), label, len(split.classes), t)
        for end, of in overlaps.items()
        if of
        for t in IOU_THRESHOLDS
    }


def region_measure(side: Side) -> Measure:
    """`region_accuracy` of one side of a split."""
    return Measure(side, region_accuracy, BETTER)


def _enlarged(
    system: HasProbabilities, images: Tensor, label: Tensor, n_classes: int
) -> Float[Tensor, "n H W"]:
    maps = system.probability_maps(images)
    if maps.shape[1] != n_classes:
        raise ValueError(f"expected a map for each of {n_classes} classes, got {maps.shape[1]}")
    own = maps[torch.arange(len(maps), device=maps.device), label]
    return resize_heatmap(own, (images.shape[-2], images.shape[-1]))


def _iou(region: Bool[Tensor, "n H W"], truth: Bool[Tensor, "n H W"]) -> Float[Tensor, " n"]:
    """Of two sets of pixels; 0 where both are empty."""
    both = (region & truth).sum((1, 2)).double()
    return (both / (region | truth).sum((1, 2)).clamp_min(1)).cpu()


def _mean_over_classes(iou: Tensor, label: Tensor, n_classes: int, t: float) -> float:
    """Of the share with an IoU of T or more, the equal one included."""
    hits = torch.bincount(label[iou >= t], minlength=n_classes).double()
    return macro_mean(hits / torch.bincount(label, minlength=n_classes))
