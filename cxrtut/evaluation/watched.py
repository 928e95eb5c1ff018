"""Measures that are quick enough to be taken again and again during a training."""

from __future__ import annotations

from functools import partial

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split
from cxrtut.evaluation.measure import Measure, Numbers
from cxrtut.evaluation.pixels import heat_and_truth
from cxrtut.localize.heatmap import normalise
from cxrtut.metrics.pixels import pixel_average_precision


def pixel_ap(system: System, split: Split, side: Side, *, at_most: int | None = None) -> Numbers:
    """`pixel_ap` alone, of `pixel_localisation`: quick enough to be measured again and again in a
    training.
    """
    found = heat_and_truth(system, split, split.with_truth(side, at_most))
    return (
        {}
        if found is None
        else {"pixel_ap": pixel_average_precision(normalise(found[0]), found[1])}
    )


def pixel_ap_measure(side: Side, at_most: int | None = None) -> Measure:
    """`pixel_ap` of one side of a split."""
    return Measure(side, partial(pixel_ap, at_most=at_most), {"pixel_ap": "higher"})
