"""Boxes: conversions between forms, frames and masks.

A box is xyxy in pixels, float32, with the origin at the image's upper left *corner*: pixel (i, j)
covers [j, j + 1) x [i, i + 1), so the box of the whole image is (0, 0, W, H). All functions accept
no boxes at all.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def xywh_to_xyxy(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """(left, top, width, height) to (left, top, right, bottom)."""
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)


def xyxy_to_xywh(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """(left, top, right, bottom) to (left, top, width, height)."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] - boxes[..., :2]), dim=-1)


def box_areas(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Area in square pixels; a box turned inside out has area 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def clip_boxes(boxes: Float[Tensor, "*n 4"], height: int, width: int) -> Float[Tensor, "*n 4"]:
    """The part of each box inside an image of `height` x `width`; outside it, a box of area 0."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    corners = (x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height))
    return torch.stack(corners, dim=-1)


def scale_boxes(
    boxes: Float[Tensor, "*n 4"], from_size: tuple[int, int], to_size: tuple[int, int]
) -> Float[Tensor, "*n 4"]:
    """The same boxes after the image was resized.

    Args:
        boxes: xyxy in an image of `from_size`.
        from_size: (height, width) of the frame the boxes are in.
        to_size: (height, width) of the frame they shall be in.

    Raises:
        ValueError: a size that is not positive.
    """
    if min(*from_size, *to_size) <= 0:
        raise ValueError(f"expected positive (height, width), got {from_size} and {to_size}")
    factor_y, factor_x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * boxes.new_tensor([factor_x, factor_y, factor_x, factor_y])


def boxes_to_mask(
    boxes: Float[Tensor, "n 4"], height: int, width: int
) -> Bool[Tensor, "{height} {width}"]:
    """The union of the boxes: a pixel is inside when its centre is."""
    x = torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5
    y = torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5
    inside_x = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    inside_y = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    return (inside_y[:, :, None] & inside_x[:, None, :]).any(dim=0)


def mask_to_box(mask: Bool[Tensor, "*n H W"]) -> Float[Tensor, "*n 4"]:
    """The smallest box around each mask; zeros (what padding looks like) for an empty mask."""
    first_x, last_x = _extent(mask.any(dim=-2))
    first_y, last_y = _extent(mask.any(dim=-1))
    box = torch.stack((first_x, first_y, last_x + 1, last_y + 1), dim=-1).float()
    return box * mask.any(dim=-1).any(dim=-1)[..., None]


def _extent(line: Bool[Tensor, "*n L"]) -> tuple[Tensor, Tensor]:
    """First and last True of each line."""
    line = line.to(torch.uint8)
    return line.argmax(dim=-1), line.shape[-1] - 1 - line.flip(-1).argmax(dim=-1)


def transform_boxes(
    boxes: Float[Tensor, "B M 4"], matrix: Float[Tensor, "B 2 3"], height: int, width: int
) -> Float[Tensor, "B M 4"]:
    """The smallest upright boxes around the boxes moved by `matrix`; not clipped to the image.

    Args:
        boxes: xyxy in pixels.
        matrix: affine map of points in normalised coordinates, where the image is [-1, 1] x [-1, 1]
            with x first; it says where a point goes.
        height: of the image, pixels.
        width: of the image, pixels.
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    u = torch.stack((x0, x1, x1, x0), dim=-1) * (2.0 / width) - 1.0
    v = torch.stack((y0, y0, y1, y1), dim=-1) * (2.0 / height) - 1.0
    a, b, c = (matrix[:, 0, k, None, None] for k in range(3))
    d, e, f = (matrix[:, 1, k, None, None] for k in range(3))
    # elementwise, not a matrix product: TF32 would move the corners by a fraction of a pixel
    x = (a * u + b * v + c + 1.0) * (width / 2.0)
    y = (d * u + e * v + f + 1.0) * (height / 2.0)
    return torch.stack((x.amin(-1), y.amin(-1), x.amax(-1), y.amax(-1)), dim=-1)
