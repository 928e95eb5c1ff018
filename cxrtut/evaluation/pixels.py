"""How well a heat map lies on what was outlined, pixel by pixel."""

from __future__ import annotations

from functools import partial

import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Rows, Side, Split, ground_truth, row_parts
from cxrtut.evaluation.measure import (
    Better,
    Measure,
    Numbers,
    device_of,
    heat_of_split,
    predictions,
)
from cxrtut.localize.heatmap import normalise, smooth_heatmap
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.pixels import (
    image_average_precision,
    pixel_average_precision,
    pixel_prevalence,
)

BETTER: dict[str, Better] = {
    "pixel_ap": "higher",
    "pixel_ap_global_norm": "higher",
    "pixel_ap_smoothed": "higher",
    "pixel_ap_image": "higher",
    "pixel_ap_image_low": "neither",
    "pixel_ap_image_high": "neither",
    "chance": "neither",
}


def truth_of(split: Split, rows: Rows, device: torch.device) -> torch.Tensor:
    """Where the disease is in some images: (N, H, W) of bools."""
    return torch.cat([ground_truth(split.batch(part, device)) for part in row_parts(rows)])


def heat_and_truth(
    system: System, split: Split, rows: Rows
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a system says of some images, and where the disease is in them.

    Returns:
        The heat of all diseases of the split, as it was answered, and what was outlined, both
        (N, H, W); None where there is no image or no heat map.
    """
    heat = predictions(system, split, rows).heatmap if len(rows) else None
    if heat is None:
        return None
    return heat_of_split(system, split, heat), truth_of(split, rows, device_of(system))


def pixel_localisation(
    system: System, split: Split, side: Side, *, at_most: int | None = None
) -> Numbers:
    """Localisation by Section 3.1 of Zhang et al. (2019): heat maps normalised to [0, 1] per image,
    all pixels pooled, step-wise average precision.

    Args:
        system: answers with heat maps; of several classes the sum is taken.
        split: gives images and truth.
        side: of the split; its abnormal images with an outline are scored.
        at_most: so many images of them, evenly; all by default.

    Returns:
        `pixel_ap` as above; `pixel_ap_global_norm` without the normalisation of each image;
        `pixel_ap_smoothed` after a mean over 5 x 5 pixels; `pixel_ap_image`, the mean over images,
        with its bootstrap interval over patients `_low` and `_high`; `chance`, the share of
        positive pixels. Nothing where there is no heat map or no outline.
    """
    rows = split.with_truth(side, at_most)
    found = heat_and_truth(system, split, rows)
    if found is None:
        return {}
    heatmap, truth = found
    unit = normalise(heatmap)
    areas = image_average_precision(unit, truth).float()
    interval = bootstrap_interval(areas, 0, patients=split.patients(rows))
    return {
        "pixel_ap": pixel_average_precision(unit, truth),
        "pixel_ap_global_norm": pixel_average_precision(heatmap, truth),
        "pixel_ap_smoothed": pixel_average_precision(normalise(smooth_heatmap(heatmap)), truth),
        "pixel_ap_image": interval.mean,
        "pixel_ap_image_low": interval.low,
        "pixel_ap_image_high": interval.high,
        "chance": pixel_prevalence(truth),
    }


def pixel_measure(side: Side, at_most: int | None = None) -> Measure:
    """`pixel_localisation` of one side of a split."""
    return Measure(side, partial(pixel_localisation, at_most=at_most), BETTER)
