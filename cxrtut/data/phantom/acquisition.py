"""How a visit's exposure is made: pose, projection, dose, display, and the objects in the beam.

All of it is independent of anatomy and disease.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from cxrtut.data.phantom.randomness import Chance, Draws, Law, Normal, Uniform, draw, keys, noise

ACQUISITION: dict[str, Law] = {
    # pose and geometry; strength 0 is perfectly aligned
    "fov_factor": Normal(0.0, 0.10),
    "rotation": Normal(0.0, 0.065),  # in the image plane, rad
    "shift_x": Normal(0.0, 1.5),  # cm
    "shift_y": Normal(0.0, 2.2),  # cm
    "yaw": Normal(0.0, 0.07),  # about the long axis, rad: structures move by their depth
    "ap": Chance(0.4),  # portable, front-to-back projection
    "magnification": Uniform(0.02, 0.10),  # of the heart, when AP
    "expiration": Uniform(0.0, 1.0),  # cm of dome height lost, and more when AP
    "expiration_ap": Uniform(0.0, 3.2),
    "scapula_in": Uniform(0.6, 2.6),  # cm that the scapulae lie over the lungs when AP
    "arm_gap": Uniform(-0.05, 0.35),  # slope of the axillary cleft
    "cleft_y": Normal(-1.0, 2.0),
    # detector
    "log_dose": Uniform(4.5, 5.5),  # log10 of photons per (0.15 cm)^2
    "scatter": Uniform(0.25, 0.65),  # scatter-to-primary ratio
    "scatter_ap": Uniform(0.0, 0.9),  # more without a grid
    "blur": Uniform(0.03, 0.07),  # cm
    # display
    "window_low": Uniform(0.06, 0.16),
    "window_high": Uniform(0.08, 0.26),
    "window_low_ap": Uniform(0.0, 0.28),
    "window_high_ap": Uniform(0.0, 0.28),
    "compression": Uniform(0.0, 0.4),  # dynamic-range compression
    "sharpened": Chance(0.5),
    "sharpening": Uniform(0.0, 1.4),
    "log_gamma": Normal(-0.16, 0.30),
    # overlays
    "marker": Chance(0.9),
    "marker_x": Uniform(0.80, 0.93),
    "marker_y": Uniform(0.03, 0.16),
    "marker_tilt": Normal(0.0, 0.25),
    "marker_size": Uniform(0.035, 0.055),
    "marker_right": Chance(0.35),  # an R on the patient's right instead of an L on the left
    "marker_ap": Chance(0.5),  # AP films often say so
    "collimated": Chance(0.25, (4,)),
    "collimation": Uniform(0.0, 0.05, (4,)),
    "border_grey": Chance(0.1),
    # devices
    "line": Chance(0.2),  # central venous catheter
    "line_from": Uniform(0.0, 1.0),  # the vein: right jugular, right subclavian, or of the left
    "line_path": Normal(0.0, 1.0, (5,)),
    "line_malposed": Chance(0.03),
    "tube": Chance(0.10),  # tracheal or gastric tube, when AP
    "tube_gastric": Chance(0.5),
    "tube_end": Uniform(0.0, 1.0),
    "leads": Chance(0.35),  # electrodes and their wires, when AP
    "lead_place": Normal(0.0, 1.0, (3, 4)),
    "port": Chance(0.05),  # pacemaker or port with its lead
    "port_place": Uniform(0.0, 1.0, (3,)),
}

CANONICAL_FOV = 37.0  # cm seen by an aligned image of a patient of average size
SMALLEST_FOV = 24.0  # cm; a bound on the field of view of all images in patient coordinates
CANONICAL_SHIFT_Y = -1.6  # cm


def sample_acquisitions(
    seed: int,
    patient: Int[Tensor, " B"],
    visit: Int[Tensor, " B"],
    *,
    strength: float,
    dose_gain: float = 1.0,
) -> Draws:
    """One exposure for each (patient, visit): every quantity of `ACQUISITION`, and their `key`.

    Args:
        strength: scales the pose only: 1 as in the clinic, 0 aligned.
        dose_gain: multiplies the photon count; below 1 noisier.
    """
    key = keys(seed, patient, visit + 1)
    a = draw(ACQUISITION, key)
    ap = a.ap
    a["fov"] = CANONICAL_FOV * (1 + strength * a.fov_factor)
    a["rotation"] = strength * a.rotation
    a["shift_x"] = strength * a.shift_x
    a["shift_y"] = CANONICAL_SHIFT_Y + strength * a.shift_y
    a["yaw"] = strength * a.yaw
    a["magnification"] = 1 + ap * a.magnification
    a["expiration"] = a.expiration + ap * a.expiration_ap
    a["scapula_in"] = ap * a.scapula_in
    a["dose"] = dose_gain * 10 ** a.log_dose.double()
    a["dose"] = a.dose.float()
    a["scatter"] = a.scatter + ap * a.scatter_ap
    a["window_low"] = a.window_low + ap * a.window_low_ap
    a["window_high"] = a.window_high + ap * a.window_high_ap
    a["gamma"] = a.log_gamma.double().exp().float()
    a["sharpening"] = a.sharpened * a.sharpening
    a["tube"] = a.tube * ap
    a["leads"] = a.leads * ap
    a["key"] = key
    return a


def detector_noise(acquisition: Draws, size: int) -> Float[Tensor, "B H W"]:
    """Standard normal noise of each exposure's detector: the difference of two windows of the
    bank, a pair that hardly recurs. The second is transposed: where the windows overlap, the noise
    would hold a copy of itself otherwise.
    """
    key = acquisition.key
    first, second = noise(key, "detector", size, size), noise(key, "detector again", size, size)
    return (first - second.transpose(1, 2)) * 0.5**0.5
