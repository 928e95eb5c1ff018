"""How well scores separate images with a finding from images without."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.metrics.inputs import check_scores, check_truth


def auroc(score: Float[Tensor, " N"], positive: Bool[Tensor, " N"]) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney), ties averaged; NaN when one side is
    empty.

    Raises:
        TypeError: the scores are not floats, or the truths not bools.
        ValueError: not one truth per score, or a score that is NaN.
    """
    check_scores("score", score, "N")
    check_truth("positive", positive, score.shape)
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    _, inverse, counts = torch.unique(score, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    rank = (last - (counts.double() - 1) / 2)[inverse]
    return float((rank[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def auroc_by_class(
    score: Float[Tensor, "N K"], positive: Bool[Tensor, "N K"]
) -> Float[Tensor, "K"]:
    """`auroc` of each class (a column), float64; NaN where all images of a class are positive, or
    none is. Leave these out of a mean, and say so.

    Raises:
        TypeError: the scores are not floats, or the truths not bools.
        ValueError: not one truth per score, or a score that is NaN.
    """
    check_scores("score", score, "N K")
    check_truth("positive", positive, score.shape)
    areas = [auroc(column, truth) for column, truth in zip(score.T, positive.T, strict=True)]
    return torch.tensor(areas, dtype=torch.float64, device=score.device)


def hanley_standard_error(area: float, n1: int, n0: int) -> float:
    """Standard error of an AUROC from n1 positives and n0 negatives (Hanley and McNeil, Radiology
    1982); NaN when one side is empty.

    Raises:
        ValueError: an area outside [0, 1], or fewer than no images.
    """
    if min(n1, n0) < 0:
        raise ValueError(f"n1, n0: expected numbers of images, got {n1} and {n0}")
    if not (math.isnan(area) or 0 <= area <= 1):
        raise ValueError(f"area: expected a number in [0, 1], got {area}")
    if n1 == 0 or n0 == 0:
        return math.nan
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (n1 - 1) * (q1 - area * area) + (n0 - 1) * (q2 - area * area)
    return math.sqrt(max(variance, 0.0) / (n1 * n0))
