"""What readers would mark: boxes from regions, landmarks, the cardiothoracic ratio."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cxrtut.data.phantom.anatomy import cage_level, dome_fall
from cxrtut.data.phantom.randomness import Draws

MAX_BOXES = 6  # three findings, one box a lung side
LANDMARKS = (
    "right apex", "left apex", "right dome", "left dome",
    "right costophrenic angle", "left costophrenic angle",
    "carina", "aortic knob", "heart apex",
)  # fmt: skip


def _extent(line: Bool[Tensor, "*S N"]) -> tuple[Tensor, Tensor, Tensor]:
    """First and one-past-last true place of each line, and whether there is one."""
    n, value = line.shape[-1], line.to(torch.uint8)
    return value.argmax(-1), n - value.flip(-1).argmax(-1), line.any(-1)


def boxes_by_side(
    name: str, region: Bool[Tensor, "B H W"], right: Bool[Tensor, "B H W"]
) -> tuple[Float[Tensor, "B 2 4"], Bool[Tensor, "B 2"]]:
    """Enclosing boxes (xyxy pixels) of a finding on the right and the left, and if it is there.

    The heart has one box, in the first place. Nothing is read back to the host.
    """
    if name == "Cardiomegaly":
        sides = torch.stack([region, torch.zeros_like(region)], 1)
    else:
        sides = torch.stack([region & right, region & ~right], 1)
    y0, y1, there = _extent(sides.any(3))
    x0, x1, _ = _extent(sides.any(2))
    return torch.stack([x0, y0, x1, y1], -1).float(), there


def pack_boxes(
    boxes: Float[Tensor, "B K 2 4"], there: Bool[Tensor, "B K 2"]
) -> tuple[Float[Tensor, "B M 4"], Int[Tensor, "B M"]]:
    """Boxes that are there moved to the front, M = `MAX_BOXES`; the rest is zeros with class -1."""
    n, classes = there.shape[:2]
    label = (
        torch.arange(classes, device=there.device)[:, None].expand(-1, 2).flatten().expand(n, -1)
    )
    there = there.flatten(1)
    order = (~there).to(torch.uint8).argsort(dim=1, stable=True)[:, :MAX_BOXES]
    there = there.gather(1, order)
    boxes = boxes.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
    return boxes * there[..., None], torch.where(there, label.gather(1, order), -1)


def _costophrenic_angle(p: Draws, dome: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Where the diaphragm meets the lateral border of the lung; side -1 is the right, +1 the left.

    A fixed point of y = diaphragm(border(y)), reached in a few steps because the border is steep.
    """
    half_width = p.cage_half_width * (1 - 0.02 * p.cage_asymmetry * side)
    bottom = (dome + p.angle_depth).double()
    y = bottom - 1
    for _ in range(20):
        _, width = cage_level(p, y, bottom)
        border = p.apex_x + (half_width - p.apex_x) * width
        y = 0.5 * y + 0.5 * (dome + dome_fall(p, border - p.dome_peak_x, half_width))
    return side * border.float(), y.float()


def landmarks(p: Draws, a: Draws) -> Float[Tensor, "B 9 2"]:
    """Patient coordinates (cm) of the nine `LANDMARKS` of the healthy chest of patients `p` in
    visits `a`.
    """
    right_dome, left_dome = p.dome_right_y - a.expiration, p.dome_left_y - a.expiration
    points = [
        (-p.apex_x, p.apex_y),
        (p.apex_x, p.apex_y),
        (-p.dome_peak_x, right_dome),
        (p.dome_peak_x, left_dome),
    ]
    for side, dome in ((-1, right_dome), (1, left_dome)):
        points.append(_costophrenic_angle(p, dome, side))
    width = p.ctr * 2 * p.cage_half_width * a.magnification
    points += [
        (0.5 * p.spine_x - 0.15 + 0.5 * a.yaw, p.knob_y + 1.6),
        (2.3 * p.mediastinum + p.knob + 2.5 * a.yaw, p.knob_y),
        (width * (0.67 - p.heart_share) + 2.5 * a.yaw, right_dome - 1.6),
    ]
    x, y = torch.stack([x for x, _ in points], 1), torch.stack([y for _, y in points], 1)
    return torch.stack([x, y], dim=-1)


def cardiothoracic_ratio(
    heart: Bool[Tensor, "B H W"], lung: Bool[Tensor, "B H W"]
) -> Float[Tensor, " B"]:
    """Widest heart over widest lungs, measured across the columns of upright silhouettes (0
    where there is no lung).
    """

    def width(silhouette: Tensor) -> Tensor:
        first, past, there = _extent(silhouette.any(1))
        return ((past - first) * there).float()

    return width(heart) / width(lung).clamp_min(1)
