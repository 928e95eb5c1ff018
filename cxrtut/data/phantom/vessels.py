"""Pulmonary vessels and bronchi: random trees in space, added to the image by their volume.

Two lungs, each with `roots` trees that leave the hilum in a fan and fork at every level. The
radius shrinks by a factor of .68-.88 at a fork, near the 2^(-1/3) = .79 of Murray's law (Murray,
PNAS 1926).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.data.phantom.acquisition import SMALLEST_FOV
from cxrtut.data.phantom.frame import PatientGrid
from cxrtut.data.phantom.randomness import noise
from cxrtut.data.phantom.shapes import Plane, blur, splat

HILUM_X = (-3.2, 3.4)  # cm, right and left
HILUM_Y = (-2.2, -3.0)  # cm; the left hilum is the higher one
SPREAD_WIDTHS = (0.26, 0.17, 0.17, 0.10)  # cm, blur of levels 0, 1, 2 and of all finer ones


@dataclass(frozen=True)
class Branches:
    """All branches of one level: straight but for a bend that grows along the branch. Axes B,
    (xyz,) side, branch.
    """

    start: Float[Tensor, "B 3 2 S"]
    step: Float[Tensor, "B 3 2 S"]  # unit direction x length, cm
    bend: Float[Tensor, "B 3 2 S"]
    volume: Float[Tensor, "B 2 S"]  # cm^3
    typical: float  # length, cm


@dataclass(frozen=True)
class Calibre:
    """The points of all branches of one width: patient coordinates as the beam sees them (cm)."""

    width: float  # cm
    x: Float[Tensor, "B N"]
    y: Float[Tensor, "B N"]
    volume: Float[Tensor, "B N"]  # cm^3

    def take(self, rows: slice) -> Calibre:
        return Calibre(self.width, self.x[rows], self.y[rows], self.volume[rows])


def grow_tree(
    key: Int[Tensor, " B"], name: str, *, roots: int, levels: int, radius: float
) -> list[Branches]:
    """One random tree per image and lung; a level for every element of the list.

    Args:
        name: which tree of the patient, for instance "vessels" or "bronchi".
        roots: number of branches that leave each hilum.
        radius: mean radius of those, cm.
    """
    # angles to the horizontal, rad, + is down
    fan = torch.linspace(-1.45, 1.35, roots, device=key.device)
    z = _components(noise(key, name, 2, roots, 7))
    angle, tilt = fan + 0.14 * z[:, 0], 0.5 * z[:, 1].clamp(-1.6, 1.6)
    direction = torch.stack([angle.cos() * tilt.cos(), angle.sin() * tilt.cos(), tilt.sin()], 1)
    start = z[:, 2:5] * z.new_tensor([0.35, 0.8, 0.8])[:, None, None]
    spread = torch.sigmoid(1.7 * z[:, 5:7])  # near uniform on (0, 1)
    length = 2.3 * (0.8 + 0.4 * spread[:, 0]) * (1 + 0.25 * angle.sin().abs())
    radii = radius * (0.7 + 0.5 * spread[:, 1])
    tree, typical = [], 2.3
    for level in range(levels):
        last = level == levels - 1  # nothing leaves these, which are half of all branches
        z = noise(key, f"{name} {level}", 2, radii.shape[2], 10)
        z = _components(z[..., :3] if last else z)
        bend = 0.24 * z[:, :3] * length[:, None]
        step = direction * length[:, None]
        volume = math.pi * radii * radii * length
        tree.append(Branches(start, step, bend, volume, typical))
        if last:
            break
        tip = _unit(step + bend)
        across = z[:, 3:6] * z.new_tensor([1.2, 1.2, 0.5])[:, None, None]
        across = _unit(across - tip * _dot(across, tip))
        spread = torch.sigmoid(1.7 * z[:, 6:10])
        turn = 0.22 + 0.30 * spread[:, :2]
        cos, sin = turn.cos(), turn.sin()
        tips = [tip * cos[:, :1] + across * sin[:, :1], tip * cos[:, 1:] - across * sin[:, 1:]]
        direction, end = torch.cat(tips, dim=3), start + step + bend
        start = torch.cat([end, end], dim=3)
        shrink = spread[:, 2:].transpose(1, 2).flatten(2)  # of the first branches, then the second
        radii = torch.cat([radii, radii], dim=2) * (0.68 + 0.20 * shrink)
        length = torch.cat([length, length], dim=2) * (0.72 + 0.22 * shrink.flip(2))
        typical *= 0.80
    return tree


def _components(z: Float[Tensor, "B 2 S n"]) -> Float[Tensor, "B n 2 S"]:
    """Branches side by side in memory: torch is several times slower on vectors of length 3."""
    return z.movedim(3, 1).contiguous()


def _dot(a: Float[Tensor, "B 3 2 S"], b: Float[Tensor, "B 3 2 S"]) -> Float[Tensor, "B 1 2 S"]:
    x, y, z = (a * b).split(1, dim=1)
    return x + y + z


def _unit(v: Float[Tensor, "B 3 2 S"]) -> Float[Tensor, "B 3 2 S"]:
    return v / _dot(v, v).sqrt()


def _smallest_pixel(size: int) -> float:
    """Bound on the pixels of all images (cm), so that counts are the same for all."""
    return SMALLEST_FOV / size


def cut_tree(tree: list[Branches], yaw: Float[Tensor, " B"], size: int) -> list[Calibre]:
    """Cuts branches into points about a pixel apart, each carrying its share of the volume.

    Args:
        yaw: of the patient (rad): points move sideways by their depth.
        size: pixels of an image side.
    """
    x0, y0, side = (yaw.new_tensor(v)[:, None] for v in (HILUM_X, HILUM_Y, (-1.0, 1.0)))
    calibres = []
    for width in dict.fromkeys(SPREAD_WIDTHS):
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for level, branches in enumerate(tree):
            if SPREAD_WIDTHS[min(level, len(SPREAD_WIDTHS) - 1)] != width:
                continue
            n = min(7, max(1, math.ceil(branches.typical / _smallest_pixel(size) / 1.7)))
            t = (torch.arange(n, device=yaw.device, dtype=torch.float32) + 0.5) / n
            t = t[:, None, None, None]
            path = branches.step[:, None] * t + branches.bend[:, None] * (t * t)
            point = branches.start[:, None] + path  # (B, n, 3, 2, S)
            x = x0 + side * point[:, :, 0] + yaw[:, None, None, None] * point[:, :, 2]
            y = y0 + point[:, :, 1]
            share = (branches.volume / n)[:, None].expand(-1, n, -1, -1)
            parts.append((x.flatten(1), y.flatten(1), share.flatten(1)))
        if parts:
            x, y, volume = (torch.cat(group, 1) for group in zip(*parts, strict=True))
            calibres.append(Calibre(width, x, y, volume))
    return calibres


def project_tree(calibres: list[Calibre], frame: PatientGrid) -> Plane:
    """Thickness of the tree along the beam, cm: points are added up, a blur gives them width."""
    area, out = frame.pixel[:, :, 0] ** 2, torch.zeros_like(frame.x)
    for calibre in calibres:
        px, py = frame.to_pixels(calibre.x, calibre.y)
        layer = splat(px, py, calibre.volume / area, frame.size)
        widest = calibre.width / _smallest_pixel(frame.size)
        out = out + blur(layer, calibre.width / frame.pixel, widest)
    return out
