"""Heat maps from an image and its healthy version: what was changed is what is ill (Zhang et al.,
MICCAI 2019).

Reading (evaluation, from difference to heat map): "The difference" is "normalized to [0,1]". It is
    not said how channels are joined, nor whether each image is normalised by itself.
    Here: We take the mean absolute difference over the channels (`residual_heatmap`), or the
        largest (`largest_residual_heatmap`; with one channel they are equal). The range stays.
        `heatmap.normalise`, used for our headline, works per image.
    Why: Activation maps need it per image too. Normalising all images together would not change a
        precision-recall curve, as it changes no ranking.
"""

from jaxtyping import Float
from torch import Tensor


def residual_heatmap(
    image: Float[Tensor, "B C H W"], healthy: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B H W"]:
    """|x - G(x)|, the mean over the channels: [0, 2] for images in [-1, 1].

    Raises:
        ValueError: the two differ in shape.
    """
    return _distance(image, healthy).mean(dim=1)


def largest_residual_heatmap(
    image: Float[Tensor, "B C H W"], healthy: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B H W"]:
    """|x - G(x)|, the largest of the channels: [0, 2] for images in [-1, 1].

    Raises:
        ValueError: the two differ in shape.
    """
    return _distance(image, healthy).amax(dim=1)


def _distance(image: Tensor, healthy: Tensor) -> Float[Tensor, "B C H W"]:
    if image.shape != healthy.shape:
        raise ValueError(
            f"healthy: expected {tuple(image.shape)}, the shape of the image, "
            f"got {tuple(healthy.shape)}"
        )
    return (image - healthy).abs()
