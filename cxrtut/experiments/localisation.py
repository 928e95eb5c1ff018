"""From the maps of a classifier to localisation accuracy and AUROC on the images of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.experiments.label_study import LabelStudy
from cxrtut.localize.boxes import Scored, component_boxes, cut_at_fraction
from cxrtut.metrics.classification import auroc_by_class
from cxrtut.metrics.detection import (
    accuracy_by_class,
    average_false_positives,
    best_iou,
    macro_mean,
    oracle_cut,
)
from cxrtut.nn.spatial_transformer import warp
from cxrtut.papers.disease_masks import boxes_from_heat, heat_in_image

THRESHOLDS = (0.3, 0.5, 0.7)  # T of Tables 1 and 2
CHESTXRAY8_CUTS = (60 / 255, 180 / 255)
ORACLE_CUTS = tuple(k / 10 for k in range(1, 10))
_BLOCK = 512  # maps enlarged at once

Rule = Callable[[Float[Tensor, "B H W"]], list[Scored]]
"""From heat in [0, 1] to the boxes of each image."""


def every_region(heat: Float[Tensor, "B H W"], cut: float) -> list[Scored]:
    """The boxes of all regions above `cut` times a map's maximum, where `boxes_from_heat` has the
    largest region's.
    """
    return component_boxes(cut_at_fraction(heat, cut), heat)


def predicted_boxes(
    maps: Float[Tensor, "P h w"],
    matrix: Float[Tensor, "P 2 3"] | None,
    size: int,
    *rules: Rule,
) -> list[list[Float[Tensor, "n 4"]]]:
    """For each rule the boxes of each map, on the images as they were.

    Args:
        maps: one of each image.
        matrix: of the images' alignment, if they were aligned.
        size: of the images, pixels.
        *rules: heat (B, H, W) in [0, 1] to boxes; all rules share the heat.
    """
    boxes: list[list[Tensor]] = [[] for _ in rules]
    for i in range(0, len(maps), _BLOCK):
        part = slice(i, i + _BLOCK)
        there = None if matrix is None else matrix[part]
        heat = heat_in_image(maps[part], (size, size), there)
        for found, rule in zip(boxes, rules, strict=True):
            found += [b.cpu() for b, _ in rule(heat)]
    return boxes


def accuracies_at_cut(
    maps: Float[Tensor, "P h w"],
    matrix: Float[Tensor, "P 2 3"] | None,
    study: LabelStudy,
    cut: float,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[float]:
    """Localisation accuracy, the mean over classes, at each T.

    Args:
        maps: one for each of the study's pairs, of the pair's class.
        matrix: of their images' alignment, if they were aligned.
        study: has the pairs and their boxes.
        cut: of the maps, a share of their maximum.
        thresholds: T, by default .3, .5 and .7.
    """
    rows, labels = study.pairs
    truth = _true_boxes(study, rows, labels)
    rule = partial(boxes_from_heat, cut=cut)
    (found,) = predicted_boxes(maps, matrix, study.store.size, rule)
    iou = best_iou(found, truth)
    label = torch.from_numpy(np.ascontiguousarray(labels))
    n = len(study.store.classes)
    return [macro_mean(accuracy_by_class(iou, label, n, t)) for t in thresholds]


def _true_boxes(
    study: LabelStudy, rows: Int64[np.ndarray, "p"], labels: Int64[np.ndarray, "p"]
) -> list[Float[Tensor, "n 4"]]:
    """The boxes of each pair of an image and a class."""
    return [study.boxes_of(int(r), int(k)) for r, k in zip(rows, labels, strict=True)]


def true_masks(
    study: LabelStudy, rows: Int64[np.ndarray, "p"], labels: Int64[np.ndarray, "p"]
) -> Bool[Tensor, "p H W"]:
    """Inside the boxes of a class in an image, for figures."""
    size = study.store.size
    boxes = _true_boxes(study, rows, labels)
    return torch.stack([boxes_to_mask(found, size, size) for found in boxes])


def occurrence(
    study: LabelStudy, matrix: Float[Tensor, "P 2 3"] | None, cells: int
) -> Float[Tensor, "K h w"]:
    """Where diseases are, to be compared with masks that say where they may be: the share of the
    images with a disease in which a cell lies in its boxes. Zeros for a disease without boxes.

    Args:
        study: of its pairs of test image and disease, all are counted.
        matrix: of the alignment of the pairs' images; None for the frame as it was.
        cells: height and width of the result, a divisor of the size.
    """
    rows, labels = study.pairs
    label = torch.from_numpy(np.ascontiguousarray(labels))
    total = torch.zeros(len(study.store.classes), cells, cells)
    for i in range(0, len(rows), _BLOCK):
        part = slice(i, i + _BLOCK)
        inside = true_masks(study, rows[part], labels[part]).float()[:, None]
        if matrix is not None:
            inside = warp(inside, matrix[part].cpu(), outside=0.0)
        total.index_add_(0, label[part], F.adaptive_avg_pool2d(inside, cells)[:, 0])
    return total / torch.bincount(label, minlength=len(total)).clamp_min(1)[:, None, None]


def score_localisation(
    maps: Float[Tensor, "N K h w"],
    logits: Float[Tensor, "N K"],
    matrix: Float[Tensor, "N 2 3"] | None,
    study: LabelStudy,
    *,
    cut: float,
) -> dict[str, Any]:
    """Tables 1 and 2 for one method.

    Args:
        maps: of the study's test images, in its order.
        logits: of the same images.
        matrix: of their alignment, if they were aligned.
        study: has the boxes.
        cut: of the maps, a share of their maximum.

    Returns:
        For T of .3, .5 and .7 `T .3` ... (mean over classes), beside it `T .3, any` ([18]'s
        protocol: any region at any of two cuts) and `T .3, oracle` (the best cut of each class,
        chosen on the boxes it is scored on: an upper bound). `false positives`: boxes an image, one
        of each map of the classes that the method predicts (P > .5), that meet no true box at
        T = .3. `by class`: each `T`, and how many `pairs` it rests on, for each class.
    """
    classes = study.store.classes
    place = {int(row): i for i, row in enumerate(study.test)}
    rows, labels = study.pairs
    image = torch.tensor([place[int(row)] for row in rows])
    label = torch.from_numpy(np.ascontiguousarray(labels))
    truth = _true_boxes(study, rows, labels)
    asked = maps[image.to(maps.device), label.to(maps.device)]
    moved = None if matrix is None else matrix[image.to(matrix.device)]

    low, high, headline, *others = predicted_boxes(
        asked, moved, study.store.size,
        *[partial(every_region, cut=c) for c in CHESTXRAY8_CUTS],
        *[partial(boxes_from_heat, cut=c) for c in (cut, *ORACLE_CUTS)],
    )  # fmt: skip
    iou = best_iou(headline, truth)
    anywhere = best_iou([torch.cat(both) for both in zip(low, high, strict=True)], truth)
    by_cut = torch.stack([iou] + [best_iou(boxes, truth) for boxes in others])
    scores: dict[str, Any] = {}
    by_class: dict[str, dict[str, float]] = {}
    for threshold in THRESHOLDS:
        name = f"T {threshold:.1f}".replace("0.", ".")
        found = accuracy_by_class(iou, label, len(classes), threshold)
        any_region = accuracy_by_class(anywhere, label, len(classes), threshold)
        _, bound = oracle_cut(by_cut, label, len(classes), threshold)
        scores[name] = macro_mean(found)
        scores[f"{name}, any"] = macro_mean(any_region)
        scores[f"{name}, oracle"] = macro_mean(bound)
        by_class[name] = dict(zip(classes, found.tolist(), strict=True))
    scores["false positives"] = _false_positives(
        maps, logits, matrix, study, cut, (image, label)
    )  # fmt: skip
    counts = torch.bincount(label, minlength=len(classes)).tolist()
    by_class["pairs"] = dict(zip(classes, counts, strict=True))
    return scores | {"pairs": len(rows), "by class": by_class}


def _false_positives(
    maps: Tensor,
    logits: Tensor,
    matrix: Tensor | None,
    study: LabelStudy,
    cut: float,
    pairs: tuple[Tensor, Tensor],
) -> float:
    """Boxes that meet no true box, an image: of the classes predicted for the test images.

    Reading: an image with a disease of which it has no box (most of ChestX-ray14) is left out for
    that disease; nobody knows whether a box there would be false.
    """
    known = torch.from_numpy(study.store.labels[study.test] == 0)
    known[pairs] = True
    image, label = ((logits > 0) & known.to(logits.device)).nonzero(as_tuple=True)
    moved = None if matrix is None else matrix[image]
    rule = partial(boxes_from_heat, cut=cut)
    (predicted,) = predicted_boxes(maps[image, label], moved, study.store.size, rule)
    rows = study.test[image.cpu().numpy()]
    truth = _true_boxes(study, rows, label.cpu().numpy())
    return average_false_positives(predicted, truth, THRESHOLDS[0], len(study.test))


def score_classification(logits: Float[Tensor, "N K"], study: LabelStudy) -> dict[str, Any]:
    """Tables 3 and 4 for one method: `AUROC`, the mean over the classes where it is defined, and
    `by class`.
    """
    positive = torch.from_numpy(study.store.labels[study.test] > 0)
    areas = auroc_by_class(logits.cpu(), positive)
    return {
        "AUROC": macro_mean(areas),
        "by class": {"AUROC": dict(zip(study.store.classes, areas.tolist(), strict=True))},
    }
