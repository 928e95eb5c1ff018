"""A store, or some rows of it, as uint8 tensors of one device; and the bit field that holds its
masks.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from cxrtut.data.manifest import StoreError
from cxrtut.data.sample import Batch, from_uint8


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
class ResidentStore:
    """Rows of a store as tensors of one device; a batch is an index-select, without host
    synchronisation.

    Attributes:
        index: row of each image in the store it came from.
        boxes: padded to the *store's* largest count, so that every batch has the same shapes.
    """

    images: UInt8[Tensor, "n C H W"]
    label_vector: Float[Tensor, "n K"]
    boxes: Float[Tensor, "n M 4"]
    box_label: Int[Tensor, "n M"]
    index: Int[Tensor, "n"]
    masks: UInt8[Tensor, "n H W"] | None = None
    healthy: UInt8[Tensor, "n C H W"] | None = None

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
            mask=None if masks is None else unpack_masks(masks, self.label_vector.shape[1]),
            healthy=None
            if self.healthy is None
            else from_uint8(self.healthy.index_select(0, rows)),
        )

    def moved(self, move: Callable[[Tensor], Tensor]) -> "ResidentStore":
        """A copy with `move` applied to every tensor, for instance `lambda tensor:
        tensor.to("cuda")`.
        """
        moved: dict[str, Any] = {}
        for f in fields(self):
            tensor = getattr(self, f.name)
            moved[f.name] = None if tensor is None else move(tensor)
        return ResidentStore(**moved)
