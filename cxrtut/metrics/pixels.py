"""How well heat maps agree with masks, pixel by pixel (Zhang et al., MICCAI 2019, Sec. 3).

Reading (evaluation, the area under the curve): How the area under precision-recall curves is taken,
    over which pixels, and whether images without a lesion count, is not said.
    Here: We pool the pixels of all images that have a positive one, and take the step-wise average
        precision, with every tie as one threshold. `trapezoid_area` is there for comparison.
    Why: A constant map then scores the prevalence, the level of chance to state beside every
        number. The trapezoid rule flatters maps with few distinct values, most of all a constant
        one.

Pooling ranks the pixels of different images against each other, so the range of each map matters:
normalise the maps per image first, and say so. What makes all maps of a set rise together, such as
one minimum and maximum for all, changes nothing.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.metrics.classification import auroc
from cxrtut.metrics.inputs import check_bools, check_scores, check_truth


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """A precision-recall curve: one point for each distinct score, the highest first.

    Attributes:
        threshold: a score; everything at or above it is called positive.
        precision: the share of what is called positive that is positive.
        recall: the share of the positives that is called positive; never falls, ends at 1.
    """

    threshold: Float[Tensor, "T"]
    precision: Float[Tensor, "T"]
    recall: Float[Tensor, "T"]


def precision_recall_curve(
    score: Float[Tensor, "N"], positive: Bool[Tensor, "N"]
) -> PrecisionRecall:
    """The curve of N scores, by one sort; counted in integers, divided in float64.

    Raises:
        TypeError: the scores are not floats, or `positive` is not of bools.
        ValueError: no positive, a score that is NaN, or not one truth per score.
    """
    check_scores("score", score, "N")
    check_truth("positive", positive, score.shape)
    ordered, order = score.sort(descending=True)
    hits = positive[order].cumsum(dim=0)
    if len(hits) == 0 or hits[-1] == 0:
        raise ValueError(f"positive: expected at least one positive, got none among {len(hits)}")
    is_last = torch.ones_like(positive)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    last = is_last.nonzero()[:, 0]
    found = hits[last].double()
    return PrecisionRecall(
        threshold=ordered[last], precision=found / (last + 1), recall=found / hits[-1]
    )


def step_area(curve: PrecisionRecall) -> float:
    """Σ_n (R_n - R_{n-1}) P_n with R_0 = 0: the step-wise average precision."""
    rise = curve.recall.diff(prepend=curve.recall.new_zeros(1))
    return float((rise * curve.precision).sum())


def trapezoid_area(curve: PrecisionRecall) -> float:
    """The area under straight lines between the points, from recall 0 and precision 1.

    For comparison only: between two points precision does not move on a straight line. A constant
    score gets (1 + prevalence) / 2.
    """
    recall = torch.cat((curve.recall.new_zeros(1), curve.recall))
    precision = torch.cat((curve.precision.new_ones(1), curve.precision))
    return float(torch.trapezoid(precision, recall))


def best_f1(curve: PrecisionRecall) -> tuple[float, float]:
    """The largest 2 P R / (P + R) of the curve, and the threshold that gives it (the highest such).

    The threshold is chosen on the very pixels that are scored: an upper bound, not a result that
    can be expected on other images.
    """
    total = curve.precision + curve.recall
    f1 = torch.where(total > 0, 2 * curve.precision * curve.recall / total, total)
    best = f1.argmax()
    return float(f1[best]), float(curve.threshold[best])


def average_precision(score: Float[Tensor, "N"], positive: Bool[Tensor, "N"]) -> float:
    """Step-wise average precision, the same for every order of the N; NaN without positives.

    Raises:
        TypeError: the scores are not floats, or `positive` is not of bools.
        ValueError: a score that is NaN, or not one truth per score.
    """
    check_scores("score", score, "N")
    check_truth("positive", positive, score.shape)
    if not positive.any():
        return math.nan
    return step_area(precision_recall_curve(score, positive))


def pixel_average_precision(heatmap: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]) -> float:
    """Average precision over the pixels of all images with a positive pixel, pooled; NaN when there
    is no such image.

    Raises:
        TypeError: the heat is not of floats, or the mask not of bools.
        ValueError: heat that is NaN, or a mask of another shape.
    """
    check_scores("heatmap", heatmap, "B H W")
    check_truth("mask", mask, heatmap.shape, "heat maps")
    counted = mask.flatten(1).any(dim=1)
    return average_precision(heatmap[counted].flatten(), mask[counted].flatten())


def image_average_precision(
    heatmap: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]
) -> Float[Tensor, "B"]:
    """Average precision of each image by itself, float64; NaN for an image without positives.

    Raises:
        TypeError: the heat is not of floats, or the mask not of bools.
        ValueError: heat that is NaN, or a mask of another shape.
    """
    check_scores("heatmap", heatmap, "B H W")
    check_truth("mask", mask, heatmap.shape, "heat maps")
    areas = [
        average_precision(score, positive)
        for score, positive in zip(heatmap.flatten(1), mask.flatten(1), strict=True)
    ]
    return torch.tensor(areas, dtype=torch.float64, device=heatmap.device)


def pixel_auroc(heatmap: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]) -> float:
    """Area under the ROC curve of the pixels of all images with a positive and a negative one,
    pooled; NaN when there is no such image. A constant map has .5.

    Raises:
        TypeError: the heat is not of floats, or the mask not of bools.
        ValueError: heat that is NaN, or a mask of another shape.
    """
    check_scores("heatmap", heatmap, "B H W")
    check_truth("mask", mask, heatmap.shape, "heat maps")
    flat = mask.flatten(1)
    counted = flat.any(dim=1) & ~flat.all(dim=1)
    return auroc(heatmap[counted].flatten(), mask[counted].flatten())


def image_auroc(heatmap: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]) -> Float[Tensor, "B"]:
    """Area under the ROC curve of the pixels of each image by itself, float64; NaN for an image
    whose pixels are all positive or all negative.

    Raises:
        TypeError: the heat is not of floats, or the mask not of bools.
        ValueError: heat that is NaN, or a mask of another shape.
    """
    check_scores("heatmap", heatmap, "B H W")
    check_truth("mask", mask, heatmap.shape, "heat maps")
    pairs = zip(heatmap.flatten(1), mask.flatten(1), strict=True)
    areas = [auroc(score, positive) for score, positive in pairs]
    return torch.tensor(areas, dtype=torch.float64, device=heatmap.device)


def pixel_prevalence(mask: Bool[Tensor, "B H W"]) -> float:
    """The level of chance of `pixel_average_precision`: the share of positive pixels among those of
    all images with a positive pixel; NaN when there is no such image.

    Raises:
        TypeError: the mask is not of bools.
        ValueError: a mask that is not (B, H, W).
    """
    check_bools("mask", mask, "B H W")
    counted = mask[mask.flatten(1).any(dim=1)]
    return float(counted.double().mean()) if len(counted) else math.nan


def pointing_game(
    heatmap: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]
) -> Float[Tensor, "B"]:
    """Whether the hottest pixel of each image is inside its mask: 1 or 0, NaN where the mask is
    empty (Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016).

    Reading (evaluation, near hits and ties): Zhang et al. (ECCV 2016) count a hit up to 15 pixels
        away.
        Here: A hit is inside; widen the mask for more. Of equally hot pixels we take the share that
            is inside.
        Why: A blind pick would score this, so a constant map scores the mask's share of the image.

    Raises:
        TypeError: the heat is not of floats, or the mask not of bools.
        ValueError: heat that is NaN, or a mask of another shape.
    """
    check_scores("heatmap", heatmap, "B H W")
    check_truth("mask", mask, heatmap.shape, "heat maps")
    heat, inside = heatmap.flatten(1), mask.flatten(1)
    hottest = heat == heat.amax(dim=1, keepdim=True)
    share = (hottest & inside).sum(dim=1).double() / hottest.sum(dim=1)
    return torch.where(inside.any(dim=1), share, torch.nan)
