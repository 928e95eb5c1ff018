"""Who is on the table: the anatomy of a patient, the same at every visit.

Lengths in cm; x to the image's right (the patient's left), y downwards, z to the front, origin in
mid-thorax.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from cxrtut.data.phantom.randomness import Chance, Draws, Law, Normal, Uniform, draw, keys, noise

PATIENT: dict[str, Law] = {
    "body_size": Normal(1.0, 0.055),
    "age": Uniform(18, 92),  # years; drives calcification only
    # rib cage and lungs
    "cage_half_width": Normal(13.8, 0.95),  # inner
    "cage_depth": Normal(17.0, 1.4),  # inner, front to back
    "cage_asymmetry": Normal(0.0, 0.4),  # right minus left half width, in 4 %
    "apex_y": Normal(-12.8, 0.9),
    "apex_x": Normal(4.9, 0.5),
    "dome_right_y": Normal(8.9, 1.5),  # top of the right hemidiaphragm in full inspiration
    "dome_step": Normal(0.9, 0.5),  # the left dome stands lower
    "dome_peak_x": Normal(6.2, 0.7),
    "angle_depth": Normal(4.4, 0.9),  # costophrenic angle below the dome
    # heart and mediastinum
    "ctr": Normal(0.445, 0.028, cut=1.7),  # cardiothoracic ratio; normal below 0.5
    "heart_share": Normal(0.0, 0.03),  # one third of the heart lies right of the midline, +- this
    "heart_border": Normal(
        0.0, 0.035, (2, 11)
    ),  # irregularity of both borders at the 11 control heights
    "mediastinum": Normal(1.0, 0.12),
    "knob": Normal(1.05, 0.3),  # how far the aortic knob stands out
    "knob_y": Normal(-6.2, 0.5),
    # soft tissue
    "wall": Normal(2.6, 0.9, low=1.2),  # lateral chest wall
    "fat": Normal(4.6, 1.5, low=2.4),  # front and back wall together
    "neck": Normal(6.0, 0.5),
    "shoulder_y": Normal(-15.0, 0.8),
    "arm_x": Normal(19.0, 1.2),
    "arm_thickness": Normal(10.5, 0.9),
    "female": Chance(0.46),
    "breast_radius": Normal(6.6, 0.8),
    "breast_thickness": Uniform(0.8, 4.8),
    "breast_x": Normal(7.6, 0.6),
    "breast_y": Normal(4.4, 1.2),
    "fold": Normal(0.0, 1.0, (2,)),  # axillary skin folds, seen when > 0.6
    "fold_x": Normal(15.0, 1.0, (2,)),
    # skeleton
    "rib_tilt": Normal(0.52, 0.06),  # tangent of the slope of the rib plane
    "rib_top": Normal(-13.4, 0.4),
    "rib_spacing": Normal(2.35, 0.1),
    "rib_half_width": Normal(0.56, 0.05),
    "rib_jitter": Normal(0.16, 0.05, low=0.0),  # unevenness of the spacing
    "rib_phase": Uniform(0, 6.2832, (2, 2)),
    "rib_density": Normal(0.88, 0.17),
    "clavicle_y": Normal(-9.6, 0.9),
    "clavicle_slope": Normal(0.16, 0.08, (2,)),
    "clavicle_bow": Normal(0.9, 0.25, (2,)),
    "scapula_x": Normal(16.4, 0.9, (2,)),
    "scapula_slope": Normal(0.16, 0.08, (2,)),
    "spine_x": Normal(0.0, 0.35),
    "spine_bend": Normal(0.0, 0.006),  # scoliosis, 1/cm
    "spine_phase": Uniform(0, 1),
    # vessels and abdomen
    "vessel_density": Normal(1.3, 0.25, low=0.6),
    "hilum_density": Normal(2.2, 0.5, low=1.0),
    "lung_density": Normal(1.0, 0.12),
    "gas": Chance(0.6),  # gastric bubble under the left dome
    "gas_thickness": Uniform(0.6, 2.4),
    "gas_x": Normal(6.2, 0.8),
    "gas_depth": Uniform(1.6, 3.0),
    "gas_width": Uniform(1.5, 3.2),
}


def sample_patients(seed: int, patient: Int[Tensor, " B"]) -> Draws:
    """Anatomy of the given patients: every quantity of `PATIENT`, and their textures.

    Returns:
        Draws with (B, ...) float32 tensors and their `key`; `coarse` (B, 3, 20, 20) and `fine` (B,
        3, 72, 72) are lattices of value noise over 44 cm (see `shapes.texture`).
    """
    key = keys(seed, patient, torch.zeros_like(patient))
    draws = draw(PATIENT, key)
    draws["dome_left_y"] = draws.dome_right_y + draws.dome_step
    draws["key"] = key
    draws["coarse"] = noise(key, "coarse", 3, 20, 20)
    draws["fine"] = noise(key, "fine", 3, 72, 72)
    return draws
