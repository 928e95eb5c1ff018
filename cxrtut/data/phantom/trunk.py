"""What surrounds the lungs: soft tissue, airways, shoulder girdle and spine.

None of it has an edge as sharp as the lung's or a rib's. At 256 pixels and more it is evaluated at
half the resolution and interpolated, which costs a quarter and changes nothing that the eye can
see.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.phantom.frame import PatientGrid
from cxrtut.data.phantom.fusion import Fuse, as_written
from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import (
    Plane,
    at_height,
    blend,
    chord,
    edge,
    enlarge,
    exp,
    positive,
    profile,
    rounded,
    smoothstep,
    sqrt_,
    texture,
)
from cxrtut.data.phantom.skeleton import clavicle_wave, shoulder_girdle, spine

FULL_BELOW = 256  # pixels: smaller images are evaluated at their own resolution


@dataclass(frozen=True)
class Trunk:
    """Planes (B, H, W), lengths in cm."""

    tissue: Plane  # soft tissue as if there were no lungs, airways and gas already taken off
    body: Plane  # 0..1, silhouette
    bone: Plane  # shoulder girdle and spine
    hilum: Plane  # 0..1, how much of a hilum lies here
    coarse: Float[Tensor, "B 3 H W"]  # texture


def trunk_profiles(patient: Draws) -> Float[Tensor, "B 3 P"]:
    """Half width of the body's outline, its slope, and the trunk's thickness by height."""
    one, shoulder, neck = torch.ones_like(patient.neck), patient.shoulder_y, patient.neck
    trunk, arm = patient.cage_depth + patient.fat, patient.arm_x
    knots = torch.stack([shoulder + h for h in (-8, -3, -1.2, 0, 1.2, 2.6, 4.5, 8)], 1)
    widths = [neck, neck + 0.4, neck + 2.2, neck + 5.5, neck + 9.5, neck + 13, arm + 2, arm + 4]
    outline = profile(knots, torch.stack(widths, 1), 4.0)
    knots = torch.stack([shoulder + h for h in (-8, -1.5, 2, 6, 12, 22, 26)], 1)
    thicknesses = [13.5 * one, 13.5 * one, 15.0 * one, 0.93 * trunk, trunk, trunk + 0.3]
    thickness = profile(knots, torch.stack([*thicknesses, 1.05 * trunk], 1), 3.0)
    slope = torch.zeros_like(outline)
    slope[:, 1:-1] = (outline[:, 2:] - outline[:, :-2]) / 0.4
    return torch.stack([outline, slope, thickness], 1)


def build_trunk(
    patient: Draws,
    acquisition: Draws,
    profiles: Float[Tensor, "B 3 P"],
    size: int,
    fuse: Fuse = as_written,
) -> Trunk:
    """Evaluates the trunk on size x size pixels; `profiles` are those of `trunk_profiles`."""
    coarse_size = size // 2 if size >= FULL_BELOW else size
    frame = PatientGrid.of(patient, acquisition, coarse_size)
    x, y, grain = frame.x, frame.y, texture(patient.coarse, frame.x, frame.y)
    p, a, profiles = patient.planes(), acquisition.planes(), at_height(profiles, y)
    planes = (*fuse(_trunk)(p, a, x, y, profiles, grain, clavicle_wave(x.abs())), grain)
    if coarse_size != size:
        planes = tuple(enlarge(plane, size) for plane in planes)
    return Trunk(*planes)


def _trunk(
    p: Draws,
    a: Draws,
    x: Plane,
    y: Plane,
    profiles: Float[Tensor, "B 3 H W"],
    grain: Float[Tensor, "B 3 H W"],
    wave: Plane,
) -> tuple[Plane, ...]:
    """Soft tissue, silhouette, bone and hilum of `Trunk` at the pixels' x and y."""
    side_x, right = x.abs(), positive(-x)
    thickness, body = _body(p, a, profiles, y, side_x)
    bone = (shoulder_girdle(p, a, y, side_x, right, wave) + spine(p, a, x, y)) * body
    surface = _surface(p, y, side_x, right) - _air(p, a, x, y, side_x)
    tissue = thickness * (1 + 0.012 * grain[:, 2]) + surface * body
    hilum = exp(-(x + 3.9 - a.yaw).square() - ((y + 2.2) / 1.7).square())
    hilum = hilum + exp(-(x - 4.1 - a.yaw).square() - ((y + 3.0) / 1.7).square())
    return tissue, body, bone, hilum


def _body(
    p: Draws, a: Draws, profiles: Float[Tensor, "B 3 H W"], y: Plane, side_x: Plane
) -> tuple[Plane, Plane]:
    """Thickness of the trunk and arms (cm) and the body's silhouette (0..1)."""
    half_width, slope, thickness = profiles.unbind(1)
    inside = (half_width - side_x) / sqrt_(1 + slope * slope)
    wall = p.cage_half_width + p.wall
    flank = wall + 0.22 * (-y - 1).clamp(0, 7) + 0.05 * (y - 2).clamp_min(0) - side_x
    arm_inside = -flank - a.arm_gap * (y - a.cleft_y)
    joined = 1 - edge(y - a.cleft_y, 0.5)  # above the axilla arm and trunk are one
    trunk_path = thickness * rounded(torch.minimum(wall + joined - side_x, inside), 7.5)
    arm_depth = torch.minimum(torch.minimum(arm_inside + 9 * joined, inside), 9.5 - arm_inside)
    arm_path = p.arm_thickness * rounded(arm_depth, 4.7)
    squares = trunk_path.square().square() + arm_path.square().square()
    outer = torch.minimum(torch.maximum(flank, arm_inside) + 6 * joined, inside)
    return sqrt_(sqrt_(squares + 1e-6)), edge(outer, 0.08)


def _surface(p: Draws, y: Plane, side_x: Plane, right: Plane) -> Plane:
    """Breasts, pectoral muscles and axillary skin folds, cm."""
    across, down = (side_x - p.breast_x) / p.breast_radius, (y - p.breast_y) / p.breast_radius
    top = smoothstep((y - p.breast_y + 4.5) / 6.5)
    breast = p.breast_thickness * chord(across.square() + 1.38 * down.square()) * top
    pectoral = edge(3.7 - 0.25 * side_x - (y + 6.5).abs(), 0.6) * edge(side_x - 4, 1.5)
    present = (blend(p.fold[:, 0], p.fold[:, 1], right) - 0.6).clamp(0, 1)
    fold_x = blend(p.fold_x[:, 0], p.fold_x[:, 1], right) + 0.12 * y
    fold = edge(side_x - fold_x, 0.06) * edge(4 - y.abs(), 1.2)
    return p.female * breast + (1 - p.female) * pectoral + 0.9 * present * fold


def _air(p: Draws, a: Draws, x: Plane, y: Plane, side_x: Plane) -> Plane:
    """Trachea, main bronchi and the gas under the left dome, cm."""
    carina = p.knob_y + 1.6
    trachea = chord(((x - 0.5 * p.spine_x + 0.15 - 0.5 * a.yaw) / 0.9).square())
    bronchi = chord(((y - carina - 0.15 - 0.5 * side_x) / 0.7).square())
    bronchi = bronchi * edge(3.6 - side_x, 0.3) * edge(y - carina + 0.5, 0.2)
    down = (y - p.dome_left_y + a.expiration - p.gas_depth) / (0.45 * p.gas_width + 0.3)
    gas = p.gas_thickness * chord(((x - p.gas_x) / p.gas_width).square() + down.square())
    return 2.2 * trachea * edge(carina - y, 0.25) + 0.6 * bronchi + p.gas * gas
