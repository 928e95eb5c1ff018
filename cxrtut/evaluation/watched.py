"""Measures that are quick enough to be taken again and again during a training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split
from cxrtut.evaluation.measure import Measure, Numbers
from cxrtut.evaluation.pixels import heat_and_truth
from cxrtut.localize.heatmap import normalise
from cxrtut.metrics.pixels import pixel_auroc, pixel_average_precision

METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "pixel_ap": pixel_average_precision,  # as in `pixels.pixel_localisation`
    "pixel_auroc": pixel_auroc,  # as in `roc.roc`
}


def watched(
    system: System, split: Split, side: Side, *, metric: str, at_most: int | None = None
) -> Numbers:
    """One number of how well heat maps rank pixels, alone.

    Args:
        system: answers with heat maps.
        split: gives images and truth.
        side: of the split; its abnormal images with an outline are looked at.
        metric: one of `METRICS`, the name of the number.
        at_most: so many images, evenly; all by default.

    Returns:
        The number by its name. Nothing where there is no heat map or no outline.
    """
    found = heat_and_truth(system, split, split.with_truth(side, at_most))
    return {} if found is None else {metric: METRICS[metric](normalise(found[0]), found[1])}


def watched_measure(metric: str, side: Side, at_most: int | None = None) -> Measure:
    """`watched` of one side of a split.

    Raises:
        ValueError: no such metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    return Measure(side, partial(watched, metric=metric, at_most=at_most), {metric: "higher"})
