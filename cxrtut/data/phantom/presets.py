"""How hard the simulated radiographs are, and what may betray a disease beside its picture."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

MAX_SEVERITY = 2.2
MAX_POSE = 1.2


def check_severity(severity: Tensor) -> None:
    """Raises ValueError for severities outside [0, `MAX_SEVERITY`]."""
    low, high = (float(severity.min()), float(severity.max())) if severity.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= MAX_SEVERITY + 1e-6):
        raise ValueError(
            f"severity must lie in [0, 2.2] (beyond it lesions are clipped by the lung's edge), "
            f"got {low:g} .. {high:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How hard the images are: severity of the findings, strength of the pose, photons."""

    severity: float
    pose: float
    dose: float

    def __post_init__(self) -> None:
        check_severity(torch.tensor(float(self.severity)))
        if not 0 <= self.pose <= MAX_POSE:
            raise ValueError(f"pose must lie in [0, {MAX_POSE}], got {self.pose}")
        if not self.dose > 0:
            raise ValueError(f"dose must be greater than 0, got {self.dose}")


PRESETS = MappingProxyType(
    {
        "easy": Preset(severity=2.2, pose=0.35, dose=4.0),
        "default": Preset(severity=1.3, pose=1.0, dose=1.0),
        "hard": Preset(severity=0.9, pose=1.2, dose=0.5),
    }
)


@dataclass(frozen=True, kw_only=True)
class Confounder:
    """A text marker ("PORT") that is more frequent beside one disease: a shortcut for a classifier.

    The healthy twin carries the same marker.
    """

    disease: str
    with_disease: float = 0.9  # probability of the marker when the disease is there
    without: float = 0.1

    def __post_init__(self) -> None:
        for name in ("with_disease", "without"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
