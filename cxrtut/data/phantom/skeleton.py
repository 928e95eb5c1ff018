"""Bones as centimetres of bone in the beam: ribs, clavicles, scapulae, humeri and spine."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import Plane, blend, bump, chord, edge, exp, positive, shell, sqrt_

LAST_POSTERIOR_RIB, LAST_ANTERIOR_RIB = 11, 9  # counted from 0


def rib_unevenness(patient: Draws) -> Float[Tensor, "B 2 R"]:
    """How far (cm) each rib lies below its place, on the left and on the right; arguments (B,)."""
    k = torch.arange(LAST_POSTERIOR_RIB + 1, device=patient.rib_phase.device).float()
    left, right = patient.rib_phase.unbind(2)  # (B, 2) each
    phases = torch.stack([left, left + (right - left)], 2)[..., None]  # as `blend` rounds it
    waves = torch.sin(2.4 * k + phases[:, 0]), torch.sin(0.9 * k + phases[:, 1])
    return patient.rib_jitter[:, None, None] * (waves[0] + waves[1])


def ribs(
    p: Draws,
    y: Plane,
    side_x: Plane,
    right: Plane,
    lateral: Plane,
    mottle: Plane,
    unevenness: Float[Tensor, "B 2 R"],
) -> Plane:
    """Each rib is a tilted planar ring: all ribs together are the level sets of one function.

    phi = y - tan(tilt) Bz (1 -+ sqrt(1 - (x / W)^2)), minus for the posterior and plus for the
    anterior arc, with Bz half the depth and W half the width of the cage. Rib k lies where
    phi = top + k spacing; the distance to it is the rest over the gradient. Two evaluations draw
    all ribs. Where a rib turns into the beam, at its lateral edge, its path grows by 1 / cos of the
    angle: the bright rim of the cage appears by itself.
    """
    wide = lateral + 0.30
    s = side_x / wide.clamp_min(0.5)
    s2 = s * s
    cosine = chord(s2 * s2)
    half_depth = 0.5 * p.cage_depth + 0.4
    rise = p.rib_tilt * half_depth
    along, across = (cosine * wide).square(), (rise * s2).square()
    obliquity = sqrt_(
        (along + across + (half_depth * s2).square()) / (along + across).clamp_min(1e-4)
    ).clamp(max=2.4)
    slope = rise * s2 / (wide * cosine.clamp_min(0.08))
    gradient = sqrt_(1 + slope * slope)
    rim = edge(wide + 0.2 - side_x, 0.10) * obliquity
    first = right * (LAST_POSTERIOR_RIB + 1)  # place of this side's ribs in the table
    table = unevenness.flatten(1)
    calcified = 0.020 * (p.age - 40).clamp_min(0) * mottle.clamp_min(0)
    bone = torch.zeros_like(y)
    for posterior in (True, False):
        phi = y - rise * (1 - cosine if posterior else 1 + cosine)
        if posterior:
            phi = phi + 0.5 * bump((side_x - 4.5) / 2.6)  # the hump behind the rib angle
        k = ((phi - p.rib_top) / p.rib_spacing).round()
        place = (k.clamp(0, LAST_POSTERIOR_RIB) + first).long()
        uneven = table.gather(1, place.flatten(1)).view_as(k)
        distance = (phi - p.rib_top - k * p.rib_spacing - uneven) / gradient
        half = p.rib_half_width * (1.0 if posterior else 1.08)
        rib = shell((distance / half).square(), 0.56) + 0.14 * bump((distance + 0.8 * half) / 0.14)
        last = LAST_POSTERIOR_RIB if posterior else LAST_ANTERIOR_RIB
        exists = positive(1 - (k - k.clamp(0, last)).abs())
        if posterior:
            seen = edge(side_x - 2.0, 0.3) * (1 - 0.45 * (k - 9).clamp(0, 1))
        else:
            bony = edge(side_x - (6.0 + 0.28 * (k - 3)), 0.35)
            cartilage = edge(side_x - 3.0, 0.5) - bony
            seen = 0.66 * bony + calcified * cartilage.clamp_min(0)
        bone = bone + rib * rim * seen * exists
    return bone * p.rib_density


def clavicle_wave(side_x: Plane) -> Plane:
    """The course of a clavicle that is not bent: a sine of |x|."""
    return torch.sin((side_x - 2) * (2 * math.pi / 13.5))


def shoulder_girdle(
    p: Draws, a: Draws, y: Plane, side_x: Plane, right: Plane, wave: Plane
) -> Plane:
    """Clavicle, scapula with its spine, and humerus; both sides in one evaluation on |x|. `wave`
    is that of `clavicle_wave`.
    """

    def side(name: str) -> Plane:
        return blend(p[name][:, 1], p[name][:, 0], right)

    arc = side_x - 2
    height = p.clavicle_y - side("clavicle_slope") * arc
    height = height + 0.6 * side("clavicle_bow") * wave
    thick = 0.60 + 0.30 * bump((side_x - 1.9) / 1.2) + 0.10 * bump((side_x - 14) / 2.5)
    start = 1.4 + 6 * a.yaw * (
        1 - 2 * right
    )  # a turned patient shows one clavicle's end nearer to the spine
    clavicle = 1.25 * shell((0.97 * (y - height) / thick).square(), 0.5)
    clavicle = 1.35 * clavicle * edge(side_x - start, 0.12) * edge(16.0 - side_x, 0.2)

    edge_x = side("scapula_x") - a.scapula_in
    from_edge = side_x - edge_x
    border = from_edge + 2.4 + side("scapula_slope") * (y + 4) - 0.035 * (y + 3).square()
    upper, lower = y + 10.4 + 0.10 * from_edge, (2.0 - y) * 0.8 - 0.9 * from_edge
    inside = torch.minimum(torch.minimum(border, upper), lower)
    blade = (0.22 * edge(inside, 0.10) + 0.60 * bump((inside - 0.15) / 0.17)) * edge(
        inside + 0.6, 0.1
    )
    ridge = edge(torch.minimum(from_edge + 1.6, 19.5 - side_x), 0.4)
    ridge = 0.70 * ridge * bump((y + 9.7 + 0.26 * from_edge) / 0.42)

    outward = side_x - side("scapula_x") - 4.4
    head = (outward.square() + (y + 8.4).square()) / 5.3
    shaft = ((outward - 1.0 - 0.12 * (y + 8.4)) / 1.3).square()
    shaft = shell(shaft, 0.62) * edge(y + 7.6, 0.4)
    humerus = torch.maximum(chord(head) - 0.6 * chord(1.18 * head), shaft)
    return clavicle + blade + ridge + 1.7 * humerus


def spine(p: Draws, a: Draws, x: Plane, y: Plane) -> Plane:
    """A row of vertebrae: body, end plates, cortex, pedicles, spinous and transverse processes."""
    x = x - p.spine_x - 0.3 * p.spine_bend * y * y + 5 * a.yaw
    count = (y + 20) / (2.05 + 0.018 * (y + 20)) + p.spine_phase
    f = count - count.floor() - 0.5  # -1/2 .. 1/2 within a vertebra
    half, side_x = 1.40 + 0.020 * (y + 14).clamp_min(0), x.abs()
    body = edge(half * (0.90 + 0.40 * f * f) - side_x, 0.08)
    filled = edge(0.41 - f.abs(), 0.025)  # 0 in the disc space
    bone = 0.42 * body * (0.55 + 0.45 * filled) * chord((x / (1.25 * half)).square())
    bone = (
        bone
        + 0.30 * body * bump((f.abs() - 0.40) / 0.035)
        + 0.30 * bump((side_x - half + 0.08) / 0.09) * filled
    )
    pedicles = exp(-((side_x - 0.72 * half) / 0.28).square() - ((f + 0.18) / 0.17).square())
    spinous = exp(-(x / 0.2).square() - ((f - 0.1) / 0.26).square())
    transverse = (
        bump((f + 0.2) / 0.12) * edge(half + 1.3 - side_x, 0.2) * edge(side_x - half + 0.2, 0.2)
    )
    return bone + 0.55 * pedicles + 0.6 * spinous + 0.3 * transverse
