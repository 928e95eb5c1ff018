"""From the heat maps of any system to localisation accuracy: how many outlined diseases have a box
of the system on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.sample import Prediction, System
from cxrtut.data.split import Rows, Side, Split, row_parts
from cxrtut.evaluation.measure import Better, Measure, Numbers, device_of
from cxrtut.localize.boxes import (
    Scored,
    component_boxes,
    largest_component_box,
    threshold_relative,
)
from cxrtut.metrics.detection import (
    accuracy_by_class,
    average_false_positives,
    best_iou,
    macro_mean,
    oracle_threshold,
)

IOU_THRESHOLDS = (0.3, 0.5, 0.7)  # T of Tables 1 and 2 of Kim et al. (2021)
HEADLINE = 180 / 255  # 4.3 there: "the predefined threshold presented in [18, 37]"
CHESTXRAY8_THRESHOLDS = (60 / 255, 180 / 255)
ORACLE_THRESHOLDS = tuple(k / 10 for k in range(1, 10))
PREDICTED_ABOVE = 0.5  # the probability above which a class counts as predicted
BETTER: dict[str, Better] = {
    **{f"{kind}@{t}": "higher" for kind in ("loc_acc", "loc_acc_any", "loc_acc_oracle")
       for t in IOU_THRESHOLDS},
    "false_positives": "lower",
    "pairs": "neither",
}  # fmt: skip

Rule = Callable[[Float[Tensor, "B H W"]], list[Scored]]
"""From heat maps to the boxes of each."""


def largest_region(heatmap: Float[Tensor, "B H W"], threshold: float) -> list[Scored]:
    """The box around the largest region above `threshold` times a map's maximum."""
    return largest_component_box(threshold_relative(heatmap, threshold), heatmap)


def every_region(heatmap: Float[Tensor, "B H W"], threshold: float) -> list[Scored]:
    """The boxes of all regions above `threshold` times a map's maximum."""
    return component_boxes(threshold_relative(heatmap, threshold), heatmap)


def true_boxes(split: Split, rows: Rows, labels: Rows) -> list[Float[Tensor, "n 4"]]:
    """The boxes of each pair of an image and a class."""
    return [split.boxes_of(int(r), int(k)) for r, k in zip(rows, labels, strict=True)]


def true_masks(split: Split, rows: Rows, labels: Rows) -> Bool[Tensor, "p H W"]:
    """Inside the boxes of a class in an image, for figures."""
    boxes = true_boxes(split, rows, labels)
    return torch.stack([boxes_to_mask(found, split.size, split.size) for found in boxes])


def occurrence(
    split: Split,
    grid_size: int,
    warp: Callable[[Float[Tensor, "n 1 H W"], Rows], Tensor] | None = None,
    side: Side = "test",
) -> Float[Tensor, "K h w"]:
    """Where diseases are, to be compared with masks that say where they may be: the share of the
    images with a disease in which a cell lies in its boxes. Zeros for a disease without boxes.

    Args:
        split: of its pairs of image and disease, all are counted.
        grid_size: height and width of the result, a divisor of the size.
        warp: what is done to the insides of the boxes of some rows before they are counted, such as
            the images' alignment.
        side: of the split.
    """
    rows, labels = split.pairs(side)
    label = torch.from_numpy(np.ascontiguousarray(labels))
    total = torch.zeros(len(split.classes), grid_size, grid_size)
    for part in row_parts(np.arange(len(rows)), 512):
        inside = true_masks(split, rows[part], labels[part]).float()[:, None]
        if warp is not None:
            inside = warp(inside, rows[part])
        cells = F.adaptive_avg_pool2d(inside, grid_size)[:, 0]
        total.index_add_(0, label[torch.from_numpy(part)], cells)
    return total / torch.bincount(label, minlength=len(total)).clamp_min(1)[:, None, None]


def predicted_boxes(
    system: System, split: Split, rows: Rows, labels: Rows, *rules: Rule
) -> list[list[Float[Tensor, "n 4"]]]:
    """For each rule the boxes of the heat map of each pair of an image and a class; each image is
    asked for once, and all rules share its heat.

    Args:
        system: answers with heat maps.
        split: gives the images.
        rows: of the images, ascending.
        labels: the class of each pair.
        *rules: heat maps (B, H, W) to boxes.
    """
    boxes: list[list[Tensor]] = [[] for _ in rules]
    device = device_of(system)
    different = np.unique(rows)
    for part in row_parts(different):
        heat = system.predict(split.batch(part, device).image).heatmap
        assert heat is not None, "checked before"
        chosen = (rows >= part[0]) & (rows <= part[-1])
        image = torch.from_numpy(np.searchsorted(part, rows[chosen]))
        label = torch.from_numpy(np.ascontiguousarray(labels[chosen]))
        heatmap = heat[image.to(heat.device), label.to(heat.device)]
        for found, rule in zip(boxes, rules, strict=True):
            found += [b.cpu() for b, _ in rule(heatmap)]
    return boxes


def answer_with_heat(system: System, split: Split, side: Side) -> Prediction | None:
    """What a system says of the first image of a side that has a box; None where no image has one,
    or where it answers without heat maps.

    Raises:
        ValueError: not a heat map for each class of the split.
    """
    rows, _ = split.pairs(side)
    if not len(rows):
        return None
    first = system.predict(split.batch(rows[:1], device_of(system)).image)
    if first.heatmap is None:
        return None
    if first.heatmap.shape[1] != len(split.classes):
        raise ValueError(
            f"expected a heat map for each of {len(split.classes)} classes, got "
            f"{first.heatmap.shape[1]}"
        )
    return first


def accuracies_at(
    system: System,
    split: Split,
    threshold: float,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    side: Side = "test",
) -> list[float]:
    """Localisation accuracy, the mean over classes, at each IoU.

    Args:
        system: answers with heat maps.
        split: has the pairs and their boxes.
        threshold: of the heat maps, a share of their maximum.
        iou_thresholds: T, by default .3, .5 and .7.
        side: of the split.
    """
    rows, labels = split.pairs(side)
    rule = partial(largest_region, threshold=threshold)
    (found,) = predicted_boxes(system, split, rows, labels, rule)
    iou = best_iou(found, true_boxes(split, rows, labels))
    label = torch.from_numpy(np.ascontiguousarray(labels))
    n = len(split.classes)
    return [macro_mean(accuracy_by_class(iou, label, n, t)) for t in iou_thresholds]


def localisation_accuracy(
    system: System, split: Split, side: Side, *, threshold: float = HEADLINE
) -> Numbers:
    """Tables 1 and 2 of Kim et al. (2021) for any system with heat maps.

    Args:
        system: answers with heat maps of the split's classes.
        split: gives images and boxes.
        side: of the split.
        threshold: of the heat maps, a share of their maximum.

    Returns:
        For T of .3, .5 and .7 `loc_acc@T` (mean over classes), beside it `loc_acc_any@T` (the
        protocol of Wang et al. 2017: any region at any of two thresholds) and `loc_acc_oracle@T`
        (the best threshold of each class, chosen on the boxes it is scored on: an upper bound);
        `false_positives`: boxes an image, one of each map of the classes that the system predicts
        (probability > .5), that meet no true box at T = .3, where there are scores; `pairs`, how
        many it rests on; `loc_acc@T/<class>` and `pairs/<class>`. Nothing where there are no heat
        maps or no boxes.
    """
    rows, labels = split.pairs(side)
    first = answer_with_heat(system, split, side)
    if first is None:
        return {}
    label = torch.from_numpy(np.ascontiguousarray(labels))
    truth, n = true_boxes(split, rows, labels), len(split.classes)
    low, high, headline, *others = predicted_boxes(
        system, split, rows, labels,
        *[partial(every_region, threshold=t) for t in CHESTXRAY8_THRESHOLDS],
        *[partial(largest_region, threshold=t) for t in (threshold, *ORACLE_THRESHOLDS)],
    )  # fmt: skip
    iou = best_iou(headline, truth)
    anywhere = best_iou([torch.cat(both) for both in zip(low, high, strict=True)], truth)
    by_threshold = torch.stack([iou] + [best_iou(boxes, truth) for boxes in others])
    numbers: Numbers = {}
    for t in IOU_THRESHOLDS:
        found = accuracy_by_class(iou, label, n, t)
        _, bound = oracle_threshold(by_threshold, label, n, t)
        numbers[f"loc_acc@{t}"] = macro_mean(found)
        numbers[f"loc_acc_any@{t}"] = macro_mean(accuracy_by_class(anywhere, label, n, t))
        numbers[f"loc_acc_oracle@{t}"] = macro_mean(bound)
        for name, value in zip(split.classes, found.tolist(), strict=True):
            numbers[f"loc_acc@{t}/{name}"] = value
    if first.scores is not None:
        numbers["false_positives"] = _false_positives(system, split, side, threshold)
    counts = torch.bincount(label, minlength=n).tolist()
    numbers["pairs"] = len(rows)
    return numbers | {f"pairs/{k}": c for k, c in zip(split.classes, counts, strict=True)}


def where_boxes_are_known(split: Split, side: Side) -> Bool[np.ndarray, "n K"]:
    """For each image of a side and each class whether it is known where boxes are: the image does
    not have the class, or somebody drew its boxes.
    """
    rows = split.rows(side)
    known = split.store.labels[rows] == 0
    place = {int(row): i for i, row in enumerate(rows)}
    boxed = split.pairs(side)
    known[[place[int(row)] for row in boxed[0]], boxed[1]] = True
    return known


def _false_positives(system: System, split: Split, side: Side, threshold: float) -> float:
    """Boxes that meet no true box, an image: of the classes predicted for a side's images.

    Reading (evaluation, diseases without a box): Most images of ChestX-ray14 have no box for their
        disease.
        Here: Such an image is left out for that disease.
        Why: Nobody knows whether a box there would be false.
    """
    rows, known = split.rows(side), where_boxes_are_known(split, side)
    rule, device = partial(largest_region, threshold=threshold), device_of(system)
    predicted: list[Tensor] = []
    truth: list[Tensor] = []
    for part in row_parts(np.arange(len(rows))):
        answer = system.predict(split.batch(rows[part], device).image)
        assert answer.heatmap is not None and answer.scores is not None
        said = (answer.scores.cpu() > PREDICTED_ABOVE) & torch.from_numpy(known[part])
        image, label = said.nonzero(as_tuple=True)
        heat = answer.heatmap[image.to(device), label.to(device)]
        predicted += [b.cpu() for b, _ in rule(heat)]
        truth += true_boxes(split, rows[part][image.numpy()], label.numpy())
    return average_false_positives(predicted, truth, IOU_THRESHOLDS[0], len(rows))


def localisation_measure(side: Side, threshold: float = HEADLINE) -> Measure:
    """`localisation_accuracy` of one side of a split."""
    return Measure(side, partial(localisation_accuracy, threshold=threshold), BETTER)
