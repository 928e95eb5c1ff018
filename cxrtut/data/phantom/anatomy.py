"""The chest as path lengths: the centimetres of lung, tissue and bone in the beam of each pixel.

Everything is evaluated at the patient coordinates of the pixels, so that pose is exact and nothing
is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.phantom.devices import lay_wires
from cxrtut.data.phantom.frame import PatientGrid
from cxrtut.data.phantom.fusion import Fuse, as_written
from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import (
    Plane,
    at_height,
    blend,
    bump,
    chord,
    edge,
    exp,
    heights,
    positive,
    profile,
    root,
    smoothstep,
    texture,
)
from cxrtut.data.phantom.skeleton import rib_unevenness, ribs
from cxrtut.data.phantom.trunk import build_trunk, trunk_profiles
from cxrtut.data.phantom.vessels import Calibre, cut_tree, grow_tree, project_tree

# Effective attenuation at 60-70 keV, 1/cm (water .20; lung inflated to a quarter of it; bone:
# excess over soft tissue)
MU_SOFT, MU_LUNG, MU_BONE = 0.200, 0.048, 0.36
FLUID_FOR_AIR = (
    MU_SOFT - MU_LUNG
)  # what a centimetre of fluid instead of lung adds to the optical depth


class Anatomy:
    """What detector and findings need to know of a healthy chest. Planes are (B, H, W); lengths
    in cm.

    Attributes:
        right: 1 on the patient's right half, else 0.
        side_x: |x|.
        level: u, 0 at the apex, about .74 at the widest place, 1 at the costophrenic angle.
        lateral: |x| of the lung's lateral border.
        dome: y of the dome on this side.
        lung_field: 0..1, the lung as seen above the diaphragm.
        lung_full: lung path without heart and diaphragm.
        lung: lung path.
        depth: depth of the cage.
        open_share: share of the lung path above and behind the diaphragm.
        heart: 0..1, silhouette of the heart.
        vessels, bronchi: their paths.
        lung_texture: relative lung density.
        coarse, fine: (B, 3, H, W) textures.
        body: 0..1.
        tau: optical depth of the healthy chest.
    """

    def __init__(
        self, frame: PatientGrid, patient: Draws, acquisition: Draws, planes: Draws
    ) -> None:
        self.frame, self.patient, self.acquisition = frame, patient, acquisition
        self._planes = planes

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._planes, name)

    def take(self, rows: Tensor) -> Anatomy:
        """The anatomy of some of the images, given in ascending order; of its planes only those
        that are asked for.
        """
        if len(rows) == len(self.frame.pixel):
            return self
        frame = PatientGrid(
            self.frame.x[rows],
            self.frame.y[rows],
            self.frame.pixel[rows],
            self.frame.pose[rows],
            self.frame.size,
        )
        patient, acquisition = self.patient.take(rows), self.acquisition.take(rows)
        return Anatomy(frame, patient, acquisition, self._planes.take(rows))


def cage_level(patient: Draws, y: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
    """Level u between apex and costophrenic angle, and the cage's relative width there."""
    u = (y - patient.apex_y) / (bottom - patient.apex_y)
    q = (1 - u / 0.74).clamp(0, 1)
    width = (1 - q**1.8).clamp_min(1e-6) ** 0.6
    return u, width * (1 - 0.07 * ((u - 0.74) / 0.26).clamp_min(0) ** 2)


def dome_fall(p: Draws, outwards: Tensor, half_width: Tensor) -> Tensor:
    """How far (cm) the diaphragm falls `outwards` cm lateral of the dome's highest point."""
    fall = (outwards / (half_width - p.dome_peak_x)).clamp(0, 1.1).square()
    return p.angle_depth * fall * (0.45 + 0.55 * fall * fall)


def heart_width(patient: Draws, acquisition: Draws, ctr: Tensor) -> Tensor:
    """Projected width of the heart, cm: cardiothoracic ratio x inner width of the cage x
    magnification.
    """
    return ctr * 2 * patient.cage_half_width * acquisition.magnification


def mediastinum_profiles(patient: Draws, acquisition: Draws, ctr: Tensor) -> Float[Tensor, "B 3 P"]:
    """Right border, left border and depth of heart and great vessels by height (arguments (B,))."""
    p, dome, apex = patient, patient.dome_right_y - acquisition.expiration, patient.apex_y
    width = heart_width(p, acquisition, ctr)
    right, left = width * (0.33 + p.heart_share), width * (0.67 - p.heart_share)
    one, m, knob_y = torch.ones_like(dome), p.mediastinum, p.knob_y
    heights = [
        apex - 6, apex, knob_y - 2.5, knob_y, knob_y + 2.3, knob_y + 4.0,
        dome - 7.6, dome - 4.2, dome - 1.6, dome + 0.8, dome + 4,
    ]  # fmt: skip
    right_border = [
        2.4 * one, 2.3 * one, 2.5 * m, 2.75 * m, 2.7 * m, 2.6 * m,
        torch.maximum(0.80 * right, 2.6 * m), right, 0.97 * right, 0.80 * right, 0.6 * right,
    ]  # fmt: skip
    left_border = [
        2.4 * one, 2.4 * one, 2.3 * m, 2.3 * m + p.knob, 2.4 * m + 0.2,
        torch.maximum(3.3 * m, 0.40 * left), torch.maximum(0.62 * left, 3.4 * m),
        0.90 * left, left, 0.93 * left, 0.75 * left,
    ]  # fmt: skip
    depths = torch.tensor(
        [6.0, 6.5, 8.5, 9.5, 9.0, 9.2, 10.4, 11.6, 11.6, 10.5, 8.0], device=dome.device
    )
    depths = depths * (0.85 + 0.15 * (width / 12.4))[:, None]
    knots = torch.stack(heights, 1)
    knots = (
        torch.cummax(knots, 1).values + torch.arange(11, device=dome.device) * 1e-3
    )  # a very high dome
    irregular = 1 + p.heart_border
    irregular[:, :, 7:9] = 1  # the widest place keeps the cardiothoracic ratio exact
    return torch.stack(
        [
            profile(knots, torch.stack(right_border, 1) * irregular[:, 0], 2.2),
            profile(knots, torch.stack(left_border, 1) * irregular[:, 1], 2.2),
            profile(knots, depths, 3.0),
        ],
        dim=1,
    )


def mediastinum(
    p: Draws, a: Draws, profiles: Float[Tensor, "B 3 H W"], x: Plane, y: Plane
) -> tuple[Plane, Plane]:
    """Path through heart and mediastinum (cm) and the heart's silhouette (0..1).

    `profiles` are those of `mediastinum_profiles`, read at the height of each pixel.
    """
    right, left, depth = profiles.unbind(1)
    x = x - 2.5 * a.yaw
    s = (x / blend(left, right, positive(-x))).abs()
    dome = p.dome_right_y - a.expiration
    path = depth * chord(s * s * s) * edge(dome + 5 - y, 0.6)
    above, below = positive(dome + 1.2 - y), positive(y - p.knob_y - 3.2)
    heart = positive(1 - s) * above * below
    return path, heart


def _cage_profiles(patient: Draws, acquisition: Draws) -> Float[Tensor, "B 2 P"]:
    """Relative width of the right and the left half of the cage by height."""
    p, y = Draws({"apex_y": patient.apex_y[:, None]}), heights(patient.apex_y.device)
    widths = []
    for dome in (patient.dome_right_y, patient.dome_left_y):
        bottom = (dome - acquisition.expiration + patient.angle_depth)[:, None].double()
        widths.append(cage_level(p, y.double(), bottom)[1].float())
    return torch.stack(widths, 1)


@dataclass(frozen=True)
class Plan:
    """All that is known of some images of `size` pixels before any of them is drawn; cheap when
    made for many at once.
    """

    patient: Draws
    acquisition: Draws
    profiles: Float[Tensor, "B 5 P"]  # mediastinum, width of the cage on the right and the left
    trunk_profiles: Float[Tensor, "B 3 P"]
    vessels: list[Calibre]
    bronchi: list[Calibre]
    wires: Draws

    @classmethod
    def of(cls, patient: Draws, acquisition: Draws, size: int) -> Plan:
        heart = mediastinum_profiles(patient, acquisition, patient.ctr)
        wires = lay_wires(acquisition)
        profiles = torch.cat([heart, _cage_profiles(patient, acquisition)], 1)
        vessels = grow_tree(patient.key, "vessels", roots=16, levels=7, radius=0.36)
        bronchi = grow_tree(patient.key, "bronchi", roots=8, levels=4, radius=0.27)
        cut = [cut_tree(tree, acquisition.yaw, size) for tree in (vessels, bronchi)]
        return cls(patient, acquisition, profiles, trunk_profiles(patient), cut[0], cut[1], wires)

    def take(self, rows: slice) -> Plan:
        vessels = [level.take(rows) for level in self.vessels]
        bronchi = [level.take(rows) for level in self.bronchi]
        patient, acquisition = self.patient.take(rows), self.acquisition.take(rows)
        profiles, trunk = self.profiles[rows], self.trunk_profiles[rows]
        wires = self.wires.take(rows)
        return Plan(patient, acquisition, profiles, trunk, vessels, bronchi, wires)


def build_anatomy(plan: Plan, size: int, fuse: Fuse = as_written) -> Anatomy:
    """Evaluates the healthy chest of each planned image on size x size pixels."""
    patient, acquisition = plan.patient, plan.acquisition
    frame = PatientGrid.of(patient, acquisition, size)
    trunk = build_trunk(patient, acquisition, plan.trunk_profiles, size, fuse)
    fine = texture(patient.fine, frame.x, frame.y)
    planes = fuse(_chest)(
        patient.planes(), acquisition.planes(), frame.x, frame.y, frame.pixel,
        at_height(plan.profiles, frame.y), trunk.coarse, fine,
        trunk.tissue, trunk.body, trunk.bone, trunk.hilum,
        project_tree(plan.vessels, frame), project_tree(plan.bronchi, frame),
        rib_unevenness(patient),
    )  # fmt: skip
    named = dict(zip(_CHEST, planes, strict=True))
    named |= {"coarse": trunk.coarse, "fine": fine, "body": trunk.body}
    return Anatomy(frame, patient, acquisition, Draws(named))


_CHEST = (
    "right", "side_x", "level", "lateral", "dome", "lung_field", "lung_full", "lung", "depth",
    "open_share", "heart", "vessels", "bronchi", "lung_texture", "tau",
)  # fmt: skip


def _chest(
    p: Draws,
    a: Draws,
    x: Plane,
    y: Plane,
    pixel: Float[Tensor, "B 1 1"],
    profiles: Float[Tensor, "B 5 H W"],
    coarse: Float[Tensor, "B 3 H W"],
    fine: Float[Tensor, "B 3 H W"],
    tissue: Plane,
    body: Plane,
    trunk_bone: Plane,
    hilum: Plane,
    vessels: Plane,
    bronchi: Plane,
    rib_offsets: Float[Tensor, "B 2 R"],
) -> tuple[Plane, ...]:
    """The planes of `Anatomy` that `_CHEST` names, in that order: arithmetic alone, pixel by
    pixel, on what was read from textures, profiles and trees before.
    """
    right, side_x = positive(-x), x.abs()
    soft_edge = 0.6 * pixel + 0.03

    # lungs
    width = blend(profiles[:, 4], profiles[:, 3], right)
    dome = blend(p.dome_left_y, p.dome_right_y, right) - a.expiration
    bottom = dome + p.angle_depth
    level = (y - p.apex_y) / (bottom - p.apex_y)
    half_width = p.cage_half_width * (1 + 0.02 * p.cage_asymmetry * (2 * right - 1))
    lateral = p.apex_x + (half_width - p.apex_x) * width + 0.10 * coarse[:, 0]
    rise = (1 - level / 0.15).clamp(0, 1)
    medial = p.apex_x - (p.apex_x - 0.9) * chord(rise * rise)
    outwards = side_x - p.dome_peak_x
    inner = (outwards / p.dome_peak_x).clamp(-1.2, 0)
    dome_shape = dome_fall(p, outwards, half_width) + 1.5 * inner * inner
    diaphragm = dome + dome_shape + 0.15 * coarse[:, 1]
    field = edge(lateral - side_x, soft_edge) * edge(y - p.apex_y, soft_edge)
    field = field * edge(side_x - medial, soft_edge + 0.5 * smoothstep((level - 0.06) / 0.12))
    q = (side_x / (lateral + 0.3).clamp_min(0.5)).clamp(0, 1)
    top = (1 - level / 0.55).clamp(0, 1)
    depth = p.cage_depth * root((1 - top * top) * (1 - q * q * q))
    full = depth * field
    above = diaphragm - y
    over = edge(above, 1.2 * soft_edge)
    recess = 0.32 * exp((above / 3.2).clamp(max=0)) * edge(above + p.angle_depth + 0.2, 0.35)
    open_share = over + (1 - over) * recess
    heart_path, heart = mediastinum(p, a, profiles[:, :3], x, y)
    lung = lung_behind(full, depth, open_share, heart_path)

    # vessels
    aerated = edge(full * over - 0.4, 0.15) * (lung / (full + 1e-3))
    vessels, bronchi = vessels.clamp(max=2.5) * aerated, bronchi.clamp(max=1.5) * aerated
    ridges = bump(2.5 * fine[:, 2])  # vessels too fine to be drawn one by one
    grain = 1 + 0.05 * coarse[:, 1] + 0.05 * fine[:, 0] + 0.03 * fine[:, 1] + 0.09 * ridges
    lung_texture = p.lung_density * grain

    # optical depth
    bone = trunk_bone + ribs(p, y, side_x, right, lateral, fine[:, 2], rib_offsets) * body
    soft = (tissue - lung).clamp_min(0) + p.hilum_density * hilum * field * over
    tau = MU_SOFT * soft + MU_LUNG * lung * lung_texture + MU_BONE * bone
    tau = tau + (FLUID_FOR_AIR * p.vessel_density) * vessels
    return (
        right, side_x, level, lateral, dome, field * over, full, lung, depth, open_share,
        heart, vessels, bronchi, lung_texture, tau,
    )  # fmt: skip


def lung_behind(full: Plane, depth: Plane, open_share: Plane, heart_path: Plane) -> Plane:
    """Lung path (cm) that remains beside and behind heart and diaphragm."""
    return (full - heart_path).clamp_min(0) * open_share * edge(depth - heart_path + 1.2, 0.4)
