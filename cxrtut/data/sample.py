"""The contracts: what a batch is, whatever source it came from, and what a system says of images.

Every data source of the book (radiographs, fundus photographs, skin, the simulated radiograph)
hands out the same `Batch`. Images are float32 in [-1, 1]; files and stores hold uint8. `to_uint8`
and `from_uint8` are the one place where the two meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

PADDING = -1
"""The class index in `Batch.box_label` of a box that is not there."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images with everything known about them.

    Attributes:
        image: float32 in [-1, 1]; -1 is black.
        label_vector: {0, 1}, one column per class; a row of zeros is an image without finding.
        boxes: xyxy in pixels of `image`; pixel (i, j) covers [j, j + 1) x [i, i + 1). Zeros where
            padded.
        box_label: int64 class index of each box, -1 (`PADDING`) where padded.
        index: row of each image in its source.
        mask: one mask per class, True inside; None where the source knows no masks.
        healthy: the same images without the disease (the healthy twin), or None.
        target_vector: the labels that a generator is asked to give each image, where a loader draws
            some; see `Loader`.
        uniforms: numbers in [0, 1) for what a loss needs at random, a row for each image; None
            outside training.
    """

    image: Float[Tensor, "B C H W"]
    label_vector: Float[Tensor, "B K"]
    boxes: Float[Tensor, "B M 4"]
    box_label: Int[Tensor, "B M"]
    index: Int[Tensor, "B"]
    mask: Bool[Tensor, "B K H W"] | None = None
    healthy: Float[Tensor, "B C H W"] | None = None
    uniforms: Float[Tensor, "B D"] | None = None
    target_vector: Float[Tensor, "B K"] | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch on `device`. Copies to a CUDA device do not wait when the memory is
        pinned.
        """
        non_blocking = torch.device(device).type == "cuda"
        moved: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            moved[field.name] = (
                None if tensor is None else tensor.to(device, non_blocking=non_blocking)
            )
        return Batch(**moved)

    def boxes_of(self, i: int) -> tuple[Float[Tensor, "n 4"], Int[Tensor, "n"]]:
        """The boxes (n, 4) and class indices (n,) of image `i`, without the padding."""
        real = self.box_label[i] != PADDING
        return self.boxes[i][real], self.box_label[i][real]


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: xyxy in pixels of the image.
        scores: of each box; higher is surer.
        labels: int64 class index of each box.
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, "N"]
    labels: Int[Tensor, "N"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a system says of images, in the frame and pixels of the images it was given. None is
    what it says nothing of.

    Attributes:
        scores: probabilities of the classes, in [0, 1].
        heatmap: where each class is; >= 0, higher is surer, not normalised per image.
        image: the same images without the disease (or with it), in [-1, 1].
        boxes: of each image.
    """

    scores: Float[Tensor, "B K"] | None = None
    heatmap: Float[Tensor, "B K H W"] | None = None
    image: Float[Tensor, "B C H W"] | None = None
    boxes: tuple[Detections, ...] | None = None


@runtime_checkable
class System(Protocol):
    """What every paper's method and every system that it is compared with can be asked.

    Attributes:
        classes: the K classes of its answers.
        size: height and width of the images it takes, in pixels.
        channels: of the images.
        networks: all that was trained, by name: what a file of weights holds.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    def predict(self, images: Float[Tensor, "B C H W"]) -> Prediction:
        """The answer for images in [-1, 1], on the device of the networks, in evaluation mode; the
        modes are put back.
        """
        ...


def normal(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "b C H W"]:
    """The normal half of a balanced batch: every other image, from the first."""
    return images[0::2]


def abnormal(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "b C H W"]:
    """The abnormal half of a balanced batch: every other image, from the second."""
    return images[1::2]


def to_uint8(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[-1, 1] to {0 ... 255}, rounded to the nearest level; values outside are clipped."""
    return ((x + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """{0 ... 255} to float32 in [-1, 1]: x / 127.5 - 1. `to_uint8` undoes it exactly."""
    return x.to(torch.float32).div_(127.5).sub_(1.0)


def check_batch(batch: Batch) -> None:
    """Raise if `batch` breaks the contract; the message names the field, what was expected and what
    came.

    Meant for tests, for new data sources and for the first batch of a run: it reads values back
    from the device, so it is not called per training step.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: a shape, a value range, a label or a box is wrong.
    """
    _check_dtypes(batch)
    _check_shapes(batch)
    _check_range("image", batch.image)
    if batch.healthy is not None:
        _check_range("healthy", batch.healthy)
    labels = batch.label_vector
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise ValueError(f"label_vector: expected only 0 and 1, got {wrong[0].item()}")
    if (batch.index < 0).any():
        raise ValueError(f"index: expected rows >= 0, got {batch.index.min().item()}")
    _check_boxes(batch)


def _check_dtypes(batch: Batch) -> None:
    expected = {
        "image": torch.float32,
        "label_vector": torch.float32,
        "boxes": torch.float32,
        "box_label": torch.int64,
        "index": torch.int64,
        "mask": torch.bool,
        "healthy": torch.float32,
        "uniforms": torch.float32,
        "target_vector": torch.float32,
    }
    for name, dtype in expected.items():
        tensor = getattr(batch, name)
        if tensor is not None and tensor.dtype != dtype:
            raise TypeError(f"{name}: expected {dtype}, got {tensor.dtype}")


def _check_shapes(batch: Batch) -> None:
    if batch.image.ndim != 4:
        raise ValueError(f"image: expected shape (B, C, H, W), got {tuple(batch.image.shape)}")
    if batch.label_vector.ndim != 2:
        raise ValueError(f"label_vector: expected (B, K), got {tuple(batch.label_vector.shape)}")
    if batch.box_label.ndim != 2:
        raise ValueError(f"box_label: expected (B, M), got {tuple(batch.box_label.shape)}")
    n, _, height, width = batch.image.shape
    n_classes, n_boxes = batch.label_vector.shape[1], batch.box_label.shape[1]
    expected = {
        "label_vector": (n, n_classes),
        "boxes": (n, n_boxes, 4),
        "box_label": (n, n_boxes),
        "index": (n,),
        "mask": (n, n_classes, height, width),
        "healthy": tuple(batch.image.shape),
        "target_vector": (n, n_classes),
        "uniforms": None if batch.uniforms is None else (n, *batch.uniforms.shape[1:]),
    }
    for name, shape in expected.items():
        tensor = getattr(batch, name)
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")


def _check_range(name: str, x: Tensor) -> None:
    if not torch.isfinite(x).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    if x.numel() and (x.min() < -1 or x.max() > 1):
        low, high = x.min().item(), x.max().item()
        raise ValueError(f"{name}: expected values in [-1, 1], got [{low:.4g}, {high:.4g}]")


def _check_boxes(batch: Batch) -> None:
    n_classes = batch.label_vector.shape[1]
    height, width = batch.image.shape[2:]
    labels = batch.box_label
    out_of_range = labels[(labels < PADDING) | (labels >= n_classes)]
    if len(out_of_range):
        raise ValueError(
            f"box_label: expected a class index below {n_classes} or {PADDING} for padding, "
            f"got {out_of_range[0].item()}"
        )
    if not torch.isfinite(batch.boxes).all():
        raise ValueError("boxes: expected finite values, got NaN or infinity")
    if batch.boxes[labels == PADDING].any():
        raise ValueError("boxes: expected zeros where box_label is padding, got other values")
    tolerance = 1e-3  # pixels: float32 rounding of a box that touches the border
    for box in batch.boxes[labels != PADDING].tolist():
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"boxes: expected xyxy with x0 < x1 and y0 < y1, got {box}")
        inside = min(x0, y0) >= -tolerance
        inside = inside and x1 <= width + tolerance and y1 <= height + tolerance
        if not inside:
            raise ValueError(f"boxes: expected a box inside {width} x {height} pixels, got {box}")
