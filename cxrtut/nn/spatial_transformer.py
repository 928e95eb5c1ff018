"""Spatial transformer: a network that says where to look, and the resampling that looks there
(Jaderberg et al., Spatial Transformer Networks, NeurIPS 2015).

A matrix (2, 3) says where a point of the *output* is found in the input, both in normalised
coordinates: an image is [-1, 1] x [-1, 1], x first, -1 and 1 its edges. That is what
`torch.nn.functional.affine_grid` takes with `align_corners=False`; a scale below 1 zooms in.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.evaluation_mode import evaluating, in_parts

SCALE, SHIFT, ANGLE = 0.5, 0.5, math.pi / 4  # how far a bounded transformer goes


class SpatialTransformer(nn.Module):
    """Looks at an image and gives the matrix with which to resample it; at first the identity.

    Features, their mean over places, a hidden layer, and a layer whose weights start at zero. With
    five parameters the matrix is `five_parameter_matrix`, with six it is any affine one.

    Bounded, the parameters pass through tanh: scales in 1 +- .5, shifts in +- .5 (a quarter of the
    image), angles in +- 45 degrees; with six, each entry lies within .5 of the identity's.

    Reading (network, bounds): Kim, Jung and Lee give their five parameters no bounds.
        Here: They are bounded unless `bounded` is False.
        Why: Nothing else keeps a scale from collapsing onto a patch as flat as the blurred anchor.
    """

    def __init__(
        self,
        features: nn.Module,
        n_features: int,
        *,
        parameters: int = 5,
        bounded: bool = True,
        hidden: int = 256,
    ) -> None:
        """
        Args:
            features: image to a feature map (B, n_features, h, w).
            n_features: channels of that map.
            parameters: 5 (scales, shifts, angle) or 6 (affine).
            bounded: keep the parameters within bounds.
            hidden: width of the hidden layer.

        Raises:
            ValueError: another number of parameters.
        """
        super().__init__()
        if parameters not in (5, 6):
            raise ValueError(f"parameters: expected 5 or 6, got {parameters}")
        self.features = features
        self.parameters_given, self.bounded = parameters, bounded
        self.head = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, parameters)
        )
        for parameter in self.head[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 2 3"]:
        z = self.head(self.features(image).mean((2, 3))).float()
        z = z.tanh() if self.bounded else z
        if self.parameters_given == 6:
            return torch.eye(2, 3, device=z.device) + (SHIFT * z if self.bounded else z).view(
                -1, 2, 3
            )
        reach = (SCALE, SCALE, SHIFT, SHIFT, ANGLE) if self.bounded else (1.0,) * 5
        scale_x, scale_y, shift_x, shift_y, angle = (
            r * column for r, column in zip(reach, z.unbind(1), strict=True)
        )
        return five_parameter_matrix(1 + scale_x, 1 + scale_y, shift_x, shift_y, angle)


def five_parameter_matrix(
    scale_x: Float[Tensor, " B"],
    scale_y: Float[Tensor, " B"],
    shift_x: Float[Tensor, " B"],
    shift_y: Float[Tensor, " B"],
    angle: Float[Tensor, " B"],
) -> Float[Tensor, "B 2 3"]:
    """[[sx cos, -sy sin, tx], [sx sin, sy cos, ty]]: scale along the axes, turn, shift.

    Args:
        scale_x, scale_y: factors; below 1 zooms in.
        shift_x, shift_y: of the point looked at; 1 is half an image.
        angle: radians; on the screen, where y points down, positive angles turn the frame that is
            looked at clockwise, and what is seen in it the other way.
    """
    cos, sin = angle.cos(), angle.sin()
    rows = (scale_x * cos, -scale_y * sin, shift_x, scale_x * sin, scale_y * cos, shift_y)
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def invert(matrix: Float[Tensor, "B 2 3"]) -> Float[Tensor, "B 2 3"]:
    """The matrix of the way back: where a point of the input lies in the output.

    Written out, because a matrix product in TF32 moves points by a fraction of a pixel.
    """
    (a, b, c), (d, e, f) = (row.unbind(-1) for row in matrix.unbind(1))
    rows = (e, -b, b * f - c * e, -d, a, c * d - a * f)
    return torch.stack(rows, dim=1).view(-1, 2, 3) / (a * e - b * d)[:, None, None]


def sampling_grid(
    matrix: Float[Tensor, "B 2 3"], height: int, width: int
) -> Float[Tensor, "B H W 2"]:
    """Where the centre of each output pixel is found in the input."""
    x = (2 * torch.arange(width, device=matrix.device) + 1 - width) / width
    y = (2 * torch.arange(height, device=matrix.device) + 1 - height) / height
    (a, b, c), (d, e, f) = ([v[:, None, None] for v in row.unbind(-1)] for row in matrix.unbind(1))
    x, y = x[None, None, :], y[None, :, None]
    return torch.stack((a * x + b * y + c, d * x + e * y + f), dim=-1)


def warp(
    image: Float[Tensor, "B C H W"], matrix: Float[Tensor, "_ 2 3"], *, outside: float = -1.0
) -> Float[Tensor, "B C H W"]:
    """The image resampled bilinearly; the gradient reaches the matrix.

    Places and weights are in float32 or finer, whatever the image is: half precision cannot tell
    the pixels of a row of 256 apart.

    Args:
        image: of any range and precision, which the result has too.
        matrix: where each output point is found in the input.
        outside: the value beyond the image; -1 is black.

    Raises:
        ValueError: not one matrix per image.
    """
    if len(matrix) != len(image):
        raise ValueError(f"expected {len(image)} matrices, one per image, got {len(matrix)}")
    precise = torch.promote_types(image.dtype, torch.float32)
    grid = sampling_grid(matrix, image.shape[-2], image.shape[-1]).to(precise)
    # grid_sample fills with 0, so the image is moved until what lies outside is 0
    moved = F.grid_sample(image.to(precise) - outside, grid, mode="bilinear", align_corners=False)
    return (moved + outside).to(image.dtype)


@torch.no_grad()
def align(
    aligner: nn.Module, images: Float[Tensor, "N C H W"]
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, "N 2 3"]]:
    """Aligned images, sharp, and the matrices that did it, in evaluation mode."""
    with evaluating(aligner):
        parts = [(part, aligner(part)) for part in in_parts(images)]
    aligned = torch.cat([warp(part, matrix) for part, matrix in parts]).clamp(-1, 1)
    return aligned, torch.cat([matrix for _, matrix in parts])
