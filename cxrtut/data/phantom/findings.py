"""The eight findings: what each changes in the beam, and where.

A finding takes the anatomy of the images that have it and returns the change of optical depth and
the region that a reader would call the finding. Disease is laid over a finished healthy chest:
nothing here draws from the anatomy's random numbers, and every parameter exists for every image
whatever its label.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cxrtut.data.phantom.anatomy import (
    FLUID_FOR_AIR,
    MU_LUNG,
    MU_SOFT,
    Anatomy,
    cage_level,
    lung_behind,
    mediastinum,
    mediastinum_profiles,
)
from cxrtut.data.phantom.randomness import Chance, Draws, Law, Normal, Uniform, draw, noise
from cxrtut.data.phantom.shapes import (
    Plane,
    at_height,
    blend,
    bump,
    chord,
    cos_sin,
    edge,
    smoothstep,
    texture,
)

Change = tuple[Plane, Bool[Tensor, "B H W"]]  # change of optical depth, region

_SPOT: dict[str, Law] = {
    "left": Chance(0.5),
    "lateral": Uniform(0, 1),  # 0 at the hilum, 1 at the chest wall
    "height": Uniform(0, 1),  # 0 at the apex, 1 at the dome
    "radius": Uniform(0, 1),
    "stretch": Uniform(0.85, 1.15, (2,)),
    "turn": Uniform(0, 3.1),
    "density": Uniform(0, 1),
    "lobes": Normal(0, 1, (3,)),
    "lobe_phase": Normal(0, 1.5, (3,)),
}
_FIELDS: dict[str, Law] = {
    "left": Chance(0.5),
    "lateral": Uniform(0, 1, (2,)),
    "height": Uniform(0, 1, (2,)),
    "width": Uniform(0, 1, (2,)),
    "length": Uniform(0, 1, (2,)),
    "turn": Uniform(-0.6, 0.6, (2,)),
    "fill": Uniform(0, 1, (2,)),
    "lobes": Normal(0, 1, (2, 3)),
    "lobe_phase": Normal(0, 1.5, (2, 3)),
}
FINDINGS: dict[str, dict[str, Law]] = {
    "Atelectasis": {
        "left": Chance(0.5),
        "wedge": Chance(0.35),
        "plate": Uniform(0, 1, (3,)),
        "lateral": Uniform(0, 1, (3,)),
        "height": Uniform(0, 1, (3,)),
        "turn": Uniform(-0.45, 0.45, (3,)),
        "length": Uniform(1.6, 4.2, (3,)),  # half, cm
        "thickness": Uniform(0, 1, (3,)),
        "bow": Normal(0, 1, (3,)),
        "lower": Chance(0.65),
        "wedge_angle": Uniform(0, 1),
        "wedge_width": Uniform(0.20, 0.36),
        "wedge_length": Uniform(6.5, 10.5),  # cm
        "wedge_density": Uniform(0.38, 0.63),
    },
    "Cardiomegaly": {"ctr": Uniform(0.54, 0.66)},
    "Effusion": {
        "left": Chance(0.5),
        "volume": Uniform(0, 1),
        "meniscus": Uniform(1.6, 5.0),  # cm that the fluid climbs at the wall
        "meniscus_width": Uniform(1.3, 2.6),
        "slope": Uniform(0.2, 1.4),
        "fade": Uniform(2.5, 5.0),
        "reader": Uniform(0.30, 0.80),  # share of the greatest change that a reader still boxes
    },
    "Infiltration": _FIELDS | {"both": Chance(0.45)},
    "Mass": _SPOT,
    "Nodule": _SPOT,
    "Pneumonia": _FIELDS | {"both": Chance(0.3)},
    "Pneumothorax": {
        "left": Chance(0.5),
        "collapse": Uniform(1.2, 5.4),  # cm between wall and pleura at the apex
        "extent": Uniform(0.35, 1.10),  # level at which the pleura touches the wall again
        "density": Uniform(0.55, 0.90),
        "reader": Uniform(0.60, 0.92),
    },
}
CLASSES = tuple(FINDINGS)


def cap(total: Plane, lung: Plane) -> Plane:
    """The change of optical depth of all findings of an image, no denser than if water took the
    place of all air that is there.
    """
    return total.minimum(FLUID_FOR_AIR * lung)


def draw_finding(name: str, key: Int[Tensor, " B"]) -> Draws:
    """Parameters of one finding for every key, and its texture `lattice` (B, 2, 40, 40)."""
    draws = draw({f"{name} {quantity}": law for quantity, law in FINDINGS[name].items()}, key)
    draws = draws.renamed(lambda full: full.removeprefix(f"{name} "))
    draws["lattice"] = noise(key, name, 2, 40, 40)
    return draws


def change(name: str, anatomy: Anatomy, draws: Draws, severity: Float[Tensor, " B"]) -> Change:
    """Change of optical depth and region of finding `name` for images that all have it.

    Args:
        severity: 0 nothing, 1 as subtle as in the clinic, 2.2 obvious. It multiplies the opacity
        of the parenchymal
            findings and, up to 1, the extent of the geometric ones (heart, fluid, collapse).
    """
    gain = severity[:, None, None]
    if name in _GEOMETRIC:
        tau, region = _GEOMETRIC[name](anatomy, draws, draws.planes(), gain.clamp(max=1))
    else:
        tau, region = _PARENCHYMAL[name](anatomy, draws, draws.planes())
        tau = gain * tau
    return tau, region & (gain > 0)


def _aerated(c: Anatomy) -> Plane:
    return c.lung_field * (c.lung > 0.2)


def _side(c: Anatomy, left: Tensor) -> Plane:
    """1 on the side of the finding."""
    return left + c.right - 2 * left * c.right


def _lung_point(c: Anatomy, left: Tensor, lateral: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """A point (cm) of the lung of one side from coordinates in [0, 1]^2; everything (B,)."""
    p = c.patient
    dome = blend(p.dome_right_y, p.dome_left_y, left) - c.acquisition.expiration
    y = p.apex_y + 1.8 + height * (dome - p.apex_y - 2.2)
    _, width = cage_level(p, y.double(), (dome + p.angle_depth).double())
    border = p.apex_x + (p.cage_half_width - p.apex_x) * width.float()
    return (2 * left - 1) * (3.3 + lateral * (border - 4.4)), y


def _lower(u: Tensor) -> Tensor:
    """Pushes a uniform number towards 1: findings prefer the lower zones, as the boxes of the
    NIH do.
    """
    return (u.double() ** 0.7).float()


def _blob(
    c: Anatomy,
    centre: tuple[Tensor, Tensor],
    radii: tuple[Tensor, Tensor],
    turn: Tensor,
    lobes: Tensor,
    phase: Tensor,
    amount: float,
) -> Plane:
    """Normalised radius of a lobulated ellipse: 1 on its outline. Arguments (B,), lobes and
    phase (B, 3).
    """
    x, y = c.frame.x - centre[0][:, None, None], c.frame.y - centre[1][:, None, None]
    cos, sin = (t[:, None, None] for t in cos_sin(turn))
    u = (cos * x).add_(sin * y).div_(radii[0][:, None, None])
    v = (cos * y).sub_(sin * x).div_(radii[1][:, None, None])
    radius = (u * u).add_(v * v).add_(1e-9).sqrt_()
    e1, f1 = u / radius, v / radius  # cos and sin of the angle; multiples by complex multiplication
    e2, f2 = (e1 * e1).sub_(f1 * f1), (2 * e1).mul_(f1)
    e3, f3 = (e2 * e1).sub_(f2 * f1), (e2 * f1).add_(f2 * e1)
    e5, f5 = (e3 * e2).sub_(f3 * f2), (e3 * f2).add_(f3 * e2)
    wave = torch.zeros_like(radius)
    for i, (e, f, share) in enumerate(((e2, f2, 0.50), (e3, f3, 0.35), (e5, f5, 0.25))):
        cos, sin = (share * lobes[:, i] * t for t in cos_sin(phase[:, i]))
        wave.add_(cos[:, None, None] * e).sub_(sin[:, None, None] * f)
    return radius.div_(wave.mul_(amount).add_(1).clamp_min_(0.3))


def _round_lesion(
    c: Anatomy,
    d: Draws,
    q: Draws,
    radius: Tensor,
    *,
    density: tuple[float, float],
    amount: float,
    rough: float,
) -> Change:
    centre = _lung_point(c, d.left, d.lateral, 0.12 + 0.85 * _lower(d.height))
    rho = _blob(
        c,
        centre,
        (radius * d.stretch[:, 0], radius * d.stretch[:, 1]),
        d.turn,
        d.lobes,
        d.lobe_phase,
        amount,
    )
    rho = rho * (1 + rough * texture(d.lattice, c.frame.x, c.frame.y)[:, 0])
    r = radius[:, None, None]
    halo = 0.10 * bump((rho - 1).clamp_min(0) / 0.18) * (rho > 0.9)
    path = r * (2 * (density[0] + density[1] * q.density) * chord(rho * rho) + 0.8 * halo)
    path = path.minimum(0.9 * c.lung + 0.4)
    lung = _aerated(c) * _side(c, q.left)
    hidden = 0.5 * c.vessels * (rho < 1)  # the lesion takes the place of vessels
    return FLUID_FOR_AIR * (path - hidden) * lung, (rho < 1.05) & (lung > 0.3)


def _nodule(c: Anatomy, d: Draws, q: Draws) -> Change:
    """A round spot of .7-1.35 cm radius; the denser ones are calcified."""
    radius = 0.7 + 0.65 * d.radius
    return _round_lesion(c, d, q, radius, density=(1.25, 0.9), amount=0.10, rough=0.03)


def _mass(c: Anatomy, d: Draws, q: Draws) -> Change:
    """A lobulated body of 1.2-6.5 cm radius with a thin halo; small ones are more frequent."""
    radius = 1.2 * (1.69 * d.radius.double() ** 1.6).exp().float()
    return _round_lesion(c, d, q, radius, density=(0.75, 0.45), amount=0.20, rough=0.05)


def _pneumonia(c: Anatomy, d: Draws, q: Draws) -> Change:
    """Consolidation: ill-defined lobulated fields that fill the air, hide vessels and show the
    bronchi as air.
    """
    n = texture(d.lattice, c.frame.x, c.frame.y)
    grain = (1 + 0.13 * n[:, 1] + 0.08 * c.fine[:, 0] + 0.15 * c.coarse[:, 0]).clamp_min(0.3)
    tau, region = torch.zeros_like(c.lung), torch.zeros_like(c.lung)
    for j in (0, 1):
        left = d.left if j == 0 else 1 - d.left
        height = 0.34 + 0.66 * _lower(d.height[:, j])
        centre = _lung_point(c, left, 0.15 + 0.7 * d.lateral[:, j], height)
        radii = 2.4 + 3.0 * d.width[:, j], 2.6 + 4.0 * d.length[:, j]
        rho = _blob(c, centre, radii, d.turn[:, j], d.lobes[:, j], d.lobe_phase[:, j], 0.22)
        rho = rho * (1 + 0.10 * n[:, 0] + 0.14 * c.coarse[:, 2])
        field = smoothstep((1.18 - rho) / 0.75) * _side(c, left[:, None, None])
        if j == 1:
            field = 0.9 * q.both * field
        fill = 0.28 + 0.34 * q.fill[:, j]
        filled = FLUID_FOR_AIR * (c.lung * grain - 1.3 * c.vessels)
        tau = tau + field * (fill * filled - 0.75 * MU_SOFT * c.bronchi)
        region = torch.maximum(region, field)
    lung = _aerated(c)
    return tau * lung, (region > 0.22) & (lung > 0.3)


def _infiltration(c: Anatomy, d: Draws, q: Draws) -> Change:
    """Fields as large as pneumonia's, fainter, streaky: haze, a net of fine ridges, and patches."""
    x, y = c.frame.x, c.frame.y
    n = texture(d.lattice, x, y)
    net = 0.55 * bump(texture(d.lattice[:, :1], 2.1 * x + 3, 2.1 * y - 2)[:, 0] / 0.35)
    net = net + 0.45 * bump(texture(d.lattice[:, 1:], 3.6 * y + 5, 3.6 * x + 1)[:, 0] / 0.35)
    patches = (0.45 + 0.55 * torch.tanh(0.9 * n[:, 1])).clamp_min(0)
    region = torch.zeros_like(c.lung)
    for j in (0, 1):
        left = d.left if j == 0 else 1 - d.left
        centre = _lung_point(
            c, left, 0.1 + 0.6 * d.lateral[:, j], 0.32 + 0.66 * _lower(d.height[:, j])
        )
        radii = 2.4 + 2.6 * d.width[:, j], 2.8 + 4.0 * d.length[:, j]
        rho = _blob(c, centre, radii, d.turn[:, j], d.lobes[:, j], d.lobe_phase[:, j], 0.2) * (
            1 + 0.18 * n[:, 0]
        )
        field = smoothstep((1.15 - rho) / 0.8) * _side(c, left[:, None, None])
        region = torch.maximum(region, field * q.both if j == 1 else field)
    lung = _aerated(c)
    haze = (0.9 + 0.7 * q.fill[:, 0]) * (0.6 + 1.5 * net + patches)
    tau = region * FLUID_FOR_AIR * (c.lung / 10).clamp(max=1.3) * haze
    return tau * lung, (region > 0.2) & (lung > 0.3)


def _atelectasis(c: Anatomy, d: Draws, q: Draws) -> Change:
    """One to three plates, or a wedge with its apex at the hilum."""
    x, y = c.frame.x, c.frame.y
    plates, opacity = torch.zeros_like(x), torch.zeros_like(x)
    sign = 2 * q.left - 1
    for j, probability in enumerate((1.1, 0.5, 0.3)):
        shown = (q.plate[:, j] < probability) * (1 - q.wedge)
        cx, cy = _lung_point(c, d.left, 0.2 + 0.55 * d.lateral[:, j], 0.62 + 0.34 * d.height[:, j])
        (cos, sin), dx, dy = (
            cos_sin(q.turn[:, j] + 0.15 * sign),
            x - cx[:, None, None],
            y - cy[:, None, None],
        )
        along = cos * dx + sin * dy
        off = cos * dy - sin * dx + 0.02 * along * along * q.bow[:, j]
        length, thickness = q.length[:, j], 0.16 + 0.30 * q.thickness[:, j]
        taper = thickness * (1 - 0.35 * (along / length).abs().clamp(max=1))
        plate = bump(off / taper) * edge(length - along.abs(), 0.3) * shown * _side(c, q.left)
        opacity = opacity + (0.20 + 0.18 * q.thickness[:, j]) * plate
        plates = torch.maximum(plates, plate)
    angle = q.lower * (0.75 + 0.7 * q.wedge_angle) - (1 - q.lower) * (0.6 + 0.7 * q.wedge_angle)
    out, down = sign * x - 3.2, y + 0.3
    cos, sin = cos_sin(angle)
    along, off = cos * out + sin * down, cos * down - sin * out
    n = texture(d.lattice, x, y)
    wedge = edge(along - 0.5, 0.4) * edge(
        q.wedge_width * along - off.abs() * (1 + 0.05 * n[:, 0]), 0.14
    )
    wedge = wedge * edge(q.wedge_length - along, 0.5) * _side(c, q.left) * q.wedge
    filled = FLUID_FOR_AIR * (c.lung * q.wedge_density * (1 + 0.12 * n[:, 1]) - 0.6 * c.vessels)
    lung = _aerated(c)
    return (opacity + wedge * filled) * lung, (torch.maximum(plates, wedge) > 0.3) & (lung > 0.3)


def _effusion(c: Anatomy, d: Draws, q: Draws, extent: Tensor) -> Change:
    """Free fluid: a level with a meniscus that climbs the lateral wall, hiding dome and
    costophrenic angle.
    """
    same, half_width = _side(c, q.left), c.patient.cage_half_width[:, None, None]
    level = c.dome + 3.0 - (1.0 + 24.0 * q.volume) * extent
    climb = q.meniscus * torch.exp(-(c.lateral - c.side_x).clamp_min(0) / q.meniscus_width)
    surface = level - climb * extent + 0.25 * c.coarse[:, 0] + q.slope * (half_width - c.side_x) / 8
    below = c.frame.y - surface
    share = extent * edge(below, 0.28) * (0.30 + 0.62 * smoothstep(below / q.fade))
    tau = FLUID_FOR_AIR * (share * c.lung - 0.8 * share * c.vessels) * same
    peak = tau.amax(dim=(1, 2), keepdim=True)
    return tau, (tau > q.reader * peak) & (peak > 0.02)


def _pneumothorax(c: Anatomy, d: Draws, q: Draws, extent: Tensor) -> Change:
    """Air outside the lung: a pleural line, and beyond it no vessels and less attenuation."""
    p, lung = c.patient.planes(), _aerated(c) * _side(c, q.left)
    gap = (c.lateral - c.side_x).clamp_min(1e-2)
    down = (0.85 * (c.frame.y - p.apex_y)).clamp_min(1e-2)
    free = (
        q.collapse
        * extent
        * (1 - c.level / q.extent).clamp(0, 1) ** 0.8
        * (1 + 0.05 * c.coarse[:, 2])
    )
    rim = free - gap * down / torch.sqrt(gap * gap + down * down)  # > 0 between wall and pleura
    air = edge(rim, 0.06) * lung * (free > 0.15)
    line = bump(rim / 0.09) * lung * (free > 0.25)
    lost = (
        MU_LUNG * q.density * c.lung * c.lung_texture + FLUID_FOR_AIR * p.vessel_density * c.vessels
    )
    tau = 0.085 * line - air * lost
    drop = air * MU_LUNG * q.density * c.lung
    peak = drop.amax(dim=(1, 2), keepdim=True)
    return tau, (drop > q.reader * peak) & (peak > 0.01)


def _cardiomegaly(c: Anatomy, d: Draws, q: Draws, extent: Tensor) -> Change:
    """The heart is drawn again with a larger cardiothoracic ratio; region = the whole enlarged
    silhouette.
    """
    ctr = c.patient.ctr + (d.ctr - c.patient.ctr) * extent[:, 0, 0]
    profiles = at_height(mediastinum_profiles(c.patient, c.acquisition, ctr), c.frame.y)
    p, a = c.patient.planes(), c.acquisition.planes()
    path, heart = mediastinum(p, a, profiles, c.frame.x, c.frame.y)
    lost = (c.lung - lung_behind(c.lung_full, c.depth, c.open_share, path)).clamp_min(0)
    hidden = c.patient.planes().vessel_density * c.vessels * (c.lung - lost < 0.3) * (c.lung >= 0.3)
    return FLUID_FOR_AIR * (lost - hidden), heart > 0.5


_PARENCHYMAL: dict[str, Callable[[Anatomy, Draws, Draws], Change]] = {
    "Atelectasis": _atelectasis,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
}
_GEOMETRIC: dict[str, Callable[[Anatomy, Draws, Draws, Tensor], Change]] = {
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
}
