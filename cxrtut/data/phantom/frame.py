"""Where each pixel lies in the patient: the exact pose of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cxrtut.data.phantom.acquisition import CANONICAL_FOV, CANONICAL_SHIFT_Y
from cxrtut.data.phantom.randomness import Draws
from cxrtut.data.phantom.shapes import Plane


def pose_matrix(patient: Draws, acquisition: Draws) -> Float[Tensor, "B 2 3"]:
    """Maps (X, Y, 1), with X and Y in [-1, 1] across the image, to patient coordinates.

    Patient coordinates are centimetres of a body of average size: those of the patient divided by
    `body_size`.

    X = -1 is the left edge of the first pixel and +1 the right edge of the last
    (`align_corners=False` in torch's words).
    """
    half = (acquisition.fov / patient.body_size / 2).double()
    rotation = acquisition.rotation.double()
    c, s = half * rotation.cos(), half * rotation.sin()
    rows = [
        torch.stack([c, -s, -acquisition.shift_x.double()], dim=-1),
        torch.stack([s, c, -acquisition.shift_y.double()], dim=-1),
    ]
    return torch.stack(rows, dim=1).float()


def canonical_pose(n: int, device: torch.device | str = "cpu") -> Float[Tensor, "B 2 3"]:
    """The pose of aligned images: 37 cm wide, upright, centred."""
    half = CANONICAL_FOV / 2
    rows = [[half, 0.0, 0.0], [0.0, half, -CANONICAL_SHIFT_Y]]
    return torch.tensor(rows, device=device).expand(n, 2, 3).contiguous()


def alignment_theta(pose: Float[Tensor, "B 2 3"]) -> Float[Tensor, "B 2 3"]:
    """The `theta` of `torch.nn.functional.affine_grid` that resamples an image into the
    canonical frame.
    """
    canonical = canonical_pose(len(pose), pose.device)
    inverse = torch.linalg.inv(pose[:, :, :2])
    turn = inverse @ canonical[:, :, :2]
    move = inverse @ (canonical[:, :, 2:] - pose[:, :, 2:])
    return torch.cat([turn, move], dim=2)


@dataclass(frozen=True)
class PatientGrid:
    """Patient coordinates of every pixel centre (cm), pixel size (cm), and the pose they come
    from.
    """

    x: Plane
    y: Plane
    pixel: Float[Tensor, "B 1 1"]
    pose: Float[Tensor, "B 2 3"]
    size: int

    @classmethod
    def of(cls, patient: Draws, acquisition: Draws, size: int) -> PatientGrid:
        pose = pose_matrix(patient, acquisition)
        t = (torch.arange(size, device=pose.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
        column, row = t.view(1, 1, size), t.view(1, size, 1)
        m = pose[..., None, None]
        x = m[:, 0, 0] * column + (m[:, 0, 1] * row + m[:, 0, 2])
        y = m[:, 1, 0] * column + (m[:, 1, 1] * row + m[:, 1, 2])
        pixel = (acquisition.fov / patient.body_size / size)[:, None, None]
        return cls(x, y, pixel, pose, size)

    def to_pixels(self, x: Float[Tensor, "B N"], y: Float[Tensor, "B N"]) -> tuple[Tensor, Tensor]:
        """Patient coordinates (cm) to pixel coordinates; the centre of the first pixel is 0."""
        a, b, c, d = (self.pose[:, i, j, None] for i in (0, 1) for j in (0, 1))
        dx, dy = x - self.pose[:, 0, 2, None], y - self.pose[:, 1, 2, None]
        scale = self.size / 2 / (a * d - b * c)
        centre = (self.size - 1) / 2
        return (d * dx - b * dy) * scale + centre, (a * dy - c * dx) * scale + centre
