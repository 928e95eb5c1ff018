"""How well heat maps and their maxima rank pixels and images: areas under ROC curves."""

from __future__ import annotations

from functools import partial

import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, evenly, row_parts
from cxrtut.evaluation.measure import (
    Better,
    Measure,
    Numbers,
    heat_of_split,
    predictions,
)
from cxrtut.evaluation.pixels import heat_and_truth
from cxrtut.localize.heatmap import normalise
from cxrtut.metrics.classification import auroc
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.pixels import image_auroc, pixel_auroc

BETTER: dict[str, Better] = {
    "pixel_auroc": "higher",
    "pixel_auroc_image": "higher",
    "pixel_auroc_image_low": "neither",
    "pixel_auroc_image_high": "neither",
    "auroc_max_heat": "higher",
}


def roc(system: System, split: Split, side: Side, *, at_most: int | None = None) -> Numbers:
    """The areas of Fig. 3 of Kim et al. (PILLET-GAN, MIDL 2022), in three readings.

    Reading (evaluation, the ROC curve): Section 4.3.2 calls the area "image-level localization" and
        "the ratio of overlapping pixels with the ground truth boxes"; Fig. 3 is one ROC curve for
        each method.
        Here: Heat maps are scaled to [0, 1] image by image, and the pixels of all abnormal images
            are ranked together (`pixel_auroc`). Beside it stand the mean over images, and the area
            when images are ranked by their largest heat.
        Why: Pooled pixels give one curve for each method, and boxes say of each pixel whether it is
            inside.

    Args:
        system: answers with heat maps; of several classes the sum is taken.
        split: gives images and truth.
        side: of the split. Pixels are those of its abnormal images with an outline.
        at_most: so many images of each kind, evenly; all by default.

    Returns:
        `pixel_auroc`, pooled; `pixel_auroc_image`, the mean over images, with its bootstrap
        interval over patients `_low` and `_high`; `auroc_max_heat`, abnormal images with an outline
        against normal ones, ranked by the largest heat of each, which is not scaled. Nothing where
        there is no heat map or no outline.
    """
    rows = split.with_truth(side, at_most)
    found = heat_and_truth(system, split, rows)
    if found is None:
        return {}
    heatmap, truth = found
    unit = normalise(heatmap)
    areas = image_auroc(unit, truth).float()
    interval = bootstrap_interval(areas, 0, patients=split.patients(rows))
    numbers: Numbers = {
        "pixel_auroc": pixel_auroc(unit, truth),
        "pixel_auroc_image": interval.mean,
        "pixel_auroc_image_low": interval.low,
        "pixel_auroc_image_high": interval.high,
    }
    normal = evenly(split.normal(side), at_most)
    if len(normal):
        largest = [heatmap.amax((1, 2))]
        for part in row_parts(normal):  # of a collection: all their heat maps fit no memory
            other = predictions(system, split, part).heatmap
            assert other is not None, "a system has a heat map for every image or for none"
            largest.append(heat_of_split(system, split, other).amax((1, 2)))
        score = torch.cat(largest)
        is_abnormal = torch.arange(len(score), device=score.device) < len(rows)
        numbers["auroc_max_heat"] = auroc(score, is_abnormal)
    return numbers


def roc_measure(side: Side, at_most: int | None = None) -> Measure:
    """`roc` of one side of a split."""
    return Measure(side, partial(roc, at_most=at_most), BETTER)
