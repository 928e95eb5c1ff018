"""A view of an array store: some of its classes, at a smaller size. Nothing is copied.

Rows are those of the store. Images are brought to the size where they are used: once for a store
that fits the device, block by block for one that streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from cxrtut.data.device_store import DeviceStore
from cxrtut.data.sample import Batch
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.tables import BoxTable

_BLOCK_BYTES = 64 << 20


@dataclass(eq=False)
class StoreView:
    """What `view` returns; it serves wherever an `ArrayStore` does as a source of batches.

    Attributes:
        store: whose images these are.
        classes: the K classes that are kept, in this order.
        size: height and width of the images, in pixels.
    """

    store: ArrayStore
    classes: tuple[str, ...]
    size: int

    def __post_init__(self) -> None:
        self._on_device: dict[torch.device, DeviceStore] = {}

    def __len__(self) -> int:
        return len(self.store)

    @property
    def columns(self) -> tuple[int, ...]:
        """Where the classes are among those of the store."""
        return tuple(self.store.classes.index(name) for name in self.classes)

    @property
    def channels(self) -> int:
        """Channels of the images, C."""
        return self.store.channels

    @property
    def table(self) -> dict[str, np.ndarray]:
        """The table of the store."""
        return self.store.table

    @property
    def source(self) -> str:
        """Where the images of the store are from."""
        return self.store.source

    @cached_property
    def labels(self) -> UInt8[np.ndarray, "n K"]:
        """{0, 1}, of the classes that are kept."""
        return np.ascontiguousarray(self.store.labels[:, list(self.columns)])

    @cached_property
    def boxes(self) -> BoxTable:
        """The boxes of the classes that are kept, in pixels of the view."""
        table = self.store.boxes
        lookup = np.full(len(self.store.classes), -1)
        lookup[list(self.columns)] = np.arange(len(self.columns))
        label = lookup[table.label]
        kept = label >= 0
        scale = self.size / self.store.size
        return BoxTable(
            row=table.row[kept],
            label=label[kept],
            xyxy=(table.xyxy[kept].astype(np.float64) * scale).astype(np.float32),
            origin=table.origin[kept],
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels take on a device."""
        return round(self.store.nbytes * (self.size / self.store.size) ** 2)

    def block(self, rows: Int64[np.ndarray, "r"]) -> DeviceStore:
        """Some rows at the store's own size; see `ArrayStore.block`. `narrowed` makes them fit."""
        return self.store.block(rows)

    def narrowed(self, block: DeviceStore) -> DeviceStore:
        """A block of the store as this view shows it, where the block is."""
        return block.narrowed(self.size, self.columns)

    def batch(
        self, rows: Int64[np.ndarray, "r"] | Int[Tensor, "r"], device: str | torch.device = "cpu"
    ) -> Batch:
        """A batch straight from the memory map."""
        block = self.block(np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows))
        block = self.narrowed(block.moved(lambda tensor: tensor.to(device)))
        return block.batch(torch.arange(len(block), device=block.device))

    def on_device(self, device: str | torch.device) -> DeviceStore:
        """The whole view as tensors on `device`, made in pieces on the first call and remembered.
        At the store's own size it shares the pixels with the store's.
        """
        device = torch.device(device)
        if self.size == self.store.size:
            return self.narrowed(self.store.on_device(device))
        if device not in self._on_device:
            step = max(1, _BLOCK_BYTES * len(self) // max(1, self.store.nbytes))
            pieces = []
            for start in range(0, len(self), step):
                block = self.block(np.arange(start, min(start + step, len(self))))
                pieces.append(self.narrowed(block.moved(lambda tensor: tensor.to(device))))
            self._on_device[device] = DeviceStore.joined(pieces)
        return self._on_device[device]

    def is_on_device(self, device: str | torch.device) -> bool:
        """Whether `on_device(device)` has been called before."""
        if self.size == self.store.size:
            return self.store.is_on_device(device)
        return torch.device(device) in self._on_device


def view(
    store: ArrayStore, *, classes: Sequence[str] | None = None, size: int | None = None
) -> StoreView:
    """A store with some of its classes, at a smaller size.

    Args:
        store: where the images are.
        classes: columns of the labels, masks and boxes that are kept; all by default.
        size: height and width of the images; no larger than the store's, which is the default.

    Raises:
        StoreError: a class the store does not have, or a size above the store's.
    """
    size = store.size if size is None else size
    classes = store.classes if classes is None else tuple(classes)
    unknown = [name for name in classes if name not in store.classes]
    if unknown:
        raise StoreError(f"expected classes of {store.classes}, got {', '.join(unknown)}")
    if not 1 <= size <= store.size:
        raise StoreError(f"size: expected 1 to the store's {store.size}, got {size}")
    return StoreView(store, classes, size)
