"""Boxes of images that are resampled: there, and back.

Reading (data, boxes of aligned images): GRANet aligns images and does not say what becomes of their
    boxes.
    Here: Points at one and two thirds of each side are carried along, and the box around them is
        taken. Predictions are carried back the same way, and scored against the readers' boxes as
        they were drawn.
    Why: The box around four turned corners is larger than what was boxed. The detector that GRANet
        builds on carries the same eight points in its augmentation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

KINDS = ("thirds", "corners")


def warp_boxes(
    boxes: Float[Tensor, "*m 4"],
    matrix: Float[Tensor, "2 3"],
    size: int,
    *,
    kind: str = "thirds",
) -> Float[Tensor, "*m 4"]:
    """The boxes around what a matrix makes of boxes; exact where it neither turns nor shears.

    With the matrix of `nn.spatial_transformer`, which says where a point of the output is found in
    the input, boxes of the *output* are carried to the input; with its inverse, boxes of the input
    to the output.

    Args:
        boxes: xyxy in pixels; not cut off at the border.
        matrix: of points in normalised coordinates, -1 and 1 the edges of the image, x first.
        size: height and width of the image, pixels.
        kind: `thirds`, around eight points on the sides, or `corners`.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    left, top, right, bottom = (2 * side / size - 1 for side in boxes.unbind(-1))
    if kind == "corners":
        x = torch.stack((left, right, left, right), -1)
        y = torch.stack((top, top, bottom, bottom), -1)
    else:
        third = (right - left) / 3, (bottom - top) / 3
        xs, ys = (left + third[0], right - third[0]), (top + third[1], bottom - third[1])
        x = torch.stack((*xs, *xs, left, left, right, right), -1)
        y = torch.stack((top, top, bottom, bottom, *ys, *ys), -1)
    (a, b, c), (d, e, f) = matrix
    moved_x, moved_y = a * x + b * y + c, d * x + e * y + f
    corners = (moved_x.amin(-1), moved_y.amin(-1), moved_x.amax(-1), moved_y.amax(-1))
    return (torch.stack(corners, -1) + 1) * size / 2
