"""What a score has to be read against: a map that has not seen the image, and one that knows the
answer.
"""

from __future__ import annotations

from functools import partial

import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Rows, Side, Split, row_parts
from cxrtut.evaluation.measure import Better, Measure, Numbers
from cxrtut.evaluation.pixels import heat_and_truth, truth_of
from cxrtut.localize.heatmap import normalise
from cxrtut.localize.residual import residual_heatmap
from cxrtut.metrics.pixels import pixel_average_precision
from cxrtut.metrics.sameness import likeness_to_others, mean_of_others

BETTER: dict[str, Better] = {
    "pixel_ap_others": "neither",
    "likeness_to_others": "lower",
    "pixel_ap_twin": "neither",
}


def controls(system: System, split: Split, side: Side, *, at_most: int | None = None) -> Numbers:
    """The floor and the ceiling of `evaluation.pixels.pixel_localisation`, scored as it does.

    Args:
        system: answers with heat maps.
        split: gives images, truth and, where they are known, healthy twins.
        side: of the split; its abnormal images with an outline are scored.
        at_most: so many of them, evenly; all by default.

    Returns:
        `pixel_ap_others`: the pixel AP when each image is given the mean map of all *other* images,
        which knows where lesions tend to be and has not seen this image (others of its patient are
        among them); `likeness_to_others`: the mean correlation of the maps with those.
        `pixel_ap_twin`: the pixel AP of the difference to the healthy twin, where it is known: less
        than 1, because a finding fades towards its outline. Nothing of a system without heat maps,
        or of fewer than two images.
    """
    rows = split.with_truth(side, at_most)
    found = heat_and_truth(system, split, rows)
    if found is None or len(rows) < 2:
        return {}
    heatmap, truth = found
    others = mean_of_others(normalise(heatmap))
    numbers: Numbers = {
        "pixel_ap_others": pixel_average_precision(normalise(others), truth),
        "likeness_to_others": float(likeness_to_others(heatmap).nanmean()),
    }
    if (twin := _difference_to_twin(split, rows)) is not None:
        known = truth_of(split, rows, torch.device("cpu"))
        numbers["pixel_ap_twin"] = pixel_average_precision(normalise(twin), known)
    return numbers


def controls_measure(side: Side, at_most: int | None = None) -> Measure:
    """`controls` of one side of a split."""
    return Measure(side, partial(controls, at_most=at_most), BETTER)


def _difference_to_twin(split: Split, rows: Rows) -> torch.Tensor | None:
    parts = []
    for part in row_parts(rows):
        batch = split.batch(part)
        if batch.healthy is None:
            return None
        parts.append(residual_heatmap(batch.image, batch.healthy))
    return torch.cat(parts)
