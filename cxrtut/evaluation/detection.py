"""How well a detector's boxes are placed, and whether it is sure of the right ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.data.sample import Detections, System
from cxrtut.data.split import Rows, Side, Split
from cxrtut.evaluation.localisation import true_boxes
from cxrtut.evaluation.measure import Better, Measure, Numbers, predictions
from cxrtut.metrics.box_precision import box_average_precision
from cxrtut.metrics.correct_location import correct_location
from cxrtut.metrics.detection import best_iou, macro_mean
from cxrtut.metrics.intervals import bootstrap_interval

IOU_THRESHOLDS = (0.1, 0.3, 0.5)
HEADLINE = 0.1  # T of Table 2 of Xing et al. (MICCAI 2019)
BETTER: dict[str, Better] = {
    **{f"cl@{t}": "higher" for t in IOU_THRESHOLDS},
    f"cl@{HEADLINE}_low": "neither",
    f"cl@{HEADLINE}_high": "neither",
    f"cl_any@{HEADLINE}": "higher",
    f"map@{HEADLINE}": "higher",
}
Chosen = Callable[[Detections, int], Float[Tensor, "n 4"]]


def surest_box(found: Detections, label: int) -> Float[Tensor, "n 4"]:
    """The box of a class with the highest score; none where there is none."""
    scores = found.scores.masked_fill(found.labels != label, -torch.inf)
    best = scores.argsort(descending=True)[:1]
    return found.boxes[best[found.labels[best] == label]]


def any_box(found: Detections, label: int) -> Float[Tensor, "n 4"]:
    """All boxes of a class."""
    return found.boxes[found.labels == label]


def detection(system: System, split: Split, side: Side) -> Numbers:
    """Correct location and mean average precision of boxes.

    Args:
        system: answers with boxes of the split's classes.
        split: gives images and boxes.
        side: of the split.

    Returns:
        For T of .1, .3 and .5 `cl@T`, the mean over classes, and `cl@T/<class>`: the share of pairs
        of an image and a class that it has, whose surest box of the class has an IoU of T or more;
        for .1 also the bootstrap interval over patients, `cl@0.1_low` and `cl@0.1_high`, and
        `cl_any@0.1`, where any box of the class may be the hit. `map@0.1`, average precision over
        all images of the side that are read by somebody who draws boxes (abnormal ones with a box,
        and normal ones), the mean over classes, and `map@0.1/<class>`. Nothing where there are no
        boxes, the system's or the truth's.
    """
    rows, labels = split.pairs(side)
    if not len(rows) or predictions(system, split, rows[:1]).boxes is None:
        return {}
    seen = np.union1d(rows, split.normal(side))
    found = predictions(system, split, seen).boxes
    assert found is not None, "a system has boxes for every image or for none"
    on_cpu = [Detections(f.boxes.cpu(), f.scores.cpu(), f.labels.cpu()) for f in found]
    place = np.searchsorted(seen, rows)
    label = torch.from_numpy(np.ascontiguousarray(labels))
    truth = true_boxes(split, rows, labels)

    def iou(choose: Chosen) -> Float[Tensor, "P"]:
        chosen = [choose(on_cpu[i], int(k)) for i, k in zip(place, labels, strict=True)]
        return best_iou(chosen, truth)

    n = len(split.classes)
    numbers: Numbers = {}
    surest = iou(surest_box)
    for t in IOU_THRESHOLDS:
        numbers |= _by_class(f"cl@{t}", correct_location(surest, label, n, t), split.classes)
    numbers |= _interval(surest, label, n, split.patients(rows))
    numbers[f"cl_any@{HEADLINE}"] = macro_mean(correct_location(iou(any_box), label, n, HEADLINE))
    precision = torch.tensor(
        [_precision(on_cpu, split, seen, k) for k in range(n)], dtype=torch.float64
    )
    return numbers | _by_class(f"map@{HEADLINE}", precision, split.classes)


def location_by_class(system: System, split: Split, side: Side) -> Float[Tensor, "K"]:
    """`cl@0.1/<class>` of `detection` alone, in the order of the split's classes; NaN for a class
    without boxes.

    Raises:
        ValueError: a system without boxes.
    """
    rows, labels = split.pairs(side)
    seen, place = np.unique(rows, return_inverse=True)
    found = predictions(system, split, seen).boxes
    if found is None:
        raise ValueError("system: expected one that answers with boxes, got one that does not")
    on_cpu = [Detections(f.boxes.cpu(), f.scores.cpu(), f.labels.cpu()) for f in found]
    chosen = [surest_box(on_cpu[i], int(k)) for i, k in zip(place, labels, strict=True)]
    label = torch.from_numpy(np.ascontiguousarray(labels))
    iou = best_iou(chosen, true_boxes(split, rows, labels))
    return correct_location(iou, label, len(split.classes), HEADLINE)


def location(system: System, split: Split, side: Side) -> Numbers:
    """`cl@0.1` of `detection` alone, which is quick enough to be taken again and again during a
    training. Nothing where there are no boxes.
    """
    if not len(split.pairs(side)[0]):
        return {}
    return {f"cl@{HEADLINE}": macro_mean(location_by_class(system, split, side))}


def _by_class(name: str, values: Float[Tensor, "K"], classes: Sequence[str]) -> Numbers:
    each = {f"{name}/{k}": float(v) for k, v in zip(classes, values, strict=True)}
    return {name: macro_mean(values), **each}


def _interval(
    iou: Float[Tensor, "P"], label: Int[Tensor, "P"], n_classes: int, patients: Sequence[str]
) -> Numbers:
    """Of the mean over classes, as a mean over pairs in which every class weighs the same."""
    size = torch.bincount(label, minlength=n_classes)
    weight = len(label) / (int((size > 0).sum()) * size[label].double())
    found = bootstrap_interval((iou >= HEADLINE) * weight, 0, patients=patients)
    return {f"cl@{HEADLINE}_low": found.low, f"cl@{HEADLINE}_high": found.high}


def _precision(found: Sequence[Detections], split: Split, seen: Rows, label: int) -> float:
    of_class = [one.labels == label for one in found]
    return box_average_precision(
        [one.boxes[mine] for one, mine in zip(found, of_class, strict=True)],
        [one.scores[mine] for one, mine in zip(found, of_class, strict=True)],
        [split.boxes_of(int(row), label) for row in seen],
        HEADLINE,
    )


def detection_measure(side: Side) -> Measure:
    """`detection` of one side of a split."""
    return Measure(side, detection, BETTER)
