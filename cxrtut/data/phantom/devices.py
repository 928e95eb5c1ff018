"""Objects in the beam: catheters, tubes, electrodes, ports. They lie on healthy and abnormal
patients alike.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.phantom.acquisition import SMALLEST_FOV
from cxrtut.data.phantom.frame import PatientGrid
from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import blur, chord, splat

_POINTS = 240  # along a wire
_WIRE_WIDTH = 0.06  # cm


def lay_wires(a: Draws) -> Draws:
    """Points of all wires (`x`, `y`, cm, patient coordinates) and what each weighs, all (B, N)."""
    t = torch.linspace(0, 1, _POINTS, device=a.fov.device)
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    weights: list[Tensor] = []

    def wire(x: Tensor, y: Tensor, weight: Tensor) -> None:
        xs.append(x)
        ys.append(y)
        weights.append(weight.expand_as(x))

    wire(*_central_line(a, t), 0.018 * a.line[:, None])

    # a tracheal tube ends above the carina, a gastric one below the dome
    end, tube = _tube_end(a)[:, None], a.tube[:, None]
    y = -20 + (end + 20) * t
    bend = 0.10 * (y - 7).clamp_min(0) ** 2  # a gastric tube turns left through the diaphragm
    for offset in (-0.35, 0.35):
        wire(0.4 * torch.sin(0.25 * y) + offset + bend, y, 0.016 * tube)

    place = a.lead_place[..., None]
    for i, (x0, y0) in enumerate(((-9.0, -7.0), (9.0, -7.0), (8.0, 6.0))):
        x = (
            x0
            + 2 * place[:, i, 0]
            + (2 + 2 * place[:, i, 2]) * t
            + place[:, i, 3] * torch.sin(5 * t)
        )
        cable_y = y0 + 1.5 * place[:, i, 1] - (14 + y0 * 0.5) * t
        wire(x, cable_y, 0.022 * a.leads[:, None])
        ring = _electrode(x[:, :1], cable_y[:, :1])
        wire(*ring, 0.012 * a.leads[:, None])

    side, (px, py) = 2 * (a.port_place[:, 0:1] > 0.4).float() - 1, _port(a)
    x = (px[:, None] - side * 1.0) * (1 - t) * (1 - t) + 2 * t * (1 - t) * side * 2 + t * t * 3.5
    wire(x, py[:, None] + (5 - py[:, None]) * t * t + 2.0 * t, 0.030 * a.port[:, None])
    x, y, weight = torch.cat(xs, 1), torch.cat(ys, 1), torch.cat(weights, 1)
    return Draws({"x": x, "y": y, "weight": weight})


def _tube_end(a: Draws) -> Tensor:
    """Height of a tube's end: 3 to 5 cm above the carina, or in the stomach; (B,)."""
    return torch.where(a.tube_gastric > 0, 12.0 + 3.5 * a.tube_end, -10.0 + 2.0 * a.tube_end)


def _central_line(a: Draws, t: Tensor) -> tuple[Tensor, Tensor]:
    """A central venous catheter from the right jugular vein, the right subclavian or the left
    brachiocephalic vein to its tip where the superior vena cava meets the atrium; rarely it is
    malpositioned and turns into the vein of the other side. Both (B, N).
    """
    q, vein = a.line_path, a.line_from
    jugular, left = vein < 0.5, vein > 0.75
    start_x = torch.where(jugular, -4.2 + 0.5 * q[:, 0], -11.0 + 0.9 * q[:, 0])
    start_x = torch.where(left, 9.5 + 0.9 * q[:, 0], start_x)
    start_y = torch.where(jugular, torch.full_like(vein, -20.0), -12.0 + 0.6 * q[:, 1])
    bend_x = torch.where(left, -1.5 + 0.4 * q[:, 2], -3.3 + 0.3 * q[:, 2])
    bend_y = -9.5 + 0.4 * q[:, 2]
    astray = a.line_malposed > 0
    tip_x = torch.where(astray, torch.where(left, -7.0, 6.5) + 0.6 * q[:, 3], -2.5 + 0.45 * q[:, 3])
    tip_y = torch.where(astray, -10.0 + 0.5 * q[:, 4], -1.0 + 0.9 * q[:, 4])
    path = []
    for first, middle, last in ((start_x, bend_x, tip_x), (start_y, bend_y, tip_y)):
        first, middle, last = (v[:, None] for v in (first, middle, last))
        path.append((1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last)
    return path[0], path[1]


def _port(a: Draws) -> tuple[Tensor, Tensor]:
    side = 2 * (a.port_place[:, 0] > 0.4).float() - 1
    return side * (8.5 + 2 * a.port_place[:, 1]), -9.5 + 2.5 * a.port_place[:, 2]


def devices(acquisition: Draws, wires: Draws, frame: PatientGrid) -> Float[Tensor, "B H W"]:
    """Optical depth that the objects add; `wires` come from `lay_wires`."""
    a = acquisition
    px, py = frame.to_pixels(wires.x, wires.y)
    thickness = splat(px, py, wires.weight / frame.pixel[:, :, 0] ** 2, frame.size)
    tau = blur(
        thickness, _WIRE_WIDTH / frame.pixel, max(0.4, _WIRE_WIDTH / SMALLEST_FOV * frame.size)
    )
    rows = (a.port > 0).nonzero()[:, 0]  # few have one
    if len(rows):
        px, py = (t[rows, None, None] for t in _port(a))
        x, y = frame.x[rows], frame.y[rows]
        can = ((x - px) / 1.9).square().square() + ((y - py) / 1.5).square().square()
        tau[rows] += 1.6 * a.port[rows, None, None] * chord(can)
    return tau


def _electrode(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Points of a ring and a knob around (x, y), arguments (B, 1)."""
    t = torch.arange(90, device=x.device) * (2 * math.pi / 60)
    radius = torch.where(t < 2 * math.pi, 0.5, 0.15)
    return x + radius * t.cos(), y + radius * t.sin()
