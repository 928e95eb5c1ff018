"""Whether what was in a box is still in it."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.metrics.inputs import check_finite, check_truth


def box_change(
    image: Float[Tensor, "B C H W"],
    output: Float[Tensor, "B C H W"],
    inside: Bool[Tensor, "B H W"],
) -> Float[Tensor, "B"]:
    """The largest change of a pixel in the boxes of each image, in grey levels of 255; float64.

    0 where everything in them is as it was, to the bit, and where there is nothing in them.

    Args:
        image: in [-1, 1].
        output: what was made of it, in the same place.
        inside: the pixels of the boxes.

    Raises:
        TypeError: the mask is not of bools, or an image not of floats.
        ValueError: shapes that do not agree, or values that are not finite.
    """
    before = check_finite("image", image, "B C H W")
    after = check_finite("output", output, "B C H W")
    if before.shape != after.shape:
        raise ValueError(
            f"output: expected the shape of image, {tuple(before.shape)}, got {tuple(after.shape)}"
        )
    height, width = before.shape[-2:]
    check_truth("inside", inside, (len(before), height, width), "image")
    changed = (after.double() - before.double()).abs() * 127.5
    return changed.masked_fill(~inside[:, None], 0).flatten(1).amax(1)
