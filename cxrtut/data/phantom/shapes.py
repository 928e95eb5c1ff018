"""Elementary shapes: soft edges, chords, profiles, textures, blurs with one width per image.

All of it is elementwise in the batch, so that an image is the same bit for bit whatever is
rendered beside it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Plane = Float[Tensor, "B H W"]
_LOG2_E = 1 / math.log(2)
PROFILE_TOP, PROFILE_BOTTOM, PROFILE_POINTS = -26.0, 26.0, 261  # cm, cm, one point every 2 mm


def edge(distance: Tensor, width: Tensor | float) -> Tensor:
    """0 outside (negative distance), 1 inside, over about four widths (cm)."""
    return (distance / width).sigmoid_()


def cos_sin(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a few angles, by way of float64: the same float32 in a batch of any
    length.
    """
    return angle.double().cos().float(), angle.double().sin().float()


def exp(x: Tensor) -> Tensor:
    """e^x by way of 2^x: torch's own takes up to thirty times as long where it underflows."""
    return (x * _LOG2_E).exp2_()


def bump(z: Tensor) -> Tensor:
    """exp(-z^2)."""
    return (z * z).mul_(-_LOG2_E).exp2_()


def sqrt_(x: Tensor) -> Tensor:
    """Square root in place, correctly rounded, as a processor and compiled arithmetic do it.

    torch's own is MKL's on a CPU, which is off by a unit in the last place now and then.
    """
    if type(x) is not Tensor or x.device.type != "cpu":  # also while arithmetic is traced
        return x.sqrt_()
    values = x.numpy()
    np.sqrt(values, out=values)
    return x


def root(x: Tensor) -> Tensor:
    """Square root of x; 1e-15 where x is not positive, because the root of 0 takes five times as
    long as that of any other number.
    """
    return sqrt_(x.clamp_min(1e-30))


def positive(x: Tensor) -> Tensor:
    """1 where x > 0, else 0 (several times faster than comparing and converting on a CPU)."""
    return x.sign().clamp_min_(0)


def chord(q: Tensor) -> Tensor:
    """Half chord of the unit circle at squared distance q from its centre."""
    return sqrt_((1 - q).clamp_min_(1e-30))


def shell(q: Tensor, hollow: float) -> Tensor:
    """A tube seen from the side: the cortex is what is left of a chord without a share of the
    marrow's chord.
    """
    return chord(q).sub_(chord(1.45 * q).mul_(hollow))  # two steps: `alpha` rounds but once


def smoothstep(t: Tensor) -> Tensor:
    t = t.clamp(0, 1)
    return (3 - 2 * t).mul_(t).mul_(t)


def rounded(depth: Tensor, radius: float) -> Tensor:
    """Relative thickness at `depth` cm inside an outline that is rounded over `radius` cm."""
    q = (depth / -radius).add_(1).clamp_(0, 1)
    return chord(q.square_())


def blend(left: Tensor, right: Tensor, is_right: Tensor) -> Tensor:
    """`right` where is_right is 1, `left` where it is 0 (several times faster than
    `torch.where` on a CPU).
    """
    return torch.addcmul(left, right - left, is_right)


def texture(
    values: Float[Tensor, "B C n n"], x: Plane, y: Plane, extent: float = 22.0
) -> Float[Tensor, "B C H W"]:
    """Value noise: a random lattice over [-extent, extent] cm, read at (x, y) in patient
    coordinates.
    """
    places = grid(x / extent, y / extent)
    return F.grid_sample(values, places, padding_mode="reflection", align_corners=True)


def grid(x: Plane, y: Plane) -> Float[Tensor, "B H W 2"]:
    """Where `grid_sample` reads. x and y stay planes in memory, far quicker to make than pairs."""
    return torch.stack([x, y], dim=1).permute(0, 2, 3, 1)


def heights(device: torch.device) -> Float[Tensor, " P"]:
    """The heights (cm) at which profiles are kept."""
    return torch.linspace(PROFILE_TOP, PROFILE_BOTTOM, PROFILE_POINTS, device=device)


def profile(
    knots: Float[Tensor, "B K"], values: Float[Tensor, "B K"], smooth: float
) -> Float[Tensor, "B P"]:
    """A smooth function of height y: values at ascending knots (cm), blurred over `smooth`
    points of 2 mm.
    """
    y = heights(values.device).expand(len(values), -1).contiguous()
    i = torch.searchsorted(knots.contiguous(), y).clamp(1, knots.shape[1] - 1)
    low, high = knots.gather(1, i - 1), knots.gather(1, i)
    t = ((y - low) / (high - low)).clamp(0, 1)
    t = 0.5 * (t + t * t * (3 - 2 * t))
    table = torch.lerp(values.gather(1, i - 1), values.gather(1, i), t)
    width = table.new_full((len(table), 1, 1), smooth)
    return _blur_along(table[:, None], 2, _weights(width, math.ceil(3 * smooth)))[:, 0]


def at_height(profiles: Float[Tensor, "B C P"], y: Plane) -> Float[Tensor, "B C H W"]:
    """Reads profiles at the height of each pixel; beyond the ends the last value holds."""
    middle, half = (PROFILE_TOP + PROFILE_BOTTOM) / 2, (PROFILE_BOTTOM - PROFILE_TOP) / 2
    places = grid(torch.zeros_like(y), (y - middle) / half)
    return F.grid_sample(profiles[..., None], places, padding_mode="border", align_corners=True)


def _weights(width: Float[Tensor, "B 1 1"], radius: int) -> Float[Tensor, "B 1 R"]:
    """Weights of a Gaussian at distances 0..radius, one kernel per image."""
    distance = torch.arange(radius + 1, device=width.device)
    taps = torch.exp(-0.5 * (distance / width.double().clamp_min(1e-3)) ** 2)
    return (taps / (2 * taps.sum(-1, keepdim=True) - taps[..., :1])).float()


def _blur_along(image: Plane, axis: int, weights: Float[Tensor, "B 1 R"]) -> Plane:
    """One pass of a symmetric kernel along axis 1 (rows) or 2 (columns), added tap by tap."""
    radius, n = weights.shape[-1] - 1, image.shape[axis]
    padding = (radius, radius, 0, 0) if axis == 2 else (0, 0, radius, radius)
    padded = F.pad(image, padding, mode="replicate")
    out = image * weights[..., :1]
    for i in range(1, radius + 1):
        pair = padded.narrow(axis, radius - i, n) + padded.narrow(axis, radius + i, n)
        out.addcmul_(pair, weights[..., i : i + 1])
    return out


def blur(image: Plane, width: Float[Tensor, "B 1 1"], widest: float) -> Plane:
    """Gaussian blur of standard deviation `width` pixels, its own for every image.

    `widest` (pixels) bounds the widths and so fixes the number of taps. On a CPU each image goes
    through OpenCV's separable filter; elsewhere kernels are added tap by tap, all images together.
    """
    weights = _weights(width, max(1, math.ceil(2.2 * widest)))
    if image.device.type != "cpu":
        return _blur_along(_blur_along(image, 1, weights), 2, weights)
    import cv2

    kernels = torch.cat([weights[..., 1:].flip(-1), weights], dim=-1)[:, 0].numpy()
    image = image.contiguous()
    blurred = torch.empty_like(image)
    for source, target, kernel in zip(image.numpy(), blurred.numpy(), kernels, strict=True):
        cv2.sepFilter2D(source, -1, kernel, kernel, target, borderType=cv2.BORDER_REPLICATE)
    return blurred


def enlarge(images: Float[Tensor, "*S h w"], size: int) -> Float[Tensor, "*S H W"]:
    """Bilinear interpolation to size x size pixels; on a CPU by OpenCV, several times faster."""
    if images.device.type != "cpu":
        planes = images.flatten(0, -3)[:, None]
        planes = F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False)
        return planes.view(*images.shape[:-2], size, size)
    import cv2

    out = images.new_empty(*images.shape[:-2], size, size)
    sources, targets = images.contiguous().flatten(0, -3).numpy(), out.flatten(0, -3).numpy()
    for source, target in zip(sources, targets, strict=True):
        cv2.resize(source, (size, size), dst=target, interpolation=cv2.INTER_LINEAR)
    return out


def smooth_coarse(image: Plane, cells: int, width: float) -> Plane:
    """A very wide blur: average to cells x cells, blur there by `width` cells, interpolate back."""
    size = image.shape[-1]
    coarse = F.adaptive_avg_pool2d(image[:, None], min(cells, size))[:, 0]
    coarse = blur(coarse, coarse.new_full((len(coarse), 1, 1), width), width)
    return enlarge(coarse, size)


def splat(
    px: Float[Tensor, "B N"], py: Float[Tensor, "B N"], amount: Float[Tensor, "B N"], size: int
) -> Plane:
    """Adds amounts at sub-pixel places by bilinear weights: the sum is kept at every resolution."""
    px, py = (
        px.clamp(-1, size),
        py.clamp(-1, size),
    )  # what lies outside falls on a rim that is cut off
    left, top = px.floor(), py.floor()
    fx, fy = px.sub_(left), py.sub_(top).mul_(amount)
    wide = size + 3
    place = top.add_(1).mul_(wide).add_(left.add_(1)).long()
    lower = fx * amount
    right_part = fx.mul_(fy)
    out = px.new_zeros(len(px), wide * wide)
    out.scatter_add_(1, place, (amount - fy).sub_(lower).add_(right_part))
    out.scatter_add_(1, place.add_(1), lower.sub_(right_part))
    out.scatter_add_(1, place.add_(wide - 1), fy.sub_(right_part))
    out.scatter_add_(1, place.add_(1), right_part)
    return out.view(-1, wide, wide)[:, 1 : size + 1, 1 : size + 1].contiguous()
