"""A store, or some rows of it, as uint8 tensors of one device; and the bit field that holds its
masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from cxrtut.data.manifest import StoreError
from cxrtut.data.sample import PADDING, Batch, from_uint8


def pack_masks(masks: Bool[np.ndarray, "n K H W"]) -> UInt8[np.ndarray, "n H W"]:
    """One boolean mask per class to a bit field: bit k is class k.

    Raises:
        StoreError: more than 8 classes.
    """
    if masks.shape[1] > 8:
        raise StoreError(f"masks: a bit field holds at most 8 classes, got {masks.shape[1]}")
    packed = np.zeros((masks.shape[0], *masks.shape[2:]), dtype=np.uint8)
    for k in range(masks.shape[1]):
        packed |= masks[:, k].astype(np.uint8) << k
    return packed


def unpack_masks(bits: UInt8[Tensor, "B H W"], n_classes: int) -> Bool[Tensor, "B K H W"]:
    """The bit field back to one boolean mask per class."""
    shifts = torch.arange(n_classes, dtype=torch.uint8, device=bits.device)
    # a byte of 0 or 1 is a bool already: view, not convert
    return (bits[:, None] >> shifts[:, None, None]).bitwise_and_(1).view(torch.bool)


@dataclass(frozen=True, eq=False)
class DeviceStore:
    """Rows of a store as tensors of one device; a batch is an index-select, without host
    synchronisation.

    Attributes:
        index: row of each image in the store it came from.
        boxes: padded to the *store's* largest count, so that every batch has the same shapes.
        masks: the bit field; see `pack_masks`.
        mask_bits: which bit is the mask of which class; by default bit k is class k.
    """

    images: UInt8[Tensor, "n C H W"]
    label_vector: Float[Tensor, "n K"]
    boxes: Float[Tensor, "n M 4"]
    box_label: Int[Tensor, "n M"]
    index: Int[Tensor, "n"]
    masks: UInt8[Tensor, "n H W"] | None = None
    healthy: UInt8[Tensor, "n C H W"] | None = None
    mask_bits: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.images.device

    def batch(self, rows: Int[Tensor, "B"]) -> Batch:
        """The images at positions `rows`. A row out of range raises IndexError (on CUDA: a device
        assert).
        """
        rows = rows.to(self.device, non_blocking=self.device.type == "cuda")
        masks = None if self.masks is None else self.masks.index_select(0, rows)
        return Batch(
            image=from_uint8(self.images.index_select(0, rows)),
            label_vector=self.label_vector.index_select(0, rows),
            boxes=self.boxes.index_select(0, rows),
            box_label=self.box_label.index_select(0, rows),
            index=self.index.index_select(0, rows),
            mask=None if masks is None else self._unpacked(masks),
            healthy=None
            if self.healthy is None
            else from_uint8(self.healthy.index_select(0, rows)),
        )

    def _unpacked(self, bits: UInt8[Tensor, "B H W"]) -> Bool[Tensor, "B K H W"]:
        if self.mask_bits is None:
            return unpack_masks(bits, self.label_vector.shape[1])
        shifts = torch.tensor(self.mask_bits, dtype=torch.uint8, device=bits.device)
        return (bits[:, None] >> shifts[:, None, None]).bitwise_and_(1).view(torch.bool)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "DeviceStore":
        """A copy with `move` applied to every tensor, for instance `lambda tensor:
        tensor.to("cuda")`.
        """
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            moved[f.name] = move(value) if isinstance(value, Tensor) else value
        return DeviceStore(**moved)

    @classmethod
    def joined(cls, pieces: Sequence["DeviceStore"]) -> "DeviceStore":
        """The rows of several pieces of one store, one after the other."""
        first = pieces[0]
        columns: dict[str, Any] = {}
        for f in fields(first):
            values = [getattr(piece, f.name) for piece in pieces]
            columns[f.name] = torch.cat(values) if isinstance(values[0], Tensor) else values[0]
        return cls(**columns)

    def narrowed(self, size: int, columns: tuple[int, ...]) -> "DeviceStore":
        """The same images at another size and with some of the classes, where these tensors are.

        Images (and healthy twins) are averaged down by area and rounded to grey levels; a mask
        keeps the pixels of which it has half or more; boxes are scaled, those of other classes
        become padding. What already is as it should be is not copied.

        Args:
            size: height and width; no larger than now.
            columns: of the labels, in the order wanted.
        """
        same_size = size == self.images.shape[-1]
        n_classes = self.label_vector.shape[1]
        if same_size and columns == tuple(range(n_classes)):
            return self
        lookup = torch.full((n_classes + 1,), PADDING, device=self.device)  # the last: padding
        lookup[list(columns)] = torch.arange(len(columns), device=self.device)
        box_label = lookup[self.box_label]
        boxes = self.boxes * (size / self.images.shape[-1])
        return DeviceStore(
            images=self.images if same_size else _shrunk(self.images, size),
            label_vector=self.label_vector[:, list(columns)],
            boxes=torch.where(box_label[..., None] == PADDING, torch.zeros_like(boxes), boxes),
            box_label=box_label,
            index=self.index,
            masks=self.masks if self.masks is None or same_size else _shrunk_bits(self.masks, size),
            healthy=self.healthy
            if self.healthy is None or same_size
            else _shrunk(self.healthy, size),
            mask_bits=columns
            if self.mask_bits is None
            else tuple(self.mask_bits[k] for k in columns),
        )


def _shrunk(images: UInt8[Tensor, "n C H W"], size: int) -> UInt8[Tensor, "n C h w"]:
    mean = F.adaptive_avg_pool2d(images.float(), size)
    return mean.round().clamp(0, 255).to(torch.uint8)


def _shrunk_bits(bits: UInt8[Tensor, "n H W"], size: int) -> UInt8[Tensor, "n h w"]:
    """Each mask of the bit field alone, so that one plane of floats is there at a time."""
    small = torch.zeros(len(bits), size, size, dtype=torch.uint8, device=bits.device)
    for k in range(8):
        inside = (bits >> k & 1).float()
        small |= (F.adaptive_avg_pool2d(inside, size) >= 0.5).to(torch.uint8) << k
    return small
