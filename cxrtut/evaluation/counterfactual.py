"""How much of the lesion a counterfactual image removes, and what else it changes, against the
healthy twin.
"""

from __future__ import annotations

from functools import partial

import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, evenly, ground_truth, row_parts
from cxrtut.evaluation.measure import Better, Measure, Numbers, device_of
from cxrtut.metrics.counterfactual import background_change, residual_lesion_ratio

GREY_LEVELS = 127.5  # of 255, for a difference of 1 between images in [-1, 1]
BETTER: dict[str, Better] = {"residual_ratio": "lower", "background_change": "lower"}
TWIN_BETTER: dict[str, Better] = {
    "twin_error": "lower",
    "twin_error_untouched": "neither",
    "change_on_normal": "lower",
}


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


def twin_distance(
    system: System, split: Split, side: Side, *, at_most: int | None = None
) -> Numbers:
    """How far pseudo-healthy images are from the truth, in grey levels of 255, over all pixels.

    Args:
        system: answers with images.
        split: gives images and, where they are known, their healthy twins.
        side: of the split.
        at_most: so many images of each kind, evenly; all by default.

    Returns:
        `twin_error`: between the pseudo-healthy image of an abnormal one and its healthy twin;
        `twin_error_untouched`: between the abnormal image and its twin, what doing nothing would
        have. `change_on_normal`: how much a normal image is changed, which is its own twin. What
        cannot be known is left out; nothing where the system gives no image.
    """
    device = device_of(system)
    twin, untouched, change = [], [], []
    for part in row_parts(evenly(split.abnormal(side), at_most)):
        batch = split.batch(part, device)
        output = system.predict(batch.image).image
        if output is None:
            return {}
        if batch.healthy is not None:
            twin.append(_mean_difference(output, batch.healthy))
            untouched.append(_mean_difference(batch.image, batch.healthy))
    for part in row_parts(evenly(split.normal(side), at_most)):
        image = split.batch(part, device).image
        output = system.predict(image).image
        if output is None:
            return {}
        change.append(_mean_difference(output, image))
    found = {"twin_error": twin, "twin_error_untouched": untouched, "change_on_normal": change}
    return {name: float(torch.cat(values).mean()) for name, values in found.items() if values}


def _mean_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return GREY_LEVELS * (a - b).abs().double().mean((1, 2, 3))


def twin_measure(side: Side, at_most: int | None = None) -> Measure:
    """`twin_distance` of one side of a split."""
    return Measure(side, partial(twin_distance, at_most=at_most), TWIN_BETTER)


def removal_measure(side: Side, at_most: int | None = None) -> Measure:
    """`lesion_removal` of one side of a split."""
    return Measure(side, partial(lesion_removal, at_most=at_most), BETTER)
