"""Heat maps from an image and its healthy version: what was changed is what is ill (Zhang et al.,
MICCAI 2019).

Reading: the paper shows "the difference" of the input and the output of its encoder-decoder, and
normalises the heat maps to [0, 1] before scoring. It says neither how the channels are joined nor
whether one image or all images are normalised together. We take the absolute difference and the
mean over the channels (`residual_heatmap`; the largest channel is `largest_residual_heatmap`; one
channel makes them equal), and leave the range alone: `heatmap.normalise` normalises per image,
which is our headline because activation maps need it too. Normalising all images together is a
rising function of all pixels and changes no ranking, so for a precision-recall curve it is the map
as it comes.
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
