"""How much of the lesion a counterfactual image removes, and what else it changes, against the
healthy twin.
"""

from __future__ import annotations

from functools import partial

import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, ground_truth, row_parts
from cxrtut.evaluation.measure import Better, Measure, Numbers, device_of
from cxrtut.metrics.counterfactual import background_change, residual_lesion_ratio

GREY_LEVELS = 127.5  # of 255, for a difference of 1 between images in [-1, 1]
BETTER: dict[str, Better] = {"residual_ratio": "lower", "background_change": "lower"}


def lesion_removal(
    system: System, split: Split, side: Side, *, at_most: int | None = None
) -> Numbers:
    """Against the healthy twin.

    Args:
        system: answers with images.
        split: gives images, their healthy twins and the outlines.
        side: of the split; its abnormal images with an outline are scored.
        at_most: so many images of them, evenly; all by default.

    Returns:
        `residual_ratio`: what is left of the lesion (1: all of it), the mean over images;
        `background_change`: the mean change outside it, in grey levels of 255. Nothing where the
        system gives no image or nobody knows the healthy twin.
    """
    device, left, outside = device_of(system), [], []
    for part in row_parts(split.with_truth(side, at_most)):
        batch = split.batch(part, device)
        output = system.predict(batch.image).image
        if output is None or batch.healthy is None:
            return {}
        truth = ground_truth(batch)
        left.append(residual_lesion_ratio(batch.image, batch.healthy, output, truth))
        outside.append(background_change(batch.image, output, truth))
    if not left:
        return {}
    return {
        "residual_ratio": float(torch.cat(left).nanmean()),
        "background_change": GREY_LEVELS * float(torch.cat(outside).nanmean()),
    }


def removal_measure(side: Side, at_most: int | None = None) -> Measure:
    """`lesion_removal` of one side of a split."""
    return Measure(side, partial(lesion_removal, at_most=at_most), BETTER)
