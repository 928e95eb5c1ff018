"""Augmentation on the device: one batched resampling, the boxes moved by the same matrices.

`Augmentation` says how far an image may be changed, `Augmentation.draw` what happens to each image
of a step (a pure function of seed and step, the same on every device), and `augment` does it.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from cxrtut.data.boxes import box_areas, clip_boxes, transform_boxes
from cxrtut.data.device_store import unpack_masks
from cxrtut.data.sample import PADDING, Batch

_AREA_KEPT = 0.25
_BITS = 8  # masks in one field; every float type holds the numbers up to 255 exactly


@dataclass(frozen=True)
class Transform:
    """What happens to each of n images.

    Attributes:
        matrix: where a point goes, in normalised coordinates: the image is [-1, 1] x [-1, 1], x
            first.
        intensity: brightness (added), contrast (factor about mid-grey), gamma (exponent) on values
            in [0, 1].
    """

    matrix: Float[Tensor, "n 2 3"]
    intensity: Float[Tensor, "n 3"]

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: slice) -> "Transform":
        """The transforms of some images: the share of one rank."""
        return Transform(self.matrix[rows], self.intensity[rows])


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far images may be changed. Every default is zero: the identity.

    Attributes:
        rotation: degrees; the angle is uniform in [-rotation, rotation].
        scale: the factor is uniform in [1 - scale, 1 + scale].
        translation: fraction of the image's size, uniform in [-translation, translation] along each
            axis.
        flip: probability of a mirror image (left-right).
        brightness: added to values in [0, 1], uniform in [-brightness, brightness].
        contrast: the factor about mid-grey is uniform in [1 - contrast, 1 + contrast].
        gamma: the exponent is log-uniform in [1 / (1 + gamma), 1 + gamma].
    """

    rotation: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        allowed = {
            "rotation": (0.0, 180.0),
            "scale": (0.0, 0.9),
            "translation": (0.0, 1.0),
            "flip": (0.0, 1.0),
            "brightness": (0.0, 1.0),
            "contrast": (0.0, 1.0),
            "gamma": (0.0, 9.0),
        }
        for name, (low, high) in allowed.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: expected a value in [{low:g}, {high:g}], got {value}")

    def draw(
        self, n: int, *, seed: int, step: int, device: str | torch.device = "cpu"
    ) -> Transform:
        """The transforms of the n images of one step: the same for the same (seed, step), whatever
        the device.

        With several ranks, draw for the whole batch and take the rank's slice. Numbers come from a
        generator of this call on the CPU; nothing global is read or changed.
        """
        key = hashlib.sha256(f"augment {seed} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
        uniform = torch.rand(n, 8, generator=generator, dtype=torch.float64)
        signed = 2.0 * uniform - 1.0
        angle = signed[:, 0] * math.radians(self.rotation)
        scale = 1.0 + signed[:, 1] * self.scale
        shift_x, shift_y = (2.0 * self.translation * signed[:, k] for k in (2, 3))
        mirror = torch.where(uniform[:, 4] < self.flip, -1.0, 1.0)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        # mirror first, then rotate and scale about the centre, then shift
        matrix = torch.stack((cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y), dim=1)
        exponent = (signed[:, 7] * math.log1p(self.gamma)).exp()
        brightness, contrast = signed[:, 5] * self.brightness, 1.0 + signed[:, 6] * self.contrast
        intensity = torch.stack((brightness, contrast, exponent), dim=1)
        return Transform(
            matrix.reshape(n, 2, 3).to(device, torch.float32), intensity.to(device, torch.float32)
        )


def augment(batch: Batch, transform: Transform) -> Batch:
    """Apply `transform` to everything in `batch` that lives in the image plane.

    Images are resampled bilinearly (black enters from outside), masks by the nearest pixel, the
    healthy twins exactly as the images. Boxes become the upright box around their moved corners,
    clipped to the image; a box that keeps less than 25 % of its area becomes padding. Labels and
    indices stay. An image whose transform is the identity comes back bit for bit. Images of half
    precision are resampled in float32 and are of half precision afterwards. Nothing is read back
    from the device.

    A rotation acts in normalised coordinates; on an image that is not square it shears.

    Raises:
        ValueError: not one transform per image.
    """
    if len(transform) != len(batch):
        raise ValueError(f"expected {len(batch)} transforms, one per image, got {len(transform)}")
    height, width = batch.image.shape[-2:]
    precise = torch.promote_types(batch.image.dtype, torch.float32)
    matrix, intensity = transform.matrix.to(precise), transform.intensity.to(precise)
    grid = _sampling_grid(matrix, height, width)
    unmoved = (matrix == torch.eye(2, 3, device=grid.device)).flatten(1).all(dim=1)

    def picture(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        moved = _resample(image.to(precise), grid, unmoved)
        return _change_intensity(moved, intensity).to(image.dtype)

    image, healthy, mask = picture(batch.image), batch.healthy, batch.mask
    if healthy is not None:
        healthy = picture(healthy)
    if mask is not None:
        mask = _move_masks(mask, grid)
    boxes, box_label = _move_boxes(batch, matrix, unmoved)
    return replace(batch, image=image, healthy=healthy, mask=mask, boxes=boxes, box_label=box_label)


def _sampling_grid(
    matrix: Float[Tensor, "B 2 3"], height: int, width: int
) -> Float[Tensor, "B H W 2"]:
    """Where each output pixel is found in the input: the inverse of `matrix` at every pixel centre.

    Written out instead of `affine_grid`, whose matrix product loses quarter pixels to TF32.
    """
    (a, b, c), (d, e, f) = (row.unbind(-1) for row in matrix.unbind(1))
    determinant = a * e - b * d
    inverse = [entry / determinant for entry in (e, -b, -d, a)]
    p, q, r, s = (entry[:, None, None] for entry in inverse)
    c, f = c[:, None, None], f[:, None, None]
    x, y = (
        (2 * torch.arange(n, device=matrix.device) + 1 - n).to(matrix.dtype) / n
        for n in (width, height)
    )
    x, y = x[None, None, :] - c, y[None, :, None] - f
    # Two planes, not pairs side by side: both the stacking and grid_sample walk along a plane.
    return torch.stack((p * x + q * y, r * x + s * y)).permute(1, 2, 3, 0)


def _resample(
    image: Float[Tensor, "B C H W"], grid: Float[Tensor, "B H W 2"], unmoved: Bool[Tensor, "B"]
) -> Float[Tensor, "B C H W"]:
    # grid_sample fills with 0, so the image is lifted until black is 0
    moved = F.grid_sample(image + 1.0, grid, mode="bilinear", align_corners=False).sub_(1.0)
    return torch.where(_per_image(unmoved), image, moved.clamp_(-1.0, 1.0))


def _move_masks(
    mask: Bool[Tensor, "B K H W"], grid: Float[Tensor, "B H W 2"]
) -> Bool[Tensor, "B K H W"]:
    """The nearest pixel of every mask, looked up once for eight masks: as the bits of one field.

    An image that is not moved needs no exception here: its nearest pixel is the pixel itself.
    """
    groups = mask.split(_BITS, dim=1)
    fields = torch.stack([_bit_field(group) for group in groups], dim=1)
    moved = F.grid_sample(fields.to(grid.dtype), grid, mode="nearest", align_corners=False)
    moved_groups = [
        unpack_masks(field, group.shape[1])
        for field, group in zip(moved.to(torch.uint8).unbind(1), groups, strict=True)
    ]
    # cat would copy even a single group, the common case
    return moved_groups[0] if len(groups) == 1 else torch.cat(moved_groups, dim=1)


def _bit_field(mask: Bool[Tensor, "B K H W"]) -> UInt8[Tensor, "B H W"]:
    """Bit k is mask k, as `pack_masks` writes it, but on the device."""
    shifts = torch.arange(mask.shape[1], dtype=torch.uint8, device=mask.device)
    return (mask.view(torch.uint8) << shifts[:, None, None]).sum(dim=1, dtype=torch.uint8)


def _change_intensity(
    image: Float[Tensor, "B C H W"], intensity: Float[Tensor, "B 3"]
) -> Float[Tensor, "B C H W"]:
    """brightness + 1/2 + contrast (t^gamma - 1/2) on t = (x + 1) / 2, clipped to [0, 1]."""
    brightness, contrast, gamma = (_per_image(column) for column in intensity.unbind(1))
    level = ((image + 1.0) / 2.0).pow(gamma)
    # In place: fresh memory for every term costs more than the arithmetic. The first term is not,
    # because the gradient of a power needs the power itself.
    level = (level - 0.5).mul_(contrast).add_(brightness + 0.5).clamp_(0.0, 1.0)
    unchanged = (brightness == 0) & (contrast == 1) & (gamma == 1)
    return torch.where(unchanged, image, level.mul_(2.0).sub_(1.0))


def _move_boxes(
    batch: Batch, matrix: Float[Tensor, "B 2 3"], unmoved: Bool[Tensor, "B"]
) -> tuple[Float[Tensor, "B M 4"], Int[Tensor, "B M"]]:
    height, width = batch.image.shape[-2:]
    whole = transform_boxes(batch.boxes, matrix, height, width)
    boxes = clip_boxes(whole, height, width)
    kept = box_areas(boxes) >= _AREA_KEPT * box_areas(whole)
    kept = (kept & (box_areas(boxes) > 0)) | unmoved[:, None]
    kept = kept & (batch.box_label != PADDING)
    boxes = torch.where(unmoved[:, None, None], batch.boxes, boxes)
    boxes = torch.where(kept[..., None], boxes, torch.zeros_like(boxes))
    return boxes, torch.where(kept, batch.box_label, torch.full_like(batch.box_label, PADDING))


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
