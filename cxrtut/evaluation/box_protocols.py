"""Other ways to score the boxes of heat maps than one fixed threshold: thresholds chosen on other
images, the best threshold of all, FROC, and accuracy by the size of what is to be found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import box_area

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, row_parts
from cxrtut.evaluation.localisation import (
    HEADLINE,
    IOU_THRESHOLDS,
    answer_with_heat,
    every_region,
    largest_region,
    predicted_boxes,
    true_boxes,
    where_boxes_are_known,
)
from cxrtut.evaluation.measure import Better, Measure, Numbers, device_of
from cxrtut.localize.boxes import Scored
from cxrtut.metrics.box_thresholds import accuracy_with, chosen_thresholds, max_box_accuracy
from cxrtut.metrics.detection import best_iou, localisation_accuracy, macro_mean
from cxrtut.metrics.froc import froc

THRESHOLDS = tuple(k / 20 for k in range(20))  # of heat maps, shares of their maximum
RATES = (0.05, 0.1, 0.2)  # false boxes an image
# The side of a square as large as the true box, as a share of the image's side
SIZES = {"small": (0.0, 1 / 8), "medium": (1 / 8, 1 / 4), "large": (1 / 4, math.inf)}
BETTER: dict[str, Better] = {
    **{f"loc_acc_chosen@{t}": "higher" for t in IOU_THRESHOLDS},
    "max_box_acc": "higher",
    **{f"loc_acc_{size}": "higher" for size in SIZES},
    **{f"pairs_{size}": "neither" for size in SIZES},
    **{f"froc@{rate}": "higher" for rate in RATES},
}


Ious = tuple[Float[Tensor, "C P"], Int[Tensor, "P"]]


def chosen_threshold_accuracy(system: System, split: Split, side: Side) -> Numbers:
    """Localisation accuracy where each class has the threshold that is best on the validation
    images, for T of .3, .5 and .7.

    Beside a threshold that was fixed before, and the oracle's, which is chosen on the boxes it is
    scored on, this is what somebody with a few boxes would reach on other images.

    Args:
        system: answers with heat maps of the split's classes.
        split: gives images and boxes of both sides.
        side: that is scored.

    Returns:
        `loc_acc_chosen@T`, the mean over classes, and `loc_acc_chosen@T/<class>`. Nothing where
        there are no heat maps, or no boxes on one of the sides.
    """
    found = [_ious(system, split, of, largest_region) for of in ("validation", side)]
    if found[0] is None or found[1] is None:
        return {}
    (before, known), (iou, label) = found[0], found[1]
    n, numbers = len(split.classes), {}
    for t in IOU_THRESHOLDS:
        accuracy = accuracy_with(iou, label, chosen_thresholds(before, known, n, t), t)
        numbers[f"loc_acc_chosen@{t}"] = macro_mean(accuracy)
        for name, value in zip(split.classes, accuracy.tolist(), strict=True):
            numbers[f"loc_acc_chosen@{t}/{name}"] = value
    return numbers


def best_threshold_accuracy(system: System, split: Split, side: Side) -> Numbers:
    """`max_box_acc`: MaxBoxAccV2, see `metrics.box_thresholds.max_box_accuracy`; of any region, at
    20 thresholds. Nothing where there are no heat maps or no boxes.

    Args:
        system: answers with heat maps of the split's classes.
        split: gives images and boxes.
        side: of the split.
    """
    found = _ious(system, split, side, every_region)
    return {} if found is None else {"max_box_acc": max_box_accuracy(found[0])}


def accuracy_by_size(
    system: System, split: Split, side: Side, *, threshold: float = HEADLINE
) -> Numbers:
    """Localisation accuracy at T = .3 of pairs whose largest true box is small, medium or large:
    as large as a square whose side is up to an eighth of the image's, up to a quarter, or more.

    Args:
        system: answers with heat maps of the split's classes.
        split: gives images and boxes.
        side: of the split.
        threshold: of the heat maps, a share of their maximum.

    Returns:
        `loc_acc_small`, `loc_acc_medium` and `loc_acc_large`, of all pairs of that size together,
        and how many there are, `pairs_small`, ... A size without pairs has no accuracy. Nothing
        where there are no heat maps or no boxes.
    """
    found = _ious(system, split, side, largest_region, (threshold,))
    if found is None:
        return {}
    truth = true_boxes(split, *split.pairs(side))
    area = torch.stack([box_area(boxes).max() for boxes in truth]).double()
    numbers: Numbers = {}
    for name, (low, high) in SIZES.items():
        inside = (area > (low * split.size) ** 2) & (area <= (high * split.size) ** 2)
        numbers[f"pairs_{name}"] = int(inside.sum())
        if inside.any():
            iou = found[0][0, inside]
            numbers[f"loc_acc_{name}"] = localisation_accuracy(iou, IOU_THRESHOLDS[0])
    return numbers


def froc_recall(
    system: System, split: Split, side: Side, *, threshold: float = HEADLINE
) -> Numbers:
    """FROC: the share of true boxes found at .05, .1 and .2 false boxes an image, for T = .3.

    Every region above the threshold is a box, ranked by its largest heat as the system gives it.
    Images of which it is not known where their disease is are left out for that disease.

    Args:
        system: answers with heat maps of the split's classes.
        split: gives images and boxes.
        side: of the split; its images without a disease are asked, too.
        threshold: of the heat maps, a share of their maximum.

    Returns:
        `froc@<rate>`, the mean over classes with a box, and `froc@<rate>/<class>`. Nothing where
        there are no heat maps or no boxes.
    """
    if answer_with_heat(system, split, side) is None:
        return {}
    rows, known = split.rows(side), where_boxes_are_known(split, side)
    scored: list[list[Scored]] = [[] for _ in split.classes]
    for part in row_parts(np.arange(len(rows))):
        heat = system.predict(split.batch(rows[part], device_of(system)).image).heatmap
        assert heat is not None, "checked before"
        for k, found in enumerate(scored):
            chosen = torch.from_numpy(known[part, k]).to(heat.device)
            found += every_region(heat[chosen, k], threshold)
    recall = torch.full((len(RATES), len(split.classes)), math.nan, dtype=torch.float64)
    for k, found in enumerate(scored):
        of_class = rows[known[:, k]]
        truth = true_boxes(split, of_class, np.full(len(of_class), k))
        if not sum(len(boxes) for boxes in truth):
            continue
        boxes, scores = zip(*found, strict=True)
        curve = froc(
            boxes, scores, truth, threshold=IOU_THRESHOLDS[0], n_images=len(of_class)
        )  # fmt: skip
        recall[:, k] = torch.tensor([curve.recall_at(rate) for rate in RATES])
    numbers: Numbers = {}
    for rate, of_classes in zip(RATES, recall, strict=True):
        numbers[f"froc@{rate}"] = macro_mean(of_classes)
        for name, value in zip(split.classes, of_classes.tolist(), strict=True):
            numbers[f"froc@{rate}/{name}"] = value
    return numbers


def box_protocol_measures(side: Side) -> tuple[Measure, ...]:
    """All of them, for one side of a split."""
    return tuple(
        Measure(side, measure, {name: BETTER[name] for name in BETTER if name.startswith(prefix)})
        for measure, prefix in (
            (chosen_threshold_accuracy, "loc_acc_chosen@"),
            (best_threshold_accuracy, "max_box_acc"),
            (accuracy_by_size, ("loc_acc_small", "loc_acc_medium", "loc_acc_large", "pairs_")),
            (froc_recall, "froc@"),
        )
    )


def _ious(
    system: System,
    split: Split,
    side: Side,
    rule: Callable[..., list[Scored]],
    thresholds: Sequence[float] = THRESHOLDS,
) -> Ious | None:
    """The largest IoU of each pair of a side at each threshold, and its class; None without boxes
    or heat maps.
    """
    if answer_with_heat(system, split, side) is None:
        return None
    rows, label = split.pairs(side)
    truth = true_boxes(split, rows, label)
    rules = [partial(rule, threshold=t) for t in thresholds]
    found = predicted_boxes(system, split, rows, label, *rules)
    iou = torch.stack([best_iou(boxes, truth) for boxes in found])
    return iou, torch.from_numpy(np.ascontiguousarray(label))
