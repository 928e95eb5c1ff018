"""Which images a system says are abnormal, and with which disease."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from cxrtut.data.sample import System
from cxrtut.data.split import Side, Split, evenly, row_parts
from cxrtut.evaluation.measure import Measure, Numbers, device_of, heat_of_split
from cxrtut.metrics.classification import auroc, auroc_by_class
from cxrtut.metrics.detection import macro_mean


def disease_auroc(system: System, split: Split, side: Side) -> Numbers:
    """`auroc`: the mean over the classes where it is defined; `auroc/<class>` of each. Nothing
    where a system gives no scores.
    """
    rows = split.rows(side)
    device, scores = device_of(system), []
    for part in row_parts(rows):  # all images of a collection: their heat maps fit no memory
        answer = system.predict(split.batch(part, device).image).scores
        if answer is None:
            return {}
        scores.append(answer.cpu())
    if not scores:
        return {}
    areas = auroc_by_class(torch.cat(scores), torch.from_numpy(split.store.labels[rows] > 0))
    by_class = zip(split.classes, areas.tolist(), strict=True)
    return {"auroc": macro_mean(areas), **{f"auroc/{name}": area for name, area in by_class}}


def normal_or_not(
    system: System, split: Split, side: Side, *, at_most: int | None = None
) -> Numbers:
    """How abnormal images with an outline are told from normal ones; all abnormal images where none
    of them has an outline.

    Args:
        system: answers with scores, heat maps, or both.
        split: gives the images.
        side: of the split.
        at_most: so many images of each kind, evenly; all by default.

    Returns:
        `accuracy` at a probability of .5 of any class, where there are scores; `auroc_mean_heat` of
        the mean of the heat map, where there is one. Nothing where one of the kinds has no image.
    """
    abnormal = split.with_truth(side, at_most)
    if not len(abnormal):
        abnormal = evenly(split.abnormal(side), at_most)
    normal = evenly(split.normal(side), at_most)
    if not len(abnormal) or not len(normal):
        return {}
    device, scores, heat = device_of(system), [], []
    for part in row_parts(np.concatenate([abnormal, normal])):
        answer = system.predict(split.batch(part, device).image)
        if answer.scores is not None:
            scores.append(answer.scores.amax(1).cpu())
        if answer.heatmap is not None:
            heat.append(heat_of_split(system, split, answer.heatmap).mean((1, 2)).cpu())
    is_abnormal = torch.arange(len(abnormal) + len(normal)) < len(abnormal)
    numbers: Numbers = {}
    if scores:
        numbers["accuracy"] = float(((torch.cat(scores) > 0.5) == is_abnormal).float().mean())
    if heat:
        numbers["auroc_mean_heat"] = auroc(torch.cat(heat), is_abnormal)
    return numbers


def auroc_measure(side: Side) -> Measure:
    """`disease_auroc` of one side of a split."""
    return Measure(side, disease_auroc, {"auroc": "higher"})


def normal_or_not_measure(side: Side, at_most: int | None = None) -> Measure:
    """`normal_or_not` of one side of a split."""
    return Measure(
        side, partial(normal_or_not, at_most=at_most),
        {"accuracy": "higher", "auroc_mean_heat": "higher"},
    )  # fmt: skip
