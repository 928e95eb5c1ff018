"""Whether heat maps depend on the image. Where lesions tend to lie in the same places, one map for
all images can score well without having looked at any; what it would score is the level above which
a map says something of its image.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.metrics.inputs import check_scores


def mean_of_others(heatmap: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """For each image the mean heat map of all other images: an answer that has not seen the image.

    Raises:
        TypeError: the heat is not of floats.
        ValueError: heat that is NaN, or fewer than two images.
    """
    check_scores("heatmap", heatmap, "B H W")
    if len(heatmap) < 2:
        raise ValueError(f"heatmap: expected two images or more, got {len(heatmap)}")
    precise = heatmap.double()
    others = (precise.sum(0, keepdim=True) - precise) / (len(heatmap) - 1)
    return others.to(heatmap.dtype)


def likeness_to_others(heatmap: Float[Tensor, "B H W"]) -> Float[Tensor, "B"]:
    """Pearson's correlation, over the pixels, of each image's heat map with `mean_of_others`,
    float64: 1 where the map is the others' mean up to a factor and an offset, about 0 where the
    others say nothing of it, NaN where one of the two is constant.

    Raises:
        TypeError: the heat is not of floats.
        ValueError: heat that is NaN, or fewer than two images.
    """
    check_scores("heatmap", heatmap, "B H W")
    own, others = (maps.double().flatten(1) for maps in (heatmap, mean_of_others(heatmap)))
    own, others = (maps - maps.mean(1, keepdim=True) for maps in (own, others))
    return (own * others).sum(1) / (own.norm(dim=1) * others.norm(dim=1))


def rank_correlation(
    first: Float[Tensor, "B H W"], second: Float[Tensor, "b h w"]
) -> Float[Tensor, "B"]:
    """Spearman's rank correlation of two heat maps of each image over the pixels, float64: 1 where
    they order the pixels alike, about 0 where they have nothing to do with each other, NaN where
    one of the two is constant.

    Raises:
        TypeError: the heat is not of floats.
        ValueError: heat that is NaN, or maps of two shapes.
    """
    check_scores("first", first, "B H W")
    check_scores("second", second, "B H W")
    if first.shape != second.shape:
        raise ValueError(
            f"expected maps of one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    from scipy.stats import rankdata  # here: its import takes longer than most programs run

    ranks = (
        torch.from_numpy(rankdata(maps.detach().flatten(1).cpu().double().numpy(), axis=1))
        for maps in (first, second)
    )
    a, b = (of - of.mean(1, keepdim=True) for of in ranks)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
